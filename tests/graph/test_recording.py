"""Recording over real HTTP into real Postgres: what is told once is stored once."""

from typing import Any
from uuid import UUID

import pytest

from db.intake import facts_of
from graph.access import core_of, undeclared_fields
from rules.access import Role
from rules.intake import Facts
from tests.rows.district import NOW
from tests.support.intake import RECORD_MANY, SCHEMA, Door, Intake, by_teacher, graded

ZERO: dict[str, Any] = {"typeInferred": False, "idempotent": True, "effect": None, "conflict": None, "errors": []}


# ---------------------------------------------------------------- one event


@pytest.mark.feature("000-01", "000-07", "002-03", "002-04", "C5")
async def test_an_event_is_stored_with_its_outbox_row_before_it_is_answered(intake: Intake) -> None:
    payload = await intake.record(**graded())

    event = payload.pop("event")
    assert UUID(event.pop("id")).version == 7
    receipt = {"seq": "1", "source": "lms", "eventId": "e1", "receivedAt": "2026-03-11T09:30:00Z"}
    assert (payload, event) == ({**ZERO, "status": "ACCEPTED", "seq": "1"}, receipt)
    assert await intake.log() == [("lms", "e1", "SUBMISSION_GRADED", "s1", "7b")]
    assert await intake.waiting() == 1
    assert await intake.rows("select recorded_by, ratio, is_late from event where tenant = $1") == [
        ("lms-token", 800_000, False)
    ]


@pytest.mark.feature("000-02")
async def test_the_same_event_again_is_a_duplicate_of_the_first(intake: Intake) -> None:
    first = await intake.record(**graded(occurredAt="2026-03-11T08:00:00Z"))

    again = await intake.record(**graded(score=0.80, conceptIds=["fractions", "fractions"]))

    assert again == {**first, "status": "DUPLICATE"}
    assert (len(await intake.log()), await intake.waiting()) == (1, 1)


@pytest.mark.feature("000-02")
async def test_another_content_under_the_same_key_is_a_conflict_that_changes_nothing(intake: Intake) -> None:
    first = await intake.record(**graded())

    payload = await intake.record(**graded(score=0.9))

    ((stored, sent),) = await intake.rows("select stored_hash, sent_hash from conflict where tenant = $1")
    assert stored != sent
    conflict = {"storedHash": stored.hex(), "sentHash": sent.hex()}
    assert payload == {**first, "status": "CONFLICT", "conflict": conflict}
    assert await intake.rows("select ratio from event where tenant = $1") == [(800_000,)]
    assert await intake.waiting() == 1


@pytest.mark.feature("000-02")
async def test_another_tenant_may_use_the_same_key(door: Door, intake: Intake) -> None:
    other = await door.tenant()
    await intake.record(**graded())

    payload = await other.record(**graded(score=0.1))

    assert (payload["status"], payload["seq"]) == ("ACCEPTED", "1")


@pytest.mark.feature("000-05")
async def test_the_type_is_inferred_from_a_score_or_from_assigned_concepts(intake: Intake) -> None:
    scored = await intake.record(**{**graded("e1"), "type": None})
    handed_in = await intake.record(**{**graded("e2"), "type": None, "score": None})

    assert [scored["typeInferred"], handed_in["typeInferred"]] == [True, True]
    assert [row[2] for row in await intake.log()] == ["SUBMISSION_GRADED", "SUBMISSION_CREATED"]
    assert await intake.refusals(**{**graded("e3"), "type": None, "score": None, "conceptIds": []}) == [
        ("REQUIRED", "type")
    ]
    assert await intake.refusals(**graded("e4", type="HOMEWORK")) == [("UNKNOWN_TYPE", "type")]


@pytest.mark.feature("002-02", "C1")
async def test_an_alias_is_stored_under_its_type_and_keeps_its_name(intake: Intake) -> None:
    await intake.record(**graded("q1", type="quiz_attempt"))
    await intake.record(**graded("v1", type="video_watched", score=None, contentId="clip"))
    await intake.record(**graded("a1", type="assignment_submitted", score=None))

    assert await intake.rows("select kind, source_type from event where tenant = $1 order by seq") == [
        ("QUIZ_ATTEMPT", "quiz_attempt"),
        ("CONTENT_VIEWED", "video_watched"),
        ("SUBMISSION_CREATED", "assignment_submitted"),
    ]


