"""Law 1, Once: any duplication of any event changes nothing."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.live import Live
from db.pool import Pool
from tests.laws.world import NOW, World, batches, claim_limits, histories, law, plans


@pytest.mark.feature("000-02", "000-11")
@law()
@given(data=st.data())
async def test_duplicates_and_conflicting_copies_change_no_number(data: st.DataObject, pool: Pool, live: Live) -> None:
    plan, events = data.draw(plans()), data.draw(histories())
    pieces = data.draw(batches(events))
    once = await (await World.of(pool, live, plan)).told(*pieces)
    often = await World.of(pool, live, plan)
    told = []
    for piece in pieces:
        told += piece
        again = data.draw(st.lists(st.sampled_from(told), max_size=6), label="again")
        # A copy with other content is a conflict, whether it comes in the batch of the first or long after.
        twisted = [replace(one, ratio=123_456, concepts=("ratios",), occurred_at=NOW) for one in again[::2]]
        await often.told([*piece, *again, *twisted], again, limit=data.draw(claim_limits))
    await often.is_as(once)
    for table in ("event_key", "event"):
        count = f"select count(*) from {table} where tenant = $1 and source in ('lms', 'app')"  # noqa: S608 - tables of ours
        assert await often.mill.rows(count) == [(len(events),)]
