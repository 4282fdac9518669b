"""Law 7, Corrections: after voids, bindings and policy changes every projection is that of the corrected set alone."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from db.live import Live
from db.pool import Pool
from jobs.replay import Projections, difference
from rules.classroom import EMPTY_VIEW, OpenItem, View
from rules.evidence import Kind, LearningEvent
from rules.validation import RESERVED_SOURCE
from tests.laws.world import (
    CLASSES,
    INPUTS,
    INSTANTS,
    NOW,
    RATIOS,
    STRANGE_CLASS,
    STRANGER,
    Plan,
    World,
    batches,
    claim_limits,
    histories,
    law,
    often,
    plans,
    voids_of,
)
from tests.support.corrections import about_item, as_said, corrected_set, corrections, is_plain, regrade


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


@pytest.mark.feature("I", "X-01", "X-02", "X-03", "X-04", "X-05")
@law(examples=30)
@given(data=st.data())
async def test_after_regrades_excuses_and_reopenings_every_number_is_that_of_the_corrected_set(
    data: st.DataObject, pool: Pool, live: Live
) -> None:
    """Corrections come at any time, before their targets too, beside voids; a voided correction stays in force."""
    plan, events = data.draw(plans()), data.draw(histories())
    assume(is_plain(events))
    told = data.draw(corrections(events, moments=INSTANTS, ratios=RATIOS))
    out = data.draw(st.lists(st.sampled_from(events), unique_by=lambda event: event.event_id, max_size=2))
    pieces = data.draw(batches([*events, *told, *voids_of([*out, *told[:1]])]))
    limits = [data.draw(claim_limits) if data.draw(st.booleans(), label="fold") else None for _ in pieces]
    await _is_as_corrected(pool, live, plan, events, told, out, list(zip(pieces, limits, strict=True)))


@pytest.mark.feature("I", "X-04")
async def test_a_reopening_without_a_class_assigns_the_work_again_in_each_class_that_has_it(
    pool: Pool, live: Live
) -> None:
    """An example of the law that the dice found: work that the roster gave in a class, done outside of any."""
    plan = Plan("Europe/Berlin", (None, None), (("s1", None, ("7b", "8c")), ("s2", None, ("7b",))))
    quiz = LearningEvent(
        source="app", event_id="e0", kind=Kind.QUIZ_ATTEMPT, occurred_at=INSTANTS[0], student="s2", classroom="",
        assignment="hw1", concepts=("decimals",), ratio=800_000, submission="sub2",
    )  # fmt: skip
    told = [
        about_item(Kind.ASSIGNMENT_REOPENED, "c0", quiz, INSTANTS[0], due_at=INSTANTS[0]),
        about_item(Kind.ASSIGNMENT_REOPENED, "c1", quiz, INSTANTS[-1], due_at=INSTANTS[-1] + timedelta(hours=1)),
        regrade("c2", quiz, 900_000, INSTANTS[0], only_if_higher=True),
    ]
    steps = [([told[1]], None), ([told[0], quiz], 2), ([told[2], *voids_of(told[:1])], None)]

    await _is_as_corrected(pool, live, plan, [quiz], told, [], steps)


async def _is_as_corrected(
    pool: Pool,
    live: Live,
    plan: Plan,
    events: list[LearningEvent],
    told: list[LearningEvent],
    out: list[LearningEvent],
    steps: list[tuple[list[LearningEvent], int | None]],
) -> None:
    """Fail unless pieces of all that is told, each folded up to a limit, give the corrected set's numbers."""
    corrected, mixed = await World.of(pool, live, plan), await World.of(pool, live, plan)
    assigned = await _assigned_by_the_roster(corrected)
    left, excused = corrected_set([*assigned, *(event for event in events if event not in out)], told)
    gone = [event for event in assigned if (event.student, event.classroom, event.item) in excused]
    await corrected.told([event for event in left if event.source != RESERVED_SOURCE], voids_of(gone))
    for piece, limit in steps:
        await mixed.record(piece)
        if limit is not None:
            await mixed.fold_some(limit)
    await mixed.quiesce()
    ours, theirs = await mixed.numbers(), await corrected.numbers()
    # An excused item is no item at all in the corrected set; here it is one that says so.
    flagged = {(student, room, item) for (student, room, item), work in ours.works.items() if work.is_excused}
    assert flagged == {key for key in excused if key[0] != STRANGER and key[1] in CLASSES}
    assert difference(_without(ours, flagged), _without(theirs, flagged)) == []
    await mixed.is_as_rebuilt()
    assert await mixed.dead_letters() == []


@pytest.mark.feature("I", "X-02", "X-03", "X-04")
@law(examples=20)
@given(data=st.data())
async def test_corrections_in_any_order_and_batching_give_the_same_numbers(
    data: st.DataObject, pool: Pool, live: Live
) -> None:
    """Also of attempts that span classes and items, for which no corrected set can be written down."""
    plan, events = data.draw(plans()), data.draw(histories())
    told = data.draw(corrections(events, moments=INSTANTS, ratios=RATIOS, at_most=8))
    told += [replace(one, event_id=f"{one.event_id}-any", classroom="") for one in told if one.assignment is not None][
        :1
    ]
    in_order, mixed = await World.of(pool, live, plan), await World.of(pool, live, plan)
    await in_order.told(sorted([*events, *told], key=lambda event: event.key))
    for piece in data.draw(batches([*events, *told])):
        await mixed.record(piece)
        if data.draw(st.booleans(), label="fold"):
            await mixed.fold_some(data.draw(claim_limits))
    await mixed.quiesce()
    await mixed.is_as(in_order)


async def _assigned_by_the_roster(world: World) -> list[LearningEvent]:
    """The assignments that the service wrote itself."""
    rows = await world.mill.rows(
        "select event_id, student, classroom, assignment, occurred_at from event where tenant = $1 and source = $2",
        RESERVED_SOURCE,
    )
    return [
        LearningEvent(
            source=RESERVED_SOURCE, event_id=event_id, kind=Kind.ASSIGNMENT_ASSIGNED, occurred_at=at, student=student,
            classroom=classroom, assignment=assignment,
        )
        for event_id, student, classroom, assignment, at in rows
    ]  # fmt: skip


def _without(numbers: Projections, excused: set[tuple[str, str, str]]) -> Projections:
    """The numbers without excused items, places up to which views are folded, and views with nothing else.

    Work is assigned by the reopening that says so, under its own name.
    """
    views = {key: replace(view, last=None, open_items=_own_items(view)) for key, view in numbers.views.items()}
    return replace(
        numbers,
        views={key: view for key, view in views.items() if view != EMPTY_VIEW},
        works={
            key: replace(work, assigned_by=work.assigned_by and _own(work.assigned_by))
            for key, work in numbers.works.items()
            if key not in excused
        },
        flags={key: replace(flag, evidence=as_said(flag.evidence)) for key, flag in numbers.flags.items()},
    )


def _own_items(view: View) -> tuple[OpenItem, ...]:
    return tuple(replace(item, assigned_by=_own(item.assigned_by)) for item in view.open_items)


def _own(name: tuple[str, str]) -> tuple[str, str]:
    return (name[0], as_said(name[1]))


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
