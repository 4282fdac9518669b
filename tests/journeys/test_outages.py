"""Postgres frozen, gone or full, Redis in every bad way: each answer is bounded, and all comes back by itself."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import RedisError
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from db.live import CHANNEL
from db.migrate import make_partitions, migrate
from db.outbox import BACKFILL_LANE
from graph.frames import Close
from graph.sockets import PROTOCOL
from rules.access import Role
from server.embedded import EmbeddedServers, valkey_program
from tests.chaos.cluster import PROJECT, SECRET, tail
from tests.chaos.script import plan_of
from tests.chaos.world import BYSTANDER, STEADY_CLASS, settle, token_of
from tests.support.folders import reachable_folder

ANSWER_SECONDS_MAX = 3.0
STOP_SECONDS_MAX = 10.0
HEAL_SECONDS_MAX = 5.0
BOOT_SECONDS_MAX = 25.0
FREEZE_SECONDS = 3.5  # longer than any answer may take
SENDERS = 40
POLL_SECONDS = 0.02
_numbers = count(1)

RECORD = "mutation ($input: RecordEventInput!) { recordEvent(input: $input) { status seq errors { code } } }"
RECORD_MANY = "mutation ($input: RecordEventsInput!) { recordEvents(input: $input) { results { status } } }"
SAVE_STUDENT = (
    "mutation ($input: SaveStudentInput!) { saveStudent(input: $input) { student { id } errors { code field } } }"
)
QUERY = "query ($id: ID!) { classroom(id: $id) { name } }"
FOLLOW = "subscription ($id: ID!) { masteryChanged(classroomId: $id) { kind resumeToken } }"

FULL = """
create function disk_is_full() returns trigger language plpgsql as
    $$ begin raise exception 'could not extend file' using errcode = '53100'; end $$;
