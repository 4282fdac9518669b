"""The background lane: queued and abandoned jobs are found in Postgres and done one by one, beside the live work."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from uuid import uuid4

from db import background
from db.background import Abandoned, JobKind, JobScope, JobState, Order
from db.live import Moved
from db.pool import LOST, Pool, tenant_transaction
from jobs.policy_change import PolicyMoved
from jobs.recompute import Cancelled, Run, Stopped, Workbench
from jobs.retention import Retention

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
STALE_AFTER = timedelta(seconds=10)  # a worker that has not shown itself for so long has lost its job
JOBS_MAX = 20  # looked at in one round
SAMPLE_EVERY = timedelta(minutes=10)
NIGHT_HOUR = 2  # UTC: the nightly sample begins
SAMPLES_MAX = 1_000
NOBODY = "sightline"  # who asks for the nightly samples


class Background:
    """One per worker; each job has one worker, whose heartbeat tells the others to leave it alone."""

    def __init__(
        self,
        *,
        pool: Pool,
        clock: Callable[[], datetime],
        drain_shard: Callable[[int, int], Awaitable[None]],
        stop: asyncio.Event,
        announce: Callable[[Moved], None],
        failures: Counter[str],
    ) -> None:
        self._bench = Workbench(pool, clock, drain_shard, uuid4().hex, stop, announce, failures)
        self._sampled_at: datetime | None = None
        self._retention = Retention(pool, clock, stop.is_set)

    async def run(self) -> None:
        """Look for work until told to stop; while Postgres is away, wait for it."""
        stop = self._bench.stop
        while not stop.is_set():
            try:
                await self.once()
            except LOST as error:
                log.warning("postgres_away", extra={"error": type(error).__name__})
            except Exception:
                log.exception("background_failed")  # the next round tries again
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await stop.wait()
            except TimeoutError:
                continue

    async def once(self) -> None:
        """One round: the night's samples are asked for, then whatever nobody works on is done."""
        now = self._bench.clock()
        if self._sampled_at is None or now - self._sampled_at >= SAMPLE_EVERY:
            await self._sample(now)
            self._sampled_at = now
        found = await background.waiting(self._bench.pool, stale_before=now - STALE_AFTER, at_most=JOBS_MAX)
        for tenant, key in found:
            if self._bench.stop.is_set():
                return
            await self.do(tenant, key)
        await self._retention.if_due()

    async def _sample(self, now: datetime) -> None:
        """Ask for a check of one class a tenant and night."""
        if now.hour < NIGHT_HOUR:
            return
        night = now.date().isoformat()
        for tenant, classroom in await background.unsampled(self._bench.pool, night=night, at_most=SAMPLES_MAX):
            order = Order(
                kind=JobKind.VERIFY, scope=JobScope.CLASSROOM, classroom=classroom, idempotency=f"nightly:{night}"
            )
            async with tenant_transaction(self._bench.pool, tenant) as connection:
                await background.enqueue(connection, tenant, order, requested_by=NOBODY, now=now)

    async def do(self, tenant: int, key: str) -> None:
        """Do one job, if it is still nobody's. A failure of the machine leaves it to be taken over."""
        bench = self._bench
        now = bench.clock()
        async with tenant_transaction(bench.pool, tenant) as connection:
            job = await background.claim(
                connection, tenant, key, runner=bench.runner, now=now, stale_before=now - STALE_AFTER
            )
        if job is None:
            return
        bench.tell(tenant, key)
        try:
            await Run(bench, tenant, job).to_the_end()
        except Abandoned:
            log.info("job_abandoned", extra={"tenant": tenant, "job": key})
        except Stopped:
            async with tenant_transaction(bench.pool, tenant) as connection:
                await background.give_back(connection, tenant, key, runner=bench.runner)
            bench.tell(tenant, key)
        except PolicyMoved:
            await self._end(tenant, key, JobState.FAILED, "POLICY_MOVED")
        except Cancelled:
            await self._end(tenant, key, JobState.CANCELLED)
        except LOST:
            raise
        except Exception as error:
            log.exception("job_failed", extra={"tenant": tenant, "job": key})
            await self._end(tenant, key, JobState.FAILED, type(error).__name__)

    async def _end(self, tenant: int, key: str, state: JobState, error: str | None = None) -> None:
        bench = self._bench
        async with tenant_transaction(bench.pool, tenant) as connection:
            await background.finish(
                connection, tenant, key, runner=bench.runner, state=state, now=bench.clock(), error=error
            )
        bench.tell(tenant, key)
