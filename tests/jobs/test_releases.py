"""Two releases side by side: an older worker leaves what only a newer one can fold, and nothing is lost or doubled."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
import pytest

from db import background, changes, fold_level, outbox, timelines
from db.background import JobKind, JobScope, Order
from db.live import Live
from db.outbox import SHARDS
from db.pool import Connection, Pool, tenant_transaction
from db.timelines import TimelineAsk
from jobs.drain import Drain
from jobs.replay import drift
from tests.jobs.test_drain import COUNTS, SHARD, mill_of
from tests.support.events import Mill, graded

NOW = datetime.now(UTC)
LEFT = "select count(*) from outbox where tenant = $1"
DEAD = "select count(*) from dead_letter where tenant = $1"
LEVEL = "select fold_level from tenant where tenant = $1"
WAITS = "select count(*) from pg_locks where locktype = 'advisory' and not granted"

pytestmark = pytest.mark.feature("X-38")


def newer(mill: Mill, live: Live) -> Drain:
    """A worker of the release after ours, in which the same log gives other numbers."""
    return Drain(mill.pool, mill.clock, live, level=mill.drain.level + 1)


async def all_shards(drain: Drain, tenant: int) -> int:
    return sum([await drain.shard(tenant, shard) for shard in range(SHARDS)])


async def renamed(url: str, mill: Mill, event_id: str, kind: str) -> None:
    """Make a recorded event one of a kind that only a newer release knows, in the log and as it waits; only the owner
    can."""
    owner = await asyncpg.connect(url)
    try:
        statement = "update event set kind = $3 where tenant = $1 and event_id = $2 returning seq"
        seq = await owner.fetchval(statement, mill.tenant, event_id, kind)
        waiting = "select packed from outbox where tenant = $1 and seq = $2"
        for row in await owner.fetch(waiting, mill.tenant, seq):
            layout, source, name, _, *rest = msgspec.msgpack.decode(row["packed"])
            parcel = msgspec.msgpack.encode([layout, source, name, kind, *rest])
            statement = "update outbox set packed = $3 where tenant = $1 and seq = $2"
            await owner.execute(statement, mill.tenant, seq, parcel)
    finally:
        await owner.close()


async def test_what_a_newer_fold_has_begun_an_older_worker_leaves_waiting(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)
    await mill.recorded_and_folded([graded("e1", "s1", 0.5)])
    await mill.record(graded("e2", "s1", 0.6, at=1))
    await all_shards(newer(mill, live), mill.tenant)
    await mill.record(graded("e3", "s1", 0.7, at=2))

    assert await mill.fold() == 0

    assert (await mill.rows(LEFT), await mill.rows(LEVEL), await mill.rows(DEAD)) == ([(1,)], [(2,)], [(0,)])
    assert await mill.rows(COUNTS) == [("s1", "", 2), ("s1", "7b", 2)]
    assert mill.drain.folded.failures["NEWER_RELEASE"] == SHARDS
    assert await all_shards(newer(mill, live), mill.tenant) == 1
    assert await mill.rows(COUNTS) == [("s1", "", 3), ("s1", "7b", 3)]


async def test_a_class_whose_moment_has_come_is_left_to_the_newer_fold_too(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)
    await mill.recorded_and_folded([graded("e1", "s1", 0.5)])
    assessed = "select assessed_at, change_no from classroom_state where tenant = $1"
    before = await mill.rows(assessed)
    await fold_level.raise_to(pool, mill.tenant, 2)

    await mill.drain.classroom(mill.tenant, "7b")

    assert await mill.rows(assessed) == before
    await newer(mill, live).classroom(mill.tenant, "7b")
    assert await mill.rows(assessed) != before


async def test_no_older_fold_commits_after_a_newer_one_has_begun(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older worker is in the middle of its transaction when the newer one comes: that one waits for the commit."""
    mill = await mill_of(pool, live)
    await mill.record(graded("e1", "s1", 0.5))
    is_in_it, may_go_on = asyncio.Event(), asyncio.Event()
    working = outbox.delete

    async def delete(connection: Connection, *given: Any) -> None:
        is_in_it.set()
        await may_go_on.wait()
        await working(connection, *given)

    monkeypatch.setattr(outbox, "delete", delete)
    older = asyncio.create_task(mill.drain.shard(mill.tenant, SHARD))
    await is_in_it.wait()
    raising = asyncio.create_task(fold_level.raise_to(pool, mill.tenant, 2))
    async with pool.acquire() as connection, asyncio.timeout(2):
        while not await connection.fetchval(WAITS):  # noqa: ASYNC110 - Postgres tells nobody
            await asyncio.sleep(0.01)
    assert not raising.done()
    may_go_on.set()

    assert (await older, await raising) == (1, True)
    await mill.record(graded("e2", "s1", 0.6, at=1))
    assert await mill.drain.shard(mill.tenant, SHARD) == 0


