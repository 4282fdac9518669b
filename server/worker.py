"""The worker process: builds the workplace and drains until it is told to stop."""

import asyncio
import gc

from jobs.worker import Workplace, run_worker
from server.embedded import Addresses
from server.engine import means
from server.metrics import Parts
from server.observing import VERSION, observing
from server.settings import Settings

# A fold makes tens of thousands of values and lets go of nearly all of them at its end, without cycles: collecting in
# between found nothing, again and again (measured: a tenth of a worker's CPU).
GC_YOUNG_OBJECTS = 200_000


async def serve_worker(settings: Settings, addresses: Addresses, *, stop: asyncio.Event) -> None:
    """Fold what waits until `stop` is set; then finish the transaction in flight, at most `shutdown_seconds`."""
    gc.set_threshold(GC_YOUNG_OBJECTS, *gc.get_threshold()[1:])
    watched = observing(settings, "worker")
    async with means(settings, addresses) as opened:
        workplace = Workplace(
            pool=opened.pool,
            clock=opened.clock,
            live=opened.live,
            waker=opened.waker,
            concurrency=settings.worker_concurrency,
            stop=stop,
            tracer=watched.tracer,
        )
        page = watched.page(
            Parts(
                kind="worker",
                version=VERSION,
                pool=opened.pool,
                live=opened.live,
                clock=opened.clock,
                disk=settings.data_dir,
                workplace=workplace,
                sampling=watched.sampling,
            )
        )
        working = asyncio.create_task(run_worker(workplace))
        try:
            async with watched.published(page, is_worker=True):
                await stop.wait()
                async with asyncio.timeout(settings.shutdown_seconds):
                    await working
        except TimeoutError:
            pass  # cancelled by the timeout; what it held returns to the outbox with its transaction
        finally:
            watched.close()
