"""What came in, as clients read it: the backlog, what was set aside, and what became of an event."""

from datetime import datetime
from enum import Enum

import strawberry

from db.ingestion import ConflictRow, DeadLetterRow, EventRow, UnrosteredRow, WaitingCorrectionRow
from graph.event_inputs import Lane
from graph.scalars import Seq, as_id
from graph.timelines import EventType


@strawberry.type(description="What waits in one lane.")
class LaneBacklog:
    """A part of the backlog."""

    lane: Lane = strawberry.field(description="The lane.")
    depth: int = strawberry.field(description="How many entries wait in it.")
    oldest_age_ms: int = strawberry.field(description="Age of the oldest entry in milliseconds.")


@strawberry.type(description="What is recorded and not folded yet: events, and changes of roster, catalog and policy.")
class Backlog:
    """The outbox of the whole tenant, counted."""

    depth: int = strawberry.field(description="How many entries wait.")
    oldest_age_ms: int = strawberry.field(description="Age of the oldest entry in milliseconds; 0 when none waits.")
    lanes: list[LaneBacklog] = strawberry.field(description="The same by lane; lanes where nothing waits are left out.")


@strawberry.type(description="An event id that was sent again with another content. The first one stored counts.")
class IngestionConflict:
    """One differing content; sending the same one again counts it once more."""

    source: str = strawberry.field(description="The source of the event.")
    event_id: strawberry.ID = strawberry.field(description="The event's id within its source.")
    seq: Seq = strawberry.field(description="The log position of the stored event.")
    stored_hash: str = strawberry.field(description="Fingerprint of the stored content, in hexadecimal.")
    sent_hash: str = strawberry.field(description="Fingerprint of the differing content, in hexadecimal.")
    times: int = strawberry.field(description="How often the differing content was sent.")
    first_at: datetime = strawberry.field(description="When it was sent first.")
    last_at: datetime = strawberry.field(description="When it was sent last.")


@strawberry.enum(description="Why an event waits for the roster.")
class UnrosteredReason(Enum):
    """What the roster does not know now."""

    UNKNOWN_STUDENT = strawberry.enum_value("UNKNOWN_STUDENT", description="The roster has no such student.")
    UNKNOWN_CLASSROOM = strawberry.enum_value("UNKNOWN_CLASSROOM", description="The roster has no such class.")
    UNKNOWN_STUDENT_AND_CLASSROOM = strawberry.enum_value(
        "UNKNOWN_STUDENT_AND_CLASSROOM", description="The roster has neither."
    )
    BINDING = strawberry.enum_value(
        "BINDING", description="The roster knows both by now; the event takes effect with the next fold."
    )


@strawberry.type(description="An event whose student or class the roster does not know: stored, without effect yet.")
class UnrosteredEvent:
    """Gone from this list once the roster names its student and class."""

    seq: Seq = strawberry.field(description="Its position in the tenant's log.")
    source: str = strawberry.field(description="The system or person that recorded it.")
    event_id: strawberry.ID = strawberry.field(description="Its id within its source.")
    student_id: strawberry.ID = strawberry.field(description="The student's key as it was sent.")
    classroom_id: strawberry.ID | None = strawberry.field(description="The class's key as it was sent; null without.")
    received_at: datetime = strawberry.field(description="When the server received it.")
    reason: UnrosteredReason = strawberry.field(description="What the roster does not know.")


@strawberry.type(description="An event that no rule could take: stored, out of every calculation.")
class DeadLetter:
    """Handled by an admin."""

    source: str = strawberry.field(description="The system or person that recorded it.")
    event_id: strawberry.ID = strawberry.field(description="Its id within its source.")
    seq: Seq = strawberry.field(description="Its position in the tenant's log.")
    student_id: strawberry.ID = strawberry.field(description="The key of its student.")
    classroom_id: strawberry.ID | None = strawberry.field(description="The key of its class; null without.")
    error: str = strawberry.field(description="The kind of error that the rules met.")
    at: datetime = strawberry.field(description="When it was set aside.")


@strawberry.type(description="A correction that came before what it corrects; it applies when that is recorded.")
class WaitingCorrection:
    """It never expires."""

    seq: Seq = strawberry.field(description="Its position in the tenant's log.")
    source: str = strawberry.field(description="The system or person that recorded the correction.")
    event_id: strawberry.ID = strawberry.field(description="The correction's id within its source.")
    type: EventType = strawberry.field(description="What the correction does.")
    target_source: str | None = strawberry.field(
        description="The source of the event or submission it corrects; null for an excuse or a reopening."
    )
    target_event_id: strawberry.ID | None = strawberry.field(
        description="The id of the event it corrects, within that source; null where it names none."
    )
    target_submission_id: strawberry.ID | None = strawberry.field(
        description="The key of the submission it regrades, within that source; null where it names none."
    )
    assignment_id: strawberry.ID | None = strawberry.field(
        description="The key of the work it excuses or reopens; null for other corrections."
    )
    student_id: strawberry.ID | None = strawberry.field(
        description="The key of the student whose work it corrects; null where it does not say."
    )
    reason: str = strawberry.field(description="Why, in the words of whoever corrected.")
    at: datetime = strawberry.field(description="When the correction was recorded.")


