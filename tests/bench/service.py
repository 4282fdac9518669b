"""The real service under a bench: one api and one worker process on embedded, durable servers, and their CPU time."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg
import httpx
import msgspec

from db.migrate import make_partitions, migrate
from server.embedded import EmbeddedServers
from tests.bench.figures import PROJECT, tried
from tests.bench.school import SECRET
from tests.support.folders import reachable_folder

READY_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 20.0
FOLDED_SECONDS_MAX = 600.0
POLL_SECONDS = 0.02  # each look walks over what was just deleted, and counts as CPU of the service
WAITING = "select exists (select from outbox where tenant = $1)"
TICKS = os.sysconf("SC_CLK_TCK")
REAL = ("server",)
TIMED = ("tests.bench.child",)  # the same processes with timers inside: never the ones whose rate is told
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH")


@dataclass(slots=True)
class Service:
    """Use as an async context. `program` is the module that runs `kinds`."""

    program: Sequence[str] = REAL
    kinds: Sequence[str] = ("api", "worker")
    settings: Mapping[str, str] = field(default_factory=dict)  # more of the environment
    port: int = 0
    connection: asyncpg.Connection = field(init=False)  # as the owner: sees every tenant
    folder: Path = field(init=False)
    _servers: EmbeddedServers = field(init=False)
    talkative: set[str] = field(default_factory=set)  # whose log lines are no sign of trouble
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
        self.port = free_port()
        for kind in self.kinds:
            await self.start(kind)
        await self._until_ready(self.port)

    async def start(self, kind: str) -> None:
        """Start the api or the worker."""
        command = (sys.executable, "-m", *self.program, kind, "--end-with", str(os.getpid()))
        await self._start(kind, command, self.port)

    async def beside(self, name: str, command: Sequence[str], *, cwd: Path = PROJECT, **told: str) -> int:
        """Start another process on the same servers, told more; returns its port once its `/ready` answers."""
        port = free_port()
        await self._start(name, command, port, cwd=cwd, **told)
        await self._until_ready(port)
        return port

    async def _start(self, name: str, command: Sequence[str], port: int, *, cwd: Path = PROJECT, **told: str) -> None:
        addresses = self._servers.addresses
        given = {
            "DATABASE_URL": addresses.database_url,
            "REDIS_URL": addresses.redis_url,
            "DATA_DIR": str(self.folder / "data"),
            "JWT_SECRET": SECRET,
            "PORT": str(port),
            "LOG_LEVEL": "WARNING",
            "RATE_LIMIT_ENABLED": "false",  # one viewer asks for what a thousand would; hooks.py measures the charge
            "BENCH_FOLDER": str(self.folder),
            **self.settings,
            **tried(),
            **told,
        }
        with (self.folder / f"{name}.log").open("ab") as output:
            self._processes[name] = await asyncio.create_subprocess_exec(
                *command,
                cwd=cwd,
                env={name: os.environ[name] for name in KEPT if name in os.environ} | given,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def _until_ready(self, port: int) -> None:
        async with asyncio.timeout(READY_SECONDS_MAX), httpx.AsyncClient(trust_env=False, timeout=1.0) as client:
            while True:
                self.check()
                try:
                    if (await client.get(f"http://127.0.0.1:{port}/ready")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)

    def check(self, *, may_warn: bool = False) -> None:
        """Raise AssertionError for a process that ended by itself, or that logged a warning or worse."""
        for kind, process in self._processes.items():
            said = (self.folder / f"{kind}.log").read_text(errors="replace")
            assert process.returncode is None, f"{kind} ended with {process.returncode}:\n{said[-3_000:]}"
            is_well = may_warn or kind in self.talkative or not said.strip()
            assert is_well, f"{kind} is not well, its figures would be those of failures:\n{said[:3_000]}"

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """What a process has logged: warnings and worse."""
        said = (self.folder / f"{kind}.log").read_text(errors="replace").splitlines()
        return [msgspec.json.decode(line) for line in said if line.startswith("{")]

    async def worker_numbers(self) -> dict[str, float]:
        """What the worker counts of itself, by name, without what has labels.

        Needs METRICS_PORT among the settings; a worker's page is on the port above. Raises httpx.TransportError until
        the worker is up.
        """
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
            page = await client.get(f"http://127.0.0.1:{int(self.settings['METRICS_PORT']) + 1}/metrics")
        samples = [line.split() for line in page.text.splitlines() if not line.startswith("#") and "{" not in line]
        return {name: float(value) for name, value in samples}

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
        postgres, valkey = self._pids_of_servers()
        found = {kind: _seconds([process.pid]) for kind, process in self._processes.items()}
        # A backend that ended is counted by the postmaster, which waited for it.
        return found | {"postgres": _seconds([postgres, *_children(postgres)]), "valkey": _seconds([valkey])}

    def postgres_cpu_seconds(self) -> dict[str, float]:
        """CPU time of Postgres so far, by kind of its processes; those that ended stand together.

        An autovacuum worker lives for seconds, so nearly all of `ended` is theirs while the pools stay open.
        """
        postgres, _ = self._pids_of_servers()
        found = {"ended": _seconds([postgres])}
        for pid in _children(postgres):
            kind = _kind_of(pid)
            found[kind] = found.get(kind, 0.0) + _seconds([pid])
        return found

    def _pids_of_servers(self) -> tuple[int, int]:
        postgres, valkey = self._servers.postgres_pid, self._servers.valkey_pid
        assert postgres is not None
        assert valkey is not None
        return postgres, valkey

    def pid(self, kind: str) -> int:
        """The process of a kind."""
        return self._processes[kind].pid

    @property
    def redis_url(self) -> str:
        """Where hints are told."""
        return self._servers.addresses.redis_url

    @asynccontextmanager
    async def redis_frozen(self) -> AsyncIterator[None]:
        """SIGSTOP of Valkey; SIGCONT at the end."""
        _, valkey = self._pids_of_servers()
        os.kill(valkey, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(valkey, signal.SIGCONT)

    @asynccontextmanager
    async def redis_gone(self) -> AsyncIterator[None]:
        """kill -9 of Valkey, and nobody starts it again until the end: whoever would is stopped meanwhile."""
        keeper = self._servers.keeper_pid
        assert keeper is not None
        os.kill(keeper, signal.SIGSTOP)
        try:
            pid = self._servers.kill_valkey()
            yield
        finally:
            os.kill(keeper, signal.SIGCONT)
        await self._servers.until_replaced(pid)

    async def stop(self, *kinds: str) -> None:
        """Stop api and worker in order, so that timed ones write what they counted; or only those named."""
        chosen = [process for kind, process in self._processes.items() if not kinds or kind in kinds]
        for process in chosen:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        for process in chosen:
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS_MAX)
            except TimeoutError:
                process.kill()
                await process.wait()
        for kind in kinds:
            del self._processes[kind]

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
    return {part: round(after[part] - before.get(part, 0.0), 3) for part in after}


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


def _kind_of(pid: int) -> str:
    """What a process of Postgres does, as it says itself: "walwriter", "checkpointer", or "backend"."""
    try:
        said = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return "ended"
    words = said.removeprefix("postgres: ").split()
    known = ("autovacuum", "background", "checkpointer", "io", "logical", "walwriter")
    return " ".join(words[:2]) if words and words[0] in known else "backend"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