@pytest.mark.feature("000-03", "000-04", "C1")
async def test_concepts_are_filled_from_the_known_assignment_of_the_class_only(intake: Intake) -> None:
    await intake.district.classroom("8a")
    await intake.district.assignment("hw1", concepts=["fractions", "ratios"])
    await intake.district.assignment("hw8", "8a", concepts=["primes"])

    payload = await intake.record(**graded(conceptIds=None))

    assert payload["status"] == "ACCEPTED"
    assert await intake.rows("select concepts from event where tenant = $1") == [(["fractions", "ratios"],)]
    elsewhere = graded("e2", conceptIds=None, assignmentId="hw8")
    unknown = graded("e3", conceptIds=None, assignmentId="nowhere")
    assert await intake.refusals(**elsewhere) == await intake.refusals(**unknown) == [("REQUIRED", "conceptIds")]


@pytest.mark.feature("C2")
async def test_extra_credit_is_stored_where_the_class_allows_it(intake: Intake) -> None:
    await intake.district.classroom("8a")
    await intake.district.put(
        "classroom_policy", classroom="8a", version=2, model="DECAYING_AVERAGE", recent_percent=65,
        success_threshold=600_000, mastery_threshold=800_000, min_evidence=3, inactivity_days=7, extra_credit=True,
        created_at=NOW, created_by="admin",
    )  # fmt: skip

    assert await intake.refusals(**graded(score=11, maxScore=10)) == [("SCORE_OUT_OF_RANGE", "score")]
    await intake.record(**graded("e2", classroomId="8a", score=11, maxScore=10))

    assert await intake.rows("select ratio from event where tenant = $1") == [(1_100_000,)]


@pytest.mark.feature("001-02", "004-08", "003-06", "003-07")
async def test_every_kind_of_activity_is_taken(intake: Intake) -> None:
    quiz = {"quizId": "q", "questionId": "q1"}
    given: dict[str, dict[str, Any]] = {
        "CONCEPT_STARTED": {},
        "CONCEPT_COMPLETED": {"score": 0.9, "timeSpentMs": 86_400_000},
        "CONCEPT_MASTERED": {},
        "CONTENT_VIEWED": {"contentId": "c"},
        "EXERCISE_COMPLETED": {"totalExercises": 4, "completedExercises": 4, "difficulty": "BEGINNER"},
        "QUALITY_ASSESSED": {"codeQuality": 1, "peerReview": 0.25},
        "PEER_HELP": {"helperId": "s1", "helpedId": "s2"},
        "QUIZ_CREATED": quiz,
        "QUIZ_STARTED": quiz,
        "QUESTION_DISPLAYED": quiz,
        "ANSWER_SUBMITTED": {**quiz, "answer": "4", "timeSpentMs": 0, "attemptNumber": 1},
        "QUIZ_ENDED": quiz,
        **{
            kind: {}
            for kind in (
                "STUDENT_LOGIN", "STUDENT_LOGOUT", "CLASSROOM_JOINED", "CLASSROOM_LEFT", "HELP_REQUESTED",
                "APP_ERROR", "OTHER",
            )
        },
    }  # fmt: skip
    common = graded(score=None, assignmentId=None)

    events = [{**common, "eventId": kind, "type": kind, **more} for kind, more in given.items()]
    payload = await intake.told(RECORD_MANY, {"events": events})

    assert [result["errors"] for result in payload["results"]] == [[]] * len(given)
    assert [row[2] for row in await intake.log()] == list(given)


@pytest.mark.feature("003-15", "003-14")
async def test_metadata_is_kept_as_far_as_its_type_knows_it(intake: Intake) -> None:
    await intake.record(**graded(metadata={"device": "tablet", "wordCount": 120, "favourite": "horses"}))

    ((payload,),) = await intake.rows("select payload::json -> 'metadata' from event where tenant = $1")
    assert payload == '{"device":"tablet","wordCount":120}'


@pytest.mark.feature("C6")
async def test_an_old_event_is_taken_and_marked_late(intake: Intake) -> None:
    payload = await intake.record(**graded(occurredAt="1970-01-01T00:00:00Z"))

    assert payload["status"] == "ACCEPTED"
    assert await intake.rows("select is_late from event where tenant = $1") == [(True,)]
    assert await intake.refusals(**graded("e2", occurredAt="2026-03-11T09:45:00.000001Z")) == [
        ("FUTURE_TIMESTAMP", "occurredAt")
    ]


# ---------------------------------------------------------------- many events


@pytest.mark.feature("003-59")
async def test_one_bad_or_conflicting_item_never_rejects_the_rest(intake: Intake) -> None:
    await intake.record(**graded("known"))
    events = [
        graded("good"), graded("bad", score=2), graded("known", score=0.1),
        graded("far", occurredAt="318857-05-20T17:46:39Z"), graded("good"), graded("good", score=0), graded("last"),
    ]  # fmt: skip

    payload = await intake.told(RECORD_MANY, {"events": events})

    statuses = ["ACCEPTED", "REJECTED", "CONFLICT", "REJECTED", "DUPLICATE", "CONFLICT", "ACCEPTED"]
    assert [result["status"] for result in payload["results"]] == statuses
    errors = [[(e["code"], e["field"]) for e in result["errors"]] for result in payload["results"]]
    assert errors == [
        [], [("SCORE_OUT_OF_RANGE", ["score"])], [], [("BAD_TIMESTAMP", ["occurredAt"])], [], [], []
    ]  # fmt: skip
    assert payload["seq"] == payload["results"][-1]["seq"]
    assert payload["errors"] == []
    assert [row[1] for row in await intake.log()] == ["known", "good", "last"]


