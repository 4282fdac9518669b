"""Attempts at rows that have waited long: noted before the work, gone with it, left behind by whoever died of it.

A note is written on a connection of its own while the working transaction holds the rows, and a lock of the note's
name: whoever gets that lock knows that the writer is gone. The table is unlogged: its commits wait for no flush, and
a crash of Postgres, which blames no event, forgets all notes.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from db.pool import Connection, Pool, tenant_transaction

KEPT_FOR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Left:
    """An attempt that nobody ended: the positions of its rows, how many, and how often it was made."""

    first: int
    last: int
    rows: int
    attempts: int

    @property
    def is_of_one(self) -> bool:
        """Whether it was at one row alone, which then is the one at fault."""
        return self.rows == 1


NAME = "select pg_advisory_xact_lock(hashtextextended($1, 0))"

# `offset 0`: only notes at these positions are asked for their locks. Who is alive holds theirs and is left out.
OVERLAPPING = """
select c.first_seq as first, c.last_seq as last, c.rows, c.attempts
from (
    select * from claim
    where tenant = $1 and shard = $2 and first_seq <= $4 and last_seq >= $3
    offset 0
) c
where c.tenant = $1 and pg_try_advisory_xact_lock(hashtextextended(c.token, 0))
"""

FORGET = "delete from claim where tenant = $1 and shard = $2 and first_seq <= $3 and last_seq >= $3"

# The attempts at one row add up; those at several are told apart by making the next one smaller.
NOTE = """
with earlier as (
    delete from claim
    where tenant = $1 and shard = $2 and rows = 1 and $6 = 1 and first_seq = $4
    returning attempts
)
insert into claim (tenant, shard, token, first_seq, last_seq, rows, attempts, at)
select $1, $2, $3, $4, $5, $6, 1 + coalesce((select max(attempts) from earlier), 0), $7
"""

END = """
delete from claim
where tenant = $1 and shard = $2
    and (token = $3 or (first_seq >= $4 and last_seq <= $5) or at < $6)
"""

TAKE_BACK = """
with lowered as (
    update claim set attempts = attempts - 1
    where tenant = $1 and shard = $2 and token = $3 and attempts > 1 returning token
)
delete from claim
where tenant = $1 and shard = $2 and token = $3 and not exists (select from lowered)
"""


async def name(connection: Connection, token: str) -> None:
    """Hold the name of a coming note until the end of the transaction that does the work."""
    await connection.execute(NAME, token)


async def left_at(connection: Connection, tenant: int, shard: int, *, first: int, last: int) -> list[Left]:
    """The attempts at any of these positions whose writers are gone."""
    return [Left(**row) for row in await connection.fetch(OVERLAPPING, tenant, shard, first, last)]


async def note(
    pool: Pool, tenant: int, shard: int, *, token: str, first: int, last: int, rows: int, now: datetime
) -> None:
    """Note an attempt, committed before it is made."""
    async with tenant_transaction(pool, tenant) as connection:
        await connection.execute(NOTE, tenant, shard, token, first, last, rows, now)


async def end(
    connection: Connection, tenant: int, shard: int, *, token: str, first: int, last: int, now: datetime
) -> None:
    """Forget an attempt in the transaction that commits its work, and what was left of earlier ones at its rows."""
    await connection.execute(END, tenant, shard, token, first, last, now - KEPT_FOR)


async def forget(connection: Connection, tenant: int, shard: int, *, seq: int) -> None:
    """Forget every attempt at this position: its row is known as the one at fault, and set aside."""
    await connection.execute(FORGET, tenant, shard, seq)


async def take_back(pool: Pool, tenant: int, shard: int, *, token: str) -> None:
    """An attempt that failed without taking its process along does not count."""
    async with tenant_transaction(pool, tenant) as connection:
        await connection.execute(TAKE_BACK, tenant, shard, token)
