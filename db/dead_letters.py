"""Events that no fold can take: out of the fold, in the open."""

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
