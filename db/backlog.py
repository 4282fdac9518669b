"""What an operator watches across tenants: how much waits, since when, and how many months of the log are made."""

from dataclasses import dataclass
from datetime import datetime

from db.pool import Pool, lent

COUNTED_MAX = 20_000  # rows counted one by one; a longer queue is told by Postgres's own running estimate
BACKLOG = "select queue_depth($1) as depth, oldest_waiting() as oldest, partitions_ahead($2) as months"


@dataclass(frozen=True, slots=True)
class Backlog:
    """The queue of all tenants and the log's months."""

    depth: int  # rows in the outbox: exact up to COUNTED_MAX
    oldest: datetime | None  # when the row that waits longest was stored
    months_ahead: int  # whole months after this one that are ready


async def backlog(pool: Pool, *, now: datetime) -> Backlog:
    """Look once; costs a few milliseconds also while half a million rows wait."""
    async with lent(pool) as connection:
        row = await connection.fetchrow(BACKLOG, COUNTED_MAX, now.date())
    assert row is not None, "a select without from has one row"
    return Backlog(depth=row["depth"], oldest=row["oldest"], months_ahead=row["months"])
