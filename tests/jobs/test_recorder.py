"""Group commit on real Postgres: who arrives together shares a commit, and each is answered after it."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import RFC_4122, UUID

import asyncpg
import pytest
import pytest_asyncio

from db.evidence import Answer, Status, fresh_ids
from db.live import Live
from db.pool import LOST, Pool, UnknownTenant, open_pool, tenant_transaction
from db.pressure import Pressure
from db.recorder import Overloaded, Recorder
from db.wake import Wake, Waker
from rules.evidence import Submission
from tests.support.events import graded, submission
from tests.support.tenants import fresh_tenant

NOW = datetime(2026, 3, 11, 9, 30, tzinfo=UTC)
EVENTS = "select event_id from event where tenant = $1 order by seq"
COMMITS = "select distinct xmin::text from event where tenant = $1"
OUTBOX = "select seq from outbox where tenant = $1"
BLOCKED_BY = "select pid from pg_stat_activity where $1 = any(pg_blocking_pids(pid))"


@asynccontextmanager
async def recorder_on(pool: Pool, live: Live, redis_url: str) -> AsyncIterator[Recorder]:
    """A recorder over a pool."""
    waker = Waker(redis_url)
    wake = Wake(waker)
    made = Recorder(pool, clock=lambda: NOW, wake=wake, live=live)
    yield made
    await made.aclose()
    await wake.aclose()
    await waker.aclose()


@asynccontextmanager
async def own_recorder(database_url: str, live: Live, redis_url: str) -> AsyncIterator[Recorder]:
    """A recorder over a pool of its own, made now."""
    pool = await open_pool(database_url, size_max=4)
    try:
        async with recorder_on(pool, live, redis_url) as made:
            yield made
    finally:
        await pool.close()


@pytest_asyncio.fixture
async def recorder(pool: Pool, live: Live, redis_url: str) -> AsyncIterator[Recorder]:
    async with recorder_on(pool, live, redis_url) as made:
        yield made


@pytest_asyncio.fixture
async def tenant(pool: Pool) -> int:
    return await fresh_tenant(pool)


class Hold:
    """The tenant's head row, locked by a bystander, so that a commit in flight stays in flight."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.connection = connection

    async def blocked(self, *, but: Iterable[int] = ()) -> int:
        """The backend that waits for the row; returns once there is one, other than those named."""
        mine = self.connection.get_server_pid()
        async with asyncio.timeout(2):
            while True:
                waiting = [row["pid"] for row in await self.connection.fetch(BLOCKED_BY, mine)]
                found = [pid for pid in waiting if pid not in set(but)]
                if found:
                    return int(found[0])

    async def kill(self, pid: int) -> None:
        """End that backend, as a failover does."""
        assert await self.connection.fetchval("select pg_terminate_backend($1)", pid)


