"""Who is in a class, and what work it has: whoever is in it while there is work gets that work assigned, once."""

from collections.abc import Iterable
from datetime import date, datetime
from hashlib import blake2b

import asyncpg

from db.classrooms import classrooms_of_keys
from db.outbox import Touch, Waiting
from db.pool import Connection
from db.roster import UNCHANGED, Change, refused, student_of, unknown
from rules.calendar import local_date
from rules.evidence import Kind, LearningEvent, Submission
from rules.fields import ID_LENGTH_MAX
from rules.roster import (
    CLASSROOM_ASSIGNMENTS_MAX,
    CLASSROOM_STUDENTS_MAX,
    INTERVALS_MAX,
    Assignment,
    AssignmentKind,
    Difficulty,
    Enrollment,
    EnrollmentRole,
    Fault,
    RosterCode,
)
from rules.validation import RESERVED_SOURCE

ENROLLMENTS = """
select classroom, person, role, started, ended from enrollment
where tenant = $1 and classroom = $2 and person = $3 and role = $4
order by started
"""

SAVE_ENROLLMENT = """
insert into enrollment (tenant, classroom, person, role, started, ended) values ($1, $2, $3, $4, $5, $6)
on conflict (tenant, classroom, person, role, started) do update set ended = excluded.ended
"""

# Those who join later are in it too: nothing happens on their first day that could assign the work then.
STUDENTS_FROM = """
select distinct person from enrollment
where tenant = $1 and classroom = $2 and role = 'STUDENT' and (ended is null or ended > greatest($3, started))
order by person
"""

ASSIGNMENT = """
select assignment as key, classroom, title, kind, due_at, difficulty, concepts from assignment
where tenant = $1 and assignment = $2
"""

ASSIGNMENTS = """
select assignment as key, classroom, title, kind, due_at, difficulty, concepts from assignment
where tenant = $1 and classroom = $2
order by assignment
"""

SAVE_ASSIGNMENT = """
insert into assignment (tenant, assignment, classroom, title, kind, due_at, difficulty, concepts, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
on conflict (tenant, assignment) do update set
    title = excluded.title, kind = excluded.kind, due_at = excluded.due_at, difficulty = excluded.difficulty,
    concepts = excluded.concepts
"""

KNOWN_CONCEPTS = "select concept from concept where tenant = $1 and concept = any($2::text[])"

RECORDED = "select event_id from event_key where tenant = $1 and source = $2 and event_id = any($3::text[])"


# ---------------------------------------------------------------- enrolments


async def enrollments_of(
    connection: Connection, tenant: int, *, classroom: str, person: str, role: EnrollmentRole
) -> list[Enrollment]:
    """All times that this person is in this class in this role, the earliest first."""
    rows = await connection.fetch(ENROLLMENTS, tenant, classroom, person, role.value)
    return [Enrollment(**{**row, "role": EnrollmentRole(row["role"])}) for row in rows]


async def save_enrollment(connection: Connection, tenant: int, enrollment: Enrollment, *, now: datetime) -> Change:
    """Keep an interval, named by its first day; a student who is or will be in the class gets its work assigned."""
    classroom = (await classrooms_of_keys(connection, tenant, [enrollment.classroom])).get(enrollment.classroom)
    if classroom is None:
        return unknown("classroomId")
    is_student = enrollment.role is EnrollmentRole.STUDENT
    if is_student and await student_of(connection, tenant, enrollment.person) is None:
        return unknown("personId")
    known = await enrollments_of(
        connection, tenant, classroom=enrollment.classroom, person=enrollment.person, role=enrollment.role
    )
    if enrollment in known:
        return UNCHANGED
    others = [other for other in known if other.started != enrollment.started]
    today = local_date(now, classroom.zone)
    students = await students_from(connection, tenant, enrollment.classroom, today) if is_student else []
    fault = _misfit(enrollment, others, students)
    if fault:
        return Change(faults=(fault,))
    await connection.execute(
        SAVE_ENROLLMENT,
        tenant,
        enrollment.classroom,
        enrollment.person,
        enrollment.role.value,
        enrollment.started,
        enrollment.ended,
    )
    if not is_student:
        return UNCHANGED  # who teaches moves no number
    touched = (Touch(Waiting.TOUCH_CLASSROOM, classroom=enrollment.classroom),)
    if enrollment.is_over(today):
        return Change(touches=touched)
    assignments = await assignments_of(connection, tenant, enrollment.classroom)
    pairs = [(assignment, enrollment.person) for assignment in assignments]
    return Change(touches=touched, submissions=await _unrecorded(connection, tenant, pairs, now=now))


def _misfit(enrollment: Enrollment, others: list[Enrollment], students: list[str]) -> Fault | None:
    overlapping = next((other for other in others if other.overlaps(enrollment)), None)
    if overlapping:
        message = (
            f"expected no day in common with the enrolment from {overlapping.started} "
            f"to {overlapping.ended or 'open'}; end that one first"
        )
        return Fault(RosterCode.OVERLAP, ("startsOn",), message)
    if len(others) >= INTERVALS_MAX:
        return Fault(RosterCode.TOO_MANY, ("startsOn",), f"expected at most {INTERVALS_MAX} enrolments of one person")
    if len(students) >= CLASSROOM_STUDENTS_MAX and enrollment.person not in students:
        return Fault(RosterCode.TOO_MANY, ("classroomId",), f"expected at most {CLASSROOM_STUDENTS_MAX} students")
    return None


