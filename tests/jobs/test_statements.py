"""Every statement that the product sends names one tenant in each of its queries, and finds its rows by index."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from db.tables import TENANT_TABLES
from server.embedded import EmbeddedServers
from tests.jobs.test_plans import TENANT, filled, scans
from tests.support.statements import asked_otherwise, statements, without_tenant

STATEMENTS = statements()

OF_NO_TENANT = {
    "backlog.BACKLOG": "what the operator's metrics tell of the whole queue, through functions of the owner",
    "background.UNSAMPLED": "which tenants the nightly check looks at: it finds a tenant, and works in that one",
    "background.WAITING": "where a job waits: it finds a tenant, and works in that one",
    "claims.NAME": "an advisory lock of a random name: no table",
    "closing.DUE": "who is due finds (tenant, student), and the snapshots are made in that tenant",
    "retention.TENANTS": "what is old is forgotten tenant by tenant: it finds them by number",
    "shards.DUE": "the sweep finds (tenant, class) whose moment has passed, and works in that tenant",
    "shards.MAKE_PARTITIONS": "partitions are of the log, not of a tenant",
    "shards.WAITING": "the sweep finds (tenant, shard) where rows wait, and works in that tenant",
}
"""Statements without a tenant; each asks a function of the schema that has its own rights, or no table at all."""

SENT_OTHERWISE = {
    "boards": {"statement"},  # BOARD, or a part of it
    "catalog": {"statement"},  # SUBJECT_KEYS or CONCEPT_KEYS
    "changes": {"statement"},  # the positions and the standings, chosen by the kind of stream
    "health": {"'select 1'"},
    "outbox": {"BY_PLACE"},  # a setting
    "migrate": None,  # run once by the owner before anything starts
    "pages": {"statement"},  # CLASS_PAGE or STUDENT_PAGE, or a part of it
    "pool": None,  # BEGIN with its settings, COMMIT, ROLLBACK
}
"""What is sent and is no constant: of these modules, these arguments (None = whatever it says)."""

TINY = {
    "tenant": "one row a tenant",
    "tenant_head": "one row a tenant",
    "subject": "the catalog, tens of rows",
    "concept": "the catalog, hundreds of rows",
    "concept_prerequisite": "the catalog, hundreds of rows",
    "school": "tens of rows",
}
"""Tables of which all rows of a tenant may be read at once."""

_VERIFIES = "a verification of the whole tenant"
_INCIDENT = "a list for those who repair, newest first; an index by time would be paid by every intake"
WHOLE: dict[str, dict[str, str]] = {
    "background.UNFINISHED": {"job": "the partial index holds the unfinished ones alone, a hundred at most"},
    "drift.COUNTS": {"student": _VERIFIES, "classroom": _VERIFIES},
    "drift.WAITING": {"outbox": "what waits for some keys: no index by student slows recording down for a check"},
    "ingestion.BACKLOG": {"outbox": "counts all that waits, for those who run the intake"},
    "ingestion.CONFLICTS": {"conflict": _INCIDENT},
    "ingestion.DEAD_LETTERS": {"dead_letter": _INCIDENT},
    "ingestion.WAITING_CORRECTIONS": {"correction": _INCIDENT},
    "inventory.CLASSES": {"classroom_state": _VERIFIES},
    "inventory.CLASSROOMS": {"classroom": _VERIFIES},
    "inventory.STUDENTS": {"student": _VERIFIES},
    "inventory.VIEW_KEYS": {"view_state": _VERIFIES, "work": _VERIFIES, "standing": _VERIFIES},
    "outbox.EXPAND": {"student": "a new default of the tenant touches every student, once"},
}
"""Statements that read all that a tenant has of a table, and why."""


# Rows in the tables that the fold's backlog leaves empty: without any, every index is as good as another.
FILL_MORE = """
insert into school (tenant, school, name) select t, 'school-' || n, ''
from generate_series(1, 2) t, generate_series(1, 20) n;
insert into classroom (tenant, classroom, school, name, created_at)
select t, 'c' || n, 'school-' || n % 20, '', now() from generate_series(1, 2) t, generate_series(1, 2000) n;
insert into person (tenant, person, display_name)
select t, 'c' || c || '-s' || s, 'somebody'
from generate_series(1, 2) t, generate_series(1, 40) c, generate_series(1, 30) s;
insert into guardian_link (tenant, guardian, student, consent_at)
select t, 'g' || n, 'c' || n % 40 + 1 || '-s' || n % 30, now() from generate_series(1, 2) t, generate_series(1, 2000) n;
insert into assignment (tenant, assignment, classroom, title, created_at)
select t, 'a' || n, 'c' || n % 40, '', now() from generate_series(1, 2) t, generate_series(1, 2000) n;
insert into classroom_policy (tenant, classroom, version, model, recent_percent, success_threshold, mastery_threshold,
    min_evidence, inactivity_days, created_at, created_by)
