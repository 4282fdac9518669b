"""The drain under trouble: poison, crashes, other drains, backlogs and frozen holders."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from typing import Any

import asyncpg
import msgspec
import pytest
from redis.asyncio import Redis

from db import assessment, facts, outbox, projection
from db.live import DEAD_CHANNEL, Live
from db.outbox import SHARDS, Touch, Waiting, shard_of
from db.pool import LOST, Connection, Pool, tenant_transaction
from db.recorder import Recorder
from jobs import drain as drain_module
from jobs import fold as fold_module
from jobs.drain import Drain
from jobs.fold import Batch
from jobs.replay import drift
from rules.classroom import View
from rules.evidence import LearningEvent
from rules.outcome import ViewState, continue_view, replay_view
from tests.rows.district import District
from tests.support.events import Mill, graded, submission, void
from tests.support.tenants import fresh_tenant

NOW = datetime.now(UTC)
COUNTS = "select student, classroom, count from standing where tenant = $1 and count > 0 order by 1, 2"
WAITING = "select kind, student, classroom from outbox where tenant = $1 order by occurred_at, seq"
SHARD = shard_of(classroom="7b", student="")


async def mill_of(pool: Pool, live: Live, *, classrooms: Sequence[str] = ("7b",)) -> Mill:
    """Students s1 and s2 in each class."""
    tenant = await fresh_tenant(pool)
    district = District(pool, tenant, count(1))
    for classroom in classrooms:
        await district.classroom(classroom)
        for student in ("s1", "s2"):
            await district.enroll(student, classroom)
    return Mill.of(pool, tenant, live, now=NOW)


def poisoned(monkeypatch: pytest.MonkeyPatch, event_id: str) -> None:
    """Let the rules fail on one event, however it comes to them."""

    def bites(events: Sequence[LearningEvent]) -> None:
        if any(event.event_id == event_id for event in events):
            raise ZeroDivisionError

    def replay(events: Sequence[LearningEvent], **given: Any) -> ViewState:
        bites(events)
        return replay_view(events, **given)

    def go_on(view: View, works: Any, standings: Any, events: Sequence[LearningEvent], **given: Any) -> ViewState:
        bites(events)
        return continue_view(view, works, standings, events, **given)

    monkeypatch.setattr(fold_module, "replay_view", replay)
    monkeypatch.setattr(fold_module, "continue_view", go_on)


@pytest.mark.feature("000-09")
@pytest.mark.parametrize("batched", [True, False], ids=["in one batch", "one by one"])
async def test_an_event_the_rules_fail_on_is_dead_at_once_and_its_neighbours_go_on(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch, batched: bool
) -> None:
    mill = await mill_of(pool, live)
    poisoned(monkeypatch, "bad")
    # The last ones are late: they replay the student's log, which holds the bad event, and must not die in its place.
    events = [
        graded("e1", "s1", 0.5, at=5), graded("bad", "s1", 0.5, at=6), graded("e2", "s2", 0.5, at=7),
        graded("e3", "s1", 0.5, at=8), graded("late", "s1", 0.5, at=1),
    ]  # fmt: skip

    await mill.recorded_and_folded(*([events] if batched else [[event] for event in events]))
    await mill.fold()  # the dead event's student is looked at again, in the student's own shard

    dead = await mill.rows("select event_id, student, classroom, error from dead_letter where tenant = $1")
    assert dead == [("bad", "s1", "7b", "ZeroDivisionError")]
    assert await mill.rows(COUNTS) == [("s1", "", 3), ("s1", "7b", 3), ("s2", "", 1), ("s2", "7b", 1)]
    assert await mill.rows(WAITING) == []
    assert await drift(pool, mill.tenant, now=NOW) == []


@pytest.mark.feature("000-09", "004-10")
async def test_a_dead_event_is_announced_once_it_is_in_the_dead_letters(
    pool: Pool, live: Live, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By where to look for it; what it says, and whom it is about, stays in the table."""
    mill = await mill_of(pool, live)
    poisoned(monkeypatch, "bad")
    redis = Redis.from_url(redis_url)
    pubsub = redis.pubsub(ignore_subscribe_messages=True)
    await pubsub.subscribe(DEAD_CHANNEL)
    await pubsub.get_message(timeout=5.0)  # the subscription itself

    await mill.recorded_and_folded([graded("bad", "s1", 0.5)])

    async with asyncio.timeout(5):
        while (message := await pubsub.get_message(timeout=5.0)) is None:
            pass
    told = msgspec.json.decode(message["data"])
    assert told == {"tenant": mill.tenant, "source": "lms", "eventId": "bad", "error": "ZeroDivisionError"}
    assert await mill.rows("select event_id from dead_letter where tenant = $1") == [("bad",)]
    await pubsub.aclose()
    await redis.aclose()


