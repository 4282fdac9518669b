"""What checks of the numbers found, and what a check must know before it looks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from db.inventory import AssessedClass
from db.pool import Connection
from rules.classroom import Rollup


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One finished check of one class."""

    key: str
    job: str
    classroom: str
    compared: int
    different: int
    skipped: int
    differences: list[dict[str, Any]]
    first_cause: str | None
    at: datetime


SAVE = """
insert into drift_report (
    tenant, report, job, classroom, compared, different, skipped, differences, first_cause, at)
values ($1, uuidv7()::text, $2, $3, $4, $5, $6, $7, $8, $9)
"""

PAGE = """
select report as key, job, classroom, compared, different, skipped, differences, first_cause, at
from drift_report
where tenant = $1 and (at, report) < (coalesce($2, 'infinity'::timestamptz), $3::text)
order by at desc, report desc limit $4
"""

# A class's students with anything stored, or enrolled at any time: an event that is folded leaves a view.
STUDENTS_OF_CLASSROOM = """
select s.student from (
    select v.student from view_state v where v.tenant = $1 and v.classroom = $2
    union
    select w.student from standing w where w.tenant = $1 and w.classroom = $2
    union
    select e.person from enrollment e where e.tenant = $1 and e.classroom = $2 and e.role = 'STUDENT'
) s
where exists (select from student r where r.tenant = $1 and r.student = s.student offset 0)
order by s.student
"""

STUDENT_PAGE = "select student from student where tenant = $1 and student > $2 order by student limit $3"
# No log is counted beyond what matters.
LENGTHS = """
select l.length from unnest($2::text[]) with ordinality as s (student, place)
cross join lateral (
    select count(*) as length
    from (select from event e where e.tenant = $1 and e.student = s.student limit $3 offset 0) one
) l
order by s.place
"""

CLASSROOM_PAGE = "select classroom from classroom where tenant = $1 and classroom > $2 order by classroom limit $3"
COUNTS = """
select (select count(*) from student s where s.tenant = $1) as students,
    (select count(*) from classroom c where c.tenant = $1) as classrooms
"""

WAITING = """
select distinct o.student, o.classroom, o.kind from outbox o
where o.tenant = $1
    and (o.student = any($2::text[]) or o.classroom = any($3::text[]) or o.kind = 'REFOLD_CLASSROOM')
"""

VIEW_KEYS = """
select student, classroom from view_state where tenant = $1 and student = any($2::text[])
union
select student, classroom from standing where tenant = $1 and student = any($2::text[])
union
select student, classroom from work where tenant = $1 and student = any($2::text[])
"""


async def save(
    connection: Connection,
    tenant: int,
    *,
    job: str,
    classroom: str,
    compared: int,
    different: int,
    skipped: int,
    differences: Sequence[dict[str, Any]],
    first_cause: str | None,
    now: datetime,
) -> None:
    """Keep what a check found."""
    kept = msgspec.json.encode(differences).decode()
    await connection.execute(SAVE, tenant, job, classroom, compared, different, skipped, kept, first_cause, now)


async def page(
    connection: Connection, tenant: int, *, after: tuple[datetime, str] | None, limit: int
) -> list[ReportRow]:
    """The reports of the tenant, the newest first."""
    rows = await connection.fetch(PAGE, tenant, *(after or (None, "")), limit)
    return [ReportRow(**{**row, "differences": msgspec.json.decode(row["differences"])}) for row in rows]


async def students_of_classroom(connection: Connection, tenant: int, classroom: str) -> list[str]:
    """The rostered students who have or had anything to do with the class, by key."""
    return [row["student"] for row in await connection.fetch(STUDENTS_OF_CLASSROOM, tenant, classroom)]


async def student_page(connection: Connection, tenant: int, *, after: str, limit: int) -> list[str]:
    """The next rostered students by key."""
    return [row["student"] for row in await connection.fetch(STUDENT_PAGE, tenant, after, limit)]


async def log_lengths(connection: Connection, tenant: int, students: Sequence[str], *, at_most: int) -> list[int]:
    """How many events each of these students has, counted up to `at_most`."""
    return [row["length"] for row in await connection.fetch(LENGTHS, tenant, list(students), at_most)]


async def classroom_page(connection: Connection, tenant: int, *, after: str, limit: int) -> list[str]:
    """The next rostered classes by key."""
    return [row["classroom"] for row in await connection.fetch(CLASSROOM_PAGE, tenant, after, limit)]


async def counts(connection: Connection, tenant: int) -> tuple[int, int]:
    """How many students and classes the roster has."""
    row = await connection.fetchrow(COUNTS, tenant)
    assert row is not None
    return row["students"], row["classrooms"]


async def unsettled(
    connection: Connection, tenant: int, students: Sequence[str], classrooms: Sequence[str]
) -> list[tuple[str, str, str]]:
    """What waits in the outbox for these students and classes, and every refold, as (student, classroom, kind)."""
    rows = await connection.fetch(WAITING, tenant, list(students), list(classrooms))
    return [(row["student"], row["classroom"], row["kind"]) for row in rows]


async def view_keys(connection: Connection, tenant: int, students: Sequence[str]) -> list[tuple[str, str]]:
    """Every (student, classroom) of these students with anything stored."""
    rows = await connection.fetch(VIEW_KEYS, tenant, list(students))
    return sorted((row["student"], row["classroom"]) for row in rows)


ASSESSED = """
select classroom, completion_rate, average_score, submission_rate, active_students, policy_version, assessed_at,
    reassess_at
from classroom_state
where tenant = $1 and classroom = any($2::text[]) and assessed_at is not null
"""


async def assessed(connection: Connection, tenant: int, classrooms: Sequence[str]) -> dict[str, AssessedClass]:
    """The last assessment of those of these classes that had one."""
    return {
        row["classroom"]: AssessedClass(
            Rollup(row["completion_rate"], row["average_score"], row["submission_rate"], row["active_students"]),
            row["policy_version"],
            row["assessed_at"],
            row["reassess_at"],
        )
        for row in await connection.fetch(ASSESSED, tenant, list(classrooms))
    }
