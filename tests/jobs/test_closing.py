"""Daily snapshots: written as the tenant's days end, written again where an earlier day changes, kept 90 days."""

import asyncio
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from db import facts, fold_level
from db.enrollments import save_assignment
from db.live import Live
from db.pool import Pool, tenant_transaction
from db.roster import save_student, settle
from jobs import closing as closing_module
from jobs.closing import KEPT_DAYS, PATIENCE, Closing
from jobs.replay import difference, drift, rebuilt, stored
from rules.evidence import Kind, LearningEvent
from rules.roster import Assignment, AssignmentKind, Difficulty, Student
from tests.rows.district import District
from tests.support.events import Mill, graded, void
from tests.support.tenants import fresh_tenant

# Before every other test's time: who is due is asked of all tenants.
NOON = datetime(2026, 1, 8, 12, 0, tzinfo=UTC)
MIDNIGHT = datetime(2026, 1, 9, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SNAPSHOTS = "select student, day, score, coverage from daily_index where tenant = $1 order by 1, 2"
DUE = "select close_at from student_state where tenant = $1 and student = $2"

pytestmark = pytest.mark.feature("004-12")


async def mill_of(pool: Pool, live: Live, *, zone: str = "UTC", now: datetime = NOON) -> Mill:
    tenant = await fresh_tenant(pool, zone=zone)
    district = District(pool, tenant, count(1))
    await district.classroom("7b")
    for student in ("s1", "s2"):
        await district.enroll(student, started=date(2025, 9, 1))
    return Mill.of(pool, tenant, live, now=now)


def closing_of(mill: Mill, *, is_busy: Callable[[], bool] = lambda: False) -> Closing:
    return Closing(pool=mill.pool, clock=mill.clock, stop=asyncio.Event(), is_busy=is_busy)


async def closed(mill: Mill, at: datetime) -> list[tuple[Any, ...]]:
    """The snapshots after a worker's round at this moment."""
    mill.clock.now = at
    await closing_of(mill).once()
    return await mill.rows(SNAPSHOTS)


def quiz(event_id: str, score: float, occurred_at: datetime, **fields: Any) -> LearningEvent:
    return graded(event_id, "s1", score, kind=Kind.QUIZ_ATTEMPT, occurred_at=occurred_at, **fields)


async def test_a_day_that_has_ended_leaves_one_snapshot_of_each_student_with_an_index(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)
    await mill.recorded_and_folded([quiz("q1", 0.9, NOON), graded("v", "s2", 0, kind=Kind.STUDENT_LOGIN, ratio=None)])

    assert await closed(mill, MIDNIGHT - HOUR) == []
    # quiz 0.9 stands for quality too; one active day of ten: (0.5 * 0.9 + 0.1 * 0.1) / 0.6
    assert await closed(mill, MIDNIGHT) == [("s1", date(2026, 1, 8), 767, 400)]
    assert await closed(mill, MIDNIGHT + DAY) == [
        ("s1", date(2026, 1, 8), 767, 400),
        ("s1", date(2026, 1, 9), 767, 400),
    ]
    assert await mill.rows(DUE, "s1") == [(MIDNIGHT + 2 * DAY,)]
    assert await drift(pool, mill.tenant, now=mill.clock()) == []


async def test_the_day_ends_at_the_midnight_of_the_tenant(pool: Pool, live: Live) -> None:
    """In Auckland the 8th is over at 11:00 UTC; at 12:00 it is the 9th."""
    mill = await mill_of(pool, live, zone="Pacific/Auckland", now=NOON - 2 * HOUR)
    await mill.recorded_and_folded([quiz("q1", 0.9, NOON - 2 * HOUR)])

    assert await closed(mill, NOON - HOUR - timedelta(seconds=1)) == []
    assert [row[:2] for row in await closed(mill, NOON - HOUR)] == [("s1", date(2026, 1, 8))]


async def test_a_late_event_and_a_correction_write_the_days_since_again(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)
    first = quiz("q1", 0.9, NOON, submission="sub", quiz="q", assignment=None)
    await mill.recorded_and_folded([first])
    await closed(mill, MIDNIGHT)
    late = quiz("q0", 0.5, NOON - DAY, quiz="p", assignment=None)
    await mill.recorded_and_folded([late])

    assert [row[1:3] for row in await closed(mill, MIDNIGHT + timedelta(seconds=59))] == [(date(2026, 1, 8), 767)]
    assert [row[1:3] for row in await closed(mill, MIDNIGHT + timedelta(minutes=1))] == [
        (date(2026, 1, 7), 433),
        (date(2026, 1, 8), 617),  # (0.5 * 0.7 + 0.1 * 0.2) / 0.6
    ]
    await mill.recorded_and_folded([void("v", first, occurred_at=MIDNIGHT + HOUR)])
    assert [row[1:3] for row in await closed(mill, MIDNIGHT + 2 * HOUR)] == [
        (date(2026, 1, 7), 433),
        (date(2026, 1, 8), 433),
    ]
    await mill.recorded_and_folded([void("w", late, occurred_at=MIDNIGHT + 2 * HOUR)])
    assert await closed(mill, MIDNIGHT + 4 * HOUR) == []
    assert await drift(pool, mill.tenant, now=mill.clock()) == []


async def test_an_event_of_today_opens_no_day_that_is_closed(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)
    await mill.recorded_and_folded([quiz("q1", 0.9, NOON)])
    await closed(mill, MIDNIGHT)

    await mill.recorded_and_folded([quiz("q2", 0.1, MIDNIGHT)])

    assert await mill.rows(DUE, "s1") == [(MIDNIGHT + DAY,)]


async def test_a_new_zone_and_a_new_difficulty_write_closed_days_again(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)
    easy = Assignment("hw1", "7b", "Work", AssignmentKind.ASSIGNMENT, None, None, ())
    given = {"occurred_at": NOON, "ratio": None}
    await mill.recorded_and_folded(
        [
            graded("a1", "s1", 0, kind=Kind.ASSIGNMENT_ASSIGNED, assignment="hw1", **given),
            graded("a2", "s1", 0, kind=Kind.ASSIGNMENT_ASSIGNED, assignment="hw2", **given),
            graded("h2", "s1", 0, kind=Kind.SUBMISSION_CREATED, assignment="hw2", **given),
        ]
    )
    async with tenant_transaction(pool, mill.tenant) as connection:
        await settle(connection, mill.tenant, await save_assignment(connection, mill.tenant, easy, now=NOON),
                     recorded_by="t", now=NOON)  # fmt: skip
    await mill.fold()
    completion = "select completion, consistency from daily_index where tenant = $1 and student = 's1'"
    await closed(mill, MIDNIGHT)
    assert await mill.rows(completion) == [(500, 100)]

    hard = Assignment("hw1", "7b", "Work", AssignmentKind.ASSIGNMENT, None, Difficulty.ADVANCED, ())
    async with tenant_transaction(pool, mill.tenant) as connection:
        change = await save_assignment(connection, mill.tenant, hard, now=mill.clock())
        await settle(connection, mill.tenant, change, recorded_by="t", now=mill.clock())
    await mill.fold()
    await closed(mill, MIDNIGHT + HOUR)
    assert await mill.rows(completion) == [(455, 100)]  # 1.0 / 2.2

    async with tenant_transaction(pool, mill.tenant) as connection:
        change = await save_student(connection, mill.tenant, Student("s1", "Asia/Tokyo", None), now=mill.clock())
        await settle(connection, mill.tenant, change, recorded_by="t", now=mill.clock())
    await mill.fold()
    assert await mill.rows(DUE, "s1") == [(mill.clock() + timedelta(minutes=1),)]
    assert await drift(pool, mill.tenant, now=mill.clock()) == []


async def test_snapshots_are_kept_for_90_days(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)
    await mill.recorded_and_folded([quiz("q1", 0.9, NOON - 200 * DAY)])

    days = [row[1] for row in await closed(mill, NOON + HOUR)]
    later = [row[1] for row in await closed(mill, NOON + HOUR + 10 * DAY)]

    assert (days[0], days[-1], len(days)) == (date(2025, 10, 10), date(2026, 1, 7), KEPT_DAYS)
    assert (later[0], later[-1], len(later)) == (date(2025, 10, 20), date(2026, 1, 17), KEPT_DAYS)


async def test_while_events_are_folded_a_day_is_closed_later_and_not_never(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)
    await mill.recorded_and_folded([quiz("q1", 0.9, NOON)])
    busy = closing_of(mill, is_busy=lambda: True)

    mill.clock.now = MIDNIGHT
    await closing_of(mill).once()
    [before] = await mill.rows(DUE, "s1")
    mill.clock.now = MIDNIGHT + DAY + PATIENCE - timedelta(seconds=1)
    await busy.once()
    assert await mill.rows(DUE, "s1") == [before]
    mill.clock.now += timedelta(seconds=1)
    await busy.once()
    assert await mill.rows(DUE, "s1") == [(MIDNIGHT + 2 * DAY,)]


async def test_a_round_ends_where_folds_begin(pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    mill = await mill_of(pool, live, now=MIDNIGHT)
    await closing_of(mill).once()  # whoever is due of other tests
    mill.clock.now = NOON
    second_quiz = graded("q2", "s2", 0.8, kind=Kind.QUIZ_ATTEMPT, occurred_at=NOON)
    await mill.recorded_and_folded([quiz("q1", 0.9, NOON), second_quiz])
    monkeypatch.setattr(closing_module, "STEP_STUDENTS", 1)
    answers = iter([False, False, True, False, False])  # when a round begins, then before each student
    mill.clock.now = MIDNIGHT

    closing = closing_of(mill, is_busy=lambda: next(answers))
    first = await closing.once()
    second = await closing.once()

    assert (first, second) == (1, 1)
    assert len(await mill.rows(SNAPSHOTS)) == 2


async def test_a_student_whose_days_cannot_be_closed_keeps_no_other_waiting(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    mills = [await mill_of(pool, live) for _ in range(2)]
    for mill in mills:
        await mill.recorded_and_folded([quiz("q1", 0.9, NOON)])
        mill.clock.now = MIDNIGHT
    working = closing_module.indexes

    async def indexes(connection: Any, tenant: int, *given: Any) -> Any:
        if tenant == mills[0].tenant:
            raise ZeroDivisionError
        return await working(connection, tenant, *given)

    monkeypatch.setattr(closing_module, "indexes", indexes)
    await closing_of(mills[0]).once()

    assert [len(await mill.rows(SNAPSHOTS)) for mill in mills] == [0, 1]


@pytest.mark.feature("002-09")
async def test_the_log_of_a_student_alone_may_take_longer_than_a_statement(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Years of events come after the pool's patience; without them being waited for nobody's days would be closed."""
    mill = await mill_of(pool, live)
    await mill.recorded_and_folded([quiz("q1", 0.9, NOON)])
    reading = facts.log_of_students

    async def slow(connection: Any, tenant: int, students: Any, *, seconds: float | None = None) -> Any:
        if seconds is None:
            raise TimeoutError
        return await reading(connection, tenant, students, seconds=seconds)

    monkeypatch.setattr(facts, "log_of_students", slow)

    assert len(await closed(mill, MIDNIGHT)) == 1


@pytest.mark.feature("X-38")
async def test_days_of_a_tenant_that_a_newer_release_folds_are_left_to_it(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)
    await mill.recorded_and_folded([quiz("q1", 0.9, NOON)])
    await fold_level.raise_to(pool, mill.tenant, 2)

    assert await closed(mill, MIDNIGHT) == []


async def test_a_snapshot_that_is_not_what_the_log_says_is_drift(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)
    await mill.recorded_and_folded([quiz("q1", 0.9, NOON)])
    await closed(mill, MIDNIGHT)
    async with tenant_transaction(pool, mill.tenant) as connection:
        await connection.execute("update daily_index set score = 1 where tenant = $1", mill.tenant)

    [told] = await drift(pool, mill.tenant, now=mill.clock())

    assert told.startswith("days[('s1', '2026-01-08')]")
    again = await rebuilt(pool, mill.tenant, now=mill.clock())
    assert difference(await stored(pool, mill.tenant), again) == [told]
