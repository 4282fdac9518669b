"""What can happen: the kinds of events, the names they go by, and what each of them needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from types import MappingProxyType

FOLD_LEVEL = 1
"""Which fold this code is. A release in which the same log gives other numbers (a kind that begins to count, a rule
that changes) adds one: from the first fold of a tenant at the new level on, older workers leave it alone (X-38)."""


class NewerWord(ValueError):
    """A word that a newer release stored: whoever does not know it leaves the row to who does."""

    def __init__(self, word: object) -> None:
        super().__init__("expected a word of this release")
        self.word = word


class StoredWord(StrEnum):
    """Words as they are stored: one that is unknown here is no mistake, but a newer release's."""

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise NewerWord(value)


class Kind(StoredWord):
    """The canonical event types (000-04)."""

    ASSIGNMENT_ASSIGNED = "ASSIGNMENT_ASSIGNED"
    SUBMISSION_CREATED = "SUBMISSION_CREATED"
    SUBMISSION_GRADED = "SUBMISSION_GRADED"
    CONCEPT_STARTED = "CONCEPT_STARTED"
    CONCEPT_COMPLETED = "CONCEPT_COMPLETED"
    CONCEPT_MASTERED = "CONCEPT_MASTERED"
    QUIZ_ATTEMPT = "QUIZ_ATTEMPT"
    CONTENT_VIEWED = "CONTENT_VIEWED"
    EXERCISE_COMPLETED = "EXERCISE_COMPLETED"
    QUALITY_ASSESSED = "QUALITY_ASSESSED"
    PEER_HELP = "PEER_HELP"
    QUIZ_CREATED = "QUIZ_CREATED"
    QUIZ_STARTED = "QUIZ_STARTED"
    QUESTION_DISPLAYED = "QUESTION_DISPLAYED"
    QUIZ_ENDED = "QUIZ_ENDED"
    ANSWER_SUBMITTED = "ANSWER_SUBMITTED"
    STUDENT_LOGIN = "STUDENT_LOGIN"
    STUDENT_LOGOUT = "STUDENT_LOGOUT"
    CLASSROOM_JOINED = "CLASSROOM_JOINED"
    CLASSROOM_LEFT = "CLASSROOM_LEFT"
    HELP_REQUESTED = "HELP_REQUESTED"
    APP_ERROR = "APP_ERROR"
    EVENT_VOIDED = "EVENT_VOIDED"
    SUBMISSION_REGRADED = "SUBMISSION_REGRADED"
    ASSIGNMENT_EXCUSED = "ASSIGNMENT_EXCUSED"
    ASSIGNMENT_REOPENED = "ASSIGNMENT_REOPENED"
    OTHER = "OTHER"


CONCEPT_KINDS = frozenset({Kind.CONCEPT_STARTED, Kind.CONCEPT_COMPLETED, Kind.CONCEPT_MASTERED})
"""A student's way through one concept (001-02)."""

ACTIVE_KINDS = CONCEPT_KINDS | {
    Kind.SUBMISSION_CREATED,
    Kind.QUIZ_ATTEMPT,
    Kind.CONTENT_VIEWED,
    Kind.EXERCISE_COMPLETED,
    Kind.PEER_HELP,
    Kind.ANSWER_SUBMITTED,
}
"""Activity that makes a date active: streaks, weekly goals, consistency, inactivity."""

SCORED_KINDS = frozenset({Kind.SUBMISSION_GRADED, Kind.QUIZ_ATTEMPT, Kind.CONCEPT_COMPLETED, Kind.CONCEPT_MASTERED})
"""Evidence of mastery when they carry a ratio (Definition A)."""

CORRECTION_KINDS = frozenset(
    {Kind.EVENT_VOIDED, Kind.SUBMISSION_REGRADED, Kind.ASSIGNMENT_EXCUSED, Kind.ASSIGNMENT_REOPENED}
)
"""Events about other events (X-01 to X-05)."""

QUIZ_SESSION_KINDS = frozenset({Kind.QUIZ_CREATED, Kind.QUIZ_STARTED, Kind.QUESTION_DISPLAYED, Kind.QUIZ_ENDED})
"""What happens to a quiz itself, by the hand of whoever runs it."""


class Scores(Enum):
    """What a kind says about a score."""

    FORBIDDEN = "FORBIDDEN"
    OPTIONAL = "OPTIONAL"
    REQUIRED = "REQUIRED"


class Concepts(Enum):
    """How many concepts a kind names."""

    ANY = "ANY"  # none to 50, without effect on mastery
    ONE = "ONE"  # exactly one
    SOME = "SOME"  # 1 to 50
    SOME_OR_KNOWN = "SOME_OR_KNOWN"  # 1 to 50, filled from the known assignment when absent


