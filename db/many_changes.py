"""What changed past the positions of many classes, in one statement: where a fold or a request moves many at once.

Each of these says of every class what its statement for one class says (`db/changes.py`).
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import asyncpg
import msgspec

from db.changes import (
    PAGE,
    SHOWN_KINDS,
    Position,
    RecordedEvent,
    RiskTransition,
    recorded_event,
    recorded_of,
)
from db.freshness import FRESHNESS, freshness_of
from db.pool import Connection

After = Sequence[tuple[str, int]]
"""(class, number of the last change that was told)"""

# Read once, however many classes ask: a look at what waits walks over what was just deleted.
RISK_POSITIONS = f"""
with f as materialized ({FRESHNESS})
select k.classroom, t.epoch, coalesce(c.risk_no, 0) as no, coalesce(
    (select min(r.no) - 1 from risk_change r where r.tenant = $1 and r.classroom = k.classroom), c.risk_no, 0
) as floor, f.*
from unnest($2::text[]) with ordinality as k (classroom, place)
cross join f
join tenant t on t.tenant = $1
left join classroom_state c on c.tenant = $1 and c.classroom = k.classroom
order by k.place
"""  # noqa: S608 - constants of ours

LOG_POSITIONS = f"""
with f as materialized ({FRESHNESS})
select k.classroom, t.epoch, h.seq as no, 0 as floor, f.*
from unnest($2::text[]) with ordinality as k (classroom, place)
cross join f
join tenant t on t.tenant = $1
join tenant_head h on h.tenant = $1
order by k.place
"""  # noqa: S608 - constants of ours

MANY_RISK_CHANGES = """
select k.place, x.*
from unnest($2::text[], $3::bigint[]) with ordinality as k (classroom, after, place)
cross join lateral (
    select r.no, r.student, r.reason, r.change, r.severity, r.earlier, r.overall, r.notify, r.evidence, r.clears_when,
        r.at, r.traceparent
    from risk_change r
    where r.tenant = $1 and r.classroom = k.classroom and r.no > k.after
    order by r.no limit $4
) x
order by k.place, x.no
"""

MANY_RECORDED = f"""
select k.place, x.*
from unnest($2::text[], $3::bigint[]) with ordinality as k (classroom, after, place)
cross join lateral ({recorded_of("k.classroom", "k.after")}) x
order by k.place, x.seq
"""  # noqa: S608 - constants of ours


async def risk_positions(
    connection: Connection, tenant: int, classrooms: Sequence[str], now: datetime
) -> list[Position]:
    """How far the flag transitions of each class have come, and from where on they are kept."""
    return _positions(await connection.fetch(RISK_POSITIONS, tenant, classrooms), now)


async def log_positions(
    connection: Connection, tenant: int, classrooms: Sequence[str], now: datetime
) -> list[Position]:
    """How far the tenant's log has come, said to each class."""
    return _positions(await connection.fetch(LOG_POSITIONS, tenant, classrooms), now)


async def many_risk_changes(
    connection: Connection, tenant: int, after: After, *, limit: int = PAGE
) -> list[list[RiskTransition]]:
    """For each (class, number) the transitions of its flags past the number, as `changes.risk_changes`."""
    found: list[list[RiskTransition]] = [[] for _ in after]
    async for row in _in_turns(await connection.fetch(MANY_RISK_CHANGES, tenant, *_columns(after), limit)):
        columns = dict(row)
        of_class = found[columns.pop("place") - 1]
        of_class.append(RiskTransition(**{**columns, "evidence": msgspec.json.decode(row["evidence"])}))
    return found


async def many_recorded_events(
    connection: Connection, tenant: int, after: After, *, limit: int = PAGE
) -> list[list[RecordedEvent]]:
    """For each (class, position of the log) its events past the position, as `changes.recorded_events`."""
    found: list[list[RecordedEvent]] = [[] for _ in after]
    async for row in _in_turns(await connection.fetch(MANY_RECORDED, tenant, *_columns(after), limit, SHOWN_KINDS)):
        columns = dict(row)
        found[columns.pop("place") - 1].append(recorded_event(columns))
    return found


async def _in_turns(rows: Sequence[asyncpg.Record]) -> AsyncIterator[asyncpg.Record]:
    """The rows; after as many as one class may have, other work of the process has its turn."""
    for place, row in enumerate(rows, start=1):
        yield row
        if place % PAGE == 0:
            await asyncio.sleep(0)


def _positions(rows: Sequence[asyncpg.Record], now: datetime) -> list[Position]:
    if not rows:
        return []
    point = freshness_of(rows[0], now=now)  # one tenant's at one moment
    return [Position(row["epoch"], row["no"], point, row["floor"]) for row in rows]


def _columns(after: After) -> tuple[list[str], list[int]]:
    return [key for key, _ in after], [no for _, no in after]
