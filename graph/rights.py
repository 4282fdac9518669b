"""Rights to a stream: judged in memory, viewer by viewer, from ties that are read once for all who ask."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from graph.fanout import UNKNOWN, Fanout
from graph.patience import patiently
from rules.access import Viewer

DELIVERY_RIGHT_SECONDS = 2.0  # a right that was withdrawn ends the deliveries within this
IDLE_RIGHT_SECONDS = 3.5  # with a second's wait, who hears nothing is judged again at least every 5 s
KEYS_MAX = 1_000  # of one statement

Member = TypeVar("Member")


@dataclass(frozen=True, slots=True)
class Ties:
    """What binds people to one class, student or job: the same for all who ask, so that one read judges thousands.

    Ties of one `kind` are loaded together. A value is shared, and the same object as long as nothing has changed; None
    where there is nothing of this key.
    """

    fanout: Fanout
    kind: tuple[str, int]
    key: str
    load: Callable[[Sequence[str]], Awaitable[Mapping[str, Any]]]

    def known(self, *, seconds_max: float) -> Any:
        """As they were at most so many seconds ago, or UNKNOWN where that must be read."""
        return self.fanout.recall((self.kind, self.key), seconds_max=seconds_max)

    async def read(self, *, seconds_max: float) -> Any:
        """As they were at most so many seconds ago."""
        return await self.fanout.recent((self.kind, self.key), self._together, seconds_max=seconds_max)

    async def _together(self) -> Any:
        return await self.fanout.together(self.kind, self.key, self.load)


@dataclass(frozen=True, slots=True)
class Right:
    """Who may hear a stream."""

    ties: Ties
    may: Callable[[Viewer, Any], bool]

    async def admits(self, viewer: Viewer, *, seconds_max: float) -> bool:
        """Whether the viewer may hear it, by ties at most so old."""
        ties = self.ties.known(seconds_max=seconds_max)
        if ties is UNKNOWN:
            ties = await self.ties.read(seconds_max=seconds_max)
        return ties is not None and self.may(viewer, ties)


class Circle(Generic[Member]):
    """All who are judged by the same ties, and the ties that admitted every one of them."""

    __slots__ = ("_read_at", "_ties", "admitted_by", "members", "right")

    def __init__(self, right: Right) -> None:
        self.right = right
        self.members: set[Member] = set()
        self.admitted_by: Any = UNKNOWN
        self._ties: Any = UNKNOWN
        self._read_at = right.ties.fanout.seconds()  # as old as the circle, until they are read

    @property
    def known(self) -> Any:
        """The ties as fresh as a delivery wants them, or UNKNOWN."""
        return self._ties if self.unread_seconds < DELIVERY_RIGHT_SECONDS else UNKNOWN

    @property
    def unread_seconds(self) -> float:
        """How old the ties are."""
        return self.right.ties.fanout.seconds() - self._read_at

    async def ties(self) -> Any:
        """As fresh as a delivery wants them; from memory, nearly always."""
        known = self.known
        if known is not UNKNOWN:
            return known
        return await patiently(partial(self.right.ties.read, seconds_max=DELIVERY_RIGHT_SECONDS))

    def learn(self, read_at: float, ties: Any) -> None:
        """Take what was read for many circles, unless newer ties are known: the mover reads them too."""
        if read_at >= self._read_at:
            self._read_at, self._ties = read_at, ties


async def renew(circles: Iterable[Circle[Any]]) -> None:
    """Read the ties of all circles again, in one statement for up to 1,000 of a kind.

    Raises the first error after all others are read: one tenant's statement must not leave another's rights as they
    were. Only a server that says nothing is not asked again, for it would keep each of them waiting as long.
    """
    first_error: Exception | None = None
    kinds: dict[Hashable, list[Circle[Any]]] = defaultdict(list)
    for circle in circles:
        kinds[circle.right.ties.kind].append(circle)
    for of_kind in kinds.values():
        for start in range(0, len(of_kind), KEYS_MAX):
            try:
                await _renew_together(of_kind[start : start + KEYS_MAX])
            except Exception as error:
                first_error = first_error or error
                if isinstance(error, TimeoutError):
                    raise first_error from None
    if first_error is not None:
        raise first_error


async def _renew_together(circles: Sequence[Circle[Any]]) -> None:
    first = circles[0].right.ties
    began = first.fanout.seconds()
    found = await first.fanout.renew(first.kind, [circle.right.ties.key for circle in circles], first.load)
    for circle in circles:
        circle.learn(began, found[circle.right.ties.key])
