"""What may enter the log, what becomes of it there, and that whatever is accepted can be folded."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rules.access import Scope, Viewer
from rules.evidence import (
    ACTIVE_KINDS,
    EventInput,
    IntakeSettings,
    Kind,
    Lane,
    LearningEvent,
    Submission,
)
from rules.fields import RATIO_MAX, is_id, ratio_of
from rules.fingerprint import fingerprint_of
from rules.kinds import ALIASES
from tests.rules.intake_samples import (
    ADMIN,
    BOUND,
    CODE,
    GRADED,
    MACHINE,
    NOW,
    STUDENT,
    TEACHER,
    VALID,
    WORK,
    accepted,
    checked,
    inputs,
    intakes,
    refused,
    viewers,
)


@pytest.mark.feature("000-03", "003-07", "003-15")
@pytest.mark.parametrize("kind", VALID)
def test_every_kind_is_accepted_when_it_says_what_it_needs(kind: Kind) -> None:
    submission = accepted(VALID[kind])

    assert submission.event.kind is kind
    assert submission.source_type is None
    assert not submission.type_inferred
    assert submission.is_idempotent


def test_every_kind_has_a_valid_sample() -> None:
    assert set(Kind) == set(VALID)


@pytest.mark.feature("000-01", "000-03")
def test_a_grade_becomes_one_whole_event() -> None:
    given = replace(GRADED, score=17, max_score=20, submission_id="s1", concept_ids=["k2", "k1", "k2"], revision=3)

    submission = accepted(given)

    assert submission == Submission(
        event=LearningEvent(
            source="canvas",
            event_id="e1",
            kind=Kind.SUBMISSION_GRADED,
            occurred_at=NOW,
            student="pupil-1",
            classroom="7b",
            revision=3,
            assignment="a1",
            concepts=("k2", "k1"),
            ratio=850_000,
            submission="s1",
        ),
        fingerprint=fingerprint_of(given),
        payload='{"maxScore":20,"score":17}',
    )


@pytest.mark.feature("002-02")
@pytest.mark.parametrize(("alias", "kind"), ALIASES.items())
def test_an_alias_is_mapped_and_its_name_is_kept(alias: str, kind: Kind) -> None:
    submission = accepted(replace(VALID[kind], type=alias))

    assert submission.event.kind is kind
    assert submission.source_type == alias
    assert submission.fingerprint == accepted(VALID[kind]).fingerprint


@pytest.mark.feature("000-05")
def test_a_score_without_a_type_is_a_grade() -> None:
    submission = accepted(replace(GRADED, type=None))

    assert (submission.event.kind, submission.type_inferred) == (Kind.SUBMISSION_GRADED, True)


@pytest.mark.feature("000-05")
def test_an_assignment_with_concepts_and_no_score_is_a_submission() -> None:
    submission = accepted(replace(WORK, type=None))

    assert (submission.event.kind, submission.type_inferred) == (Kind.SUBMISSION_CREATED, True)


@pytest.mark.feature("000-05")
def test_an_unknown_type_is_never_inferred_again() -> None:
    assert refused(replace(GRADED, type="grade")) == [(CODE.UNKNOWN_TYPE, ("type",))]


@pytest.mark.feature("000-03")
def test_all_problems_are_told_at_once() -> None:
    given = replace(GRADED, event_id="", score=float("nan"), classroom_id=None, revision=2**40, lane="FAST")

    assert refused(given) == [
        (CODE.BAD_ID, ("eventId",)),
        (CODE.REQUIRED, ("classroomId",)),
        (CODE.SCORE_OUT_OF_RANGE, ("score",)),
        (CODE.OUT_OF_RANGE, ("lane",)),
        (CODE.OUT_OF_RANGE, ("revision",)),
    ]


@pytest.mark.feature("000-24")
def test_a_message_says_what_came_but_repeats_no_free_text() -> None:
    answer = checked(replace(GRADED, type="Anna Schmidt 7b", max_score=10, score=11))

    assert isinstance(answer, list)
    assert [problem.message for problem in answer] == [
        "expected a type of the list or one of its aliases, got a text of 15 characters",
        "expected a score from 0 to 10, got 11",
    ]


@pytest.mark.feature("000-03")
@pytest.mark.parametrize(
    ("score", "max_score", "ratio"),
    [
        (1, 3, 333_333),
        (2, 3, 666_667),
        (0.1 + 0.2, 1, 300_000),
        (0.0000005, 1, 0),  # half goes to the even neighbour
        (0.0000015, 1, 2),
        (0.0000025, 1, 2),
        (5e-324, 1, 0),
        (-0.0, 1, 0),
        (10, 10.0, 1_000_000),
        (0.7, 0.7, 1_000_000),
    ],
)
def test_a_ratio_is_exact_to_the_millionth_half_to_even(score: float, max_score: float, ratio: int) -> None:
    assert accepted(replace(GRADED, score=score, max_score=max_score)).event.ratio == ratio


@pytest.mark.feature("000-03")
@drawn(st.integers(0, 1_000_000), st.integers(1, 1_000_000))
def test_a_ratio_of_integers_is_the_rounded_fraction(score: int, max_score: int) -> None:
    assert ratio_of(score, max_score) == round(Fraction(score, max_score) * 1_000_000)


@pytest.mark.feature("000-03")
def test_the_scale_is_the_events_own_else_the_sources_else_one() -> None:
    settings = IntakeSettings(scales={"canvas": 20})

    assert accepted(replace(GRADED, score=17), settings=settings).event.ratio == 850_000
    assert accepted(replace(GRADED, score=17), settings=settings).payload == '{"maxScore":20,"score":17}'
    assert accepted(replace(GRADED, score=17, max_score=34), settings=settings).event.ratio == 500_000
    assert accepted(replace(GRADED, score=1, source="moodle"), settings=settings).event.ratio == 1_000_000


@pytest.mark.feature("000-03")
def test_extra_credit_is_stored_only_where_the_class_allows_it() -> None:
    allowed = IntakeSettings(extra_credit=True)
    bonus = replace(GRADED, score=11, max_score=10)

    assert accepted(bonus, settings=allowed).event.ratio == 1_100_000
    assert refused(bonus) == [(CODE.SCORE_OUT_OF_RANGE, ("score",))]
    assert refused(replace(bonus, score=101), settings=allowed) == [(CODE.SCORE_OUT_OF_RANGE, ("score",))]
    assert refused(replace(VALID[Kind.CONCEPT_COMPLETED], score=1.1), settings=allowed) == [
        (CODE.SCORE_OUT_OF_RANGE, ("score",))
    ]


@pytest.mark.feature("000-03")
def test_a_score_that_is_no_evidence_is_stored_but_not_folded() -> None:
    submission = accepted(replace(VALID[Kind.CONTENT_VIEWED], score=0.5))

    assert submission.event.ratio is None
    assert json.loads(submission.payload) == {"contentId": "c1", "maxScore": 1, "score": 0.5}


@pytest.mark.feature("000-03")
def test_fifty_concepts_pass_and_repeats_do_not_count() -> None:
    concepts = [f"k{number}" for number in range(50)]

    assert accepted(replace(GRADED, concept_ids=concepts + concepts)).event.concepts == tuple(concepts)


@pytest.mark.feature("000-03")
def test_concepts_come_from_the_known_assignment_when_none_are_sent() -> None:
    settings = IntakeSettings(assignment_concepts=("k7", "k8"))
    given = replace(GRADED, concept_ids=None)

    submission = accepted(given, settings=settings)

    assert submission.event.concepts == ("k7", "k8")
    assert submission.fingerprint == fingerprint_of(given)
    assert accepted(GRADED, settings=settings).event.concepts == ("k1",)


@pytest.mark.feature("000-03")
def test_a_time_with_an_offset_is_stored_in_utc() -> None:
    sent = datetime(2026, 3, 10, 13, 0, 0, 7, tzinfo=timezone(timedelta(hours=2)))

    event = accepted(replace(GRADED, occurred_at=sent)).event

    assert event.occurred_at == datetime(2026, 3, 10, 11, 0, 0, 7, tzinfo=UTC)
    assert event.occurred_at.tzinfo is UTC


@pytest.mark.feature("000-03")
@pytest.mark.parametrize(
    ("age", "is_late"),
    [
        (timedelta(minutes=-15), False),
        (timedelta(hours=24), False),
        (timedelta(hours=24, microseconds=1), True),
        (NOW - datetime(1970, 1, 1, tzinfo=UTC), True),
    ],
)
def test_any_age_since_1970_is_accepted_and_old_ones_are_marked_late(age: timedelta, is_late: bool) -> None:
    assert accepted(replace(GRADED, occurred_at=NOW - age)).is_late is is_late


@pytest.mark.feature("000-03")
def test_a_students_token_fills_who_when_and_under_which_name() -> None:
    submission = accepted(EventInput(type="content_viewed", content_id="c1"), by=STUDENT)

    assert submission.event == LearningEvent(
        source="user:pupil-1", event_id="fresh-1", kind=Kind.CONTENT_VIEWED, occurred_at=NOW, student="pupil-1"
    )
    assert submission.source_type == "content_viewed"
    assert not submission.is_idempotent


@pytest.mark.feature("000-03")
def test_a_persons_source_is_always_their_own() -> None:
    own = EventInput(type="CONTENT_VIEWED", content_id="c1", source="user:pupil-1")

    assert accepted(own, by=STUDENT).event.source == "user:pupil-1"
    assert refused(replace(own, source="canvas"), by=STUDENT) == [(CODE.FORBIDDEN, ("source",))]
    assert refused(replace(own, source="user:pupil-2"), by=STUDENT) == [(CODE.FORBIDDEN, ("source",))]
    assert refused(replace(GRADED, source="user:teacher-1"), by=ADMIN) == [(CODE.FORBIDDEN, ("source",))]


@pytest.mark.feature("000-03")
def test_a_machine_bound_to_sources_writes_and_voids_under_no_other() -> None:
    void = VALID[Kind.EVENT_VOIDED]

    assert accepted(GRADED, by=BOUND).event.source == "canvas"
    assert refused(replace(GRADED, source="moodle"), by=BOUND) == [(CODE.FORBIDDEN, ("source",))]
    assert refused(replace(void, target_source="moodle"), by=BOUND) == [(CODE.FORBIDDEN, ("targetSource",))]


@pytest.mark.feature("000-03")
def test_a_machine_without_the_ingest_scope_records_nothing() -> None:
    reader = replace(MACHINE, scopes=frozenset({Scope.READ}))

    assert refused(GRADED, by=reader) == [(CODE.FORBIDDEN, ("source",))]


OWN: dict[str, Any] = {"event_id": "e1", "source": None}


@pytest.mark.feature("000-03", "001-02")
@pytest.mark.parametrize(
    ("given", "field"),
    [
        (replace(GRADED, **OWN), "score"),
        (replace(VALID[Kind.QUIZ_ATTEMPT], **OWN), "score"),
        (replace(VALID[Kind.CONCEPT_COMPLETED], **OWN), "score"),
        (replace(VALID[Kind.CONTENT_VIEWED], **OWN, score=1), "score"),
        (replace(VALID[Kind.CONCEPT_MASTERED], **OWN), "type"),
        (replace(VALID[Kind.QUALITY_ASSESSED], **OWN), "type"),
        (replace(VALID[Kind.ASSIGNMENT_ASSIGNED], **OWN), "type"),
        (replace(VALID[Kind.EVENT_VOIDED], **OWN), "type"),
        (replace(VALID[Kind.ANSWER_SUBMITTED], **OWN), "type"),
        (replace(VALID[Kind.QUIZ_ENDED], **OWN), "type"),
        (replace(VALID[Kind.SUBMISSION_CREATED], **OWN, student_id="pupil-2"), "studentId"),
        (replace(VALID[Kind.PEER_HELP], **OWN, helper_id="pupil-3"), "helperId"),
    ],
)
def test_a_student_records_own_unscored_activity_only(given: EventInput, field: str) -> None:
    assert refused(given, by=STUDENT) == [(CODE.FORBIDDEN, (field,))]


@pytest.mark.feature("000-03")
def test_a_teacher_names_the_student_and_the_classroom() -> None:
    grade = replace(GRADED, source=None, occurred_at=None)
    viewed = replace(VALID[Kind.CONTENT_VIEWED], source=None)

    assert accepted(grade, by=TEACHER).event.student == "pupil-1"
    assert refused(replace(grade, student_id=None), by=TEACHER) == [(CODE.REQUIRED, ("studentId",))]
    assert refused(replace(grade, classroom_id=None), by=TEACHER) == [(CODE.REQUIRED, ("classroomId",))]
    assert refused(viewed, by=TEACHER) == [(CODE.REQUIRED, ("classroomId",))]


@pytest.mark.feature("003-06")
def test_a_teacher_runs_a_quiz_without_naming_a_student() -> None:
    given = EventInput(type="quiz_started", quiz_id="q1", classroom_id="7b", app="WHITEBOARD", lane="BACKFILL")

    submission = accepted(given, by=TEACHER)

    assert submission.event.student == "teacher-1"
    assert submission.lane is Lane.BACKFILL
    assert submission.payload == '{"app":"WHITEBOARD"}'


@pytest.mark.feature("003-01")
def test_a_tenant_registers_its_apps_or_takes_any() -> None:
    given = replace(GRADED, app="MOODLE")

    assert accepted(given, settings=IntakeSettings(apps=frozenset({"MOODLE"}))).event.kind is Kind.SUBMISSION_GRADED
    assert accepted(given, settings=IntakeSettings(apps=None)).event.kind is Kind.SUBMISSION_GRADED


@pytest.mark.feature("003-15", "003-68")
def test_metadata_outside_the_schema_is_dropped_and_counted() -> None:
    given = replace(GRADED, metadata={"wordCount": 120, "motherTongue": "x", "studentName": "y", "device": None})

    submission = accepted(given)

    assert submission.dropped == 2
    assert json.loads(submission.payload) == {
        "maxScore": 1,
        "metadata": {"device": None, "wordCount": 120},
        "metadataVersion": 1,
        "score": 0.8,
    }


@pytest.mark.feature("004-08")
@pytest.mark.parametrize("difficulty", ["beginner", "INTERMEDIATE", "advanced"])
def test_difficulty_is_one_of_three_in_either_case(difficulty: str) -> None:
    payload = json.loads(accepted(replace(VALID[Kind.EXERCISE_COMPLETED], difficulty=difficulty)).payload)

    assert payload == {"completedExercises": 8, "difficulty": difficulty.lower(), "totalExercises": 10}


def test_activity_is_what_the_event_table_calls_active() -> None:
    assert sorted(kind.value for kind in ACTIVE_KINDS) == [
        "ANSWER_SUBMITTED",
        "CONCEPT_COMPLETED",
        "CONCEPT_MASTERED",
        "CONCEPT_STARTED",
        "CONTENT_VIEWED",
        "EXERCISE_COMPLETED",
        "PEER_HELP",
        "QUIZ_ATTEMPT",
        "SUBMISSION_CREATED",
    ]


@pytest.mark.feature("000-03", "003-15")
@drawn(inputs(), viewers, intakes)
@hypothesis_settings(max_examples=500)
def test_whatever_is_sent_is_answered_and_what_is_accepted_can_be_folded(
    given: EventInput, by: Viewer, settings: IntakeSettings
) -> None:
    answer = checked(given, by, settings)

    if isinstance(answer, list):
        assert answer
        for problem in answer:
            "".join((problem.message, *problem.field)).encode()  # an answer can always be sent
        return
    event = answer.event
    names = (event.event_id, event.student, event.classroom or "-", event.assignment or "-", event.quiz or "-")
    assert all(map(is_id, (*names, *event.concepts)))
    assert event.source in {"canvas", "user:" + by.key} or is_id(event.source)
    assert event.occurred_at.tzinfo is UTC
    assert datetime(1970, 1, 1, tzinfo=UTC) <= event.occurred_at <= NOW + timedelta(minutes=15)
    assert event.due_at is None or event.due_at.tzinfo is UTC
    assert event.ratio is None or (type(event.ratio) is int and 0 <= event.ratio <= RATIO_MAX)
    assert len(event.concepts) == len(set(event.concepts)) <= 50
    assert -(2**31) <= event.revision < 2**31
    assert event.time_spent_ms is None or 0 <= event.time_spent_ms <= 86_400_000
    assert len(answer.fingerprint) == 16
    assert answer.payload.isascii()
    assert isinstance(json.loads(answer.payload), dict)
