"""Postgres frozen, gone or full, Redis in every bad way: each answer is bounded, and all comes back by itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio

from db.outbox import BACKFILL_LANE
from graph.frames import Close
from rules.access import Role
from server.embedded import EmbeddedServers
from tests.chaos.cluster import STOP_SECONDS_MAX
from tests.chaos.world import BYSTANDER, STEADY_CLASS
from tests.journeys.premises import (
    ANSWER_SECONDS_MAX,
    BOOT_SECONDS_MAX,
    HEAL_SECONDS_MAX,
    QUERY,
    Api,
    House,
    codes,
    house_on,
    pushed,
    refused,
    servers_in,
    serving,
    so,
    stopped,
    timed,
    until,
)
from tests.support.folders import reachable_folder

FREEZE_SECONDS = 3.5  # longer than any answer may take
SENDERS = 40

SAVE_STUDENT = (
    "mutation ($input: SaveStudentInput!) { saveStudent(input: $input) { student { id } errors { code field } } }"
)

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


@pytest_asyncio.fixture(scope="module")
async def base() -> AsyncIterator[tuple[EmbeddedServers, Path]]:
    """The servers, for all journeys here."""
    with reachable_folder() as folder:
        async with servers_in(folder) as servers:
            yield servers, folder


@pytest_asyncio.fixture
async def house(base: tuple[EmbeddedServers, Path]) -> AsyncIterator[House]:
    """The house, with no process in it."""
    async with house_on(*base) as made:
        yield made


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
            assert response.status_code == 200 or codes(response) <= {"UNAVAILABLE", "OVERLOADED"}, response.text

    async with asyncio.TaskGroup() as group:
        for number in range(SENDERS):
            group.create_task(sends(number))
        await until(lambda: so(200 in answered))
        async with house.postgres_frozen():
            await asyncio.sleep(FREEZE_SECONDS)
        answered.clear()
        await until(lambda: so(200 in answered))
        is_over.set()
    assert slowest <= ANSWER_SECONDS_MAX
    assert set((await house.times_stored("traffic-")).values()) == {1}


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
