"""The roster as it is written: schools, students, classes and guardian links, each change named to the fold.

One transaction at a time changes a tenant's roster (`lock`), so that each step may read, compare and write.
"""

from dataclasses import dataclass
from datetime import datetime

from db.evidence import record
from db.outbox import Touch, Waiting, shard_of, touch
from db.pool import Connection, UnknownTenant
from rules.evidence import Submission
from rules.roster import Classroom, Fault, GuardianLink, RosterCode, School, Student


@dataclass(frozen=True, slots=True)
class Change:
    """What one step did: nothing at all when there are faults, else what the fold must hear of."""

    faults: tuple[Fault, ...] = ()
    touches: tuple[Touch, ...] = ()
    submissions: tuple[Submission, ...] = ()

    @property
    def shards(self) -> set[int]:
        """Where the fold has work once this is committed."""
        events = [submission.event for submission in self.submissions]
        of_events = {shard_of(classroom=event.classroom, student=event.student) for event in events}
        return of_events | {touch.shard for touch in self.touches}


UNCHANGED = Change()


def refused(code: RosterCode, field: str, message: str) -> Change:
    """The step that did nothing, because of one fault."""
    return Change(faults=(Fault(code, (field,), message),))


def unknown(field: str) -> Change:
    """The refusal of a key that the tenant does not have."""
    return refused(RosterCode.NOT_FOUND, field, "expected a key that is in the roster")


# Without this lock a student who joins while work is assigned could miss it: each transaction would not see the other's
# row. The tenant's row is the first lock of every roster change and its head row the last, so none waits in a circle.
LOCK = "select zone from tenant where tenant = $1 for no key update"

POSITION = "select seq from tenant_head where tenant = $1"


async def lock(connection: Connection, tenant: int) -> None:
    """Wait until no other transaction changes this tenant's roster, and keep it so until the commit."""
    zone = await connection.fetchval(LOCK, tenant)
    if zone is None:
        raise UnknownTenant(tenant)


async def position(connection: Connection, tenant: int) -> int:
    """The tenant's place in its log, with what this transaction has added."""
    seq: int | None = await connection.fetchval(POSITION, tenant)
    assert seq is not None, f"tenant {tenant} has no head row"
    return seq


async def settle(connection: Connection, tenant: int, change: Change, *, recorded_by: str, now: datetime) -> int:
    """Name a change to the fold and say at which place of the log it is in; the last step before the commit."""
    if change.submissions:
        await record(connection, tenant, change.submissions, recorded_by=recorded_by, now=now)
    if change.touches:
        return await touch(connection, tenant, change.touches, now=now)
    return await position(connection, tenant)


# ---------------------------------------------------------------- schools

SCHOOL = "select school as key, name, zone from school where tenant = $1 and school = $2"

SAVE_SCHOOL = """
insert into school (tenant, school, name, zone) values ($1, $2, $3, $4)
on conflict (tenant, school) do update set name = excluded.name, zone = excluded.zone
"""

# A class with a zone of its own is as it was.
CLASSROOMS_IN_ZONE_OF = "select classroom from classroom where tenant = $1 and school = $2 and zone is null"


async def school_of(connection: Connection, tenant: int, key: str) -> School | None:
    """The school as it is kept."""
    row = await connection.fetchrow(SCHOOL, tenant, key)
    return School(**row) if row else None


async def save_school(connection: Connection, tenant: int, school: School) -> Change:
    """Keep a school; another zone moves the days of its classes."""
    before = await school_of(connection, tenant, school.key)
    if before == school:
        return UNCHANGED
    await connection.execute(SAVE_SCHOOL, tenant, school.key, school.name, school.zone)
    if before is None or before.zone == school.zone:
        return UNCHANGED
    rows = await connection.fetch(CLASSROOMS_IN_ZONE_OF, tenant, school.key)
    return Change(touches=tuple(Touch(Waiting.TOUCH_CLASSROOM, classroom=row["classroom"]) for row in rows))


# ---------------------------------------------------------------- students and names

STUDENT = """
select s.student as key, s.zone, p.display_name
from student s left join person p on p.tenant = $1 and p.person = s.student
where s.tenant = $1 and s.student = $2
"""

SAVE_STUDENT = """
insert into student (tenant, student, zone, created_at) values ($1, $2, $3, $4)
on conflict (tenant, student) do update set zone = excluded.zone
"""

CLASSROOMS_OF_STUDENT = """
select distinct classroom from enrollment where tenant = $1 and person = $2 and role = 'STUDENT' order by classroom
"""

NAME_OF = "select display_name from person where tenant = $1 and person = $2"

