"""Processes: how a command runs until it is told to stop, and which database and Redis it stands on."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import time
from typing import Any, TypeVar

import uvloop

from db.migrate import migrate
from server.cluster import is_alive
from server.embedded import Addresses, EmbeddedRefused, EmbeddedServers
from server.settings import Settings

log = logging.getLogger("sightline.processes")

WATCH_SECONDS = 0.5  # how late a process learns that its parent, or the owner of its servers, is gone
JOIN_SECONDS_MAX = 90.0  # the owner may be in initdb, or recovering from a crash
GC_YOUNG_OBJECTS = 10_000
GC_MIDDLE_ROUNDS = 20
GC_OLD_ROUNDS = 50
HARD_STOP_SECONDS = 2.0  # after the last deadline; then the process ends without tidying up
BEAT_SECONDS = 2.0  # how often a worker shows that it is alive
BEAT_SECONDS_MAX = 20.0  # silent that long, it is stuck or gone
LOCK_FILE = "embedded.lock"  # held by the keeper of the folder's servers (server.keeper)
ADDRESSES_FILE = "servers.json"
NOT_MINE = "is in use by process"  # in the keeper's refusal

Result = TypeVar("Result")


class Stopped(Exception):
    """What this process stands on is gone for good; the message says what and why."""


# ---------------------------------------------------------------- a process and its end


def run_until_stopped(work: Callable[[asyncio.Event], Coroutine[Any, Any, int]], *, parent: int | None = None) -> int:
    """Run `work(stop)` on a fresh loop and return its exit status; SIGINT and SIGTERM set `stop`.

    `parent`: stop as well when that process is gone. A second signal ends the process at once.
    """
    _quieten_collector()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_supervised(work, parent))


def _quieten_collector() -> None:
    """Let the cyclic collector leave modules and schema alone, and look at the rest less often.

    A full collection walks some 300,000 objects of the imported code and halts every request meanwhile.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG_OBJECTS, GC_MIDDLE_ROUNDS, GC_OLD_ROUNDS)


async def _supervised(work: Callable[[asyncio.Event], Coroutine[Any, Any, int]], parent: int | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told() -> None:
        if stop.is_set():
            os._exit(128 + signal.SIGTERM)  # asked twice: whoever waits has lost patience
        stop.set()

    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, told)  # also where a shell started us in the background with SIGINT ignored
    watcher = asyncio.create_task(_until_gone(parent, stop)) if parent else None
    try:
        return await work(stop)
    finally:
        if watcher is not None:
            watcher.cancel()


async def _until_gone(parent: int, stop: asyncio.Event) -> None:
    """Set `stop` once our parent is another: the kernel hands orphans on at once."""
    while os.getppid() == parent:  # noqa: ASYNC110 - no event tells of a parent's death
        await asyncio.sleep(WATCH_SECONDS)
    log.warning("process.orphaned parent=%s", parent)
    stop.set()


async def bounded(work: Coroutine[Any, Any, Result], stop: asyncio.Event, *, seconds: float) -> Result:
    """Await `work`; once `stop` is set it has this long to end by itself, then it is cancelled (000-10)."""
    task = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            log.error("process.stopped_hard seconds=%s", seconds)
            task.cancel()
            await asyncio.wait({task}, timeout=HARD_STOP_SECONDS)
        if not task.done():
            os._exit(1)  # it swallows its cancellation; the keeper of embedded servers notices our end
        return task.result()
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task}, timeout=HARD_STOP_SECONDS)
        raise
    finally:
        stopping.cancel()


# ---------------------------------------------------------------- files that others read


