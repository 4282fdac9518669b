"""Two folds that meet for the first time in a class or a student: neither holds what the other waits for."""

import asyncio

import pytest

from db import assessment
from db.assessment import StudentLock
from db.live import Live
from db.pool import Connection, Pool, tenant_transaction
from tests.jobs.test_drain import NOW, mill_of

IS_WAITED_FOR = "select exists (select from pg_locks where not granted and locktype = 'transactionid')"
ADD = "insert into student_state (tenant, student) values ($1, $2)"
TAKE = "select from student_state where tenant = $1 and student = $2 for update nowait"


async def until_somebody_waits(connection: Connection) -> None:
    """Return once a transaction waits for another to end."""
    async with asyncio.timeout(10):
        while not await connection.fetchval(IS_WAITED_FOR):  # noqa: ASYNC110 - no event tells of a queue for a lock
            await asyncio.sleep(0.01)


@pytest.mark.feature("000-08")
async def test_who_must_wait_for_a_new_student_holds_no_older_one_meanwhile(pool: Pool, live: Live) -> None:
    """Locking what is there before adding what is new deadlocks with whoever sees the new one as there already."""
    tenant = (await mill_of(pool, live)).tenant
    async with tenant_transaction(pool, tenant) as connection:
        await connection.execute(ADD, tenant, "old")

    async def locked() -> dict[str, StudentLock]:
        async with tenant_transaction(pool, tenant) as connection:
            return await assessment.lock_students(connection, tenant, ["new", "old"], now=NOW)

    async with tenant_transaction(pool, tenant) as first:
        await first.execute(ADD, tenant, "new")
        second = asyncio.create_task(locked())
        async with tenant_transaction(pool, tenant) as third:
            await until_somebody_waits(third)
            await third.execute(TAKE, tenant, "old")  # raises LockNotAvailable where `second` holds it

    assert await second == {"new": StudentLock(0), "old": StudentLock(0)}
