"""The dashboard of a class: its rates, who is at risk, and what happened in the last seven days (000-17)."""

from collections.abc import Sequence
from datetime import datetime

import strawberry

from db import dashboards
from db.classrooms import ClassroomRow
from db.dashboards import PAGE, read_dashboard
from db.freshness import Freshness
from db.pool import tenant_transaction
from graph.connections import FIRST_DEFAULT, After, Connection, First, Keyset, limit_of, page_of
from graph.request import Context, Info
from graph.risk import RiskFlag, RiskSeverity, flag_of
from graph.students import Student, students_of
from graph.timelines import LearningEvent, event_of
from rules.calendar import local_date
from rules.classroom import Rollup

AT_RISK_ORDER = Keyset("at-risk", (int, int, str))
RECENT_ORDER = Keyset("recent-activity", (datetime, int))

COMPLETION_RATE = (
    "The mean, over the students active today, of graded work divided by assigned work (excused work left out): a "
    "fraction in 0 to 1, 3 decimals; null while nothing is assigned."
)
AVERAGE_SCORE = (
    "The mean, over the students active today, of each one's mean counted score: 1 is full marks, 3 decimals; null "
    "while nothing is graded."
)
SUBMISSION_RATE = (
    "As `completionRate`, with work that is submitted or graded: a fraction in 0 to 1, 3 decimals; null while "
    "nothing is assigned."
)


def fraction(thousandths: int | None) -> float | None:
    """A stored rate as clients read it."""
    return None if thousandths is None else thousandths / 1000


@strawberry.type(description="The rates of a class over the students active today.")
class ClassroomRollup:
    """Definition C; a rate of which nothing can be said is null, never 0."""

    completion_rate: float | None = strawberry.field(description=COMPLETION_RATE)
    average_score: float | None = strawberry.field(description=AVERAGE_SCORE)
    submission_rate: float | None = strawberry.field(description=SUBMISSION_RATE)
    active_students: int = strawberry.field(description="How many students are enrolled in the class today.")


def rollup_of(rollup: Rollup) -> ClassroomRollup:
    """The rates as clients read them."""
    return ClassroomRollup(
        completion_rate=fraction(rollup.completion_rate),
        average_score=fraction(rollup.average_score),
        submission_rate=fraction(rollup.submission_rate),
        active_students=rollup.active_students,
    )


@strawberry.type(description="A student of the class with at least one raised risk flag.")
class AtRiskStudent:
    """One line of the list; `students_of` decides whether the viewer may still read the student."""

    student_id: strawberry.ID = strawberry.field(description="The key of the student.")
    severity: RiskSeverity = strawberry.field(
        description="The student's overall severity in the class: that of the most severe flag, one step higher with "
        "two reasons or more, at most HIGH."
    )
    flags: list[RiskFlag] = strawberry.field(description="The student's raised flags, the most severe first.")
    point: strawberry.Private[Freshness]

    @strawberry.field(description="The student; null for one who left the class a moment ago.")
    async def student(self, info: Info) -> Student | None:
        """Loaded together with those of the other lines."""
        return (await students_of(info.context, [self.student_id], self.point)).get(self.student_id)


@strawberry.type(description="Something that happened in the class: one learning event of one student.")
class Activity:
    """One line of the list of recent activity."""

    student_id: strawberry.ID = strawberry.field(description="The key of the student.")
    event: LearningEvent = strawberry.field(description="What happened.")
    point: strawberry.Private[Freshness]

    @strawberry.field(description="The student; null for one who left the class a moment ago.")
    async def student(self, info: Info) -> Student | None:
        """Loaded together with those of the other lines."""
        return (await students_of(info.context, [self.student_id], self.point)).get(self.student_id)


@strawberry.type(description="What a teacher looks at each morning. Its rates and first pages are of one moment.")
class Dashboard:
    """A snapshot that brings one page of each list along; another page is read when it is asked for."""

    completion_rate: float | None = strawberry.field(description=COMPLETION_RATE)
    average_score: float | None = strawberry.field(description=AVERAGE_SCORE)
    submission_rate: float | None = strawberry.field(description=SUBMISSION_RATE)
    active_students: int = strawberry.field(description="How many students are enrolled in the class today.")
    snapshot: strawberry.Private[dashboards.Dashboard]
    classroom: strawberry.Private[ClassroomRow]
    point: strawberry.Private[Freshness]

    @strawberry.field(
        description="The students with a raised flag, the most urgent first: by overall severity, then by number of "
        "flags, then by key."
    )
    async def at_risk(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[AtRiskStudent] | None:
        """The page of the snapshot, or another one."""
        limit, place = limit_of(first), AT_RISK_ORDER.read(after)
        rows: Sequence[dashboards.AtRisk] = self.snapshot.at_risk
        if place is not None or first > PAGE:
            page = await _read(info.context, self.classroom, at_risk_after=place, at_risk_limit=limit, recent_limit=0)
            rows = page.at_risk
        return page_of(
            rows, first=first, after=after, cursor_of=lambda row: AT_RISK_ORDER.write(*row.place), node_of=self._at_risk
        )

    @strawberry.field(
        description="What the students enrolled today did in the last 7 days, the newest first by (occurredAt, seq). "
        "Read from the log itself, so it may show events that the rates do not count yet."
    )
    async def recent_activity(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[Activity] | None:
        """The page of the snapshot, or another one."""
        limit, place = limit_of(first), RECENT_ORDER.read(after)
        rows: Sequence[dashboards.Activity] = self.snapshot.recent
        if place is not None or first > PAGE:
            page = await _read(info.context, self.classroom, at_risk_limit=0, recent_after=place, recent_limit=limit)
            rows = page.recent
        return page_of(
            rows, first=first, after=after, cursor_of=lambda row: RECENT_ORDER.write(*row.place), node_of=self._activity
        )

    def _at_risk(self, row: dashboards.AtRisk) -> AtRiskStudent:
        return AtRiskStudent(
            student_id=strawberry.ID(row.student),
            severity=RiskSeverity(row.overall),
            flags=[flag_of(self.classroom.key, flag, self.point) for flag in row.flags],
            point=self.point,
        )

    def _activity(self, row: dashboards.Activity) -> Activity:
        return Activity(student_id=strawberry.ID(row.student), event=event_of(row.event), point=self.point)


async def dashboard_of(context: Context, classroom: ClassroomRow, point: Freshness) -> Dashboard:
    """The dashboard of a class that the viewer may see it of; one statement, however large the class is.

    `point` is what `fresh` answered before. The subscription `dashboardChanged` delivers the same object.
    """
    snapshot = await _read(context, classroom)
    return Dashboard(
        completion_rate=fraction(snapshot.completion_rate),
        average_score=fraction(snapshot.average_score),
        submission_rate=fraction(snapshot.submission_rate),
        active_students=snapshot.active_students,
        snapshot=snapshot,
        classroom=classroom,
        point=point,
    )


async def _read(
    context: Context,
    classroom: ClassroomRow,
    *,
    at_risk_after: tuple[int, int, str] | None = None,
    at_risk_limit: int = PAGE + 1,
    recent_after: tuple[datetime, int] | None = None,
    recent_limit: int = PAGE + 1,
) -> dashboards.Dashboard:
    tenant = context.viewer.tenant
    async with tenant_transaction(context.pool, tenant, read_only=True) as connection:
        return await read_dashboard(
            connection,
            tenant,
            classroom.key,
            now=context.now,
            today=local_date(context.now, classroom.zone),
            at_risk_after=at_risk_after,
            at_risk_limit=at_risk_limit,
            recent_after=recent_after,
            recent_limit=recent_limit,
        )
