"""Law 3, Replay: whatever happened in whatever order, what is stored is what the log says."""

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.live import Live
from db.pool import Pool
from jobs.replay import difference
from rules.evidence import LearningEvent
from tests.laws.world import (
    FAULTS,
    INPUTS,
    INSTANTS,
    RATIOS,
    Broken,
    Input,
    World,
    broken,
    claim_limits,
    histories,
    law,
    plans,
    voids_of,
)

STEPS = (
    *["record"] * 6, *["fold"] * 3, *["void"] * 2, *["input"] * 2,
    "again", "conflict", "regrade", "crash", "clock", "quiesce", "quiesce",
)  # fmt: skip


@pytest.mark.feature("000-09", "000-11", "X-01", "X-05")
@law(examples=24)
@given(data=st.data())
async def test_a_life_of_records_voids_crashes_and_changes_leaves_what_its_log_says(
    data: st.DataObject, pool: Pool, live: Live
) -> None:
    plan = data.draw(plans())
    to_come = data.draw(histories(at_least=6))
    world = await World.of(pool, live, plan)
    told: dict[str, LearningEvent] = {}
    voided: set[str] = set()
    inputs: list[tuple[Input, datetime]] = []
    for number, step in enumerate(data.draw(st.lists(st.sampled_from(STEPS), min_size=5, max_size=16), label="steps")):
        known = [*told.values(), *to_come]
        if step == "record":
            size = data.draw(st.integers(1, 4))
            piece, to_come = to_come[:size], to_come[size:]
            told |= {event.event_id: event for event in piece}
            await world.record(piece)
        elif step == "again":
            await world.record([*told.values()])
        elif step == "conflict" and told:
            first = data.draw(st.sampled_from(list(told.values())))
            await world.record([replace(first, time_spent_ms=77, occurred_at=INSTANTS[-1], concepts=("ratios",))])
        elif step == "regrade" and any(event.submission for event in told.values()):
            first = data.draw(st.sampled_from([event for event in told.values() if event.submission]))
            again = replace(first, event_id=f"re{number}", ratio=data.draw(st.sampled_from(RATIOS)),
                            occurred_at=data.draw(st.sampled_from(INSTANTS)))  # fmt: skip
            told[again.event_id] = again
            await world.record([again])
        elif step == "void" and known:
            target = data.draw(st.sampled_from(known))  # also one that is still to come
            voided.add(target.event_id)
            await world.record(voids_of([target]))
        elif step == "input":
            one = data.draw(st.sampled_from(INPUTS))
            inputs.append((one, world.mill.clock.now))
            await world.change(one)
        elif step == "clock":
            world.mill.clock.now += timedelta(hours=data.draw(st.sampled_from([1, 3, 48, 24 * 9])))
            await world.assess()
        elif step == "fold":
            await world.fold_some(data.draw(claim_limits))
        elif step == "crash":
            module, at = data.draw(st.sampled_from(FAULTS))
            async with broken(module, at):
                with suppress(Broken):
                    await world.quiesce()
        elif step == "quiesce":
            await world.quiesce()
            await world.is_as_rebuilt()
    await world.record(to_come)
    told |= {event.event_id: event for event in to_come}
    await world.quiesce()
    await world.is_as_rebuilt()
    await world.assess()

    corrected = await World.of(pool, live, plan, inputs=inputs)
    await corrected.told([event for event in told.values() if event.event_id not in voided])
    corrected.mill.clock.now = world.mill.clock.now
    await corrected.assess()
    assert difference(await world.numbers(), await corrected.numbers()) == []
    assert await world.dead_letters() == []
    await flags_are_what_their_transitions_say(world)


async def flags_are_what_their_transitions_say(world: World) -> None:
    """Every flag's last transition names its severity, each begins where the last ended, numbers have no gap."""
    rows = await world.mill.rows(
        "select classroom, no, student, reason, change, severity, earlier from risk_change "
        "where tenant = $1 order by classroom, no"
    )
    severities: dict[tuple[str, str, str], int | None] = {}
    last: dict[str, int] = {}
    for classroom, number, student, reason, change, severity, earlier in rows:
        assert number == last.get(classroom, 0) + 1
        last[classroom] = number
        assert severities.get((classroom, student, reason)) == earlier
        assert severity != earlier
        assert change == ("RAISED" if earlier is None else "CLEARED" if severity is None else "SEVERITY_CHANGED")
        severities[classroom, student, reason] = severity
    flags = await world.mill.rows("select classroom, student, reason, severity from risk_flag where tenant = $1")
    assert {(c, s, r): severity for c, s, r, severity in flags if severity} == {
        key: severity for key, severity in severities.items() if severity
    }
