"""Valid events of every kind, who sends them, and how a test asks whether they may enter the log."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from rules.access import Role, Scope, Viewer
from rules.evidence import (
    EventInput,
    IntakeSettings,
    Kind,
    Problem,
    ProblemCode,
    Submission,
)
from rules.kinds import ALIASES
from rules.validation import validate

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
SURROGATE = "\ud800"
CODE = ProblemCode


def viewer(*roles: Role, key: str = "pupil-1", sources: frozenset[str] | None = None) -> Viewer:
    return Viewer(
        tenant=1,
        key=key,
        roles=frozenset(roles),
        expires_at=NOW + timedelta(days=1),
        scopes=frozenset({Scope.INGEST}) if Role.INTEGRATOR in roles else frozenset(),
        sources=sources,
    )


MACHINE = viewer(Role.INTEGRATOR, key="machine")
STUDENT = viewer(Role.STUDENT)
TEACHER = viewer(Role.TEACHER, key="teacher-1")
ADMIN = viewer(Role.ADMIN, key="admin-1")
BOUND = viewer(Role.INTEGRATOR, key="machine", sources=frozenset({"canvas"}))

ENVELOPE = EventInput(event_id="e1", source="canvas", occurred_at=NOW, student_id="pupil-1")
WORK = replace(ENVELOPE, classroom_id="7b", assignment_id="a1", concept_ids=["k1"])
QUIZ = replace(ENVELOPE, quiz_id="q1")
VALID: dict[Kind, EventInput] = {
    Kind.ASSIGNMENT_ASSIGNED: replace(WORK, due_at=NOW + timedelta(days=7), difficulty="advanced"),
    Kind.SUBMISSION_CREATED: WORK,
    Kind.SUBMISSION_GRADED: replace(WORK, score=0.8),
    Kind.CONCEPT_STARTED: replace(ENVELOPE, concept_ids=["k1"]),
    Kind.CONCEPT_COMPLETED: replace(ENVELOPE, concept_ids=["k1"], score=0.5, time_spent_ms=1_000),
    Kind.CONCEPT_MASTERED: replace(ENVELOPE, concept_ids=["k1"]),
    Kind.QUIZ_ATTEMPT: replace(QUIZ, concept_ids=["k1"], score=1),
    Kind.CONTENT_VIEWED: replace(ENVELOPE, content_id="c1"),
    Kind.EXERCISE_COMPLETED: replace(ENVELOPE, total_exercises=10, completed_exercises=8, difficulty="beginner"),
    Kind.QUALITY_ASSESSED: replace(ENVELOPE, correctness=0.9),
    Kind.PEER_HELP: replace(ENVELOPE, helper_id="pupil-1", helped_id="pupil-2", concept_ids=["k1"]),
    Kind.QUIZ_CREATED: QUIZ,
    Kind.QUIZ_STARTED: QUIZ,
    Kind.QUESTION_DISPLAYED: replace(QUIZ, question_id="n1"),
    Kind.QUIZ_ENDED: QUIZ,
    Kind.ANSWER_SUBMITTED: replace(QUIZ, question_id="n1", answer="42", time_spent_ms=5_000, attempt_number=1),
    Kind.EVENT_VOIDED: replace(ENVELOPE, target_source="canvas", target_event_id="e0", reason="entered twice"),
    Kind.SUBMISSION_REGRADED: replace(
        ENVELOPE, target_source="canvas", target_event_id="e0", score=0.7, reason="misread", only_if_higher=True
    ),
    Kind.ASSIGNMENT_EXCUSED: replace(ENVELOPE, classroom_id="7b", assignment_id="a1", reason="was ill"),
    Kind.ASSIGNMENT_REOPENED: replace(
        ENVELOPE, classroom_id="7b", assignment_id="a1", due_at=NOW + timedelta(days=7), reason="a second try"
    ),
    **dict.fromkeys(
        (
            Kind.STUDENT_LOGIN,
            Kind.STUDENT_LOGOUT,
            Kind.CLASSROOM_JOINED,
            Kind.CLASSROOM_LEFT,
            Kind.HELP_REQUESTED,
            Kind.APP_ERROR,
            Kind.OTHER,
        ),
        ENVELOPE,
    ),
}
VALID = {kind: replace(event, type=kind.value) for kind, event in VALID.items()}
GRADED = VALID[Kind.SUBMISSION_GRADED]


def checked(
    given: EventInput,
    by: Viewer = MACHINE,
    settings: IntakeSettings = IntakeSettings(),  # noqa: B008  (frozen)
) -> Submission | list[Problem]:
    return validate(given, viewer=by, now=NOW, settings=settings, fresh_id="fresh-1")


def accepted(
    given: EventInput,
    by: Viewer = MACHINE,
    settings: IntakeSettings = IntakeSettings(),  # noqa: B008  (frozen)
) -> Submission:
    answer = checked(given, by, settings)
    assert isinstance(answer, Submission), answer
    return answer


def refused(
    given: EventInput,
    by: Viewer = MACHINE,
    settings: IntakeSettings = IntakeSettings(),  # noqa: B008  (frozen)
) -> list[tuple[ProblemCode, tuple[str, ...]]]:
    answer = checked(given, by, settings)
    assert isinstance(answer, list), answer
    return [(problem.code, problem.field) for problem in answer]


texts = st.text(st.characters(exclude_categories=()), max_size=140)
numbers = st.one_of(
    st.integers(), st.floats(), st.integers(-3, 200), st.just(10**4_000)
)  # beyond 4,300 digits repr() fails
zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.one_of(st.datetimes(timezones=st.one_of(st.none(), st.just(UTC), zones)), st.just(NOW))
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
junk = st.one_of(json_values, moments)
sound: dict[str, st.SearchStrategy[Any]] = {
    **{name: st.sampled_from(["e1", "pupil-1", "7b", "ä", "x" * 128]) for name in EventInput.__struct_fields__},
    "type": st.sampled_from([*Kind, *ALIASES, None]),
    "source": st.sampled_from(["canvas", "user:pupil-1", None]),
    "occurred_at": moments,
    "due_at": moments,
    "concept_ids": st.lists(st.sampled_from(["k1", "k2", "k3"]), max_size=3),
    "rubric_tags": st.lists(st.just("t"), max_size=2),
    **dict.fromkeys(("score", "code_quality", "correctness", "efficiency", "peer_review"), st.floats(0, 1)),
    "max_score": st.one_of(st.floats(0.001, 100), st.integers(1, 100)),
    **dict.fromkeys(("revision", "time_spent_ms", "completed_exercises", "attempt_number"), st.integers(1, 10)),
    "total_exercises": st.just(10),
    "difficulty": st.sampled_from(["beginner", "ADVANCED"]),
    "app": st.sampled_from(["NOTEBOOK", "WHITEBOARD"]),
    "lane": st.sampled_from(["LIVE", "BACKFILL"]),
    "metadata": st.dictionaries(st.sampled_from(["device", "verb", "rubric", "nonsense"]), texts, max_size=3),
}
viewers = st.sampled_from([MACHINE, MACHINE, BOUND, ADMIN, STUDENT, TEACHER, ADMIN, viewer(Role.GUARDIAN), viewer()])
intakes = st.sampled_from(
    [IntakeSettings(), IntakeSettings(scales={"canvas": 20}, apps=None, extra_credit=True, assignment_concepts=("k9",))]
)


@st.composite
def inputs(draw: st.DrawFn, wild: st.SearchStrategy[Any] = junk) -> EventInput:
    """A valid event of some kind, of which a few fields were changed: to something sound or to anything at all."""
    event = draw(st.sampled_from(list(VALID.values())))
    names = draw(st.lists(st.sampled_from(EventInput.__struct_fields__), max_size=6, unique=True))
    return replace(event, **{name: draw(st.one_of(sound[name], sound[name], st.none(), wild)) for name in names})
