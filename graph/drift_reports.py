"""What checks of the numbers found, as clients read it."""

from datetime import datetime

import strawberry

from db import drift
from db.drift import ReportRow
from db.pool import tenant_transaction
from graph.background import ProjectionDifference, difference_of
from graph.connections import Connection, Keyset, limit_of, page_of
from graph.request import Context

REPORT_ORDER = Keyset("drift-reports", (datetime, str))


@strawberry.type(
    description="What one check of one class found: its numbers recomputed from the log, beside the stored."
)
class DriftReport:
    """One finished check."""

    classroom_id: strawberry.ID = strawberry.field(description="The key of the class.")
    at: datetime = strawberry.field(description="When the check ended.")
    compared: int = strawberry.field(description="Rows compared.")
    different: int = strawberry.field(description="Rows that are not what the log says; 0 is as it should be.")
    skipped: int = strawberry.field(
        description="Students and classes left out because something of theirs waited to be folded all the while."
    )
    first_cause: str | None = strawberry.field(
        description="The first differing row, in the order in which numbers are made from one another: its kind and "
        "keys. Null when nothing differs."
    )
    differences: list[ProjectionDifference] = strawberry.field(
        description="The differing rows with both values, the largest 50 of each kind at most."
    )


def _report_of(row: ReportRow) -> DriftReport:
    return DriftReport(
        classroom_id=strawberry.ID(row.classroom),
        at=row.at,
        compared=row.compared,
        different=row.different,
        skipped=row.skipped,
        first_cause=row.first_cause,
        differences=[difference_of(one) for one in row.differences],
    )


async def report_page(context: Context, *, first: int, after: str | None) -> Connection[DriftReport]:
    """The tenant's reports, the newest first."""
    tenant, limit, place = context.viewer.tenant, limit_of(first), REPORT_ORDER.read(after)
    async with tenant_transaction(context.pool, tenant, read_only=True) as connection:
        rows = await drift.page(connection, tenant, after=None if place is None else (place[0], place[1]), limit=limit)
    return page_of(
        rows,
        first=first,
        after=after,
        cursor_of=lambda row: REPORT_ORDER.write(row.at, row.key),
        node_of=_report_of,
    )