select t, 'c' || n, v, 'm', 1, 1, 1, 1, 1, now(), ''
from generate_series(1, 2) t, generate_series(1, 700) n, generate_series(1, 3) v;
insert into event_key (tenant, source, event_id, id, seq, fingerprint, received_at)
select t, 'lms', 'e' || n, uuidv7(), n, '', now() from generate_series(1, 2) t, generate_series(1, 5000) n;
insert into correction (tenant, target_source, target_event_id, source, event_id, kind, seq, reason, at,
    target_submission,
    student, classroom, assignment)
select t, 'lms', 'e' || n, 'lms', 'x' || n, 'EVENT_VOIDED', n, '', now(), 's' || n, 'c1-s' || n % 30, 'c1', 'a' || n
from generate_series(1, 2) t, generate_series(1, 2000) n;
insert into conflict (tenant, source, event_id, sent_hash, stored_hash, seq, first_at, last_at)
select t, 'lms', 'e' || n, '', '', n, now(), now() from generate_series(1, 2) t, generate_series(1, 2000) n;
insert into dead_letter (tenant, source, event_id, seq, student, classroom, error, at)
select t, 'lms', 'e' || n, n, '', '', '', now() from generate_series(1, 2) t, generate_series(1, 2000) n;
insert into unrostered (tenant, seq, source, event_id, student, classroom, received_at)
select t, n, 'lms', 'e' || n, 'u' || n % 700, 'c' || n % 700, now()
from generate_series(1, 2) t, generate_series(1, 2000) n;
insert into student_state (tenant, student) select tenant, student from student;
insert into daily_index (tenant, student, day, score, coverage)
select tenant, student, date '2026-01-01' + n, 1, 1 from student, generate_series(1, 5) n;
insert into classroom_state (tenant, classroom, reassess_at) select tenant, classroom, now() from classroom;
insert into risk_flag (tenant, classroom, student, reason)
select tenant, classroom, student, 'INACTIVE' from view_state where classroom <> '';
insert into risk_change (tenant, classroom, no, student, reason, change, at)
select t, 'c' || n % 40, n, 'c1-s1', 'INACTIVE', 'RAISED', now()
from generate_series(1, 2) t, generate_series(1, 3000) n;
insert into job (tenant, job, kind, scope, state, requested_by, created_at)
select t, 'j' || n, 'VERIFY', 'TENANT',
    case when n < 20 then 'QUEUED' else 'DONE' end, 'u' || n % 50, now() + n * interval '1 second'
