"""A backlog of 500,000 events, recorded while no worker runs, drained by the real worker: does it slow down?

Twice, each on a service of its own: once as it comes (autovacuum looks when it will), once after `ANALYZE outbox` on
the empty outbox with autovacuum off for it, so that the planner believes it empty to the end: the statistics that made
a claim read the whole outbox each time, and a backlog stand still. The worker counts the rows that it has folded; its
metrics page is read every so often, and the moments at which each tenth was done are interpolated between two looks.
The clock begins with the first rows folded, so that the start of the process is nobody's tenth. The 40 classes lie
evenly in the 4 shards: none of them is left alone at the end. A claim takes up to 5,000 rows, so tenths of a small
backlog are a claim or two and say little. What proves the plan is a test, and not timed: tests/jobs/test_drain.py.
"""

import asyncio
from itertools import pairwise
from time import monotonic
from typing import Any

import httpx

from rules.access import Role
from tests.bench.driver import Load
from tests.bench.figures import Figures, claim
from tests.bench.orders import Job
from tests.bench.school import SPREAD, settle, token_of
from tests.bench.service import Service, free_port, spent

TENANT = 1
CONNECTIONS = 4
BATCH = 1_000
BATCHES = {"small": 12, "full": 125}  # of each connection
LEAST = 0.8
LOOK_SECONDS = 0.1  # a look at a long queue costs Postgres 2 ms
DRAIN_SECONDS_MAX = 600.0
COUNTED = "worker_rows_folded_total"
BELIEVED_EMPTY = """
alter table outbox set (autovacuum_enabled = false);
analyze outbox;
"""


async def run(size: str) -> Figures:
    """Measure both."""
    figures: Figures = {"claims": []}
    for name, sql in {"ordinary": "", "believed empty": BELIEVED_EMPTY}.items():
        figures[name] = found = await _drained(sql, BATCHES[size])
        figures["postgres"] = found.pop("postgres")
        rates = found["rows_per_second_by_tenth"]
        figures["claims"] += [
            claim(f"{name}: rate of the last tenth / of the first", round(rates[-1] / rates[0], 3), least=LEAST),
            claim(f"{name}: events a second, over all", found["rows_per_second"]),
        ]
    return figures


async def _drained(sql: str, batches: int) -> dict[str, Any]:
    async with Service(settings={"METRICS_PORT": str(free_port())}) as service:
        await settle(service.connection, TENANT, SPREAD)
        await service.stop("worker")
        if sql:
            await service.connection.execute(sql)
        recorded = await _record(service, batches)
        waiting = await service.connection.fetchval("select count(*) from outbox where tenant = $1", TENANT)
        assert waiting == recorded, f"expected a backlog of {recorded}, got {waiting}"
        await service.start("worker")
        before = service.cpu_seconds()
        looks = await _looks(service, recorded)
        cpu = spent(before, service.cpu_seconds())
        await service.until_folded(TENANT)
        service.check()
        version = await service.postgres_version()
    tenths = _tenths(looks, recorded)
    return {
        "postgres": version,
        "events": recorded,
        "seconds": round(looks[-1][0] - looks[0][0], 2),
        "rows_per_second": round((recorded - looks[0][1]) / (looks[-1][0] - looks[0][0])),
        "rows_per_second_by_tenth": tenths,
        "cpu_microseconds_per_event": {part: round(used / recorded * 1e6, 1) for part, used in cpu.items()},
    }


async def _record(service: Service, batches: int) -> int:
    """Record the backlog over HTTP; returns how many events."""
    load = await Load.start(
        service.folder,
        Job(
            kind="send",
            out="",
            port=service.port,
            shape=(SPREAD.classes, SPREAD.students),
            tokens={"": token_of(TENANT, Role.INTEGRATOR, "lms")},
            name="backlog",
            lanes=CONNECTIONS,
            batch=BATCH,
            requests=batches,
        ),
    )
    await load.tell()
    seen = await load.seen()
    assert seen.accepted == CONNECTIONS * BATCH * batches, f"accepted only {seen.accepted}"
    return seen.accepted


async def _looks(service: Service, rows: int) -> list[tuple[float, int]]:
    """(moment, rows folded so far) from the first row to the last."""
    looks: list[tuple[float, int]] = []
    async with asyncio.timeout(DRAIN_SECONDS_MAX):
        while not looks or looks[-1][1] < rows:
            await asyncio.sleep(LOOK_SECONDS)
            service.check()
            try:
                folded = int((await service.worker_numbers())[COUNTED])
            except httpx.TransportError:
                continue  # the worker is starting
            if folded and (not looks or folded > looks[-1][1]):
                looks.append((monotonic(), folded))
    return looks


def _tenths(looks: list[tuple[float, int]], rows: int) -> list[int]:
    """Rows a second in each tenth of what was left at the first look."""
    first = looks[0][1]
    marks = [_moment(looks, first + (rows - first) * part / 10) for part in range(11)]
    return [round((rows - first) / 10 / (end - begin)) for begin, end in pairwise(marks)]


def _moment(looks: list[tuple[float, int]], folded: float) -> float:
    """When so many rows were folded, between two looks as if at an even rate."""
    for (began, low), (ended, high) in pairwise(looks):
        if low <= folded <= high:
            return began + (ended - began) * (folded - low) / (high - low)
    raise AssertionError(f"expected {folded} rows between the first look and the last, got {looks[0]}, {looks[-1]}")
