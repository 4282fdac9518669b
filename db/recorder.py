"""Group commit: submissions that arrive together share one transaction per tenant, each answered after its commit."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import Context
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from time import monotonic
from typing import TypeAlias

from db.evidence import Answer, Status, record_all
from db.live import Live, Moved
from db.outbox import shard_of
from db.pool import COLLIDED, LOST, Connection, Pool, tenant_chain
from db.pressure import Pressure
from db.trace import UNTRACED, Tracer, within
from db.wake import Wake
from rules.evidence import Submission

BATCH_EVENTS_MAX = 2_000  # one transaction: long enough to pay for its commit, short enough to keep the head row moving
WAITING_EVENTS_MAX = 20_000  # per process; beyond it a caller is told to come back (OVERLOADED)
PATIENCE_SECONDS = 0.25  # who waited longer behind a batch that Postgres was silent to is told with it
TRIES_MAX = 2  # a deadlock, a serialization failure or a lost connection is tried once more (idempotent by key)

log = logging.getLogger(__name__)


class Overloaded(Exception):
    """More events wait in this process than it may hold."""


class Behind(Overloaded):
    """What was recorded before waits too long for its fold."""


Transaction: TypeAlias = Callable[[], AbstractAsyncContextManager[Connection]]
Told: TypeAlias = Callable[[list[Answer] | Exception], None]
"""Who is told what became of one call's submissions, once; it must not raise."""


@dataclass(slots=True)
class _Call:
    """One mutation's submissions, and who waits for their answers."""

    submissions: Sequence[Submission]
    recorded_by: str
    traceparent: str | None
    told: Told
    since: float  # monotonic seconds


@dataclass(slots=True)
class _Queue:
    """The calls of one tenant: one batch in flight, the rest gather behind it and share the next commit."""

    calls: deque[_Call] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


