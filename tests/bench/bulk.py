"""Bulk end to end against the raw COPY: HTTP `recordEvents`, durable, folded, committed, until the outbox is empty.

A is the service: four connections send batches of 1,000 events to one api process, one worker folds, and the clock
stops when nothing waits in the outbox. B is what Postgres can do at best with the same rows: one COPY, from prepared
bytes, of the very rows that A has just put into its log, into a table with the log's columns whose only index is the
primary key (tenant, source, event_id). Both run on the same durable server, right after a checkpoint, in one
interleaved run (A B A B ...); each pair gives a ratio, and the median of those is told. Both tables grow from pair to
pair alike, so that later pairs meet indexes and standings that are there; a first pair warms up and is not counted.
B stores bytes only: no HTTP, no GraphQL, no validation, no outbox, no fold. The ratio says what all that costs.

Each student's events come from one connection in order of time, as from an importer; two shapes: 40 classes of 30
spread over the shards, and one class of 1,255, which one shard folds alone. A second run, with timers inside both
processes, says where the time goes; its rates are not told.
"""

import io
import json
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg

from rules.access import Role
from tests.bench.driver import Load
from tests.bench.figures import Figures, claim, median
from tests.bench.orders import Job
from tests.bench.school import ONE_CLASS, SPREAD, Shape, settle, token_of
from tests.bench.service import TIMED, Service, spent

CONNECTIONS = 4
BATCH = 1_000
BATCHES = {"small": 2, "full": 10}  # of each connection, a pair
PAIRS = {"small": 2, "full": 5}
SHAPES = {"spread": SPREAD, "one_class": ONE_CLASS}

COPY_TABLE = """
create table copied (like event);
alter table copied add primary key (tenant, source, event_id);
"""
ROWS = "select * from event where tenant = $1 and seq > $2 order by seq"


async def run(size: str) -> Figures:
    """Measure both shapes, then where their time goes."""
    figures: Figures = {"claims": []}
    for name, shape in SHAPES.items():
        figures[name] = found = await _pairs(shape, batches=BATCHES[size], pairs=PAIRS[size])
        figures["postgres"] = found.pop("postgres")
        found["where_the_time_goes"] = await _profile(shape, batches=BATCHES[size])
        figures["claims"] += [
            claim(f"{name}: service / COPY, time for the same rows (median of pairs)", found["ratio"]),
            claim(f"{name}: events a second, until folded", found["events_per_second"]),
            claim(f"{name}: events a second, until durable", found["durable_per_second"]),
            claim(f"{name}: rows a second of COPY", found["copied_per_second"]),
            claim(
                f"{name}: CPU per event",
                ", ".join(f"{part} {used}" for part, used in found["cpu_microseconds_per_event"].items()),
                unit="us",
            ),
        ]
    return figures


async def _pairs(shape: Shape, *, batches: int, pairs: int) -> dict[str, Any]:
    """The interleaved run of one shape."""
    events = CONNECTIONS * BATCH * batches
    taken = []
    async with Service() as service:
        await settle(service.connection, tenant := 1, shape)
        await service.connection.execute(COPY_TABLE)
        for pair in range(pairs + 1):
            base = await _head(service.connection, tenant)
            ours = await _send(service, tenant, shape, pair=pair, batches=batches)
            rows = await rows_past(service.connection, tenant, base)
            await service.connection.execute("checkpoint")
            copied = await copy_rows(service.connection, rows, events)
            taken.append({**ours, "copy_seconds": copied, "ratio": ours["seconds"] / copied})
        service.check()
        version = await service.postgres_version()
    counted = taken[1:]
    return {
        "postgres": version,
        "events_per_pair": events,
        "ratio": median([one["ratio"] for one in counted]),
        "events_per_second": median([events / one["seconds"] for one in counted]),
        "durable_per_second": median([events / one["durable_seconds"] for one in counted]),
        "copied_per_second": median([events / one["copy_seconds"] for one in counted]),
        "cpu_microseconds_per_event": {
            part: median([one["cpu"][part] / events * 1e6 for one in counted]) for part in counted[0]["cpu"]
        },
        "pairs": counted,
    }


async def _send(service: Service, tenant: int, shape: Shape, *, pair: int, batches: int) -> dict[str, Any]:
    """A: send, and wait until all is folded."""
    count = BATCH * batches
    load = await Load.start(
        service.folder,
        Job(
            kind="send",
            out="",
            port=service.port,
            shape=(shape.classes, shape.students),
            tokens={"": token_of(tenant, Role.INTEGRATOR, "lms")},
            name="bulk",
            first=pair * count,
            lanes=CONNECTIONS,
            batch=BATCH,
            requests=batches,
        ),
    )
    await service.connection.execute("checkpoint")
    before = service.cpu_seconds()
    await load.tell()
    seen = await load.seen()
    await service.until_folded(tenant)
    ended = monotonic()
    events = CONNECTIONS * count
    assert seen.accepted == events, f"expected {events} accepted events, got {seen.accepted}"
    return {
        "seconds": ended - seen.started,
        "durable_seconds": seen.ended - seen.started,
        "cpu": spent(before, service.cpu_seconds()),
    }


async def _head(connection: asyncpg.Connection, tenant: int) -> int:
    return int(await connection.fetchval("select seq from tenant_head where tenant = $1", tenant))


async def rows_past(connection: asyncpg.Connection, tenant: int, base: int) -> io.BytesIO:
    """The rows of the log past a position, as COPY takes them."""
    rows = io.BytesIO()
    await connection.copy_from_query(ROWS, tenant, base, output=rows)
    rows.seek(0)
    return rows


async def copy_rows(connection: asyncpg.Connection, rows: io.BytesIO, events: int) -> float:
    """B: the rows, copied in one statement; returns its seconds, the commit included."""
    started = monotonic()
    done = await connection.copy_to_table("copied", source=rows)
    seconds = monotonic() - started
    assert done == f"COPY {events}", f"expected {events} rows, got {done}"
    return seconds


async def _profile(shape: Shape, *, batches: int) -> dict[str, Any]:
    """Where the time goes: the same twice with timers inside, the first to warm up."""
    async with Service(program=TIMED) as service:
        await settle(service.connection, tenant := 1, shape)
        await _send(service, tenant, shape, pair=0, batches=batches)
        ours = await _send(service, tenant, shape, pair=1, batches=batches)
        await service.stop()
        timers = {kind: _timers(service.folder / f"{kind}.timers.json") for kind in ("api", "worker")}
    return {"cpu_seconds_of_second_half": ours["cpu"], "seconds_of_second_half": ours["seconds"], **timers}


def _timers(path: Path) -> dict[str, Any]:
    """Seconds and calls by name, the longest first, with each statement's share of all statements' time."""
    found = json.loads(path.read_text())
    total = sum(seconds for _, seconds in found["statements"].values())

    def rows(table: dict[str, tuple[int, float]]) -> dict[str, dict[str, float]]:
        ordered = sorted(table.items(), key=lambda entry: -entry[1][1])
        return {name: {"calls": calls, "seconds": round(seconds, 3)} for name, (calls, seconds) in ordered}

    statements = rows(found["statements"])
    for row in statements.values():
        row["share"] = round(row["seconds"] / total, 3)
    return {"steps": rows(found["steps"]), "statements": statements, "missing": found["missing"]}
