"""What an operator's process reads across tenants: where work waits and which class's moment has come, no more."""

from datetime import datetime, timedelta

from db.pool import Pool, lent
from db.wake import Shard

WAITING = "select tenant, shard from waiting_shards()"
DUE = "select tenant, classroom from due_classrooms($1, $2)"
MAKE_PARTITIONS = "select make_event_partitions($1, $2)"


async def waiting(pool: Pool) -> list[Shard]:
    """Every (tenant, shard) with an outbox row."""
    async with lent(pool) as connection:
        return [(row["tenant"], row["shard"]) for row in await connection.fetch(WAITING)]


async def due_classrooms(pool: Pool, *, now: datetime, at_most: int) -> list[tuple[int, str]]:
    """Classes whose `reassess_at` has passed."""
    async with lent(pool) as connection:
        return [(row["tenant"], row["classroom"]) for row in await connection.fetch(DUE, now, at_most)]


async def make_partitions(pool: Pool, *, now: datetime, months: int) -> int:
    """Make the log's months ahead, from last month on; returns how many were missing."""
    async with lent(pool) as connection:
        made: int = await connection.fetchval(MAKE_PARTITIONS, (now.replace(day=1) - timedelta(days=1)).date(), months)
        return made
