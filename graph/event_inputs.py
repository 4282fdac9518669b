"""An event as clients tell it: the inputs of recording, and what they become before anything is checked."""

from collections.abc import Callable
from enum import Enum
from operator import attrgetter
from typing import Any

import strawberry
from msgspec.structs import replace

from graph.decoding import decoded_as
from graph.scalars import EventTime, Metadata
from rules.evidence import EventInput

UNSET: Any = strawberry.UNSET


@strawberry.enum(description="How urgently recorded events take effect.")
class Lane(Enum):
    """The lanes of `rules.evidence.Lane`, described."""

    LIVE = strawberry.enum_value("LIVE", description="At once; what happens now overtakes a backfill.")
    BACKFILL = strawberry.enum_value("BACKFILL", description="When nothing live waits: for imports of the past.")


@decoded_as(EventInput)
@strawberry.input(
    description="One learning event. A field that is left out or null was not sent. What a type needs beyond "
    "`source`, `eventId`, `occurredAt` and `studentId` stands at the fields. Machines send these four, a teacher or "
    "admin at least `studentId`, a student none of them."
)
class RecordEventInput:
    """The attributes of `rules.evidence.EventInput`, under the same names and in the same order."""

    event_id: strawberry.ID | None = strawberry.field(
        default=UNSET,
        description="The event's id within its source, 1 to 128 characters: sending it again changes nothing. Machines "
        "must send it; a person's event without one is stored each time it is sent.",
    )
    source: str | None = strawberry.field(
        default=UNSET,
        description="The system that tells it, 1 to 128 characters; required from machines, and one of the token's "
        "sources where it names any. A person leaves it out: it is `user:` and their key.",
    )
    occurred_at: EventTime | None = strawberry.field(
        default=UNSET, description="When it happened; required from machines, else now when left out."
    )
    student_id: strawberry.ID | None = strawberry.field(
        default=UNSET,
        description="The key of the student it is about; required from everyone but students, who tell about "
        "themselves, and for what is about no student.",
    )
    classroom_id: strawberry.ID | None = strawberry.field(
        default=UNSET,
        description="The key of the class it belongs to; required for assigned work, submissions and grades, and from "
        "teachers.",
    )
    assignment_id: strawberry.ID | None = strawberry.field(
        default=UNSET,
        description="The key of the assigned work; required for ASSIGNMENT_ASSIGNED, SUBMISSION_CREATED and "
        "SUBMISSION_GRADED.",
    )
    quiz_id: strawberry.ID | None = strawberry.field(
        default=UNSET,
        description="The key of the quiz; required for quiz events and answers. QUIZ_ATTEMPT takes it or "
        "`assignmentId`.",
    )
    question_id: strawberry.ID | None = strawberry.field(
        default=UNSET, description="The key of the question; required for QUESTION_DISPLAYED and ANSWER_SUBMITTED."
    )
    content_id: strawberry.ID | None = strawberry.field(
        default=UNSET, description="The key of the content; required for CONTENT_VIEWED."
    )
    concept_ids: list[strawberry.ID] | None = strawberry.field(
        default=UNSET,
        description="The keys of the concepts it is evidence of, 1 to 50 different ones where mastery is affected; "
        "submissions and grades take those of the known assignment when left out; CONCEPT_ types and PEER_HELP name "
        "exactly one.",
    )
    score: float | None = strawberry.field(
        default=UNSET,
        description="The score, from 0 to `maxScore`; required for SUBMISSION_GRADED and QUIZ_ATTEMPT, not allowed for "
        "ASSIGNMENT_ASSIGNED and SUBMISSION_CREATED. Above `maxScore` only where the class allows extra credit.",
    )
    max_score: float | None = strawberry.field(
        default=UNSET, description="The score of full marks, above 0; 1 when left out, never guessed from the score."
    )
    type: str | None = strawberry.field(
        default=UNSET,
        description="What happened: a value of EventType, or one of its aliases such as `quiz_attempt`. Left out, a "
        "score means SUBMISSION_GRADED, and an assignment with concepts SUBMISSION_CREATED.",
    )
    revision: int | None = strawberry.field(
        default=UNSET, description="Which of several events at the same moment comes later: the higher; default 0."
    )
    submission_id: strawberry.ID | None = strawberry.field(
        default=UNSET, description="The source's key of the submission; the same one graded again replaces its grade."
    )
    due_at: EventTime | None = strawberry.field(
        default=UNSET, description="When the assigned work is due; for ASSIGNMENT_ASSIGNED and ASSIGNMENT_REOPENED."
    )
    difficulty: str | None = strawberry.field(
        default=UNSET,
        description="`beginner`, `intermediate` or `advanced`, in lower or upper case; EXERCISE_COMPLETED needs it.",
    )
    rubric_tags: list[str] | None = strawberry.field(
        default=UNSET, description="Up to 50 tags of the rubric, 1 to 128 characters each."
    )
    time_spent_ms: int | None = strawberry.field(
        default=UNSET,
        description="Time spent in milliseconds, 0 to 86,400,000 (a day); required for ANSWER_SUBMITTED.",
    )
    completed_exercises: int | None = strawberry.field(
        default=UNSET, description="Exercises done, at most `totalExercises`; required for EXERCISE_COMPLETED."
    )
    total_exercises: int | None = strawberry.field(
        default=UNSET, description="Exercises set, 1 to 100,000; required for EXERCISE_COMPLETED."
    )
    code_quality: float | None = strawberry.field(
        default=UNSET, description="Assessed quality of the code, 0 to 1; QUALITY_ASSESSED needs one of its four."
    )
    correctness: float | None = strawberry.field(default=UNSET, description="Assessed correctness, 0 to 1.")
    efficiency: float | None = strawberry.field(default=UNSET, description="Assessed efficiency, 0 to 1.")
    peer_review: float | None = strawberry.field(default=UNSET, description="What the peers gave, 0 to 1.")
    helper_id: strawberry.ID | None = strawberry.field(
        default=UNSET, description="The key of the student who helped; required for PEER_HELP."
    )
    helped_id: strawberry.ID | None = strawberry.field(
        default=UNSET, description="The key of the student who was helped, another one; required for PEER_HELP."
    )
    answer: str | None = strawberry.field(
        default=UNSET, description="The answer as given, up to 4,000 characters; required for ANSWER_SUBMITTED."
    )
    attempt_number: int | None = strawberry.field(
        default=UNSET, description="Which try it was, from 1; required for ANSWER_SUBMITTED."
    )
    app: str | None = strawberry.field(
        default=UNSET, description="The app it was sent from: WHITEBOARD (teachers) or NOTEBOOK (students)."
    )
    metadata: Metadata | None = strawberry.field(default=UNSET, description="Further details, by type.")
    reason: str | None = strawberry.field(
        default=UNSET, description="Why a correction is made, up to 1,000 characters; every correction needs it."
    )
    target_source: str | None = strawberry.field(
        default=UNSET,
        description="The source of the event or submission that a correction is about; required for EVENT_VOIDED and "
        "SUBMISSION_REGRADED.",
    )
    target_event_id: strawberry.ID | None = strawberry.field(
        default=UNSET,
        description="The `eventId` of the event that a correction is about; required for EVENT_VOIDED. "
        "SUBMISSION_REGRADED takes it or `submissionId`.",
    )
    only_if_higher: bool | None = strawberry.field(
        default=UNSET,
        description="Whether a SUBMISSION_REGRADED leaves a value alone that is as high or higher; default false.",
    )
    lane: Lane | None = strawberry.field(
        default=UNSET, description="How urgently it takes effect; LIVE when left out here and around it."
    )


