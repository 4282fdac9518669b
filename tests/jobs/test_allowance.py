"""A worker process holds 5,000 claimed rows at most, whatever it drains at once, and nobody waits for ever for some."""

import asyncio
from typing import Any

import pytest

from db import outbox
from db.live import Live
from db.outbox import SHARDS, Claimed
from db.pool import Connection, Pool
from jobs import drain as drain_module
from jobs.allowance import HELD_ROWS_MAX, USEFUL_ROWS, Allowance
from jobs.drain import Drain
from jobs.replay import drift
from tests.jobs.test_drain import COUNTS, WAITING, mill_of
from tests.support.events import graded

pytestmark = pytest.mark.feature("003-33")


async def test_the_first_gets_all_that_is_free_and_gives_back_what_its_claim_did_not_find() -> None:
    allowance = Allowance()

    async with allowance.up_to(HELD_ROWS_MAX) as held:
        granted = held.rows
        held.keep(20)
        async with allowance.up_to(HELD_ROWS_MAX) as other:
            beside = other.rows

    assert (granted, beside, allowance.free) == (HELD_ROWS_MAX, HELD_ROWS_MAX - 20, HELD_ROWS_MAX)


async def test_who_waits_is_served_in_order_with_a_batch_that_is_worth_it() -> None:
    """The third would be content with one row, but nobody overtakes."""
    allowance, served = Allowance(), list[tuple[str, int]]()
    release = {name: asyncio.Event() for name in ("first", "second", "third")}
    begun: asyncio.Queue[str] = asyncio.Queue()

    async def holds(name: str, rows: int, kept: int) -> None:
        async with allowance.up_to(rows) as held:
            served.append((name, held.rows))
            held.keep(min(kept, held.rows))
            begun.put_nowait(name)
            await release[name].wait()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(holds("first", HELD_ROWS_MAX, HELD_ROWS_MAX - USEFUL_ROWS + 1))
        group.create_task(holds("second", HELD_ROWS_MAX, HELD_ROWS_MAX - 1))
        group.create_task(holds("third", 1, 1))
        await begun.get()
        is_quiet = begun.empty()
        release["first"].set()
        await begun.get()
        await begun.get()
        for event in release.values():
            event.set()

    assert is_quiet
    assert served == [("first", HELD_ROWS_MAX), ("second", HELD_ROWS_MAX), ("third", 1)]
    assert allowance.free == HELD_ROWS_MAX


async def test_who_is_cancelled_while_waiting_or_holding_takes_nothing_along() -> None:
    allowance = Allowance()

    async def holds() -> None:
        async with allowance.up_to(HELD_ROWS_MAX):
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(holds()) for _ in range(3)]
    await asyncio.sleep(0)
    for task in (tasks[1], tasks[0], tasks[2]):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert allowance.free == HELD_ROWS_MAX


async def test_shards_drained_at_once_never_hold_more_than_the_process_may_and_all_is_folded(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty rows for four shards of forty; each batch is held until another drain had its chance to claim."""
    monkeypatch.setattr("jobs.allowance.USEFUL_ROWS", 5)
    monkeypatch.setattr(drain_module, "CLAIM_ROWS_MAX", 20)
    rooms = {outbox.shard_of(classroom=f"room-{n}", student=""): f"room-{n}" for n in range(40)}
    mill = await mill_of(pool, live, classrooms=tuple(rooms.values()))
    drain = Drain(pool, mill.clock, live, allowance=Allowance(20))
    for room in rooms.values():
        await mill.record(*[graded(f"{room}-{n}", "s1", 0.5, at=n, classroom=room) for n in range(40)])
    held: dict[int, int] = {}
    most, claiming, deleting = 0, outbox.claim, outbox.delete

    async def claim(connection: Connection, tenant: int, shard: int, **limit: Any) -> list[Claimed]:
        nonlocal most
        rows = await claiming(connection, tenant, shard, **limit)
        held[shard] = len(rows)
        most = max(most, sum(held.values()))
        return rows

    async def delete(connection: Connection, tenant: int, rows: list[Claimed]) -> None:
        await deleting(connection, tenant, rows)
        held[outbox.shard_of(classroom=rows[0].classroom, student="")] = 0

    monkeypatch.setattr(outbox, "claim", claim)
    monkeypatch.setattr(outbox, "delete", delete)
    folded = await asyncio.gather(*(drain.shard(mill.tenant, shard) for shard in range(SHARDS)))

    assert folded == [40] * SHARDS
    assert 0 < most <= 20
    assert await mill.rows(WAITING) == []
    assert {room: count for _, room, count in await mill.rows(COUNTS)} == {
        "": 160,
        **dict.fromkeys(rooms.values(), 40),
    }
    assert await drift(pool, mill.tenant, now=mill.clock()) == []
