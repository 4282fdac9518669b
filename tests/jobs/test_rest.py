"""When a shard has its turn, and how long it rests: live events are seen soon, a bulk is folded in large batches."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from db.live import Live
from db.pool import Pool
from db.wake import Waker, open_arq
from jobs import worker
from jobs.drain import Drain, Round
from jobs.worker import Workplace, rest_seconds

NOW = datetime(2026, 3, 3, 9, 0, tzinfo=UTC)


@pytest.mark.feature("000-08")
@pytest.mark.parametrize(
    ("rows", "took", "waited", "expected"),
    [
        (0, 0.001, 0.0, 0.01),  # an idle shard does not spin
        (20, 0.03, 0.05, 0.03),
        (499, 0.4, 0.5, 0.05),  # a slow round of live events makes nobody wait as long again
        (499, 0.4, 1.5, 0.05),  # nor does one that was held up
        (5_000, 0.4, 0.9, 0.05),  # nor do live events that are many
        (500, 0.1, 1.0, 0.1),
        (5_000, 0.4, 30.0, 0.25),
    ],
)
def test_a_shard_rests_as_long_as_its_round_took_within_bounds(
    rows: int, took: float, waited: float, expected: float
) -> None:
    assert rest_seconds(rows, took, waited=waited) == expected


class Rounds:
    """Rounds of shards that last until each is told to end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ends = [asyncio.Event() for _ in range(4)]
        self.begun: asyncio.Queue[int] = asyncio.Queue()

        async def round_of(_: Drain, __: int, shard: int, **___: Any) -> Round:
            self.begun.put_nowait(shard)
            await self.ends[shard].wait()
            return Round(1, 0.0)

        monkeypatch.setattr(Drain, "round", round_of)

    async def next(self) -> int:
        """The shard whose round begins next."""
        async with asyncio.timeout(5):
            return await self.begun.get()


@pytest.mark.feature("000-08", "003-42")
async def test_two_shards_are_at_work_and_the_next_has_its_turn_when_one_is_done(
    pool: Pool, live: Live, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "TURN_SECONDS_MAX", 60.0)
    rounds, waker = Rounds(monkeypatch), Waker(redis_url)
    workplace = Workplace(pool, lambda: NOW, live, waker, 4)

    async with asyncio.TaskGroup() as group:
        for shard in range(3):
            group.create_task(workplace.drain_shard(1, shard))
        first = [await rounds.next(), await rounds.next()]
        waiting = rounds.begun.empty()
        rounds.ends[1].set()
        third = await rounds.next()
        for end in rounds.ends:
            end.set()

    assert (first, waiting, third) == ([0, 1], True, 2)
    await waker.aclose()


@pytest.mark.feature("000-08")
async def test_a_shard_does_not_wait_for_ever_behind_two_that_are_stuck(
    pool: Pool, live: Live, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "TURN_SECONDS_MAX", 0.01)
    rounds, waker = Rounds(monkeypatch), Waker(redis_url)
    workplace = Workplace(pool, lambda: NOW, live, waker, 4)

    async with asyncio.TaskGroup() as group:
        for shard in range(4):
            group.create_task(workplace.drain_shard(1, shard))
        begun = sorted([await rounds.next() for _ in range(4)])
        for end in rounds.ends:
            end.set()

    assert begun == [0, 1, 2, 3]
    await waker.aclose()


@pytest.mark.feature("000-08", "003-42")
async def test_the_mark_of_a_busy_shard_stays_until_its_next_round_begins(
    pool: Pool, live: Live, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds, waker, redis, tenant = Rounds(monkeypatch), Waker(redis_url), open_arq(redis_url), 8_101
    workplace = Workplace(pool, lambda: NOW, live, waker, 4)

    async def generation() -> int:
        return int(await redis.get(f"generation:{tenant}:0") or 0)

    before = await generation()
    await workplace.run_job({}, tenant, 0)
    await rounds.next()
    begun = await generation()
    for _ in range(3):
        await workplace.run_job({}, tenant, 0)
    busy = await generation()
    rounds.ends[0].set()
    await rounds.next()
    again = await generation()
    await workplace.until_idle()

    # One job for the first round, one for all that came while it ran: taken away before the second round reads.
    assert (begun - before, busy - before, again - before) == (1, 1, 2)
    assert rounds.begun.empty()
    await waker.aclose()
    await redis.aclose(close_connection_pool=True)
