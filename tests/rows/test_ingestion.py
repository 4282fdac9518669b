"""How the intake is doing: the backlog, what was set aside, and what became of one event."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from db.pool import Pool
from rules.access import Role, Scope
from tests.rows.district import NOW, District, open_district
from tests.rows.staffroom import machine, of

BACKLOG = "{ ingestion { backlog { depth oldestAgeMs lanes { lane depth oldestAgeMs } } } }"
CONFLICTS = """query ($first: Int! = 20, $after: String) { ingestion { conflicts(first: $first, after: $after) {
  nodes { source eventId seq storedHash sentHash times firstAt lastAt } pageInfo { hasNextPage endCursor }
} } }"""
UNROSTERED = """query ($first: Int! = 20, $after: String) { ingestion { unrostered(first: $first, after: $after) {
  nodes { seq source eventId studentId classroomId receivedAt reason } pageInfo { endCursor }
} } }"""
DEAD_LETTERS = """query ($first: Int! = 20, $after: String) { ingestion { deadLetters(first: $first, after: $after) {
  nodes { source eventId seq studentId classroomId error at } pageInfo { endCursor }
} } }"""
CORRECTIONS = """query ($first: Int! = 20, $after: String) {
  ingestion { waitingCorrections(first: $first, after: $after) {
    nodes { seq source eventId type targetSource targetEventId reason at } pageInfo { endCursor }
  } }
}"""
EVENT = """query ($source: String! = "lms", $eventId: ID!) { ingestion { event(source: $source, eventId: $eventId) {
  id seq source eventId status type sourceType studentId classroomId revision occurredAt receivedAt isLate recordedBy
} } }"""
STATUS = """query ($source: String! = "lms", $eventId: ID!) {
  ingestion { event(source: $source, eventId: $eventId) { status } }
}"""
MOMENT = "2026-03-11T09:30:00Z"


@pytest.fixture
async def district(pool: Pool) -> District:
    """Class 7b with Ann."""
    opened = await open_district(pool)
    await opened.classroom("7b")
    await opened.enroll("ann")
    return opened


async def with_conflict(district: District, event_id: str, *, source: str = "lms", minutes: int = 0) -> None:
    await district.put(
        "conflict", source=source, event_id=event_id, sent_hash=b"\x0b" * 2, stored_hash=b"\x0a" * 2, seq=1, times=2,
        first_at=NOW + timedelta(minutes=minutes), last_at=NOW + timedelta(minutes=minutes),
    )  # fmt: skip


async def with_unrostered(
    district: District, seq: int, student: str, classroom: str = "", *, source: str = "lms"
) -> None:
    await district.put(
        "unrostered", seq=seq, source=source, event_id=f"u{seq}", student=student, classroom=classroom, received_at=NOW
    )


async def with_dead_letter(district: District, event_id: str, *, source: str = "lms", minutes: int = 0) -> None:
    await district.put(
        "dead_letter", source=source, event_id=event_id, seq=1, student="ann", classroom="7b", error="ZeroDivision",
        at=NOW + timedelta(minutes=minutes),
    )  # fmt: skip


def keys_of(data: Any, field: str) -> list[str]:
    return [node["eventId"] for node in data["ingestion"][field]["nodes"]]


async def all_keys(asker: Any, document: str, field: str, *, first: int = 2) -> list[str]:
    """The event ids of every page of a list."""
    keys: list[str] = []
    after = None
    for _ in range(9):
        data = await asker.data(document, first=first, after=after)
        keys += keys_of(data, field)
        after = data["ingestion"][field]["pageInfo"]["endCursor"]
        if after is None:
            return keys
    raise AssertionError("a list of a few events has no ninth page")


@pytest.mark.feature("000-07")
async def test_the_backlog_is_counted_by_lane_with_the_age_of_its_oldest_entry(district: District) -> None:
    head = of(district, "head", Role.ADMIN)
    assert (await head.data(BACKLOG))["ingestion"]["backlog"] == {"depth": 0, "oldestAgeMs": 0, "lanes": []}

    await district.wait(1, "ann", received_at=NOW - timedelta(seconds=2))
    await district.wait(2, "ann", received_at=NOW - timedelta(seconds=1))
    await district.wait(3, "ann", lane=1, received_at=NOW - timedelta(days=60))

    assert (await head.data(BACKLOG))["ingestion"]["backlog"] == {
        "depth": 3,
        "oldestAgeMs": 2**31 - 1,  # what an Int can say
        "lanes": [
            {"lane": "LIVE", "depth": 2, "oldestAgeMs": 2000},
            {"lane": "BACKFILL", "depth": 1, "oldestAgeMs": 2**31 - 1},
        ],
    }


@pytest.mark.feature("000-02")
async def test_conflicts_are_listed_newest_first_with_both_fingerprints(district: District) -> None:
    for minutes, event_id in enumerate(("old", "mid", "new")):
        await with_conflict(district, event_id, minutes=minutes)
    head = of(district, "head", Role.ADMIN)

    data = await head.data(CONFLICTS, first=1)

    assert data["ingestion"]["conflicts"]["nodes"] == [
        {
            "source": "lms", "eventId": "new", "seq": "1", "storedHash": "0a0a", "sentHash": "0b0b", "times": 2,
            "firstAt": "2026-03-11T09:32:00Z", "lastAt": "2026-03-11T09:32:00Z",
        }
    ]  # fmt: skip
    assert data["ingestion"]["conflicts"]["pageInfo"]["hasNextPage"] is True
    assert await all_keys(head, CONFLICTS, "conflicts") == ["new", "mid", "old"]


@pytest.mark.feature("000-02")
async def test_a_page_of_conflicts_stays_right_while_newer_ones_arrive(district: District) -> None:
    for event_id in ("a", "b", "c"):  # at one moment: the key decides
        await with_conflict(district, event_id)
    head = of(district, "head", Role.ADMIN)

    first = await head.data(CONFLICTS, first=1)
    await with_conflict(district, "newer", minutes=1)
    rest = await head.data(CONFLICTS, after=first["ingestion"]["conflicts"]["pageInfo"]["endCursor"])

    assert (keys_of(first, "conflicts"), keys_of(rest, "conflicts")) == (["c"], ["b", "a"])


@pytest.mark.feature("X-10")
async def test_unrostered_events_say_what_the_roster_does_not_know(district: District) -> None:
    await with_unrostered(district, 5, "zoe")
    await with_unrostered(district, 6, "ann", "9z")
    await with_unrostered(district, 7, "zoe", "9z")
    await with_unrostered(district, 8, "ann", "7b")
    await with_unrostered(district, 9, "zoe", "7b")
    head = of(district, "head", Role.ADMIN)

    nodes = (await head.data(UNROSTERED))["ingestion"]["unrostered"]["nodes"]

    assert nodes[0] == {
        "seq": "5", "source": "lms", "eventId": "u5", "studentId": "zoe", "classroomId": None, "receivedAt": MOMENT,
        "reason": "UNKNOWN_STUDENT",
    }  # fmt: skip
    assert [(node["classroomId"], node["reason"]) for node in nodes[1:]] == [
        ("9z", "UNKNOWN_CLASSROOM"),
        ("9z", "UNKNOWN_STUDENT_AND_CLASSROOM"),
        ("7b", "BINDING"),
        ("7b", "UNKNOWN_STUDENT"),
    ]
    assert await all_keys(head, UNROSTERED, "unrostered") == ["u5", "u6", "u7", "u8", "u9"]


@pytest.mark.feature("000-09")
async def test_dead_letters_are_listed_newest_first_with_the_kind_of_error(district: District) -> None:
    for minutes, event_id in enumerate(("old", "mid", "new")):
        await with_dead_letter(district, event_id, minutes=minutes)
    head = of(district, "head", Role.ADMIN)

    data = await head.data(DEAD_LETTERS, first=1)

    assert data["ingestion"]["deadLetters"]["nodes"] == [
        {
            "source": "lms", "eventId": "new", "seq": "1", "studentId": "ann", "classroomId": "7b",
            "error": "ZeroDivision", "at": "2026-03-11T09:32:00Z",
        }
    ]  # fmt: skip
    assert await all_keys(head, DEAD_LETTERS, "deadLetters") == ["new", "mid", "old"]


@pytest.mark.feature("X-05")
async def test_a_correction_waits_until_its_target_is_recorded(district: District) -> None:
    await district.void("not-yet", by="v1", seq=21)
    await district.void("later", by="v2", seq=22)
    head = of(district, "head", Role.ADMIN)

    waiting = await head.data(CORRECTIONS, first=1)
    both = await all_keys(head, CORRECTIONS, "waitingCorrections", first=1)
    await district.event("not-yet", "ann")

    assert waiting["ingestion"]["waitingCorrections"]["nodes"] == [
        {
            "seq": "21", "source": "lms", "eventId": "v1", "type": "EVENT_VOIDED", "targetSource": "lms",
            "targetEventId": "not-yet", "reason": "sent twice", "at": MOMENT,
        }
    ]  # fmt: skip
    assert both == ["v1", "v2"]
    assert keys_of(await head.data(CORRECTIONS), "waitingCorrections") == ["v2"]


@pytest.mark.feature("000-07")
async def test_a_recorded_event_is_found_by_the_key_of_its_producer(district: District) -> None:
    seq = await district.event("e1", "ann", kind="QUIZ_ATTEMPT", source_type="quiz_attempt", revision=2, is_late=True)
    head = of(district, "head", Role.ADMIN)

    data = await head.data(EVENT, eventId="e1")

    assert data["ingestion"]["event"] == {
        "id": str(UUID(int=seq)), "seq": str(seq), "source": "lms", "eventId": "e1", "status": "FOLDED",
        "type": "QUIZ_ATTEMPT", "sourceType": "quiz_attempt", "studentId": "ann", "classroomId": "7b", "revision": 2,
        "occurredAt": MOMENT, "receivedAt": MOMENT, "isLate": True, "recordedBy": "lms",
    }  # fmt: skip
    assert head.statements == 1
    assert await head.data(EVENT, eventId="unknown") == {"ingestion": {"event": None}}
    assert await head.data(EVENT, source="other", eventId="e1") == {"ingestion": {"event": None}}


@pytest.mark.feature("000-07", "000-09", "X-01", "X-05", "X-10")
async def test_an_event_says_what_became_of_it(district: District) -> None:
    await district.event("folded", "ann")
    await district.event("waiting", "ann", is_waiting=True)
    await district.event("dead", "ann")
    await with_dead_letter(district, "dead")
    await district.event("voided", "ann")
    await district.void("voided", by="v1", seq=901)
    await district.event("dead-and-waiting", "ann", is_waiting=True)  # replayed: it gets another try
    await with_dead_letter(district, "dead-and-waiting")
    seq = await district.event("stranger's", "zoe")
    await with_unrostered(district, seq, "zoe")
    await district.event("correction", "ann", kind="EVENT_VOIDED", target_source="lms", target_event_id="voided")
    await district.void("correction", by="v2", seq=902)  # a correction of a correction has no effect
    head = of(district, "head", Role.ADMIN)

    asked = ("folded", "waiting", "dead", "voided", "dead-and-waiting", "stranger's", "correction")
    answers = {key: (await head.data(STATUS, eventId=key))["ingestion"]["event"]["status"] for key in asked}

    assert answers == {
        "folded": "FOLDED",
        "waiting": "WAITING",
        "dead": "DEAD",
        "voided": "VOIDED",
        "dead-and-waiting": "WAITING",
        "stranger's": "UNROSTERED",
        "correction": "FOLDED",
    }


@pytest.mark.feature("000-02", "000-09", "X-05", "X-10")
async def test_a_machine_bound_to_sources_sees_nothing_of_other_sources(district: District) -> None:
    for number, source in enumerate(("lms", "sis")):
        await district.event(f"of-{source}", "ann", source=source)
        await with_conflict(district, f"of-{source}", source=source)
        await with_dead_letter(district, f"of-{source}", source=source)
        await district.void("missing", source=source, by=f"of-{source}", seq=901 + number)
    await with_unrostered(district, 50, "zoe", source="lms")
    await with_unrostered(district, 51, "zoe", source="sis")
    bound, free = machine(district, Scope.INGEST, sources={"sis"}), machine(district, Scope.READ)

    async def seen_by(asker: Any) -> dict[str, list[str]]:
        return {
            "conflicts": sorted(keys_of(await asker.data(CONFLICTS), "conflicts")),
            "dead": sorted(keys_of(await asker.data(DEAD_LETTERS), "deadLetters")),
            "waiting": sorted(keys_of(await asker.data(CORRECTIONS), "waitingCorrections")),
            "unrostered": sorted(keys_of(await asker.data(UNROSTERED), "unrostered")),
        }

    own, both = ["of-sis"], ["of-lms", "of-sis"]
    assert await seen_by(bound) == {"conflicts": own, "dead": own, "waiting": own, "unrostered": ["u51"]}
    assert await seen_by(free) == {"conflicts": both, "dead": both, "waiting": both, "unrostered": ["u50", "u51"]}
    assert await bound.data(STATUS, eventId="of-lms") == {"ingestion": {"event": None}}
    assert await bound.data(STATUS, source="sis", eventId="of-sis") == {"ingestion": {"event": {"status": "DEAD"}}}
    assert await machine(district, Scope.READ, sources=set()).data(STATUS, eventId="of-lms") == {
        "ingestion": {"event": None}
    }


@pytest.mark.feature("000-07", "X-10")
async def test_the_intake_is_for_admins_and_machines_that_send_or_read(district: District, pool: Pool) -> None:
    await district.wait(1, "ann")
    await district.event("e1", "ann")
    stranger = await open_district(pool)
    refused = ({"ingestion": None}, [("ingestion", "FORBIDDEN")])

    for asker in (
        of(district, "ann", Role.STUDENT),
        of(district, "tom", Role.TEACHER),
        of(district, "ada", Role.GUARDIAN),
        machine(district, Scope.ROSTER, Scope.WEBHOOKS),
    ):
        assert await asker.refusals(BACKLOG) == refused
    for asker in (machine(district, Scope.INGEST), machine(district, Scope.READ)):
        assert (await asker.data(BACKLOG))["ingestion"]["backlog"]["depth"] == 1
    assert (await of(stranger, "head", Role.ADMIN).data(BACKLOG))["ingestion"]["backlog"]["depth"] == 0
    assert await of(stranger, "head", Role.ADMIN).data(STATUS, eventId="e1") == {"ingestion": {"event": None}}
