"""The subscriptions: risk flags, mastery, dashboards and events, pushed as they change and resumed without a gap."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Annotated

import strawberry

from db.background import Job as StoredJob
from db.changes import ChangedStanding, RecordedEvent, RiskTransition
from db.freshness import Freshness
from graph.access import PEOPLE, allow
from graph.background import Job, job_of
from graph.dashboards import Activity, Dashboard
from graph.freshness import Fresh
from graph.request import Info
from graph.risk import RiskEvidence, RiskReason, RiskSeverity, evidence_of
from graph.sources import dashboard_stream, event_stream, job_stream, mastery_stream, risk_stream
from graph.standings import ConceptMastery, key_of, mastery_shown
from graph.streams import LiveMessageKind, Told, follow
from graph.students import Student, students_of
from graph.timelines import event_of
from rules.access import Role, Scope

ClassroomId = Annotated[strawberry.ID, strawberry.argument(description="The key of the class.")]
After = Annotated[
    str | None,
    strawberry.argument(
        description="The `resumeToken` of the last message you have handled: exactly what came after it follows, in "
        "order, then what happens from now on. Left out or null: first the present state, or a READY message where "
        "there is no state to send, then what happens from now on."
    ),
]


@strawberry.interface(
    description="One message of a subscription. Only SNAPSHOT and CHANGE carry a payload; READY and RESYNC have none."
)
class LiveMessage(Fresh):
    """What every message carries."""

    kind: LiveMessageKind = strawberry.field(description="What the message brings.")
    resume_token: str = strawberry.field(
        description="Where you stand once you have handled this message: send it as `after` of the same subscription."
    )


@strawberry.enum(description="What became of a risk flag.")
class RiskFlagChangeKind(Enum):
    """The changes of `rules.risk.Change`, described."""

    RAISED = strawberry.enum_value("RAISED", description="The reason began to hold.")
    SEVERITY_CHANGED = strawberry.enum_value("SEVERITY_CHANGED", description="It holds, and matters more or less.")
    CLEARED = strawberry.enum_value("CLEARED", description="The reason has ended.")


@strawberry.type(description="One change of one risk flag: of one student of the class, for one reason.")
class RiskFlagTransition:
    """A stored transition."""

    change: RiskFlagChangeKind = strawberry.field(description="What became of the flag.")
    student_id: strawberry.ID = strawberry.field(description="The key of the student.")
    classroom_id: strawberry.ID = strawberry.field(description="The key of the class.")
    reason: RiskReason = strawberry.field(description="Why the flag is, or was, up.")
    severity: RiskSeverity | None = strawberry.field(description="How much the reason matters now; null once cleared.")
    earlier: RiskSeverity | None = strawberry.field(description="The severity before; null when it was not raised.")
    overall: RiskSeverity | None = strawberry.field(
        description="The student's overall severity in the class after this change; null when no flag is left."
    )
    notify: bool = strawberry.field(
        description="Whether this is worth telling a person: false for what is repeated within a day, part of the "
        "news just told, or too little to speak of. The stored flag has changed all the same."
    )
    evidence: RiskEvidence = strawberry.field(description="The events and numbers behind it.")
    clears_when: str = strawberry.field(description="What would end it, in one sentence; empty once cleared.")
    at: datetime = strawberry.field(description="When the change was found.")
    point: strawberry.Private[Freshness]

    @strawberry.field(description="The student; null for one who left the class a moment ago.")
    async def student(self, info: Info) -> Student | None:
        """Authorized anew for each message."""
        return (await students_of(info.context, [self.student_id], self.point)).get(self.student_id)


@strawberry.type(description="A message of `riskFlagChanged`.")
class RiskFlagMessage(LiveMessage):
    """Each stored transition, in order."""

    transition: RiskFlagTransition | None = strawberry.field(description="What changed; null for READY and RESYNC.")


@strawberry.type(description="A message of `masteryChanged`: the newest state of one student's mastery of a concept.")
class MasteryMessage(LiveMessage):
    """One standing."""

    student_id: strawberry.ID | None = strawberry.field(
        description="The key of the student; null for READY and RESYNC."
    )
    mastery: ConceptMastery | None = strawberry.field(
        description="The newest state. It is identified by student, `classroomId` and concept, and replaces what you "
        "have; NO_DATA means that all evidence was taken back. Null for READY and RESYNC."
    )

    @strawberry.field(description="The student; null where you may not read them outside this stream.")
    async def student(self, info: Info) -> Student | None:
        """Authorized anew for each message."""
        if self.student_id is None:
            return None
        return (await students_of(info.context, [self.student_id], self.freshness)).get(self.student_id)


@strawberry.type(description="A message of `dashboardChanged`: the newest dashboard of the class.")
class DashboardMessage(LiveMessage):
    """The whole dashboard: it replaces the one you have."""

    dashboard: Dashboard | None = strawberry.field(description="The dashboard as it is now; null for RESYNC.")


@strawberry.type(description="A message of `eventRecorded`: something that happened in the class.")
class EventMessage(LiveMessage):
    """One event of the log."""

    activity: Activity | None = strawberry.field(
        description="What was recorded, of whom; null for READY and RESYNC. `effect` is as it was when sent."
    )


@strawberry.type(description="A message of `jobProgressed`: the job as it stands.")
class JobMessage(LiveMessage):
    """The whole job: it replaces the one you have."""

    job: Job | None = strawberry.field(description="The job as it is now; null for RESYNC.")


@strawberry.type(description="What is pushed while you listen, over graphql-transport-ws.")
class LiveSubscription:
    """The roots; each is a source of messages that ends when the right to it does."""

    @strawberry.subscription(
        description="Every change of a risk flag of the class, in order, each once. Without `after` a READY message "
        "comes first. Changes are kept for 7 days. For the class's teachers, admins and machines that read."
    )
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.READ)
    async def risk_flag_changed(
        self, info: Info, classroom_id: ClassroomId, after: After = None
    ) -> AsyncGenerator[RiskFlagMessage, None]:
        """Transitions by their number."""
        key = key_of(classroom_id, field="classroomId")
        source = partial(risk_stream, key=key)
        async with aclosing(follow(info.context, source, after, partial(_risk_message, key))) as messages:
            async for message in messages:
                yield message

    @strawberry.subscription(
        description="The mastery of one student, or of all students of a class: name exactly one. Without `after` the "
        "present state comes first, one SNAPSHOT a standing, then READY; then each standing that changes, its newest "
        "state, at most every 20 ms, or 100 ms where much changes. Of a student you get the view over all classes "
        "(`classroomId` null) and that of each class."
    )
    @allow(*PEOPLE, scope=Scope.READ)
    async def mastery_changed(
        self,
        info: Info,
        student_id: Annotated[
            strawberry.ID | None,
            strawberry.argument(description="The key of a student: yourself, your child, or one you teach."),
        ] = None,
        classroom_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="The key of a class; for its staff.")
        ] = None,
        after: After = None,
    ) -> AsyncGenerator[MasteryMessage, None]:
        """Standings by their change number."""
        source = partial(mastery_stream, student_id=student_id, classroom_id=classroom_id)
        async with aclosing(follow(info.context, source, after, _mastery_message)) as messages:
            async for message in messages:
                yield message

    @strawberry.subscription(
        description="The dashboard of the class: the present one first (SNAPSHOT, without `after`), then the newest "
        "after each change, at most every 100 ms. For the class's teachers and admins."
    )
    @allow(Role.TEACHER, Role.ADMIN)
    async def dashboard_changed(
        self, info: Info, classroom_id: ClassroomId, after: After = None
    ) -> AsyncGenerator[DashboardMessage, None]:
        """The class's state by its change number."""
        source = partial(dashboard_stream, key=key_of(classroom_id, field="classroomId"))
        async with aclosing(follow(info.context, source, after, _dashboard_message)) as messages:
            async for message in messages:
                yield message

    @strawberry.subscription(
        description="Every event recorded in the class, in the order of the log, each once, before it is counted. "
        "Without `after` a READY message comes first. For the class's teachers and admins."
    )
    @allow(Role.TEACHER, Role.ADMIN)
    async def event_recorded(
        self, info: Info, classroom_id: ClassroomId, after: After = None
    ) -> AsyncGenerator[EventMessage, None]:
        """The log by `seq`."""
        source = partial(event_stream, key=key_of(classroom_id, field="classroomId"))
        async with aclosing(follow(info.context, source, after, _event_message)) as messages:
            async for message in messages:
                yield message

    @strawberry.subscription(
        description="How far a job is: the present state first (SNAPSHOT, without `after`), then the newest after each "
        "step. For whoever asked for the job, and admins."
    )
    @allow(*PEOPLE, scope=Scope.READ)
    async def job_progressed(
        self,
        info: Info,
        job_id: Annotated[strawberry.ID, strawberry.argument(description="The key of the job.")],
        after: After = None,
    ) -> AsyncGenerator[JobMessage, None]:
        """The job by its change number."""
        source = partial(job_stream, key=key_of(job_id, field="jobId"))
        async with aclosing(follow(info.context, source, after, _job_message)) as messages:
            async for message in messages:
                yield message


