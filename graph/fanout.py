"""One read for many readers: what the sockets of a process ask of Postgres at the same moment is asked once."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, Final, TypeVar

REMEMBERED_MAX = 20_000  # ties of as many (viewer, class or student) pairs, at some 500 bytes each

TOGETHER_MAX = 100  # pages of 200 rows each at the very worst, before others get their turn

UNKNOWN: Final = object()
"""What is not remembered, or too old."""

Value = TypeVar("Value")
Item = TypeVar("Item", bound=Hashable)


class _Bus:
    """Items that will be loaded in one go, in the order they were asked for."""

    def __init__(self) -> None:
        self.items: dict[Any, None] = {}
        self.flight: asyncio.Task[Any] | None = None


class Fanout:
    """The shared reads of one process. Values are shared between readers, so nobody may change one."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._boarding: dict[Hashable, asyncio.Task[Any]] = {}
        self._buses: dict[Hashable, _Bus] = {}
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

    async def together(
        self, kind: Hashable, item: Item, load: Callable[[Sequence[Item]], Awaitable[Mapping[Item, Value]]]
    ) -> Value | None:
        """Load one of a kind, in one go with all that is asked for before the load begins; None where it is not there.

        `kind` and the item must name everything the value depends on.
        """
        bus = self._buses.get(kind)
        if bus is None or len(bus.items) >= TOGETHER_MAX:
            bus = self._buses[kind] = _Bus()
            bus.flight = asyncio.create_task(self._drive(kind, bus, load))
            bus.flight.add_done_callback(_retrieve)
        bus.items[item] = None
        assert bus.flight is not None, "a bus has its driver before it has riders"
        found: Mapping[Item, Value] = await asyncio.shield(bus.flight)
        return found.get(item)

    async def _drive(
        self, kind: Hashable, bus: "_Bus", load: Callable[[Sequence[Any]], Awaitable[Mapping[Any, Value]]]
    ) -> Mapping[Any, Value]:
        if self._buses.get(kind) is bus:
            del self._buses[kind]
        return await load(list(bus.items))

    def recall(self, key: Hashable, *, seconds_max: float) -> Any:
        """The value as it was at most so many seconds ago, or UNKNOWN where that must be loaded."""
        known = self._remembered.get(key)
        return known[1] if known is not None and self.seconds() - known[0] < seconds_max else UNKNOWN

    async def recent(self, key: Hashable, load: Callable[[], Awaitable[Value]], *, seconds_max: float) -> Value:
        """The value as it was at most so many seconds ago."""
        known = self.recall(key, seconds_max=seconds_max)
        if known is not UNKNOWN:
            value: Value = known
            return value
        began = self.seconds()
        loaded = await self.shared(("recent", key), load)
        return self._remember(key, began, loaded)

    async def renew(
        self, kind: Hashable, items: Sequence[Item], load: Callable[[Sequence[Item]], Awaitable[Mapping[Item, Any]]]
    ) -> dict[Item, Any]:
        """Load the values of (kind, item) in one go, for whoever asks for recent ones; None where one is not there."""
        began = self.seconds()
        found = await load(items)
        return {item: self._remember((kind, item), began, found.get(item)) for item in items}

    def _remember(self, key: Hashable, began: float, value: Value) -> Value:
        """Keep a value; one that equals the one before is that one, so that readers see at a glance what is new."""
        known = self._remembered.pop(key, None)  # the oldest stand first
        if known is not None and (known[0] > began or known[1] == value):
            began, value = max(began, known[0]), known[1]
        self._remembered[key] = (began, value)
        while len(self._remembered) > REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]
        return value

    async def _fly(self, key: Hashable, load: Callable[[], Awaitable[Value]]) -> Value:
        del self._boarding[key]
        return await load()


def _retrieve(flight: asyncio.Task[Any]) -> None:
    """Look at the outcome, so that a load whose readers have all left is no unhandled error."""
    if not flight.cancelled():
        flight.exception()
