"""The worker: arq brings the wake-ups, the sweep finds what they lost, both drain the same way."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from arq.worker import Worker as ArqWorker
from arq.worker import func

from db.live import Live
from db.pool import LOST, Pool
from db.trace import UNTRACED, Tracer
from db.wake import FUNCTION, QUEUE, Shard, Waker, decoded, encoded, open_arq
from jobs.background import Background
from jobs.closing import Closing
from jobs.drain import Drain
from jobs.sweep import Sweep

if TYPE_CHECKING:
    from arq.typing import WorkerCoroutine

log = logging.getLogger(__name__)

ARQ_REDIS_SECONDS = 1.0  # a frozen Redis ends arq's worker, which is started again
POLL_SECONDS = 0.02  # arq's default of 0.5 s would be most of the way from event to screen
JOB_SECONDS = 30
ARQ_RESTART_SECONDS = 0.5  # any Redis error ends arq's worker
REST_SECONDS_MIN = 0.01
REST_SECONDS_MAX = 0.05
BULK_ROWS = 500  # of one round: far more than live events bring, so it matters what a row costs
BULK_WAITED_SECONDS = 1.0  # of its oldest row: nobody waits for these within moments
BULK_REST_SECONDS_MAX = 0.25
TURNS = 2  # batches at work: while one is computed, Postgres answers the other
TURN_SECONDS_MAX = 0.25  # then a batch goes on beside them: they may wait for a lock, or for a slow Postgres
CANCELS_MAX = 20
CANCEL_SECONDS = 0.25
EVERY_TRY = 1_000_000  # arq must never give a drain up: giving up is the fold's decision, not Redis's


@dataclass(slots=True)
class Workplace:
    """A worker process's parts and its shards at work: a shard is drained by one coroutine of a process at a time."""

    pool: Pool
    clock: Callable[[], datetime]
    live: Live
    waker: Waker
    concurrency: int
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    tracer: Tracer = UNTRACED
    _busy: dict[Shard, bool] = field(default_factory=dict)
    _marked: set[Shard] = field(default_factory=set)  # busy ones whose mark the next round takes away
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _slots: asyncio.Semaphore = field(init=False)
    _turns: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, TURNS))
    drain: Drain = field(init=False)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.concurrency)
        self.drain = Drain(self.pool, self.clock, self.live, self.tracer)
        self._idle.set()

    @property
    def busy(self) -> int:
        """Shards being drained, or waiting for a place to be."""
        return len(self._busy)

    async def until_idle(self) -> None:
        """Wait until no shard is being drained."""
        await self._idle.wait()

    async def drain_shard(self, tenant: int, shard: int) -> None:
        """Drain a shard; whoever asks while it is busy knows of rows that came later, and gets another round.

        Between two rounds the shard rests (`rest_seconds`).
        """
        key = (tenant, shard)
        if key in self._busy:
            self._busy[key] = True
            return
        self._busy[key] = True
        self._idle.clear()
        try:
            while self._busy[key] and not self.stop.is_set():
                async with self._slots, self._turn():
                    self._busy[key] = False  # whoever asks from now on knows of rows that this claim may miss
                    if key in self._marked:
                        self._marked.discard(key)
                        await self.waker.clear(tenant, shard)
                    began = time.monotonic()
                    done = await self.drain.round(tenant, shard, keep_going=lambda: not self.stop.is_set())
                    took = time.monotonic() - began
                if await self._rested(rest_seconds(done.rows, took, waited=done.waited)):
                    break
        finally:
            del self._busy[key]
            self._marked.discard(
                key
            )  # where it could not be drained, the mark is as good as lost: the sweep comes round
            if not self._busy:
                self._idle.set()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for a turn, within bounds.

        A process computes on one core: batches that are at work together are each seen only when the last is ready, and
        whatever is recorded meanwhile waits for the next round. One that waits claims all of it.
        """
        try:
            async with asyncio.timeout(TURN_SECONDS_MAX):
                await self._turns.acquire()
        except TimeoutError:
            yield
            return
        try:
            yield
        finally:
            self._turns.release()

    async def _rested(self, seconds: float) -> bool:
        """Rest; True when the process stops meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop.wait()
        return self.stop.is_set()

    async def run_job(self, context: dict[str, Any], tenant: int, shard: int) -> None:
        """What arq calls: the mark goes first, so that rows committed from now on wake another job.

        Of a busy shard the mark stays until the next round, which would see those rows anyhow: a job for each of them
        costs this process and the api as much as a few folded events.
        The drain is a task of its own: while rows keep coming it outlives what any job may take, and arq, which cancels
        jobs when Redis is away, must not cancel a fold.
        """
        if (key := (tenant, shard)) in self._busy:
            self._busy[key] = True
            self._marked.add(key)
            return
        await self.waker.clear(tenant, shard)
        task = asyncio.create_task(self._drain_told(tenant, shard))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain_told(self, tenant: int, shard: int) -> None:
        try:
            await self.drain_shard(tenant, shard)
        except LOST as error:
            log.warning("postgres_away", extra={"error": type(error).__name__})
        except Exception:
            log.exception("drain_failed")  # the sweep comes round


