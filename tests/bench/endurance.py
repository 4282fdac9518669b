"""Ten minutes of bulk against the raw COPY, over a log and a table that hold 5 million rows already, autovacuum on.

In turns, always with fresh keys: a slice of ours (four connections send `recordEvents` of 1,000 events as fast as they
are answered, until the last is committed and folded), then one COPY, from prepared bytes, of the very rows that this
slice has put into the log, into a table of the log's columns whose only index is the primary key (tenant, source,
event_id), the log's own key of idempotency. So both store the same rows and payloads under the same key, and both
tables hold the same number of rows at each turn, 5 million at the first. The COPY stores bytes only: no HTTP, no
GraphQL, no validation, no outbox, no fold, no index for reading. `ratio` is its seconds divided by ours.

The preloaded log is written by SQL in the order of its keys: views of content by the same 1,200 students in the two
months before, and the folded state that follows from them exactly: of each view the last event and the last activity,
since such events move nothing else. The outbox is empty. The first slice warms up and is not counted.

Between the slices nothing is measured (requests are prepared, rows are read for the COPY); autovacuum, the checkpointer
and the walwriter go on as they will, and what they do in a slice of ours is counted as ours. "Lag" is the age of the
oldest waiting row at the end of the sending, which is the worst, and the seconds from the last answer until all is
folded. Drift compares the median of the last third of the slices with that of the first third.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import asyncpg

from rules.access import Role
from tests.bench.bulk import COPY_TABLE, copy_rows, rows_past
from tests.bench.driver import Load
from tests.bench.figures import Figures, claim, median
from tests.bench.orders import Job
from tests.bench.school import BEGAN, SPREAD, settle, token_of
from tests.bench.service import Service, spent

TENANT = 1
CONNECTIONS = 4
BATCH = 1_000
BATCHES = {"small": 3, "full": 100}  # of each connection, a slice
PRELOADED = {"small": 20_000, "full": 5_000_000}
SECONDS = {"small": 8.0, "full": 600.0}
SLICES_MIN = 4
LOOK_SECONDS = 0.5
LEAST_RATIO = 0.10
DRIFT_MAX = 1.25
"""What the lag of the last third may be, by that of the first: slices of one minute differ by a tenth or so."""

# Times are $3 + 29 days spread evenly; they happened 31 days before they were received, before any event of the bench.
PRELOAD = (
    """
insert into event_key (tenant, source, event_id, id, seq, fingerprint, received_at)
select $1, 'lms', 'before-' || to_char(n, 'fm00000000'), uuidv7(), n, decode(md5(n::text), 'hex'),
    $3::timestamptz + n * (interval '29 days' / $2::int)
from generate_series(1, $2::int) as n
""",
    """
insert into event (tenant, seq, received_at, id, source, event_id, kind, source_type, occurred_at, revision, student,
    classroom, assignment, concepts, submission, payload, recorded_by)
select $1, k.seq, k.received_at, k.id, k.source, k.event_id, 'CONTENT_VIEWED', 'CONTENT_VIEWED',
    k.received_at - interval '31 days', 0, s.student, s.classroom, s.classroom || '-w' || k.seq % 40, '{}',
    case when k.seq % 5 < 2 then k.event_id end, json_build_object('content_id', 'video-' || k.seq % 40), 'lms'
from event_key k
join (
    select student, classroom, row_number() over (order by student) - 1 as place
    from unnest($2::text[], $3::text[]) as e (student, classroom)
) s on s.place = k.seq % cardinality($2::text[])
where k.tenant = $1
order by k.seq
""",
    "update tenant_head set seq = $2 where tenant = $1",
    """
insert into view_state (tenant, classroom, student, last_occurred_at, last_revision, last_source, last_event_id,
    last_active_at)
