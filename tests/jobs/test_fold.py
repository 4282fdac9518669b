"""The fold on real Postgres: what a batch changes, whatever came before it."""

from datetime import UTC, datetime
from itertools import count

import pytest

from db.evidence import Status
from db.live import Live
from db.outbox import Touch, Waiting
from db.pool import Pool
from rules.evidence import Kind
from tests.rows.district import District
from tests.support.events import Mill, graded, void
from tests.support.tenants import fresh_tenant

NOW = datetime.now(UTC)
SCORES = "select student, classroom, concept, score, count from standing where tenant = $1 order by 1, 2, 3"


async def mill_of(pool: Pool, live: Live) -> tuple[Mill, District]:
    tenant = await fresh_tenant(pool)
    district = District(pool, tenant, count(1))
    await district.classroom("7b")
    await district.enroll("s1")
    await district.enroll("s2")
    return Mill.of(pool, tenant, live, now=NOW), district


@pytest.mark.feature("000-12", "A")
async def test_three_scores_fold_into_the_mastery_of_the_class_and_of_the_student(pool: Pool, live: Live) -> None:
    mill, _ = await mill_of(pool, live)

    await mill.recorded_and_folded(
        [graded("e1", "s1", 0.55, at=1), graded("e2", "s1", 0.80, at=2)], [graded("e3", "s1", 0.90, at=3)]
    )

    assert await mill.rows(SCORES) == [("s1", "", "fractions", 821, 3), ("s1", "7b", "fractions", 821, 3)]


@pytest.mark.feature("000-11")
async def test_a_late_event_gives_the_same_as_one_in_time(pool: Pool, live: Live) -> None:
    mill, _ = await mill_of(pool, live)

    await mill.recorded_and_folded(
        [graded("e3", "s1", 0.90, at=3)], [graded("e1", "s1", 0.55, at=1)], [graded("e2", "s1", 0.80, at=2)]
    )

    assert await mill.rows(SCORES) == [("s1", "", "fractions", 821, 3), ("s1", "7b", "fractions", 821, 3)]


@pytest.mark.feature("000-02")
async def test_a_duplicate_changes_nothing_and_a_reused_key_conflicts(pool: Pool, live: Live) -> None:
    mill, _ = await mill_of(pool, live)
    first = graded("e1", "s1", 0.55)

    [stored] = await mill.record(first)
    answers = await mill.record(first, graded("e1", "s1", 0.99), graded("e2", "s1", 0.80, at=2))
    await mill.fold()

    assert [answer.status for answer in answers] == [Status.DUPLICATE, Status.CONFLICT, Status.ACCEPTED]
    assert (answers[0].id, answers[0].seq) == (stored.id, stored.seq)
    assert await mill.rows("select event_id, ratio from event where tenant = $1 order by seq") == [
        ("e1", 550_000), ("e2", 800_000)
    ]  # fmt: skip
    assert await mill.rows("select event_id, times from conflict where tenant = $1") == [("e1", 1)]
    assert await mill.rows("select count(*) from outbox where tenant = $1") == [(0,)]


@pytest.mark.feature("X-01")
async def test_a_void_takes_its_target_out_of_every_number(pool: Pool, live: Live) -> None:
    mill, _ = await mill_of(pool, live)
    third = graded("e3", "s1", 0.90, at=3)
    await mill.recorded_and_folded([graded("e1", "s1", 0.55, at=1), graded("e2", "s1", 0.80, at=2), third])

    await mill.recorded_and_folded([void("v1", third, at=9)])

    assert await mill.rows(SCORES) == [("s1", "", "fractions", 712, 2), ("s1", "7b", "fractions", 712, 2)]


@pytest.mark.feature("X-05")
async def test_a_void_that_comes_before_its_target_waits_for_it(pool: Pool, live: Live) -> None:
    mill, _ = await mill_of(pool, live)
    target = graded("e3", "s1", 0.90, at=3)

    [answer] = await mill.record(void("v1", target))
    await mill.fold()
    await mill.recorded_and_folded([graded("e1", "s1", 0.55, at=1), target])

    assert answer.effect == "WAITING"
    assert await mill.rows(SCORES) == [("s1", "", "fractions", 550, 1), ("s1", "7b", "fractions", 550, 1)]


@pytest.mark.feature("X-10", "C7")
async def test_an_unrostered_event_takes_effect_once_the_roster_names_its_student(pool: Pool, live: Live) -> None:
    mill, district = await mill_of(pool, live)
    await mill.recorded_and_folded([graded("e1", "ghost", 0.55)])
    assert await mill.rows(SCORES) == []
    assert await mill.rows("select event_id from unrostered where tenant = $1") == [("e1",)]

    await district.student("ghost")
    await mill.touch(Touch(Waiting.TOUCH_STUDENT, student="ghost"))
    await mill.fold()

    assert await mill.rows(SCORES) == [("ghost", "", "fractions", 550, 1), ("ghost", "7b", "fractions", 550, 1)]
    assert await mill.rows("select event_id from unrostered where tenant = $1") == []


@pytest.mark.feature("000-14", "000-16")
async def test_flags_are_raised_and_cleared_with_their_transitions(pool: Pool, live: Live) -> None:
    mill, _ = await mill_of(pool, live)
    mill.clock.now = datetime(2026, 3, 3, 9, 0, tzinfo=UTC)
    assigned = [
        graded(f"a{n}-{s}", s, 0, kind=Kind.ASSIGNMENT_ASSIGNED, ratio=None, assignment=f"hw{n}")
        for n in (1, 2) for s in ("s1", "s2")
    ]  # fmt: skip
    await mill.recorded_and_folded(assigned)

    await mill.recorded_and_folded([graded("g1", "s1", 0.9, at=5, assignment="hw1")])

    flags = "select student, reason, severity from risk_flag where tenant = $1 and severity is not null order by 1, 2"
    assert await mill.rows(flags) == [
        ("s1", "INACTIVE", 3), ("s1", "MISSING_SUBMISSIONS", 1),
        ("s2", "COMPLETION_BELOW_MEDIAN", 3), ("s2", "INACTIVE", 3), ("s2", "MISSING_SUBMISSIONS", 2),
    ]  # fmt: skip
    changes = "select no, student, reason, change, severity, earlier from risk_change where tenant = $1 order by no"
    assert await mill.rows(changes) == [
        (1, "s1", "INACTIVE", "RAISED", 3, None),  # never active since the term began, 55 days ago
        (2, "s1", "MISSING_SUBMISSIONS", "RAISED", 2, None),
        (3, "s2", "INACTIVE", "RAISED", 3, None),
        (4, "s2", "MISSING_SUBMISSIONS", "RAISED", 2, None),
        (5, "s1", "MISSING_SUBMISSIONS", "SEVERITY_CHANGED", 1, 2),
        (6, "s2", "COMPLETION_BELOW_MEDIAN", "RAISED", 3, None),
    ]
