"""Which fold a tenant's numbers need: a worker of an older release leaves what a newer one has begun to fold (X-38).

Whoever folds holds the tenant's level as it is until the commit, so that no older fold commits after a newer one began.
"""

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from db.pool import Connection, Pool, tenant_transaction

_FOLDING = 7_204_002  # the advisory locks of folds, one per tenant; any number that nothing else in the database uses
_HOLD_MS = 500  # below what a BEGIN may take; only a level that is being raised is waited for
_RAISE_MS = 2_000  # below what a statement may take

LEVEL = "select fold_level from tenant where tenant = $1"
GROUND = "select fold_level, pg_postmaster_start_time() as server_began, epoch from tenant where tenant = $1"
RAISE = "update tenant set fold_level = $2 where tenant = $1 and fold_level < $2"
# Two numbers of 32 bits: tenants that share one wait a little longer when a level is raised.
LOCK = "select pg_advisory_xact_lock($1, $2)"


@dataclass(frozen=True, slots=True)
class Era:
    """Within which a tenant's change numbers mean the same: one run of one server, and no restore of the tenant."""

    server_began: datetime | None = None
    epoch: int = 0  # grows when the tenant is restored


def held(tenant: int) -> str:
    """The commands, for the BEGIN of a fold, that keep the tenant's level as it is until the transaction ends.

    They raise LockNotAvailableError while the level is being raised.
    """
    lock = f"SELECT pg_advisory_xact_lock_shared({_FOLDING}, {_place(tenant)})"
    return f"SET LOCAL lock_timeout = {_HOLD_MS}; {lock}; SET LOCAL lock_timeout = 0"


async def of_tenant(connection: Connection, tenant: int) -> int:
    """The level of the newest fold that has begun on the tenant; 0 for an unknown tenant."""
    level: int | None = await connection.fetchval(LEVEL, tenant)
    return level or 0


async def ground_of(connection: Connection, tenant: int) -> tuple[int, Era]:
    """The same, and the era: another server, or a restored tenant, may never have heard of our last commits."""
    row = await connection.fetchrow(GROUND, tenant)
    return (0, Era()) if row is None else (row["fold_level"] or 0, Era(row["server_began"], row["epoch"]))


async def raise_to(pool: Pool, tenant: int, level: int) -> bool:
    """Keep the tenant for folds of this level and above from now on; False where folds in flight go on for too long.

    Folds that ask while this waits are sent away to try again, so that it is not starved.
    """
    try:
        async with tenant_transaction(pool, tenant, settings=f"SET LOCAL lock_timeout = {_RAISE_MS}") as connection:
            await connection.execute(LOCK, _FOLDING, _place(tenant))
            await connection.execute(RAISE, tenant, level)
    except asyncpg.LockNotAvailableError:
        return False
    return True


def _place(tenant: int) -> int:
    return tenant % 2**31
