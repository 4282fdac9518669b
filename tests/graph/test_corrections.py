"""Regrades, excuses and reopenings over real HTTP into real Postgres, folded, and only by whom the class belongs to."""

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from db.ingestion import waiting_corrections_of
from db.live import Live
from db.outbox import SHARDS
from db.pool import Pool, tenant_transaction
from graph.intake import correction_of
from jobs.drain import Drain
from jobs.replay import drift
from rules.access import Role
from tests.rows.district import NOW
from tests.support.intake import ERRORS, Intake, graded, intake_served

EVENT = "event { id seq source eventId receivedAt }"
REGRADE = f"mutation ($input: RegradeSubmissionInput!) {{ regradeSubmission(input: $input) {{ status seq effect \
{EVENT} {ERRORS} }} }}"
RESULTS = f"results {{ studentId status seq effect {EVENT} {ERRORS} }} seq {ERRORS}"
EXCUSE = f"mutation ($input: ExcuseAssignmentInput!) {{ excuseAssignment(input: $input) {{ {RESULTS} }} }}"
REOPEN = f"mutation ($input: ReopenAssignmentInput!) {{ reopenAssignment(input: $input) {{ {RESULTS} }} }}"
WORK = {"assignmentId": "hw1", "studentIds": ["s1", "s2"], "reason": "was ill"}


@pytest_asyncio.fixture
async def intake(pool: Pool, live: Live, redis_url: str) -> AsyncIterator[Intake]:
    """An intake whose clock moves on with each request: of two corrections the later one wins."""
    ticks = count()
    async with intake_served(
        pool, live, redis_url, clock=lambda: NOW + next(ticks) * timedelta(milliseconds=1)
    ) as door:
        yield await door.tenant()


async def folded(intake: Intake, live: Live) -> None:
    """Fold all that waits; what is stored is then what the log says."""
    drain = Drain(intake.door.pool, lambda: NOW, live)
    for shard in range(SHARDS):
        await drain.shard(intake.district.tenant, shard)
    assert await intake.waiting() == 0
    if await intake.rows("select 1 from classroom_state where tenant = $1 and assessed_at is not null"):
        assert await drift(intake.door.pool, intake.district.tenant, now=NOW) == []


async def score_of(intake: Intake, student: str = "s1") -> Any:
    rows = await intake.rows(
        "select score from standing where tenant = $1 and classroom = '7b' and student = $2 and count > 0", student
    )
    return rows[0][0] if rows else None


