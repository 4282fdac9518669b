"""Laws 1 and 2 under concurrency: several drains at once, over classes that share students, fold as one would."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.live import Live
from db.outbox import SHARDS
from db.pool import Pool
from jobs.drain import Drain
from tests.laws.world import World, batches, histories, law, plans, voids_of

WORKERS = 3


@pytest.mark.feature("000-08", "000-11")
@law()
@given(data=st.data())
async def test_workers_that_drain_at_the_same_time_fold_as_one_would(
    data: st.DataObject, pool: Pool, live: Live
) -> None:
    plan, events = data.draw(plans()), data.draw(histories(at_least=8, at_most=16))
    out = data.draw(st.lists(st.sampled_from(events), unique_by=lambda event: event.event_id, max_size=2))
    alone = await World.of(pool, live, plan)
    await alone.told([event for event in events if event not in out])
    crowded = await World.of(pool, live, plan)
    mill = crowded.mill
    workers = [Drain(pool, mill.clock, live) for _ in range(WORKERS)]
    for piece in data.draw(batches([*events, *voids_of(out)])):
        recording = asyncio.create_task(crowded.record(piece))  # also while the drains are at work
        shards = await crowded.waiting() or list(range(SHARDS))[:4]
        limit = data.draw(st.sampled_from([1, 2, 5_000]))
        await asyncio.gather(
            recording,
            *(worker.shard(crowded.tenant, shard) for worker in workers[:2] for shard in shards),
            *(workers[2]._once(crowded.tenant, shard, limit) for shard in shards),
        )
    await crowded.quiesce()
    await crowded.is_as(alone)