class Recorder:
    """Records submissions durably; one per process, over its pool."""

    def __init__(
        self, pool: Pool, *, clock: Callable[[], datetime], wake: Wake, live: Live, tracer: Tracer = UNTRACED
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._wake = wake
        self._live = live
        self._queues: dict[int, _Queue] = {}
        self._waiting = 0
        self._tracer = tracer
        self._pressure = Pressure(pool, clock=clock)
        self.answered: Counter[Status] = Counter()  # events, by what became of them

    @property
    def waiting(self) -> int:
        """Events that wait in this process for their commit to begin."""
        return self._waiting

    async def record(
        self, tenant: int, submissions: Sequence[Submission], *, recorded_by: str, traceparent: str | None = None
    ) -> list[Answer]:
        """Store the submissions with whatever else arrives for the tenant, and answer once they are committed.

        Raises Overloaded before anything is written, and asyncpg's or OSError's errors when Postgres is away: then
        the caller cannot know, and sends the same keys again.
        """
        if self._waiting + len(submissions) > WAITING_EVENTS_MAX:
            raise Overloaded
        if await self._pressure.is_late(tenant):
            raise Behind
        answered: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        # A future of its own: one impatient caller must not cancel the commit that others share.
        self.submit(tenant, submissions, partial(_settle, answered), recorded_by=recorded_by, traceparent=traceparent)
        return await answered

    def is_ready(self, tenant: int, count: int) -> bool:
        """Whether so many may be submitted now; where it is False, `record` finds out why, or waits until it knows."""
        return self._waiting + count <= WAITING_EVENTS_MAX and self._pressure.known(tenant) is False

    def submit(
        self,
        tenant: int,
        submissions: Sequence[Submission],
        told: Told,
        *,
        recorded_by: str,
        traceparent: str | None = None,
    ) -> None:
        """Queue what `is_ready` lets in; `told` gets the answers after the commit, or the error of `record`."""
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = _Queue()
        queue.calls.append(_Call(submissions, recorded_by, traceparent, told, monotonic()))
        self._waiting += len(submissions)
        if queue.task is None:
            # In surroundings of its own: it serves whoever comes next too, and they are not of this caller's trace.
            queue.task = asyncio.create_task(self._serve(tenant, queue), context=Context())

    async def aclose(self) -> None:
        """Let the batches in flight end."""
        for queue in list(self._queues.values()):
            if queue.task is not None:
                with suppress(Exception):
                    await queue.task
        await self._pressure.aclose()

    async def _serve(self, tenant: int, queue: _Queue) -> None:
        """Commit the tenant's calls batch after batch until none waits."""
        chain = tenant_chain(self._pool, tenant)
        try:
            while queue.calls:
                calls = self._next_batch(queue)
                try:
                    await self._commit(tenant, calls, partial(chain.transaction, lambda: bool(queue.calls)))
                except Exception as error:  # handed to each caller, whose edge tells it
                    if isinstance(error, TimeoutError):
                        # Postgres is silent: who has waited behind would only wait as long again.
                        calls = [*calls, *self._given_up(queue)]
                    for call in calls:
                        _tell_one(call, error)
        finally:
            queue.task = None
            self._queues.pop(tenant, None)
            with suppress(*LOST):
                await chain.aclose()

    def _next_batch(self, queue: _Queue) -> list[_Call]:
        calls = [queue.calls.popleft()]
        size = len(calls[0].submissions)
        while queue.calls and size + len(queue.calls[0].submissions) <= BATCH_EVENTS_MAX:
            calls.append(queue.calls.popleft())
            size += len(calls[-1].submissions)
        self._waiting -= size
        return calls

    def _given_up(self, queue: _Queue) -> list[_Call]:
        """Take those from the queue who have waited long; the others came when the silence may have been over."""
        calls = []
        while queue.calls and monotonic() - queue.calls[0].since > PATIENCE_SECONDS:
            calls.append(queue.calls.popleft())
        self._waiting -= sum(len(call.submissions) for call in calls)
        return calls

    async def _commit(self, tenant: int, calls: Sequence[_Call], transaction: Transaction) -> None:
        submissions = [sent for call in calls for sent in call.submissions]
        recorded_by = [call.recorded_by for call in calls for _ in call.submissions]
        # One span for the commit that all share, and one trace for its rows: the next of them is linked, not lost.
        span = self._tracer.join("record batch", [call.traceparent for call in calls])
        traceparent = span.traceparent if span else None
        try:
            with within(self._tracer, span):
                answers = await self._record_durably(tenant, submissions, recorded_by, traceparent, transaction)
        finally:
            if span is not None:
                span.end(events=len(submissions), requests=len(calls))
        accepted = [sent for sent, answer in zip(submissions, answers, strict=True) if answer.status is Status.ACCEPTED]
        self.answered[Status.ACCEPTED] += len(accepted)
        if len(accepted) < len(answers):
            self.answered.update(answer.status for answer in answers if answer.status is not Status.ACCEPTED)
        self._announce(tenant, submissions, answers, accepted, traceparent)
        # In a moment, so that the next batch is on its way to Postgres while this one's answers are written.
        asyncio.get_running_loop().call_soon(_tell, calls, answers)

    async def _record_durably(
        self,
        tenant: int,
        submissions: Sequence[Submission],
        recorded_by: Sequence[str],
        traceparent: str | None,
        transaction: Transaction,
    ) -> list[Answer]:
        for tries_left in reversed(range(TRIES_MAX)):
            try:
                async with transaction() as connection:
                    return await record_all(
                        connection,
                        tenant,
                        submissions,
                        recorded_by=recorded_by,
                        now=self._clock(),
                        traceparent=traceparent,
                    )
            except (*COLLIDED, *LOST) as error:
                if not tries_left or isinstance(error, TimeoutError):  # a silent server is not asked twice
                    raise
        raise AssertionError("unreachable: the last try returns or raises")

    def _announce(
        self,
        tenant: int,
        submissions: Sequence[Submission],
        answers: Sequence[Answer],
        accepted: Sequence[Submission],
        traceparent: str | None,
    ) -> None:
        """Wake the fold, and whoever watches a class's log. Duplicates wake too: it heals a crash after a commit."""
        events = [sent.event for sent, answer in zip(submissions, answers, strict=True) if not answer.shards]
        shards = {shard_of(classroom=home, student=home) for home in {e.classroom or e.student for e in events}}
        if len(events) < len(answers):
            shards.update(*(answer.shards for answer in answers))
        for shard in shards:
            self._wake.mark(tenant, shard)
        classrooms = {sent.event.classroom for sent in accepted} - {""}
        if classrooms:
            self._live.announce(Moved(tenant=tenant, recorded=frozenset(classrooms), traceparent=traceparent))


def _tell(calls: Sequence[_Call], answers: Sequence[Answer]) -> None:
    """Give each call its own answers of a batch's."""
    start = 0
    for call in calls:
        end = start + len(call.submissions)
        _tell_one(call, list(answers[start:end]))
        start = end


def _tell_one(call: _Call, outcome: list[Answer] | Exception) -> None:
    """Tell one caller: what breaks in its hands must not keep the next ones waiting."""
    try:
        call.told(outcome)
    except Exception:
        log.exception("answer_untold")


def _settle(answered: asyncio.Future[list[Answer]], outcome: list[Answer] | Exception) -> None:
    """Keep a promise, if anybody still waits for it."""
    if answered.done():
        return
    if isinstance(outcome, Exception):
        answered.set_exception(outcome)
    else:
        answered.set_result(outcome)
