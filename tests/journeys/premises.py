"""The premises of the outage journeys: servers that no other test stands on, and the processes of the service."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from db.live import CHANNEL
from db.migrate import make_partitions, migrate
from graph.sockets import PROTOCOL
from rules.access import Role
from server.embedded import EmbeddedServers, valkey_program
from tests.chaos.cluster import PROJECT, SECRET, STOP_SECONDS_MAX, freeze_family, tail, thaw_family
from tests.chaos.script import plan_of
from tests.chaos.world import BYSTANDER, STEADY_CLASS, settle, token_of

ANSWER_SECONDS_MAX = 3.0
HEAL_SECONDS_MAX = 5.0
BOOT_SECONDS_MAX = 25.0
POLL_SECONDS = 0.02
_numbers = count(1)

RECORD = "mutation ($input: RecordEventInput!) { recordEvent(input: $input) { status seq errors { code } } }"
RECORD_MANY = "mutation ($input: RecordEventsInput!) { recordEvents(input: $input) { results { status } } }"
QUERY = "query ($id: ID!) { classroom(id: $id) { name } }"
FOLLOW = "subscription ($id: ID!) { masteryChanged(classroomId: $id) { kind resumeToken } }"


@dataclass(slots=True)
class House:
    """Servers that no other test stands on, a Valkey that is ours alone, and the processes of the service."""

    servers: EmbeddedServers
    folder: Path
    operator: "asyncpg.Connection[asyncpg.Record]"
    valkey: asyncio.subprocess.Process | None = None
    started: list[asyncio.subprocess.Process] = field(default_factory=list)

    @property
    def redis_path(self) -> Path:
        return self.folder / "own-valkey.sock"

    def event(self, event_id: str | None = None) -> dict[str, Any]:
        """One graded submission of the steady class."""
        number = next(_numbers)
        return {
            "eventId": event_id or f"out-{number}",
            "source": "lms",
            "type": "SUBMISSION_GRADED",
            "occurredAt": datetime.now(UTC).isoformat(),
            "studentId": f"steady-{number % 8}",
            "classroomId": STEADY_CLASS,
            "assignmentId": f"{STEADY_CLASS}-w0",
            "conceptIds": ["fractions"],
            "submissionId": f"s-{number}",
            "score": 0.5,
            "maxScore": 1,
        }

    # ------------------------------------------------------------ Postgres

    @asynccontextmanager
    async def postgres_frozen(self) -> AsyncIterator[None]:
        """SIGSTOP of the postmaster and all that it started; SIGCONT at the end."""
        assert self.servers.postgres_pid is not None
        frozen = freeze_family(self.servers.postgres_pid)
        try:
            yield
        finally:
            thaw_family(frozen)

    async def times_stored(self, prefix: str) -> dict[str, int]:
        """How often each event of these ids stands in the log."""
        rows = await self.operator.fetch(
            "select event_id, count(*) as times from event where tenant = $1 and event_id like $2 group by 1",
            BYSTANDER,
            f"{prefix}%",
        )
        return {row["event_id"]: row["times"] for row in rows}

    async def is_folded(self) -> bool:
        """Whether nothing waits."""
        return not await self.operator.fetchval("select exists (select from outbox where tenant = $1)", BYSTANDER)

    async def holds_somebody_up(self) -> bool:
        """Whether a transaction waits for the operator's."""
        waiting = "select exists (select from pg_stat_activity where pg_backend_pid() = any(pg_blocking_pids(pid)))"
        return bool(await self.operator.fetchval(waiting))

    # ------------------------------------------------------------ Redis

    async def start_redis(self) -> None:
        """Start our Valkey, empty."""
        self.redis_path.unlink(missing_ok=True)
        self.valkey = await asyncio.create_subprocess_exec(
            *(str(valkey_program()), "--port", "0", "--unixsocket", str(self.redis_path), "--save", ""),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

        async def answers() -> bool:
            async with self.redis() as redis:
                return bool(await redis.ping())

        await until(answers, seconds=5)

    async def end_redis(self) -> None:
        """kill -9."""
        if self.valkey is not None and self.valkey.returncode is None:
            self.valkey.kill()
            await self.valkey.wait()

    @asynccontextmanager
    async def redis_frozen(self) -> AsyncIterator[None]:
        """SIGSTOP of our Valkey; SIGCONT at the end."""
        assert self.valkey is not None
        self.valkey.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.valkey.send_signal(signal.SIGCONT)

    def redis(self) -> Redis:
        """A client of it."""
        return Redis(unix_socket_path=str(self.redis_path), socket_timeout=1, socket_connect_timeout=1)

    async def jobs_begun(self) -> int:
        """How many drains arq's workers have begun for the tenant."""
        async with self.redis() as redis:
            keys = await redis.keys(f"generation:{BYSTANDER}:*")
            return sum(int(value or 0) for value in await redis.mget(keys)) if keys else 0

    async def is_listened_to(self) -> bool:
        """Whether an api has subscribed."""
        async with self.redis() as redis:
            return bool((await redis.pubsub_numsub(CHANNEL))[0][1])

    # ------------------------------------------------------------ the service

    async def start(self, kind: str, port: int = 0) -> asyncio.subprocess.Process:
        """An api or a worker."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        with self.log(kind).open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "server", kind, "--end-with", str(os.getpid())),
                cwd=PROJECT,
                env={
                    **kept,
                    "DATABASE_URL": self.servers.addresses.database_url,
                    "REDIS_URL": f"unix://{self.redis_path}",
                    "DATA_DIR": str(self.folder / kind),
                    "JWT_SECRET": SECRET,
                    "PORT": str(port or 8080),
                    "POOL_SIZE_MAX": "10",
                    "POOL_SIZE_IDLE": "3",
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def log(self, kind: str) -> Path:
        return self.folder / f"{kind}.log"

    def said(self, kind: str, word: str) -> int:
        """How often a process used a word."""
        return self.log(kind).read_text(errors="replace").count(word)

    async def aclose(self) -> None:
        """Kill what is left."""
        for process in self.started:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await self.end_redis()


@dataclass(slots=True)
class Api:
    """An api process and a client of it."""

    process: asyncio.subprocess.Process
    address: str
    client: httpx.AsyncClient

    async def post(self, query: str, role: Role = Role.INTEGRATOR, **variables: Any) -> httpx.Response:
        """Send one document."""
        key = {Role.INTEGRATOR: "lms", Role.ADMIN: "admin"}[role]
        token = token_of(role, key, tenant=BYSTANDER)
        body = {"query": query, "variables": variables}
        return await self.client.post("/graphql", json=body, headers={"authorization": f"Bearer {token}"})

    async def record(self, *events: dict[str, Any]) -> httpx.Response:
        """Record one event, or several at once."""
        if len(events) == 1:
            return await self.post(RECORD, input=events[0])
        return await self.post(RECORD_MANY, input={"events": list(events)})

    async def recorded(self, event: dict[str, Any]) -> str:
        """Record one event, which must work at the first try; its status."""
        response = await self.record(event)
        assert response.status_code == 200, response.text
        status: str = response.json()["data"]["recordEvent"]["status"]
        return status

    @asynccontextmanager
    async def following(self) -> AsyncIterator[ClientConnection]:
        """A subscriber of the steady class who has all there was."""
        token = token_of(Role.ADMIN, "admin", tenant=BYSTANDER)
        address = f"{self.address.replace('http', 'ws')}/graphql"
        async with connect(address, subprotocols=[Subprotocol(PROTOCOL)], close_timeout=1) as watcher:
            await watcher.send(_said(type="connection_init", payload={"authorization": f"Bearer {token}"}))
            await watcher.recv()
            payload = {"query": FOLLOW, "variables": {"id": STEADY_CLASS}}
            await watcher.send(_said(id="1", type="subscribe", payload=payload))
            async with asyncio.timeout(HEAL_SECONDS_MAX):
                while "READY" not in (heard := str(await watcher.recv())):
                    assert "errors" not in heard, heard
            yield watcher


def _said(**message: Any) -> str:
    return msgspec.json.encode(message).decode()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


async def until(is_so: Callable[[], Awaitable[bool]], *, seconds: float = HEAL_SECONDS_MAX) -> None:
    """Wait for a condition; TimeoutError when it does not come."""
    async with asyncio.timeout(seconds):
        while True:
            with suppress(RedisError, OSError, httpx.TransportError):
                if await is_so():
                    return
            await asyncio.sleep(POLL_SECONDS)


async def pushed(watcher: ClientConnection) -> None:
    """Wait for a change on the socket."""
    async with asyncio.timeout(HEAL_SECONDS_MAX):
        while "CHANGE" not in str(await watcher.recv()):
            pass


async def stopped(*processes: asyncio.subprocess.Process) -> float:
    """SIGTERM to all; the seconds until the last has ended, well."""
    began = time.monotonic()
    for process in processes:
        process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(STOP_SECONDS_MAX + 5):
        codes = [await process.wait() for process in processes]
    assert codes == [0] * len(processes)
    return time.monotonic() - began


@asynccontextmanager
async def servers_in(folder: Path, *, durable: bool = False) -> AsyncIterator[EmbeddedServers]:
    """The servers, migrated, with a class of eight students."""
    async with EmbeddedServers(folder / "data", durable=durable) as servers:
        url = servers.addresses.database_url
        await migrate(url)
        now = datetime.now(UTC)
        await make_partitions(url, first_day=now.date().replace(day=1), months=3)
        connection = await asyncpg.connect(url)
        await settle(connection, plan_of(1, 1), now)
        await connection.close()
        yield servers


@asynccontextmanager
async def house_on(servers: EmbeddedServers, folder: Path) -> AsyncIterator[House]:
    """The house, with no process in it."""
    await servers.until_ready()
    operator = await asyncpg.connect(servers.addresses.database_url)
    made = House(servers, folder, operator)
    try:
        yield made
    finally:
        await made.aclose()
        made.operator.terminate()


@asynccontextmanager
async def serving(house: House) -> AsyncIterator[Api]:
    """An api that is ready."""
    port = _free_port()
    process = await house.start("api", port)
    address = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=10) as client:

        async def is_ready() -> bool:
            assert process.returncode is None, tail(house.log("api"))
            return (await client.get("/ready")).status_code == 200

        await until(is_ready, seconds=BOOT_SECONDS_MAX)
        yield Api(process, address, client)


def refused(response: httpx.Response, code: str = "UNAVAILABLE") -> bool:
    """Whether an answer says: come back later."""
    assert response.status_code == 503, response.text
    assert int(response.headers["retry-after"]) >= 1
    assert codes(response) == {code}
    return True


async def timed(answer: Awaitable[httpx.Response]) -> httpx.Response:
    """An answer, which must come within the bound."""
    began = time.monotonic()
    response = await answer
    assert time.monotonic() - began <= ANSWER_SECONDS_MAX
    return response


async def so(value: bool) -> bool:
    return value


def codes(response: httpx.Response) -> set[str]:
    return {error["extensions"]["code"] for error in response.json()["errors"]}
