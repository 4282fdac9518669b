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

# What is tried again is bound by the fold of its student's touch, in one transaction, as what waited for the roster is.
DIG_UP = """
with up as (
    delete from dead_letter d
    using unnest($2::text[], $3::text[]) as w (source, event_id)
    where d.tenant = $1 and d.source = w.source and d.event_id = w.event_id
    returning d.source, d.event_id, d.seq, d.student, d.classroom
), tried as (
    insert into unrostered (tenant, seq, source, event_id, student, classroom, received_at)
    select $1, up.seq, up.source, up.event_id, up.student, up.classroom, k.received_at
    from up
    join event_key k on k.tenant = $1 and k.source = up.source and k.event_id = up.event_id
    where k.tenant = $1 and $4 and up.student <> ''
    on conflict (tenant, seq) do nothing
)
select source, event_id, student from up
"""

BURY_UNBOUND = """
with unbound as (
    delete from unrostered u
    where u.tenant = $1 and u.student = $2 and ($3 = '' or u.classroom = $3)
        and exists (select from student s where s.tenant = $1 and s.student = u.student offset 0)
        and (u.classroom = '' or exists (
            select from classroom c where c.tenant = $1 and c.classroom = u.classroom offset 0
        ))
    returning u.source, u.event_id, u.seq, u.student, u.classroom
)
insert into dead_letter (tenant, source, event_id, seq, student, classroom, error, at)
select $1, source, event_id, seq, student, classroom, $4, $5 from unbound
on conflict (tenant, source, event_id) do update set error = excluded.error, at = excluded.at
returning source, event_id
"""

Key = tuple[str, str]


async def logged(connection: Connection, tenant: int, keys: Sequence[Key]) -> set[Key]:
    """Those of these (source, event_id) that were ever recorded."""
    rows = await connection.fetch(LOGGED, tenant, [key[0] for key in keys], [key[1] for key in keys])
    return {(row["source"], row["event_id"]) for row in rows}


async def dig_up(connection: Connection, tenant: int, keys: Sequence[Key], *, is_tried: bool) -> dict[Key, str]:
    """Take these events out of the dead letters; returns the student of each that was there.

    What is to be tried again (`is_tried`) is set aside until a touch of its student is folded: the caller leaves one.
    """
    rows = await connection.fetch(DIG_UP, tenant, [key[0] for key in keys], [key[1] for key in keys], is_tried)
    return {(row["source"], row["event_id"]): row["student"] for row in rows}


async def bury_unbound(
    connection: Connection, tenant: int, student: str, classroom: str, *, error: str, now: datetime
) -> list[Key]:
    """Mark as dead what a failing touch of this student (in one class, or "" = all) was to bind; returns their keys."""
    rows = await connection.fetch(BURY_UNBOUND, tenant, student, classroom, error, now)
    return [(row["source"], row["event_id"]) for row in rows]
