"""Routine events: judged at a glance, and never otherwise than by `validate`."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from rules.access import Role, Scope, Viewer
from rules.evidence import EventInput, Kind, Lane, LearningEvent, Submission
from rules.intake import wanted_of
from rules.kinds import ALIASES
from rules.routine import Routine
from tests.rules.intake_samples import ADMIN, BOUND, GRADED, MACHINE, NOW, STUDENT, VALID, checked, inputs, viewers

EVERYTHING = replace(MACHINE, key="pupil-1", roles=frozenset(Role))
ROUTINE_KINDS = {
    Kind.SUBMISSION_CREATED, Kind.SUBMISSION_GRADED, Kind.CONCEPT_STARTED, Kind.CONCEPT_COMPLETED,
    Kind.CONCEPT_MASTERED, Kind.QUIZ_ATTEMPT, Kind.CONTENT_VIEWED, Kind.QUIZ_CREATED, Kind.QUIZ_STARTED,
    Kind.QUESTION_DISPLAYED, Kind.QUIZ_ENDED, Kind.STUDENT_LOGIN, Kind.STUDENT_LOGOUT, Kind.CLASSROOM_JOINED,
    Kind.CLASSROOM_LEFT, Kind.HELP_REQUESTED, Kind.APP_ERROR, Kind.OTHER,
}  # fmt: skip
# Letters that a quoted text writes otherwise, and those at the edges of what is simple.
LETTERS = st.sampled_from("ab7:._- '\"\\%{}!~\x7f\x1f\0äŁ\u2028\ud800")
NAMES = st.one_of(
    st.sampled_from(["e1", "pupil-1", "7b", "k1", "x" * 128, "x" * 129, ""]), st.text(LETTERS, max_size=5)
)
NUMBERS = st.one_of(
    st.sampled_from([0, 0.0, -0.0, 1, 1.0, 0.1, 5e-324, 1e9, 1e9 + 1, 2**53, 1e22, True, float("nan"), float("inf")]),
    st.integers(-1, 120),
    st.floats(0, 120),
)
MOMENTS = st.one_of(
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-14))])),
    st.sampled_from(
        [
            NOW + timedelta(minutes=15),
            NOW + timedelta(minutes=15, microseconds=1),
            NOW - timedelta(hours=24),
            NOW - timedelta(hours=24, microseconds=1),
            datetime(1970, 1, 1, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
            datetime(2026, 3, 1),  # noqa: DTZ001
        ]
    ),
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **{name: NAMES for name in EventInput.__struct_fields__ if name.endswith("_id") or name == "source"},
    "occurred_at": MOMENTS,
    "concept_ids": st.lists(NAMES, max_size=3) | st.lists(st.integers(0, 60).map("k{}".format), max_size=60),
    "score": NUMBERS,
    "max_score": NUMBERS,
    "type": st.sampled_from([*(kind.value for kind in Kind), *ALIASES, None, "nonsense"]),
    "revision": st.integers(-1, 1),
    "lane": st.sampled_from([None, "LIVE", "BACKFILL", "LATER"]),
}


@st.composite
def nearly_routine(draw: st.DrawFn) -> EventInput:
    """A valid event of some kind, of which some of the usual fields say something else."""
    event = draw(st.sampled_from([VALID[kind] for kind in sorted(ROUTINE_KINDS)]))
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=4, unique=True))
    return replace(event, **{name: draw(st.none() | VALUES[name]) for name in names})


def assert_as_validated(given: EventInput, by: Viewer) -> Submission | None:
    found = Routine(by, NOW).of(given)
    if found is not None:
        assert found == checked(given, by)
        assert [type(one) for one in (found.event.kind, found.lane)] == [Kind, Lane]
        assert wanted_of([given], by).is_nothing
    return found


@pytest.mark.feature("000-02")
@drawn(nearly_routine(), st.sampled_from([MACHINE, MACHINE, MACHINE, BOUND, EVERYTHING]))
@settings(max_examples=1_500)
@example(replace(GRADED, score=-0.0, max_score=5e-324), MACHINE)
@example(replace(GRADED, score=1, max_score=1.0), MACHINE)
@example(replace(GRADED, score=1.0, max_score=1), MACHINE)
def test_what_is_judged_at_a_glance_is_what_validation_says(given: EventInput, by: Viewer) -> None:
    assert_as_validated(given, by)


@pytest.mark.feature("000-02")
@drawn(inputs(), viewers)
@settings(max_examples=500)
def test_no_input_of_any_viewer_is_judged_otherwise(given: EventInput, by: Viewer) -> None:
    assert_as_validated(given, by)


def test_every_kind_that_needs_no_rare_field_is_a_routine_one() -> None:
    routine = {kind for kind, given in VALID.items() if assert_as_validated(_plain(given), MACHINE) is not None}

    assert routine == ROUTINE_KINDS


def _plain(given: EventInput) -> EventInput:
    """Without what its kind may do without."""
    return replace(given, time_spent_ms=None) if given.type == Kind.CONCEPT_COMPLETED else given


def test_a_routine_event_is_stored_with_all_that_it_says() -> None:
    given = EventInput(
        event_id="e1",
        source="canvas",
        occurred_at=NOW.astimezone(timezone(timedelta(hours=5, minutes=30))),
        student_id="pupil-1",
        classroom_id="7b",
        assignment_id="a1",
        quiz_id="q1",
        question_id="n1",
        concept_ids=["k2", "k1", "k2"],
        score=45.5,
        max_score=91.0,
        type="quiz_attempt",
        submission_id="s1",
        lane="BACKFILL",
    )

    made = assert_as_validated(given, BOUND)

    assert made is not None
    assert made.event == LearningEvent(
        source="canvas",
        event_id="e1",
        kind=Kind.QUIZ_ATTEMPT,
        occurred_at=NOW,
        student="pupil-1",
        classroom="7b",
        assignment="a1",
        quiz="q1",
        concepts=("k2", "k1"),
        ratio=500_000,
        submission="s1",
    )
    assert made == Submission(
        event=made.event,
        fingerprint=made.fingerprint,
        source_type="quiz_attempt",
        payload='{"maxScore":91.0,"questionId":"n1","score":45.5}',
        lane=Lane.BACKFILL,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"device": "tablet"}},
        {"event_id": None},
        {"event_id": "ä"},
        {"student_id": "O'Neil"},
        {"source": "user:pupil-1"},
        {"score": 1.5},
        {"concept_ids": []},
        {"occurred_at": NOW + timedelta(minutes=16)},
    ],
)
def test_whatever_is_not_routine_is_left_to_validation(change: dict[str, Any]) -> None:
    assert Routine(MACHINE, NOW).of(GRADED) is not None
    assert Routine(MACHINE, NOW).of(replace(GRADED, **change)) is None


@pytest.mark.parametrize("by", [ADMIN, STUDENT, replace(MACHINE, scopes=frozenset({Scope.READ}))])
def test_only_machines_that_may_tell_have_routine_events(by: Viewer) -> None:
    assert (Role.INTEGRATOR in by.roles) == (Scope.READ in by.scopes)
    assert Routine(by, NOW).of(GRADED) is None


def test_one_request_of_two_sources_is_judged_by_each() -> None:
    judge = Routine(BOUND, NOW)

    sources = ["canvas", "moodle", "canvas", "sightline", "canvas"]
    found = Counter(source for source in sources if judge.of(replace(GRADED, source=source)) is not None)

    assert found == {"canvas": 3}
