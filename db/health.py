"""Whether Postgres answers, and stands at a schema that this code works with."""

import asyncio
from dataclasses import dataclass, field

import asyncpg

from db.migrate import Schema, schema_of
from db.pool import ACQUIRE_SECONDS, LOST, Pool, lent, tenant_transaction

PING_MS = 500


async def is_reachable(pool: Pool, tenant: int) -> bool:
    """Whether a statement comes back within half a second of having a connection."""
    try:
        async with tenant_transaction(pool, tenant, read_only=True, limit_ms=PING_MS) as connection:
            await connection.execute("select 1")
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


def is_away(error: BaseException) -> bool:
    """Whether an error says that Postgres is away, frozen or full, and the same request may work later."""
    return isinstance(error, (*LOST, asyncpg.QueryCanceledError))


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether Postgres answers, and where its schema stands."""

    is_up: bool
    schema: Schema = field(default_factory=Schema)


async def standing_of(pool: Pool) -> Standing:
    """Ask Postgres for its schema, with half a second of patience."""
    try:
        async with asyncio.timeout(PING_MS / 1000 + ACQUIRE_SECONDS), lent(pool) as found:
            return Standing(is_up=True, schema=await schema_of(found))
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return Standing(is_up=False)
