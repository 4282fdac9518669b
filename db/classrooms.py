"""Classes and schools as they are read: where they stand, who is in them on a day, and what they work on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from db.pool import Connection


@dataclass(frozen=True, slots=True)
class ClassroomRow:
    """One class; `zone` is its own, else its school's, else the tenant's."""

    key: str
    name: str
    zone: str
    school: str | None
    school_name: str | None
    school_zone: str


@dataclass(frozen=True, slots=True)
class SchoolRow:
    """One school; `zone` is its own, else the tenant's."""

    key: str
    name: str
    zone: str


@dataclass(frozen=True, slots=True)
class EnrollmentRow:
    """One person's interval in a class: local dates, [started, ended)."""

    person: str
    display_name: str | None
    role: str
    started: date
    ended: date | None

    @property
    def place(self) -> tuple[str, str, str]:
        """Where the interval stands in a roster: days compare as text, and a cursor holds no wrong day."""
        return (self.person, self.role, self.started.isoformat())


@dataclass(frozen=True, slots=True)
class AssignmentRow:
    """One piece of work of a class."""

    key: str
    classroom: str
    title: str
    kind: str
    due_at: datetime | None
    difficulty: str | None
    concepts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TenantRow:
    """The district, or whatever else is the unit of isolation."""

    name: str
    zone: str


BY_KEYS = """
select c.classroom as key, c.name, coalesce(c.zone, s.zone, t.zone) as zone, c.school, s.name as school_name,
    coalesce(s.zone, t.zone) as school_zone
from classroom c
join tenant t on t.tenant = $1
left join school s on s.tenant = $1 and s.school = c.school
where c.tenant = $1 and c.classroom = any($2::text[])
"""


async def classrooms_of_keys(connection: Connection, tenant: int, keys: Sequence[str]) -> dict[str, ClassroomRow]:
    """The classes that exist among these keys; who may see them is decided elsewhere."""
    rows = await connection.fetch(BY_KEYS, tenant, list(keys))
    return {row["key"]: ClassroomRow(**row) for row in rows}


# `today` differs between classes of one person, so each class's own zone decides whether an interval holds.
OF_PERSON = """
select c.classroom as key, c.name, coalesce(c.zone, s.zone, t.zone) as zone, c.school, s.name as school_name,
    coalesce(s.zone, t.zone) as school_zone
from classroom c
join tenant t on t.tenant = $1
left join school s on s.tenant = $1 and s.school = c.school
where c.tenant = $1 and c.classroom > $2 and ($3::text is null or c.school = $3)
    and c.classroom in (
        select e.classroom from enrollment e where e.tenant = $1 and e.person = $4 and e.role = any($5::text[])
            and e.started <= ($6::timestamptz at time zone coalesce(c.zone, s.zone, t.zone))::date
            and (e.ended is null or e.ended > ($6::timestamptz at time zone coalesce(c.zone, s.zone, t.zone))::date)
    )
order by c.classroom
limit $7
"""


async def classrooms_of_person(
    connection: Connection,
    tenant: int,
    person: str,
    *,
    roles: Sequence[str],
    now: datetime,
    school: str | None = None,
    after: str = "",
    limit: int,
) -> list[ClassroomRow]:
    """The classes a person is in today with one of these enrolment roles, by key."""
    rows = await connection.fetch(OF_PERSON, tenant, after, school, person, list(roles), now, limit)
    return [ClassroomRow(**row) for row in rows]


OF_SCHOOL = """
select c.classroom as key, c.name, coalesce(c.zone, s.zone, t.zone) as zone, c.school, s.name as school_name,
    coalesce(s.zone, t.zone) as school_zone
from classroom c
join tenant t on t.tenant = $1
join school s on s.tenant = $1 and s.school = $2
where c.tenant = $1 and c.school = $2 and c.classroom > $3
order by c.classroom
limit $4
"""


async def classrooms_of_school(
    connection: Connection, tenant: int, school: str, *, after: str = "", limit: int
) -> list[ClassroomRow]:
    """All classes of a school, by key."""
    return [ClassroomRow(**row) for row in await connection.fetch(OF_SCHOOL, tenant, school, after, limit)]


SCHOOLS = """
select s.school as key, s.name, coalesce(s.zone, t.zone) as zone
from school s join tenant t on t.tenant = $1
where s.tenant = $1 and s.school = any($2::text[])
"""


async def schools_of_keys(connection: Connection, tenant: int, keys: Sequence[str]) -> dict[str, SchoolRow]:
    """The schools that exist among these keys."""
    return {row["key"]: SchoolRow(**row) for row in await connection.fetch(SCHOOLS, tenant, list(keys))}


