"""A student's history as clients read it: the events of the log, in the order in which they happened (000-19)."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from enum import Enum

import strawberry

from db import timelines
from db.pool import tenant_transaction
from db.timelines import BEGINNING, END, LoggedRow, TimelineAsk
from graph.connections import Connection, Keyset, limit_of, page_of
from graph.refusal import ErrorCode, Refused
from graph.request import Context
from graph.scalars import Seq, as_id
from rules.calendar import day_start
from rules.kinds import Kind

DAYS_APART_MAX = 366
LAST_YEAR = 9999  # days near the end of the calendar have no next day, or none in UTC
OLDEST_FIRST = Keyset("timeline", (datetime, int))
NEWEST_FIRST = Keyset("timeline-newest", (datetime, int))


@strawberry.enum(description="What can happen: the canonical types of learning events.")
class EventType(Enum):
    """`rules.kinds.Kind`, described."""

    ASSIGNMENT_ASSIGNED = strawberry.enum_value(
        Kind.ASSIGNMENT_ASSIGNED, description="A piece of work was assigned to the student."
    )
    SUBMISSION_CREATED = strawberry.enum_value(Kind.SUBMISSION_CREATED, description="Work was handed in.")
    SUBMISSION_GRADED = strawberry.enum_value(
        Kind.SUBMISSION_GRADED, description="Work that was handed in got a score."
    )
    CONCEPT_STARTED = strawberry.enum_value(Kind.CONCEPT_STARTED, description="The student began a concept.")
    CONCEPT_COMPLETED = strawberry.enum_value(Kind.CONCEPT_COMPLETED, description="The student completed a concept.")
    CONCEPT_MASTERED = strawberry.enum_value(
        Kind.CONCEPT_MASTERED, description="Someone claims that the student has mastered a concept."
    )
    QUIZ_ATTEMPT = strawberry.enum_value(Kind.QUIZ_ATTEMPT, description="A quiz was taken and scored.")
    CONTENT_VIEWED = strawberry.enum_value(
        Kind.CONTENT_VIEWED, description="A page, video or other content was viewed."
    )
    EXERCISE_COMPLETED = strawberry.enum_value(
        Kind.EXERCISE_COMPLETED, description="Some or all exercises of a set were done."
    )
    QUALITY_ASSESSED = strawberry.enum_value(Kind.QUALITY_ASSESSED, description="The quality of work was assessed.")
    PEER_HELP = strawberry.enum_value(Kind.PEER_HELP, description="One student helped another.")
    QUIZ_CREATED = strawberry.enum_value(Kind.QUIZ_CREATED, description="A quiz was made.")
    QUIZ_STARTED = strawberry.enum_value(Kind.QUIZ_STARTED, description="A live quiz began.")
    QUESTION_DISPLAYED = strawberry.enum_value(
        Kind.QUESTION_DISPLAYED, description="A question of a live quiz was shown."
    )
    QUIZ_ENDED = strawberry.enum_value(Kind.QUIZ_ENDED, description="A live quiz ended.")
    ANSWER_SUBMITTED = strawberry.enum_value(
        Kind.ANSWER_SUBMITTED, description="An answer to a quiz question was given."
    )
    STUDENT_LOGIN = strawberry.enum_value(Kind.STUDENT_LOGIN, description="The student logged in.")
    STUDENT_LOGOUT = strawberry.enum_value(Kind.STUDENT_LOGOUT, description="The student logged out.")
    CLASSROOM_JOINED = strawberry.enum_value(Kind.CLASSROOM_JOINED, description="The student entered a class.")
    CLASSROOM_LEFT = strawberry.enum_value(Kind.CLASSROOM_LEFT, description="The student left a class.")
    HELP_REQUESTED = strawberry.enum_value(Kind.HELP_REQUESTED, description="The student asked for help.")
    APP_ERROR = strawberry.enum_value(Kind.APP_ERROR, description="An app failed.")
    EVENT_VOIDED = strawberry.enum_value(Kind.EVENT_VOIDED, description="An event was taken out of every calculation.")
    SUBMISSION_REGRADED = strawberry.enum_value(Kind.SUBMISSION_REGRADED, description="A score was replaced.")
    ASSIGNMENT_EXCUSED = strawberry.enum_value(
        Kind.ASSIGNMENT_EXCUSED, description="The student was excused from a piece of work."
    )
    ASSIGNMENT_REOPENED = strawberry.enum_value(
        Kind.ASSIGNMENT_REOPENED, description="A piece of work was opened again."
    )
    OTHER = strawberry.enum_value(Kind.OTHER, description="Anything else; stored, and counted nowhere.")


@strawberry.enum(description="Whether an event of the log counts.")
class EventEffect(Enum):
    """The marks of an event."""

    EFFECTIVE = strawberry.enum_value("EFFECTIVE", description="It counts.")
    VOIDED = strawberry.enum_value("VOIDED", description="It was taken out of every calculation. Shown to staff only.")
    SUPERSEDED = strawberry.enum_value("SUPERSEDED", description="A correction replaced its value. Staff only.")
    DEAD = strawberry.enum_value("DEAD", description="No rule could take it; it counts nowhere. Staff only.")


@strawberry.enum(description="Which end of a history comes first.")
class TimelineOrder(Enum):
    """Both walk along (occurredAt, seq)."""

    OLDEST_FIRST = strawberry.enum_value("OLDEST_FIRST", description="As it happened.")
    NEWEST_FIRST = strawberry.enum_value("NEWEST_FIRST", description="The latest event first.")


@strawberry.type(description="One event of the log: something that happened, recorded once.")
class LearningEvent:
    """An event as the log holds it, with whether it counts."""

    id: strawberry.ID = strawberry.field(description="The server's id of the event (UUIDv7).")
    seq: Seq = strawberry.field(description="Its position in the tenant's log.")
    source: str = strawberry.field(description="The system or person that recorded it.")
    event_id: strawberry.ID = strawberry.field(description="Its id within its source.")
    type: EventType = strawberry.field(description="What happened.")
    source_type: str | None = strawberry.field(
        description="The name that the source used for the type; null when it used the canonical one."
    )
    occurred_at: datetime = strawberry.field(description="When it happened.")
    received_at: datetime = strawberry.field(description="When the server received it.")
    is_late: bool = strawberry.field(description="Whether it happened long before it was received.")
    classroom_id: strawberry.ID | None = strawberry.field(description="The key of the class it belongs to.")
    assignment_id: strawberry.ID | None = strawberry.field(description="The key of the assignment it is about.")
    quiz_id: strawberry.ID | None = strawberry.field(description="The key of the quiz it is about.")
    concept_ids: list[strawberry.ID] = strawberry.field(description="The keys of the concepts it is about.")
    submission_id: strawberry.ID | None = strawberry.field(description="The submission it is about.")
    score: float | None = strawberry.field(
        description="The score as a fraction of full marks, 6 decimals, above 1 only with extra credit; null without."
    )
    due_at: datetime | None = strawberry.field(description="When the assigned work is due, as this event says.")
    time_spent_ms: int | None = strawberry.field(description="Time spent, in milliseconds.")
    effect: EventEffect = strawberry.field(description="Whether it counts.")


def event_of(row: LoggedRow) -> LearningEvent:
    """An event as clients read it."""
    return LearningEvent(
        id=strawberry.ID(str(row.id)),
        seq=Seq(row.seq),
        source=row.source,
        event_id=strawberry.ID(row.event_id),
        type=EventType(row.kind),
        source_type=row.source_type,
        occurred_at=row.occurred_at,
        received_at=row.received_at,
        is_late=row.is_late,
        classroom_id=as_id(row.classroom),
        assignment_id=as_id(row.assignment),
        quiz_id=as_id(row.quiz),
        concept_ids=[strawberry.ID(concept) for concept in row.concepts],
        submission_id=as_id(row.submission),
        score=None if row.ratio is None else row.ratio / 1_000_000,
        due_at=row.due_at,
        time_spent_ms=row.time_spent_ms,
        effect=EventEffect[row.effect.name],
    )


def period_of(from_: date | None, to: date | None, zone: str) -> tuple[datetime, datetime]:
    """The instants [since, until) of a period of local days, both inclusive. Raises Refused."""
    if from_ and to and to < from_:
        raise Refused(ErrorCode.BAD_INPUT, "'to' must not be before 'from'.", field=("to",))
    if from_ and to and to - from_ > timedelta(days=DAYS_APART_MAX):
        message = f"'from' and 'to' may be at most {DAYS_APART_MAX} days apart."
        raise Refused(ErrorCode.BAD_INPUT, message, field=("to",))
    since = _start(from_, zone) if from_ else BEGINNING
    until = _start(to + timedelta(days=1), zone) if to and to.year < LAST_YEAR else END
    return since, until


def _start(day: date, zone: str) -> datetime:
    return END if day.year >= LAST_YEAR else BEGINNING if day.year <= 1 else day_start(day, zone)


async def timeline_of(
    context: Context, ask: TimelineAsk, *, first: int, after: str | None
) -> Connection[LearningEvent]:
    """A page of one student's history."""
    order = NEWEST_FIRST if ask.is_newest_first else OLDEST_FIRST
    place = order.read(after)
    tenant = context.viewer.tenant
    async with tenant_transaction(context.pool, tenant, read_only=True) as connection:
        rows = await timelines.of_student(connection, tenant, replace(ask, after=place, limit=limit_of(first)))
    return page_of(
        rows,
        first=first,
        after=after,
        cursor_of=lambda row: order.write(row.occurred_at, row.seq),
        node_of=event_of,
    )
