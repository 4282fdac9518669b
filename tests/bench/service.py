"""The real service under a bench: one api and one worker process on embedded, durable servers, and their CPU time."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg
import httpx

from db.migrate import make_partitions, migrate
from server.embedded import EmbeddedServers
from tests.bench.figures import PROJECT
from tests.bench.school import SECRET
from tests.support.folders import reachable_folder

READY_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 20.0
FOLDED_SECONDS_MAX = 600.0
POLL_SECONDS = 0.005
WAITING = "select exists (select from outbox where tenant = $1)"
TICKS = os.sysconf("SC_CLK_TCK")
REAL = ("server",)
TIMED = ("tests.bench.child",)  # the same processes with timers inside: never the ones whose rate is told
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH")


@dataclass(slots=True)
class Service:
    """Use as an async context. `program` is the module that runs `api` and `worker`."""

    program: Sequence[str] = REAL
    port: int = 0
    connection: asyncpg.Connection = field(init=False)  # as the owner: sees every tenant
    folder: Path = field(init=False)
    _servers: EmbeddedServers = field(init=False)
    _processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def _open(self) -> None:
        self.folder = self._stack.enter_context(reachable_folder())
        data = self.folder / "data"
        data.mkdir(mode=0o755)
        self._servers = await self._stack.enter_async_context(EmbeddedServers(data, durable=True))
        url = self._servers.addresses.database_url
        await migrate(url)
        await make_partitions(url, first_day=(datetime.now(UTC) - timedelta(days=40)).date(), months=4)
        self.connection = await asyncpg.connect(url)
        self._stack.push_async_callback(self.connection.close)
        self.port = _free_port()
        await self._start("api")
        await self._start("worker")
        await self._until_ready()

    async def _start(self, kind: str) -> None:
        addresses = self._servers.addresses
        given = {
            "DATABASE_URL": addresses.database_url,
            "REDIS_URL": addresses.redis_url,
            "DATA_DIR": str(self.folder / "data"),
            "JWT_SECRET": SECRET,
            "PORT": str(self.port),
            "LOG_LEVEL": "WARNING",
            "RATE_LIMIT_ENABLED": "false",  # one viewer asks for what a thousand would; hooks.py measures the charge
            "BENCH_FOLDER": str(self.folder),
        }
        with (self.folder / f"{kind}.log").open("ab") as output:
            self._processes[kind] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *self.program, kind),
                cwd=PROJECT,
                env={name: os.environ[name] for name in KEPT if name in os.environ} | given,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def _until_ready(self) -> None:
        async with asyncio.timeout(READY_SECONDS_MAX), httpx.AsyncClient(trust_env=False, timeout=1.0) as client:
            while True:
                self.check()
                try:
                    if (await client.get(f"http://127.0.0.1:{self.port}/ready")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)

    def check(self) -> None:
        """Raise AssertionError for a process that ended by itself, or that logged a warning or worse."""
        for kind, process in self._processes.items():
            said = (self.folder / f"{kind}.log").read_text(errors="replace")
            assert process.returncode is None, f"{kind} ended with {process.returncode}:\n{said[-3_000:]}"
            assert not said.strip(), f"{kind} is not well, its figures would be those of failures:\n{said[:3_000]}"

    async def until_folded(self, tenant: int) -> None:
        """Wait until the tenant's outbox is empty."""
        async with asyncio.timeout(FOLDED_SECONDS_MAX):
            while await self.connection.fetchval(WAITING, tenant):  # noqa: ASYNC110 - another process's doing
                await asyncio.sleep(POLL_SECONDS)

    async def postgres_version(self) -> str:
        """The server's version."""
        return str(await self.connection.fetchval("show server_version"))

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time used so far, by part."""
        postgres, valkey = self._servers.postgres_pid, self._servers.valkey_pid
        assert postgres is not None
        assert valkey is not None
        found = {kind: _seconds([process.pid]) for kind, process in self._processes.items()}
        # A backend that ended is counted by the postmaster, which waited for it.
        return found | {"postgres": _seconds([postgres, *_children(postgres)]), "valkey": _seconds([valkey])}

    def pid(self, kind: str) -> int:
        """The process of a kind."""
        return self._processes[kind].pid

    @property
    def redis_url(self) -> str:
        """Where hints are told."""
        return self._servers.addresses.redis_url

    async def stop(self) -> None:
        """Stop api and worker in order, so that timed ones write what they counted."""
        for process in self._processes.values():
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS_MAX)
            except TimeoutError:
                process.kill()
                await process.wait()

    async def aclose(self) -> None:
        """Stop everything."""
        await self.stop()
        await self._stack.aclose()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def spent(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """CPU seconds between two moments, by part."""
    return {part: round(after[part] - before[part], 3) for part in after}


def _seconds(pids: Iterable[int]) -> float:
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += sum(int(value) for value in fields[11:15])  # utime, stime and those of children waited for
    return ticks / TICKS


def _children(parent: int) -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
