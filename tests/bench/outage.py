"""Recording while Redis is away: single `recordEvent` at 200 a second, each at its moment, in four spells of one run.

Redis is up, then frozen (SIGSTOP), up again, then gone (kill -9, and nobody starts it). A wait is counted from the
moment at which the request was due until its answer is read, so that a stall is met by all who would have come in it;
the answer means committed, as ever. Nothing else is on the machine but the fold of the same events, which the sweep
finds while nobody wakes the worker. The spells follow one another on the same processes, pools and tables; the first
second after each change of Redis belongs to the spell that it begins, for the moment of the loss is part of an outage.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from time import monotonic

from rules.access import Role
from tests.bench.driver import Load
from tests.bench.figures import Figures, claim, milliseconds
from tests.bench.orders import Job, Seen
from tests.bench.school import SPREAD, settle, token_of
from tests.bench.service import Service

TENANT = 1
PER_SECOND = 200
SPELL_SECONDS = {"small": 3.0, "full": 20.0}
WARM_UP_SECONDS = 2.0
RECENT = 25_000_000
LIMIT_MS = 500.0
SPELLS = ("up", "frozen", "up again", "gone")


async def run(size: str) -> Figures:
    """Measure."""
    spell = SPELL_SECONDS[size]
    total = WARM_UP_SECONDS + len(SPELLS) * spell
    async with Service() as service:
        await settle(service.connection, TENANT, SPREAD)
        load = await Load.start(
            service.folder,
            Job(
                kind="pace",
                out="",
                port=service.port,
                shape=(SPREAD.classes, SPREAD.students),
                tokens={"": token_of(TENANT, Role.INTEGRATOR, "lms")},
                name="outage",
                first=RECENT,
                requests=round(PER_SECOND * total),
                per_second=PER_SECOND,
            ),
        )
        await load.tell()
        began = monotonic()
        await asyncio.sleep(WARM_UP_SECONDS)
        away: dict[str, Callable[[], AbstractAsyncContextManager[None]]] = {
            "frozen": service.redis_frozen,
            "gone": service.redis_gone,
        }
        begins: list[float] = []  # of each spell, after the start
        for name in SPELLS:
            begins.append(monotonic() - began)
            async with away.get(name, nullcontext)():
                await asyncio.sleep(max(0.0, WARM_UP_SECONDS + len(begins) * spell - (monotonic() - began)))
        seen = await load.seen()
        await service.until_folded(TENANT)
        service.check(may_warn=True)
        version = await service.postgres_version()
    count = round(PER_SECOND * total)
    assert seen.accepted == count, f"expected {count} accepted events, got {seen.accepted}"
    waits = {name: milliseconds(found) for name, found in _by_spell(seen, begins).items()}
    return {
        "postgres": version,
        "claims": [
            claim("p99 of recordEvent, Redis up", waits["up"]["p99"], unit="ms"),
            claim("p99 of recordEvent, Redis frozen", waits["frozen"]["p99"], unit="ms", limit=LIMIT_MS),
            claim("p99 of recordEvent, Redis gone", waits["gone"]["p99"], unit="ms", limit=LIMIT_MS),
            claim("p99 of recordEvent, Redis up again", waits["up again"]["p99"], unit="ms"),
            claim("the slowest of all", max(one["max"] for one in waits.values()), unit="ms"),
        ],
        "events": count,
        "events_per_second": PER_SECOND,
        "milliseconds": waits,
        "late_start_milliseconds": milliseconds(seen.late_seconds),
    }


def _by_spell(seen: Seen, begins: list[float]) -> dict[str, list[float]]:
    """Waits by the spell in which they were due; the warm-up is left out."""
    found: dict[str, list[float]] = {name: [] for name in SPELLS}
    for due, wait in seen.waits:
        begun = [name for name, begin in zip(SPELLS, begins, strict=True) if due >= begin]
        if begun:
            found[begun[-1]].append(wait)
    return found
