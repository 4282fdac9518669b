"""The sweep: what no wake-up told of, and what time alone changes, is found in Postgres."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

import asyncpg
import pytest

from db import shards
from db.live import Live
from db.pool import Pool
from db.wake import Waker
from jobs import worker
from jobs.drain import Drain
from jobs.sweep import Sweep
from jobs.worker import Workplace, run_worker
from rules.evidence import Kind
from tests.rows.district import District
from tests.support.events import Mill, graded
from tests.support.tenants import fresh_tenant

# Before every other test's time: the sweep looks at all tenants, and none of theirs is due yet.
NOW = datetime(2026, 1, 8, 12, 0, tzinfo=UTC)
FLAGS = """
select student, reason, severity from risk_flag where tenant = $1 and severity is not null order by student, reason
"""


async def mill_of(pool: Pool, live: Live, *, zone: str = "UTC") -> Mill:
    tenant = await fresh_tenant(pool, zone=zone)
    district = District(pool, tenant, count(1))
    await district.classroom("7b")
    for student in ("s1", "s2"):
        await district.enroll(student, started=date(2026, 1, 7))
    return Mill.of(pool, tenant, live, now=NOW)


def sweep_of(mill: Mill) -> Sweep:
    async def drain_shard(tenant: int, shard: int) -> None:
        if tenant == mill.tenant:
            await mill.drain.shard(tenant, shard)

    return Sweep(mill.drain, pool=mill.pool, clock=mill.clock, drain_shard=drain_shard)


@pytest.mark.feature("000-08", "000-23")
async def test_a_row_that_nobody_was_woken_for_is_folded_within_seconds(
    pool: Pool, live: Live, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: Workplace) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(worker, "_keep_arq", never)  # Redis is away for good
    mill = await mill_of(pool, live)
    await mill.record(graded("e1", "s1", 0.5))
    waker = Waker(redis_url)
    workplace = Workplace(pool, mill.clock, live, waker, 2)
    working = asyncio.create_task(run_worker(workplace))
    try:
        async with asyncio.timeout(5):
            while await mill.rows("select 1 from outbox where tenant = $1"):  # noqa: ASYNC110 - Postgres tells nobody
                await asyncio.sleep(0.05)
    finally:
        workplace.stop.set()
        await working
        await waker.aclose()
    assert await mill.rows("select classroom, count from standing where tenant = $1 order by 1") == [("", 1), ("7b", 1)]


@pytest.mark.feature("000-14", "F")
async def test_work_that_falls_due_is_missing_without_any_event(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)
    due = NOW + timedelta(hours=1)
    given = {"kind": Kind.ASSIGNMENT_ASSIGNED, "ratio": None, "occurred_at": NOW, "due_at": due}
    await mill.recorded_and_folded([graded("a1", "s1", 0, **given)])
    sweep = sweep_of(mill)

    mill.clock.now = due
    await sweep.once()
    assert await mill.rows(FLAGS) == []

    mill.clock.now = due + timedelta(seconds=1)
    await sweep.once()
    assert await mill.rows(FLAGS) == [("s1", "MISSING_SUBMISSIONS", 1)]


@pytest.mark.feature("F")
async def test_a_student_becomes_inactive_as_the_local_day_begins(pool: Pool, live: Live) -> None:
    """In Auckland the seventh day after 9 January begins at 11:00 UTC on the 15th, not at midnight UTC."""
    mill = await mill_of(pool, live, zone="Pacific/Auckland")
    active = {"kind": Kind.CONTENT_VIEWED, "ratio": None, "assignment": None, "occurred_at": NOW}
    await mill.recorded_and_folded([graded("e1", "s1", 0, **active), graded("e2", "s2", 0, **active)])
    assert await mill.rows("select reassess_at from classroom_state where tenant = $1") == [
        (datetime(2026, 1, 15, 11, 0, tzinfo=UTC),)
    ]
    sweep = sweep_of(mill)

    mill.clock.now = datetime(2026, 1, 15, 10, 59, 59, tzinfo=UTC)
    await sweep.once()
    assert await mill.rows(FLAGS) == []

    mill.clock.now = datetime(2026, 1, 15, 11, 0, tzinfo=UTC)
    await sweep.once()
    assert await mill.rows(FLAGS) == [("s1", "INACTIVE", 1), ("s2", "INACTIVE", 1)]


@pytest.mark.feature("000-16", "F")
async def test_a_student_without_work_is_below_no_median_and_makes_none(pool: Pool, live: Live) -> None:
    """Only s1 has work, all of it graded; a zero for s2, who has none, would make a median and be below it."""
    mill = await mill_of(pool, live)
    given = {"occurred_at": NOW, "assignment": "hw1"}
    assigned = graded("a1", "s1", 0, kind=Kind.ASSIGNMENT_ASSIGNED, ratio=None, **given)
    await mill.recorded_and_folded([assigned, graded("g1", "s1", 0.9, **given)])
    assert await mill.rows(FLAGS) == []


@pytest.mark.feature("000-09")
async def test_a_class_that_cannot_be_assessed_keeps_no_other_waiting(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    mills = [await mill_of(pool, live) for _ in range(2)]
    due = NOW + timedelta(hours=1)
    given = {"kind": Kind.ASSIGNMENT_ASSIGNED, "ratio": None, "occurred_at": NOW, "due_at": due}
    for mill in mills:
        await mill.recorded_and_folded([graded("a1", "s1", 0, **given)])
        mill.clock.now = due + timedelta(seconds=1)
    working = Drain.classroom
    tried: list[int] = []

    async def classroom(self: Drain, tenant: int, key: str) -> None:
        tried.append(tenant)
        if len(tried) == 1:
            raise ZeroDivisionError
        await working(self, tenant, key)

    monkeypatch.setattr(Drain, "classroom", classroom)
    await sweep_of(mills[0]).once()

    found: list[Any] = [await mill.rows(FLAGS) for mill in mills]
    assert {mill.tenant for mill in mills} <= set(tried)
    assert sorted(map(len, found)) == [0, 1]


@pytest.mark.feature("003-21")
async def test_a_month_that_cannot_be_made_is_told_and_holds_up_nobody(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refused(*_: Any, **__: Any) -> int:
        raise RuntimeError

    monkeypatch.setattr("jobs.sweep.shards.make_partitions", refused)
    mill = await mill_of(pool, live)
    await mill.record(graded("e1", "s1", 0.5))

    await sweep_of(mill).once()

    assert await mill.rows("select count(*) from outbox where tenant = $1") == [(0,)]
    assert "partitions_failed" in [record.message for record in caplog.records]


@pytest.mark.feature("003-21")
async def test_months_are_made_across_a_year_while_a_backup_reads_and_events_come(
    pool: Pool, live: Live, database_url: str
) -> None:
    """On the first day of a month a new one is missing: making it must wait for no reader, or all intake waits too."""
    mill = await mill_of(pool, live)
    backup, sender = [await asyncpg.connect(database_url) for _ in range(2)]
    async with asyncio.timeout(10), backup.transaction(), sender.transaction():
        await backup.execute("lock table event in access share mode")
        await sender.execute("lock table event in row exclusive mode")  # what an event in flight holds
        making = (shards.make_partitions(pool, now=datetime(2042, 12, 1, tzinfo=UTC), months=5) for _ in range(3))
        made, _ = await asyncio.gather(asyncio.gather(*making), mill.record(graded("e1", "s1", 0.5)))
    parts = [f"event_{month}" for month in ("2042_11", "2042_12", "2043_01", "2043_02", "2043_03")]
    indexes = "select count(*) from pg_index where indrelid = $1::text::regclass and indisvalid"
    whole = await backup.fetchval(indexes, "event")
    bounds = "select pg_get_expr(relpartbound, oid) from pg_class where relname = $1"
    months = [(await backup.fetchval(bounds, part), await backup.fetchval(indexes, part)) for part in parts]
    for part in parts:
        await backup.execute(f"drop table {part}")
    for connection in (backup, sender):
        await connection.close()

    assert sum(made) == 5
    assert months[0] == ("FOR VALUES FROM ('2042-11-01 00:00:00+00') TO ('2042-12-01 00:00:00+00')", whole)
    assert months[2] == ("FOR VALUES FROM ('2043-01-01 00:00:00+00') TO ('2043-02-01 00:00:00+00')", whole)
    assert months[4] == ("FOR VALUES FROM ('2043-03-01 00:00:00+00') TO ('2043-04-01 00:00:00+00')", whole)
    assert await mill.rows("select count(*) from event where tenant = $1") == [(1,)]
