"""A worker of the release before in turns with ours, its own code: streams find what either of them has moved."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from db.live import Live
from db.outbox import Touch, Waiting
from db.pool import Pool
from jobs.replay import drift
from tests.jobs.test_drain import mill_of
from tests.jobs.test_releases import LEFT
from tests.jobs.test_stamps import COUNTERS, assert_all_is_found, policy_changes
from tests.support.events import Mill, graded, void
from tests.support.releases import unpacked

WORKER = Path(__file__).parents[1] / "support" / "older_worker.py"


@asynccontextmanager
async def older_worker(tree: Path, *addresses: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Its process, killed in the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), *addresses, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def folded_by(process: asyncio.subprocess.Process, mill: Mill) -> int:
    """How many rows it folded."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{mill.tenant} {mill.clock().isoformat()}\n".encode())
    return int(await asyncio.wait_for(process.stdout.readline(), 30))


@pytest.mark.feature("X-38", "X-29", "000-11")
async def test_what_ours_and_a_worker_of_0_1_0_move_in_turns_is_found_from_every_place_and_is_what_the_log_says(
    pool: Pool, live: Live, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Neither knows what the other has done but by its numbers: ours remembers, and stamps what it moves."""
    mill = await mill_of(pool, live)
    first, second = graded("e0", "s1", 0.5), graded("e1", "s2", 0.5, at=1)
    pieces = [
        [first, second], [graded("e2", "s1", 0.6, at=2)], [void("v1", first)], [graded("e3", "s2", 0.7, at=3)],
        [void("v2", second), graded("e4", "s1", 0.8, at=4, concepts=("decimals",))], [graded("late", "s2", 0.1)],
        [graded("e5", "s1", 0.9, at=5, submission="x")], [graded("e6", "s1", 0.2, at=6, submission="x")],
    ]  # fmt: skip
    async with older_worker(unpacked(tmp_path), database_url, redis_url) as older:
        for place, piece in enumerate(pieces):
            await mill.record(*piece)
            if place == 4:
                await policy_changes(mill)
            while (await mill.rows(LEFT))[0][0]:
                assert (await mill.fold() if place % 2 == 0 else await folded_by(older, mill)) > 0
            ((change_no, stamped_from, stamped_to),) = await mill.rows(COUNTERS)
            assert (stamped_to == change_no) is (place % 2 == 0)  # it was the other one indeed
            assert stamped_from <= stamped_to
            await assert_all_is_found(mill)
        await mill.touch(Touch(Waiting.TOUCH_CLASSROOM, classroom="7b"))
        await mill.fold()

    await assert_all_is_found(mill)
    assert await drift(pool, mill.tenant, now=mill.clock()) == []
