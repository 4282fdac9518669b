"""A long history whose worker is killed in the middle: nothing half made is seen, nothing is done twice."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio

from db import background
from db.background import Job, JobKind, JobScope, JobState, Order
from db.live import Live
from db.pool import Pool, open_pool, tenant_transaction
from jobs.background import STALE_AFTER
from jobs.replay import difference, drift, stored
from tests.chaos.world import BYSTANDER, STEADY_CLASS, STEADY_STUDENTS
from tests.journeys.premises import BOOT_SECONDS_MAX, House, house_on, servers_in, until
from tests.support.events import Mill, graded
from tests.support.folders import reachable_folder

LONG, SHORT = 5_000, 300
LONG_STUDENT = "steady-4"
CORRUPT = "update standing set score = 999, count = 1 where tenant = $1"
LOCK = "select from standing where tenant = $1 and student = $2 for update"
HEAD = "select seq from tenant_head where tenant = $1"
AGE = "update job set beat_at = beat_at - $2::interval where tenant = $1"


@pytest_asyncio.fixture
async def pool(house: House) -> AsyncIterator[Pool]:
    """Connections to the house's own database."""
    opened = await open_pool(house.servers.addresses.database_url, size_max=4)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    """The house, with no process in it."""
    with reachable_folder() as folder:
        async with servers_in(folder) as servers, house_on(servers, folder) as made:
            yield made


async def told(mill: Mill) -> None:
    """Years of one student's work, and months of the others'."""
    since = datetime.now(UTC) - timedelta(days=3)
    for place in range(STEADY_STUDENTS):
        student = f"steady-{place}"
        count = LONG if student == LONG_STUDENT else SHORT
        for first in range(0, count, SHORT):
            await mill.record(
                *(
                    replace(
                        graded(f"{student}-{n}", student, n % 100 / 100, classroom=STEADY_CLASS),
                        assignment=f"w{n % 200}",
                        occurred_at=since + timedelta(seconds=n),
                    )
                    for n in range(first, min(first + SHORT, count))
                )
            )
    await mill.fold()


@pytest.mark.feature("002-09", "002-08", "002-01")
async def test_who_is_killed_in_a_long_history_leaves_it_as_it_was_and_the_next_goes_on_behind_the_last_step(
    house: House, pool: Pool, live: Live
) -> None:
    await house.start_redis()
    mill = Mill.of(pool, BYSTANDER, live, now=datetime.now(UTC))
    await told(mill)
    right = await stored(pool, BYSTANDER)
    await house.operator.execute(CORRUPT, BYSTANDER)
    wrong = await stored(pool, BYSTANDER)
    head = await house.operator.fetchval(HEAD, BYSTANDER)
    async with tenant_transaction(pool, BYSTANDER) as connection:
        order = Order(kind=JobKind.RECOMPUTE, scope=JobScope.TENANT)
        asked = await background.enqueue(connection, BYSTANDER, order, requested_by="head", now=mill.clock())

    async def job() -> Job:
        async with tenant_transaction(pool, BYSTANDER, read_only=True) as connection:
            return (await background.of_keys(connection, BYSTANDER, [asked.key]))[asked.key]

    async def is_done() -> bool:
        return (await job()).state is JobState.DONE

    holding = await asyncpg.connect(house.servers.addresses.database_url)
    holds = holding.transaction()
    await holds.start()
    await holding.execute(LOCK, BYSTANDER, LONG_STUDENT)
    first = await house.start("worker")
    await until(lambda: is_held_up(house), seconds=BOOT_SECONDS_MAX)
    first.kill()  # its transaction has read and folded 5,000 events, and is writing
    await first.wait()
    half, seen = await job(), await stored(pool, BYSTANDER)
    await holds.rollback()
    await holding.close()
    await house.operator.execute(AGE, BYSTANDER, STALE_AFTER)
    await house.start("worker")
    await until(is_done, seconds=BOOT_SECONDS_MAX)
    await until(house.is_folded)

    assert (half.state, half.done, half.checkpoint["after"]) == (JobState.RUNNING, 4, LONG_STUDENT)
    for table in ("standings", "works", "views"):
        for key, value in getattr(seen, table).items():
            before = right if key[0] < LONG_STUDENT else wrong
            assert value == getattr(before, table)[key]
    assert seen.standings.keys() == right.standings.keys()
    assert difference(await stored(pool, BYSTANDER), right) == []
    assert await drift(pool, BYSTANDER, now=mill.clock()) == []
    # Each student was touched once, and the class: nobody began again.
    assert await house.operator.fetchval(HEAD, BYSTANDER) == head + STEADY_STUDENTS + 1


async def is_held_up(house: House) -> bool:
    """Whether a fold waits for the row that we hold."""
    waits = """select exists (select from pg_stat_activity
        where cardinality(pg_blocking_pids(pid)) > 0 and query ilike '%standing%')"""
    return bool(await house.operator.fetchval(waits))
