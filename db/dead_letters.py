"""Events that no fold can take: out of the fold, in the open."""

from collections.abc import Sequence
from datetime import datetime

from db.pool import Connection

BURY = """
insert into dead_letter (tenant, source, event_id, seq, student, classroom, error, at)
select $1, e.source, e.event_id, e.seq, e.student, e.classroom, $4, $5
from event_key k
join event e on e.tenant = $1 and e.seq = k.seq and e.received_at = k.received_at
where k.tenant = $1 and e.tenant = $1 and k.source = $2 and k.event_id = $3
on conflict (tenant, source, event_id) do update set error = excluded.error, at = excluded.at
"""


async def bury(connection: Connection, tenant: int, key: tuple[str, str], *, error: str, now: datetime) -> None:
    """Mark the event (source, event_id) as dead, naming the kind of error (never its text: it may quote a pupil)."""
    await connection.execute(BURY, tenant, *key, error, now)


LOGGED = """
select k.source, k.event_id from event_key k
join unnest($2::text[], $3::text[]) as w (source, event_id) on k.source = w.source and k.event_id = w.event_id
where k.tenant = $1
"""

DIG_UP = """
delete from dead_letter d
using unnest($2::text[], $3::text[]) as w (source, event_id)
where d.tenant = $1 and d.source = w.source and d.event_id = w.event_id
returning d.source, d.event_id, d.student
"""

Key = tuple[str, str]


async def logged(connection: Connection, tenant: int, keys: Sequence[Key]) -> set[Key]:
    """Those of these (source, event_id) that were ever recorded."""
    rows = await connection.fetch(LOGGED, tenant, [key[0] for key in keys], [key[1] for key in keys])
    return {(row["source"], row["event_id"]) for row in rows}


async def dig_up(connection: Connection, tenant: int, keys: Sequence[Key]) -> dict[Key, str]:
    """Take these events out of the dead letters; returns the student of each that was there."""
    rows = await connection.fetch(DIG_UP, tenant, [key[0] for key in keys], [key[1] for key in keys])
    return {(row["source"], row["event_id"]): row["student"] for row in rows}