SCHOOLS_OF_PERSON = """
select distinct c.school
from enrollment e
join classroom c on c.tenant = $1 and c.classroom = e.classroom and c.school = any($2::text[])
join tenant t on t.tenant = $1
left join school s on s.tenant = $1 and s.school = c.school
where e.tenant = $1 and e.person = $3 and e.role = any($4::text[])
    and e.started <= ($5::timestamptz at time zone coalesce(c.zone, s.zone, t.zone))::date
    and (e.ended is null or e.ended > ($5::timestamptz at time zone coalesce(c.zone, s.zone, t.zone))::date)
"""


async def schools_of_person(
    connection: Connection, tenant: int, keys: Sequence[str], *, person: str, roles: Sequence[str], now: datetime
) -> set[str]:
    """Those of these schools that have a class which the person is in today with one of these enrolment roles."""
    rows = await connection.fetch(SCHOOLS_OF_PERSON, tenant, list(keys), person, list(roles), now)
    return {row["school"] for row in rows}


CHILDREN = """
select g.student
from guardian_link g join student s on s.tenant = $1 and s.student = g.student
where g.tenant = $1 and g.guardian = $2 and g.consent_at <= $3 and g.revoked_at is null and g.student > $4
order by g.student
limit $5
"""


async def children_of(
    connection: Connection, tenant: int, guardian: str, *, now: datetime, after: str = "", limit: int
) -> list[str]:
    """The rostered students that a guardian follows with active consent, by key."""
    rows = await connection.fetch(CHILDREN, tenant, guardian, now, after, limit)
    return [row["student"] for row in rows]


TENANT = "select t.name, t.zone from tenant t where t.tenant = $1"


async def tenant_of(connection: Connection, tenant: int) -> TenantRow | None:
    """The tenant itself; None before it is set up."""
    row = await connection.fetchrow(TENANT, tenant)
    return TenantRow(**row) if row else None


ROSTER = """
select e.person, p.display_name, e.role, e.started, e.ended
from enrollment e left join person p on p.tenant = $1 and p.person = e.person
where e.tenant = $1 and e.classroom = $2 and e.started <= $3 and (e.ended is null or e.ended > $3)
    and (e.person, e.role, to_char(e.started, 'YYYY-MM-DD')) > ($4::text, $5::text, $6::text)
order by e.person, e.role, e.started
limit $7
"""


async def roster_of(
    connection: Connection,
    tenant: int,
    classroom: str,
    *,
    on: date,
    after: tuple[str, str, str] | None = None,
    limit: int,
) -> list[EnrollmentRow]:
    """Who is enrolled in a class on a local date, by person, role and first day."""
    rows = await connection.fetch(ROSTER, tenant, classroom, on, *(after or ("", "", "")), limit)
    return [EnrollmentRow(**row) for row in rows]


ASSIGNMENTS_BY_KEYS = """
select a.assignment as key, a.classroom, a.title, a.kind, a.due_at, a.difficulty, a.concepts
from assignment a
where a.tenant = $1 and a.assignment = any($2::text[])
"""


async def assignments_of_keys(connection: Connection, tenant: int, keys: Sequence[str]) -> dict[str, AssignmentRow]:
    """The work that exists among these keys."""
    rows = await connection.fetch(ASSIGNMENTS_BY_KEYS, tenant, list(keys))
    return {row["key"]: AssignmentRow(**{**row, "concepts": tuple(row["concepts"])}) for row in rows}


ASSIGNMENTS = """
select a.assignment as key, a.classroom, a.title, a.kind, a.due_at, a.difficulty, a.concepts
from assignment a
where a.tenant = $1 and a.classroom = $2 and a.assignment > $3
order by a.assignment
limit $4
"""


async def assignments_of(
    connection: Connection, tenant: int, classroom: str, *, after: str = "", limit: int
) -> list[AssignmentRow]:
    """The work of a class, by key."""
    rows = await connection.fetch(ASSIGNMENTS, tenant, classroom, after, limit)
    return [AssignmentRow(**{**row, "concepts": tuple(row["concepts"])}) for row in rows]


STUDENTS = """
select distinct on (e.person) e.person, p.display_name, e.role, e.started, e.ended
from enrollment e left join person p on p.tenant = $1 and p.person = e.person
where e.tenant = $1 and e.classroom = $2 and e.role = 'STUDENT' and e.started <= $3
    and (e.ended is null or e.ended > $3) and e.person > $4
order by e.person, e.started
limit $5
"""


async def students_of_classroom(
    connection: Connection, tenant: int, classroom: str, *, on: date, after: str = "", limit: int
) -> list[EnrollmentRow]:
    """The students enrolled in a class on a local date, each once, by key."""
    rows = await connection.fetch(STUDENTS, tenant, classroom, on, after, limit)
    return [EnrollmentRow(**row) for row in rows]