create trigger disk_is_full before insert on event for each row execute function disk_is_full();
"""
ROOM_AGAIN = "drop trigger disk_is_full on event; drop function disk_is_full()"
OLD_ROW = """
insert into outbox (tenant, shard, lane, occurred_at, seq, kind, student, classroom, received_at)
values ($1, 0, $2, $3, 0, 'EVENT', 'nobody', '', $3)
"""


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
        postmaster = self.servers.postgres_pid
        assert postmaster is not None
        os.kill(postmaster, signal.SIGSTOP)
        pids = [postmaster, *_children(postmaster)]
        for pid in pids[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in reversed(pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

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


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


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


@pytest_asyncio.fixture(scope="module")
async def base() -> AsyncIterator[tuple[EmbeddedServers, Path]]:
    """The servers, migrated, with a class of eight students."""
    with reachable_folder() as folder:
        async with EmbeddedServers(folder / "data", durable=False) as servers:
            url = servers.addresses.database_url
            await migrate(url)
            now = datetime.now(UTC)
            await make_partitions(url, first_day=now.date().replace(day=1), months=3)
            connection = await asyncpg.connect(url)
            await settle(connection, plan_of(1, 1), now)
            await connection.close()
            yield servers, folder


@pytest_asyncio.fixture
async def house(base: tuple[EmbeddedServers, Path]) -> AsyncIterator[House]:
    """The house, with no process in it."""
    servers, folder = base
    await servers.until_ready()
    operator = await asyncpg.connect(servers.addresses.database_url)
    made = House(servers, folder, operator)
    try:
        yield made
    finally:
        await made.aclose()
        operator.terminate()


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
    assert _codes(response) == {code}
    return True


async def timed(answer: Awaitable[httpx.Response]) -> httpx.Response:
    """An answer, which must come within the bound."""
    began = time.monotonic()
    response = await answer
    assert time.monotonic() - began <= ANSWER_SECONDS_MAX
    return response


@pytest.mark.feature("000-23", "000-10")
async def test_a_frozen_postgres_bounds_every_answer_and_the_first_request_afterwards_works(house: House) -> None:
    await house.start_redis()
    worker = await house.start("worker")
    async with serving(house) as api, AsyncExitStack() as open_now:
        await open_now.enter_async_context(api.following())
        await asyncio.gather(*(api.recorded(house.event()) for _ in range(12)))
        events = [house.event(f"frozen-{number}") for number in range(30)]
        async with house.postgres_frozen():
            for first in (0, 15):  # on connections that were open, then on new ones
                answers = await asyncio.gather(
                    timed(api.post(QUERY, Role.ADMIN, id=STEADY_CLASS)),
                    timed(api.post(SAVE_STUDENT, Role.ADMIN, input={"key": "steady-0"})),
                    timed(api.record(*events[first : first + 5])),
                    *(timed(api.record(event)) for event in events[first + 5 : first + 15]),
                )
                assert all(map(refused, answers))
                ready, health = await asyncio.gather(timed(api.client.get("/ready")), timed(api.client.get("/health")))
                assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
                assert health.json()["checks"]["database"] == "failing"
        assert await api.recorded(events[0]) in {"ACCEPTED", "DUPLICATE"}
        for event in events[1:]:
            assert await api.recorded(event) in {"ACCEPTED", "DUPLICATE"}
        assert await house.times_stored("frozen-") == {event["eventId"]: 1 for event in events}
        await until(house.is_folded)

        await a_freeze_in_full_traffic(house, api)

        assert (await api.record(*(house.event() for _ in range(400)))).status_code == 200  # the worker has to fold
        async with house.postgres_frozen():
            in_flight = asyncio.create_task(api.record(house.event()))
            await asyncio.sleep(0)
            assert await stopped(api.process, worker) <= STOP_SECONDS_MAX
            with suppress(httpx.TransportError):
                assert refused(await in_flight)


async def a_freeze_in_full_traffic(house: House, api: Api) -> None:
    """Statements in flight, mutations that wait for the next commit and a full gate: all are bounded."""
    is_over = asyncio.Event()
    slowest, answered = 0.0, set[int]()

    async def sends(number: int) -> None:
        nonlocal slowest
        while not is_over.is_set():
            began = time.monotonic()
            event = house.event(f"traffic-{number}-{began}")
            response = await (api.record(event) if number % 3 else api.post(QUERY, Role.ADMIN, id=STEADY_CLASS))
            slowest = max(slowest, time.monotonic() - began)
            answered.add(response.status_code)
            assert response.status_code == 200 or _codes(response) <= {"UNAVAILABLE", "OVERLOADED"}, response.text

    async with asyncio.TaskGroup() as group:
        for number in range(SENDERS):
            group.create_task(sends(number))
        await until(lambda: _is(200 in answered))
        async with house.postgres_frozen():
            await asyncio.sleep(FREEZE_SECONDS)
        answered.clear()
        await until(lambda: _is(200 in answered))
        is_over.set()
    assert slowest <= ANSWER_SECONDS_MAX
    assert set((await house.times_stored("traffic-")).values()) == {1}


async def _is(value: bool) -> bool:
    return value


def _codes(response: httpx.Response) -> set[str]:
    return {error["extensions"]["code"] for error in response.json()["errors"]}


@pytest.mark.feature("000-23", "000-10")
async def test_redis_may_be_absent_flushed_frozen_or_gone(house: House) -> None:
    await house.end_redis()
    house.redis_path.unlink(missing_ok=True)
    house.log("worker").unlink(missing_ok=True)
    began = time.monotonic()
    worker = await house.start("worker")
    async with serving(house) as api, AsyncExitStack() as open_now:
        watcher = await open_now.enter_async_context(api.following())

        async def works() -> None:
            assert await api.recorded(house.event()) == "ACCEPTED"
            await until(house.is_folded)
            await pushed(watcher)

        await works()  # absent from boot
        assert (await api.client.get("/ready")).status_code == 200
        assert house.said("worker", "wakeups_away") <= 2 * (time.monotonic() - began) + 2, "it spins"

        await house.start_redis()
        await heals(house, works)

        async with house.redis() as redis:
            await redis.flushall()
        await works()
        await heals(house, works)

        async with house.redis_frozen():
            await works()
            await works()
        await heals(house, works)

        await house.end_redis()
        await works()
        await house.start_redis()
        await heals(house, works)

        async with house.redis_frozen():
            await works()
            assert await stopped(api.process, worker) <= STOP_SECONDS_MAX


async def heals(house: House, works: Callable[[], Awaitable[None]]) -> None:
    """Wait until hints flow again: an api listens, and a drain was begun by arq."""
    await until(house.is_listened_to)
    before = await house.jobs_begun()
    async with asyncio.timeout(HEAL_SECONDS_MAX):
        while await house.jobs_begun() <= before:
            await works()


@pytest.mark.feature("000-23", "003-33", "000-10")
async def test_a_restarted_or_full_postgres_and_a_late_queue(house: House) -> None:
    await house.start_redis()
    async with serving(house) as api:
        await asyncio.gather(*(api.recorded(house.event()) for _ in range(20)))  # every connection is open
        for _ in range(2):
            await house.servers.until_replaced(house.servers.kill_postgres())
            answers = await asyncio.gather(*(api.record(house.event()) for _ in range(5)))
            assert [answer.status_code for answer in answers] == [200] * 5

        house.operator = await asyncpg.connect(house.servers.addresses.database_url)
        full = house.event("full-1")
        await house.operator.execute(FULL)
        assert refused(await timed(api.record(full)))
        assert (await api.post(QUERY, Role.ADMIN, id=STEADY_CLASS)).status_code == 200  # reading goes on
        await house.operator.execute(ROOM_AGAIN)
        assert await api.recorded(full) == "ACCEPTED"
        assert await house.times_stored("full-") == {"full-1": 1}

        long_ago = datetime.now(UTC) - timedelta(seconds=400)
        await house.operator.execute(OLD_ROW, BYSTANDER, 0, long_ago)
        told: list[httpx.Response] = []

        async def is_told_to_wait() -> bool:
            told.append(await api.record(house.event()))
            return told[-1].status_code == 503

        await until(is_told_to_wait)
        assert refused(told[-1], "OVERLOADED")
        assert (await api.post(QUERY, Role.ADMIN, id=STEADY_CLASS)).status_code == 200

        async def is_taken_again() -> bool:
            return (await api.record(house.event())).status_code == 200

        await house.operator.execute("update outbox set lane = $1 where kind = 'EVENT' and seq = 0", BACKFILL_LANE)
        await until(is_taken_again)  # a backfill may take its time
        await house.operator.execute("delete from outbox where seq = 0")

        for _ in range(4):
            assert (await api.record(*(house.event() for _ in range(400)))).status_code == 200
        waiting = await house.operator.fetchval("select count(*) from outbox where tenant = $1", BYSTANDER)
        assert waiting > 0
        worker = await house.start("worker")
        async with api.following() as watcher, house.operator.transaction():
            await until(worker_has_begun(house, waiting), seconds=BOOT_SECONDS_MAX)
            await house.operator.execute("select 1 from tenant_head where tenant = $1 for update", BYSTANDER)
            in_flight = asyncio.create_task(api.record(house.event()))
            await until(house.holds_somebody_up)
            ending = asyncio.create_task(stopped(api.process, worker))
            await watcher.wait_closed()
            assert watcher.close_code == Close.RESTARTING
        answer = await in_flight
        assert answer.status_code == 200
        assert await ending <= STOP_SECONDS_MAX
        await house.operator.close()


def worker_has_begun(house: House, waiting: int) -> Callable[[], Awaitable[bool]]:
    """Whether some of what waited is folded."""

    async def has_begun() -> bool:
        now = await house.operator.fetchval("select count(*) from outbox where tenant = $1", BYSTANDER)
        return bool(now < waiting)

    return has_begun
