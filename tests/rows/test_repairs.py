"""What was set aside is put right by a person: dead letters tried again or given up, conflicts ended."""

from dataclasses import replace
from typing import Any

import pytest

from db import dead_letters, projection
from db.live import Live
from db.pool import Connection, Pool, tenant_transaction
from db.projection import Moves
from jobs.replay import drift
from rules.access import Role, Scope, Viewer
from tests.jobs.test_drain import poisoned
from tests.rows.office import NOW, Office, enrolment, open_class
from tests.support.events import Mill, graded

COUNTS = "select student, classroom, count, score from standing where tenant = $1 and count > 0 order by 1, 2"
SET_ASIDE = "select event_id from unrostered where tenant = $1"
FREE = [
    "select classroom from classroom_state where tenant = $1 for update skip locked",
    "select student from student_state where tenant = $1 for update skip locked",
]
OPEN = "{ ingestion { conflicts { nodes { eventId sentHash } } deadLetters { nodes { eventId } } } }"


async def open_school(pool: Pool, live: Live) -> tuple[Office, Mill]:
    """Students s1 and s2 in 7b."""
    office = await open_class(pool, "s1", "s2")
    for student in ("s1", "s2"):
        await office.done("saveEnrollment", **enrolment(student))
    mill = Mill.of(pool, office.tenant, live, now=NOW)
    await mill.fold()
    return office, mill


def told(event_id: str, score: float, student: str = "s1", **more: Any) -> Any:
    return graded(event_id, student, score, occurred_at=NOW, concepts=("c1",), **more)


async def set_aside(office: Office) -> tuple[list[str], list[str]]:
    """The ids in conflict, and the dead ones."""
    found = (await office.ask(OPEN, {}))["data"]["ingestion"]
    return [one["eventId"] for one in found["conflicts"]["nodes"]], [
        one["eventId"] for one in found["deadLetters"]["nodes"]
    ]


def unsaved(monkeypatch: pytest.MonkeyPatch, student: str) -> None:
    """Let Postgres refuse whatever has changed of a student, as it does where a row is corrupt."""
    saving = projection.save

    async def save(connection: Connection, tenant: int, moves: Moves, **named: Any) -> None:
        if student in moves.students:
            raise ValueError("a row that cannot be written")
        await saving(connection, tenant, moves, **named)

    monkeypatch.setattr(projection, "save", save)


def keys(*event_ids: str, source: str = "lms") -> list[dict[str, str]]:
    return [{"source": source, "eventId": event_id} for event_id in event_ids]


