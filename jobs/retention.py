"""Retention: finished jobs, drift reports and flag transitions go after seven days, a bounded number at a time.

Deleting what is old twice deletes it once, so every worker may do it. A stream whose token is older than what is kept
gets RESYNC: the first transition that is left tells from where on a class is whole.
"""

import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

from db import retention
from db.pool import Pool, tenant_transaction

log = logging.getLogger(__name__)

KEPT_FOR = timedelta(days=7)
EVERY = timedelta(hours=1)
TENANTS_AT_ONCE = 100
ROWS_MAX = 500  # of one kind in one transaction; of flag transitions, of one class
CLASSROOMS_AT_ONCE = 20
ROUNDS_MAX = 1_000  # of one kind, tenant and hour: what is left goes in the next


class Retention:
    """One per worker."""

    def __init__(self, pool: Pool, clock: Callable[[], datetime], is_over: Callable[[], bool] = lambda: False) -> None:
        self._pool = pool
        self._clock = clock
        self._is_over = is_over
        self._done_at: datetime | None = None

    async def if_due(self) -> None:
        """Once an hour, forget what is old; the log says how many rows of each kind went."""
        now = self._clock()
        if self._done_at is None or now - self._done_at >= EVERY:
            gone = await self.once()
            self._done_at = now
            if gone.total():
                log.info("retention", extra=dict(gone))

    async def once(self) -> Counter[str]:
        """Go through all tenants; returns the rows that went, by kind."""
        before, gone, last = self._clock() - KEPT_FOR, Counter[str](), -(2**63)
        while page := await retention.tenants(self._pool, after=last, at_most=TENANTS_AT_ONCE):
            for tenant in page:
                if self._is_over():
                    return gone
                gone += await self._of_tenant(tenant, before)
            last = page[-1]
        return gone

    async def _of_tenant(self, tenant: int, before: datetime) -> Counter[str]:
        gone = Counter[str]()
        for name, forget in (("jobs", retention.forget_jobs), ("drift_reports", retention.forget_drift_reports)):
            for _ in range(ROUNDS_MAX):
                async with tenant_transaction(self._pool, tenant) as connection:
                    count = await forget(connection, tenant, before=before, at_most=ROWS_MAX)
                gone[name] += count
                if count < ROWS_MAX:
                    break
        gone["risk_changes"] = await self._risk_changes(tenant, before)
        return gone

    async def _risk_changes(self, tenant: int, before: datetime) -> int:
        total, after = 0, ""
        for _ in range(ROUNDS_MAX):
            async with tenant_transaction(self._pool, tenant) as connection:
                count, last = await retention.forget_risk_changes(
                    connection, tenant, before=before, at_most=ROWS_MAX, after=after, classrooms=CLASSROOMS_AT_ONCE
                )
            total += count
            if last is None:
                break
            after = last if count < ROWS_MAX else after  # a class with more is looked at again
        return total
