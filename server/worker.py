"""The worker process: builds the workplace and drains until it is told to stop."""

import asyncio

from jobs.worker import Workplace, run_worker
from server.embedded import Addresses
from server.engine import means
from server.settings import Settings


async def serve_worker(settings: Settings, addresses: Addresses, *, stop: asyncio.Event) -> None:
    """Fold what waits until `stop` is set; then finish the transaction in flight, at most `shutdown_seconds`."""
    async with means(settings, addresses) as opened:
        workplace = Workplace(
            pool=opened.pool,
            clock=opened.clock,
            live=opened.live,
            waker=opened.waker,
            concurrency=settings.worker_concurrency,
            stop=stop,
        )
        working = asyncio.create_task(run_worker(workplace))
        await stop.wait()
        try:
            async with asyncio.timeout(settings.shutdown_seconds):
                await working
        except TimeoutError:
            pass  # cancelled by the timeout; what it held returns to the outbox with its transaction