def result(payload: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    assert payload["errors"] == []
    return [(one["studentId"], one["status"], one["effect"]) for one in payload["results"]]


def codes(payload: dict[str, Any]) -> list[tuple[str, str]]:
    return [(error["code"], ".".join(error["field"] or ())) for error in payload["errors"]]


@pytest.mark.feature("X-02", "I")
async def test_a_regrade_replaces_the_value_and_keeps_the_place(intake: Intake, live: Live) -> None:
    times = ("2026-03-09T08:00:00Z", "2026-03-09T09:00:00Z", "2026-03-09T10:00:00Z")
    for place, (at, score) in enumerate(zip(times, (0.55, 0.80, 0.90), strict=True), 1):
        await intake.record(
            **graded(f"e{place}", assignmentId=f"hw{place}", occurredAt=at, score=score, submissionId=f"sub{place}")
        )
    await folded(intake, live)
    assert await score_of(intake) == 821
    teacher = intake.token(Role.TEACHER, sub="t1")

    told = await intake.told(
        REGRADE, {"source": "lms", "submissionId": "sub3", "score": 14, "maxScore": 20, "reason": "misread"},
        token=teacher,
    )  # fmt: skip
    await folded(intake, live)

    assert (told["status"], told["effect"], told["seq"], told["errors"]) == ("ACCEPTED", "APPLIED", "4", [])
    assert told["event"]["source"] == "user:t1"
    assert await score_of(intake) == 691
    assert (await intake.log())[3][2:] == ("SUBMISSION_REGRADED", "s1", "7b")
    kept = await intake.told(
        REGRADE, {"source": "lms", "eventId": "e3", "score": 0.6, "reason": "again", "onlyIfHigher": True},
        token=teacher,
    )  # fmt: skip
    await folded(intake, live)
    assert (kept["status"], await score_of(intake)) == ("ACCEPTED", 691)
    await intake.told(REGRADE, {"source": "lms", "eventId": "e3", "score": 0.9, "reason": "again"})
    await folded(intake, live)
    assert await score_of(intake) == 821


@pytest.mark.feature("X-02")
async def test_an_idempotency_key_makes_one_regrade_of_two_tellings(intake: Intake) -> None:
    await intake.record(**graded())
    given = {"source": "lms", "eventId": "e1", "score": 0.4, "reason": "misread", "idempotencyKey": "k1"}

    first = await intake.told(REGRADE, given)
    again = await intake.told(REGRADE, given)
    other = await intake.told(REGRADE, {**given, "score": 0.5})
    unkeyed = [await intake.told(REGRADE, {**given, "idempotencyKey": None}) for _ in range(2)]

    assert (first["status"], first["event"]["source"]) == ("ACCEPTED", "sightline")
    assert (again["status"], again["event"], again["effect"]) == ("DUPLICATE", first["event"], None)
    assert (other["status"], codes(other)) == ("CONFLICT", [("IDEMPOTENCY_KEY_REUSED", "idempotencyKey")])
    assert [one["status"] for one in unkeyed] == ["ACCEPTED", "ACCEPTED"]
    assert len(await intake.rows("select 1 from correction where tenant = $1")) == 3


@pytest.mark.feature("X-02", "X-05")
@pytest.mark.parametrize("name", [{"eventId": "e1"}, {"submissionId": "sub1"}])
async def test_a_regrade_before_its_grade_waits_and_then_applies(
    intake: Intake, live: Live, name: dict[str, str]
) -> None:
    told = await intake.told(REGRADE, {"source": "lms", **name, "score": 0.3, "reason": "known to be wrong"})
    await folded(intake, live)
    of_it = await intake.told(
        REGRADE,
        {"source": "sightline", "eventId": told["event"]["eventId"], "score": 1, "reason": "take it back"},
    )
    await intake.record(**graded("e1", submissionId="sub1"))
    await folded(intake, live)

    assert (told["effect"], of_it["effect"]) == ("WAITING", "NONE")
    assert await score_of(intake) == 300


@pytest.mark.feature("X-02")
async def test_what_never_had_a_score_is_not_regraded(intake: Intake) -> None:
    await intake.record(**graded("e1", type="SUBMISSION_CREATED", score=None))

    told = await intake.told(REGRADE, {"source": "lms", "eventId": "e1", "score": 1, "reason": "a gift"})

    assert (told["status"], told["effect"]) == ("ACCEPTED", "NONE")


@pytest.mark.feature("X-03")
async def test_excused_work_counts_nowhere_until_it_is_opened_again(intake: Intake, live: Live) -> None:
    await intake.district.assignment("hw1")
    await intake.record(**graded("e1"))
    await intake.record(**graded("e2", studentId="s2", score=0.4))
    await folded(intake, live)
    teacher = intake.token(Role.TEACHER, sub="t1")

    excused = await intake.told(EXCUSE, {**WORK, "studentIds": ["s2", "s1", "s2"]}, token=teacher)
    await folded(intake, live)

    assert result(excused) == [("s2", "ACCEPTED", "APPLIED"), ("s1", "ACCEPTED", "APPLIED")]
    assert excused["seq"] == "4"
    assert [await score_of(intake, student) for student in ("s1", "s2")] == [None, None]
    assert await intake.rows("select distinct is_excused, counted from work where tenant = $1") == [(True, None)]
    await intake.record(**graded("late", score=0.9))  # excused means excused
    await folded(intake, live)
    assert await score_of(intake) is None

    opened = await intake.told(REOPEN, {**WORK, "studentIds": ["s1"], "dueAt": "2026-03-20T12:00:00Z"}, token=teacher)
    await folded(intake, live)

    assert result(opened) == [("s1", "ACCEPTED", "APPLIED")]
    works = "select student, is_assigned, is_excused, counted, due_at::text like '2026-03-20%' from work \
where tenant = $1 order by student"
    assert await intake.rows(works) == [("s1", True, False, None, True), ("s2", False, True, None, None)]
    await intake.record(**graded("anew", occurredAt="2026-03-11T09:40:00Z", score=0.7))
    await folded(intake, live)
    assert await score_of(intake) == 700


@pytest.mark.feature("X-03", "X-04", "X-05")
@pytest.mark.parametrize("mutation", [EXCUSE, REOPEN])
async def test_a_correction_of_work_that_nobody_assigned_yet_waits(intake: Intake, live: Live, mutation: str) -> None:
    waiting = await intake.told(mutation, WORK)  # a machine may be ahead of the roster: no class either
    await folded(intake, live)
    await intake.record(**graded("e1", occurredAt="2026-03-09T08:00:00Z"))
    await folded(intake, live)
    again = await intake.told(mutation, {**WORK, "idempotencyKey": "k", "studentIds": ["s1"]})
    twice = await intake.told(mutation, {**WORK, "idempotencyKey": "k", "studentIds": ["s1"]})

    assert result(waiting) == [("s1", "ACCEPTED", "WAITING"), ("s2", "ACCEPTED", "WAITING")]
    assert await score_of(intake) is None
    assert (result(again), result(twice)) == ([("s1", "ACCEPTED", "APPLIED")], [("s1", "DUPLICATE", None)])


@pytest.mark.feature("X-02", "X-03", "X-04")
async def test_a_teacher_corrects_only_what_belongs_to_their_class(intake: Intake) -> None:
    await intake.district.classroom("8a")
    await intake.district.enroll("s9", "8a")
    await intake.district.assignment("hw1")
    await intake.district.assignment("hw8", "8a")
    await intake.record(**graded("own", submissionId="own"))
    await intake.record(**graded("foreign", classroomId="8a", assignmentId="hw8", submissionId="foreign"))
    before = await intake.log()
    token = intake.token(Role.TEACHER, sub="t1")

    async def regrade(**name: str) -> dict[str, Any]:
        return await intake.told(REGRADE, {"source": "lms", "score": 1, "reason": "x", **name}, token=token)

    for name in ("eventId", "submissionId"):
        refused = [await regrade(**{name: value}) for value in ("foreign", "unknown")]
        assert refused[0] == refused[1]
        assert (refused[0]["status"], codes(refused[0])) == ("REJECTED", [("NOT_FOUND", name)])
    for mutation in (EXCUSE, REOPEN):
        refused = [
            await intake.told(mutation, {**WORK, "assignmentId": key}, token=token) for key in ("hw8", "unknown")
        ]
        assert refused[0] == refused[1]
        assert (refused[0]["results"], codes(refused[0])) == ([], [("NOT_FOUND", "assignmentId")])
    assert await intake.log() == before

    mixed = await intake.told(EXCUSE, {**WORK, "studentIds": ["s9", "s1"]}, token=token)
    assert [(one["studentId"], one["status"], codes(one)) for one in mixed["results"]] == [
        ("s9", "REJECTED", [("NOT_FOUND", "studentId")]),
        ("s1", "ACCEPTED", []),
    ]
    assert (await regrade(eventId="own"))["status"] == "ACCEPTED"


@pytest.mark.feature("X-02", "X-03", "X-04")
async def test_corrections_told_as_events_obey_the_same_walls(intake: Intake, live: Live) -> None:
    await intake.district.classroom("8a")
    await intake.record(**graded("own", submissionId="sub"))
    await intake.record(**graded("foreign", classroomId="8a"))
    token = intake.token(Role.TEACHER, sub="t1")
    regrade = {
        "type": "SUBMISSION_REGRADED", "studentId": "s1", "classroomId": "7b", "targetSource": "lms", "score": 0.1,
        "reason": "wrong",
    }  # fmt: skip
    excuse = {"type": "ASSIGNMENT_EXCUSED", "studentId": "s1", "assignmentId": "hw1", "reason": "was ill"}

    refused = [await intake.refusals(token=token, targetEventId=key, **regrade) for key in ("foreign", "unknown")]
    refused += [await intake.refusals(token=token, classroomId=key, **excuse) for key in ("8a", "unknown")]
    of_other = await intake.refusals(token=token, **{**regrade, "studentId": "s2"}, submissionId="sub")
    own = await intake.record(token=token, **regrade, submissionId="sub")
    await folded(intake, live)
    score = await score_of(intake)
    excused = await intake.record(token=token, classroomId="7b", **excuse)
    await folded(intake, live)
    student = await intake.refusals(token=intake.token(Role.STUDENT, sub="s1"), classroomId="7b", **excuse)

    assert refused == [[("NOT_FOUND", "targetEventId")]] * 2 + [[("NOT_FOUND", "classroomId")]] * 2
    assert of_other == [("NOT_FOUND", "targetEventId")]
    assert [(one["status"], one["effect"]) for one in (own, excused)] == [("ACCEPTED", "APPLIED")] * 2
    assert (score, await score_of(intake)) == (100, None)
    assert student == [("FORBIDDEN", "type")]


@pytest.mark.feature("X-02", "X-03", "X-04")
async def test_a_machine_bound_to_sources_corrects_nothing_of_others(intake: Intake) -> None:
    await intake.record(**graded())
    token = intake.token(sources=["app"])

    regrade = await intake.told(REGRADE, {"source": "lms", "eventId": "e1", "score": 1, "reason": "x"}, token=token)
    excuse = await intake.told(EXCUSE, WORK, token=token)

    assert (regrade["status"], codes(regrade)) == ("REJECTED", [("FORBIDDEN", "source")])
    assert (excuse["results"], codes(excuse)) == ([], [("FORBIDDEN", "assignmentId")])
    assert len(await intake.log()) == 1


NAMED = {"source": "lms", "eventId": "e1", "score": 0.5, "reason": "x"}


@pytest.mark.feature("X-02")
@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"eventId": None}, "REQUIRED", "eventId"),
        ({"submissionId": "s"}, "OUT_OF_RANGE", "submissionId"),
        ({"score": 1.5}, "SCORE_OUT_OF_RANGE", "score"),
        ({"score": -1}, "SCORE_OUT_OF_RANGE", "score"),
        ({"maxScore": 0}, "OUT_OF_RANGE", "maxScore"),
        ({"reason": "  "}, "REQUIRED", "reason"),
        ({"reason": "x" * 1_001}, "TOO_LONG", "reason"),
        ({"source": ""}, "BAD_ID", "source"),
        ({"eventId": "e\n"}, "BAD_ID", "eventId"),
        ({"idempotencyKey": "k" * 129}, "TOO_LONG", "idempotencyKey"),
    ],
)
async def test_a_wrong_regrade_is_rejected(intake: Intake, change: dict[str, Any], code: str, field: str) -> None:
    await intake.record(**graded())

    told = await intake.told(REGRADE, {**NAMED, **change})

    assert (told["status"], told["event"], codes(told)) == ("REJECTED", None, [(code, field)])
    assert len(await intake.log()) == 1


