"""The daily snapshots of the mastery index: whose days are due, what an index is made of, and the rows it leaves."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import asyncpg
import msgspec

from db.assessment import CLOSE_AFTER
from db.pool import Connection, Pool, lent
from rules.corrections import Item, Name
from rules.details import Detail, detail_of
from rules.index import MasteryIndex
from rules.roster import Difficulty

DUE = "select tenant, student from due_students($1, $2)"
REOPEN = """
update student_state set closed_until = null, close_at = least(close_at, $3)
where tenant = $1 and student = any($2::text[])
"""

# Whoever folds or closes one of them has the lock: it goes on being due, or will not be.
LOCK = """
select s.student, s.closed_until from student_state s
where s.tenant = $1 and s.student = any($2::text[]) and s.close_at <= $3
order by s.student for update skip locked
"""

ZONES = """
select s.student, coalesce(s.zone, t.zone) as zone, t.zone as tenant_zone
from tenant t join student s on s.tenant = $1 and s.student = any($2::text[])
where t.tenant = $1
"""
TENANT_ZONE = "select zone from tenant where tenant = $1"

# Of most grades and assignments nothing is read: what the index asks stands in few payloads.
DETAILS = """
select e.source, e.event_id, e.student, e.payload from event e
where e.tenant = $1 and e.student = any($2::text[]) and (
    e.kind in ('EXERCISE_COMPLETED', 'QUALITY_ASSESSED')
    or e.kind = 'SUBMISSION_GRADED' and e.payload ->> 'metadata' like '%rubric%'
    or e.kind = 'ASSIGNMENT_ASSIGNED' and e.payload ->> 'difficulty' is not null
)
"""

DIFFICULTIES = """
select a.classroom, a.assignment, a.difficulty from assignment a
where a.tenant = $1 and a.assignment = any($2::text[]) and a.difficulty is not null
"""

STORED = """
select student, day, score, coverage, completion, quiz, quality, consistency from daily_index
where tenant = $1 and student = any($2::text[])
"""

SAVE = """
insert into daily_index (tenant, student, day, score, coverage, completion, quiz, quality, consistency)
select $1, w.* from unnest(
    $2::text[], $3::date[], $4::int[], $5::int[], $6::int[], $7::int[], $8::int[], $9::int[]) as w
on conflict (tenant, student, day) do update set
    score = excluded.score, coverage = excluded.coverage, completion = excluded.completion, quiz = excluded.quiz,
    quality = excluded.quality, consistency = excluded.consistency
"""

FORGET = """
delete from daily_index d using unnest($2::text[], $3::date[]) as w (student, day)
where d.tenant = $1 and d.student = any($2::text[]) and d.student = w.student and d.day = w.day
"""

CLOSE = """
update student_state set closed_until = $3, close_at = $4 where tenant = $1 and student = any($2::text[])
"""

CLOSED = """
select student, closed_until from student_state
where tenant = $1 and student = any($2::text[]) and closed_until is not null
"""

Day = tuple[str, date]
"""(student, day): one snapshot."""


@dataclass(frozen=True, slots=True)
class Zones:
    """Where students' days begin: the tenant's for snapshots, each student's own for what they do in them."""

    tenant: str
    of: Mapping[str, str]  # rostered students only


async def due(pool: Pool, *, moment: datetime, at_most: int) -> list[tuple[int, str]]:
    """Every (tenant, student) whose days are to be closed since that moment or before, the longest due first."""
    async with lent(pool) as connection:
        return [(row["tenant"], row["student"]) for row in await connection.fetch(DUE, moment, at_most)]


async def reopen(connection: Connection, tenant: int, students: Sequence[str], *, now: datetime) -> None:
    """Let the days of these students, whose rows are locked, be closed again soon: an earlier day has changed."""
    await connection.execute(REOPEN, tenant, list(students), now + CLOSE_AFTER)


async def lock(
    connection: Connection, tenant: int, students: Iterable[str], *, moment: datetime
) -> dict[str, datetime | None]:
    """Lock those of these students who are due and whom nobody holds, in key order, each with what is closed."""
    rows = await connection.fetch(LOCK, tenant, list(students), moment)
    return {row["student"]: row["closed_until"] for row in rows}


async def zones(connection: Connection, tenant: int, students: Iterable[str]) -> Zones:
    """The tenant's zone and those of the rostered among these students."""
    found = {row["student"]: row["zone"] for row in await connection.fetch(ZONES, tenant, list(students))}
    return Zones(await tenant_zone(connection, tenant), found)


async def tenant_zone(connection: Connection, tenant: int) -> str:
    """The zone whose midnights end the tenant's days."""
    zone: str = await connection.fetchval(TENANT_ZONE, tenant)
    return zone


async def details(connection: Connection, tenant: int, students: Iterable[str]) -> dict[Name, Detail]:
    """What the events of these students say beside their columns, by (source, event id)."""
    rows = await connection.fetch(DETAILS, tenant, list(students))
    return {(row["source"], row["event_id"]): detail_of(msgspec.json.decode(row["payload"])) for row in rows}


async def difficulties(connection: Connection, tenant: int, items: Iterable[str]) -> dict[Item, Difficulty]:
    """How hard these pieces of work are, where they say so."""
    rows = await connection.fetch(DIFFICULTIES, tenant, list(items))
    return {(row["classroom"], row["assignment"]): Difficulty(row["difficulty"]) for row in rows}


async def stored(connection: Connection, tenant: int, students: Iterable[str]) -> dict[Day, MasteryIndex]:
    """The snapshots of these students."""
    return {
        (row["student"], row["day"]): index_of(row) for row in await connection.fetch(STORED, tenant, list(students))
    }


def index_of(row: asyncpg.Record) -> MasteryIndex:
    """A stored snapshot's numbers."""
    return MasteryIndex(
        row["score"], row["coverage"], row["completion"], row["quiz"], row["quality"], row["consistency"]
    )


async def save(connection: Connection, tenant: int, indexes: Mapping[Day, MasteryIndex]) -> None:
    """Write these snapshots."""
    rows = [
        (*day, i.score, i.coverage, i.completion, i.quiz, i.quality, i.consistency)
        for day, i in sorted(indexes.items())
    ]
    if rows:
        await connection.execute(SAVE, tenant, *(list(column) for column in zip(*rows, strict=True)))


async def forget(connection: Connection, tenant: int, days: Iterable[Day]) -> None:
    """Take these snapshots away: the day is not kept any more, or has no index after all."""
    if gone := sorted(days):
        await connection.execute(FORGET, tenant, [day[0] for day in gone], [day[1] for day in gone])


async def close(
    connection: Connection, tenant: int, students: Iterable[str], *, until: datetime, next_at: datetime
) -> None:
    """Say that all days that ended by `until` are closed, and when the next one ends."""
    await connection.execute(CLOSE, tenant, list(students), until, next_at)


async def closed(connection: Connection, tenant: int, students: Iterable[str]) -> dict[str, datetime]:
    """Up to when the days of these students are closed; those with a day that changed since are left out."""
    rows = await connection.fetch(CLOSED, tenant, list(students))
    return {row["student"]: row["closed_until"] for row in rows}
