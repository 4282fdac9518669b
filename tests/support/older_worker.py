"""A worker of whichever release is first on the path: it folds what waits of a tenant as often as it is told to.

Run by itself, with the folder of that release as PYTHONPATH. Reads lines "tenant now", answers each with one line.
"""

import asyncio
import sys
from datetime import UTC, datetime

from db.live import open_live
from db.outbox import SHARDS
from db.pool import open_pool
from jobs.drain import Drain


async def work(database_url: str, redis_url: str) -> None:
    """Until nothing more is asked."""
    pool, live = await open_pool(database_url, size_max=2), open_live(redis_url)
    moment = datetime.now(UTC)
    drain = Drain(pool, lambda: moment, live)
    while line := await asyncio.to_thread(sys.stdin.readline):
        tenant, now = line.split()
        moment = datetime.fromisoformat(now)
        print(sum([await drain.shard(int(tenant), shard) for shard in range(SHARDS)]), flush=True)
    await live.aclose()
    await pool.close()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
