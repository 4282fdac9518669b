"""How fresh an answer is, and waiting until it is fresh enough (X-22)."""

import asyncio
from datetime import datetime
from typing import Annotated

import strawberry

from db.freshness import Freshness, freshness
from graph.loaders import batched
from graph.refusal import ErrorCode, Refused
from graph.request import Context
from graph.scalars import Seq, write_moment

WAIT_SECONDS_MAX = 1.0
PAUSES_SECONDS = (0.01, 0.02, 0.03, 0.04, *[0.05] * 18)  # together WAIT_SECONDS_MAX

MinSeq = Annotated[
    Seq | None,
    strawberry.argument(
        description="Answer only when everything up to this position of the log is counted: the `seq` of an earlier "
        "payload. Waits up to 1 s; after that the field fails with the code STALE, with the present `asOf` in the "
        "error's extensions."
    ),
]


@strawberry.type(description="The point of the log that an answer is true for.")
class AsOf:
    """A lower bound, read before the fields."""

    seq: Seq = strawberry.field(description="Every event up to this position is counted or set aside.")
    time: datetime = strawberry.field(description="Everything received before this moment is counted or set aside.")
    withheld: int = strawberry.field(
        description="How many events are set aside, because no rule can take them or the roster does not know their "
        "student or class; counted up to 1,000 of each."
    )


@strawberry.interface(description="An answer that says how fresh it is.")
class Fresh:
    """Inherit it, and hand in the point that `fresh` read before anything else was read."""

    freshness: strawberry.Private[Freshness]

    @strawberry.field(description="The point of the log that this answer is true for; it may count later events too.")
    def as_of(self) -> AsOf:
        """The point as clients read it."""
        point = self.freshness
        return AsOf(seq=Seq(point.seq), time=point.time, withheld=point.withheld)

    @strawberry.field(
        description="Age in milliseconds of the oldest accepted event that is not counted yet; 0 when none waits."
    )
    def lag_ms(self) -> int:
        """The age at the moment the point was read."""
        return self.freshness.lag_ms


class Stale(Refused):
    """The log has not been counted as far as the client wants to see it."""

    def __init__(self, point: Freshness) -> None:
        super().__init__(
            ErrorCode.STALE,
            "The position 'minSeq' is not counted yet; ask again shortly.",
            field=("minSeq",),
            extensions={"asOf": {"seq": str(point.seq), "time": write_moment(point.time), "withheld": point.withheld}},
        )


async def fresh(context: Context, min_seq: Seq | None = None) -> Freshness:
    """The point that everything read from now on is true for. Call it before any other read of a root field.

    The root fields of one operation share one reading. With `min_seq` it waits, holding no connection, until the
    point is reached. Raises Stale.
    """
    point = await batched(context, "freshness", lambda keys: _read_for(context, keys)).load(context.viewer.tenant)
    assert point is not None
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_SECONDS_MAX
    for pause in PAUSES_SECONDS:
        if min_seq is None or point.seq >= min_seq or loop.time() >= deadline:
            break
        await asyncio.sleep(pause)
        point = await freshness(context.pool, context.viewer.tenant, now=context.engine.clock())
    if min_seq is not None and point.seq < min_seq:
        raise Stale(point)
    return point


async def _read_for(context: Context, tenants: list[int]) -> dict[int, Freshness]:
    now = context.engine.clock()
    return {tenant: await freshness(context.pool, tenant, now=now) for tenant in tenants}
