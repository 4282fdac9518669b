"""What both kinds of process stand on: the pool, the wake-ups and the live channel, opened and closed together."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from db.live import Live, open_live
from db.pool import LOST, Pool, open_pool
from db.wake import Waker
from server.clock import clock_with
from server.embedded import Addresses
from server.settings import Settings

log = logging.getLogger(__name__)

BOOT_SECONDS_MAX = 30.0  # Postgres may be starting, or recovering from a crash; then whoever started us is told
BOOT_RETRY_SECONDS = 0.25
CLOSE_SECONDS = 2.0  # a pool whose server is frozen is terminated after this


@dataclass(frozen=True, slots=True)
class Means:
    """A process's connections and its clock."""

    pool: Pool
    live: Live
    waker: Waker
    clock: Callable[[], datetime]


@asynccontextmanager
async def means(settings: Settings, addresses: Addresses) -> AsyncIterator[Means]:
    """Open the connections of one process, and close them however it ends."""
    pool = await _opened(settings, addresses)
    live, waker = open_live(addresses.redis_url), Waker(addresses.redis_url)
    try:
        yield Means(pool, live, waker, clock_with(settings.now_offset))
    finally:
        await live.aclose()
        await waker.aclose()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()
        except TimeoutError:
            pool.terminate()


async def _opened(settings: Settings, addresses: Addresses) -> Pool:
    """The pool, once Postgres takes connections: a process that starts in a restart of Postgres must not end of it."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + BOOT_SECONDS_MAX
    while True:
        try:
            return await open_pool(
                addresses.database_url,
                size_max=settings.pool_size_max,
                size_idle=settings.pool_size_idle,
                lifetime_seconds=settings.pool_lifetime_seconds,
            )
        except LOST as error:
            if loop.time() >= deadline:
                raise
            log.warning("postgres_away", extra={"error": type(error).__name__})
        await asyncio.sleep(BOOT_RETRY_SECONDS)
