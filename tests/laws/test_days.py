"""Laws 2, 3 and 7 for daily snapshots: whenever days were closed meanwhile, they are those of the log, whole."""

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.live import Live
from db.pool import Pool
from jobs.closing import Closing
from tests.laws.world import (
    INPUTS,
    INSTANTS,
    NOW,
    RATIOS,
    World,
    batches,
    claim_limits,
    histories,
    law,
    often,
    plans,
    voids_of,
)
from tests.support.corrections import corrections

HOURS = st.sampled_from([0, 0, 1, 3, 20])
END = NOW + timedelta(days=9)
LAST_WORD = timedelta(minutes=1)


async def closed(world: World) -> None:
    """Close the days of all who are due at the world's clock, as the worker does."""
    mill = world.mill
    students = [row[0] for row in await mill.rows("select student from student_state where tenant = $1")]
    await Closing(pool=mill.pool, clock=mill.clock, stop=asyncio.Event()).close(
        mill.tenant, students, now=mill.clock.now
    )


async def closed_at_last(world: World) -> dict[tuple[str, str], object]:
    """Every snapshot once all has been folded and closed."""
    world.mill.clock.now = END
    await world.quiesce()
    world.mill.clock.now += LAST_WORD
    await closed(world)
    open_days = "select student from student_state where tenant = $1 and closed_until is null"
    assert await world.mill.rows(open_days) == []
    await world.is_as_rebuilt()
    return dict((await world.numbers()).days)


@pytest.mark.feature("004-12", "000-11", "E", "I")
@law(examples=12)
@given(data=st.data())
async def test_in_any_order_with_any_corrections_each_closed_day_is_that_of_all_that_is_known(
    data: st.DataObject, pool: Pool, live: Live
) -> None:
    plan, events = data.draw(plans()), data.draw(histories())
    told = data.draw(corrections(events, moments=INSTANTS, ratios=RATIOS))
    out = data.draw(st.lists(st.sampled_from(events), unique_by=lambda event: event.event_id, max_size=2))
    everything = [*events, *told, *voids_of(out)]
    at_once, bit_by_bit = await World.of(pool, live, plan), await World.of(pool, live, plan)
    await at_once.told(everything)
    for piece in data.draw(batches(everything)):
        await bit_by_bit.record(piece)
        if data.draw(often, label="fold"):
            await bit_by_bit.fold_some(data.draw(claim_limits))
        bit_by_bit.mill.clock.now += timedelta(hours=data.draw(HOURS))
        if data.draw(often, label="close"):
            await closed(bit_by_bit)

    days = await closed_at_last(bit_by_bit)

    assert days == await closed_at_last(at_once)
    assert {"2026-03-27", "2026-03-29"} <= {day for _, day in days}


@pytest.mark.feature("004-12", "C7")
@law(examples=6)
@given(data=st.data())
async def test_a_student_zone_or_roster_that_changes_afterwards_was_always_so_for_closed_days(
    data: st.DataObject, pool: Pool, live: Live
) -> None:
    plan, events = data.draw(plans()), data.draw(histories())
    inputs = [one for one in INPUTS if one[0] in ("student", "classroom")]
    changes = data.draw(st.lists(st.sampled_from(inputs), min_size=1, max_size=3, unique=True))
    before = await World.of(pool, live, plan, inputs=[(one, NOW) for one in changes])
    await before.told(events)
    after = await (await World.of(pool, live, plan)).told(events)
    after.mill.clock.now = END - timedelta(days=2)
    await closed(after)
    for one in changes:
        await after.change(one)

    assert await closed_at_last(after) == await closed_at_last(before)
