"""What became of a told event: the answers of recording."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import Enum
from itertools import islice
from typing import ClassVar, cast

import strawberry

from db.evidence import Answer, Status
from graph.scalars import Seq
from graph.shapes import standing_in_for
from rules.evidence import Problem, Submission
from rules.value import Value

ERRORS_MAX = 100  # of one event; a client mends the first ones

STATUS = "What became of the event."
EVENT = "The event stored under this source and eventId: yours, or the first one; null when REJECTED."
EFFECT = "What the correction does; null for other events, and for a correction that was there before."
CONFLICT = "Both contents, as hashes, when CONFLICT; null otherwise. It also stands in `ingestion { conflicts }`."
SEQ = "The log position of the stored event, to be read with `minSeq`; null when REJECTED."


@strawberry.enum(description="What became of an event that was told.")
class RecordStatus(Enum):
    """The log's answers, and REJECTED for what never reached it."""

    ACCEPTED = strawberry.enum_value("ACCEPTED", description="Stored durably; its effects follow within moments.")
    DUPLICATE = strawberry.enum_value("DUPLICATE", description="It was stored before, the same; nothing changed.")
    CONFLICT = strawberry.enum_value(
        "CONFLICT", description="Another event is stored under this source and eventId; nothing changed."
    )
    REJECTED = strawberry.enum_value("REJECTED", description="It is wrong or not yours to tell: see `errors`.")


_STATUS = {status: RecordStatus[status.name] for status in Status}


@strawberry.enum(description="What a correction does.")
class CorrectionEffect(Enum):
    """The effects of `db.evidence.Effect`, described."""

    APPLIED = strawberry.enum_value("APPLIED", description="It takes effect on the event or the work that it names.")
    WAITING = strawberry.enum_value(
        "WAITING", description="The event or the work that it names is not recorded yet; once it is, this takes effect."
    )
    NONE = strawberry.enum_value(
        "NONE", description="It names a correction, and a correction stays; or it regrades what never had a score."
    )


@strawberry.enum(description="Why an event was rejected.")
class RecordErrorCode(Enum):
    """The codes of `rules.evidence.ProblemCode`, described."""

    SCORE_NOT_ALLOWED = strawberry.enum_value("SCORE_NOT_ALLOWED", description="The type carries no score.")
    SCORE_REQUIRED = strawberry.enum_value("SCORE_REQUIRED", description="The type needs a score.")
    SCORE_OUT_OF_RANGE = strawberry.enum_value(
        "SCORE_OUT_OF_RANGE",
        description="The score is below 0, or above `maxScore` without extra credit; `maxScore` may be missing.",
    )
    UNKNOWN_TYPE = strawberry.enum_value("UNKNOWN_TYPE", description="`type` is no type and no alias of one.")
    UNKNOWN_APP = strawberry.enum_value("UNKNOWN_APP", description="The tenant has not registered the app.")
    FUTURE_TIMESTAMP = strawberry.enum_value("FUTURE_TIMESTAMP", description="The time is more than 15 minutes ahead.")
    BAD_TIMESTAMP = strawberry.enum_value(
        "BAD_TIMESTAMP", description="The time is not RFC 3339 with an offset, or before 1970."
    )
    REQUIRED = strawberry.enum_value("REQUIRED", description="The type or the sender's role needs the field.")
    TOO_LONG = strawberry.enum_value("TOO_LONG", description="An id or a text has too many characters.")
    TOO_MANY = strawberry.enum_value("TOO_MANY", description="A list has too many entries.")
    BAD_ID = strawberry.enum_value(
        "BAD_ID", description="An id is empty or holds a control character or a blank at an end."
    )
    BAD_TEXT = strawberry.enum_value("BAD_TEXT", description="A text holds what cannot be stored.")
    BAD_METADATA = strawberry.enum_value(
        "BAD_METADATA", description="The metadata is no object, too large, too deep, or of another shape."
    )
    OUT_OF_RANGE = strawberry.enum_value("OUT_OF_RANGE", description="A value is none of those that are allowed.")
    FORBIDDEN = strawberry.enum_value("FORBIDDEN", description="You may not tell this.")
    NOT_FOUND = strawberry.enum_value(
        "NOT_FOUND", description="The key names nothing of yours; whether others have it is not told."
    )
    IDEMPOTENCY_KEY_REUSED = strawberry.enum_value(
        "IDEMPOTENCY_KEY_REUSED", description="The `idempotencyKey` came before with another content; nothing changed."
    )


@strawberry.type(description="One thing that is wrong with an event; the event was not stored.")
class RecordError:
    """An expected refusal, as data."""

    code: RecordErrorCode = strawberry.field(description="What is wrong, for programs.")
    field: list[str] | None = strawberry.field(
        description='The path of the field at fault within the event, such as `["conceptIds", "2"]`.'
    )
    message: str = strawberry.field(description="What was expected and what came, for people.")


@strawberry.type(description="An event as the log keeps it.")
class RecordedEvent:
    """The receipt of a stored event."""

    id: strawberry.ID = strawberry.field(description="The server's id of the event (UUIDv7).")
    seq: Seq = strawberry.field(description="Its position in the tenant's log.")
    source: str = strawberry.field(description="The system or person that told it.")
    event_id: strawberry.ID = strawberry.field(
        description="Its id within its source; made by the server where none was sent."
    )
    received_at: datetime = strawberry.field(description="When the server received it.")