@pytest.mark.feature("X-03", "X-04")
@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"studentIds": []}, "REQUIRED", "studentIds"),
        ({"studentIds": [f"s{n}" for n in range(1_001)]}, "TOO_MANY", "studentIds"),
        ({"assignmentId": " "}, "BAD_ID", "assignmentId"),
        ({"classroomId": ""}, "BAD_ID", "classroomId"),
        ({"idempotencyKey": ""}, "BAD_ID", "idempotencyKey"),
    ],
)
@pytest.mark.parametrize("mutation", [EXCUSE, REOPEN])
async def test_a_wrong_excuse_or_reopening_is_rejected(
    intake: Intake, mutation: str, change: dict[str, Any], code: str, field: str
) -> None:
    told = await intake.told(mutation, {**WORK, **change})

    assert (told["results"], told["seq"], codes(told)) == ([], None, [(code, field)])
    assert await intake.log() == []


@pytest.mark.feature("X-03")
async def test_one_wrong_student_turns_no_other_away(intake: Intake) -> None:
    told = await intake.told(EXCUSE, {**WORK, "studentIds": ["s1", "s\n", "s2"]})

    assert [(one["status"], codes(one)) for one in told["results"]] == [
        ("ACCEPTED", []),
        ("REJECTED", [("BAD_ID", "studentId")]),
        ("ACCEPTED", []),
    ]


