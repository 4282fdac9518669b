"""Lists of a class that hold until its number changes: written once, and sent to whoever may see them meanwhile."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import monotonic

KEPT_MAX = 2_000  # asks whose lists are kept
KEPT_CHARACTERS_MAX = 16_000_000  # of all of them together
KEPT_SECONDS_MAX = 30.0  # bounds memory alone: whether a list holds, its version says


@dataclass(frozen=True, slots=True)
class Lists:
    """What was written of one class by one document, under one version of the class."""

    version: str
    texts: tuple[str, ...]
    since: float

    @property
    def characters(self) -> int:
        """How much it holds."""
        return sum(map(len, self.texts))


class Kept:
    """The lists of a process, the oldest first. They say nothing of rights: those are read for each viewer."""

    def __init__(self, seconds: Callable[[], float] = monotonic) -> None:
        self._seconds = seconds
        self._lists: OrderedDict[Hashable, Lists] = OrderedDict()
        self._characters = 0

    def __len__(self) -> int:
        return len(self._lists)

    def of(self, key: Hashable) -> Lists | None:
        """What is kept of an ask; whether it still holds, only a reader who knows the present version can say."""
        self._forget()
        return self._lists.get(key)

    def keep(self, key: Hashable, version: str, texts: tuple[str, ...]) -> None:
        """Keep lists in the place of those before."""
        self._drop(key)
        lists = self._lists[key] = Lists(version, texts, self._seconds())
        self._characters += lists.characters
        self._forget()

    def _forget(self) -> None:
        oldest_since = self._seconds() - KEPT_SECONDS_MAX
        while self._lists:
            key, oldest = next(iter(self._lists.items()))
            is_much = len(self._lists) > KEPT_MAX or self._characters > KEPT_CHARACTERS_MAX
            if not is_much and oldest.since >= oldest_since:
                break
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        dropped = self._lists.pop(key, None)
        if dropped is not None:
            self._characters -= dropped.characters