@pytest.mark.feature("000-09")
async def test_an_event_that_fails_only_once_it_is_replayed_leaves_every_number_it_was_part_of(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill = await mill_of(pool, live, classrooms=("7b", "8c"))
    await mill.recorded_and_folded([graded("bad", "s1", 0.5, at=5), graded("e1", "s1", 0.5, at=6, classroom="8c")])
    poisoned(monkeypatch, "bad")

    await mill.touch(Touch(Waiting.TOUCH_STUDENT, student="s1", classroom="8c"))
    await mill.fold()
    await mill.fold()

    assert await mill.rows(COUNTS) == [("s1", "", 1), ("s1", "8c", 1)]
    assert await drift(pool, mill.tenant, now=NOW) == []


@pytest.mark.feature("000-09")
async def test_a_row_that_fails_otherwise_is_found_by_halving_and_dies_alone(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill = await mill_of(pool, live)
    await mill.record(*(graded(f"e{n}", f"s{1 + n % 2}", 0.5, at=n) for n in range(8)))
    working = fold_module.fold
    [(bad_seq,)] = await mill.rows("select seq from event where tenant = $1 and event_id = 'e5'")

    async def fails(connection: Connection, tenant: int, batch: Batch, **given: Any) -> Any:
        if any(row.seq == bad_seq for row in batch.claimed):
            raise OverflowError
        return await working(connection, tenant, batch, **given)

    monkeypatch.setattr(drain_module, "fold", fails)
    await mill.fold()

    assert await mill.rows("select event_id, error from dead_letter where tenant = $1") == [("e5", "OverflowError")]
    assert await mill.rows(WAITING) == []
    assert await drift(pool, mill.tenant, now=NOW) == []


@pytest.mark.feature("000-09")
async def test_a_batch_too_slow_for_its_transaction_is_folded_in_smaller_ones(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill = await mill_of(pool, live)
    await mill.record(*(graded(f"e{n}", f"s{1 + n % 2}", 0.5, at=n) for n in range(40)))
    working = fold_module.fold

    async def slow(connection: Connection, tenant: int, batch: Batch, **given: Any) -> Any:
        await asyncio.sleep(0.5 if len(batch.claimed) > 20 else 0)
        return await working(connection, tenant, batch, **given)

    monkeypatch.setattr(drain_module, "fold", slow)
    monkeypatch.setattr(drain_module, "FOLD_MS", 250)
    await mill.fold()

    assert await mill.rows(WAITING) == []
    assert await mill.rows("select event_id from dead_letter where tenant = $1") == []
    assert await drift(pool, mill.tenant, now=NOW) == []


@pytest.mark.feature("002-09")
async def test_a_history_longer_than_a_statement_may_take_is_read_for_a_row_alone_and_holds_up_nobody_for_ever(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late event replays its student: the answer with a hundred thousand events comes after the pool's patience."""
    mill = await mill_of(pool, live)
    await mill.recorded_and_folded([graded(f"e{n}", "s1", 0.5, at=n) for n in range(5)])
    reading, patience = facts.log_of_students, []

    async def slow(connection: Connection, tenant: int, students: Any, *, seconds: float | None = None) -> Any:
        patience.append(seconds)
        if seconds is None:
            raise TimeoutError
        return await reading(connection, tenant, students, seconds=seconds)

    monkeypatch.setattr(facts, "log_of_students", slow)
    await mill.record(graded("late", "s1", 0.1, at=-9), *(graded(f"o{n}", "s2", 0.5, at=n) for n in range(9)))
    await mill.fold()

    assert await mill.rows(WAITING) == []
    assert await mill.rows(COUNTS) == [("s1", "", 6), ("s1", "7b", 6), ("s2", "", 9), ("s2", "7b", 9)]
    assert patience[-1] == drain_module.SINGLE_FOLD_MS / 1_000
    assert await mill.rows("select event_id from dead_letter where tenant = $1") == []


@pytest.mark.feature("000-07", "000-09")
@pytest.mark.parametrize(
    ("module", "step"),
    [(projection, "save"), (assessment, "save_classes"), (outbox, "delete")],
    ids=["saving views", "saving classes", "deleting rows"],
)
async def test_a_fold_that_dies_halfway_leaves_its_rows_waiting_and_no_number_changed(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch, module: Any, step: str
) -> None:
    mill = await mill_of(pool, live)
    await mill.record(graded("e1", "s1", 0.5))

    async def die(*_: Any, **__: Any) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patched:
        patched.setattr(module, step, die)
        with pytest.raises(ConnectionResetError):
            await mill.fold()
    assert await mill.rows(WAITING) == [("EVENT", "s1", "7b")]
    assert await mill.rows(COUNTS) == []

    await mill.fold()
    assert await mill.rows(COUNTS) == [("s1", "", 1), ("s1", "7b", 1)]


@pytest.mark.feature("000-08")
async def test_rows_that_another_worker_holds_are_passed_over(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)
    await mill.record(graded("e1", "s1", 0.5, at=1), graded("e2", "s1", 0.5, at=2))

    async with tenant_transaction(pool, mill.tenant, settings=outbox.CLAIM_SETTINGS) as other:
        held = await outbox.claim(other, mill.tenant, SHARD, limit=1)
        async with asyncio.timeout(2):
            folded = await mill.drain.shard(mill.tenant, SHARD)

    assert (len(held), folded) == (1, 1)
    await mill.fold()
    assert await mill.rows(COUNTS) == [("s1", "", 2), ("s1", "7b", 2)]


@pytest.mark.feature("000-08")
async def test_drains_of_two_classes_that_share_a_student_take_turns(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are made to read before either saves, if nothing stops them: then the later one saves over the earlier."""
    mill = await mill_of(pool, live, classrooms=("7b", "8c"))
    await mill.recorded_and_folded([graded("e0", "s1", 0.1, at=0)])
    await mill.record(graded("e1", "s1", 0.5, at=1, classroom="7b"), graded("e2", "s1", 0.9, at=2, classroom="8c"))
    saving = projection.save
    arrived, both = [], asyncio.Event()

    async def save_together(*given: Any, **named: Any) -> None:
        arrived.append(given)
        if len(arrived) == 2:
            both.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(both.wait(), 0.4)
        await saving(*given, **named)

    monkeypatch.setattr(projection, "save", save_together)
    shards = [shard_of(classroom=classroom, student="") for classroom in ("7b", "8c")]
    await asyncio.gather(*(Drain(pool, mill.clock, live).shard(mill.tenant, shard) for shard in shards))

    assert await mill.rows(COUNTS) == [("s1", "", 3), ("s1", "7b", 2), ("s1", "8c", 1)]
    assert await drift(pool, mill.tenant, now=NOW) == []


@pytest.mark.feature("000-08")
async def test_a_frozen_worker_holds_its_class_no_longer_than_its_transaction_may_take(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)
    await mill.record(graded("e1", "s1", 0.5))

    async def freeze() -> None:
        async with tenant_transaction(pool, mill.tenant, limit_ms=400, settings=outbox.CLAIM_SETTINGS) as frozen:
            await outbox.claim(frozen, mill.tenant, SHARD, limit=10)
            await assessment.lock_classrooms(frozen, mill.tenant, ["7b"])
            await asyncio.sleep(1.2)
            await frozen.execute("select 1")

    freezing = asyncio.create_task(freeze())
    await asyncio.sleep(0.1)
    began = time.monotonic()
    for _ in range(100):
        if await mill.fold():
            break
        await asyncio.sleep(0.05)

    assert time.monotonic() - began < 1.0
    with pytest.raises((*LOST, asyncpg.PostgresError)):
        await freezing
    assert await mill.rows(COUNTS) == [("s1", "", 1), ("s1", "7b", 1)]


@pytest.mark.feature("000-08")
async def test_a_backlog_is_claimed_in_index_order_though_the_planner_believes_the_outbox_empty(
    pool: Pool, live: Live, database_url: str
) -> None:
    mill = await mill_of(pool, live)
    owner = await asyncpg.connect(database_url)
    try:
        await owner.execute("analyze outbox")
        async with tenant_transaction(pool, mill.tenant) as connection:
            await connection.execute(
                "insert into outbox (tenant, shard, lane, occurred_at, seq, kind, classroom, received_at) "
                "select $1, n % 4, 0, $2, n, 'TOUCH_CLASSROOM', '7b', $2 from generate_series(1, 20000) n",
                mill.tenant, NOW,
            )  # fmt: skip
        async with tenant_transaction(pool, mill.tenant, settings=outbox.CLAIM_SETTINGS) as connection:
            rows = await connection.fetch(f"explain {outbox.CLAIM}", mill.tenant, 1, 1_000)
            plan = "\n".join(row[0] for row in rows)
            began = time.monotonic()
            claimed = await outbox.claim(connection, mill.tenant, 1, limit=1_000)
            took = time.monotonic() - began
            places = [row.place for row in claimed]
            await outbox.delete(connection, mill.tenant, claimed[:1])
            rows = await connection.fetch(f"explain {outbox.DELETE}", mill.tenant, places)
            deleting = "\n".join(row[0] for row in rows)
    finally:
        await owner.close()
        async with tenant_transaction(pool, mill.tenant) as connection:
            await connection.execute("delete from outbox where tenant = $1", mill.tenant)
    assert "Tid Scan on outbox" in deleting
    assert "Index Scan using outbox_pkey" in plan
    assert "Sort" not in plan
    assert [row.seq for row in claimed] == list(range(1, 4_000, 4))
    assert took < 0.5


@pytest.mark.feature("A")
async def test_a_refold_becomes_one_touch_for_each_student_with_work_in_the_class(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live, classrooms=("7b", "8c"))
    await mill.recorded_and_folded(
        [graded("e1", "s1", 0.5), graded("e2", "s2", 0.5, at=1), graded("e3", "s2", 0.5, at=2, classroom="8c")]
    )
    await mill.touch(Touch(Waiting.REFOLD_CLASSROOM, classroom="7b"))
    [(refold_seq,)] = await mill.rows("select seq from outbox where tenant = $1")

    drained = await mill.drain._once(mill.tenant, SHARD, 100)

    assert drained.was_full
    assert await mill.rows(WAITING) == [("TOUCH_STUDENT", "s1", "7b"), ("TOUCH_STUDENT", "s2", "7b")]
    assert await mill.rows("select distinct seq from outbox where tenant = $1") == [(refold_seq,)]
    assert await mill.fold() == 2


@pytest.mark.feature("A")
async def test_a_new_policy_of_all_classes_reaches_also_who_has_not_been_folded_yet(pool: Pool, live: Live) -> None:
    """Their first fold may be reading the earlier policy while the touches are made."""
    mill = await mill_of(pool, live)
    await mill.touch(Touch(Waiting.REFOLD_CLASSROOM))

    await mill.drain._once(mill.tenant, shard_of(classroom="", student=""), 100)

    assert await mill.rows(WAITING) == [("TOUCH_STUDENT", "s1", ""), ("TOUCH_STUDENT", "s2", "")]
    await mill.fold()


@pytest.mark.feature("X-01", "X-05")
async def test_a_void_waits_beside_its_target_whatever_class_or_student_it_names(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live, classrooms=("8c",))
    target = graded("e1", "s2", 0.5, classroom="8c")
    await mill.recorded_and_folded([target])

    await mill.record(void("v1", target, student="s1"))

    assert await mill.rows(WAITING) == [("EVENT", "s2", "8c")]
    await mill.fold()
    assert await mill.rows(COUNTS) == []


class Listener:
    """Hears what is told to the workers."""

    def __init__(self) -> None:
        self.marked: list[tuple[int, int]] = []

    def mark(self, tenant: int, shard: int) -> None:
        self.marked.append((tenant, shard))


@pytest.mark.feature("000-07")
async def test_the_workers_are_woken_only_once_the_rows_are_committed(pool: Pool, live: Live) -> None:
    """A worker woken earlier finds nothing, and nobody wakes it again."""
    mill = await mill_of(pool, live)
    listener: Any = Listener()
    recorder = Recorder(pool, clock=mill.clock, wake=listener, live=live)

    async with tenant_transaction(pool, mill.tenant) as holder:  # nobody can commit to the log while we hold its head
        await holder.execute("select seq from tenant_head where tenant = $1 for update", mill.tenant)
        recording = asyncio.create_task(
            recorder.record(mill.tenant, [submission(graded("e1", "s1", 0.5))], recorded_by="t")
        )
        await asyncio.sleep(0.2)
        assert listener.marked == []
    await recording
    assert listener.marked == [(mill.tenant, SHARD)]
    assert await mill.drain.shard(mill.tenant, SHARD) == 1
    assert SHARD < SHARDS


@pytest.mark.feature("000-08")
async def test_a_batch_that_collides_for_ever_is_left_to_the_sweep(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill = await mill_of(pool, live)
    await mill.record(graded("e1", "s1", 0.5))
    tries: list[int] = []

    async def fold(*_: Any, **__: Any) -> Any:
        tries.append(1)
        raise asyncpg.DeadlockDetectedError

    monkeypatch.setattr(drain_module, "fold", fold)
    with pytest.raises(asyncpg.DeadlockDetectedError):
        await mill.fold()

    assert len(tries) == drain_module.COLLISIONS_MAX + 1
    assert await mill.rows("select count(*) from outbox where tenant = $1") == [(1,)]  # nothing lost, nobody blamed
    assert await mill.rows("select count(*) from dead_letter where tenant = $1") == [(0,)]