async def students_from(connection: Connection, tenant: int, classroom: str, day: date) -> list[str]:
    """The students who are in the class on this day or will be."""
    return [row["person"] for row in await connection.fetch(STUDENTS_FROM, tenant, classroom, day)]


# ---------------------------------------------------------------- assignments


async def assignment_of(connection: Connection, tenant: int, key: str) -> Assignment | None:
    """The piece of work as it is kept."""
    row = await connection.fetchrow(ASSIGNMENT, tenant, key)
    return _assignment(row) if row else None


async def assignments_of(connection: Connection, tenant: int, classroom: str) -> list[Assignment]:
    """All work of a class, at most CLASSROOM_ASSIGNMENTS_MAX."""
    return [_assignment(row) for row in await connection.fetch(ASSIGNMENTS, tenant, classroom)]


async def save_assignment(connection: Connection, tenant: int, assignment: Assignment, *, now: datetime) -> Change:
    """Keep a piece of work, and assign it to every student of the class who does not have it yet."""
    classroom = (await classrooms_of_keys(connection, tenant, [assignment.classroom])).get(assignment.classroom)
    if classroom is None:
        return unknown("classroomId")
    before = await assignment_of(connection, tenant, assignment.key)
    if before is None and len(await assignments_of(connection, tenant, classroom.key)) >= CLASSROOM_ASSIGNMENTS_MAX:
        return refused(RosterCode.TOO_MANY, "classroomId", f"expected at most {CLASSROOM_ASSIGNMENTS_MAX} assignments")
    if before is not None and before.classroom != assignment.classroom:
        return refused(RosterCode.NOT_MOVABLE, "key", "expected a key that is not used for work of another class")
    unknown_concepts = await _unknown_concepts(connection, tenant, assignment.concepts)
    if unknown_concepts:
        return Change(faults=unknown_concepts)
    if before != assignment:
        await _write_assignment(connection, tenant, assignment, now=now)
    students = await students_from(connection, tenant, classroom.key, local_date(now, classroom.zone))
    submissions = await _unrecorded(connection, tenant, [(assignment, student) for student in students], now=now)
    has_moved = (before.due_at if before else None) != assignment.due_at
    # Its weight in the index of whoever has it, on every day since: their days are closed again.
    is_reweighed = before is not None and before.difficulty != assignment.difficulty
    kind = Waiting.REFOLD_CLASSROOM if is_reweighed else Waiting.TOUCH_CLASSROOM
    touches = (Touch(kind, classroom=classroom.key),) if has_moved or is_reweighed else ()
    return Change(touches=touches, submissions=submissions)


async def _unknown_concepts(connection: Connection, tenant: int, concepts: tuple[str, ...]) -> tuple[Fault, ...]:
    known = {row["concept"] for row in await connection.fetch(KNOWN_CONCEPTS, tenant, list(concepts))}
    return tuple(
        Fault(RosterCode.NOT_FOUND, ("conceptIds", str(place)), "expected a concept of the catalog")
        for place, concept in enumerate(concepts)
        if concept not in known
    )


async def _write_assignment(connection: Connection, tenant: int, assignment: Assignment, *, now: datetime) -> None:
    await connection.execute(
        SAVE_ASSIGNMENT,
        tenant,
        assignment.key,
        assignment.classroom,
        assignment.title,
        assignment.kind.value,
        assignment.due_at,
        assignment.difficulty and assignment.difficulty.value,
        list(assignment.concepts),
        now,
    )


def _assignment(row: asyncpg.Record) -> Assignment:
    return Assignment(
        key=row["key"],
        classroom=row["classroom"],
        title=row["title"],
        kind=AssignmentKind(row["kind"]),
        due_at=row["due_at"],
        difficulty=None if row["difficulty"] is None else Difficulty(row["difficulty"]),
        concepts=tuple(row["concepts"]),
    )


# ---------------------------------------------------------------- what assigns work


def assigned_id(assignment: str, student: str) -> str:
    """The event id that says this work was assigned to this student: the same for ever, and for no other pair."""
    plain = f"assigned:{assignment}:{student}"
    # With a colon in the assignment's key two pairs could spell one id; a long pair has no room in an id.
    if ":" not in assignment and len(plain) <= ID_LENGTH_MAX:
        return plain
    return f"assigned#{blake2b(ascii((assignment, student)).encode(), digest_size=24).hexdigest()}"


def assigned(assignment: Assignment, student: str, *, now: datetime) -> Submission:
    """The event that assigns work. It has no due date, so that the assignment's own holds and can move."""
    event = LearningEvent(
        source=RESERVED_SOURCE,
        event_id=assigned_id(assignment.key, student),
        kind=Kind.ASSIGNMENT_ASSIGNED,
        occurred_at=now,
        student=student,
        classroom=assignment.classroom,
        assignment=assignment.key,
        concepts=assignment.concepts,
    )
    said = ascii((assignment.key, assignment.classroom, student))
    return Submission(event=event, fingerprint=blake2b(said.encode(), digest_size=16).digest())


async def _unrecorded(
    connection: Connection, tenant: int, pairs: Iterable[tuple[Assignment, str]], *, now: datetime
) -> tuple[Submission, ...]:
    """The events for the pairs that have none yet: sending the others again would only spend log positions."""
    wanted = {assigned_id(assignment.key, student): (assignment, student) for assignment, student in pairs}
    rows = await connection.fetch(RECORDED, tenant, RESERVED_SOURCE, list(wanted))
    recorded = {row["event_id"] for row in rows}
    return tuple(assigned(*pair, now=now) for event_id, pair in wanted.items() if event_id not in recorded)
