"""How the intake is doing, for admins and integrators: what waits, what was set aside, what became of one event."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, TypeVar

import strawberry

from db import ingestion
from db.freshness import LAG_MS_MAX
from db.outbox import BACKFILL_LANE
from db.pool import Connection as Postgres
from db.pool import tenant_transaction
from graph.access import allow
from graph.connections import FIRST_DEFAULT, After, Connection, First, Keyset, limit_of, page_of
from graph.event_inputs import Lane
from graph.intake import (
    Backlog,
    DeadLetter,
    IngestedEvent,
    IngestionConflict,
    LaneBacklog,
    UnrosteredEvent,
    WaitingCorrection,
    conflict_of,
    correction_of,
    dead_letter_of,
    ingested_of,
    unrostered_of,
)
from graph.request import Context, Info
from rules.access import Role, Scope, Viewer

CONFLICT_ORDER = Keyset("conflicts", (datetime, str, str, str))
UNROSTERED_ORDER = Keyset("unrostered", (int,))
DEAD_LETTER_ORDER = Keyset("dead-letters", (datetime, str, str))
CORRECTION_ORDER = Keyset("waiting-corrections", (int,))
SCOPES = (Scope.INGEST, Scope.READ)  # whoever sends must be able to see what became of it

Row = TypeVar("Row")


@strawberry.type(
    description="How the intake of the tenant is doing. A token that is bound to sources sees only those sources; the "
    "backlog is counted over all."
)
class Ingestion:
    """Each list is read when it is asked for."""

    @strawberry.field(description="What is recorded and not folded yet.")
    async def backlog(self, info: Info) -> Backlog | None:
        """Counted."""
        now = info.context.now
        lanes = await _read(info.context, ingestion.backlog_of)
        shown = [
            LaneBacklog(
                lane=Lane.BACKFILL if lane.lane == BACKFILL_LANE else Lane.LIVE,
                depth=lane.depth,
                oldest_age_ms=_milliseconds(now - lane.oldest_at),
            )
            for lane in lanes
        ]
        return Backlog(
            depth=sum(lane.depth for lane in shown),
            oldest_age_ms=max((lane.oldest_age_ms for lane in shown), default=0),
            lanes=shown,
        )

    @strawberry.field(description="Event ids that were sent again with another content, the newest first.")
    async def conflicts(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[IngestionConflict] | None:
        """Those not resolved yet."""
        limit, place = limit_of(first), CONFLICT_ORDER.read(after)
        rows = await _read(
            info.context,
            lambda connection, tenant: ingestion.conflicts_of(
                connection, tenant, sources=_sources(info.context.viewer), after=place, limit=limit
            ),
        )
        return page_of(
            rows,
            first=first,
            after=after,
            cursor_of=lambda row: CONFLICT_ORDER.write(*row.place),
            node_of=conflict_of,
        )

    @strawberry.field(description="Events whose student or class the roster does not know, as they were recorded.")
    async def unrostered(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[UnrosteredEvent] | None:
        """The oldest first."""
        limit = limit_of(first)
        (start,) = UNROSTERED_ORDER.read(after) or (0,)
        rows = await _read(
            info.context,
            lambda connection, tenant: ingestion.unrostered_of(
                connection, tenant, sources=_sources(info.context.viewer), after=start, limit=limit
            ),
        )
        return page_of(
            rows,
            first=first,
            after=after,
            cursor_of=lambda row: UNROSTERED_ORDER.write(row.seq),
            node_of=unrostered_of,
        )

    @strawberry.field(description="Events that no rule could take, the newest first.")
    async def dead_letters(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[DeadLetter] | None:
        """Those not handled yet."""
        limit, place = limit_of(first), DEAD_LETTER_ORDER.read(after)
        rows = await _read(
            info.context,
            lambda connection, tenant: ingestion.dead_letters_of(
                connection,
                tenant,
                sources=_sources(info.context.viewer),
                after=place,
                limit=limit,
            ),
        )
        return page_of(
            rows,
            first=first,
            after=after,
            cursor_of=lambda row: DEAD_LETTER_ORDER.write(*row.place),
            node_of=dead_letter_of,
        )

    @strawberry.field(description="Corrections that came before what they correct, as they were recorded.")
    async def waiting_corrections(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[WaitingCorrection] | None:
        """The oldest first."""
        limit = limit_of(first)
        (start,) = CORRECTION_ORDER.read(after) or (0,)
        rows = await _read(
            info.context,
            lambda connection, tenant: ingestion.waiting_corrections_of(
                connection, tenant, sources=_sources(info.context.viewer), after=start, limit=limit
            ),
        )
        return page_of(
            rows,
            first=first,
            after=after,
            cursor_of=lambda row: CORRECTION_ORDER.write(row.seq),
            node_of=correction_of,
        )

    @strawberry.field(description="One recorded event and what became of it; null when there is none you may see.")
    async def event(
        self,
        info: Info,
        source: Annotated[str, strawberry.argument(description="The source of the event.")],
        event_id: Annotated[strawberry.ID, strawberry.argument(description="The event's id within its source.")],
    ) -> IngestedEvent | None:
        """Another source's event is answered like an unknown one."""
        sources = _sources(info.context.viewer)
        if sources is not None and source not in sources:
            return None
        row = await _read(
            info.context, lambda connection, tenant: ingestion.event_of(connection, tenant, source, event_id)
        )
        return None if row is None else ingested_of(row)


@strawberry.type
class IngestionQuery:
    """The root field of the intake."""

    @strawberry.field(description="How the intake is doing. For admins, and machines that may send or read.")
    @allow(Role.ADMIN, scope=SCOPES)
    async def ingestion(self, info: Info) -> Ingestion | None:
        """Its fields read what they show."""
        return Ingestion()


async def _read(context: Context, read: Callable[[Postgres, int], Awaitable[Row]]) -> Row:
    tenant = context.viewer.tenant
    async with tenant_transaction(context.pool, tenant, read_only=True) as connection:
        return await read(connection, tenant)


def _sources(viewer: Viewer) -> Sequence[str] | None:
    """The sources that the viewer may look at; None means all."""
    if viewer.has(Role.ADMIN) or viewer.sources is None:
        return None
    return sorted(viewer.sources)


def _milliseconds(age: timedelta) -> int:
    return min(max(age // timedelta(milliseconds=1), 0), LAG_MS_MAX)