def _risk_message(classroom: str, one: Told[RiskTransition]) -> RiskFlagMessage:
    return RiskFlagMessage(
        freshness=one.point, kind=one.kind, resume_token=one.token, transition=_transition(classroom, one)
    )


def _mastery_message(one: Told[ChangedStanding]) -> MasteryMessage:
    row = one.row
    return MasteryMessage(
        freshness=one.point,
        kind=one.kind,
        resume_token=one.token,
        student_id=None if row is None else strawberry.ID(row.student),
        mastery=None if row is None else mastery_shown(row.mastery, row.classroom),
    )


def _dashboard_message(one: Told[Dashboard]) -> DashboardMessage:
    return DashboardMessage(freshness=one.point, kind=one.kind, resume_token=one.token, dashboard=one.row)


def _event_message(one: Told[RecordedEvent]) -> EventMessage:
    return EventMessage(freshness=one.point, kind=one.kind, resume_token=one.token, activity=_activity(one))


def _job_message(one: Told[StoredJob]) -> JobMessage:
    job = None if one.row is None else job_of(one.row)
    return JobMessage(freshness=one.point, kind=one.kind, resume_token=one.token, job=job)


def _transition(classroom: str, told: Told[RiskTransition]) -> RiskFlagTransition | None:
    row = told.row
    if row is None:
        return None
    return RiskFlagTransition(
        point=told.point,
        change=RiskFlagChangeKind(row.change),
        student_id=strawberry.ID(row.student),
        classroom_id=strawberry.ID(classroom),
        reason=RiskReason(row.reason),
        severity=_severity(row.severity),
        earlier=_severity(row.earlier),
        overall=_severity(row.overall),
        notify=row.notify,
        evidence=evidence_of(row.evidence),
        clears_when=row.clears_when,
        at=row.at,
    )


def _severity(stored: int | None) -> RiskSeverity | None:
    return None if stored is None else RiskSeverity(stored)


def _activity(told: Told[RecordedEvent]) -> Activity | None:
    row = told.row
    if row is None:
        return None
    return Activity(student_id=strawberry.ID(row.student), event=event_of(row.event), point=told.point)
