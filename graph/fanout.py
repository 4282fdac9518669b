"""One read for many readers: what the sockets of a process ask of Postgres at the same moment is asked once."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

REMEMBERED_MAX = 20_000  # ties of as many (viewer, class or student) pairs, at some 500 bytes each

Value = TypeVar("Value")


class Fanout:
    """The shared reads of one process. Values are shared between readers, so nobody may change one."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._boarding: dict[Hashable, asyncio.Task[Any]] = {}
        self._remembered: dict[Hashable, tuple[float, Any]] = {}

    async def shared(self, key: Hashable, load: Callable[[], Awaitable[Value]]) -> Value:
        """Load once for all who ask before the load begins: those woken by the same message do.

        Nobody joins a load that has begun, for it may not see the change that they were woken by. `key` must name
        everything the value depends on.
        """
        flight: asyncio.Task[Value] | None = self._boarding.get(key)
        if flight is None:
            flight = self._boarding[key] = asyncio.create_task(self._fly(key, load))
            flight.add_done_callback(_retrieve)
        # Shielded: one reader that leaves must not cancel what the others wait for.
        return await asyncio.shield(flight)

    async def recent(self, key: Hashable, load: Callable[[], Awaitable[Value]], *, seconds_max: float) -> Value:
        """The value as it was at most so many seconds ago."""
        known = self._remembered.get(key)
        began = self._seconds()
        if known is not None and began - known[0] < seconds_max:
            value: Value = known[1]
            return value
        value = await self.shared(("recent", key), load)
        self._remember(key, began, value)
        return value

    def _remember(self, key: Hashable, began: float, value: Any) -> None:
        self._remembered.pop(key, None)  # the oldest stand first
        self._remembered[key] = (began, value)
        while len(self._remembered) > REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]

    async def _fly(self, key: Hashable, load: Callable[[], Awaitable[Value]]) -> Value:
        del self._boarding[key]
        return await load()


def _retrieve(flight: asyncio.Task[Any]) -> None:
    """Look at the outcome, so that a load whose readers have all left is no unhandled error."""
    if not flight.cancelled():
        flight.exception()
