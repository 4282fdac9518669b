"""A student's history: complete, in order, and without what only staff may know."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.pool import Pool
from rules.access import Role
from tests.rows.district import District, open_district
from tests.rows.reading import Reader

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

TIMELINE = """query (
  $classroomId: ID, $types: [EventType!], $from: Date, $to: Date, $order: TimelineOrder! = OLDEST_FIRST,
  $first: Int! = 20, $after: String
) {
  student(id: "ada") {
    timeline(
      classroomId: $classroomId, types: $types, from: $from, to: $to, order: $order, first: $first, after: $after
    ) {
      nodes { eventId effect }
      pageInfo { hasNextPage endCursor }
    }
  }
}"""


async def with_ada(pool: Pool, *, zone: str = "UTC") -> District:
    """Ada attends 7b, which Miller teaches; Eve is her guardian."""
    district = await open_district(pool, zone=zone)
    await district.classroom("7b")
    await district.enroll("ada")
    await district.teach("miller")
    await district.guard("eve", "ada")
    return district


def admin(district: District) -> Reader:
    return Reader(district.pool, district.tenant)


async def seen(reader: Reader, **variables: Any) -> list[str]:
    """The event ids of one page."""
    return [node["eventId"] for node in (await page(reader, **variables))["nodes"]]


async def page(reader: Reader, **variables: Any) -> Any:
    return (await reader.data(TIMELINE, **variables))["student"]["timeline"]


@pytest.mark.feature("000-19", "002-05")
async def test_an_event_is_told_whole(pool: Pool) -> None:
    district = await with_ada(pool)
    seq = await district.event(
        "e1", "ada", occurred_at=NOON, kind="SUBMISSION_GRADED", source_type="graded", assignment="essay", quiz=None,
        concepts=["angles", "fractions"], ratio=812_345, submission="s1", time_spent_ms=90_000, is_late=True,
    )  # fmt: skip

    data = await admin(district).data(
        '{ student(id: "ada") { timeline { nodes { id seq source eventId type sourceType occurredAt receivedAt isLate '
        "classroomId assignmentId quizId conceptIds submissionId score dueAt timeSpentMs effect } } } }"
    )

    assert data["student"]["timeline"]["nodes"] == [
        {
            "id": "00000000-0000-0000-0000-000000000001",
            "seq": str(seq),
            "source": "lms",
            "eventId": "e1",
            "type": "SUBMISSION_GRADED",
            "sourceType": "graded",
            "occurredAt": "2026-03-10T12:00:00Z",
            "receivedAt": "2026-03-10T12:00:00Z",
            "isLate": True,
            "classroomId": "7b",
            "assignmentId": "essay",
            "quizId": None,
            "conceptIds": ["angles", "fractions"],
            "submissionId": "s1",
            "score": 0.812345,
            "dueAt": None,
            "timeSpentMs": 90_000,
            "effect": "EFFECTIVE",
        }
    ]


@pytest.mark.feature("000-19")
@pytest.mark.parametrize("order", ["OLDEST_FIRST", "NEWEST_FIRST"])
async def test_pages_hold_each_event_once_by_time_then_seq_while_others_arrive(pool: Pool, order: str) -> None:
    district = await with_ada(pool)
    for event_id, minutes in (("b", 2), ("a", 1), ("c", 2), ("d", 3)):
        await district.event(event_id, "ada", occurred_at=NOON + minutes * MINUTE)
    reader = admin(district)

    one = await page(reader, first=2, order=order)
    passed = NOON if order == "OLDEST_FIRST" else NOON + 9 * MINUTE
    await district.event("late", "ada", occurred_at=passed)
    await district.event("same", "ada", occurred_at=NOON + 2 * MINUTE)
    two = await page(reader, first=3, order=order, after=one["pageInfo"]["endCursor"])

    ids = [node["eventId"] for node in one["nodes"] + two["nodes"]]
    # Newest first, the event that came between the pages at an instant already passed sorts before the cursor.
    assert ids == (["a", "b", "c", "same", "d"] if order == "OLDEST_FIRST" else ["d", "c", "b", "a"])
    assert (one["pageInfo"]["hasNextPage"], two["pageInfo"]["hasNextPage"]) == (True, False)


async def test_a_cursor_of_the_other_order_is_refused(pool: Pool) -> None:
    district = await with_ada(pool)
    await district.event("a", "ada", occurred_at=NOON)
    reader = admin(district)

    one = await page(reader, first=1)
    answer = await reader.ask(TIMELINE, order="NEWEST_FIRST", after=one["pageInfo"]["endCursor"])

    assert answer.data == {"student": {"timeline": None}}
    assert [error["extensions"] for error in answer.errors] == [{"code": "BAD_INPUT", "field": ["after"]}]


@pytest.mark.feature("000-19", "X-01")
async def test_what_does_not_count_is_marked_for_staff_and_absent_for_the_family(pool: Pool) -> None:
    district = await with_ada(pool)
    for minutes, event_id in enumerate(("counts", "voided", "regraded", "dead")):
        await district.event(event_id, "ada", occurred_at=NOON + minutes * MINUTE)
    await district.event("v1", "ada", occurred_at=NOON + 9 * MINUTE, kind="EVENT_VOIDED")
    await district.void("voided")
    await district.void("v1", by="v2")  # a correction of a correction has no effect
    await district.put(
        "correction", target_source="lms", target_event_id="regraded", source="lms", event_id="r1",
        kind="SUBMISSION_REGRADED", seq=901, reason="typing error", at=NOON,
    )  # fmt: skip
    await district.put(
        "dead_letter", source="lms", event_id="dead", seq=4, student="ada", classroom="7b", error="boom", at=NOON
    )
    tenant = district.tenant

    staff = [await page(reader) for reader in (admin(district), Reader(pool, tenant, "miller", {Role.TEACHER}))]
    family = [
        await page(Reader(pool, tenant, key, {role})) for key, role in (("ada", Role.STUDENT), ("eve", Role.GUARDIAN))
    ]

    for answered in staff:
        assert answered["nodes"] == [
            {"eventId": "counts", "effect": "EFFECTIVE"},
            {"eventId": "voided", "effect": "VOIDED"},
            {"eventId": "regraded", "effect": "SUPERSEDED"},
            {"eventId": "dead", "effect": "DEAD"},
            {"eventId": "v1", "effect": "EFFECTIVE"},
        ]
    for answered in family:
        assert answered["nodes"] == [{"eventId": "counts", "effect": "EFFECTIVE"}]
        assert answered["pageInfo"]["hasNextPage"] is False


@pytest.mark.feature("X-10")
async def test_an_event_of_a_class_that_the_roster_does_not_know_is_not_shown(pool: Pool) -> None:
    district = await with_ada(pool)
    seq = await district.event("strange", "ada", classroom="unknown", occurred_at=NOON)
    await district.put(
        "unrostered", seq=seq, source="lms", event_id="strange", student="ada", classroom="unknown", received_at=NOON
    )

    waiting = await seen(admin(district))
    await district.run("delete from unrostered where tenant = $1")
    bound = await seen(admin(district))

    assert (waiting, bound) == ([], ["strange"])


@pytest.mark.feature("000-19")
async def test_events_can_be_narrowed_to_a_class_and_to_types(pool: Pool) -> None:
    district = await with_ada(pool)
    await district.event("a", "ada", occurred_at=NOON)
    await district.event("b", "ada", classroom="8a", occurred_at=NOON, kind="QUIZ_ATTEMPT")
    await district.event("c", "ada", classroom="", occurred_at=NOON, kind="STUDENT_LOGIN")
    await district.event("d", "bob", occurred_at=NOON)
    reader = admin(district)

    assert await seen(reader) == ["a", "b", "c"]
    assert await seen(reader, classroomId="8a") == ["b"]
    assert await seen(reader, types=["STUDENT_LOGIN", "CONTENT_VIEWED"]) == ["a", "c"]
    assert await seen(reader, types=[]) == []
    assert await seen(reader, classroomId="nope") == []


@pytest.mark.feature("000-19")
async def test_a_period_is_of_whole_local_days_of_the_student(pool: Pool) -> None:
    district = await with_ada(pool, zone="Europe/Berlin")
    await district.event("the 8th", "ada", occurred_at=datetime(2026, 3, 8, 22, 59, 59, tzinfo=UTC))
    await district.event("first of the 9th", "ada", occurred_at=datetime(2026, 3, 8, 23, tzinfo=UTC))
    await district.event("last of the 9th", "ada", occurred_at=datetime(2026, 3, 9, 22, 59, 59, tzinfo=UTC))
    await district.event("the 10th", "ada", occurred_at=datetime(2026, 3, 9, 23, tzinfo=UTC))
    reader = admin(district)

    assert await seen(reader, **{"from": "2026-03-09"}, to="2026-03-09") == ["first of the 9th", "last of the 9th"]
    assert await seen(reader, **{"from": "2026-03-10"}) == ["the 10th"]
    assert await seen(reader, to="2026-03-08") == ["the 8th"]
    assert await seen(reader, **{"from": "2025-03-09"}, to="2026-03-10") == [
        "the 8th", "first of the 9th", "last of the 9th", "the 10th",
    ]  # fmt: skip
    assert await seen(reader, **{"from": "0001-01-01"}) == await seen(reader, to="9999-12-31")
    assert await seen(reader, **{"from": "9999-12-31"}) == []
    assert await seen(reader, to="0001-01-01") == []


@pytest.mark.parametrize(("start", "end"), [("2026-03-09", "2026-03-08"), ("2025-03-08", "2026-03-10")])
async def test_a_period_that_is_backwards_or_too_long_is_refused(pool: Pool, start: str, end: str) -> None:
    district = await with_ada(pool)

    answer = await admin(district).ask(TIMELINE, **{"from": start}, to=end)

    assert answer.data == {"student": {"timeline": None}}
    assert [error["extensions"] for error in answer.errors] == [{"code": "BAD_INPUT", "field": ["to"]}]


@pytest.mark.parametrize("value", ["2026-02-30", "tomorrow", 5, "2026-W10-1", "-271821-04-20", "318857-01-01"])
async def test_a_day_that_does_not_exist_is_refused(pool: Pool, value: object) -> None:
    answer = await Reader(pool, 1).ask(TIMELINE, to=value)

    assert (answer.is_executed, answer.codes) == (False, {"BAD_INPUT"})