@asynccontextmanager
async def held(database_url: str, tenant: int) -> AsyncIterator[Hold]:
    """Hold the tenant's head row until the block ends."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute("select 1 from tenant_head where tenant = $1 for update", tenant)
            yield Hold(connection)
    finally:
        await connection.close()


def sent(*event_ids: str, student: str = "s1", score: float = 0.8) -> list[Submission]:
    """Grades under these ids."""
    return [submission(graded(event_id, student, score)) for event_id in event_ids]


def recording(recorder: Recorder, tenant: int, submissions: list[Submission]) -> "asyncio.Task[list[Answer]]":
    """One caller."""
    return asyncio.create_task(recorder.record(tenant, submissions, recorded_by="test"))


async def column(pool: Pool, tenant: int, statement: str) -> list[Any]:
    """The first column of a statement whose $1 is the tenant."""
    async with tenant_transaction(pool, tenant, read_only=True) as connection:
        return [row[0] for row in await connection.fetch(statement, tenant)]


@pytest.mark.feature("000-01", "000-22")
async def test_callers_that_arrive_during_a_commit_share_the_next_one(
    recorder: Recorder, pool: Pool, database_url: str, tenant: int
) -> None:
    async with held(database_url, tenant) as hold:
        first = recording(recorder, tenant, sent("e0"))
        await hold.blocked()
        others = [recording(recorder, tenant, sent(f"e{place}")) for place in range(1, 51)]
        await asyncio.sleep(0)
    answers = [answer for answers in await asyncio.gather(first, *others) for answer in answers]

    assert [answer.status for answer in answers] == [Status.ACCEPTED] * 51
    assert [answer.seq for answer in answers] == list(range(1, 52))
    assert len(await column(pool, tenant, COMMITS)) == 2
    assert len(await column(pool, tenant, OUTBOX)) == 51


@pytest.mark.feature("000-01")
async def test_each_caller_is_answered_after_its_own_commit(recorder: Recorder, pool: Pool, tenant: int) -> None:
    async def is_stored_when_answered(event_id: str) -> bool:
        await recorder.record(tenant, sent(event_id), recorded_by="test")
        return event_id in await column(pool, tenant, EVENTS)

    assert all(await asyncio.gather(*(is_stored_when_answered(f"e{place}") for place in range(20))))


@pytest.mark.feature("000-01")
async def test_nobody_is_answered_while_the_commit_is_in_flight(
    recorder: Recorder, database_url: str, tenant: int
) -> None:
    async with held(database_url, tenant) as hold:
        caller = recording(recorder, tenant, sent("e1"))
        await hold.blocked()

        assert not caller.done()

    assert [answer.status for answer in await caller] == [Status.ACCEPTED]


@pytest.mark.feature("000-02")
async def test_the_same_event_from_callers_at_once_is_stored_once(recorder: Recorder, pool: Pool, tenant: int) -> None:
    same = [recording(recorder, tenant, sent("e1")) for _ in range(10)]
    other = recording(recorder, tenant, sent("e1", score=0.1))

    answers = [answer for answers in await asyncio.gather(*same, other) for answer in answers]

    assert [answer.status for answer in answers] == [Status.ACCEPTED, *[Status.DUPLICATE] * 9, Status.CONFLICT]
    assert len({(answer.id, answer.seq, answer.received_at) for answer in answers}) == 1
    assert await column(pool, tenant, EVENTS) == ["e1"]
    assert len(await column(pool, tenant, OUTBOX)) == 1


@pytest.mark.feature("000-01")
async def test_a_caller_beyond_the_waiting_room_is_sent_away_and_nobody_else(
    recorder: Recorder, pool: Pool, database_url: str, tenant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.recorder.WAITING_EVENTS_MAX", 2)
    async with held(database_url, tenant) as hold:
        in_flight = recording(recorder, tenant, sent("e1"))
        await hold.blocked()
        waiting = recording(recorder, tenant, sent("e2", "e3"))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await recorder.record(tenant, sent("e4"), recorded_by="test")
    await asyncio.gather(in_flight, waiting)

    await recorder.record(tenant, sent("e5"), recorded_by="test")

    assert await column(pool, tenant, EVENTS) == ["e1", "e2", "e3", "e5"]


@pytest.mark.feature("000-01", "000-23")
async def test_a_lost_connection_is_tried_once_more(
    recorder: Recorder, pool: Pool, database_url: str, tenant: int
) -> None:
    async with held(database_url, tenant) as hold:
        caller = recording(recorder, tenant, sent("e1", "e2"))
        lost = await hold.blocked()
        await hold.kill(lost)
        await hold.blocked(but=[lost])
    answers = await caller

    assert [answer.status for answer in answers] == [Status.ACCEPTED, Status.ACCEPTED]
    assert await column(pool, tenant, EVENTS) == ["e1", "e2"]


@pytest.mark.feature("000-01", "000-23")
async def test_a_connection_lost_twice_is_told_and_nothing_is_half_stored(
    recorder: Recorder, pool: Pool, database_url: str, tenant: int
) -> None:
    async with held(database_url, tenant) as hold:
        caller = recording(recorder, tenant, sent("e1", "e2"))
        first = await hold.blocked()
        await hold.kill(first)
        await hold.kill(await hold.blocked(but=[first]))
        with pytest.raises(LOST):
            await caller
    assert (await column(pool, tenant, EVENTS), await column(pool, tenant, OUTBOX)) == ([], [])

    answers = await recorder.record(tenant, sent("e1", "e2"), recorded_by="test")

    assert [answer.status for answer in answers] == [Status.ACCEPTED, Status.ACCEPTED]


@pytest.mark.feature("000-01", "000-23")
@pytest.mark.parametrize(("patience", "is_tried"), [(0.25, False), (5.0, True)])
async def test_a_silence_is_told_to_who_waited_long_and_not_to_who_has_just_come(
    live: Live,
    database_url: str,
    redis_url: str,
    tenant: int,
    monkeypatch: pytest.MonkeyPatch,
    patience: float,
    is_tried: bool,
) -> None:
    """A frozen Postgres that goes on meets requests which it has kept nobody waiting for yet."""
    monkeypatch.setattr("db.pool.COMMAND_SECONDS", 1.0)
    monkeypatch.setattr("db.recorder.PATIENCE_SECONDS", patience)
    async with own_recorder(database_url, live, redis_url) as recorder:
        async with held(database_url, tenant) as hold:
            first = recording(recorder, tenant, sent("e1"))
            await hold.blocked()
            second = recording(recorder, tenant, sent("e2"))
            with pytest.raises(TimeoutError):
                await first
        if is_tried:
            assert [answer.status for answer in await second] == [Status.ACCEPTED]
        else:
            with pytest.raises(TimeoutError):
                await second


@pytest.mark.feature("000-01")
async def test_a_caller_who_leaves_takes_nobody_along(
    recorder: Recorder, pool: Pool, database_url: str, tenant: int
) -> None:
    async with held(database_url, tenant) as hold:
        in_flight = recording(recorder, tenant, sent("e1"))
        await hold.blocked()
        leaving, staying = recording(recorder, tenant, sent("e2")), recording(recorder, tenant, sent("e3"))
        await asyncio.sleep(0)
        for caller in (in_flight, leaving):
            caller.cancel()
        await asyncio.gather(in_flight, leaving, return_exceptions=True)

        assert not staying.done()

    assert [answer.status for answer in await staying] == [Status.ACCEPTED]
    assert await column(pool, tenant, EVENTS) == ["e1", "e2", "e3"]


@pytest.mark.feature("000-01")
async def test_two_tenants_never_share_a_transaction(recorder: Recorder, pool: Pool, tenant: int) -> None:
    other = await fresh_tenant(pool)

    await asyncio.gather(
        *(recording(recorder, whose, sent(f"e{place}")) for place in range(20) for whose in (tenant, other))
    )

    commits, others = await column(pool, tenant, COMMITS), await column(pool, other, COMMITS)
    assert set(commits).isdisjoint(others)
    assert (len(await column(pool, tenant, EVENTS)), len(await column(pool, other, EVENTS))) == (20, 20)


@pytest.mark.feature("000-01")
async def test_a_slow_tenant_keeps_no_other_waiting(
    recorder: Recorder, pool: Pool, database_url: str, tenant: int
) -> None:
    other = await fresh_tenant(pool)
    async with held(database_url, tenant) as hold:
        slow = recording(recorder, tenant, sent("e1"))
        await hold.blocked()

        (answer,) = await recorder.record(other, sent("e1"), recorded_by="test")

        assert (answer.status, slow.done()) == (Status.ACCEPTED, False)
    await slow


@pytest.mark.feature("000-01")
async def test_no_batch_is_larger_than_its_limit(
    recorder: Recorder, pool: Pool, database_url: str, tenant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.recorder.BATCH_EVENTS_MAX", 4)
    async with held(database_url, tenant) as hold:
        callers = [recording(recorder, tenant, sent("first"))]
        await hold.blocked()
        callers += [recording(recorder, tenant, sent(f"a{place}", f"b{place}")) for place in range(5)]
        await asyncio.sleep(0)
    await asyncio.gather(*callers)

    sizes = "select count(*)::int from event where tenant = $1 group by xmin::text order by min(seq)"
    assert await column(pool, tenant, sizes) == [1, 4, 4, 2]


@pytest.mark.feature("000-01")
@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_caller_that_breaks_when_told_keeps_no_other_waiting(
    recorder: Recorder, database_url: str, tenant: int, caplog: pytest.LogCaptureFixture, is_lost: bool
) -> None:
    def breaking(outcome: list[Answer] | Exception) -> None:
        broken.append(outcome)
        raise RuntimeError

    broken: list[list[Answer] | Exception] = []
    async with held(database_url, tenant) as hold:
        callers = [recording(recorder, tenant, sent("e0"))]
        first = await hold.blocked()
        recorder.submit(tenant, sent("e1"), breaking, recorded_by="test")
        callers.append(recording(recorder, tenant, sent("e2")))
        await asyncio.sleep(0)
        if is_lost:
            await hold.kill(first)
            await hold.kill(await hold.blocked(but=[first]))
            async with asyncio.timeout(10):
                await asyncio.wait({callers[0]})
            second = await hold.blocked(but=[first])
            await hold.kill(second)
            await hold.kill(await hold.blocked(but=[first, second]))
    async with asyncio.timeout(10):
        outcomes = await asyncio.gather(*callers, return_exceptions=True)

    assert len(broken) == 1
    assert [isinstance(one, Exception) for one in (*outcomes, *broken)] == [is_lost] * 3
    assert [record.message for record in caplog.records if record.name == "db.recorder"] == ["answer_untold"]


@pytest.mark.feature("004-24")
async def test_what_serves_all_has_the_surroundings_of_none(pool: Pool, recorder: Recorder, tenant: int) -> None:
    whose, seen = ContextVar("whose", default="nobody"), []
    told = asyncio.Event()

    def look() -> datetime:
        seen.append(whose.get())
        return NOW

    def tell(_outcome: list[Answer] | Exception) -> None:
        seen.append(whose.get())
        told.set()

    def ask() -> None:
        whose.set("the first caller")
        pressure.known(tenant)
        recorder.submit(tenant, sent("e1"), tell, recorded_by="test")

    pressure = Pressure(pool, clock=look)
    copy_context().run(ask)
    await told.wait()
    await pressure.aclose()

    assert seen == ["nobody", "nobody"]


async def test_a_tenant_that_does_not_exist_is_told_apart(recorder: Recorder) -> None:
    with pytest.raises(UnknownTenant):
        await recorder.record(7, sent("e1"), recorded_by="test")


@pytest.mark.feature("002-03")
def test_fresh_ids_are_of_version_7_and_sort_as_they_were_made() -> None:
    ids = fresh_ids(2_000, NOW)

    later = fresh_ids(1, NOW + timedelta(milliseconds=1))
    assert all(isinstance(one, UUID) and one.version == 7 and one.variant == RFC_4122 for one in ids)
    assert len(set(ids)) == 2_000
    assert sorted(ids) == ids
    assert ids[-1] < later[0]
    assert ids[0].int >> 80 == int(NOW.timestamp() * 1000)
    assert len({one.int & (2**62 - 1) for one in ids}) == 2_000  # chance, not a count: two processes make no twins
