"""The compiled path on the real store: the same answers and the same rows as by the reference executor."""

from typing import Any

from rules.access import Role
from tests.support.intake import RECORD, RECORD_MANY, Door, Intake, by_teacher, graded

# A directive late in the text, so that locations stay, sends a document to the reference executor.
WALKED = RECORD.replace("receivedAt", "receivedAt @include(if: true)")
WALKED_MANY = RECORD_MANY.replace("receivedAt", "receivedAt @include(if: true)")
EVENTS: list[tuple[dict[str, Any], int]] = [  # each with the answers that the compiled path gives of it
    (graded(), 1),
    (graded(), 1),
    (graded(score=0.5), 1),
    (graded("e2", score=7), 1),
    (graded("e3", score="high"), 0),
    (graded("e4", studentId=5), 1),
    (graded("e5", occurredAt="soon"), 1),
    (graded("e6", lane="BACKFILL", metadata={"device": "tablet"}), 1),
    (graded("e7", revision=2**31), 0),
    (graded("e8", nope=1), 0),
    (graded("e9", dueAt="2026-03-12T09:00:00.123456789+05:30", timeSpentMs=None), 1),
    (graded(" "), 1),
]
ROWS = """select seq, source, event_id, kind, occurred_at, received_at, student, classroom, concepts, ratio, due_at,
    payload::text, revision, is_late, recorded_by from event where tenant = $1 order by seq"""
KEYS = "select source, event_id, fingerprint from event_key where tenant = $1 order by event_id"


def told(payload: Any) -> Any:
    """An answer without the id that Postgres made."""
    for data in (payload.get("data") or {}).values():
        for result in data.get("results", [data]):
            (result["event"] or {}).pop("id", None)
    return payload


async def test_answers_and_rows_are_the_same_whichever_path_told_them(door: Door) -> None:
    straight, walked = await door.tenant(), await door.tenant()
    for given, count in EVENTS:
        before = door.documents.tally.compiled

        ours = await straight.post(RECORD, {"input": given})
        taken = door.documents.tally.compiled - before
        theirs = await walked.post(WALKED, {"input": given})

        assert (ours.status_code, told(ours.json())) == (theirs.status_code, told(theirs.json()))
        assert (taken, door.documents.tally.compiled - before) == (count, count), given
    assert await straight.rows(ROWS) == await walked.rows(ROWS)
    assert await straight.rows(KEYS) == await walked.rows(KEYS)
    assert len(await straight.log()) == 4


async def test_a_teachers_batch_is_judged_alike_on_both_paths(door: Door) -> None:
    straight, walked = await door.tenant(), await door.tenant()
    events = [by_teacher(studentId=one, metadata={"n": one}) for one in ("s1", "s2", "stranger")]

    async def statuses(intake: Intake, query: str) -> list[str]:
        payload = await intake.told(query, {"events": events}, token=intake.token(Role.TEACHER, sub="t1"))
        return [result["status"] for result in payload["results"]]

    before = door.documents.tally.compiled
    assert await statuses(straight, RECORD_MANY) == ["ACCEPTED", "ACCEPTED", "REJECTED"]
    assert await statuses(walked, WALKED_MANY) == ["ACCEPTED", "ACCEPTED", "REJECTED"]
    assert door.documents.tally.compiled - before == 1
    told_about = "select kind, student, payload::text, recorded_by from event where tenant = $1 order by seq"
    assert await straight.rows(told_about) == await walked.rows(told_about)
