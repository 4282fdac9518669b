"""The crash run's own parts: plans that can be thrown again, and wrong designs that still fit the project."""

import asyncio

import pytest

from tests.chaos.breaks import BREAKS, changed_files
from tests.chaos.cluster import PROJECT
from tests.chaos.script import ALWAYS, CLASSES_PER_STEP, Fault, class_of, members_of, plan_of
from tests.chaos.witness import Ledger


def test_a_seed_is_one_plan_and_another_seed_another() -> None:
    assert plan_of(7, 30) == plan_of(7, 30)
    assert plan_of(7, 30) != plan_of(8, 30)


@pytest.mark.parametrize("seed", range(20))
def test_a_short_run_has_every_fault_that_it_must_have(seed: int) -> None:
    assert set(ALWAYS) <= {step.fault for step in plan_of(seed, len(ALWAYS)).steps}
    assert {step.fault for step in plan_of(seed, 30).steps} == set(Fault)


def test_no_class_is_visited_twice_and_some_students_sit_in_two() -> None:
    visited = [
        {said.classroom for lane in step.lanes for request in lane for said in request} for step in plan_of(1, 8).steps
    ]
    step = [members_of(0, place) for place in range(CLASSES_PER_STEP)]

    assert visited == [{class_of(no, place) for place in range(CLASSES_PER_STEP)} for no in range(8)]
    assert len({student for members in step for student in members}) < sum(len(members) for members in step)


def test_the_longest_gap_counts_from_the_start_and_to_the_end() -> None:
    ledger = Ledger(ack_times=[1.0, 2.0, 5.0])

    assert ledger.longest_gap(0.5, 5.5) == 3.0
    assert ledger.longest_gap(1.5, 9.0) == 4.0


async def test_a_moment_counts_the_answers_that_come_before_anybody_waits_for_it() -> None:
    """A run once waited for ever: some answers had come while it was still connecting."""
    ledger = Ledger()
    ledger.note([], [], since=0.0)
    moment = ledger.after(2)
    ledger.note([], [], since=0.0)
    assert not moment.is_set()
    ledger.note([], [], since=0.0)

    async with asyncio.timeout(1):
        await moment.wait()


@pytest.mark.parametrize("name", BREAKS)
def test_every_wrong_design_still_fits_the_project(name: str) -> None:
    for file, text in changed_files(PROJECT, name).items():
        compile(text, file, "exec")
