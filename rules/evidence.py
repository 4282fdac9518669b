"""What is recorded: an event as sent, as stored, what can be wrong with it, and the total order of the log."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from rules.kinds import ACTIVE_KINDS, CONCEPT_KINDS, CORRECTION_KINDS, SCORED_KINDS, Kind
from rules.value import Value

__all__ = [
    "ACTIVE_KINDS",
    "CONCEPT_KINDS",
    "CORRECTION_KINDS",
    "SCORED_KINDS",
    "EventInput",
    "EvidenceKey",
    "IntakeSettings",
    "Kind",
    "Lane",
    "LearningEvent",
    "Problem",
    "ProblemCode",
    "Submission",
]

EvidenceKey = tuple[datetime, int, str, str]
"""(occurred_at, revision, source, event_id): the total order of the log. Python compares strings by code point,
which is the order of their UTF-8 bytes, which is Postgres's COLLATE "C"."""


class Lane(StrEnum):
    """How urgently an event is folded; live events overtake a backfill."""

    LIVE = "LIVE"
    BACKFILL = "BACKFILL"


class LearningEvent(Value, frozen=True):
    """One validated event, as the log stores it and the fold reads it.

    Times are UTC, cut to microseconds. `ratio` is in millionths (score / max_score), above 1_000_000 only with extra
    credit. `classroom` is "" when the event names none. `payload` is JSON text with every other field of the type.
    """

    source: str
    event_id: str
    kind: Kind
    occurred_at: datetime
    student: str
    classroom: str = ""
    revision: int = 0
    assignment: str | None = None
    quiz: str | None = None
    concepts: tuple[str, ...] = ()
    ratio: int | None = None
    submission: str | None = None
    due_at: datetime | None = None
    time_spent_ms: int | None = None
    target_source: str | None = None
    target_event_id: str | None = None
    only_if_higher: bool = False  # of a regrade: leaves a value alone that is as high or higher

    @property
    def key(self) -> EvidenceKey:
        """The event's place in the total order."""
        return (self.occurred_at, self.revision, self.source, self.event_id)

    @property
    def item(self) -> str | None:
        """The piece of work the event is about: its assignment, else its quiz."""
        return self.assignment or self.quiz


class Submission(Value, frozen=True):
    """A validated event on its way into the log, with what the fold never reads.

    `fingerprint` is 16 bytes over the fields as sent, before any default or filling (000-02).
    """

    event: LearningEvent
    fingerprint: bytes
    source_type: str | None = None  # the original name of an alias (C1)
    payload: str = "{}"  # JSON text: score, maxScore, rubricTags, difficulty, metadata, app, reason, ...
    lane: Lane = Lane.LIVE
    is_late: bool = False  # occurred long before it was received (C6)
    type_inferred: bool = False
    is_idempotent: bool = True  # False where the client sent no event id (C5)
    dropped: int = 0  # metadata keys that the kind's schema does not know, left out (003-68)


class EventInput(Value, frozen=True):
    """One event as it came off the wire, nothing checked, nothing filled; None is "not sent".

    Times carry an offset. `metadata` is a JSON object.
    """

    event_id: str | None = None
    source: str | None = None
    occurred_at: datetime | None = None
    student_id: str | None = None
    classroom_id: str | None = None
    assignment_id: str | None = None
    quiz_id: str | None = None
    question_id: str | None = None
    content_id: str | None = None
    concept_ids: list[str] | None = None
    score: float | int | None = None
    max_score: float | int | None = None
    type: str | None = None
    revision: int | None = None
    submission_id: str | None = None
    due_at: datetime | None = None
    difficulty: str | None = None
    rubric_tags: list[str] | None = None
    time_spent_ms: int | None = None
    completed_exercises: int | None = None
    total_exercises: int | None = None
    code_quality: float | None = None
    correctness: float | None = None
    efficiency: float | None = None
    peer_review: float | None = None
    helper_id: str | None = None
    helped_id: str | None = None
    answer: str | None = None
    attempt_number: int | None = None
    app: str | None = None
    metadata: dict[str, Any] | None = None
    reason: str | None = None
    target_source: str | None = None
    target_event_id: str | None = None
    only_if_higher: bool | None = None
    lane: str | None = None


class ProblemCode(StrEnum):
    """Why an event is refused."""

    SCORE_NOT_ALLOWED = "SCORE_NOT_ALLOWED"
    SCORE_REQUIRED = "SCORE_REQUIRED"
    SCORE_OUT_OF_RANGE = "SCORE_OUT_OF_RANGE"
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    UNKNOWN_APP = "UNKNOWN_APP"
    FUTURE_TIMESTAMP = "FUTURE_TIMESTAMP"
    BAD_TIMESTAMP = "BAD_TIMESTAMP"
    REQUIRED = "REQUIRED"
    TOO_LONG = "TOO_LONG"
    TOO_MANY = "TOO_MANY"
    BAD_ID = "BAD_ID"
    BAD_TEXT = "BAD_TEXT"
    BAD_METADATA = "BAD_METADATA"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an event: the field's path as clients write it, what was expected and what came."""

    code: ProblemCode
    field: tuple[str, ...]
    message: str


APPS = frozenset({"WHITEBOARD", "NOTEBOOK"})
"""The two apps every tenant knows (003-01)."""


class IntakeSettings(Value, frozen=True):
    """What the tenant, the class and the assignment say about an event that comes in.

    `scales` is the highest score by source, for events without maxScore (C2). `apps` None means any name.
    `assignment_concepts` are those of the known assignment the event names.
    """

    scales: Mapping[str, float] = msgspec.field(default_factory=dict)
    apps: frozenset[str] | None = APPS
    extra_credit: bool = False
    assignment_concepts: tuple[str, ...] = ()
