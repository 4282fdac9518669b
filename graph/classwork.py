"""What a class is made of, as clients read it: who is in it, what work it has, and how its numbers are made."""

from datetime import date, datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import strawberry

from db.classrooms import AssignmentRow, EnrollmentRow
from graph.connections import Keyset
from graph.freshness import fresh
from graph.nodes import Node, global_id
from graph.request import Info
from graph.standings import MasteryModel
from rules.policy import MILLION, Policy

if TYPE_CHECKING:
    from graph.students import Student

ROSTER_ORDER = Keyset("roster", (str, str, str))
ASSIGNMENT_ORDER = Keyset("assignments", (str,))


@strawberry.enum(description="What a person is in a class.")
class EnrollmentRole(Enum):
    """The words of `rules.roster.EnrollmentRole`, described."""

    STUDENT = strawberry.enum_value("STUDENT", description="Learns in the class.")
    TEACHER = strawberry.enum_value("TEACHER", description="Teaches the class; co-teachers alike.")


@strawberry.enum(description="What kind of work an assignment is.")
class AssignmentKind(Enum):
    """The words of `rules.roster.AssignmentKind`, described."""

    ASSIGNMENT = strawberry.enum_value("ASSIGNMENT", description="Work that is handed in and graded.")
    QUIZ = strawberry.enum_value("QUIZ", description="Questions that are answered and scored.")
    EXERCISE = strawberry.enum_value("EXERCISE", description="Practice.")


@strawberry.enum(description="How hard a piece of work is: its weight in the mastery index.")
class AssignmentDifficulty(Enum):
    """The words of `rules.roster.Difficulty`, described."""

    BEGINNER = strawberry.enum_value("beginner", description="Weighs 0.8.")
    INTERMEDIATE = strawberry.enum_value("intermediate", description="Weighs 1.0; work that says nothing counts so.")
    ADVANCED = strawberry.enum_value("advanced", description="Weighs 1.2.")


@strawberry.type(description="A person's time in a class.")
class Enrollment:
    """One interval of local days."""

    person_id: strawberry.ID = strawberry.field(
        description="The key of the person: a student's key, or a teacher's (the `sub` of their token)."
    )
    display_name: str | None = strawberry.field(
        description="The person's name, for the class's teachers and admins; null for machines, or when none is kept."
    )
    role: EnrollmentRole = strawberry.field(description="What the person is in the class.")
    starts_on: date = strawberry.field(description="The first day, on the calendar of the class.")
    ends_on: date | None = strawberry.field(
        description="The first day on which the person is no longer in the class; null while it is open."
    )

    @strawberry.field(
        description="The student; null for a teacher, for a key that no student has, and for one you may not see today."
    )
    async def student(self, info: Info) -> Annotated["Student", strawberry.lazy("graph.students")] | None:
        """Loaded together with those of the other entries."""
        if self.role is not EnrollmentRole.STUDENT:
            return None
        from graph.students import students_of  # late: a student shows work, an entry of the roster shows its student

        point = await fresh(info.context)  # the operation's one reading
        return (await students_of(info.context, [self.person_id], point)).get(self.person_id)


def enrollment_of(row: EnrollmentRow, *, shows_name: bool) -> Enrollment:
    """An interval as clients read it."""
    return Enrollment(
        person_id=strawberry.ID(row.person),
        display_name=row.display_name if shows_name else None,
        role=EnrollmentRole(row.role),
        starts_on=row.started,
        ends_on=row.ended,
    )


@strawberry.type(description="A piece of work of a class: an assignment, quiz or exercise.")
class Assignment(Node):
    """What the roster says; what a student did with it stands in the student's work."""

    key: str = strawberry.field(description="The tenant's own key of the work, as arguments take it.")
    classroom_id: strawberry.ID = strawberry.field(description="The key of its class.")
    title: str = strawberry.field(description="The work's title.")
    kind: AssignmentKind = strawberry.field(description="What kind of work it is.")
    due_at: datetime | None = strawberry.field(
        description="When it is due; the event that assigned it to a student may say otherwise. Null: no due date."
    )
    difficulty: AssignmentDifficulty | None = strawberry.field(description="How hard it is; null when not said.")
    concept_ids: list[str] = strawberry.field(description="The keys of the concepts it is about.")


def assignment_of(row: AssignmentRow) -> Assignment:
    """A piece of work as clients read it."""
    return Assignment(
        id=global_id("Assignment", row.key),
        key=row.key,
        classroom_id=strawberry.ID(row.classroom),
        title=row.title,
        kind=AssignmentKind(row.kind),
        due_at=row.due_at,
        difficulty=None if row.difficulty is None else AssignmentDifficulty(row.difficulty),
        concept_ids=list(row.concepts),
    )


@strawberry.type(description="How the numbers of a class are made. Each change is a new version, none is rewritten.")
class ClassroomPolicy:
    """One version; every number names the version that made it."""

    version: int = strawberry.field(description="The number of this version; 1 holds the defaults.")
    model: MasteryModel = strawberry.field(description="How evidence becomes a score.")
    recent_percent: int = strawberry.field(
        description="How much the newest evidence weighs in DECAYING_AVERAGE, 1 to 99 percent; 65 at first."
    )
    success_threshold: float = strawberry.field(
        description="The ratio from which an attempt is a success, a fraction in 0 to 1; 0.6 at first."
    )
    mastery_threshold: float = strawberry.field(
        description="The score from which a concept is mastered, a fraction in 0 to 1; 0.8 at first."
    )
    min_evidence: int = strawberry.field(
        description="The pieces of evidence below which a score is not yet sure; 3 at first."
    )
    inactivity_days: int = strawberry.field(
        description="The days without activity after which a student is at risk: 7, 14, 30 or 90; 7 at first."
    )
    extra_credit: bool = strawberry.field(description="Whether scores above the maximum are accepted; not at first.")


def policy_shown(policy: Policy) -> ClassroomPolicy:
    """A policy as clients read it."""
    return ClassroomPolicy(
        version=policy.version,
        model=MasteryModel(policy.model),
        recent_percent=policy.recent_percent,
        success_threshold=policy.success_threshold / MILLION,
        mastery_threshold=policy.mastery_threshold / MILLION,
        min_evidence=policy.min_evidence,
        inactivity_days=policy.inactivity_days,
        extra_credit=policy.extra_credit,
    )
