"""Keys that came again with another content: what was sent, and which of the contents holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from db.pool import Connection
from rules.evidence import Submission

REPLACEMENTS_MAX = 50  # `{eventId}~2` to `~50`


@dataclass(frozen=True, slots=True)
class KeptConflict:
    """One content that differs from the stored one; `content` is None where an older release met it."""

    sent_hash: bytes
    content: Submission | None
    resolution: str | None


OF_EVENT = """
select c.sent_hash, c.content, c.resolution from conflict c
where c.tenant = $1 and c.source = $2 and c.event_id = $3
order by c.last_at desc, c.sent_hash
for update
"""

RESOLVE = """
update conflict set resolution = $4, resolved_by = $5, resolved_at = $6
where tenant = $1 and source = $2 and event_id = $3 and resolution is null
"""

TAKEN = "select event_id from event_key where tenant = $1 and source = $2 and event_id = any($3::text[])"


async def of_event(connection: Connection, tenant: int, source: str, event_id: str) -> list[KeptConflict]:
    """Lock and read every differing content of one key, the one that came last first."""
    return [
        KeptConflict(
            row["sent_hash"],
            None if row["content"] is None else msgspec.json.decode(row["content"], type=Submission),
            row["resolution"],
        )
        for row in await connection.fetch(OF_EVENT, tenant, source, event_id)
    ]


async def resolve(
    connection: Connection, tenant: int, source: str, event_id: str, *, choice: str, by: str, now: datetime
) -> None:
    """Close the key's open conflicts."""
    await connection.execute(RESOLVE, tenant, source, event_id, choice, by, now)


async def taken(connection: Connection, tenant: int, source: str, event_ids: Sequence[str]) -> set[str]:
    """Those of these ids that the log has."""
    return {row["event_id"] for row in await connection.fetch(TAKEN, tenant, source, list(event_ids))}
