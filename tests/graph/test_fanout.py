"""Shared reads: one for all who ask together, never one that began too early, and memories that grow old."""

import asyncio

import pytest

from graph.fanout import Fanout


class Store:
    """Something to read: counts the reads, and lets a test hold one open."""

    def __init__(self) -> None:
        self.value = "old"
        self.reads = 0
        self.began = asyncio.Event()
        self.released = asyncio.Event()

    async def load(self) -> str:
        """Read, slowly."""
        self.reads += 1
        seen = self.value
        self.began.set()
        await self.released.wait()
        return seen


@pytest.mark.feature("003-43")
async def test_those_who_ask_together_share_one_read_and_nobody_joins_a_read_that_has_begun() -> None:
    fanout, store = Fanout(), Store()

    first = [asyncio.create_task(fanout.shared("7b", store.load)) for _ in range(3)]
    await store.began.wait()
    store.value = "new"
    late = asyncio.create_task(fanout.shared("7b", store.load))
    store.released.set()

    assert await asyncio.gather(*first, late) == ["old", "old", "old", "new"]
    assert store.reads == 2


async def test_a_reader_that_leaves_does_not_take_the_read_from_the_others() -> None:
    fanout, store = Fanout(), Store()
    leaving = asyncio.create_task(fanout.shared("7b", store.load))
    staying = asyncio.create_task(fanout.shared("7b", store.load))
    await store.began.wait()

    leaving.cancel()
    store.released.set()

    assert await staying == "old"
    assert store.reads == 1


async def test_a_failed_read_fails_for_all_who_shared_it_and_the_next_one_tries_again() -> None:
    fanout, store = Fanout(), Store()
    store.released.set()

    async def fail() -> str:
        raise ConnectionError

    outcomes = await asyncio.gather(*(fanout.shared("7b", fail) for _ in range(2)), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [ConnectionError, ConnectionError]
    assert await fanout.shared("7b", store.load) == "old"


@pytest.mark.feature("003-43")
async def test_what_is_remembered_is_at_most_as_old_as_asked_for() -> None:
    now = 10.0
    fanout, store = Fanout(lambda: now), Store()
    store.released.set()
    await fanout.recent("teacher", store.load, seconds_max=2)
    store.value = "new"

    now += 1.9
    assert await fanout.recent("teacher", store.load, seconds_max=2) == "old"
    now += 0.1
    assert await fanout.recent("teacher", store.load, seconds_max=2) == "new"
    store.value = "newer"
    assert await fanout.recent("teacher", store.load, seconds_max=0) == "newer"
