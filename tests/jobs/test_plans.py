"""The fold's statements find their rows by index, whatever the planner knows about the tables."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime
from itertools import count
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from db import assessment, corrections, facts, outbox, projection
from db.migrate import make_partitions, migrate
from server.embedded import EmbeddedServers

TENANT = 1
AT = datetime(2026, 3, 2, 8, tzinfo=UTC)
RECEIVED = datetime(2026, 3, 9, 8, tzinfo=UTC)

# A backlog of 50,000 events of 1,200 students in 40 classes, and a tenant of the same size that must not be read.
FILL = """
insert into student (tenant, student, created_at)
select t, 'c' || c || '-s' || s, $1 from generate_series(1, 2) t, generate_series(1, 40) c, generate_series(1, 30) s;
insert into enrollment (tenant, classroom, person, role, started)
select t, 'c' || c, 'c' || c || '-s' || s, 'STUDENT', date '2025-09-01'
from generate_series(1, 2) t, generate_series(1, 40) c, generate_series(1, 30) s;
insert into view_state (tenant, student, classroom)
select t, 'c' || c || '-s' || s, k
from generate_series(1, 2) t, generate_series(1, 40) c, generate_series(1, 30) s,
    lateral (values ('c' || c), ('')) as v (k);
insert into standing (tenant, student, classroom, concept, count, earlier_sum, successes, quiz_attempts, rank,
    time_spent_ms, policy_version, class_change, student_change)
select t, 'c' || c || '-s' || s, k, 'concept-' || n, 1, 0, 0, 0, 0, 0, 1, n, n
from generate_series(1, 2) t, generate_series(1, 40) c, generate_series(1, 30) s, generate_series(1, 10) n,
    lateral (values ('c' || c), ('')) as v (k);
insert into work (tenant, student, classroom, item)
select t, 'c' || c || '-s' || s, 'c' || c, 'c' || c || '-w' || n
from generate_series(1, 2) t, generate_series(1, 40) c, generate_series(1, 30) s, generate_series(1, 10) n;
insert into event (tenant, seq, received_at, id, source, event_id, kind, occurred_at, revision, student, classroom,
    submission, ratio, payload, recorded_by)
select t, n, $2, uuidv7(), 'lms', 'e' || n, 'SUBMISSION_GRADED', $1 + n * interval '1 second', 0,
    'c' || n % 40 + 1 || '-s' || n / 40 % 30 + 1, 'c' || n % 40 + 1, 's' || n, 500000, '{}', 'lms'
from generate_series(1, 2) t, generate_series(1, 50000) n;
insert into outbox (tenant, shard, lane, occurred_at, seq, kind, student, classroom, received_at)
select t, n % 16, 0, $1 + n * interval '1 second', n, 'EVENT', 'c' || n % 40 + 1 || '-s' || n / 40 % 30 + 1,
    'c' || n % 40 + 1, $2