def write_private(path: Path, value: Any) -> None:
    """Write JSON for the eyes of this user only: whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


# ---------------------------------------------------------------- the servers a process stands on


@asynccontextmanager
async def servers_for(
    settings: Settings, stop: asyncio.Event, *, say: Callable[[str], None] = lambda line: print(line, file=sys.stderr)
) -> AsyncIterator[Addresses]:
    """The servers of the settings; without addresses there, the embedded ones of DATA_DIR, started or joined.

    The first process on a folder owns its embedded servers and stops them when it ends; later ones join. When the
    servers end before us, `stop` is set, and Stopped, which says why, is raised on leaving. Raises EmbeddedRefused.
    """
    if settings.database_url and settings.redis_url:
        yield Addresses(database_url=settings.database_url, redis_url=settings.redis_url)
        return
    data_dir = settings.data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    owned = None if _joinable(data_dir) else await _started(data_dir)
    if owned is None:
        owner, found = await _joined(data_dir)
        say(f"joined the embedded servers of {data_dir}, which process {owner} runs")
        until_over = _owner_gone(data_dir, owner)
    else:
        found = owned.addresses
        write_private(data_dir / ADDRESSES_FILE, {"owner": os.getpid(), **_plain(found)})
        until_over = _servers_gone(owned)
    endings: list[str] = []
    watcher = asyncio.create_task(_watch(until_over, stop, endings))
    try:
        yield Addresses(
            database_url=settings.database_url or found.database_url, redis_url=settings.redis_url or found.redis_url
        )
    finally:
        watcher.cancel()
        await asyncio.wait({watcher})
        if owned is not None:
            (data_dir / ADDRESSES_FILE).unlink(missing_ok=True)
            await owned.stop()
    if endings:
        raise Stopped(endings[0])


def _plain(addresses: Addresses) -> dict[str, str]:
    return {"database_url": addresses.database_url, "redis_url": addresses.redis_url}


async def _started(data_dir: Path) -> EmbeddedServers | None:
    """Our own servers on this folder; None where another process was faster. Raises EmbeddedRefused."""
    servers = EmbeddedServers(data_dir)
    try:
        await servers.start()
    except EmbeddedRefused as why:
        if NOT_MINE in str(why):
            return None
        raise
    return servers


def _joinable(data_dir: Path) -> tuple[int, Addresses] | None:
    """Owner and addresses of servers that run on this folder now; a file left by a crash does not count."""
    try:
        known = json.loads((data_dir / ADDRESSES_FILE).read_text())
        with (data_dir / LOCK_FILE).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        if is_alive(known["owner"]):
            return known["owner"], Addresses(known["database_url"], known["redis_url"])
    except (FileNotFoundError, ValueError):
        pass
    return None


async def _joined(data_dir: Path) -> tuple[int, Addresses]:
    """Wait until the process that is starting the folder's servers has told their addresses."""
    async with asyncio.timeout(JOIN_SECONDS_MAX):
        while (found := _joinable(data_dir)) is None:  # noqa: ASYNC110 - another process writes the file
            await asyncio.sleep(WATCH_SECONDS / 10)
    return found


async def _owner_gone(data_dir: Path, owner: int) -> str:
    while True:
        found = _joinable(data_dir)
        if found is None or found[0] != owner:
            return (
                f"the embedded servers of {data_dir} have stopped with process {owner}, which ran them; "
                "set DATABASE_URL and REDIS_URL for servers that run on their own"
            )
        await asyncio.sleep(WATCH_SECONDS)


async def _servers_gone(servers: EmbeddedServers) -> str:
    while True:
        try:
            await servers.until_ready()  # returns at once while both run
        except (EmbeddedRefused, TimeoutError) as why:
            return f"the embedded servers of {servers.data_dir} have stopped: {why}"
        await asyncio.sleep(WATCH_SECONDS)


async def _watch(until_over: Awaitable[str], stop: asyncio.Event, endings: list[str]) -> None:
    with suppress(asyncio.CancelledError):
        ending = await until_over
        if not stop.is_set():  # told to stop both at once: nothing is wrong
            endings.append(ending)
            stop.set()


# ---------------------------------------------------------------- a process of the service


async def serve(
    settings: Settings, work: Callable[..., Coroutine[Any, Any, None]], stop: asyncio.Event, *, beat: Path | None = None
) -> int:
    """Run `work(settings, addresses, stop=stop)`, a whole api or worker, on the settings' servers; 0 when it ends well.

    Once told to stop it has SHUTDOWN_SECONDS, and a moment to close its connections. `beat` is touched while it runs.
    An embedded database is migrated first; another one is left to `migrate`, which runs once for all processes.
    """
    async with servers_for(settings, stop) as addresses:
        if settings.database_url is None:
            await migrate(addresses.database_url)  # nobody else looks after an embedded database
        beating = asyncio.create_task(_beat(beat)) if beat else None
        try:
            await bounded(
                work(settings, addresses, stop=stop), stop, seconds=settings.shutdown_seconds + HARD_STOP_SECONDS
            )
        finally:
            if beating is not None:
                beating.cancel()
    return 0


def beat_path(settings: Settings) -> Path:
    """Where the workers of this machine, or this container, show that they are alive."""
    return settings.data_dir / f"worker-{socket.gethostname()}.alive"


def is_beating(path: Path) -> bool:
    """Whether a worker showed itself lately. It does so from the loop that drains, so a stuck one is found too."""
    try:
        return time() - path.stat().st_mtime < BEAT_SECONDS_MAX
    except FileNotFoundError:
        return False


async def _beat(path: Path) -> None:
    while True:
        _touch(path)
        await asyncio.sleep(BEAT_SECONDS)


def _touch(path: Path) -> None:
    with suppress(OSError):  # a full disk is told by /health; it must not end the worker
        path.touch()
