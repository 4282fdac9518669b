"""Whether the fold of a tenant has fallen so far behind that its intake must wait (003-33)."""

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime, timedelta

from db.outbox import LIVE_LANE, SHARDS
from db.pool import LOST, Pool, tenant_transaction

log = logging.getLogger(__name__)

LATE_AFTER = timedelta(seconds=300)
LOOK_SECONDS = 1.0  # a tenant is looked at this often at most, and only while something is sent
TENANTS_MAX = 10_000

# The oldest of all lanes is one step of an index; only where that is late, as during a backfill, the live lane is
# looked into, shard by shard along the outbox's key.
LATE = f"""
select coalesce((
    select o.received_at < $2 from outbox o where o.tenant = $1 and o.kind = 'EVENT' order by o.seq limit 1
), false) and exists (
    select from generate_series(0, {SHARDS - 1}) as s (shard)
    where exists (
        select from outbox o
        where o.tenant = $1 and o.shard = s.shard and o.lane = {LIVE_LANE} and o.kind = 'EVENT' and o.received_at < $2
    )
)
"""  # noqa: S608 - constants of ours
BY_INDEX = "SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off"  # planned for an empty outbox it scans


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen, and when by the clock of the loop."""

    at: float
    is_late: bool


class Pressure:
    """Looks at the queue beside the requests; one per process.

    A request learns what the last look saw. Only where that was "late" and is old, it waits for a new look: nobody is
    refused for what was true a while ago.
    """

    def __init__(self, pool: Pool, *, clock: Callable[[], datetime]) -> None:
        self._pool = pool
        self._clock = clock
        self._seen: dict[int, _Look] = {}
        self._looking: dict[int, asyncio.Task[bool]] = {}

    async def is_late(self, tenant: int) -> bool:
        """Whether a live event of the tenant has waited for more than LATE_AFTER."""
        known = self.known(tenant)
        return await asyncio.shield(self._looking[tenant]) if known is None else known

    def known(self, tenant: int) -> bool | None:
        """The same without waiting; None where only the look that is under way can say."""
        seen = self._seen.get(tenant)
        if seen is not None and asyncio.get_running_loop().time() - seen.at < LOOK_SECONDS:
            return seen.is_late
        if tenant not in self._looking:
            self._looking[tenant] = asyncio.create_task(self._look(tenant), context=Context())  # of no trace
        return None if seen is not None and seen.is_late else False

    async def aclose(self) -> None:
        """Let the looks in flight end."""
        await asyncio.gather(*self._looking.values())

    async def _look(self, tenant: int) -> bool:
        is_late = False
        try:
            async with tenant_transaction(self._pool, tenant, read_only=True, settings=BY_INDEX) as connection:
                is_late = bool(await connection.fetchval(LATE, tenant, self._clock() - LATE_AFTER))
        except Exception as error:
            if not isinstance(error, LOST):
                log.warning("pressure_unknown", extra={"error": type(error).__name__})
        finally:
            del self._looking[tenant]
        if len(self._seen) >= TENANTS_MAX:
            self._seen.clear()
        self._seen[tenant] = _Look(asyncio.get_running_loop().time(), is_late)
        return is_late