from generate_series(1, 2) t, generate_series(1, 2000) n;
insert into drift_report (tenant, report, job, classroom, compared, different, at)
select t, 'r' || n, 'j' || n, 'c1', 1, 0, now() + n * interval '1 second'
from generate_series(1, 2) t, generate_series(1, 2000) n;
insert into claim (tenant, shard, token, first_seq, last_seq, rows, attempts, at)
select t, n % 4, 't' || n, n, n, 1, 1, now() from generate_series(1, 2) t, generate_series(1, 1000) n;
"""
EVERY_MONTH = r"""
select format(
    $$insert into %I select * from (select (jsonb_populate_record(e, jsonb_build_object('received_at', %L))).*
      from event e where e.received_at = '2026-03-09 08:00+00' and e.seq <= 800) x$$,
    c.relname, substring(pg_get_expr(c.relpartbound, c.oid) from $$FROM \('([^']+)'$$)) as statement
from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'event'::regclass and pg_get_expr(c.relpartbound, c.oid) like 'FOR VALUES FROM%'
    and c.relname <> 'event_2026_03'
"""


SECOND_COLUMNS = """
select c.relname as index, a.attname as second
from pg_index i join pg_class c on c.oid = i.indexrelid
join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[1]
where c.relnamespace = 'public'::regnamespace
"""


@dataclass(frozen=True, slots=True)
class School:
    """A filled database, and what comes after the tenant in each of its indexes."""

    connection: asyncpg.Connection
    second: dict[str, str]


@pytest.fixture(scope="module")
async def school(servers: EmbeddedServers) -> AsyncIterator[School]:
    """A small filled database; scans are off, so that a plan scans only what no index leads to."""
    url = await filled(servers.addresses.database_url, "analyzed full", events=10_000)
    connection = await asyncpg.connect(url)
    await connection.execute(FILL_MORE)
    for row in await connection.fetch(EVERY_MONTH):
        await connection.execute(row["statement"])
    await connection.execute("analyze")
    await connection.execute(
        "set role sightline_app; set enable_seqscan = off; set plan_cache_mode = force_generic_plan"
    )
    await connection.execute(f"set sightline.tenant = '{TENANT}'")
    yield School(connection, {row["index"]: row["second"] for row in await connection.fetch(SECOND_COLUMNS)})
    await connection.close()


async def unindexed(school: School, statement: str) -> dict[str, str]:
    """By table: a look into it that goes by no index, or by the tenant alone where a tenant has many rows."""
    plan = await generic_plan(school.connection, statement)
    wrong = {}
    first = list(first_of_an_order(plan))
    for scan in scans(plan):
        if scan["Node Type"] in ("Bitmap Heap Scan", "ModifyTable", "Tid Scan") or scan in first:
            continue
        condition, table = scan.get("Index Cond", ""), table_of(scan)
        # An index may be gone through for a later column, too: by all that stands between.
        second = school.second.get(scan.get("Index Name", ""), "tenant")
        names = set(re.findall(r"[a-z_]+", condition))
        if "tenant" not in names or (second not in names and table not in TINY):
            wrong[table] = f"{scan['Node Type']} by {scan.get('Index Name')}: {condition or 'no condition'}"
    return wrong


async def generic_plan(connection: asyncpg.Connection, statement: str) -> dict[str, Any]:
    """The plan for any values, as a prepared statement gets it."""
    count = max((int(number) for number in re.findall(r"\$(\d+)", statement)), default=0)
    nothing = f"({', '.join(['null'] * count)})" if count else ""
    await connection.execute(f"prepare asked as {statement}")
    try:
        text = await connection.fetchval(f"explain (format json) execute asked{nothing}")
    finally:
        await connection.execute("deallocate asked")
    (found,) = json.loads(text)
    plan: dict[str, Any] = found["Plan"]
    return plan


def table_of(scan: dict[str, Any]) -> str:
    """The table that a scan looks into; a partition's is the log."""
    name = str(scan.get("Relation Name") or scan["Index Name"])
    if re.match(r"event_(\d|default)", name):
        return "event"
    return max((table for table in TENANT_TABLES if f"{name}_".startswith(f"{table}_")), key=len)


INDEX_SCANS = ("Index Scan", "Index Only Scan")


def first_of_an_order(plan: dict[str, Any], *, is_limited: bool = False) -> Iterator[dict[str, Any]]:
    """The scans that give the first rows in the order of their index and then stop."""
    kind = plan["Node Type"]
    is_limited = kind == "Limit" or (is_limited and kind in ("Result", "Subquery Scan", "LockRows", *INDEX_SCANS))
    if is_limited and kind in INDEX_SCANS and "tenant" in plan.get("Index Cond", ""):
        yield plan
    for part in plan.get("Plans", ()):
        yield from first_of_an_order(part, is_limited=is_limited)


@pytest.mark.feature("003-19")
@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_names_one_tenant_in_each_of_its_queries(name: str) -> None:
    wrong = without_tenant(STATEMENTS[name])

    assert wrong == []
    assert name in OF_NO_TENANT or re.search(r"\$1\b", STATEMENTS[name])


@pytest.mark.feature("003-19")
@pytest.mark.parametrize("name", [name for name in STATEMENTS if name not in OF_NO_TENANT])
async def test_a_statement_finds_its_rows_by_index(school: School, name: str) -> None:
    wrong = await unindexed(school, STATEMENTS[name])

    assert wrong.keys() <= WHOLE.get(name, {}).keys(), wrong


def test_every_statement_that_db_sends_is_one_of_these() -> None:
    strange = [
        asked
        for asked in asked_otherwise()
        if asked.argument not in (SENT_OTHERWISE.get(asked.module, set()) or {asked.argument})
        or asked.module not in SENT_OTHERWISE
    ]

    assert strange == []


async def test_the_exceptions_are_all_needed(school: School) -> None:
    plans = {name: (await unindexed(school, STATEMENTS[name])) for name in WHOLE}

    assert [name for name in OF_NO_TENANT if re.search(r"\btenant = \$1", STATEMENTS[name])] == []
    assert {name: set(tables) - plans[name].keys() for name, tables in WHOLE.items()} == {name: set() for name in WHOLE}


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [
        ("select 1 from event e where e.tenant = $1", []),
        ("select 1 from event where student = $2", ["event event"]),
        ("select 1 from event e join student s on s.tenant = e.tenant where e.tenant = $1", ["student s"]),
        ("select 1 from event e where e.tenant = $1 and exists (select from work w where w.item = $2)", ["work w"]),
        ("with x as (select * from work where tenant = $2) select * from x", ["work work"]),
        ("select 1 from event where tenant = $1 union select 1 from work", ["work work"]),
        ("update job set state = '' where job = $2", ["job job"]),
        ("delete from job j where j.job = $2 -- tenant = $1", ["job j"]),
        ("insert into job (tenant, job) values ($2, $1)", ["insert into job"]),
        ("insert into job (tenant, job) select $1, w.student from work w", ["work w"]),
    ],
)  # fmt: skip
def test_a_query_without_its_tenant_is_found(statement: str, wrong: list[str]) -> None:
    assert without_tenant(statement) == wrong


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("select 1 from event where tenant = $1 and submission = $2", "event"),  # third in an index
        ("select 1 from outbox where tenant = $1 order by received_at limit 5", "outbox"),
        ("select 1 from person where tenant = $1 and display_name = $2", "person"),
        ("select 1 from unnest($2::text[]) s (k) join classroom c on c.tenant = $1 and c.name = s.k", "classroom"),
    ],
)
async def test_a_statement_without_an_index_is_found(school: School, statement: str, table: str) -> None:
    assert (await unindexed(school, statement)).keys() == {table}