from generate_series(1, 2) t, generate_series(1, 50000) n;
"""

_students = [f"c1-s{number}" for number in range(1, 31)]
_classes = ["c1"] * 30
STATEMENTS: dict[str, tuple[str, list[Any]]] = {
    "CLAIM": (outbox.CLAIM, [TENANT, 3, 5_000]),
    "CLAIMED_EVENTS": (
        facts.CLAIMED_EVENTS,
        [TENANT, list(range(1, 501)), [RECEIVED] * 500, RECEIVED, RECEIVED],
    ),
    "MARKS": (
        facts.MARKS,
        [
            TENANT,
            ["lms"] * 30,
            ["e1"] * 30,
            ["QUIZ_ATTEMPT"] * 30,
            _students,
            _classes,
            ["a"] * 30,
            [None] * 30,
            [1] * 30,
            ["s1"] * 30,
        ],
    ),
    "OUTLOOK": (facts.OUTLOOK, [TENANT, ["lms"] * 30, ["e1"] * 30, _students, ["s1"] * 30, list(range(30))]),
    "LOG_OF_STUDENTS": (facts.LOG_OF_STUDENTS, [TENANT, _students]),
    "REGRADES": (facts.REGRADES, [TENANT, [3, 7, 11]]),
    "EVENT_TARGETS": (corrections.EVENT_TARGETS, [TENANT, [1], ["lms"], ["e1"]]),
    "SUBMISSION_TARGETS": (corrections.SUBMISSION_TARGETS, [TENANT, [1], ["lms"], ["s1"], [""], ["QUIZ_ATTEMPT"]]),
    "ITEM_TARGETS": (corrections.ITEM_TARGETS, [TENANT, [1], ["c1-s1"], ["c1"], ["hw1"], ["QUIZ_ATTEMPT"]]),
    "VIEWS": (projection.VIEWS, [TENANT, _students, _classes]),
    "STANDINGS": (projection.STANDINGS, [TENANT, _students, _classes, ["concept-1"] * 30, _students, _classes]),
    "WORKS": (projection.WORKS, [TENANT, _students, _classes, ["c1-w1"] * 30, _students, _classes]),
    "MEMBERS": (assessment.MEMBERS, [TENANT, ["c1", "c2"], [date(2026, 3, 2)] * 2]),
}
# What every look into a table must go by, beside the tenant; any of these columns.
PLACES = {
    "outbox": ("shard",),
    "event": ("seq", "student", "source"),
    "event_key": ("source",),
    "view_state": ("student",),
    "standing": ("student",),
    "work": ("student",),
    "enrollment": ("classroom", "person"),
    "student": ("student",),
    "correction": ("target_source", "student"),
    "dead_letter": ("source",),
}
_numbers = count(1)


async def filled(server_url: str, knowledge: str, *, events: int = 50_000) -> str:
    """A database of its own with a backlog; `knowledge` says when its tables were analyzed, or that they are empty."""
    name = f"plans_{next(_numbers)}"
    owner = await asyncpg.connect(server_url)
    await owner.execute(f"create database {name}")
    await owner.close()
    url = urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    await migrate(url)
    await make_partitions(url, first_day=date(2026, 2, 1), months=4)
    connection = await asyncpg.connect(url)
    try:
        for table in await _leaves(connection):
            await connection.execute(f"alter table {table} set (autovacuum_enabled = false)")
        if knowledge == "empty":
            return url
        if knowledge == "analyzed empty":
            await connection.execute("analyze")
        for statement in FILL.replace("50000", str(events)).split(";")[:-1]:
            await connection.execute(
                statement.replace("$1", f"timestamptz '{AT}'").replace("$2", f"timestamptz '{RECEIVED}'")
            )
        if knowledge == "analyzed full":
            await connection.execute("analyze")
    finally:
        await connection.close()
    return url


async def _leaves(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch(
        "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    )
    return [row["relname"] for row in rows]


async def plan_of(connection: asyncpg.Connection, name: str, *, is_generic: bool) -> dict[str, Any]:
    """The plan as the pool would get it: for these values, or for any (what a prepared statement turns to)."""
    statement, values = STATEMENTS[name]
    async with connection.transaction():
        await connection.execute("set local jit = off; set local role sightline_app")
        await connection.execute(f"set local sightline.tenant = '{TENANT}'")
        await connection.execute(outbox.CLAIM_SETTINGS)
        if not is_generic:
            text = await connection.fetchval(f"explain (format json) {statement}", *values)
        else:
            await connection.execute("set local plan_cache_mode = force_generic_plan")
            await connection.execute(f"prepare asked as {statement}")
            nothing = ", ".join(["null"] * len(values))
            text = await connection.fetchval(f"explain (format json) execute asked ({nothing})")
            await connection.execute("deallocate asked")
    (found,) = json.loads(text)
    plan: dict[str, Any] = found["Plan"]
    return plan


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every look into a table."""
    if "Index Cond" in plan or "Relation Name" in plan:
        yield plan
    for part in plan.get("Plans", ()):
        yield from scans(part)


def complaints(plan: dict[str, Any]) -> list[str]:
    """The looks into a table that do not go by tenant and a place within it."""
    wrong = []
    for scan in scans(plan):
        if scan["Node Type"] == "Bitmap Heap Scan":
            continue  # its index stands below it
        condition = scan.get("Index Cond", "")
        table = _table_of(scan)
        if "tenant" not in condition or not any(column in condition for column in PLACES[table]):
            wrong.append(f"{scan['Node Type']} of {table} by {scan.get('Index Name')}: {condition or 'no condition'}")
    return wrong


def _table_of(scan: dict[str, Any]) -> str:
    name = str(scan.get("Relation Name") or scan["Index Name"])
    return next(table for table in sorted(PLACES, key=len, reverse=True) if name.startswith(table))


@pytest.fixture(scope="module", params=["never analyzed", "analyzed empty", "analyzed full"])
async def backlog(servers: EmbeddedServers, request: pytest.FixtureRequest) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a backlog of which the planner knows nothing, something wrong, or all."""
    connection = await asyncpg.connect(await filled(servers.addresses.database_url, request.param))
    yield connection
    await connection.close()


@pytest.mark.feature("000-08")
@pytest.mark.parametrize("is_generic", [False, True], ids=["these values", "any values"])
@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_fold_goes_by_tenant_and_place_into_every_table(
    backlog: asyncpg.Connection, name: str, is_generic: bool
) -> None:
    plan = await plan_of(backlog, name, is_generic=is_generic)

    assert list(scans(plan)) != []
    assert complaints(plan) == []


@pytest.mark.feature("000-08")
async def test_a_claim_of_a_backlog_reads_the_outbox_in_fold_order_without_sorting(backlog: asyncpg.Connection) -> None:
    plan = await plan_of(backlog, "CLAIM", is_generic=True)

    assert [scan["Index Name"] for scan in scans(plan)] == ["outbox_pkey"]
    assert not any("Sort" in part["Node Type"] for part in _parts(plan))


@pytest.mark.feature("000-08")
@pytest.mark.parametrize("is_generic", [False, True], ids=["these values", "any values"])
async def test_a_plan_made_for_the_first_standing_serves_the_thousandth(
    servers: EmbeddedServers, is_generic: bool
) -> None:
    connection = await asyncpg.connect(await filled(servers.addresses.database_url, "empty"))
    try:
        plan = await plan_of(connection, "STANDINGS", is_generic=is_generic)
    finally:
        await connection.close()

    conditions = [set(re.findall(r"\b(tenant|student|classroom|concept) =", s["Index Cond"])) for s in scans(plan)]
    assert conditions == [{"tenant", "student", "classroom", "concept"}, {"tenant", "student", "classroom"}]
    assert not any("Sort" in part["Node Type"] for part in _parts(plan))


def _parts(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _parts(part)
