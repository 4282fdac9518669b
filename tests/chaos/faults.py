"""How each fault is done to a running cluster, and undone."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis import Redis

from tests.chaos.cluster import Cluster, Member
from tests.chaos.script import Aim, Fault, Step

Undo = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was done; `undo` repairs what does not come back by itself and waits for what does."""

    at: float  # monotonic seconds
    undo: Undo


async def strike(cluster: Cluster, step: Step) -> Struck:
    """Do the step's fault now; nothing is awaited before it."""
    match step.fault:
        case Fault.KILL_WORKER:
            # The one that just committed may be either: both go, and neither tells the subscribers.
            is_both = step.aim is Aim.FOLDED
            return await _kill(cluster, cluster.workers if is_both else [cluster.workers[step.victim]])
        case Fault.KILL_API:
            # The one that just answered may be either: both go.
            is_both = step.aim is Aim.IN_FLIGHT
            return await _kill(cluster, cluster.apis if is_both else [cluster.apis[step.victim]])
        case Fault.FREEZE_WORKER:
            return _freeze(cluster, cluster.workers[step.victim], step.hold_seconds)
        case Fault.FREEZE_API:
            return _freeze(cluster, cluster.apis[step.victim], step.hold_seconds)
        case Fault.STOP_POSTGRES | Fault.KILL_POSTGRES:
            pid = cluster.servers.kill_postgres(immediate=step.fault is Fault.STOP_POSTGRES)
            return Struck(time.monotonic(), lambda: cluster.servers.until_replaced(pid))
        case Fault.KILL_VALKEY:
            pid = cluster.servers.kill_valkey()
            return Struck(time.monotonic(), lambda: cluster.servers.until_replaced(pid))
        case Fault.FREEZE_VALKEY:
            return _freeze_valkey(cluster, step.hold_seconds)
        case Fault.FLUSH_VALKEY:
            return _flush(cluster)


async def _kill(cluster: Cluster, members: list[Member]) -> Struck:
    for member in members:
        member.signal(signal.SIGKILL)
    at = time.monotonic()

    async def start_again() -> None:
        for member in members:
            await cluster.kill(member)  # waits for its end
            await cluster.start(member)

    return Struck(at, start_again)


def _freeze(cluster: Cluster, member: Member, seconds: float) -> Struck:
    cluster.freeze(member)

    async def thaw() -> None:
        await asyncio.sleep(seconds)
        cluster.thaw(member)

    return Struck(time.monotonic(), thaw)


def _freeze_valkey(cluster: Cluster, seconds: float) -> Struck:
    pid = cluster.servers.valkey_pid
    assert pid is not None, "Valkey is down before it is frozen"
    os.kill(pid, signal.SIGSTOP)

    async def thaw() -> None:
        await asyncio.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    return Struck(time.monotonic(), thaw)


def _flush(cluster: Cluster) -> Struck:
    # Not awaited: while this task waited its turn, the moment would pass.
    with Redis.from_url(cluster.servers.addresses.redis_url) as redis:
        redis.flushall()

    async def nothing() -> None:
        return None

    return Struck(time.monotonic(), nothing)
