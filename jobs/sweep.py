"""The sweep: what Redis lost is found in Postgres; what time alone changed is found by its `reassess_at`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta

from db import shards
from db.pool import LOST, Pool
from db.wake import Shard
from jobs.drain import Drain

log = logging.getLogger(__name__)

SWEEP_SECONDS = 0.5  # a stranded row waits at most this long, plus its fold
DUE_CLASSROOMS_MAX = 200  # classes assessed per round; the rest are still due in the next
PARTITIONS_EVERY = timedelta(hours=6)
PARTITION_MONTHS = 5  # last month to three months ahead


class Sweep:
    """One per worker: drains what waits, assesses what is due, keeps the log's months ahead."""

    def __init__(
        self,
        drain: Drain,
        *,
        pool: Pool,
        clock: Callable[[], datetime],
        drain_shard: Callable[[int, int], Awaitable[None]],
    ) -> None:
        self._drain = drain
        self._pool = pool
        self._clock = clock
        self._drain_shard = drain_shard
        self._partitions_at: datetime | None = None
        self._draining: dict[Shard, asyncio.Task[None]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep until told to stop; while Postgres is away, wait for it.

        Two rounds side by side: a long backlog must not delay the classes whose moment has come.
        """
        await asyncio.gather(self._rounds(self.begin_drains, stop), self._rounds(self.assess_due, stop))
        await self.until_drained()

    async def once(self) -> None:
        """One round of each kind, to its end."""
        await self.begin_drains()
        await self.until_drained()
        await self.assess_due()

    async def begin_drains(self) -> None:
        """Begin to drain every shard in which something waits, unless this sweep drains it already."""
        for shard in await shards.waiting(self._pool):
            if shard not in self._draining:
                self._draining[shard] = asyncio.create_task(self._drain_one(shard))

    async def until_drained(self) -> None:
        """Wait for the drains that were begun."""
        while self._draining:
            await asyncio.gather(*self._draining.values())

    async def assess_due(self) -> None:
        """Assess the classes whose moment has come, and keep the log's months ahead."""
        now = self._clock()
        if self._partitions_at is None or now - self._partitions_at >= PARTITIONS_EVERY:
            await self._make_partitions(now)
        for tenant, classroom in await shards.due_classrooms(self._pool, now=now, at_most=DUE_CLASSROOMS_MAX):
            try:
                await self._drain.classroom(tenant, classroom)
            except LOST:
                raise
            except Exception:
                log.exception("assessment_failed")  # this class stays due; those after it must not wait for it

    async def _drain_one(self, shard: Shard) -> None:
        try:
            await self._drain_shard(*shard)
        except LOST as error:
            log.warning("postgres_away", extra={"error": type(error).__name__})
        except Exception:
            log.exception("drain_failed")  # the next round tries again: a worker must not die of one shard
        finally:
            del self._draining[shard]

    async def _rounds(self, round_of: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await round_of()
            except LOST as error:
                log.warning("postgres_away", extra={"error": type(error).__name__})
            except Exception:
                log.exception("sweep_failed")  # the next round tries again: a worker must not die of one class
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await stop.wait()

    async def _make_partitions(self, now: datetime) -> None:
        """Make the log's months ahead; what fails is tried again later, for the classes due must not wait for it.

        `partitions_ahead` among the metrics tells, months before it would matter (003-21).
        """
        try:
            await shards.make_partitions(self._pool, now=now, months=PARTITION_MONTHS)
        except LOST:
            raise
        except Exception:
            log.exception("partitions_failed")
        self._partitions_at = now
