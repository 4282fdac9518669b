"""A roster loaded at once: what the mutations keep one by one, for a school that arrives with thousands of students."""

from collections.abc import Sequence
from datetime import datetime

from db.outbox import Touch, Waiting
from db.pool import Connection
from db.roster import UNCHANGED, Change
from rules.roster import Enrollment, EnrollmentRole, Student

# Names live in the people table only; one that is there already was given by somebody and stays.
ADD_NAMES = """
insert into person (tenant, person, display_name)
select $1, p.person, p.display_name from unnest($2::text[], $3::text[]) as p (person, display_name)
on conflict (tenant, person) do nothing
"""
ADD_STUDENTS = """
insert into student (tenant, student, zone, created_at)
select $1, s.student, s.zone, $4 from unnest($2::text[], $3::text[]) as s (student, zone)
on conflict (tenant, student) do nothing
returning student
"""
ADD_ENROLLMENTS = """
insert into enrollment (tenant, classroom, person, role, started, ended)
select $1, e.classroom, e.person, e.role, e.started, e.ended
from unnest($2::text[], $3::text[], $4::text[], $5::date[], $6::date[]) as e (classroom, person, role, started, ended)
on conflict (tenant, classroom, person, role, started) do nothing
returning classroom, role
"""
RECORDED = """
select k.event_id from event_key k
where k.tenant = $1 and k.source = $2 and k.event_id = any($3::text[])
"""
NEWEST_ID = """
select max(k.event_id) from event_key k where k.tenant = $1 and k.source = $2 and k.event_id ^@ $3::text
"""


async def add_names(connection: Connection, tenant: int, names: Sequence[tuple[str, str]]) -> None:
    """Name people who have no name yet: (key, display name) pairs."""
    await connection.execute(ADD_NAMES, tenant, [key for key, _ in names], [name for _, name in names])


async def add_students(connection: Connection, tenant: int, students: Sequence[Student], *, now: datetime) -> Change:
    """Roster the students who are not there yet; what was recorded for their keys before is bound (X-10)."""
    named = [(student.key, student.display_name) for student in students if student.display_name is not None]
    await add_names(connection, tenant, named)
    rows = await connection.fetch(
        ADD_STUDENTS, tenant, [student.key for student in students], [student.zone for student in students], now
    )
    return Change(touches=tuple(Touch(Waiting.TOUCH_STUDENT, student=row["student"]) for row in rows))


async def add_enrollments(connection: Connection, tenant: int, enrollments: Sequence[Enrollment]) -> Change:
    """Enroll people who are not in their class from that day yet; the caller sends the events that assign work.

    Refuses nothing: classes and students must be rostered, and intervals of one person must not overlap.
    """
    rows = await connection.fetch(
        ADD_ENROLLMENTS,
        tenant,
        [enrollment.classroom for enrollment in enrollments],
        [enrollment.person for enrollment in enrollments],
        [enrollment.role.value for enrollment in enrollments],
        [enrollment.started for enrollment in enrollments],
        [enrollment.ended for enrollment in enrollments],
    )
    classrooms = sorted({row["classroom"] for row in rows if row["role"] == EnrollmentRole.STUDENT.value})
    if not classrooms:
        return UNCHANGED
    return Change(touches=tuple(Touch(Waiting.TOUCH_CLASSROOM, classroom=classroom) for classroom in classrooms))


async def recorded_ids(connection: Connection, tenant: int, source: str, event_ids: Sequence[str]) -> set[str]:
    """Which of these events of a source the log holds."""
    return {row["event_id"] for row in await connection.fetch(RECORDED, tenant, source, list(event_ids))}


async def newest_id(connection: Connection, tenant: int, source: str, prefix: str) -> str | None:
    """The greatest event id of a source that begins so, bytewise; None without one."""
    found: str | None = await connection.fetchval(NEWEST_ID, tenant, source, prefix)
    return found