select $1, v.classroom, e.student, e.occurred_at, e.revision, e.source, e.event_id, e.occurred_at
from event e cross join lateral (values (e.classroom), ('')) as v (classroom)
where e.tenant = $1 and e.seq > $2 - $3::int
""",
    "insert into copied select * from event where tenant = $1 order by seq",
)
LAG = """
select coalesce((
    select extract(epoch from clock_timestamp() - o.received_at)::float
    from outbox o where o.tenant = $1 order by o.seq limit 1
), 0)
"""
WAL = "select pg_current_wal_lsn() - '0/0'::pg_lsn"
TABLES = """
select case when t.relname ~ '^event_2' or t.relname like 'event_p%' then 'event' else t.relname end as name,
    sum(t.n_live_tup)::bigint as live, sum(t.n_dead_tup)::bigint as dead, sum(t.autovacuum_count)::bigint as vacuums,
    sum(t.autoanalyze_count)::bigint as analyzes, sum(pg_total_relation_size(t.relid))::bigint as bytes
from pg_stat_user_tables t group by 1 having sum(t.n_live_tup) + sum(t.n_dead_tup) > 0 order by 6 desc limit 10
"""


async def run(size: str) -> Figures:
    """Preload, then slice after slice until the time is over."""
    events = CONNECTIONS * BATCH * BATCHES[size]
    async with Service() as service:
        await settle(service.connection, TENANT, SPREAD)
        preload_seconds = await _preload(service.connection, PRELOADED[size])
        before = await _tables(service.connection)
        slices: list[dict[str, Any]] = []
        began = monotonic()
        while monotonic() - began < SECONDS[size] or len(slices) < SLICES_MIN:
            slices.append(await _slice(service, len(slices), BATCHES[size]))
            print(f"  {slices[-1]['seconds']:.1f} s of ours, {slices[-1]['copy_seconds']:.2f} s of COPY", flush=True)
        elapsed = monotonic() - began
        service.check(may_warn=True)
        # The nightly sample may begin in between; on a busy machine it gives up before a student of 4,000 events.
        warned = [line["message"] for line in service.lines("worker")]
        after = await _tables(service.connection)
        version = await service.postgres_version()
    counted = slices[1:]
    return {
        "postgres": version,
        "claims": _claims(counted, events),
        "preloaded_rows": PRELOADED[size],
        "preload_seconds": preload_seconds,
        "seconds": round(elapsed, 1),
        "events_per_slice": events,
        "tables_before": before,
        "tables_after": after,
        "slices": slices,
        "warnings": warned,
    }


def _claims(counted: list[dict[str, Any]], events: int) -> list[Figures]:
    def of(name: str) -> list[float]:
        return [one[name] for one in counted]

    def drift(name: str) -> float:
        third = max(1, len(counted) // 3)
        early, late = median(of(name)[:third]), median(of(name)[-third:])
        return round(late / early, 3) if early else 1.0

    overall = sum(of("copy_seconds")) / sum(of("seconds"))
    cpu = {part: median([one["cpu"].get(part, 0.0) / events * 1e6 for one in counted]) for part in counted[-1]["cpu"]}
    inside = {part: 0.0 for one in counted for part in one["postgres_cpu"]}
    for part in inside:
        inside[part] = median([one["postgres_cpu"].get(part, 0.0) / events * 1e6 for one in counted])
    return [
        claim("service / COPY, rate of the same rows, overall", float(f"{overall:.3g}"), least=LEAST_RATIO),
        claim("the same, lowest and highest slice", f"{min(of('ratio')):.3g} to {max(of('ratio')):.3g}"),
        claim("ratio, last third / first third", drift("ratio")),
        claim("lag at the end of the sending, last third / first third", drift("lag_seconds"), limit=DRIFT_MAX),
        claim("seconds until folded, last third / first third", drift("tail_seconds"), limit=DRIFT_MAX),
        claim("lag at the end of the sending, median", median(of("lag_seconds")), unit="s"),
        claim("events a second, until folded", median([events / seconds for seconds in of("seconds")])),
        claim("events a second, until durable", median([events / seconds for seconds in of("durable_seconds")])),
        claim("rows a second of COPY", median([events / seconds for seconds in of("copy_seconds")])),
        claim("WAL of one event", median([wal / events for wal in of("wal_bytes")]), unit="bytes"),
        claim("WAL of one row of COPY", median([wal / events for wal in of("copy_wal_bytes")]), unit="bytes"),
        claim("CPU per event", ", ".join(f"{part} {used}" for part, used in cpu.items()), unit="us"),
        claim("of Postgres", ", ".join(f"{part} {used}" for part, used in inside.items() if used), unit="us"),
    ]


async def _preload(connection: asyncpg.Connection, rows: int) -> float:
    """Write the log, its folded state and the table of COPY; returns the seconds it took."""
    started = monotonic()
    everyone = SPREAD.everyone
    students, classrooms = [student for _, student in everyone], [classroom for classroom, _ in everyone]
    await connection.execute(COPY_TABLE)
    given: list[list[Any]] = [
        [TENANT, rows, BEGAN],
        [TENANT, students, classrooms],
        [TENANT, rows],
        [TENANT, rows, len(everyone)],
        [TENANT],
    ]
    for statement, values in zip(PRELOAD, given, strict=True):
        await connection.execute(statement, *values)
    for name in ("event", "event_key", "copied"):
        found = await connection.fetchval(f"select count(*) from {name}")  # noqa: S608 - names of ours
        assert found == rows, f"expected {rows} rows in {name}, got {found}"
    assert not await connection.fetchval("select count(*) from outbox")
    await connection.execute("vacuum (analyze)")
    await connection.execute("checkpoint")
    return round(monotonic() - started, 1)


async def _slice(service: Service, number: int, batches: int) -> dict[str, Any]:
    """Ours, then COPY."""
    connection, count = service.connection, BATCH * batches
    base = await connection.fetchval("select seq from tenant_head where tenant = $1", TENANT)
    load = await Load.start(
        service.folder,
        Job(
            kind="send",
            out="",
            port=service.port,
            shape=(SPREAD.classes, SPREAD.students),
            tokens={"": token_of(TENANT, Role.INTEGRATOR, "lms")},
            name="endurance",
            first=number * count,
            lanes=CONNECTIONS,
            batch=BATCH,
            requests=batches,
        ),
    )
    wal, cpu, inside = await connection.fetchval(WAL), service.cpu_seconds(), service.postgres_cpu_seconds()
    lags: list[tuple[float, float]] = []
    await load.tell()
    async with _watched(connection, lags):
        seen = await load.seen()
    await service.until_folded(TENANT)
    ended = monotonic()
    cpu, inside = spent(cpu, service.cpu_seconds()), spent(inside, service.postgres_cpu_seconds())
    sent_wal = await connection.fetchval(WAL)
    events = CONNECTIONS * count
    assert seen.accepted == events, f"expected {events} accepted events, got {seen.accepted}"
    rows = await rows_past(connection, TENANT, base)
    copied_from = await connection.fetchval(WAL)
    copied = await copy_rows(connection, rows, events)
    seconds = ended - seen.started
    return {
        "seconds": seconds,
        "durable_seconds": seen.ended - seen.started,
        "tail_seconds": ended - seen.ended,
        "lag_seconds": max((lag for at, lag in lags if at <= seen.ended + LOOK_SECONDS), default=0.0),
        "copy_seconds": copied,
        "ratio": copied / seconds,
        "wal_bytes": int(sent_wal - wal),
        "copy_wal_bytes": int(await connection.fetchval(WAL) - copied_from),
        "cpu": cpu,
        "postgres_cpu": inside,
    }


@asynccontextmanager
async def _watched(connection: asyncpg.Connection, lags: list[tuple[float, float]]) -> AsyncIterator[None]:
    """Note the age of the oldest waiting row while the block runs, which must leave the connection alone."""

    async def look() -> None:
        async with connection.transaction():
            await connection.execute("set local enable_seqscan = off; set local enable_sort = off")
            lags.append((monotonic(), await connection.fetchval(LAG, TENANT)))

    async def keep_looking() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await look()

    looking = asyncio.create_task(keep_looking())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.wait({looking})


async def _tables(connection: asyncpg.Connection) -> dict[str, dict[str, int]]:
    """The largest tables: rows, dead rows, bytes with indexes, and how often autovacuum came."""
    await connection.execute("select pg_stat_force_next_flush()")
    found = [dict(row) for row in await connection.fetch(TABLES)]
    return {row.pop("name"): row for row in found}
