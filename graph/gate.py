"""The one gate of a process: how many operations may run at once, and how long the next one waits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from graph.refusal import ErrorCode, Refused


class Gate:
    """Lets `places` operations run; another waits `wait_seconds_max` and is then refused as OVERLOADED."""

    def __init__(self, *, places: int = 100, wait_seconds_max: float = 0.5) -> None:
        self._places = asyncio.Semaphore(places)
        self._wait_seconds_max = wait_seconds_max

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Hold a place for the length of the block. Raises Refused with OVERLOADED."""
        try:
            async with asyncio.timeout(self._wait_seconds_max):
                await self._places.acquire()
        except TimeoutError:
            raise Refused(ErrorCode.OVERLOADED, "The service is busy; try again shortly.") from None
        try:
            yield
        finally:
            self._places.release()
