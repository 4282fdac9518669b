"""Rows that kill the worker: found by what each attempt leaves behind, set aside after three, others go on before."""

import asyncio
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from db import claims
from db.live import Live
from db.outbox import SHARDS
from db.pool import Connection, Pool
from jobs import drain as drain_module
from jobs import fold as fold_module
from jobs.drain import AGED, CRASHES_MAX, SUSPECTS_MAX
from jobs.fold import Batch
from jobs.replay import drift
from server.embedded import EmbeddedServers
from tests.jobs.test_drain import COUNTS, SHARD, WAITING, mill_of
from tests.support.events import Mill, graded

CLAIMS = "select rows, attempts from claim where tenant = $1 order by rows, attempts"
DEAD = "select event_id, error from dead_letter where tenant = $1"


class Killed(BaseException):
    """The process is gone: nothing runs after it."""


async def killed_by(mill: Mill, monkeypatch: pytest.MonkeyPatch, event_id: str, how: type[BaseException]) -> None:
    """Let one event end every fold that has it; a killed process takes nothing back."""
    [(bad_seq,)] = await mill.rows("select seq from event where tenant = $1 and event_id = $2", event_id)
    working = fold_module.fold

    async def fold(connection: Connection, tenant: int, batch: Batch, **given: Any) -> Any:
        if any(row.seq == bad_seq for row in batch.claimed):
            raise how
        return await working(connection, tenant, batch, **given)

    async def nothing(*_: Any, **__: Any) -> None: ...

    monkeypatch.setattr(drain_module, "fold", fold)
    if how is Killed:
        monkeypatch.setattr(claims, "take_back", nothing)


async def folded_with_crashes(mill: Mill, *, at_most: int) -> int:
    """Start worker after worker until one comes to the end; returns how many died."""
    for crashes in range(at_most + 1):
        try:
            await mill.fold()
        except Killed:
            continue
        return crashes
    raise AssertionError(f"more than {at_most} workers died")


