"""One background job ordered from the command line, done here or by any worker, with its progress shown."""

import asyncio
import sys
from contextlib import suppress

from db import background
from db.background import Job, JobState, Order
from db.pool import LOST, tenant_transaction
from db.visibility import of_classrooms, of_students
from jobs.background import Background
from jobs.drain import Drain
from jobs.recompute import COUNTS
from server.embedded import Addresses
from server.engine import Means, means
from server.settings import Settings

OPERATOR = "operator"  # who ordered it, as `tenant { jobs }` shows it
LOOK_SECONDS = 0.2
BAR_CHARACTERS = 30
OVER = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


class UnknownKey(ValueError):
    """The tenant has no such student, class or tenant row."""


async def run_errand(
    settings: Settings, addresses: Addresses, *, tenant: int, order: Order, stop: asyncio.Event
) -> Job | None:
    """Order a job, do it unless a worker is faster, and return it once it is over; None when told to stop before.

    A job that was stopped goes back into the queue: the next worker, or the same command with the same key, goes on.
    """
    async with means(settings, addresses) as opened:
        key = await _ordered(opened, tenant, order)
        drain = Drain(opened.pool, opened.clock, opened.live)

        async def drain_shard(of_tenant: int, shard: int) -> None:
            await drain.shard(of_tenant, shard, keep_going=lambda: not stop.is_set())

        lane = Background(
            pool=opened.pool,
            clock=opened.clock,
            drain_shard=drain_shard,
            stop=stop,
            announce=opened.live.announce,
            failures=drain.folded.failures,
        )
        doing: asyncio.Task[None] | None = None
        try:
            while True:
                if doing is None or doing.done():
                    if doing is not None:
                        with suppress(*LOST):
                            doing.result()
                    doing = asyncio.create_task(lane.do(tenant, key))
                await asyncio.wait({doing}, timeout=LOOK_SECONDS)
                job = await _look(opened, tenant, key)
                show(job)
                if job.state in OVER:
                    return job
                if stop.is_set():
                    return None
                if doing.done():
                    await asyncio.sleep(LOOK_SECONDS)  # a worker has it
        finally:
            print(file=sys.stderr)
            if doing is not None:
                with suppress(*LOST):
                    await doing


async def _ordered(opened: Means, tenant: int, order: Order) -> str:
    now = opened.clock()
    async with tenant_transaction(opened.pool, tenant) as connection:
        if order.classroom and not await of_classrooms(connection, tenant, [order.classroom], viewer="", now=now):
            raise UnknownKey(f"tenant {tenant} has no class {order.classroom!r}")
        if order.student and not await of_students(connection, tenant, [order.student], viewer="", now=now):
            raise UnknownKey(f"tenant {tenant} has no student {order.student!r}")
        return (await background.enqueue(connection, tenant, order, requested_by=OPERATOR, now=now)).key


async def _look(opened: Means, tenant: int, key: str) -> Job:
    async with tenant_transaction(opened.pool, tenant, read_only=True) as connection:
        return (await background.of_keys(connection, tenant, [key]))[key]


def show(job: Job) -> None:
    """Draw the bar over the one before."""
    print(f"\r{bar(job)}", end="", file=sys.stderr, flush=True)


def bar(job: Job) -> str:
    """How far a job is, in one line."""
    total = job.total or 0
    filled = BAR_CHARACTERS if job.state is JobState.DONE else BAR_CHARACTERS * job.done // max(total, 1)
    return f"[{'#' * filled}{'.' * (BAR_CHARACTERS - filled)}] {job.done} of {total} students and classes, {job.state} "


def told(job: Job) -> str:
    """What came of a job, in a few lines for a person."""
    if job.state is not JobState.DONE or job.result is None:
        return f"the job ended {job.state}{f' with {job.error}' if job.error else ''}"
    result = job.result
    if "counts" not in result:
        return f"{job.done} students and classes recomputed; what differed is saved and pushed"
    lines = [f"{result['compared']} rows compared, {result['different']} differ, {result['skipped']} skipped (waiting)"]
    lines += [f"  {name.replace('_', ' ')}: {result['counts'].get(name, result.get(name, 0))}" for name in COUNTS]
    for one in result["differences"]:
        lines.append(f"  {one['table']} {' / '.join(one['key'])}")
        lines.append(f"    stored:  {one['stored']}")
        lines.append(f"    log says {one['rebuilt']}")
    return "\n".join(lines)