@dataclass(frozen=True, slots=True)
class Spec:
    """What one kind needs beyond the envelope; names are those of EventInput's attributes.

    `any_of` needs at least one of its fields. `keeps_ratio` says whether the score is given to the fold; elsewhere a
    score is only stored.
    """

    needs: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    concepts: Concepts = Concepts.ANY
    scores: Scores = Scores.OPTIONAL
    keeps_ratio: bool = False


_WORK = ("classroom_id", "assignment_id")
_CONCEPT = Spec(concepts=Concepts.ONE, keeps_ratio=True)
_QUIZ = Spec(needs=("quiz_id",))
_ITEM_CORRECTION = Spec(needs=(*_WORK, "reason"), scores=Scores.FORBIDDEN)
_QUALITIES = ("code_quality", "correctness", "efficiency", "peer_review")

_SPECS = {
    Kind.ASSIGNMENT_ASSIGNED: Spec(needs=_WORK, concepts=Concepts.SOME, scores=Scores.FORBIDDEN),
    Kind.SUBMISSION_CREATED: Spec(needs=_WORK, concepts=Concepts.SOME_OR_KNOWN, scores=Scores.FORBIDDEN),
    Kind.SUBMISSION_GRADED: Spec(
        needs=_WORK, concepts=Concepts.SOME_OR_KNOWN, scores=Scores.REQUIRED, keeps_ratio=True
    ),
    Kind.CONCEPT_STARTED: _CONCEPT,
    Kind.CONCEPT_COMPLETED: _CONCEPT,
    Kind.CONCEPT_MASTERED: _CONCEPT,
    Kind.QUIZ_ATTEMPT: Spec(
        any_of=("quiz_id", "assignment_id"), concepts=Concepts.SOME, scores=Scores.REQUIRED, keeps_ratio=True
    ),
    Kind.CONTENT_VIEWED: Spec(needs=("content_id",)),
    Kind.EXERCISE_COMPLETED: Spec(needs=("total_exercises", "completed_exercises", "difficulty")),
    Kind.QUALITY_ASSESSED: Spec(any_of=_QUALITIES),
    Kind.PEER_HELP: Spec(needs=("helper_id", "helped_id"), concepts=Concepts.ONE),
    Kind.QUIZ_CREATED: _QUIZ,
    Kind.QUIZ_STARTED: _QUIZ,
    Kind.QUESTION_DISPLAYED: Spec(needs=("quiz_id", "question_id")),
    Kind.QUIZ_ENDED: _QUIZ,
    Kind.ANSWER_SUBMITTED: Spec(needs=("quiz_id", "question_id", "answer", "time_spent_ms", "attempt_number")),
    Kind.EVENT_VOIDED: Spec(needs=("target_source", "target_event_id", "reason"), scores=Scores.FORBIDDEN),
    Kind.SUBMISSION_REGRADED: Spec(
        needs=("target_source", "reason"),
        any_of=("target_event_id", "submission_id"),
        scores=Scores.REQUIRED,
        keeps_ratio=True,
    ),
    Kind.ASSIGNMENT_EXCUSED: _ITEM_CORRECTION,
    Kind.ASSIGNMENT_REOPENED: _ITEM_CORRECTION,
}
SPECS: Mapping[Kind, Spec] = MappingProxyType({kind: _SPECS.get(kind, Spec()) for kind in Kind})
"""What each kind needs; a kind without needs of its own has the plain envelope."""

_SAME_IN_LOWER_CASE = QUIZ_SESSION_KINDS | {
    Kind.STUDENT_LOGIN,
    Kind.STUDENT_LOGOUT,
    Kind.CLASSROOM_JOINED,
    Kind.CLASSROOM_LEFT,
    Kind.HELP_REQUESTED,
    Kind.APP_ERROR,
}
ALIASES: Mapping[str, Kind] = MappingProxyType(
    {
        "assignment_submitted": Kind.SUBMISSION_CREATED,
        "started": Kind.CONCEPT_STARTED,
        "completed": Kind.CONCEPT_COMPLETED,
        "mastered": Kind.CONCEPT_MASTERED,
        "quiz_attempt": Kind.QUIZ_ATTEMPT,
        "content_viewed": Kind.CONTENT_VIEWED,
        "video_watched": Kind.CONTENT_VIEWED,
        "completion": Kind.EXERCISE_COMPLETED,
        "exercise.completed": Kind.EXERCISE_COMPLETED,
        "quality": Kind.QUALITY_ASSESSED,
        "peer_help": Kind.PEER_HELP,
        "answer_submitted": Kind.ANSWER_SUBMITTED,
        "question_submitted": Kind.ANSWER_SUBMITTED,
        **{kind.value.lower(): kind for kind in sorted(_SAME_IN_LOWER_CASE)},
    }
)
"""Names from the sources, exactly as they are written there (C1)."""

KIND_BY_NAME: Mapping[str, Kind] = MappingProxyType({**{kind.value: kind for kind in Kind}, **ALIASES})
"""Every name that is accepted as a type."""