@strawberry.type(description="Two contents under one key; compare the hashes, the content itself is not shown.")
class EventConflict:
    """What was stored and what came."""

    stored_hash: str = strawberry.field(description="Hash of the content that is stored, 32 hexadecimal digits.")
    sent_hash: str = strawberry.field(description="Hash of the content that was sent, 32 hexadecimal digits.")


@strawberry.type(description="What became of one event.")
class RecordEventPayload:
    """The answer to one event, also within a batch."""

    status: RecordStatus = strawberry.field(description=STATUS)
    event: RecordedEvent | None = strawberry.field(default=None, description=EVENT)
    type_inferred: bool | None = strawberry.field(
        default=None, description="Whether the type was inferred because none was sent; null when REJECTED."
    )
    idempotent: bool | None = strawberry.field(
        default=None,
        description="Whether sending it again is safe: false where no `eventId` was sent; null when REJECTED.",
    )
    effect: CorrectionEffect | None = strawberry.field(default=None, description=EFFECT)
    conflict: EventConflict | None = strawberry.field(default=None, description=CONFLICT)
    seq: Seq | None = strawberry.field(default=None, description=SEQ)
    errors: list[RecordError] = strawberry.field(
        default_factory=list, description="Why it was rejected; empty otherwise."
    )


@standing_in_for(RecordEventPayload)
class Accepted(Value, frozen=True):
    """The answer to an event that was stored just now; few ask for more than its status."""

    submission: Submission
    answer: Answer

    status: ClassVar[RecordStatus] = RecordStatus.ACCEPTED
    effect: ClassVar[None] = None
    conflict: ClassVar[None] = None
    errors: ClassVar[Sequence[RecordError]] = ()

    @property
    def event(self) -> RecordedEvent:
        """As in the payload, and so are the others."""
        return event_of(self.submission, self.answer)

    @property
    def type_inferred(self) -> bool:
        return self.submission.type_inferred

    @property
    def idempotent(self) -> bool:
        return self.submission.is_idempotent

    @property
    def seq(self) -> Seq:
        return Seq(self.answer.seq)


@strawberry.type(description="What became of each event of a batch.")
class RecordEventsPayload:
    """The answers to a batch."""

    results: list[RecordEventPayload] = strawberry.field(description="One result per event, in the order sent.")
    seq: Seq | None = strawberry.field(
        description="The highest log position of the stored events, to be read with `minSeq`; null when none is stored."
    )
    errors: list[RecordError] = strawberry.field(
        description="What is wrong with the batch as a whole; then nothing was stored and `results` is empty."
    )


@strawberry.type(description="What became of a void.")
class VoidEventPayload:
    """The answer to a void; voiding the same event again is a DUPLICATE."""

    status: RecordStatus = strawberry.field(description="What became of the void.")
    event: RecordedEvent | None = strawberry.field(
        default=None, description="The EVENT_VOIDED event that says so; null when REJECTED."
    )
    effect: CorrectionEffect | None = strawberry.field(default=None, description=EFFECT)
    seq: Seq | None = strawberry.field(default=None, description=SEQ)
    errors: list[RecordError] = strawberry.field(
        default_factory=list, description="Why it was rejected; empty otherwise."
    )


def errors_of(problems: Iterable[Problem]) -> list[RecordError]:
    """The problems as clients read them."""
    return [
        RecordError(
            code=RecordErrorCode(problem.code.value), field=list(problem.field) or None, message=problem.message
        )
        for problem in islice(problems, ERRORS_MAX)
    ]


def rejected(problems: Iterable[Problem]) -> RecordEventPayload:
    """The answer to an event that was not stored."""
    return RecordEventPayload(status=RecordStatus.REJECTED, errors=errors_of(problems))


def answered(submission: Submission, answer: Answer) -> RecordEventPayload:
    """The answer to an event that the log has."""
    if answer.status is Status.ACCEPTED and answer.effect is None:
        return cast(RecordEventPayload, Accepted(submission, answer))
    is_conflict = answer.status is Status.CONFLICT
    return RecordEventPayload(
        status=status_of(answer),
        event=event_of(submission, answer),
        type_inferred=submission.type_inferred,
        idempotent=submission.is_idempotent,
        effect=effect_of(answer),
        conflict=EventConflict(stored_hash=answer.stored_hash.hex(), sent_hash=submission.fingerprint.hex())
        if is_conflict
        else None,
        seq=Seq(answer.seq),
    )


def status_of(answer: Answer) -> RecordStatus:
    """What became of it, as clients read it."""
    return _STATUS[answer.status]


def event_of(submission: Submission, answer: Answer) -> RecordedEvent:
    """The stored event under the submission's key."""
    return RecordedEvent(
        id=strawberry.ID(str(answer.id)),
        seq=Seq(answer.seq),
        source=submission.event.source,
        event_id=strawberry.ID(submission.event.event_id),
        received_at=answer.received_at,
    )


def effect_of(answer: Answer) -> CorrectionEffect | None:
    """What a new correction does."""
    return CorrectionEffect[answer.effect.name] if answer.effect else None