SAVE_NAME = """
insert into person (tenant, person, display_name) values ($1, $2, $3)
on conflict (tenant, person) do update set display_name = excluded.display_name
where person.display_name <> excluded.display_name
"""

FORGET_NAME = "delete from person where tenant = $1 and person = $2"


async def student_of(connection: Connection, tenant: int, key: str) -> Student | None:
    """The student as the roster has them, with their name."""
    row = await connection.fetchrow(STUDENT, tenant, key)
    return Student(**row) if row else None


async def name_of(connection: Connection, tenant: int, person: str) -> str | None:
    """The name of anyone of the tenant."""
    name: str | None = await connection.fetchval(NAME_OF, tenant, person)
    return name


async def save_name(connection: Connection, tenant: int, person: str, name: str | None) -> None:
    """Keep a person's name, or forget it; no number depends on it."""
    if name is None:
        await connection.execute(FORGET_NAME, tenant, person)
    else:
        await connection.execute(SAVE_NAME, tenant, person, name)


async def save_student(connection: Connection, tenant: int, student: Student, *, now: datetime) -> Change:
    """Keep a student. A new one binds what was recorded for the key before (X-10); a zone moves their days."""
    before = await student_of(connection, tenant, student.key)
    if before == student:
        return UNCHANGED
    await save_name(connection, tenant, student.key, student.display_name)
    if before is not None and before.zone == student.zone:
        return UNCHANGED
    await connection.execute(SAVE_STUDENT, tenant, student.key, student.zone, now)
    # A class in which the student has done nothing is not found by their work, and counts their days all the same.
    rows = await connection.fetch(CLASSROOMS_OF_STUDENT, tenant, student.key)
    classrooms = [Touch(Waiting.TOUCH_CLASSROOM, classroom=row["classroom"]) for row in rows]
    return Change(touches=(Touch(Waiting.TOUCH_STUDENT, student=student.key), *classrooms))


# ---------------------------------------------------------------- classes

CLASSROOM = "select classroom as key, name, school, zone from classroom where tenant = $1 and classroom = $2"

SAVE_CLASSROOM = """
insert into classroom (tenant, classroom, school, name, zone, created_at) values ($1, $2, $3, $4, $5, $6)
on conflict (tenant, classroom) do update set school = excluded.school, name = excluded.name, zone = excluded.zone
"""


async def classroom_of(connection: Connection, tenant: int, key: str) -> Classroom | None:
    """The class as it is kept."""
    row = await connection.fetchrow(CLASSROOM, tenant, key)
    return Classroom(**row) if row else None


async def save_classroom(connection: Connection, tenant: int, classroom: Classroom, *, now: datetime) -> Change:
    """Keep a class. A new one binds what was recorded for the key before; another zone or school moves its days."""
    before = await classroom_of(connection, tenant, classroom.key)
    if before == classroom:
        return UNCHANGED
    if classroom.school is not None and await school_of(connection, tenant, classroom.school) is None:
        return unknown("schoolId")
    await connection.execute(
        SAVE_CLASSROOM, tenant, classroom.key, classroom.school, classroom.name, classroom.zone, now
    )
    if before is None:
        return Change(touches=(Touch(Waiting.REFOLD_CLASSROOM, classroom=classroom.key),))
    if (before.zone, before.school) == (classroom.zone, classroom.school):
        return UNCHANGED
    return Change(touches=(Touch(Waiting.TOUCH_CLASSROOM, classroom=classroom.key),))


# ---------------------------------------------------------------- guardians

GUARDIAN_LINK = """
select guardian, student, consent_at, revoked_at from guardian_link
where tenant = $1 and guardian = $2 and student = $3
"""

SAVE_GUARDIAN_LINK = """
insert into guardian_link (tenant, guardian, student, consent_at, revoked_at) values ($1, $2, $3, $4, null)
on conflict (tenant, guardian, student) do update set consent_at = excluded.consent_at, revoked_at = null
"""


async def save_guardian_link(connection: Connection, tenant: int, link: GuardianLink) -> Change:
    """Keep a consent. One that was revoked since is not brought back by sending the old consent again."""
    row = await connection.fetchrow(GUARDIAN_LINK, tenant, link.guardian, link.student)
    before = GuardianLink(**row) if row else None
    if before == link:
        return UNCHANGED
    if before and before.revoked_at is not None and link.consent_at <= before.revoked_at:
        message = f"expected a consent given after the link was revoked at {before.revoked_at.isoformat()}"
        return refused(RosterCode.REVOKED, "consentAt", message)
    if await student_of(connection, tenant, link.student) is None:
        return unknown("studentId")
    await connection.execute(SAVE_GUARDIAN_LINK, tenant, link.guardian, link.student, link.consent_at)
    return UNCHANGED
