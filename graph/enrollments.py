"""Who is in a class and what work it has, as it is told: whoever is in it gets its work assigned."""

from datetime import date, datetime
from typing import Annotated

import strawberry

from db import enrollments, roster
from db.classrooms import EnrollmentRow
from db.pool import Connection
from db.roster import Change
from graph.access import allow
from graph.changes import FORBIDDEN, RosterError, given, is_taught, kept, node_of, write
from graph.classwork import (
    Assignment,
    AssignmentDifficulty,
    AssignmentKind,
    Enrollment,
    EnrollmentRole,
    enrollment_of,
)
from graph.request import Context, Info
from graph.roster import ERRORS, SAVED, SEQ
from graph.scalars import Seq
from rules import roster as words
from rules.access import Role, Scope, may_save_assignment
from rules.roster import (
    ASSIGNMENT_CONCEPTS_MAX,
    Fault,
    RosterCode,
    check_count,
    check_day,
    check_distinct,
    check_key,
    check_moment,
    check_name,
)


@strawberry.input(description="A person's time in a class, named by class, person, role and first day.")
class SaveEnrollmentInput:
    """One interval."""

    classroom_id: strawberry.ID = strawberry.field(description="The key of the class.")
    person_id: strawberry.ID = strawberry.field(
        description="The key of the person: a rostered student, or any teacher's key (the `sub` of their token)."
    )
    role: EnrollmentRole = strawberry.field(description="What the person is in the class.")
    starts_on: date = strawberry.field(description="The first day, on the calendar of the class.")
    ends_on: date | None = strawberry.field(
        description="The first day on which the person is no longer in the class; left out keeps what is stored, null "
        "leaves it open. The first day itself cancels the enrolment.",
        default=strawberry.UNSET,
    )
    display_name: str | None = strawberry.field(
        description="The name that people read, 1 to 200 characters; left out keeps what is stored, null forgets it.",
        default=strawberry.UNSET,
    )


@strawberry.type(description="What came of saving an enrolment.")
class SaveEnrollmentPayload:
    """The saved interval, or why it was not saved."""

    errors: list[RosterError] = strawberry.field(description=ERRORS)
    seq: Seq | None = strawberry.field(description=SEQ)
    enrollment: Enrollment | None = strawberry.field(
        description="The enrolment as it is stored; null when there are errors."
    )


@strawberry.input(description="A piece of work of a class, under the tenant's own key.")
class SaveAssignmentInput:
    """One piece of work."""

    key: strawberry.ID = strawberry.field(description="The tenant's own key of the work, 1 to 128 characters.")
    classroom_id: strawberry.ID = strawberry.field(description="The key of its class, which cannot change later.")
    title: str = strawberry.field(description="The work's title, 1 to 200 characters.")
    concept_ids: list[strawberry.ID] = strawberry.field(
        description="The keys of the concepts it is about, 1 to 50, all in the catalog."
    )
    kind: AssignmentKind | None = strawberry.field(
        description="What kind of work it is; left out or null keeps what is stored, at first ASSIGNMENT.",
        default=strawberry.UNSET,
    )
    due_at: datetime | None = strawberry.field(
        description="When it is due; left out keeps what is stored, null takes the due date away.",
        default=strawberry.UNSET,
    )
    difficulty: AssignmentDifficulty | None = strawberry.field(
        description="How hard it is; left out keeps what is stored, null means not said.", default=strawberry.UNSET
    )


@strawberry.type(description="What came of saving a piece of work.")
class SaveAssignmentPayload:
    """The saved work, or why it was not saved."""

    errors: list[RosterError] = strawberry.field(description=ERRORS)
    seq: Seq | None = strawberry.field(description=SEQ)
    assignment: Assignment | None = strawberry.field(description=SAVED)


