"""The sweep: what Redis lost is found in Postgres; what time alone changed is found by its `reassess_at`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from db import shards
from db.pool import LOST, Pool
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

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep until told to stop; while Postgres is away, wait for it."""
        while not stop.is_set():
            try:
                await self.once()
            except LOST as error:
                log.warning("postgres_away", extra={"error": type(error).__name__})
            except Exception:
                log.exception("sweep_failed")  # the next round tries again: a worker must not die of one class
            try:
                async with asyncio.timeout(SWEEP_SECONDS):
                    await stop.wait()
            except TimeoutError:
                continue

    async def once(self) -> None:
        """One round."""
        now = self._clock()
        if self._partitions_at is None or now - self._partitions_at >= PARTITIONS_EVERY:
            await shards.make_partitions(self._pool, now=now, months=PARTITION_MONTHS)
            self._partitions_at = now
        for tenant, shard in await shards.waiting(self._pool):
            await self._drain_shard(tenant, shard)
        for tenant, classroom in await shards.due_classrooms(self._pool, now=now, at_most=DUE_CLASSROOMS_MAX):
            try:
                await self._drain.classroom(tenant, classroom)
            except LOST:
                raise
            except Exception:
                log.exception("assessment_failed")  # this class stays due; those after it must not wait for it
