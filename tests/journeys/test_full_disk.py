"""A disk that is really full: recording is refused and comes back with the first room, and no answer is taken back."""

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio

from rules.access import Role
from tests.chaos.world import STEADY_CLASS
from tests.journeys.premises import (
    BOOT_SECONDS_MAX,
    QUERY,
    Api,
    House,
    house_on,
    refused,
    servers_in,
    serving,
    timed,
    until,
)
from tests.support.folders import reachable_folder

LEFT_OUT = "LEFT OUT: the full disk; it needs a Linux machine whose user may mount a tmpfs (root, CAP_SYS_ADMIN)"
ROOM_BYTES = 32 * 2**20
ROUNDS_MAX = 100
BULK = 400
pytestmark = pytest.mark.feature("000-23")


@dataclass(frozen=True, slots=True)
class Disk:
    """A small file system that one folder of Postgres lives on."""

    folder: Path

    @contextmanager
    def filled(self) -> Iterator[None]:
        """No byte is left, until the end."""
        filler = self.folder / "filler"
        left = os.statvfs(self.folder)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, left.f_bavail * left.f_frsize)
        try:
            yield
        finally:
            filler.unlink()


@contextmanager
def moved_to_a_small_disk(folder: Path) -> Iterator[Disk]:
    """Put a file system of its own under a folder; it is gone at the end, the folder as it was before stays aside."""
    owner, aside = folder.stat(), folder.with_name(f"{folder.name}.aside")
    used = sum(one.stat().st_blocks * 512 for one in folder.rglob("*"))
    folder.rename(aside)
    folder.mkdir()
    size = f"size={used + ROOM_BYTES},mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(LEFT_OUT)
    try:
        subprocess.run(["cp", "-a", f"{aside}/.", str(folder)], check=True)
        yield Disk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@dataclass(frozen=True, slots=True)
class Premises:
    """A house whose tables and whose write-ahead log each have a small disk."""

    house: House
    tables: Disk
    changes: Disk


@pytest_asyncio.fixture
async def premises() -> AsyncIterator[Premises]:
    """The house, with no process in it, on servers that flush what they acknowledge."""
    if os.geteuid() != 0:
        pytest.skip(LEFT_OUT)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(reachable_folder())
        disks = stack.enter_context(ExitStack())  # they go after the servers
        servers = await stack.enter_async_context(servers_in(folder, durable=True))
        await servers.stop()
        cluster = servers.data_dir / "postgres"
        tables = disks.enter_context(moved_to_a_small_disk(cluster / "base"))
        changes = disks.enter_context(moved_to_a_small_disk(cluster / "pg_wal"))
        await servers.start()
        house = await stack.enter_async_context(house_on(servers, folder))
        await house.start_redis()
        yield Premises(house, tables, changes)


@dataclass(slots=True)
class Sender:
    """Sends events under ids of its own, and remembers what was acknowledged."""

    house: House
    api: Api
    count: int = 0
    acknowledged: int = 0

    async def sends(self, events: int = BULK) -> httpx.Response:
        """Record the next events; if they are refused, they are sent again the next time."""
        bulk = [self.house.event(f"disk-{self.count + number}") for number in range(events)]
        response = await timed(self.api.record(*bulk))
        if response.status_code == 200:
            self.count += events
            self.acknowledged = self.count
        return response

    async def sends_until_refused(self, *, each_in_a_new_file: bool = False) -> None:
        """Record until there is no room, for the tables or in the files of the write-ahead log."""
        for _ in range(ROUNDS_MAX):
            if each_in_a_new_file:
                with suppress(
                    asyncpg.PostgresError, asyncpg.InterfaceError, OSError
                ):  # what it dies of, it may die of here
                    await self.house.operator.execute("select pg_switch_wal()")
            if (response := await self.sends()).status_code != 200:
                assert refused(response)
                return
        raise AssertionError(f"{self.count} events found room on a full disk")

    async def works_again(self) -> bool:
        """Whether recording works."""
        return (await self.sends()).status_code == 200

    async def reads(self) -> int:
        """The status of a read."""
        return (await timed(self.api.post(QUERY, Role.ADMIN, id=STEADY_CLASS))).status_code


async def kept_and_counted(sender: Sender) -> None:
    """All that was acknowledged stands once, and is folded."""
    house = sender.house
    stored = await house.times_stored("disk-")
    assert {f"disk-{number}" for number in range(sender.acknowledged)} <= stored.keys()
    assert set(stored.values()) == {1}
    await until(house.is_folded, seconds=BOOT_SECONDS_MAX)


@pytest.mark.timeout(90)
async def test_a_full_disk_refuses_recording_alone_and_keeps_every_answer(premises: Premises) -> None:
    house = premises.house
    postmaster = house.servers.postgres_pid
    async with serving(house) as api:
        worker = await house.start("worker")
        sender = Sender(house, api)
        assert (await sender.sends()).status_code == 200

        with premises.tables.filled():
            await sender.sends_until_refused()
            assert refused(await sender.sends())  # the same again
            assert await sender.reads() == 200
            assert (await api.client.get("/ready")).status_code == 200

        assert (await sender.sends()).status_code == 200  # the first with room
        assert (house.servers.postgres_pid, worker.returncode, api.process.returncode) == (postmaster, None, None)
        await kept_and_counted(sender)

        with premises.changes.filled():  # Postgres ends itself rather than go on without its log
            await sender.sends_until_refused(each_in_a_new_file=True)
            assert refused(await sender.sends())

        await until(sender.works_again, seconds=BOOT_SECONDS_MAX)
        assert (worker.returncode, api.process.returncode) == (None, None)
        await house.servers.until_ready()
        house.operator = await asyncpg.connect(house.servers.addresses.database_url)
        await kept_and_counted(sender)
