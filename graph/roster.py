"""The roster as it is told: schools, students, classes and who may follow whom."""

from datetime import datetime
from typing import Annotated

import strawberry

from db import roster
from db.pool import Connection
from db.roster import Change
from graph.access import allow
from graph.changes import RosterError, given, kept, node_of, write
from graph.classrooms import Classroom
from graph.request import Info
from graph.scalars import Seq
from graph.schools import School
from graph.students import Student
from rules import roster as words
from rules.access import Role, Scope
from rules.roster import check_key, check_moment, check_name, check_zone
from rules.validation import FUTURE_MAX

ERRORS = "What is wrong with the input; empty when it was saved."
SAVED = "What is stored now, as far as you may read it; null when there are errors."
SEQ = "The log position that holds what is saved, to be read with `minSeq`; null when there are errors."
ZONE = "The IANA time zone whose dates hold here; left out keeps what is stored, null takes the next wider one."


@strawberry.input(description="A school of the tenant, under the tenant's own key.")
class SaveSchoolInput:
    """One school."""

    key: strawberry.ID = strawberry.field(description="The tenant's own key of the school, 1 to 128 characters.")
    name: str = strawberry.field(description="The school's name, 1 to 200 characters.")
    zone: str | None = strawberry.field(description=ZONE, default=strawberry.UNSET)


@strawberry.input(description="A student of the tenant; what was recorded for the key before counts from now on.")
class SaveStudentInput:
    """One student."""

    key: strawberry.ID = strawberry.field(description="The tenant's own key of the student, 1 to 128 characters.")
    display_name: str | None = strawberry.field(
        description="The name that people read, 1 to 200 characters; left out keeps what is stored, null forgets it.",
        default=strawberry.UNSET,
    )
    zone: str | None = strawberry.field(description=ZONE, default=strawberry.UNSET)


@strawberry.input(description="A class of the tenant; what was recorded for the key before counts from now on.")
class SaveClassroomInput:
    """One class."""

    key: strawberry.ID = strawberry.field(description="The tenant's own key of the class, 1 to 128 characters.")
    name: str = strawberry.field(description="The class's name, 1 to 200 characters.")
    school_id: strawberry.ID | None = strawberry.field(
        description="The key of the class's school; left out keeps what is stored, null takes it out of its school.",
        default=strawberry.UNSET,
    )
    zone: str | None = strawberry.field(description=ZONE, default=strawberry.UNSET)


@strawberry.input(description="A guardian's recorded consent to follow one student.")
class LinkGuardianInput:
    """One consent."""

    guardian_id: strawberry.ID = strawberry.field(description="The guardian's key: the `sub` of their token.")
    student_id: strawberry.ID = strawberry.field(description="The key of the student.")
    consent_at: datetime = strawberry.field(
        description="When the consent was given; after a revocation only a later consent links them again."
    )


@strawberry.type(description="What came of saving a school.")
class SaveSchoolPayload:
    """The saved school, or why it was not saved."""

    errors: list[RosterError] = strawberry.field(description=ERRORS)
    seq: Seq | None = strawberry.field(description=SEQ)
    school: School | None = strawberry.field(description=SAVED)


@strawberry.type(description="What came of saving a student.")
class SaveStudentPayload:
    """The saved student, or why they were not saved."""

    errors: list[RosterError] = strawberry.field(description=ERRORS)
    seq: Seq | None = strawberry.field(description=SEQ)
    student: Student | None = strawberry.field(description=SAVED)


@strawberry.type(description="What came of saving a class.")
class SaveClassroomPayload:
    """The saved class, or why it was not saved."""

    errors: list[RosterError] = strawberry.field(description=ERRORS)
    seq: Seq | None = strawberry.field(description=SEQ)
    classroom: Classroom | None = strawberry.field(description=SAVED)


@strawberry.type(description="What came of recording a guardian's consent.")
class LinkGuardianPayload:
    """The linked student, or why nobody was linked."""

    errors: list[RosterError] = strawberry.field(description=ERRORS)
    seq: Seq | None = strawberry.field(description=SEQ)
    student: Student | None = strawberry.field(description=SAVED)


