"""Events of people and classes the roster does not know: set aside, shown to staff, bound when the roster arrives."""

from collections.abc import Iterable, Sequence

from db.facts import LoggedEvent
from db.pool import Connection

SET_ASIDE = """
insert into unrostered (tenant, seq, source, event_id, student, classroom, received_at)
select $1, w.* from unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[]) as w
on conflict (tenant, seq) do nothing
"""

# `offset 0`: else the whole roster of the tenant is read and hashed for each batch.
BIND = """
delete from unrostered u
where u.tenant = $1 and u.student = any($2::text[])
    and exists (select from student s where s.tenant = $1 and s.student = u.student offset 0)
    and (u.classroom = '' or exists (
        select from classroom c where c.tenant = $1 and c.classroom = u.classroom offset 0
    ))
"""


async def set_aside(connection: Connection, tenant: int, entries: Sequence[LoggedEvent]) -> None:
    """Mark events as unrostered."""
    await connection.execute(
        SET_ASIDE,
        tenant,
        [entry.seq for entry in entries],
        [entry.event.source for entry in entries],
        [entry.event.event_id for entry in entries],
        [entry.event.student for entry in entries],
        [entry.event.classroom for entry in entries],
        [entry.received_at for entry in entries],
    )


async def bind(connection: Connection, tenant: int, students: Iterable[str]) -> None:
    """Unmark the events of these students that the roster knows by now; their views are replayed beside this."""
    await connection.execute(BIND, tenant, sorted(students))
