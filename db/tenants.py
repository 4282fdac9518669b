"""Tenants: made with their place in the log, and found again."""

from dataclasses import dataclass
from datetime import datetime

from db.pool import Connection


@dataclass(frozen=True, slots=True)
class TenantEntry:
    """A tenant as it is kept; `created_at` is when it was made first."""

    tenant: int
    name: str
    zone: str
    created_at: datetime


MAKE_TENANT = """
insert into tenant (tenant, name, zone, created_at) values ($1, $2, $3, $4) on conflict (tenant) do nothing
"""
MAKE_HEAD = "insert into tenant_head (tenant) values ($1) on conflict (tenant) do nothing"
TENANT = "select tenant, name, zone, created_at from tenant where tenant = $1"


async def make_tenant(connection: Connection, tenant: int, *, name: str, zone: str, now: datetime) -> TenantEntry:
    """Make a tenant unless it is there, and return it as it is kept."""
    await connection.execute(MAKE_TENANT, tenant, name, zone, now)
    await connection.execute(MAKE_HEAD, tenant)
    return TenantEntry(**await connection.fetchrow(TENANT, tenant))