@pytest.mark.feature("000-09")
async def test_rows_that_have_just_come_are_folded_without_a_note(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill = await mill_of(pool, live)
    noted: list[int] = []
    noting = claims.note

    async def note(*given: Any, **named: Any) -> None:
        noted.append(named["rows"])
        await noting(*given, **named)

    monkeypatch.setattr(claims, "note", note)
    await mill.recorded_and_folded([graded("e1", "s1", 0.5)])
    assert noted == []

    await mill.record(graded("e2", "s1", 0.5, at=1), graded("e3", "s1", 0.5, at=2))
    mill.clock.now += AGED
    await mill.fold()

    assert noted == [2]
    assert await mill.rows(CLAIMS) == []
    assert await drift(pool, mill.tenant, now=mill.clock.now) == []


@pytest.mark.feature("000-09")
@pytest.mark.parametrize("size", [2, 8, SUSPECTS_MAX + 20])
async def test_an_event_that_kills_its_worker_is_dead_after_three_crashes_alone(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    mill = await mill_of(pool, live)
    await mill.record(*(graded(f"e{n}", f"s{1 + n % 2}", 0.5, at=n) for n in range(size)))
    bad = f"e{size // 2}"
    await killed_by(mill, monkeypatch, bad, Killed)
    mill.clock.now += AGED

    crashes = await folded_with_crashes(mill, at_most=CRASHES_MAX + 2)

    assert crashes >= CRASHES_MAX
    assert await mill.rows(DEAD) == [(bad, "WorkerCrashed")]
    assert await mill.rows(WAITING) == []
    assert await mill.rows(CLAIMS) == []
    assert await mill.rows("select sum(count) from standing where tenant = $1 and classroom = '7b'") == [(size - 1,)]
    assert await drift(pool, mill.tenant, now=mill.clock.now) == []


@pytest.mark.feature("000-09")
async def test_neighbours_of_a_fatal_event_go_on_after_its_first_crash_alone(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill = await mill_of(pool, live)
    await mill.record(*(graded(f"e{n}", "s1", 0.5, at=n) for n in range(4)))
    await killed_by(mill, monkeypatch, "e0", Killed)  # the first in order
    mill.clock.now += AGED
    for _ in range(2):  # all four together, then the first alone
        with pytest.raises(Killed):
            await mill.fold()

    with pytest.raises(Killed):  # the others, then the first again
        await mill.fold()

    assert await mill.rows(COUNTS) == [("s1", "", 3), ("s1", "7b", 3)]
    assert await mill.rows(DEAD) == []


@pytest.mark.feature("000-09")
async def test_lost_connections_and_collisions_never_count(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill = await mill_of(pool, live)
    await mill.record(*(graded(f"e{n}", "s1", 0.5, at=n) for n in range(3)))
    mill.clock.now += AGED
    with monkeypatch.context() as broken:
        await killed_by(mill, broken, "e1", ConnectionResetError)
        for _ in range(CRASHES_MAX * 3):
            with pytest.raises(ConnectionResetError):
                await mill.fold()
        assert await mill.rows(CLAIMS) == []

    await mill.fold()

    assert await mill.rows(DEAD) == []
    assert await mill.rows(COUNTS) == [("s1", "", 3), ("s1", "7b", 3)]


@pytest.mark.feature("000-08", "000-09")
async def test_the_attempt_of_a_worker_that_lives_slows_nobody_down(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers drain one backlog: the notes of each span positions of the other."""
    mill = await mill_of(pool, live)
    await mill.record(*(graded(f"e{n}", "s1", 0.5, at=n) for n in range(9)))
    await mill.record(*(graded(f"f{n}", "s1", 0.5, at=-n) for n in range(9)))  # earlier, at later positions
    mill.clock.now += AGED
    folded: list[int] = []
    working = fold_module.fold

    async def fold(connection: Connection, tenant: int, batch: Batch, **given: Any) -> Any:
        folded.append(len(batch.claimed))
        if len(folded) == 1:
            monkeypatch.setattr(drain_module, "CLAIM_ROWS_MAX", 100)
            assert await mill.drain.shard(mill.tenant, SHARD) == 12
        return await working(connection, tenant, batch, **given)

    monkeypatch.setattr(drain_module, "fold", fold)
    monkeypatch.setattr(drain_module, "CLAIM_ROWS_MAX", 6)
    await mill.drain.shard(mill.tenant, SHARD)

    assert folded == [6, 12]
    assert await mill.rows(CLAIMS) == []


@pytest.mark.feature("000-09")
async def test_a_note_that_could_not_be_taken_back_is_taken_back_later(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill = await mill_of(pool, live)
    await mill.record(graded("e1", "s1", 0.5))
    mill.clock.now += AGED

    async def away(*_: Any, **__: Any) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as frozen:
        await killed_by(mill, frozen, "e1", ConnectionResetError)
        frozen.setattr(claims, "take_back", away)
        with pytest.raises(ConnectionResetError):
            await mill.fold()
    assert await mill.rows(CLAIMS) == [(1, 1)]

    await mill.fold()

    assert (await mill.rows(CLAIMS), await mill.rows(DEAD)) == ([], [])


CHILD = """
import asyncio, os, signal, sys
from datetime import UTC, datetime
from db.live import open_live
from db.pool import open_pool
from jobs import drain, fold
from jobs.drain import Drain
from db.outbox import SHARDS

database_url, redis_url, tenant, bad_seq = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
working = fold.fold

async def fatal(connection, of_tenant, batch, **given):
    if any(row.seq == bad_seq for row in batch.claimed):
        os.kill(os.getpid(), signal.SIGKILL)
    return await working(connection, of_tenant, batch, **given)

drain.fold = fatal

async def main():
    pool = await open_pool(database_url, size_max=4)
    worker = Drain(pool, lambda: datetime.now(UTC), open_live(redis_url))
    for shard in range(SHARDS):
        await worker.shard(tenant, shard)

asyncio.run(main())
"""


@pytest.mark.feature("000-09")
async def test_real_workers_killed_by_an_event_hold_its_neighbours_up_for_five_seconds_at_most(
    pool: Pool, live: Live, database_url: str, servers: EmbeddedServers
) -> None:
    """Each worker is started as soon as the one before is gone, as a supervisor does."""
    mill = await mill_of(pool, live)
    mill.clock.now = datetime.now(UTC)
    await mill.record(*(graded(f"e{n}", "s1", 0.5, at=n) for n in range(6)))
    [(bad_seq,)] = await mill.rows("select seq from event where tenant = $1 and event_id = 'e2'")
    began, neighbours_at, dead_at = time.monotonic(), 0.0, 0.0
    arguments = [CHILD, database_url, servers.addresses.redis_url, str(mill.tenant), str(bad_seq)]
    endings = []
    async with asyncio.timeout(30):
        while not dead_at:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", *arguments, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL
            )
            endings.append(await child.wait())
            if not neighbours_at and await mill.rows(COUNTS) == [("s1", "", 5), ("s1", "7b", 5)]:
                neighbours_at = time.monotonic() - began
            if await mill.rows(DEAD):
                dead_at = time.monotonic() - began

    assert await mill.rows(DEAD) == [("e2", "WorkerCrashed")]
    assert endings.pop() == 0
    assert set(endings) == {-signal.SIGKILL}
    assert len(endings) >= CRASHES_MAX
    assert 0 < neighbours_at < 5
    assert await drift(pool, mill.tenant, now=datetime.now(UTC)) == []
    assert dead_at < 30


@pytest.mark.feature("000-09")
async def test_two_shards_take_back_the_same_loose_note_without_a_quarrel(pool: Pool, live: Live) -> None:
    """A note that could not be taken back is tried by whichever drain comes next; several may come at once."""
    mill = await mill_of(pool, live)
    await mill.record(*(graded(f"e{number}", "s1", 0.5, classroom=f"room-{number}", at=number) for number in range(12)))
    mill.clock.now += 2 * AGED
    mill.drain._loose.add((mill.tenant, 0, "left-behind"))

    await asyncio.gather(*(mill.drain.shard(mill.tenant, shard) for shard in range(SHARDS)))

    assert await mill.rows("select count(*) from outbox where tenant = $1") == [(0,)]
    assert mill.drain._loose == set()