@strawberry.input(description="Events to record together; each is judged and stored by itself.")
class RecordEventsInput:
    """A batch of one sender."""

    events: list[RecordEventInput] = strawberry.field(description="1 to 1,000 events; the results keep their order.")
    lane: Lane | None = strawberry.field(
        default=UNSET, description="How urgently those take effect that name no lane themselves; default LIVE."
    )


@strawberry.input(description="The event to take out of every calculation.")
class VoidEventInput:
    """A void told by its target's name."""

    source: str = strawberry.field(description="The source of the event.")
    event_id: strawberry.ID = strawberry.field(description="The event's id within its source.")
    reason: str = strawberry.field(description="Why it is void, 1 to 1,000 characters; it is kept.")


_NAMES = EventInput.__struct_fields__
_PLACE_OF_LANE = _NAMES.index("lane")
_sent: Callable[[RecordEventInput], tuple[Any, ...]] = attrgetter(*_NAMES)


def event_of(input: RecordEventInput | EventInput, lane: Lane | None = UNSET) -> EventInput:
    """The event as the intake takes it: what was left out and what was null are both "not sent"."""
    if isinstance(input, EventInput):
        return replace(input, lane=lane.value) if lane and input.lane is None else input
    values = [None if value is UNSET else value for value in _sent(input)]
    urgency = values[_PLACE_OF_LANE] or lane or None
    values[_PLACE_OF_LANE] = urgency.value if urgency else None
    return EventInput(*values)
