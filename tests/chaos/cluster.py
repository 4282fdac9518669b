"""A real service of several processes on embedded servers, whose parts can be killed, frozen and started again."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx

from server.embedded import DATABASE, EmbeddedServers
from tests.chaos.wires import Wire, laid
from tests.support.folders import reachable_folder

APIS, WORKERS = 2, 2
READY_SECONDS_MAX = 60.0  # no promise: four processes that start together on a busy machine took ten
STOP_SECONDS_MAX = 10.0  # from SIGTERM to the end of a process
POLL_SECONDS = 0.02
SECRET = "crash runs sign their tokens with this, and nobody else does"
PROJECT = Path(__file__).parents[2]


def slowness() -> float:
    """By how much limits in seconds grow: 1 up to a load of two per core, then with the load."""
    return max(1.0, os.getloadavg()[0] / (2 * (os.cpu_count() or 1)))


@asynccontextmanager
async def bounded(seconds: float, awaited: str) -> AsyncIterator[None]:
    """A limit that says, when it is over, what was waited for."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise AssertionError(f"waited {seconds:.0f} s in vain for {awaited}") from None


@dataclass(slots=True)
class Member:
    """One api or worker: how it is started, its process, and the wires around it."""

    kind: str  # api or worker
    port: int
    log: Path
    database: Wire  # its way to Postgres
    clients: Wire  # the way of its clients to it; of a worker: nobody's
    process: asyncio.subprocess.Process | None = None
    is_frozen: bool = False

    @property
    def url(self) -> str:
        """Where the clients of an api find it: at the near end of their wire."""
        return f"http://127.0.0.1:{self.clients.port}"

    def signal(self, sign: signal.Signals) -> None:
        """Send a signal to the process, unless it has ended."""
        assert self.process is not None, f"{self.kind} was never started"
        if self.process.returncode is None:
            # Not `send_signal`: that looks for a status first, which then is lost to the loop that waits for it.
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, sign)

    def check(self) -> None:
        """Raise AssertionError if it ended although nobody killed it."""
        assert self.process is not None, f"{self.kind} was never started"
        code = self.process.returncode
        assert code is None, f"{self.kind} ended by itself with {code}:\n{tail(self.log)}"


