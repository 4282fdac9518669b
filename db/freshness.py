"""How far the folds have come: the position up to which every answer already counts all events (X-22)."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from db.pool import Connection, Pool, tenant_transaction

LAG_MS_MAX = 2**31 - 1  # what an Int can say: 24.8 days

# Recording and folding commit head and outbox together, so one snapshot cannot see a position without its waiting row.
# What is set aside is counted up to a bound: every read of every answer pays for it, on a bad day most of all. In the
# order of an index, or a bitmap of all of it would be made first.
WITHHELD_MAX = 1_000  # dead, and as many unrostered
FRESHNESS = f"""
select h.seq as head, first.seq as waiting_seq, first.received_at as waiting_since, event.received_at as event_since,
    (select count(*) from (
        select from dead_letter d where d.tenant = $1 order by d.source, d.event_id limit {WITHHELD_MAX}
    ) x)
        + (select count(*) from (
            select from unrostered u where u.tenant = $1 order by u.seq limit {WITHHELD_MAX}
        ) x) as withheld
from tenant_head h
left join lateral (
    select o.seq, o.received_at from outbox o where o.tenant = $1 order by o.seq limit 1
) first on true
left join lateral (
    select o.received_at from outbox o where o.tenant = $1 and o.kind = 'EVENT' order by o.seq limit 1
) event on true
where h.tenant = $1
"""  # noqa: S608 - a constant of ours
# Planned while the outbox is near-empty, the statement would scan and sort it for ever, also when a backlog has come.
BY_INDEX = "SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off"
# For short asks by one plan, made for any values: one of their own would cost each more than the look itself.
PLANNED_ONCE = f"{BY_INDEX}; SET LOCAL plan_cache_mode = force_generic_plan"


@dataclass(frozen=True, slots=True)
class Freshness:
    """A point of one tenant's log: every event up to `seq` is folded or set aside. A lower bound, never a promise of
    less than what the fields show."""

    seq: int
    time: datetime  # everything received before this moment is in
    withheld: int  # events set aside as dead or unrostered, up to WITHHELD_MAX of each
    lag_ms: int  # age of the oldest event that still waits, else 0


async def freshness(pool: Pool, tenant: int, *, now: datetime) -> Freshness:
    """Read the point at one moment, in a transaction of its own. Raises AssertionError for a tenant without a head."""
    async with tenant_transaction(pool, tenant, read_only=True, settings=BY_INDEX) as connection:
        return await freshness_within(connection, tenant, now=now)


async def freshness_within(connection: Connection, tenant: int, *, now: datetime) -> Freshness:
    """Read the point in a transaction that was begun with BY_INDEX; read it before what it is to speak for."""
    row = await connection.fetchrow(FRESHNESS, tenant)
    assert row is not None, f"tenant {tenant} has no head row"
    return freshness_of(row, now=now)


def freshness_of(row: asyncpg.Record, *, now: datetime) -> Freshness:
    """Read the columns of FRESHNESS."""
    is_caught_up = row["waiting_seq"] is None
    return Freshness(
        seq=row["head"] if is_caught_up else row["waiting_seq"] - 1,
        time=now if is_caught_up else row["waiting_since"],
        withheld=row["withheld"],
        lag_ms=0 if row["event_since"] is None else _milliseconds(now - row["event_since"]),
    )


def _milliseconds(age: timedelta) -> int:
    # Two machines' clocks may disagree by a little: an event from the future is 0 old.
    return min(max(age // timedelta(milliseconds=1), 0), LAG_MS_MAX)
