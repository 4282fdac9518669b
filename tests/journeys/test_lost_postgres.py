"""Postgres goes away for a moment: what the processes make of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from db.health import is_away
from db.migrate import migrate
from db.pool import LOST, Pool, open_pool, tenant_transaction
from server.embedded import EmbeddedServers
from server.engine import means
from server.settings import Settings
from tests.support.folders import reachable_folder


@pytest_asyncio.fixture(scope="module")
async def own_servers() -> AsyncIterator[EmbeddedServers]:
    """Servers that no other test stands on."""
    with reachable_folder() as folder:
        async with EmbeddedServers(Path(folder), durable=False) as running:
            await migrate(running.addresses.database_url)
            yield running


async def asked_after_its_server_ended(pool: Pool, database_url: str, *, turns: int) -> None:
    """Open a transaction, end its server process while it is idle, and ask after so many turns of the loop."""
    operator = await asyncpg.connect(database_url)
    try:
        async with tenant_transaction(pool, 1) as connection:
            await operator.fetchval("select pg_terminate_backend($1, 5000)", connection.get_server_pid())
            for _ in range(turns):
                await asyncio.sleep(0)
            await connection.fetchval("select 1")
    finally:
        await operator.close()


@pytest.mark.feature("000-23")
@pytest.mark.parametrize("turns", range(4))  # its last words and its end arrive one after the other
async def test_a_connection_that_dies_between_two_commands_is_a_lost_one(
    pool: Pool, database_url: str, turns: int
) -> None:
    with pytest.raises(LOST):
        await asked_after_its_server_ended(pool, database_url, turns=turns)


@pytest.mark.feature("000-23")
async def test_a_pooled_connection_that_died_unnoticed_reaches_nobody(database_url: str) -> None:
    operator = await asyncpg.connect(database_url)
    own = await open_pool(database_url, size_max=1, size_idle=1)
    try:
        for _ in range(10):
            async with tenant_transaction(own, 1) as connection:
                pid = connection.get_server_pid()
            await operator.fetchval("select pg_terminate_backend($1, 5000)", pid)
            async with tenant_transaction(own, 1) as connection:
                assert connection.get_server_pid() != pid
    finally:
        await own.close()
        await operator.close()


def test_what_asyncpg_says_of_such_a_connection_means_come_back_later() -> None:
    """The driver's state machine refuses the command when the server's last words came first."""
    assert is_away(asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress"))


@pytest.mark.feature("000-23")
async def test_a_process_that_starts_while_postgres_restarts_waits_for_it(own_servers: EmbeddedServers) -> None:
    addresses = own_servers.addresses
    given = {"DATABASE_URL": addresses.database_url, "REDIS_URL": addresses.redis_url, "JWT_SECRET": "x1y2z3w4" * 8}

    pid = own_servers.kill_postgres()
    async with means(Settings.read(given), addresses) as opened, opened.pool.acquire() as connection:
        found = await connection.fetchval("select 1")

    await own_servers.until_replaced(pid)
    assert found == 1