@pytest.mark.feature("000-09")
async def test_a_dead_letter_tried_again_after_the_cause_is_mended_counts_in_every_number(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    office, mill = await open_school(pool, live)
    with monkeypatch.context() as broken:
        poisoned(broken, "bad")
        await mill.record(told("bad", 1.0), told("good", 0.5))
        await mill.fold()
        await mill.fold()
    assert await set_aside(office) == ([], ["bad"])
    assert await mill.rows(COUNTS) == [("s1", "", 1, 500), ("s1", "7b", 1, 500)]

    payload = await office.done("replayDeadLetters", "count", events=keys("bad", "good"))
    await mill.fold()

    assert payload == {"seq": await office.head(), "count": 1}
    assert await set_aside(office) == ([], [])
    assert await mill.rows(SET_ASIDE) == []
    assert [row[:3] for row in await mill.rows(COUNTS)] == [("s1", "", 2), ("s1", "7b", 2)]
    assert await drift(pool, office.tenant, now=NOW) == []


@pytest.mark.feature("000-09")
async def test_a_dead_letter_that_still_fails_comes_back_and_holds_up_nobody(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    office, mill = await open_school(pool, live)
    poisoned(monkeypatch, "bad")
    await mill.record(told("bad", 1.0))
    await mill.fold()

    await office.done("replayDeadLetters", "count", events=keys("bad"))
    await mill.record(told("next", 0.5))
    for _ in range(3):
        await mill.fold()

    assert await set_aside(office) == ([], ["bad"])
    assert await mill.rows(COUNTS) == [("s1", "", 1, 500), ("s1", "7b", 1, 500)]
    assert await office.waiting() == []


@pytest.mark.feature("000-09")
async def test_a_dead_letter_whose_replay_cannot_be_saved_is_listed_again_with_its_error(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is replayed is a touch of the student, and it is the touch that fails: it names no event by itself."""
    office, mill = await open_school(pool, live)
    unsaved(monkeypatch, "s1")
    await mill.record(told("bad", 1.0), told("other", 0.5, "s2"))
    await mill.fold()
    assert await set_aside(office) == ([], ["bad"])

    await office.done("replayDeadLetters", "count", events=keys("bad"))
    waiting = await mill.rows(SET_ASIDE)
    for _ in range(3):
        await mill.fold()

    assert (waiting, await mill.rows(SET_ASIDE)) == ([("bad",)], [])
    assert await set_aside(office) == ([], ["bad"])
    assert await mill.rows("select event_id, error from dead_letter where tenant = $1") == [("bad", "ValueError")]
    assert await mill.rows(COUNTS) == [("s2", "", 1, 500), ("s2", "7b", 1, 500)]
    assert await office.waiting() == []


@pytest.mark.feature("000-09")
async def test_a_touch_that_is_given_up_locks_its_classes_and_students_before_what_a_fold_writes_under_their_locks(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the other order it and a fold that binds the same events end each other."""
    office, mill = await open_school(pool, live)
    unsaved(monkeypatch, "s1")
    await mill.record(told("bad", 1.0), told("other", 0.5, "s2"))
    await mill.fold()
    await office.done("replayDeadLetters", "count", events=keys("bad"))
    free: list[list[Any]] = []
    burying = dead_letters.bury_unbound

    async def bury_unbound(*given: Any, **named: Any) -> Any:
        async with tenant_transaction(pool, office.tenant) as connection:
            free.append([await connection.fetch(statement, office.tenant) for statement in FREE])
        return await burying(*given, **named)

    monkeypatch.setattr(dead_letters, "bury_unbound", bury_unbound)
    await mill.fold()

    assert free == [[[], [("s2",)]]]


@pytest.mark.feature("000-09")
async def test_a_discarded_dead_letter_is_void_for_ever_with_its_reason_in_the_log(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    office, mill = await open_school(pool, live)
    with monkeypatch.context() as broken:
        poisoned(broken, "bad")
        await mill.record(told("bad", 1.0), told("good", 0.5))
        await mill.fold()

    payload = await office.done("discardDeadLetters", "count", events=keys("bad"), reason="sent by a test robot")
    await mill.fold()

    assert payload["count"] == 1
    assert await set_aside(office) == ([], [])
    assert await mill.rows(COUNTS) == [("s1", "", 1, 500), ("s1", "7b", 1, 500)]
    assert await mill.rows("select target_event_id, reason from correction where tenant = $1") == [
        ("bad", "sent by a test robot")
    ]
    assert await drift(pool, office.tenant, now=NOW) == []


@pytest.mark.feature("000-09", "003-29")
async def test_unknown_events_other_sources_and_bad_reasons_are_refused(pool: Pool, live: Live) -> None:
    office, mill = await open_school(pool, live)
    await mill.recorded_and_folded([told("e1", 0.5)])
    bound = Viewer(
        office.tenant, "sis", frozenset({Role.INTEGRATOR}), office.viewer("a").expires_at, frozenset({Scope.INGEST}),
        frozenset({"other"}),
    )  # fmt: skip

    assert await office.codes("replayDeadLetters", events=[]) == [("TOO_MANY", "events")]
    assert await office.codes("replayDeadLetters", events=keys("e1", "none")) == [("NOT_FOUND", "events.1")]
    assert await office.codes("replayDeadLetters", by=bound, events=keys("e1")) == [("NOT_FOUND", "events.0")]
    assert await office.codes("discardDeadLetters", events=keys("e1"), reason=" ") == [("REQUIRED", "reason")]
    assert await office.codes("discardDeadLetters", events=keys("e1"), reason="x" * 1001) == [("TOO_LONG", "reason")]
    assert await office.codes("resolveConflict", source="lms", eventId="e1", choice="REPLACE") == [
        ("NOT_FOUND", "eventId")
    ]


@pytest.mark.feature("000-02")
async def test_keeping_the_first_content_closes_the_conflict_and_changes_no_number(pool: Pool, live: Live) -> None:
    office, mill = await open_school(pool, live)
    await mill.record(told("e1", 0.5))
    await mill.record(told("e1", 0.9))
    await mill.fold()
    assert await set_aside(office) == (["e1"], [])

    payload = await office.done("resolveConflict", "event { eventId }", source="lms", eventId="e1", choice="KEEP_FIRST")
    await mill.record(told("e1", 0.9))  # the producer insists
    await mill.fold()

    assert payload["event"] is None
    assert await set_aside(office) == ([], [])
    assert await mill.rows(COUNTS) == [("s1", "", 1, 500), ("s1", "7b", 1, 500)]
    assert await office.codes("resolveConflict", source="lms", eventId="e1", choice="REPLACE") == [("OVER", "choice")]


@pytest.mark.feature("000-02", "X-05")
async def test_replacing_voids_the_first_content_and_records_the_later_one_under_the_next_name(
    pool: Pool, live: Live
) -> None:
    office, mill = await open_school(pool, live)
    await mill.record(told("e1", 0.5))
    await mill.record(told("e1", 0.9, "s2"))  # another student, too
    await mill.fold()

    payload = await office.done(
        "resolveConflict", "event { eventId source }", source="lms", eventId="e1", choice="REPLACE"
    )
    await mill.fold()

    assert payload["event"] == {"eventId": "e1~2", "source": "lms"}
    assert await set_aside(office) == ([], [])
    assert await mill.rows(COUNTS) == [("s2", "", 1, 900), ("s2", "7b", 1, 900)]
    assert await drift(pool, office.tenant, now=NOW) == []

    await mill.record(replace(told("e1", 0.1), time_spent_ms=7))
    again = await office.done("resolveConflict", "event { eventId }", source="lms", eventId="e1", choice="REPLACE")
    await mill.fold()

    assert again["event"] == {"eventId": "e1~3"}
    assert await mill.rows(COUNTS) == [("s1", "", 1, 100), ("s1", "7b", 1, 100)]
    assert await drift(pool, office.tenant, now=NOW) == []


@pytest.mark.feature("000-02")
async def test_the_content_that_holds_can_be_chosen_and_must_have_been_kept(pool: Pool, live: Live) -> None:
    office, mill = await open_school(pool, live)
    for score in (0.5, 0.7, 0.9):
        await mill.record(told("e1", score))
    hashes = [
        one["sentHash"] for one in (await office.ask(OPEN, {}))["data"]["ingestion"]["conflicts"]["nodes"]
    ]  # by hash: both came at the same moment
    scores = dict(
        await mill.rows("select encode(sent_hash, 'hex'), content #>> '{event,ratio}' from conflict where tenant = $1")
    )
    seven = next(each for each in hashes if scores[each] == "700000")

    assert await office.codes("resolveConflict", source="lms", eventId="e1", choice="REPLACE", sentHash="00") == [
        ("NOT_FOUND", "sentHash")
    ]
    await office.done("resolveConflict", source="lms", eventId="e1", choice="REPLACE", sentHash=seven)
    await mill.fold()

    assert await mill.rows(COUNTS) == [("s1", "", 1, 700), ("s1", "7b", 1, 700)]
    assert await set_aside(office) == ([], [])

    await mill.record(told("e2", 0.5))
    await mill.record(told("e2", 0.7))
    async with office.writing() as connection:
        await connection.execute("update conflict set content = null where tenant = $1", office.tenant)
    assert await office.codes("resolveConflict", source="lms", eventId="e2", choice="REPLACE") == [
        ("CONTENT_UNKNOWN", "eventId")
    ]
