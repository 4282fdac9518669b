"""The fingerprint: the same event in any spelling, and never another one."""

import json
from dataclasses import fields, replace
from datetime import timedelta, timezone
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rules.evidence import (
    EventInput,
    IntakeSettings,
    Submission,
)
from rules.fingerprint import fingerprint_of
from rules.kinds import ALIASES
from rules.validation import validate
from tests.rules.intake_samples import (
    GRADED,
    NOW,
    STUDENT,
    accepted,
    checked,
    inputs,
    zones,
)

FULL = replace(
    GRADED,
    type="SUBMISSION_GRADED",
    score=1.0,
    max_score=2.0,
    concept_ids=["k1", "k2", "k3"],
    due_at=NOW,
    difficulty="beginner",
    rubric_tags=["t1", "t2"],
    metadata={"wordCount": 1.0, "rubric": {"a": [1, 2.5], "b": None}},
    revision=1,
)


@pytest.mark.feature("000-02")
@pytest.mark.parametrize(
    "change",
    [
        {"score": 1},
        {"score": float("1e0")},
        {"max_score": 2},
        {"difficulty": "BEGINNER"},
        {"metadata": {"rubric": {"b": None, "a": [1.0, 2.5]}, "wordCount": 1, "traceparent": "00-ab-cd-01"}},
        {"lane": "BACKFILL"},
        {"concept_ids": ["k3", "k1", "k2", "k1"]},
        {"occurred_at": NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))},
    ],
)
def test_another_spelling_has_the_same_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint_of(replace(FULL, **change)) == fingerprint_of(FULL)


OTHERWISE: dict[str, Any] = {
    **dict.fromkeys(
        [
            "student_id",
            "classroom_id",
            "assignment_id",
            "quiz_id",
            "question_id",
            "content_id",
            "submission_id",
            "helper_id",
            "helped_id",
            "answer",
            "app",
            "reason",
            "target_source",
            "target_event_id",
        ],
        "changed",
    ),
    **dict.fromkeys(("score", "max_score", "code_quality", "correctness", "efficiency", "peer_review"), 0.25),
    **dict.fromkeys(("revision", "time_spent_ms", "completed_exercises", "total_exercises", "attempt_number"), 9),
    "occurred_at": NOW - timedelta(microseconds=1),
    "due_at": NOW + timedelta(microseconds=1),
    "concept_ids": ["k1", "k2"],
    "type": "QUIZ_ATTEMPT",
    "difficulty": "advanced",
    "only_if_higher": True,
    "rubric_tags": ["t2", "t1"],
    "metadata": {"wordCount": 1, "rubric": {"a": [1, 2.5]}},
}


@pytest.mark.feature("000-02")
@pytest.mark.parametrize("name", OTHERWISE)
def test_another_value_in_any_field_has_another_fingerprint(name: str) -> None:
    assert fingerprint_of(replace(FULL, **{name: OTHERWISE[name]})) != fingerprint_of(FULL)
    assert fingerprint_of(replace(FULL, **{name: None})) != fingerprint_of(replace(FULL, **{name: OTHERWISE[name]}))


def test_every_field_but_the_key_and_the_lane_is_fingerprinted() -> None:
    assert {field.name for field in fields(EventInput)} - set(OTHERWISE) == {"event_id", "source", "lane"}


@pytest.mark.feature("000-02")
def test_the_fingerprint_of_a_known_event_never_changes() -> None:
    # Stored fingerprints outlive releases: a change here turns every resent event into a conflict.
    assert fingerprint_of(FULL).hex() == "711a4a99f6368842ee20a47334aa2d95"


@pytest.mark.feature("000-02")
@drawn(st.text(), st.none() | st.text(), st.none() | st.integers() | st.floats(0.1, 0.9))
def test_the_fingerprint_is_over_the_fields_as_one_list_in_ascii(text: str, answer: str | None, score: Any) -> None:
    # As it was first written; what is made of it must stay the same for any text, quotes and escapes included.
    sent = [("content_id", text), ("score", score), ("type", "CONTENT_VIEWED"), ("answer", answer)]
    known = ascii([(name, value) for name, value in sent if value is not None]).encode()

    made = fingerprint_of(EventInput(type="CONTENT_VIEWED", content_id=text, score=score, answer=answer))

    assert made == blake2b(known, digest_size=16).digest()


@pytest.mark.feature("000-02")
def test_what_the_token_fills_in_is_not_fingerprinted() -> None:
    given = EventInput(type="CONTENT_VIEWED", content_id="c1", event_id="e1")

    first = accepted(given, by=STUDENT)
    second = validate(given, viewer=STUDENT, now=NOW + timedelta(hours=1), settings=IntakeSettings(), fresh_id="z")

    assert isinstance(second, Submission)
    assert first.fingerprint == second.fingerprint


@pytest.mark.feature("000-02")
@drawn(inputs(wild=st.none()), st.randoms(use_true_random=False), zones)
@hypothesis_settings(max_examples=300)
def test_permuted_concepts_aliases_and_offsets_leave_the_fingerprint_alone(
    given: EventInput, dice: Any, zone: Any
) -> None:
    answer = checked(given)
    if isinstance(answer, list):
        return
    names = [alias for alias, kind in ALIASES.items() if kind is answer.event.kind]
    concepts = list(given.concept_ids or [])
    dice.shuffle(concepts)

    again = replace(
        given,
        concept_ids=None if given.concept_ids is None else concepts + concepts[:1],
        type=given.type and dice.choice([*names, answer.event.kind.value]),
        occurred_at=answer.event.occurred_at.astimezone(zone),
    )

    assert accepted(again).fingerprint == answer.fingerprint


@pytest.mark.feature("000-02")
@drawn(inputs(wild=st.none()), inputs(wild=st.none()))
def test_events_that_mean_different_things_have_different_fingerprints(one: EventInput, other: EventInput) -> None:
    first, second = checked(one), checked(other)
    if isinstance(first, list) or isinstance(second, list) or first.fingerprint != second.fingerprint:
        return
    named: dict[str, Any] = {"source": "canvas", "event_id": "e1"}

    assert replace(first.event, **named, concepts=()) == replace(second.event, **named, concepts=())
    assert set(first.event.concepts) == set(second.event.concepts)
    assert json.loads(first.payload) == json.loads(second.payload)