@strawberry.type
class RosterMutation:
    """Who and what a tenant has; all of it is for admins and for machines with the scope `roster`."""

    @strawberry.field(description="Save a school under its key; saving the same again changes nothing.")
    @allow(Role.ADMIN, scope=Scope.ROSTER)
    async def save_school(
        self,
        info: Info,
        input: Annotated[SaveSchoolInput, strawberry.argument(description="The school.")],
    ) -> SaveSchoolPayload:
        """A change of zone reaches the classes of the school that have none of their own."""
        faults = [
            *check_key(input.key, "key"),
            *check_name(input.name, "name"),
            *check_zone(given(input.zone), "zone"),
        ]

        async def step(connection: Connection, tenant: int) -> Change:
            before = await roster.school_of(connection, tenant, input.key)
            zone = kept(input.zone, before.zone if before else None)
            return await roster.save_school(connection, tenant, words.School(input.key, input.name, zone))

        written = await write(info.context, faults, step)
        school = await node_of(info.context, written, School, input.key)
        return SaveSchoolPayload(errors=written.errors, seq=written.seq, school=school)

    @strawberry.field(description="Save a student under their key; saving the same again changes nothing.")
    @allow(Role.ADMIN, scope=Scope.ROSTER)
    async def save_student(
        self,
        info: Info,
        input: Annotated[SaveStudentInput, strawberry.argument(description="The student.")],
    ) -> SaveStudentPayload:
        """The name goes into the people table only."""
        faults = [
            *check_key(input.key, "key"),
            *check_name(given(input.display_name), "displayName"),
            *check_zone(given(input.zone), "zone"),
        ]

        async def step(connection: Connection, tenant: int) -> Change:
            before = await roster.student_of(connection, tenant, input.key)
            zone = kept(input.zone, before.zone if before else None)
            name = kept(input.display_name, await roster.name_of(connection, tenant, input.key))
            student = words.Student(input.key, zone, name)
            return await roster.save_student(connection, tenant, student, now=info.context.now)

        written = await write(info.context, faults, step)
        student = await node_of(info.context, written, Student, input.key)
        return SaveStudentPayload(errors=written.errors, seq=written.seq, student=student)

    @strawberry.field(description="Save a class under its key; saving the same again changes nothing.")
    @allow(Role.ADMIN, scope=Scope.ROSTER)
    async def save_classroom(
        self,
        info: Info,
        input: Annotated[SaveClassroomInput, strawberry.argument(description="The class.")],
    ) -> SaveClassroomPayload:
        """Its school must be known."""
        school_id = given(input.school_id)
        faults = [
            *check_key(input.key, "key"),
            *check_name(input.name, "name"),
            *check_zone(given(input.zone), "zone"),
            *(() if school_id is None else check_key(school_id, "schoolId")),
        ]

        async def step(connection: Connection, tenant: int) -> Change:
            before = await roster.classroom_of(connection, tenant, input.key)
            school = kept(input.school_id, before.school if before else None)
            zone = kept(input.zone, before.zone if before else None)
            classroom = words.Classroom(input.key, input.name, school, zone)
            return await roster.save_classroom(connection, tenant, classroom, now=info.context.now)

        written = await write(info.context, faults, step)
        classroom = await node_of(info.context, written, Classroom, input.key)
        return SaveClassroomPayload(errors=written.errors, seq=written.seq, classroom=classroom)

    @strawberry.field(description="Record a guardian's consent to follow a student; doing it again changes nothing.")
    @allow(Role.ADMIN, scope=Scope.ROSTER)
    async def link_guardian(
        self,
        info: Info,
        input: Annotated[LinkGuardianInput, strawberry.argument(description="The consent.")],
    ) -> LinkGuardianPayload:
        """The guardian need not be anybody yet; the student must be rostered."""
        context = info.context
        faults = [
            *check_key(input.guardian_id, "guardianId"),
            *check_key(input.student_id, "studentId"),
            *check_moment(input.consent_at, "consentAt", latest=context.now + FUTURE_MAX),
        ]

        async def step(connection: Connection, tenant: int) -> Change:
            link = words.GuardianLink(input.guardian_id, input.student_id, input.consent_at)
            return await roster.save_guardian_link(connection, tenant, link)

        written = await write(context, faults, step)
        student = await node_of(context, written, Student, input.student_id)
        return LinkGuardianPayload(errors=written.errors, seq=written.seq, student=student)
