"""A tenant restored from a backup beside running workers: nothing that they know of the lost days is believed."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import count

import asyncpg
import pytest

from db.live import Live
from db.outbox import SHARDS
from db.pool import Pool
from jobs.drain import Drain
from jobs.replay import drift
from tests.rows.district import District
from tests.support.events import Mill, graded
from tests.support.tenants import fresh_tenant

NOW = datetime(2026, 3, 3, 9, 0, tzinfo=UTC)
TABLES = """
select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant'
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
"""


class Backup:
    """A tenant's rows as they are, to be put back into the running server (docs/operations.md)."""

    def __init__(self, owner: asyncpg.Connection, tenant: int) -> None:
        self.owner, self.tenant = owner, tenant
        self.tables: list[str] = []

    async def take(self) -> None:
        self.tables = [row["relname"] for row in await self.owner.fetch(TABLES)]
        for table in self.tables:
            await self.owner.execute(
                f"create temp table kept_{table} as select * from {table} where tenant = {self.tenant}"  # noqa: S608
            )

    async def restore(self, *, is_told: bool = True) -> None:
        """Put the rows back, and raise the epoch, as whoever restores is asked to."""
        async with self.owner.transaction():
            await self.owner.execute("set local session_replication_role = replica")
            for table in self.tables:
                await self.owner.execute(f"delete from {table} where tenant = {self.tenant}")  # noqa: S608
                await self.owner.execute(f"insert into {table} select * from kept_{table}")  # noqa: S608
            if is_told:
                await self.owner.execute("update tenant set epoch = epoch + 1 where tenant = $1", self.tenant)


@pytest.fixture
async def school(pool: Pool, live: Live) -> AsyncIterator[tuple[Mill, District]]:
    """Class 7b with three students, of whom the third is still without events."""
    tenant = await fresh_tenant(pool)
    district = District(pool, tenant, count(1))
    await district.classroom("7b")
    for student in ("s1", "s2", "s3"):
        await district.enroll(student)
    mill = Mill.of(pool, tenant, live, now=NOW)
    await mill.recorded_and_folded([graded("e1", "s1", 0.5), graded("e2", "s2", 0.7)])
    yield mill, district
    assert await mill.rows("select event_id from unrostered where tenant = $1") == []
    assert await mill.rows("select event_id, error from dead_letter where tenant = $1") == []
    assert await drift(pool, tenant, now=mill.clock()) == []


@pytest.fixture
async def backup(database_url: str, school: tuple[Mill, District]) -> AsyncIterator[Backup]:
    """The backup of that school, not yet taken."""
    owner = await asyncpg.connect(database_url)
    yield Backup(owner, school[0].tenant)
    await owner.close()


@pytest.mark.feature("000-08")
@pytest.mark.parametrize("is_told", [True, False])
async def test_a_student_first_folded_after_the_backup_is_on_the_roster_after_the_restore(
    school: tuple[Mill, District], backup: Backup, is_told: bool
) -> None:
    mill, _ = school
    lost = graded("e9", "s3", 0.9, at=1)
    await backup.take()
    await mill.recorded_and_folded([lost])

    await backup.restore(is_told=is_told)
    await mill.recorded_and_folded([lost])  # the sender repeats it

    assert await mill.rows("select count from standing where tenant = $1 and student = 's3' and classroom = ''") == [
        (1,)
    ]


@pytest.mark.feature("000-08")
@pytest.mark.parametrize("is_told", [True, False])
async def test_a_class_first_folded_after_the_backup_is_folded_after_the_restore(
    school: tuple[Mill, District], backup: Backup, is_told: bool
) -> None:
    mill, district = school
    lost = graded("e9", "s1", 0.9, at=1, classroom="9a")
    await district.classroom("9a")
    await district.enroll("s1", "9a")
    await backup.take()
    await mill.recorded_and_folded([lost])

    await backup.restore(is_told=is_told)
    await mill.recorded_and_folded([lost])

    assert await mill.rows("select average_score from classroom_state where tenant = $1 and classroom = '9a'") == [
        (900,)
    ]


@pytest.mark.feature("000-08")
async def test_after_a_restore_a_number_that_comes_again_is_not_taken_for_the_lost_one(
    school: tuple[Mill, District], backup: Backup, pool: Pool, live: Live
) -> None:
    mill, _ = school
    other = Drain(pool, mill.clock, live)
    await backup.take()
    await mill.recorded_and_folded([graded("lost", "s1", 0.1, at=1)])

    await backup.restore()
    await mill.record(graded("e5", "s1", 0.9, at=2))
    for shard in range(SHARDS):
        await other.shard(mill.tenant, shard)
    await mill.recorded_and_folded([graded("e6", "s1", 0.8, at=3)])

    assert await mill.rows("select count from standing where tenant = $1 and student = 's1' and classroom = '7b'") == [
        (3,)
    ]