@pytest.mark.feature("003-59")
async def test_a_batch_waits_in_its_lane_and_an_item_may_choose_another(intake: Intake) -> None:
    events = [graded("e1"), graded("e2", lane="LIVE"), graded("e3")]

    await intake.told(RECORD_MANY, {"events": events, "lane": "BACKFILL"})

    assert await intake.rows("select lane from outbox where tenant = $1 order by seq") == [(1,), (0,), (1,)]


@pytest.mark.feature("003-59")
async def test_a_thousand_events_are_one_batch_and_one_more_is_none(intake: Intake) -> None:
    events = [graded(f"e{place}") for place in range(1_001)]

    none = await intake.told(RECORD_MANY, {"events": []})
    too_many = await intake.told(RECORD_MANY, {"events": events})
    whole = await intake.told(RECORD_MANY, {"events": events[:1_000]})

    assert [(error["code"], error["field"]) for error in none["errors"]] == [("REQUIRED", ["events"])]
    assert (too_many["results"], [error["code"] for error in too_many["errors"]]) == ([], ["TOO_MANY"])
    assert {result["status"] for result in whole["results"]} == {"ACCEPTED"}
    assert len(await intake.log()) == 1_000


@pytest.mark.feature("003-59")
async def test_a_value_of_a_wrong_type_refuses_the_batch_and_names_the_item(intake: Intake) -> None:
    response = await intake.post(RECORD_MANY, {"input": {"events": [graded("e1"), graded("e2", score="high")]}})

    (error,) = response.json()["errors"]
    assert (response.status_code, error["extensions"]) == (400, {"code": "BAD_INPUT"})
    assert "'$input' has invalid value at .events[1].score" in error["message"]
    assert await intake.log() == []


# ---------------------------------------------------------------- outages and the contract


async def test_a_machines_event_needs_no_read_and_a_teachers_batch_one(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0

    async def counted(*arguments: Any, **named: Any) -> Facts:
        nonlocal reads
        reads += 1
        return await facts_of(*arguments, **named)

    monkeypatch.setattr("db.intake.facts_of", counted)

    await intake.record(**graded())
    assert reads == 0
    events = [by_teacher(assignmentId=f"hw{place}") for place in range(50)]
    payload = await intake.told(RECORD_MANY, {"events": events}, token=intake.token(Role.TEACHER, sub="t1"))

    assert ({result["status"] for result in payload["results"]}, reads) == ({"ACCEPTED"}, 1)


async def test_a_full_intake_says_when_to_come_back_and_stores_nothing(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.recorder.WAITING_EVENTS_MAX", 0)

    response = await intake.post("mutation { recordEvent(input: " + LITERAL + ") { status } }")

    (error,) = response.json()["errors"]
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert error["extensions"] == {"code": "OVERLOADED"}
    assert await intake.log() == []


async def test_a_store_that_is_away_is_unavailable_and_nothing_is_half_stored(
    intake: Intake, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError("postgres at 10.0.0.7")

    monkeypatch.setattr("db.recorder.record_all", away)

    response = await intake.post("mutation { recordEvent(input: " + LITERAL + ") { status } }")

    (error,) = response.json()["errors"]
    assert (response.status_code, error["extensions"]) == (503, {"code": "UNAVAILABLE"})
    assert "10.0.0.7" not in response.text
    assert (await intake.log(), await intake.waiting()) == ([], 0)


def test_every_type_field_argument_and_value_says_what_it_is() -> None:
    kinds = core_of(SCHEMA).type_map
    parts: dict[str, Any] = {}
    for name, kind in kinds.items():
        if name.startswith("__"):
            continue
        parts[name] = kind if name not in {"ServiceQuery", "RecordingMutation"} else None  # the product's roots differ
        for key, field in {**getattr(kind, "fields", {}), **getattr(kind, "values", {})}.items():
            parts[f"{name}.{key}"] = field
            parts |= {f"{name}.{key}({argument})": told for argument, told in getattr(field, "args", {}).items()}

    assert undeclared_fields(SCHEMA) == []
    assert [name for name, part in parts.items() if part and not part.description] == []


LITERAL = '{ source: "lms", eventId: "e1", occurredAt: "2026-03-11T09:00:00Z", studentId: "s1", type: "STUDENT_LOGIN" }'
