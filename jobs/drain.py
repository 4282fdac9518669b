"""Drain one shard: claim what waits, fold it, save what changed, commit, and only then tell who watches."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import perf_counter
from uuid import uuid4

from db import claims, dead_letters, facts, fold_level, outbox
from db.live import Dead, Live, Moved
from db.outbox import Claimed, Touch, Waiting
from db.pool import COLLIDED, LOST, Connection, Pool, tenant_transaction
from db.tally import Tally
from db.trace import UNTRACED, Span, Tracer, within
from jobs.allowance import Allowance, Held
from jobs.fold import Batch, Unfoldable, fold, give_up
from jobs.memory import Memory, Recall
from rules.evidence import LearningEvent
from rules.kinds import FOLD_LEVEL, NewerWord

log = logging.getLogger(__name__)

CLAIM_ROWS_MAX = 5_000  # 000-08
FOLD_MS = 3_000  # transaction_timeout: what a frozen worker may hold others up (docs/architecture.md, Locks)
LOST_SHRINK = 16
LOCKED_TRIES, LOCKED_SECONDS = 20, 0.05  # a server notices a connection that was given up, and frees its rows
COLLISIONS_MAX = 10  # in one call: locks are taken in one order, so even the second is news
SINGLE_FOLD_MS = 30_000  # one event alone may need a long history; nothing else waits inside its transaction
AGED = timedelta(seconds=1)  # ten times the way of an event: rows that wait longer may be what a worker died of
SUSPECTS_MAX = 64  # of a batch that a worker died of; of these, one at a time
CRASHES_MAX = 3  # 000-09
LINKED_MAX = 16  # traces one batch is told to; a batch holds thousands of rows


@dataclass(frozen=True, slots=True)
class Drained:
    """What one transaction took from a shard."""

    rows: int
    was_full: bool  # the claim reached its limit: more may wait
    waited: float = 0.0  # seconds from the recording of its oldest row to its commit


@dataclass(frozen=True, slots=True)
class Round:
    """What one drain took from a shard until nothing claimable was left."""

    rows: int
    waited: float  # seconds, of the row that waited longest


class Unfolded(Exception):
    """A claimed batch that failed, with its first row: alone in its batch, that row is the one at fault."""

    def __init__(self, first: Claimed) -> None:
        super().__init__("expected a batch that folds")
        self.first = first


class WorkerCrashed(Exception):
    """A row that workers died of, again and again."""

    def __init__(self, row: Claimed) -> None:
        super().__init__(f"expected a row that can be tried without a crash, got {CRASHES_MAX} of them")
        self.row = row


class OtherLevel(Exception):
    """The tenant's numbers are of an older fold than ours, or of a newer one."""

    def __init__(self, level: int) -> None:
        super().__init__("expected a tenant of our own fold")
        self.level = level


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is folded of a claimed batch, and its note, if it has one."""

    rows: list[Claimed]
    token: str | None = None

    @property
    def place(self) -> dict[str, int]:
        """Its first and last position."""
        seqs = [row.seq for row in self.rows]
        return {"first": min(seqs), "last": max(seqs)}


@dataclass(slots=True)
class Folded:
    """What this process has folded since it started, for its metrics."""

    latency: Tally = field(default_factory=Tally)  # of each batch's oldest row: from stored to visible
    batches: Tally = field(default_factory=Tally)  # from claim to commit
    rows: int = 0
    claimed: int = 0  # rows held right now
    failures: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Drain:
    """Drains shards over one pool; a plain value, so that whatever wakes it can be replaced."""

    pool: Pool
    clock: Callable[[], datetime]
    live: Live
    tracer: Tracer = UNTRACED
    folded: Folded = field(default_factory=Folded)
    level: int = FOLD_LEVEL
    memory: Memory = field(default_factory=Memory)
    allowance: Allowance = field(default_factory=Allowance)
    _loose: set[tuple[int, int, str]] = field(default_factory=set)  # notes that could not be taken back yet

    async def shard(self, tenant: int, shard: int, *, keep_going: Callable[[], bool] = lambda: True) -> int:
        """Fold until nothing claimable waits in the shard; returns the rows folded."""
        return (await self.round(tenant, shard, keep_going=keep_going)).rows

    async def round(self, tenant: int, shard: int, *, keep_going: Callable[[], bool] = lambda: True) -> Round:
        """Fold until nothing claimable waits in the shard.

        An event that the rules fail on goes to the dead letters and its neighbours go on (000-09). A batch that fails
        otherwise is cut in half until the row at fault is alone. Lost connections are raised: they blame no event.
        What only a newer release can fold is left to its workers (X-38).
        """
        limit, total, waited, collisions, is_raised, locked = CLAIM_ROWS_MAX, 0, 0.0, 0, False, 0
        while keep_going():
            try:
                drained = await self._once(tenant, shard, limit)
            except LOST:
                # Away, or a batch too slow for its time: a smaller one tells which, and blames no event.
                self.folded.failures["POSTGRES_AWAY"] += 1
                if limit == 1:
                    raise
                limit, locked = max(1, limit // LOST_SHRINK), LOCKED_TRIES
                continue
            except OtherLevel as error:
                if error.level < self.level and not is_raised:
                    is_raised = await fold_level.raise_to(self.pool, tenant, self.level)
                    if is_raised:
                        continue
                self._leave(error)
                break
            except NewerWord as error:
                self._leave(error)
                break
            except COLLIDED as error:
                collisions += 1
                if collisions > COLLISIONS_MAX:
                    raise  # the sweep comes round; meanwhile the others can end
                log.info("fold_retried", extra={"error": type(error).__name__})
                continue
            except Unfoldable as error:
                await self._bury(tenant, error.event, error.__cause__ or error)
                continue
            except WorkerCrashed as error:
                await self._drop(tenant, shard, error.row, error)
                continue
            except Unfolded as error:
                if limit == 1:
                    await self._drop(tenant, shard, error.first, error.__cause__ or error)
                limit = max(1, limit // 2)
                continue
            if not drained.rows and locked:
                locked -= 1
                await asyncio.sleep(LOCKED_SECONDS)
                continue
            total, locked = total + drained.rows, 0
            waited = max(waited, drained.waited)
            if not drained.was_full:
                break
            limit = min(CLAIM_ROWS_MAX, limit * 2)
        return Round(total, waited)

    async def classroom(self, tenant: int, classroom: str) -> None:
        """Assess one class again because time passed (its `reassess_at`)."""
        settings = f"{fold_level.held(tenant)}; {outbox.CLAIM_SETTINGS}"  # a fold looks for touches of its classes
        async with tenant_transaction(self.pool, tenant, limit_ms=FOLD_MS, settings=settings) as connection:
            level, era = await fold_level.ground_of(connection, tenant)
            if level > self.level:
                return  # still due, and found by a newer worker
            recall = self.memory.recall(tenant, era)
            moved = await fold(connection, tenant, Batch.of_classroom(classroom), now=self.clock(), recall=recall)
        recall.keep()
        self.live.announce(moved)

    async def _once(self, tenant: int, shard: int, limit: int) -> Drained:
        """One transaction of up to `limit` rows, as far as the process may hold them beside those it does."""
        async with self.allowance.up_to(limit) as held:
            return await self._within(tenant, shard, held)

    async def _within(self, tenant: int, shard: int, held: Held) -> Drained:
        """One transaction: claim, fold, delete, commit; then publish."""
        limit = held.rows
        limit_ms = FOLD_MS if limit > 1 else SINGLE_FOLD_MS
        moved = Moved(tenant=tenant)
        settings = f"{fold_level.held(tenant)}; {outbox.CLAIM_SETTINGS}"
        attempt = Attempt([])
        claimed: list[Claimed] = []
        span: Span | None = None
        began = perf_counter()
        try:
            async with tenant_transaction(self.pool, tenant, limit_ms=limit_ms, settings=settings) as connection:
                level, era = await fold_level.ground_of(connection, tenant)
                if level != self.level:
                    raise OtherLevel(level)
                recall = self.memory.recall(tenant, era)
                claimed = await outbox.claim(connection, tenant, shard, limit=limit)
                held.keep(len(claimed))
                self.folded.claimed += len(claimed)
                refolds = [row for row in claimed if row.kind is Waiting.REFOLD_CLASSROOM]
                if refolds:
                    # The touches it becomes are claimed next, a bounded number at a time.
                    for row in refolds:
                        await outbox.expand(connection, tenant, shard, row)
                    await outbox.delete(connection, tenant, refolds)
                    return Drained(len(refolds), was_full=True)
                if claimed:
                    attempt = await self._attempt(connection, tenant, shard, claimed)
                    rows = attempt.rows
                    span = self.tracer.join("fold batch", _traces(rows), seconds_ago=perf_counter() - began)
                    patience = SINGLE_FOLD_MS / 1_000 if limit == 1 else None
                    batch = Batch(tuple(rows), traceparent=span.traceparent if span else None, log_seconds=patience)
                    with within(self.tracer, span):
                        moved = await self._fold(connection, tenant, batch, recall)
                    await outbox.delete(connection, tenant, rows)
                    if attempt.token:
                        await claims.end(
                            connection, tenant, shard, token=attempt.token, now=self.clock(), **attempt.place
                        )
        except BaseException:
            if attempt.token:
                await self._take_back(tenant, shard, attempt.token)
            raise
        finally:
            self.folded.claimed -= len(claimed)
            if span is not None:
                span.end(rows=len(attempt.rows), classrooms=len(moved.classrooms), students=len(moved.students))
        if not claimed:
            return Drained(0, was_full=False)
        recall.keep()
        self.live.announce(moved)
        waited = self._count(attempt.rows, perf_counter() - began)
        return Drained(len(attempt.rows), len(claimed) == limit or len(attempt.rows) < len(claimed), waited)

    async def _attempt(self, connection: Connection, tenant: int, shard: int, claimed: list[Claimed]) -> Attempt:
        """What to fold of the locked rows: all of them, unless a worker may have died of some.

        Rows that have just come are folded without ado: an attempt is noted only at those that have waited, so that
        whatever kills its worker is noted sooner or later, and the live way pays nothing. A row that was alone in a
        fatal attempt is left to the last. Raises WorkerCrashed for one that has had its tries.
        """
        now = self.clock()
        if now - min(row.received_at for row in claimed) < AGED:
            return Attempt(claimed)
        for loose in list(self._loose):
            await claims.take_back(self.pool, loose[0], loose[1], token=loose[2])
            self._loose.discard(loose)  # the drain of another shard may have been faster
        seqs = [row.seq for row in claimed]
        left = await claims.left_at(connection, tenant, shard, first=min(seqs), last=max(seqs))
        fatal = {one.first: one.attempts for one in left if one.is_of_one}
        rows = [row for row in claimed if row.seq not in fatal]
        if not rows:
            rows = claimed[:1]
            if fatal[rows[0].seq] >= CRASHES_MAX:
                raise WorkerCrashed(rows[0])
        suspects = [one.rows for one in left if not one.is_of_one]
        if suspects:
            rows = rows[: 1 if min(suspects) <= SUSPECTS_MAX else SUSPECTS_MAX]
        token = uuid4().hex
        attempt = Attempt(rows, token)
        await claims.name(connection, token)
        try:
            await claims.note(self.pool, tenant, shard, token=token, rows=len(rows), now=now, **attempt.place)
        except BaseException:
            await self._take_back(tenant, shard, token)  # it may have been committed, and only the answer lost
            raise
        return attempt

    async def _take_back(self, tenant: int, shard: int, token: str) -> None:
        """We are alive, so the attempt killed nobody."""
        self._loose.add((tenant, shard, token))
        with suppress(*LOST):
            await claims.take_back(self.pool, tenant, shard, token=token)
            self._loose.discard((tenant, shard, token))

    async def _fold(self, connection: Connection, tenant: int, batch: Batch, recall: Recall) -> Moved:
        """Fold a batch; raises Unfolded for what is neither a collision, a lost connection nor one event's fault."""
        try:
            return await fold(connection, tenant, batch, now=self.clock(), recall=recall)
        except (*COLLIDED, Unfoldable, NewerWord):
            raise
        except Exception as error:
            # asyncpg refuses a value of the wrong kind or size with an error of its connection family
            if isinstance(error, LOST) and not isinstance(error, ValueError):
                raise
            raise Unfolded(batch.claimed[0]) from error

    def _leave(self, error: OtherLevel | NewerWord) -> None:
        """Leave what waits to a worker of a newer release; the sweep comes round."""
        self.folded.failures["NEWER_RELEASE"] += 1
        log.warning("left_to_newer_release", extra={"error": type(error).__name__})

    def _count(self, claimed: Sequence[Claimed], seconds: float) -> float:
        """Count a batch; returns how long its oldest row has waited, in seconds."""
        waited = max(0.0, (self.clock() - min(row.received_at for row in claimed)).total_seconds())
        self.folded.latency.add(waited)
        self.folded.batches.add(seconds)
        self.folded.rows += len(claimed)
        return waited

    async def _bury(self, tenant: int, event: LearningEvent, error: BaseException) -> None:
        """Set aside the one event that cannot be folded, and rebuild without it what it may be part of already."""
        self.folded.failures["EVENT_DEAD"] += 1
        log.error("event_dead", extra={"tenant": tenant, "error": type(error).__name__}, exc_info=error)
        async with tenant_transaction(self.pool, tenant) as connection:
            key = (event.source, event.event_id)
            await dead_letters.bury(connection, tenant, key, error=type(error).__name__, now=self.clock())
            await outbox.touch(connection, tenant, [Touch(Waiting.TOUCH_STUDENT, event.student)], now=self.clock())
        self._announce_dead(tenant, key, error)

    async def _drop(self, tenant: int, shard: int, row: Claimed, error: BaseException) -> None:
        """Set aside the row that fails all alone, unless another drain has taken it meanwhile."""
        self.folded.failures["ROW_DEAD"] += 1
        log.error("row_dead", extra={"tenant": tenant, "error": type(error).__name__}, exc_info=error)
        dead: list[tuple[str, str]] = []
        transaction = tenant_transaction(self.pool, tenant, settings=outbox.CLAIM_SETTINGS)
        async with self.allowance.up_to(1), transaction as connection:
            claimed = await outbox.claim(connection, tenant, shard, limit=1)
            if [(c.seq, c.kind, c.occurred_at) for c in claimed] != [(row.seq, row.kind, row.occurred_at)]:
                return
            if row.kind is Waiting.EVENT:
                [logged] = await facts.claimed_events(connection, tenant, [row])
                dead = [(logged.event.source, logged.event.event_id)]
                await dead_letters.bury(connection, tenant, dead[0], error=type(error).__name__, now=self.clock())
            else:
                # Its classes and students are locked before anything that a fold writes under their locks.
                await give_up(connection, tenant, Batch((row,)))
                if row.kind is Waiting.TOUCH_STUDENT:
                    dead = await dead_letters.bury_unbound(
                        connection, tenant, row.student, row.classroom, error=type(error).__name__, now=self.clock()
                    )
            if dead and row.kind is not Waiting.EVENT:
                # They may be part of what was replayed meanwhile; should this fail too, nothing is left to bury. Last,
                # for it locks what every recording needs.
                again = [Touch(Waiting.TOUCH_STUDENT, row.student)]
                await outbox.touch(connection, tenant, again, now=self.clock())
            await outbox.delete(connection, tenant, claimed)
            await claims.forget(connection, tenant, shard, seq=row.seq)
        for key in dead:
            self._announce_dead(tenant, key, error)

    def _announce_dead(self, tenant: int, key: tuple[str, str], error: BaseException) -> None:
        self.live.announce_dead(Dead(tenant=tenant, source=key[0], event_id=key[1], error=type(error).__name__))


def _traces(claimed: Sequence[Claimed]) -> list[str]:
    """The traces that rows of a batch belong to, a bounded number."""
    return list(dict.fromkeys(row.traceparent for row in claimed if row.traceparent is not None))[:LINKED_MAX]
