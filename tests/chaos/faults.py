"""How each fault is done to a running cluster, and undone."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import asyncpg
from redis import Redis

from jobs.drain import AGED
from tests.chaos.cluster import Cluster, Member, bounded
from tests.chaos.script import Aim, Fault, Step
from tests.chaos.wires import ANSWERED, COMMITTED, Wire
from tests.chaos.world import TENANT, WAITING

CUT_SECONDS_MAX = 10.0
POLL_SECONDS = 0.01
Undo = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was done; `undo` repairs what does not come back by itself and waits for what does."""

    at: float  # monotonic seconds
    undo: Undo


async def strike(cluster: Cluster, step: Step) -> Struck:
    """Do the step's fault now; nothing is awaited before it."""
    api, worker = cluster.apis[step.victim], cluster.workers[step.victim]
    match step.fault:
        case Fault.KILL_WORKER:
            # The one that just committed may be either: both go, and neither tells the subscribers.
            return await _kill(cluster, cluster.workers if step.aim is Aim.FOLDED else [worker])
        case Fault.KILL_API:
            # The one that just answered may be either: both go.
            return await _kill(cluster, cluster.apis if step.aim is Aim.IN_FLIGHT else [api])
        case Fault.FREEZE_WORKER:
            return _freeze(cluster, worker, step.hold_seconds)
        case Fault.FREEZE_API:
            return _freeze(cluster, api, step.hold_seconds)
        case Fault.END_API:
            return _end(cluster, api)
        case Fault.END_WORKER:
            return _end(cluster, worker)
        case Fault.RESET_API:
            return _reset([one.database for one in cluster.apis])
        case Fault.RESET_WORKER:
            return _reset([one.database for one in cluster.workers])
        case Fault.RESET_CLIENTS:
            return _reset([one.clients for one in cluster.apis])
        case Fault.CUT_ANSWERS:
            return _cut([one.clients for one in cluster.apis], ANSWERED, step.hold_seconds)
        case Fault.CUT_API_COMMITS:
            return _cut([one.database for one in cluster.apis], COMMITTED, step.hold_seconds)
        case Fault.CUT_WORKER_COMMITS:
            # To the end of the burst: a fold that is told would tell the subscribers of those that were not.
            wires = [one.database for one in cluster.workers]
            return _cut(wires, COMMITTED, step.hold_seconds, until=lambda: _folded(cluster))
        case _:
            return _strike_servers(cluster, step)


def _strike_servers(cluster: Cluster, step: Step) -> Struck:
    match step.fault:
        case Fault.STOP_POSTGRES | Fault.KILL_POSTGRES:
            pid = cluster.servers.kill_postgres(immediate=step.fault is Fault.STOP_POSTGRES)
            return Struck(time.monotonic(), lambda: _postgres_replaced(cluster, pid))
        case Fault.FREEZE_POSTGRES:
            cluster.freeze_postgres()
            return _later(step.hold_seconds, cluster.thaw_postgres, then=cluster.until_postgres_answers)
        case Fault.KILL_VALKEY:
            pid = cluster.servers.kill_valkey()
            return Struck(time.monotonic(), lambda: cluster.servers.until_replaced(pid))
        case Fault.FREEZE_VALKEY:
            return _freeze_valkey(cluster, step.hold_seconds)
        case Fault.FLUSH_VALKEY:
            return _flush(cluster)
        case _:
            raise AssertionError(f"nobody does {step.fault}")


async def _nothing() -> None:
    return None


async def _postgres_replaced(cluster: Cluster, pid: int) -> None:
    await cluster.servers.until_replaced(pid)
    await cluster.until_postgres_answers()


def _later(seconds: float, undo: Callable[[], None], *, then: Undo = _nothing) -> Struck:
    async def wait_and_undo() -> None:
        await asyncio.sleep(seconds)
        undo()
        await then()

    return Struck(time.monotonic(), wait_and_undo)


async def _kill(cluster: Cluster, members: list[Member]) -> Struck:
    for member in members:
        member.signal(signal.SIGKILL)
    at = time.monotonic()

    async def start_again() -> None:
        for member in members:
            await cluster.kill(member)  # waits for its end
        await asyncio.gather(*map(cluster.start_again, members))

    return Struck(at, start_again)


def _end(cluster: Cluster, member: Member) -> Struck:
    member.signal(signal.SIGTERM)

    async def start_again() -> None:
        await cluster.until_ended(member)
        await cluster.start_again(member)

    return Struck(time.monotonic(), start_again)


def _freeze(cluster: Cluster, member: Member, seconds: float) -> Struck:
    cluster.freeze(member)
    return _later(seconds, lambda: cluster.thaw(member))


def _reset(wires: Sequence[Wire]) -> Struck:
    before = sum(wire.resets for wire in wires)
    for wire in wires:
        wire.reset()
    assert sum(wire.resets for wire in wires) > before, "nobody was connected to be reset"
    return Struck(time.monotonic(), _nothing)


def _cut(wires: Sequence[Wire], mark: bytes, seconds: float, *, until: Undo = _nothing) -> Struck:
    before = sum(wire.cuts for wire in wires)
    for wire in wires:
        wire.cut = mark

    async def whole_again() -> None:
        try:
            await asyncio.sleep(seconds)
            async with bounded(CUT_SECONDS_MAX, "all that was to be cut"):
                while sum(wire.cuts for wire in wires) == before:  # noqa: ASYNC110 - it counts what a peer says
                    await asyncio.sleep(POLL_SECONDS)
                await until()
        finally:
            for wire in wires:
                wire.cut = None

    return Struck(time.monotonic(), whole_again)


async def _folded(cluster: Cluster) -> None:
    """Wait until nothing of the burst waits, or what waits is aged: then each attempt needs a COMMIT to be noted."""
    connection = await asyncpg.connect(cluster.servers.addresses.database_url)
    give_up_at = time.monotonic() + AGED.total_seconds()
    try:
        while await connection.fetchval(WAITING, [TENANT]) and time.monotonic() < give_up_at:  # noqa: ASYNC110 - as above
            await asyncio.sleep(POLL_SECONDS)
    finally:
        connection.terminate()


def _freeze_valkey(cluster: Cluster, seconds: float) -> Struck:
    pid = cluster.servers.valkey_pid
    assert pid is not None, "Valkey is down before it is frozen"
    os.kill(pid, signal.SIGSTOP)
    return _later(seconds, lambda: os.kill(pid, signal.SIGCONT))


def _flush(cluster: Cluster) -> Struck:
    # Not awaited: while this task waited its turn, the moment would pass.
    with Redis.from_url(cluster.servers.addresses.redis_url) as redis:
        redis.flushall()
    return Struck(time.monotonic(), _nothing)