@strawberry.type
class EnrollmentMutation:
    """Classes and their work."""

    @strawberry.field(
        description="Save a person's time in a class. Times of one person in one role must not overlap; a student in "
        "the class, now or later, is assigned all its work. Saving the same again changes nothing."
    )
    @allow(Role.ADMIN, scope=Scope.ROSTER)
    async def save_enrollment(
        self,
        info: Info,
        input: Annotated[SaveEnrollmentInput, strawberry.argument(description="The enrolment.")],
    ) -> SaveEnrollmentPayload:
        """An end closes an open interval; a new first day after it enrols again."""
        context = info.context
        stored: list[EnrollmentRow] = []

        async def step(connection: Connection, tenant: int) -> Change:
            enrollment = await _merged(connection, tenant, input)
            change = await enrollments.save_enrollment(connection, tenant, enrollment, now=context.now)
            if not change.faults and input.display_name is not strawberry.UNSET:
                await roster.save_name(connection, tenant, enrollment.person, input.display_name)
            name = await roster.name_of(connection, tenant, enrollment.person)
            stored.append(
                EnrollmentRow(enrollment.person, name, enrollment.role.value, enrollment.started, enrollment.ended)
            )
            return change

        written = await write(context, _enrollment_faults(input), step)
        shows_name = context.viewer.has(Role.ADMIN)
        saved = None if written.errors else enrollment_of(stored[-1], shows_name=shows_name)
        return SaveEnrollmentPayload(errors=written.errors, seq=written.seq, enrollment=saved)

    @strawberry.field(
        description="Save a piece of work and assign it to every student who is or will be in the class. Moving its "
        "due date moves it for all of them. Saving the same again changes nothing."
    )
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.ROSTER)
    async def save_assignment(
        self,
        info: Info,
        input: Annotated[SaveAssignmentInput, strawberry.argument(description="The work.")],
    ) -> SaveAssignmentPayload:
        """Teachers for the classes they teach today."""
        context = info.context

        async def step(connection: Connection, tenant: int) -> Change:
            return await _save_assignment(context, connection, tenant, input)

        written = await write(context, _assignment_faults(input), step)
        assignment = await node_of(context, written, Assignment, input.key)
        return SaveAssignmentPayload(errors=written.errors, seq=written.seq, assignment=assignment)


def _enrollment_faults(input: SaveEnrollmentInput) -> list[Fault]:
    ends_on = given(input.ends_on)
    faults = [
        *check_key(input.classroom_id, "classroomId"),
        *check_key(input.person_id, "personId"),
        *check_day(input.starts_on, "startsOn"),
        *check_day(ends_on, "endsOn"),
        *check_name(given(input.display_name), "displayName"),
    ]
    if ends_on is not None and ends_on < input.starts_on:
        message = f"expected a day not before startsOn, {input.starts_on}, got {ends_on}"
        faults.append(Fault(RosterCode.OUT_OF_RANGE, ("endsOn",), message))
    return faults


async def _merged(connection: Connection, tenant: int, input: SaveEnrollmentInput) -> words.Enrollment:
    role = words.EnrollmentRole[input.role.name]
    known = await enrollments.enrollments_of(
        connection, tenant, classroom=input.classroom_id, person=input.person_id, role=role
    )
    ended = next((interval.ended for interval in known if interval.started == input.starts_on), None)
    return words.Enrollment(input.classroom_id, input.person_id, role, input.starts_on, kept(input.ends_on, ended))


def _assignment_faults(input: SaveAssignmentInput) -> list[Fault]:
    faults = [
        *check_key(input.key, "key"),
        *check_key(input.classroom_id, "classroomId"),
        *check_name(input.title, "title"),
        *check_count(input.concept_ids, 1, ASSIGNMENT_CONCEPTS_MAX, "conceptIds"),
        *check_moment(given(input.due_at), "dueAt"),
    ]
    if not faults:
        faults += [
            fault for place, key in enumerate(input.concept_ids) for fault in check_key(key, "conceptIds", str(place))
        ]
    return faults or check_distinct(input.concept_ids, "conceptIds")


async def _save_assignment(context: Context, connection: Connection, tenant: int, input: SaveAssignmentInput) -> Change:
    taught = await is_taught(context, connection, input.classroom_id)
    if not may_save_assignment(context.viewer, is_taught=taught):
        return FORBIDDEN
    before = await enrollments.assignment_of(connection, tenant, input.key)
    kind, difficulty = given(input.kind), input.difficulty and words.Difficulty[input.difficulty.name]
    assignment = words.Assignment(
        key=input.key,
        classroom=input.classroom_id,
        title=input.title,
        kind=words.AssignmentKind[kind.name] if kind else before.kind if before else words.AssignmentKind.ASSIGNMENT,
        due_at=kept(input.due_at, before.due_at if before else None),
        difficulty=kept(difficulty, before.difficulty if before else None),
        concepts=tuple(input.concept_ids),
    )
    return await enrollments.save_assignment(connection, tenant, assignment, now=context.now)