def rest_seconds(rows: int, took: float, *, waited: float) -> float:
    """How long a shard rests after a round that folded so many rows, the oldest `waited` old, in so many seconds.

    About as long as the round took: the busier the machine, the larger the batches, instead of one transaction for each
    handful of events. In a bulk that is behind anyway the rest may be longer: a batch three times as large writes each
    standing, view and class once instead of three times, and its last event is seen hardly later. Many rows alone are
    no bulk: live events that come fast would wait for the rest, be more, and be rested on again.
    """
    is_bulk = rows >= BULK_ROWS and waited >= BULK_WAITED_SECONDS
    longest = BULK_REST_SECONDS_MAX if is_bulk else REST_SECONDS_MAX
    return min(max(took, REST_SECONDS_MIN), longest)


async def run_worker(workplace: Workplace) -> None:
    """Drain until `workplace.stop` is set; returns once the work in flight has ended."""
    sweep = Sweep(workplace.drain, pool=workplace.pool, clock=workplace.clock, drain_shard=workplace.drain_shard)
    sweeping = asyncio.create_task(sweep.run(workplace.stop))
    background = Background(
        pool=workplace.pool,
        clock=workplace.clock,
        drain_shard=workplace.drain_shard,
        stop=workplace.stop,
        announce=workplace.live.announce,
        failures=workplace.drain.folded.failures,
    )
    working = asyncio.create_task(background.run())
    closing = Closing(
        pool=workplace.pool, clock=workplace.clock, stop=workplace.stop, is_busy=lambda: workplace.busy > 0
    )
    closing_days = asyncio.create_task(closing.run())
    arq = asyncio.create_task(_keep_arq(workplace))
    await workplace.stop.wait()
    await sweeping
    await working
    await closing_days
    await workplace.until_idle()
    for _ in range(CANCELS_MAX):
        arq.cancel()  # again and again: a redis command that is just answered swallows one
        if (await asyncio.wait({arq}, timeout=CANCEL_SECONDS))[0]:
            break


async def _keep_arq(workplace: Workplace) -> None:
    """Run arq's worker, again and again: it ends at any Redis error, and the sweep covers for it meanwhile."""
    while not workplace.stop.is_set():
        worker = arq_worker(workplace)
        try:
            await worker.async_run()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.warning("wakeups_away", extra={"error": type(error).__name__})
        finally:
            with suppress(Exception):
                await worker.close()
        await asyncio.sleep(ARQ_RESTART_SECONDS)


def arq_worker(workplace: Workplace) -> ArqWorker:
    """Build arq's worker: one function, its signals and retries left to us."""
    run_job = cast("WorkerCoroutine", workplace.run_job)  # arq's protocol wants *args, which would hide our two
    return ArqWorker(
        functions=[func(run_job, name=FUNCTION, keep_result=0, max_tries=EVERY_TRY, timeout=JOB_SECONDS)],
        queue_name=QUEUE,
        redis_pool=open_arq(workplace.waker.redis_url, seconds=ARQ_REDIS_SECONDS),
        max_jobs=workplace.concurrency * 4,
        poll_delay=POLL_SECONDS,
        handle_signals=False,
        keep_result=0,
        max_tries=EVERY_TRY,
        job_completion_wait=0,
        health_check_interval=3600,
        job_serializer=encoded,
        job_deserializer=decoded,
        log_results=False,
    )
