"""Law 2, Order: any permutation, batching or lateness of the events gives the same projections."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.evidence import record
from db.live import Live
from db.pool import Pool, tenant_transaction
from tests.laws.world import NOW, Plan, World, batches, claim_limits, histories, law, often, plans
from tests.support.events import graded, submission


@pytest.mark.feature("000-08", "000-11")
@law(examples=24)
@given(data=st.data())
async def test_any_order_and_any_batching_give_the_same_numbers(data: st.DataObject, pool: Pool, live: Live) -> None:
    plan, events = data.draw(plans()), data.draw(histories())
    in_order = await World.of(pool, live, plan)
    await in_order.told(sorted(events, key=lambda event: event.key))
    mixed = await World.of(pool, live, plan)
    for piece in data.draw(batches(events)):
        await mixed.record(piece)
        if data.draw(often, label="fold"):
            await mixed.fold_some(data.draw(claim_limits))
    await mixed.quiesce()
    await mixed.is_as(in_order)


@pytest.mark.feature("000-11")
async def test_of_two_events_at_one_instant_the_greater_id_counts_last(pool: Pool, live: Live) -> None:
    """e10 sorts before e9, as text: with e9 last the score is .65 * .9 + .35 * .5, whoever came first."""
    plan = Plan("UTC", (None, None), (("s1", None, ("7b",)),))
    events = [graded("e10", "s1", 0.5), graded("e9", "s1", 0.9)]
    for order in (events, events[::-1]):
        for pieces in ([order], [[one] for one in order]):
            world = await (await World.of(pool, live, plan)).told(*pieces)
            scores = await world.mill.rows("select score from standing where tenant = $1 and classroom = '7b'")
            assert scores == [(760,)]
            await world.is_as_rebuilt()


@pytest.mark.feature("000-11", "A")
@pytest.mark.parametrize("other", ["7b", "8c"], ids=["in its class", "in another class"])
async def test_a_submission_graded_again_long_after_counts_once(pool: Pool, live: Live, other: str) -> None:
    """Only its submission id tells that it is no new attempt: it sorts after all else and comes in another batch."""
    world = await World.of(pool, live, Plan("UTC", (None, None), (("s1", None, ("7b", "8c")),)))
    first = graded("e1", "s1", 0.5, submission="sub1")
    await world.told([first], [graded("e2", "s1", 0.5, at=1)])

    await world.told([graded("e3", "s1", 0.9, at=9, submission="sub1", classroom=other)])

    overall = await world.mill.rows("select count, best from standing where tenant = $1 and classroom = ''")
    assert overall == [(2, 900_000)]
    await world.is_as_rebuilt()


@pytest.mark.feature("000-08")
async def test_positions_of_the_log_become_visible_in_ascending_order(pool: Pool, live: Live) -> None:
    """A reader past position n must never later find a new event below n, whoever commits first."""
    world = await World.of(pool, live, Plan("UTC", (None, None), (("s1", None, ("7b",)),)))
    tenant = world.tenant
    positions = "select seq from event where tenant = $1 order by seq"

    async def second() -> None:
        await world.record([graded("second", "s1", 0.5)])

    async with tenant_transaction(pool, tenant) as slow:
        await record(slow, tenant, [submission(graded("first", "s1", 0.5))], recorded_by="t", now=NOW)
        overtaking = asyncio.create_task(second())
        await asyncio.sleep(0.15)
        seen = await world.mill.rows(positions)
    await overtaking
    new = [row for row in await world.mill.rows(positions) if row not in seen]
    assert not seen or min(new) > max(seen)
    in_order = "select event_id from event where tenant = $1 and source = 'lms' order by seq"
    assert await world.mill.rows(in_order) == [
        ("first",), ("second",)
    ]  # fmt: skip
