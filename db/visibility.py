"""Who stands in what relation to a student or a class today: the facts from which `rules.access` decides."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from db.pool import Connection

# Local dates follow the zone of the class, else of its school, else of the tenant.
_TODAY = """
select e.classroom, today.day
from enrollment e
join classroom c on c.tenant = $1 and c.classroom = e.classroom
left join school s on s.tenant = $1 and s.school = c.school
join tenant t on t.tenant = $1
cross join lateral (select ($4::timestamptz at time zone coalesce(c.zone, s.zone, t.zone))::date as day) today
where e.tenant = $1 and e.person = $3 and e.role = {role}
  and e.started <= today.day and (e.ended is null or e.ended > today.day)
"""
_TAUGHT_TODAY = _TODAY.format(role="'TEACHER'")
_ENROLLED_TODAY = _TODAY.format(role="'STUDENT'")

STUDENTS = f"""
with taught as materialized ({_TAUGHT_TODAY})
select s.student, coalesce(s.zone, t.zone) as zone, p.display_name,
    exists (
        select from guardian_link g
        where g.tenant = $1 and g.guardian = $3 and g.student = s.student
          and g.consent_at <= $4 and g.revoked_at is null
    ) as is_linked,
    array(
        select distinct m.classroom from taught x
        join enrollment m on m.tenant = $1 and m.classroom = x.classroom
        where m.tenant = $1 and m.person = s.student and m.role = 'STUDENT'
          and m.started <= x.day and (m.ended is null or m.ended > x.day)
        order by m.classroom
    ) as taught_in
from student s
join tenant t on t.tenant = $1
left join person p on p.tenant = $1 and p.person = s.student
where s.tenant = $1 and s.student = any($2::text[])
"""  # noqa: S608 - composed of constants above

CLASSROOMS = f"""
with taught as materialized ({_TAUGHT_TODAY}), enrolled as materialized ({_ENROLLED_TODAY})
select c.classroom, coalesce(c.zone, s.zone, t.zone) as zone,
    exists (select from taught x where x.classroom = c.classroom) as is_teacher,
    exists (select from enrolled x where x.classroom = c.classroom) as is_enrolled
from classroom c
join tenant t on t.tenant = $1
left join school s on s.tenant = $1 and s.school = c.school
where c.tenant = $1 and c.classroom = any($2::text[])
"""  # noqa: S608 - composed of constants above


# Who may follow a class or a student live: the same answer for all who ask, so that one read judges thousands.
FOLLOWERS_MAX = 10_000

CLASSROOM_FOLLOWERS = """
select c.classroom, array(
    select e.person from enrollment e
    where e.tenant = $1 and e.classroom = c.classroom and e.role = 'TEACHER'
      and e.started <= today.day and (e.ended is null or e.ended > today.day)
    limit $4
) as teachers, array[]::text[] as guardians
from classroom c
left join school s on s.tenant = $1 and s.school = c.school
join tenant t on t.tenant = $1
cross join lateral (select ($3::timestamptz at time zone coalesce(c.zone, s.zone, t.zone))::date as day) today
where c.tenant = $1 and c.classroom = any($2::text[])
"""

STUDENT_FOLLOWERS = """
select s.student, array(
    select distinct e.person
    from enrollment m
    join classroom c on c.tenant = $1 and c.classroom = m.classroom
    left join school z on z.tenant = $1 and z.school = c.school
    join tenant t on t.tenant = $1
    cross join lateral (select ($3::timestamptz at time zone coalesce(c.zone, z.zone, t.zone))::date as day) today
    join enrollment e on e.tenant = $1 and e.classroom = m.classroom
    where m.tenant = $1 and m.person = s.student and m.role = 'STUDENT'
      and m.started <= today.day and (m.ended is null or m.ended > today.day)
      and e.role = 'TEACHER' and e.started <= today.day and (e.ended is null or e.ended > today.day)
    limit $4
) as teachers, array(
    select g.guardian from guardian_link g
    where g.tenant = $1 and g.student = s.student and g.consent_at <= $3 and g.revoked_at is null
    limit $4
) as guardians
from student s where s.tenant = $1 and s.student = any($2::text[])
"""


@dataclass(frozen=True, slots=True)
class Followers:
    """Who is tied today to one class or student, by key; nobody past FOLLOWERS_MAX."""

    teachers: frozenset[str]
    guardians: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class StudentTies:
    """A rostered student, and what binds the viewer to them at one moment."""

    student: str
    zone: str  # IANA: the student's own, else the tenant's
    display_name: str | None
    is_linked: bool  # the viewer is a guardian with active consent
    taught_in: tuple[str, ...]  # classes that the viewer teaches and the student attends, both today

    @property
    def is_taught(self) -> bool:
        """Whether the viewer teaches a class that the student attends today."""
        return bool(self.taught_in)


@dataclass(frozen=True, slots=True)
class ClassroomTies:
    """A rostered class, and what binds the viewer to it at one moment."""

    classroom: str
    zone: str  # IANA: the class's own, else its school's, else the tenant's
    is_teacher: bool
    is_enrolled: bool


async def of_students(
    connection: Connection, tenant: int, students: Iterable[str], *, viewer: str, now: datetime
) -> dict[str, StudentTies]:
    """The viewer's ties to each of these students that the roster knows; unknown ones are absent."""
    rows = await connection.fetch(STUDENTS, tenant, list(students), viewer, now)
    return {
        row["student"]: StudentTies(
            student=row["student"],
            zone=row["zone"],
            display_name=row["display_name"],
            is_linked=row["is_linked"],
            taught_in=tuple(row["taught_in"]),
        )
        for row in rows
    }


async def of_classrooms(
    connection: Connection, tenant: int, classrooms: Iterable[str], *, viewer: str, now: datetime
) -> dict[str, ClassroomTies]:
    """The viewer's ties to each of these classes that the roster knows; unknown ones are absent."""
    rows = await connection.fetch(CLASSROOMS, tenant, list(classrooms), viewer, now)
    return {
        row["classroom"]: ClassroomTies(
            classroom=row["classroom"],
            zone=row["zone"],
            is_teacher=row["is_teacher"],
            is_enrolled=row["is_enrolled"],
        )
        for row in rows
    }


async def followers_of_classrooms(
    connection: Connection, tenant: int, classrooms: Sequence[str], now: datetime
) -> dict[str, Followers]:
    """The teachers of each class that the roster knows."""
    rows = await connection.fetch(CLASSROOM_FOLLOWERS, tenant, classrooms, now, FOLLOWERS_MAX)
    return {row["classroom"]: _followers(row) for row in rows}


async def followers_of_students(
    connection: Connection, tenant: int, students: Sequence[str], now: datetime
) -> dict[str, Followers]:
    """The guardians with consent and the teachers of the present classes of each student that the roster knows."""
    rows = await connection.fetch(STUDENT_FOLLOWERS, tenant, students, now, FOLLOWERS_MAX)
    return {row["student"]: _followers(row) for row in rows}


def _followers(row: asyncpg.Record) -> Followers:
    return Followers(frozenset(row["teachers"]), frozenset(row["guardians"]))