@pytest.mark.feature("X-05")
async def test_each_waiting_correction_is_listed_until_its_target_is_there(intake: Intake) -> None:
    late = {"source": "lms", "score": 0.3, "reason": "known to be wrong"}
    await intake.told(REGRADE, {**late, "eventId": "e1"})
    await intake.told(REGRADE, {**late, "submissionId": "sub1"})
    await intake.told(EXCUSE, {**WORK, "studentIds": ["s1"]})
    await intake.told(REOPEN, {**WORK, "studentIds": ["s2"]})
    rows = await listed(intake)

    await intake.record(**graded("e1", submissionId="sub1"))

    nothing = {"targetSource": None, "targetEventId": None, "targetSubmissionId": None, "assignmentId": None}
    regrade = {**nothing, "type": "SUBMISSION_REGRADED", "targetSource": "lms", "reason": "known to be wrong"}
    item = {**nothing, "assignmentId": "hw1", "reason": "was ill"}
    reopening = {**item, "type": "ASSIGNMENT_REOPENED", "studentId": "s2"}
    assert rows == [
        {**regrade, "targetEventId": "e1", "studentId": None},
        {**regrade, "targetSubmissionId": "sub1", "studentId": None},
        {**item, "type": "ASSIGNMENT_EXCUSED", "studentId": "s1"},
        reopening,
    ]
    assert await listed(intake) == [reopening]


async def listed(intake: Intake) -> Any:
    tenant = intake.district.tenant
    async with tenant_transaction(intake.door.pool, tenant, read_only=True) as connection:
        rows = await waiting_corrections_of(connection, tenant, sources=None, limit=20)
    return [
        {
            "type": shown.type.name, "targetSource": shown.target_source, "targetEventId": shown.target_event_id,
            "targetSubmissionId": shown.target_submission_id, "assignmentId": shown.assignment_id,
            "studentId": shown.student_id, "reason": shown.reason,
        }
        for shown in map(correction_of, rows)
    ]  # fmt: skip
