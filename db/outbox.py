"""The outbox: what waits to be folded, put there by whatever changes an input of the fold."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from db.pool import Connection
from rules.kinds import StoredWord
from rules.value import Value

# Per tenant: a class has one shard, so its lock is not fought over. More of them would cut the same events into
# smaller transactions, each with some 25 statements of its own.
SHARDS = 4
LIVE_LANE = 0
BACKFILL_LANE = 1


class Waiting(StoredWord):
    """What an outbox row asks for."""

    EVENT = "EVENT"  # fold this event
    TOUCH_STUDENT = "TOUCH_STUDENT"  # replay the student's views: one class, or all of them when classroom is ""
    TOUCH_CLASSROOM = "TOUCH_CLASSROOM"  # assess the class again: roster, assignments or inactivity policy changed
    REFOLD_CLASSROOM = "REFOLD_CLASSROOM"  # replay every student's view of the class: it arrived, or its model changed


_WAITING = {kind.value: kind for kind in Waiting}


@dataclass(frozen=True, slots=True)
class Touch:
    """An input of the fold that changed without an event."""

    kind: Waiting
    student: str = ""
    classroom: str = ""

    @property
    def shard(self) -> int:
        """Where the touch waits: beside the events of its class."""
        return shard_of(classroom=self.classroom, student=self.student)


def shard_of(*, classroom: str, student: str) -> int:
    """The shard of an event or touch: its class's, or its student's where there is no class."""
    return zlib.crc32((classroom or student).encode()) % SHARDS


TOUCH = """
with head as (
    update tenant_head set seq = seq + cardinality($2::text[]) where tenant = $1 returning seq
), queued as (
    insert into outbox (tenant, shard, lane, occurred_at, seq, kind, student, classroom, received_at)
    select $1, t.shard, $7, $6, head.seq - t.place + 1, t.kind, t.student, t.classroom, $6
    from head, unnest($2::text[], $3::text[], $4::text[], $5::smallint[])
        with ordinality as t (kind, student, classroom, shard, place)
)
select seq from head
"""


async def touch(
    connection: Connection, tenant: int, touches: Sequence[Touch], *, now: datetime, lane: int = LIVE_LANE
) -> int:
    """Let the fold look again at what a roster, catalog or policy change touched; returns the new log position.

    The touches take the positions up to it, in the order given. Runs in the transaction of the change, and locks the
    tenant's head row until that commits.
    """
    seq: int | None = await connection.fetchval(
        TOUCH,
        tenant,
        [t.kind.value for t in touches],
        [t.student for t in touches],
        [t.classroom for t in touches],
        [t.shard for t in touches],
        now,
        lane,
    )
    assert seq is not None, f"tenant {tenant} has no head row"
    return seq


class Claimed(Value, frozen=True):
    """One waiting row, locked by the claiming transaction."""

    place: str  # its ctid, stable while the lock is held
    kind: Waiting
    student: str
    classroom: str
    occurred_at: datetime
    seq: int
    received_at: datetime
    traceparent: str | None
    packed: bytes | None = None  # the event itself: `db.parcels`


# Analyzed while near-empty, the outbox would be read and sorted whole for each claim of a backlog (measured: 0 rows/s).
# Without sorting off it may still read all of the tenant's backlog by another index and sort that.
CLAIM_SETTINGS = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"

CLAIM = """
select ctid::text as place, kind, student, classroom, occurred_at, seq, received_at, traceparent, packed
from outbox
where tenant = $1 and shard = $2
order by lane, occurred_at, seq
limit $3
for update skip locked
"""

# The same belief makes a walk through all of the tenant's backlog look cheaper than going to each row's place.
BY_PLACE = "SET LOCAL enable_indexscan = off"

DELETE = "delete from outbox where tenant = $1 and ctid = any($2::text[]::tid[])"

EXPAND = """
insert into outbox (tenant, shard, lane, occurred_at, seq, kind, student, classroom, received_at)
select $1, $2, 0, $4::timestamptz + s.place * interval '1 microsecond', $5, 'TOUCH_STUDENT', s.student, $3, $6
from (
    select u.student, row_number() over (order by u.student) as place
    from (
        select e.student from event e where e.tenant = $1 and e.classroom = $3 and e.student <> ''
        union
        select v.student from view_state v where v.tenant = $1 and v.classroom = $3
        union  -- all classes: also whose first event is being folded under the earlier policy this very moment
        select s.student from student s where s.tenant = $1 and $3 = ''
    ) u
) s
"""


async def claim(connection: Connection, tenant: int, shard: int, *, limit: int) -> list[Claimed]:
    """Lock up to `limit` waiting rows of one shard in fold order, live ones first; rows others hold are passed over."""
    rows = await connection.fetch(CLAIM, tenant, shard, limit)
    # In the order of CLAIM's columns; a word of a newer release raises NewerWord.
    return [
        Claimed(place, _WAITING.get(kind) or Waiting(kind), student, classroom, at, seq, received_at, trace, packed)
        for place, kind, student, classroom, at, seq, received_at, trace, packed in rows
    ]


STILL_WAITING = "select count(*) from outbox where tenant = $1 and seq between $2 and $3 and lane = $4"


async def still_waiting(connection: Connection, tenant: int, *, first: int, last: int, lane: int) -> int:
    """How many rows of these positions and this lane are not folded yet."""
    count: int = await connection.fetchval(STILL_WAITING, tenant, first, last, lane)
    return count


async def delete(connection: Connection, tenant: int, claimed: Sequence[Claimed]) -> None:
    """Delete claimed rows in the transaction that commits their effects, as its last read of any size.

    Leaves index scans off until that transaction ends.
    """
    await connection.execute(BY_PLACE)
    await connection.execute(DELETE, tenant, [row.place for row in claimed])


async def expand(connection: Connection, tenant: int, shard: int, refold: Claimed) -> None:
    """Add one touch per student of a REFOLD's class, all with its seq, so that `asOf` stays below until they ran.

    The REFOLD itself is the caller's to delete, in the same transaction.
    """
    await connection.execute(
        EXPAND, tenant, shard, refold.classroom, refold.occurred_at, refold.seq, refold.received_at
    )