@dataclass(slots=True)
class Cluster:
    """Two apis and two workers of the tree at `tree`, over durable servers of our own. Use as an async context."""

    tree: Path = PROJECT
    servers: EmbeddedServers = field(init=False)
    apis: list[Member] = field(default_factory=list)
    workers: list[Member] = field(default_factory=list)
    folder: Path = field(init=False)
    stop_seconds_max: float = 0.0  # that any process took to end
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _frozen: tuple[int, ...] = ()  # the processes of Postgres that are stopped now

    async def __aenter__(self) -> Self:
        self.folder = self._stack.enter_context(reachable_folder())
        self.servers = EmbeddedServers(self.folder / "data", durable=True)
        (self.folder / "data").mkdir(mode=0o755)
        try:
            await self.servers.start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def open(self) -> None:
        """Start every api and worker, on a database that is migrated, and wait until they serve."""
        ports = free_ports(APIS)
        self.apis = [await self._member("api", port, place) for place, port in enumerate(ports)]
        self.workers = [await self._member("worker", 0, place) for place in range(WORKERS)]
        for member in self.members:
            await self.start(member)
        await self.until_ready()

    async def _member(self, kind: str, port: int, place: int) -> Member:
        database = await self._stack.enter_async_context(laid(_socket_of(self.servers.addresses.database_url)))
        clients = await self._stack.enter_async_context(laid(port))
        return Member(kind, port, self.folder / f"{kind}-{place}.log", database, clients)

    @property
    def members(self) -> list[Member]:
        """Every api and worker."""
        return [*self.apis, *self.workers]

    async def start_again(self, member: Member) -> None:
        """Start a member that has ended, and wait until it has reached Postgres."""
        before = member.database.connections
        await self.start(member)
        async with bounded(READY_SECONDS_MAX, f"a connection of {member.log.stem} to Postgres"):
            while member.database.connections == before:
                member.check()
                await asyncio.sleep(POLL_SECONDS)

    async def start(self, member: Member) -> None:
        """Start a member; `until_ready` waits for an api."""
        with member.log.open("ab") as output:
            member.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "server", member.kind, "--end-with", str(os.getpid())),
                cwd=self.tree,
                env=self._environment(member),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches the run alone, which ends them in order
            )

    async def kill(self, member: Member) -> None:
        """kill -9, and wait until it is gone."""
        assert member.process is not None
        member.signal(signal.SIGKILL)
        await member.process.wait()

    def freeze(self, member: Member) -> None:
        """Stop its clock."""
        member.signal(signal.SIGSTOP)
        member.is_frozen = True

    def thaw(self, member: Member) -> None:
        """Let it go on."""
        member.signal(signal.SIGCONT)
        member.is_frozen = False

    async def until_ended(self, member: Member) -> None:
        """Wait for the end that SIGTERM asked for: in time, and with status 0, or an AssertionError."""
        assert member.process is not None
        began = time.monotonic()
        async with bounded(STOP_SECONDS_MAX, f"the end of {member.log.stem} after SIGTERM"):
            code = await member.process.wait()
        assert code == 0, f"{member.kind} ended with {code} after SIGTERM:\n{tail(member.log)}"
        self.stop_seconds_max = max(self.stop_seconds_max, time.monotonic() - began)

    async def end(self) -> None:
        """SIGTERM to every process at once, each of which must end in time."""
        for member in self.members:
            member.signal(signal.SIGTERM)
        await asyncio.gather(*map(self.until_ended, self.members))

    def freeze_postgres(self) -> None:
        """Stop the clock of the postmaster and all that it started."""
        assert self.servers.postgres_pid is not None, "Postgres is down before it is frozen"
        self._frozen = freeze_family(self.servers.postgres_pid)

    def thaw_postgres(self) -> None:
        """Let it go on."""
        thaw_family(self._frozen)
        self._frozen = ()

    async def until_postgres_answers(self) -> float:
        """Wait until Postgres has answered a new connection, and so all that knocked before; how many seconds."""
        began = time.monotonic()
        async with bounded(READY_SECONDS_MAX, "an answer of Postgres"):
            connection = await asyncpg.connect(self.servers.addresses.database_url)
            try:
                await connection.fetchval("select 1")
            finally:
                connection.terminate()
        return time.monotonic() - began

    async def until_ready(self) -> None:
        """Wait until both servers take connections and every api answers /ready; no member may have died by itself."""
        await self.servers.until_ready(seconds_max=READY_SECONDS_MAX)
        async with httpx.AsyncClient(trust_env=False, timeout=1.0) as client:
            for member in self.apis:
                async with bounded(READY_SECONDS_MAX, f"readiness of {member.log.stem}"):
                    while not await _is_ready(client, member):
                        self.check()
                        await asyncio.sleep(POLL_SECONDS)
        self.check()

    def check(self) -> None:
        """Raise AssertionError for a member that ended although nobody killed it."""
        for member in self.members:
            member.check()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.thaw_postgres()
        for member in self.members:
            if member.process is not None and member.process.returncode is None:
                await self.kill(member)
        with suppress(ProcessLookupError):
            await self.servers.stop()
        await self._stack.aclose()

    def _environment(self, member: Member) -> Mapping[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return {
            **kept,
            "DATABASE_URL": f"postgresql://{DATABASE}@127.0.0.1:{member.database.port}/{DATABASE}?sslmode=disable",
            "REDIS_URL": self.servers.addresses.redis_url,
            "DATA_DIR": str(self.folder / member.log.stem),
            "JWT_SECRET": SECRET,
            "PORT": str(member.port or 8080),
            "POOL_SIZE_MAX": "15",
            "POOL_SIZE_IDLE": "4",
            "PYTHONUNBUFFERED": "1",
        }


async def _is_ready(client: httpx.AsyncClient, member: Member) -> bool:
    try:
        return (await client.get(f"http://127.0.0.1:{member.port}/ready")).status_code == 200
    except httpx.TransportError:
        return False


def _socket_of(database_url: str) -> Path:
    return Path(parse_qs(urlsplit(database_url).query)["host"][0]) / ".s.PGSQL.5432"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; they stay ours for lack of interest, which has to do."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def freeze_family(pid: int) -> tuple[int, ...]:
    """SIGSTOP a process and its children, the parent first: it starts no more. Returns whom to thaw."""
    os.kill(pid, signal.SIGSTOP)
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGSTOP)
    return pid, *children


def thaw_family(pids: Sequence[int]) -> None:
    """SIGCONT to all, the children first."""
    for pid in reversed(pids):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def tail(log: Path, characters: int = 3_000) -> str:
    """The last that a member said."""
    return log.read_text(errors="replace")[-characters:] if log.exists() else "(it said nothing)"
