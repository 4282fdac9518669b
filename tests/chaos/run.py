"""One crash run: the school is built, each step sends a burst and breaks something, and then everything is asked."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from db.migrate import make_partitions, migrate
from rules.access import Role
from tests.chaos import verdict
from tests.chaos.cluster import PROJECT, Cluster, bounded, slowness, tail
from tests.chaos.faults import Struck, strike
from tests.chaos.probe import Probe
from tests.chaos.script import (
    CLASSES_PER_STEP,
    POSTGRES_FAULTS,
    REDIS_FAULTS,
    Aim,
    Fault,
    Plan,
    Request,
    Step,
    class_of,
)
from tests.chaos.witness import Broken, Bystander, Ledger, Producer, Stream, Subscriber, cancelled
from tests.chaos.world import BYSTANDER, STEADY_CLASS, STEADY_STUDENTS, TENANT, WAITING, settle, token_of

SETTLE_SECONDS_MAX = 5.0  # from the last recovery until the outbox is empty and every subscriber knows
POLL_SECONDS = 0.01
TRIGGER_SECONDS_MAX = 30.0
LANES_SECONDS_MAX = 30.0
REDIS_GAP_SECONDS_MAX = 2.0  # recording goes on while Redis is away; the freeze is longer than this
REDIS_WAIT_SECONDS_MAX = 0.5  # for all but a hundredth of the answers that came meanwhile
WAITS_MIN = 100  # answers, to speak of a hundredth of them

FLAGS = """subscription Flags($classroomId: ID!, $after: String) {
  riskFlagChanged(classroomId: $classroomId, after: $after) {
    kind resumeToken transition { studentId reason change severity }
  }
}"""
MASTERY = """subscription Mastery($classroomId: ID!, $after: String) {
  masteryChanged(classroomId: $classroomId, after: $after) {
    kind resumeToken studentId mastery { concept { key } score evidenceCount }
  }
}"""

FOLDS = "select coalesce(sum(change_no), 0) from classroom_state where tenant = $1 and classroom = any($2::text[])"


@dataclass(slots=True)
class Report:
    """What a run saw; `failures` is empty when every promise held."""

    plan: Plan
    failures: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)  # one per step
    events: int = 0
    transitions: int = 0
    returns: int = 0  # of subscribers
    settle_seconds_max: float = 0.0
    gap_seconds_max: float = 0.0
    waits_without_redis: list[float] = field(default_factory=list)  # seconds, of each answer while Redis was away
    answer_seconds_max: float = 0.0  # the slowest that was asked while Postgres was away
    stop_seconds_max: float = 0.0  # from SIGTERM to the end of a process
    seconds: float = 0.0
    load: float = 0.0  # of the machine at the end; see `slowness`

    @property
    def wait_without_redis(self) -> float:
        """The p99 of `waits_without_redis`; 0 where none is known."""
        waits = sorted(self.waits_without_redis)
        return waits[min(len(waits) - 1, len(waits) * 99 // 100)] if waits else 0.0

    @property
    def summary(self) -> str:
        """The run in one line."""
        verdict = "ok" if not self.failures else f"{len(self.failures)} FAILURES"
        return (
            f"seed {self.plan.seed}: {verdict}; {len(self.lines)} faults, {self.events} events, {self.transitions} "
            f"transitions, {self.returns} resumes, settled in <= {self.settle_seconds_max:.2f} s, longest ack gap "
            f"{self.gap_seconds_max:.2f} s, without Redis {len(self.waits_without_redis)} acks with a p99 of "
            f"{self.wait_without_redis * 1000:.0f} ms, without Postgres answers in <= {self.answer_seconds_max:.2f} s, "
            f"SIGTERM ends in <= {self.stop_seconds_max:.2f} s, {self.seconds:.0f} s at a load of {self.load:.0f}"
        )

    @property
    def text(self) -> str:
        """Everything, with what is needed to run it again."""
        return "\n".join([self.summary, *self.failures, self.plan.text, "what happened:", *self.lines])


async def crash_run(plan: Plan, *, tree: Path = PROJECT, say: Callable[[str], None] = lambda line: None) -> Report:
    """Run a plan against the processes of a tree, and report; broken promises are failures, not exceptions."""
    started = time.monotonic()
    report = Report(plan)
    async with Cluster(tree) as cluster:
        await _prepared(cluster, plan)
        await cluster.open()
        try:
            async with _Stage(cluster, plan, report).open() as stage:
                for step in plan.steps:
                    report.lines.append(await stage.play(step))
                    say(report.lines[-1])
                await stage.judge()
            await cluster.end()
        except (AssertionError, TimeoutError) as error:
            report.failures.append(f"{type(error).__name__}: {error}")
        if report.failures:
            report.failures += [f"last words of {m.kind}:\n{tail(m.log, 1_500)}" for m in cluster.members]
    report.stop_seconds_max = cluster.stop_seconds_max
    report.seconds, report.load = time.monotonic() - started, os.getloadavg()[0]
    return report


async def _prepared(cluster: Cluster, plan: Plan) -> None:
    url, now = cluster.servers.addresses.database_url, datetime.now(UTC)
    await migrate(url)
    await make_partitions(url, first_day=(now - timedelta(days=31)).date(), months=4)
    connection = await asyncpg.connect(url)
    try:
        await settle(connection, plan, now)
    finally:
        await connection.close()


class _Stage:
    """The witnesses around a cluster, and one step after the other."""

    def __init__(self, cluster: Cluster, plan: Plan, report: Report) -> None:
        self._cluster = cluster
        self._report = report
        self._urls = [api.url for api in cluster.apis]
        self._day = (datetime.now(UTC) - timedelta(days=1)).replace(hour=6, minute=0, second=0, microsecond=0)
        self._ledger, self._steady = Ledger(), Ledger()
        token = token_of(Role.INTEGRATOR, "lms")
        self._producers = [
            Producer(self._urls, token, self._day, self._ledger, first=place) for place in range(CLASSES_PER_STEP)
        ]
        token = token_of(Role.INTEGRATOR, "lms", tenant=BYSTANDER)
        self._aside = Producer(self._urls, token, self._day, self._steady)
        self._probe = Probe(self._urls, self._day, self._steady, cluster.until_postgres_answers)
        self._background: list[asyncio.Task[None]] = []
        self._flags = [self._follow(Stream("riskFlagChanged", FLAGS, c), n) for n, c in enumerate(plan.classes[::2])]
        self._mastery = [self._follow(Stream("masteryChanged", MASTERY, c), n) for n, c in enumerate(plan.classes[::4])]

    def _follow(self, stream: Stream, place: int) -> Subscriber:
        # One viewer each: a viewer may not have many sockets.
        token = token_of(Role.ADMIN, f"admin-{stream.name}-{stream.classroom}")
        return Subscriber(self._urls, token, stream, first=place)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["_Stage"]:
        """Let everybody listen, and the bystander send, until the run is over."""
        watching = [asyncio.create_task(one.run()) for one in (*self._flags, *self._mastery)]
        steady = asyncio.create_task(Bystander(self._aside, STEADY_CLASS, STEADY_STUDENTS).run())
        self._background = [steady, *watching]
        try:
            async with bounded(TRIGGER_SECONDS_MAX, "the first message of every subscriber"):
                for subscriber in (*self._flags, *self._mastery):
                    while not subscriber.messages:  # READY: the token is there before anything happens
                        await subscriber.moved.wait()
                        subscriber.moved.clear()
                        if subscriber.error is not None:
                            raise Broken(f"cannot subscribe: {subscriber.error}")
            yield self
        finally:
            await cancelled(self._background)
            for producer in (*self._producers, self._aside):
                await producer.aclose()

    async def play(self, step: Step) -> str:
        """One burst, its fault, the recovery, and the promise of five seconds; returns what happened in one line."""
        since = time.monotonic()
        # Counted before the first request leaves: on a busy machine some are answered before we look for the moment.
        reached = self._ledger.after(_answers_before(step))
        lanes = [asyncio.create_task(_sent(p, lane)) for p, lane in zip(self._producers, step.lanes, strict=True)]
        try:
            return await self._played(step, reached, lanes, since)
        except BaseException:
            await cancelled(lanes)
            raise

    async def _played(
        self, step: Step, reached: asyncio.Event, lanes: Sequence["asyncio.Task[None]"], since: float
    ) -> str:
        watch = await asyncpg.connect(self._cluster.servers.addresses.database_url)
        try:
            async with bounded(TRIGGER_SECONDS_MAX, f"the moment of step {step.no}, {step.aim.value}"):
                await self._until_aimed(step, reached, watch, lanes)
        finally:
            watch.terminate()
        last_event = max(self._ledger.ack_times, default=since)
        struck = await strike(self._cluster, step)
        if step.fault in POSTGRES_FAULTS:
            await self._probe.during(step.fault, struck.undo())
        else:
            await struck.undo()
        await self._cluster.until_ready()
        healed = time.monotonic()
        async with bounded(LANES_SECONDS_MAX, f"the answers of step {step.no} ({step.fault.value})"):
            await asyncio.gather(*lanes)
        recovered = max(healed, max(self._ledger.ack_times))
        settled = await self._settled(step, recovered)
        return self._line(step, struck, since=since, last_event=last_event, healed=healed, settled=settled)

    async def _until_aimed(
        self, step: Step, reached: asyncio.Event, watch: asyncpg.Connection, lanes: Sequence["asyncio.Task[None]"]
    ) -> None:
        """Return at the moment that the step wants to hit."""
        moment = asyncio.create_task(reached.wait())
        pending: set[asyncio.Task[Any]] = {moment, *lanes, *self._background}
        try:
            while not moment.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # raises what a witness died of
        finally:
            moment.cancel()
        if step.aim is Aim.FOLDED:
            classes = [class_of(step.no, place) for place in range(CLASSES_PER_STEP)]
            before = await watch.fetchval(FOLDS, TENANT, classes)
            waiting = await watch.fetchval(WAITING, [TENANT])
            while waiting and await watch.fetchval(FOLDS, TENANT, classes) == before:
                waiting = await watch.fetchval(WAITING, [TENANT])
            return  # at once: what it tells the subscribers leaves two milliseconds after its commit
        if step.delay_seconds:
            await asyncio.sleep(step.delay_seconds)

    async def _settled(self, step: Step, recovered: float) -> float:
        """Seconds from recovery until nothing waits and this step's subscribers know all. Raises Broken after 5 s."""
        classes = {class_of(step.no, place) for place in range(CLASSES_PER_STEP)}
        flags = [one for one in self._flags if one.stream.classroom in classes]
        mastery = [one for one in self._mastery if one.stream.classroom in classes]
        connection = await asyncpg.connect(self._cluster.servers.addresses.database_url)
        try:
            while True:
                waiting = await connection.fetchval(WAITING, [TENANT])
                unheard = ["not asked while rows wait"]
                if not waiting:
                    unheard = verdict.missed_or_repeated(flags, await verdict.transitions(connection, TENANT))
                    unheard += verdict.out_of_date(mastery, await verdict.standings(connection, TENANT))
                seconds = time.monotonic() - recovered
                if not waiting and not unheard:
                    self._report.settle_seconds_max = max(self._report.settle_seconds_max, seconds)
                    return seconds
                if seconds > SETTLE_SECONDS_MAX * slowness():
                    words = f"step {step.no} ({step.fault.value}): {seconds:.1f} s after recovery {waiting} rows wait; "
                    raise Broken(words + "; ".join(unheard))
                await asyncio.sleep(POLL_SECONDS)
        finally:
            connection.terminate()

    def _line(
        self, step: Step, struck: Struck, *, since: float, last_event: float, healed: float, settled: float
    ) -> str:
        gap = self._steady.longest_gap(since, time.monotonic())
        during = self._steady.waits_between(struck.at, healed)
        self._report.gap_seconds_max = max(self._report.gap_seconds_max, gap)
        if step.fault in REDIS_FAULTS:
            self._report.waits_without_redis += during + self._ledger.waits_between(struck.at, healed)
            self._promise_recording(step, gap, len(during))
        after = (struck.at - last_event) * 1000
        return (
            f"{step.line}: struck {after:.1f} ms after the last answer, healed in {healed - struck.at:.2f} s, settled "
            f"in {settled:.2f} s, longest ack gap {gap:.2f} s, {len(during)} acks during the fault"
        )

    def _promise_recording(self, step: Step, gap: float, during: int) -> None:
        """Recording does not stand on Redis."""
        if gap > REDIS_GAP_SECONDS_MAX * slowness():
            self._report.failures.append(f"step {step.no} ({step.fault.value}): no answer for {gap:.2f} s")
        if step.fault is Fault.FREEZE_VALKEY and not during:
            self._report.failures.append(f"step {step.no}: nothing was recorded while Redis was frozen")

    async def judge(self) -> None:
        """Ask everything, of both tenants; the bystander's last events may still wait for a moment."""
        await cancelled(self._background)
        url, report = self._cluster.servers.addresses.database_url, self._report
        connection = await asyncpg.connect(url)
        try:
            async with bounded(SETTLE_SECONDS_MAX * slowness(), "an empty outbox at the end"):
                while await connection.fetchval(WAITING, [TENANT, BYSTANDER]):  # noqa: ASYNC110 - in another process
                    await asyncio.sleep(POLL_SECONDS)
            stored = await verdict.transitions(connection, TENANT)
            report.failures += await verdict.lost_or_doubled(connection, TENANT, self._ledger)
            report.failures += await verdict.lost_or_doubled(connection, BYSTANDER, self._steady)
            report.failures += verdict.missed_or_repeated(self._flags, stored)
            report.failures += verdict.out_of_date(self._mastery, await verdict.standings(connection, TENANT))
        finally:
            connection.terminate()
        report.answer_seconds_max = self._probe.slowest_seconds
        is_slow = report.wait_without_redis > REDIS_WAIT_SECONDS_MAX * slowness()
        if len(report.waits_without_redis) >= WAITS_MIN and is_slow:
            report.failures.append(f"without Redis the p99 of recording was {report.wait_without_redis:.2f} s")
        report.failures += await verdict.not_a_rebuild(url, TENANT, now=datetime.now(UTC))
        report.events = len(self._ledger.answers) + len(self._steady.answers)
        report.transitions = sum(len(told) for told in stored.values())
        report.returns = sum(one.returns for one in (*self._flags, *self._mastery))


async def _sent(producer: Producer, lane: Sequence[Request]) -> None:
    for request in lane:
        await producer.send(request)


def _answers_before(step: Step) -> int:
    """How many requests of a step are answered before its fault."""
    requests = sum(len(lane) for lane in step.lanes)
    return requests if step.aim is Aim.ACKNOWLEDGED else max(1, int(requests * step.share))
