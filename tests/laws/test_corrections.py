"""Law 7, Corrections: after voids, bindings and policy changes every projection is that of the corrected set alone."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.live import Live
from db.pool import Pool
from tests.laws.world import (
    INPUTS,
    NOW,
    STRANGE_CLASS,
    STRANGER,
    World,
    batches,
    claim_limits,
    histories,
    law,
    often,
    plans,
    voids_of,
)


@pytest.mark.feature("X-01", "X-05")
@law(examples=24)
@given(data=st.data())
async def test_voided_events_leave_every_number_as_if_they_had_never_been(
    data: st.DataObject, pool: Pool, live: Live
) -> None:
    plan, events = data.draw(plans()), data.draw(histories())
    out = data.draw(st.lists(st.sampled_from(events), unique_by=lambda event: event.event_id, min_size=1, max_size=4))
    voids = voids_of(out)
    # Voids come twice under two names, and a void of a void brings nothing back.
    more = voids_of(out[:1], suffix="-twice") + voids_of(voids[:2])
    corrected = await World.of(pool, live, plan)
    await corrected.told([event for event in events if event not in out])
    voided = await World.of(pool, live, plan)
    for piece in data.draw(batches([*events, *voids, *more])):
        await voided.record(piece)
        if data.draw(often, label="fold"):
            await voided.fold_some(data.draw(claim_limits))
    await voided.quiesce()
    await voided.is_as(corrected)


@pytest.mark.feature("X-01")
@law()
@given(data=st.data())
async def test_an_event_voided_and_sent_again_under_a_new_id_counts_as_sent_again(
    data: st.DataObject, pool: Pool, live: Live
) -> None:
    plan, events = data.draw(plans()), data.draw(histories(at_most=6))
    wrong = data.draw(st.sampled_from(events))
    right = replace(wrong, event_id=f"{wrong.event_id}~2", ratio=None if wrong.ratio is None else 700_000)
    corrected = await World.of(pool, live, plan)
    await corrected.told([right if event is wrong else event for event in events])
    repaired = await World.of(pool, live, plan)
    await repaired.told(events, voids_of([wrong]), [right])
    await repaired.is_as(corrected)


@pytest.mark.feature("X-10", "C7")
@law()
@given(data=st.data())
async def test_strangers_who_join_the_roster_later_are_as_if_they_had_always_been_on_it(
    data: st.DataObject, pool: Pool, live: Live
) -> None:
    plan, events = data.draw(plans()), data.draw(histories())
    arrivals = data.draw(st.permutations([("student", STRANGER, ""), ("classroom", STRANGE_CLASS, "Asia/Tokyo")]))
    joins = [("join", STRANGE_CLASS, STRANGER), ("join", "7b", STRANGER)]
    always = await World.of(pool, live, plan, inputs=[(one, NOW) for one in [*arrivals, *joins]])
    await always.told(events)
    late = await World.of(pool, live, plan)
    pieces = data.draw(batches(events))
    for place, piece in enumerate(pieces):
        await late.record(piece)
        if data.draw(often, label="fold"):
            await late.fold_some(data.draw(claim_limits))
        if place < len(arrivals):
            await late.change(arrivals[place])
    for one in [*arrivals[len(pieces) :], *joins]:
        await late.quiesce()
        await late.change(one)
    await late.quiesce()
    await late.is_as(always)
    assert await late.mill.rows("select event_id from unrostered where tenant = $1") == []


@pytest.mark.feature("A", "000-11")
@law(examples=20)
@given(data=st.data())
async def test_whatever_input_changes_the_numbers_are_as_if_it_had_always_been_so(
    data: st.DataObject, pool: Pool, live: Live
) -> None:
    """Policies (model, thresholds, days of inactivity), zones, enrolments and due dates."""
    plan, events = data.draw(plans()), data.draw(histories())
    inputs = data.draw(st.lists(st.sampled_from(INPUTS), min_size=1, max_size=4))
    always = await World.of(pool, live, plan, inputs=[(one, NOW) for one in inputs])
    await always.told(events)
    changed = await World.of(pool, live, plan)
    pieces = data.draw(batches(events))
    for place, one in enumerate(inputs):
        if place < len(pieces):
            await changed.record(pieces[place])
        if data.draw(often, label="fold"):
            await changed.fold_some(data.draw(claim_limits))
        await changed.change(one)
    await changed.told(*pieces[len(inputs) :])
    await changed.quiesce()
    await changed.is_as(always)
