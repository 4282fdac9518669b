"""Tenants for tests: each test works in one of its own, so that none waits for another."""

from datetime import UTC, datetime
from itertools import count
from secrets import randbelow

from db.pool import Pool, tenant_transaction

_numbers = count(1)
_start = (randbelow(10**9) + 1) * 10**9  # processes that share a database (pytest-xdist, a second run) stay apart

SETUP = "insert into tenant (tenant, name, zone, created_at) values ($1, $2, $3, $4)"
SETUP_HEAD = "insert into tenant_head (tenant) values ($1)"


async def fresh_tenant(pool: Pool, *, zone: str = "UTC", name: str = "North District") -> int:
    """Make a tenant that nobody has used, with its head row, and return its number."""
    tenant = _start + next(_numbers)
    async with tenant_transaction(pool, tenant) as connection:
        await connection.execute(SETUP, tenant, name, zone, datetime(2026, 1, 1, tzinfo=UTC))
        await connection.execute(SETUP_HEAD, tenant)
    return tenant