async def test_a_kind_of_event_that_only_a_newer_release_knows_is_left_and_blames_nobody(
    pool: Pool, live: Live, database_url: str
) -> None:
    mill = await mill_of(pool, live)
    await mill.record(graded("e1", "s1", 0.5), graded("e2", "s1", 0.5, at=1))
    await renamed(database_url, mill, "e1", "PROJECT_FINISHED")

    await mill.fold()

    assert (await mill.rows(LEFT), await mill.rows(DEAD)) == ([(2,)], [(0,)])
    assert mill.drain.folded.failures["NEWER_RELEASE"] == 1
    await renamed(database_url, mill, "e1", "SUBMISSION_GRADED")  # as who knows it would fold it
    assert await mill.fold() == 2


async def test_a_replay_that_meets_a_newer_kind_in_the_log_is_left_too(
    pool: Pool, live: Live, database_url: str
) -> None:
    mill = await mill_of(pool, live)
    await mill.recorded_and_folded([graded("e1", "s1", 0.5, at=5)])
    await renamed(database_url, mill, "e1", "PROJECT_FINISHED")
    await mill.record(graded("late", "s1", 0.9))

    await mill.fold()

    assert (await mill.rows(LEFT), await mill.rows(DEAD)) == ([(1,)], [(0,)])
    assert await mill.rows(COUNTS) == [("s1", "", 1), ("s1", "7b", 1)]


@pytest.mark.parametrize(
    "change",
    [
        "update outbox set kind = 'CLOSE_STUDENT' where tenant = $1",
        "insert into classroom_policy (tenant, classroom, version, model, recent_percent, success_threshold, "
        "mastery_threshold, min_evidence, inactivity_days, created_at, created_by) "
        "values ($1, '7b', 9, 'EVIDENCE', 65, 1, 1, 1, 7, now(), 't')",
    ],
    ids=["what waits", "model"],
)
async def test_other_words_of_a_newer_release_are_left_waiting(pool: Pool, live: Live, change: str) -> None:
    mill = await mill_of(pool, live)
    await mill.record(graded("e1", "s1", 0.5))
    async with tenant_transaction(pool, mill.tenant) as connection:
        await connection.execute(change, mill.tenant)

    await mill.fold()

    assert (await mill.rows(LEFT), await mill.rows(DEAD)) == ([(1,)], [(0,)])


async def test_readers_pass_over_the_kinds_that_they_cannot_show(pool: Pool, live: Live, database_url: str) -> None:
    mill = await mill_of(pool, live)
    await mill.recorded_and_folded([graded("e1", "s1", 0.5), graded("e2", "s1", 0.5, at=1)])
    await renamed(database_url, mill, "e1", "PROJECT_FINISHED")

    async with tenant_transaction(pool, mill.tenant, read_only=True) as connection:
        shown = await timelines.of_student(connection, mill.tenant, TimelineAsk("s1", is_for_staff=True))
        pushed = await changes.recorded_events(connection, mill.tenant, "7b", after=0)

    assert [row.event_id for row in shown] == ["e2"]
    assert [one.event.event_id for one in pushed] == ["e2"]


@pytest.mark.parametrize(
    "change",
    ["update job set kind = 'EXPORT' where tenant = $1", "update tenant set fold_level = 2 where tenant = $1"],
    ids=["kind", "level"],
)
async def test_a_job_of_a_newer_release_is_not_taken(pool: Pool, live: Live, change: str) -> None:
    mill = await mill_of(pool, live)
    order = Order(kind=JobKind.VERIFY, scope=JobScope.CLASSROOM, classroom="7b")
    async with tenant_transaction(pool, mill.tenant) as connection:
        job = await background.enqueue(connection, mill.tenant, order, requested_by="t", now=NOW)
        await connection.execute(change, mill.tenant)

        taken = await background.claim(connection, mill.tenant, job.key, runner="w", now=NOW, stale_before=NOW)
        seen = await background.page(connection, mill.tenant, requested_by=None, after=None, limit=10)

    assert taken is None
    assert [one.kind for one in seen] == ([] if "EXPORT" in change else [JobKind.VERIFY])


async def test_under_load_workers_of_both_releases_lose_and_double_nothing(pool: Pool, live: Live) -> None:
    """Both drain every shard while events come; the newer one takes the tenant over on its way."""
    mill = await mill_of(pool, live, classrooms=("7b", "8c"))
    drains = [mill.drain, newer(mill, live)]
    is_over = asyncio.Event()

    async def work(drain: Drain) -> None:
        while not is_over.is_set():
            await all_shards(drain, mill.tenant)

    await mill.recorded_and_folded([graded("e0", "s1", 0.5)])
    working = [asyncio.create_task(work(drain)) for drain in drains]
    try:
        for number in range(1, 41):
            await mill.record(
                graded(f"a{number}", "s1", 0.5, at=number),
                graded(f"b{number}", "s2", 0.6, at=40 - number, classroom="8c"),
            )
    finally:
        is_over.set()
        await asyncio.gather(*working)
    await all_shards(drains[1], mill.tenant)

    assert (await mill.rows(LEFT), await mill.rows(DEAD)) == ([(0,)], [(0,)])
    assert await mill.rows(COUNTS) == [("s1", "", 41), ("s1", "7b", 41), ("s2", "", 40), ("s2", "8c", 40)]
    assert await drift(pool, mill.tenant, now=mill.clock()) == []
