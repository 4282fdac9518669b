"""Recompute: each student's numbers made again from the log, saved by the fold itself, or only compared (002-08, X-24).

A job goes on in steps. A step that saves leaves touches in the backfill lane, in one transaction with its checkpoint:
the fold replays those students under its own locks and saves what differs, as it does for any change. A step that
compares only reads. Whoever takes the job over goes on behind the last step.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import accumulate
from typing import Any, TypeVar

from db import background, drift
from db.background import Job, JobKind, JobScope, JobState
from db.live import Moved
from db.outbox import BACKFILL_LANE, LIVE_LANE, Touch, Waiting, still_waiting, touch
from db.pool import Connection, Pool, tenant_transaction
from jobs import policy_change, shadow
from jobs.policy_change import Plan
from jobs.replay import Part
from jobs.shadow import Comparer, Difference

log = logging.getLogger(__name__)

STEP_STUDENTS = 32  # replayed by one fold transaction at most: live events of their shard wait behind it
STEP_EVENTS = 1_000  # of their logs together (002-09), but for a student who has more
STEP_CLASSROOMS = 8
DIFFERENCES_MAX = 50  # of each kind of row
WAIT_SECONDS = 0.05
BEAT_EVERY = 40  # waits
BEAT_SECONDS = 2.0
SETTLE_TRIES = 20
SETTLE_SECONDS = 0.25
Result = TypeVar("Result")
COUNTS = ("scores_moved", "levels_changed", "mastery_gained", "mastery_lost", "flags_raised", "flags_cleared")
BESIDE = ("levels_changed",)  # the release before takes no other words among the counts of a job that it knows


class Stopped(Exception):
    """The process is told to stop; the job goes back into the queue."""


class Cancelled(Exception):
    """Somebody asked the job to stop."""


@dataclass(slots=True)
class Progress:
    """Where a job stands: what its checkpoint holds."""

    phase: str = "students"
    after: str = ""
    first_seq: int = 0  # of the touches of the last step
    last_seq: int = 0
    count: int = 0  # of the last step, not yet in `done`
    done: int = 0
    total: int = 0
    compared: int = 0
    different: int = 0
    skipped: int = 0
    counts: dict[str, int] | None = None
    differences: list[dict[str, Any]] | None = None
    first_cause: str | None = None
    plan: dict[str, Any] | None = None  # of a change of policy
    lane: int | None = None  # of the touches of the last step, when it is not the backfill's

    @property
    def checkpoint(self) -> dict[str, Any]:
        """All of it that is not None: a worker of an older release takes over what has no newer parts."""
        kept = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in kept.items() if value is not None}

    def note(self, found: shadow.Comparison) -> None:
        """Add what one comparison found; keeps the 50 largest differences of each kind, causes before effects."""
        differences = found.differences
        self.compared += found.compared
        self.different += len(differences)
        self.skipped += found.skipped
        total = Counter(self.counts or {})
        for one in differences:
            total.update(shadow.moved(one))
        self.counts = {name: total[name] for name in COUNTS}
        self.first_cause = self.first_cause or next((one.name for one in differences), None)
        kept = (self.differences or []) + [shadow.shown(one) for one in _largest(differences)]
        self.differences = [
            one
            for name in shadow.NAMES.values()
            for one in sorted((one for one in kept if one["table"] == name), key=lambda one: -int(one["size"]))[
                :DIFFERENCES_MAX
            ]
        ]


def _largest(differences: Sequence[Difference]) -> list[Difference]:
    """The first of each kind: no more are worth their JSON."""
    by_size = sorted(differences, key=lambda one: -shadow.size(one))
    return [one for table in shadow.NAMES for one in [d for d in by_size if d.table == table][:DIFFERENCES_MAX]]


@dataclass(frozen=True, slots=True)
class Workbench:
    """What every job works with."""

    pool: Pool
    clock: Callable[[], datetime]
    drain_shard: Callable[[int, int], Awaitable[None]]
    runner: str
    stop: asyncio.Event
    announce: Callable[[Moved], None]
    failures: Counter[str]  # what an operator is alerted by

    def tell(self, tenant: int, key: str) -> None:
        """Wake whoever follows the job; call it after the commit."""
        self.announce(Moved(tenant=tenant, jobs=frozenset({key})))


class Run:
    """One job in the hands of one worker."""

    def __init__(self, bench: Workbench, tenant: int, job: Job) -> None:
        self._bench = bench
        self._tenant = tenant
        self._job = job
        # What only a newer release keeps there is of no use to ours.
        self._at = Progress(**{name: value for name, value in job.checkpoint.items() if name in Progress.__slots__})
        self._is_of_policy = job.kind is JobKind.POLICY
        self._is_to_change = self._is_of_policy and not job.is_dry_run
        self._only_compares = job.is_dry_run or job.kind is JobKind.VERIFY or self._is_of_policy

    async def to_the_end(self) -> None:
        """Go on from the checkpoint until all is done. Raises Stopped, Cancelled and background.Abandoned."""
        if not self._job.checkpoint:
            async with tenant_transaction(self._bench.pool, self._tenant) as connection:
                if self._is_of_policy:
                    self._at.plan = asdict(await policy_change.planned(connection, self._tenant, self._job))
                self._at.total = await self._total(connection) + self._is_to_change
                await self._advance(connection)
            self._tell()
        await self._until_folded()
        while self._at.phase:
            if self._bench.stop.is_set():
                raise Stopped
            keys = await self._next_keys()
            if not keys:
                self._at.phase, self._at.after = ("classrooms" if self._at.phase == "students" else ""), ""
                continue
            if self._only_compares:
                await self._compare(keys)
            else:
                await self._touch(keys)
                await self._until_folded()
        if self._plan and self._is_to_change and self._at.lane is None:
            await self._change(self._plan)
            await self._until_folded()
        await self._finish()

    @cached_property
    def _comparer(self) -> Comparer:
        assumed = {self._job.classroom: self._plan.assumed} if self._plan else {}
        return Comparer(self._bench.pool, self._tenant, assumed)

    @property
    def _plan(self) -> Plan | None:
        return Plan(**self._at.plan) if self._at.plan else None

    # ------------------------------------------------------------ what is next

    async def _total(self, connection: Connection) -> int:
        job = self._job
        if job.scope is JobScope.STUDENT:
            return 1 + len(await self._classrooms(connection, "", limit=1_000_000))
        if job.scope is JobScope.CLASSROOM:
            return 1 + len(await drift.students_of_classroom(connection, self._tenant, job.classroom))
        students, classrooms = await drift.counts(connection, self._tenant)
        return students + classrooms

    async def _next_keys(self) -> list[str]:
        """The keys of the next step: students, then classes."""
        at = self._at
        async with tenant_transaction(self._bench.pool, self._tenant, read_only=True) as connection:
            if at.phase == "classrooms":
                limit = 1 if self._only_compares else STEP_CLASSROOMS
                return await self._classrooms(connection, at.after, limit=limit)
            students = await self._students(connection, at.after)
            return students if self._only_compares else await self._bounded(connection, students)

    async def _students(self, connection: Connection, after: str) -> list[str]:
        job = self._job
        if job.scope is JobScope.STUDENT:
            return [job.student] if job.student > after else []
        if job.scope is JobScope.CLASSROOM:
            known = await drift.students_of_classroom(connection, self._tenant, job.classroom)
            return [student for student in known if student > after][:STEP_STUDENTS]
        return await drift.student_page(connection, self._tenant, after=after, limit=STEP_STUDENTS)

    async def _bounded(self, connection: Connection, students: list[str]) -> list[str]:
        """As many of them as one step may replay: whoever has years of events goes alone."""
        lengths = await drift.log_lengths(connection, self._tenant, students, at_most=STEP_EVENTS)
        count = sum(total <= STEP_EVENTS for total in accumulate(lengths))
        return students[: max(1, count)]

    async def _classrooms(self, connection: Connection, after: str, *, limit: int) -> list[str]:
        job = self._job
        if job.scope is JobScope.CLASSROOM:
            return [job.classroom] if job.classroom > after else []
        if job.scope is JobScope.STUDENT:
            # A touch of the student brings their classes along; only a comparison looks at each.
            keys = await drift.view_keys(connection, self._tenant, [job.student]) if self._only_compares else []
            return sorted(key[1] for key in keys if key[1] > after)[:limit]
        return await drift.classroom_page(connection, self._tenant, after=after, limit=limit)

    # ------------------------------------------------------------ saving

    async def _touch(self, keys: Sequence[str]) -> None:
        """Let the fold replay these students, or assess these classes, in the transaction of the checkpoint."""
        at, job = self._at, self._job
        if at.phase == "students":
            classroom = job.classroom if job.scope is JobScope.CLASSROOM else ""
            touches = [Touch(Waiting.TOUCH_STUDENT, student=key, classroom=classroom) for key in keys]
        else:
            touches = [Touch(Waiting.TOUCH_CLASSROOM, classroom=key) for key in keys]
        async with tenant_transaction(self._bench.pool, self._tenant) as connection:
            last = await touch(connection, self._tenant, touches, now=self._bench.clock(), lane=BACKFILL_LANE)
            at.after, at.count = keys[-1], len(keys)
            at.first_seq, at.last_seq = last - len(keys) + 1, last
            is_cancelled = await self._advance(connection)
        self._tell()
        await self._folded({one.shard for one in touches}, is_cancelled=is_cancelled)

    async def _change(self, plan: Plan) -> None:
        """Make the change of policy that was compared, and let the fold follow it ahead of the backfill."""
        at = self._at
        async with tenant_transaction(self._bench.pool, self._tenant) as connection:
            seq, shards = await policy_change.made(connection, self._tenant, self._job, plan, now=self._bench.clock())
            at.first_seq, at.last_seq, at.count, at.lane = seq, seq, 1, LIVE_LANE
            at.plan = asdict(replace(plan, as_of=seq))
            is_cancelled = await self._advance(connection)
        self._tell()
        await self._folded(shards, is_cancelled=is_cancelled)

    async def _folded(self, shards: set[int], *, is_cancelled: bool) -> None:
        """Fold here and now what was touched; whoever else folds is as welcome."""
        for shard in sorted(shards):
            await self._beating(self._bench.drain_shard(self._tenant, shard))
        if is_cancelled:
            raise Cancelled

    async def _until_folded(self) -> None:
        """Wait until the touches of the last step are gone, whoever folds them."""
        at, waits = self._at, 0
        while at.count:
            async with tenant_transaction(self._bench.pool, self._tenant) as connection:
                left = await still_waiting(
                    connection,
                    self._tenant,
                    first=at.first_seq,
                    last=at.last_seq,
                    lane=BACKFILL_LANE if at.lane is None else at.lane,
                )
                if not left:
                    at.done, at.count = at.done + at.count, 0
                    is_cancelled = await self._advance(connection)
                elif waits % BEAT_EVERY == 0:
                    is_cancelled = await self._beat(connection)
                else:
                    is_cancelled = False
            if not left:
                self._tell()
            if is_cancelled:
                raise Cancelled
            if not left:
                return
            await self._pause(WAIT_SECONDS)
            waits += 1

    async def _beating(self, work: Awaitable[Result]) -> Result:
        """Do what may take long, and show meanwhile that the job has its worker; else another one takes it."""
        doing = asyncio.ensure_future(work)
        try:
            while not doing.done():
                await asyncio.wait({doing}, timeout=BEAT_SECONDS)
                if not doing.done():
                    async with tenant_transaction(self._bench.pool, self._tenant) as connection:
                        await self._beat(connection)
            return doing.result()
        finally:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)

    async def _beat(self, connection: Connection) -> bool:
        return await background.beat(
            connection, self._tenant, self._job.key, runner=self._bench.runner, now=self._bench.clock()
        )

    # ------------------------------------------------------------ comparing

    async def _compare(self, keys: Sequence[str]) -> None:
        """Compare these students' views, or one class's own numbers, and note what differs."""
        at, job = self._at, self._job
        if at.phase == "students":
            views_of = frozenset({job.classroom, ""}) if job.scope is JobScope.CLASSROOM else None
            part = Part(tuple(keys), views_of, tables=("works", "standings", "views", "days"))
        else:
            (classroom,) = keys
            members = [job.student] if job.scope is JobScope.STUDENT else await self._members(classroom)
            part = Part(members, frozenset({classroom}), (classroom,), ("flags", "classes"))
        at.note(await self._beating(self._settled(part)))
        at.after, at.done = keys[-1], at.done + len(keys)
        async with tenant_transaction(self._bench.pool, self._tenant) as connection:
            is_cancelled = await self._advance(connection)
        self._tell()
        if is_cancelled:
            raise Cancelled

    async def _members(self, classroom: str) -> list[str]:
        async with tenant_transaction(self._bench.pool, self._tenant, read_only=True) as connection:
            return await drift.students_of_classroom(connection, self._tenant, classroom)

    async def _settled(self, part: Part) -> shadow.Comparison:
        """Compare, a few times over if something waits: traffic pauses, and a backlog is told as what was skipped."""
        for tries_left in reversed(range(SETTLE_TRIES)):
            found = await self._comparer.compared(part, now=self._bench.clock())
            if not found.skipped or not tries_left:
                return found
            await self._pause(SETTLE_SECONDS)
        raise AssertionError("unreachable: the last try returns")

    # ------------------------------------------------------------ the job's own row

    def _tell(self) -> None:
        self._bench.tell(self._tenant, self._job.key)

    async def _advance(self, connection: Connection) -> bool:
        at = self._at
        return await background.advance(
            connection,
            self._tenant,
            self._job.key,
            runner=self._bench.runner,
            done=at.done,
            total=max(at.total, at.done),
            checkpoint=at.checkpoint,
            now=self._bench.clock(),
        )

    async def _finish(self) -> None:
        at, job, now = self._at, self._job, self._bench.clock()
        result: dict[str, Any] = {"compared": at.compared, "different": at.different, "skipped": at.skipped}
        if self._only_compares:
            counts = at.counts or dict.fromkeys(COUNTS, 0)
            beside = {} if self._is_of_policy else {name: counts.pop(name, 0) for name in BESIDE}
            result |= {"counts": counts, "differences": at.differences or [], **beside}
        async with tenant_transaction(self._bench.pool, self._tenant) as connection:
            if job.kind is JobKind.VERIFY:
                await drift.save(
                    connection,
                    self._tenant,
                    job=job.key,
                    classroom=job.classroom,
                    compared=at.compared,
                    different=at.different,
                    skipped=at.skipped,
                    differences=at.differences or [],
                    first_cause=at.first_cause,
                    now=now,
                )
            if plan := self._plan:
                result |= await policy_change.told(connection, self._tenant, job, plan, result)
            await background.finish(
                connection,
                self._tenant,
                job.key,
                runner=self._bench.runner,
                state=JobState.DONE,
                now=now,
                result=result,
            )
        self._tell()
        if job.kind is JobKind.VERIFY and at.different:
            self._bench.failures["PROJECTION_DRIFT"] += 1
            # Numbers of tenants and keys of jobs, never of pupils.
            log.error("projection_drift", extra={"tenant": self._tenant, "job": job.key, "rows": at.different})

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the process is told to stop meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._bench.stop.wait()
        except TimeoutError:
            return
        raise Stopped