@strawberry.enum(description="What became of a recorded event.")
class EventStatus(Enum):
    """The first that holds."""

    WAITING = strawberry.enum_value("WAITING", description="Recorded; its effects are not in yet.")
    DEAD = strawberry.enum_value("DEAD", description="No rule could take it; it has no effect.")
    VOIDED = strawberry.enum_value("VOIDED", description="Taken out of every calculation by a correction.")
    UNROSTERED = strawberry.enum_value("UNROSTERED", description="It waits until the roster names student and class.")
    FOLDED = strawberry.enum_value("FOLDED", description="Its effects are in every number.")


@strawberry.type(description="One recorded event, and what became of it.")
class IngestedEvent:
    """What a producer asks after it has sent."""

    id: strawberry.ID = strawberry.field(description="The server's id of the event (UUIDv7).")
    seq: Seq = strawberry.field(description="Its position in the tenant's log.")
    source: str = strawberry.field(description="The system or person that recorded it.")
    event_id: strawberry.ID = strawberry.field(description="Its id within its source.")
    status: EventStatus = strawberry.field(description="What became of it.")
    type: EventType = strawberry.field(description="What happened.")
    source_type: str | None = strawberry.field(
        description="The name that the source used for the type; null when it used the canonical one."
    )
    student_id: strawberry.ID = strawberry.field(description="The key of its student.")
    classroom_id: strawberry.ID | None = strawberry.field(description="The key of its class; null without.")
    revision: int = strawberry.field(description="The producer's revision, 0 unless it sent one.")
    occurred_at: datetime = strawberry.field(description="When it happened, as the producer says.")
    received_at: datetime = strawberry.field(description="When the server received it.")
    is_late: bool = strawberry.field(description="Whether it happened long before it was received.")
    recorded_by: str = strawberry.field(description="The key of the person or machine whose token recorded it.")


def _id_or_null(key: str) -> strawberry.ID | None:
    return strawberry.ID(key) if key else None


def conflict_of(row: ConflictRow) -> IngestionConflict:
    """A conflict as clients read it."""
    return IngestionConflict(
        source=row.source,
        event_id=strawberry.ID(row.event_id),
        seq=Seq(row.seq),
        stored_hash=row.stored_hash.hex(),
        sent_hash=row.sent_hash.hex(),
        times=row.times,
        first_at=row.first_at,
        last_at=row.last_at,
    )


def unrostered_of(row: UnrosteredRow) -> UnrosteredEvent:
    """An unrostered event as clients read it."""
    reasons = {
        (True, True): UnrosteredReason.BINDING,
        (True, False): UnrosteredReason.UNKNOWN_CLASSROOM,
        (False, True): UnrosteredReason.UNKNOWN_STUDENT,
        (False, False): UnrosteredReason.UNKNOWN_STUDENT_AND_CLASSROOM,
    }
    return UnrosteredEvent(
        seq=Seq(row.seq),
        source=row.source,
        event_id=strawberry.ID(row.event_id),
        student_id=strawberry.ID(row.student),
        classroom_id=_id_or_null(row.classroom),
        received_at=row.received_at,
        reason=reasons[row.knows_student, row.knows_classroom],
    )


def dead_letter_of(row: DeadLetterRow) -> DeadLetter:
    """A dead letter as clients read it."""
    return DeadLetter(
        source=row.source,
        event_id=strawberry.ID(row.event_id),
        seq=Seq(row.seq),
        student_id=strawberry.ID(row.student),
        classroom_id=_id_or_null(row.classroom),
        error=row.error,
        at=row.at,
    )


def correction_of(row: WaitingCorrectionRow) -> WaitingCorrection:
    """A waiting correction as clients read it."""
    return WaitingCorrection(
        seq=Seq(row.seq),
        source=row.source,
        event_id=strawberry.ID(row.event_id),
        type=EventType(row.kind),
        target_source=row.target_source or None,
        target_event_id=as_id(row.target_event_id),
        target_submission_id=as_id(row.target_submission),
        assignment_id=as_id(row.assignment),
        student_id=as_id(row.student),
        reason=row.reason,
        at=row.at,
    )


def _status_of(row: EventRow) -> EventStatus:
    marks = (
        (row.is_waiting, EventStatus.WAITING),
        (row.is_dead, EventStatus.DEAD),
        (row.is_voided, EventStatus.VOIDED),
        (row.is_unrostered, EventStatus.UNROSTERED),
    )
    return next((status for holds, status in marks if holds), EventStatus.FOLDED)


def ingested_of(row: EventRow) -> IngestedEvent:
    """An event and what became of it as clients read it."""
    return IngestedEvent(
        id=strawberry.ID(str(row.id)),
        seq=Seq(row.seq),
        source=row.source,
        event_id=strawberry.ID(row.event_id),
        status=_status_of(row),
        type=EventType(row.kind),
        source_type=row.source_type,
        student_id=strawberry.ID(row.student),
        classroom_id=_id_or_null(row.classroom),
        revision=row.revision,
        occurred_at=row.occurred_at,
        received_at=row.received_at,
        is_late=row.is_late,
        recorded_by=row.recorded_by,
    )
