"""How many waiting rows a worker process may hold claimed at once, shared by all that it drains (003-33)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

HELD_ROWS_MAX = 5_000
USEFUL_ROWS = 2_500  # smaller batches of a bulk cost more than the wait for another drain to give back its own


@dataclass(slots=True)
class Held:
    """What one drain may claim; after its claim, what it holds."""

    rows: int
    allowance: "Allowance"

    def keep(self, rows: int) -> None:
        """Give back at once what the claim did not find: live events take a handful, and others wait for the rest."""
        assert rows <= self.rows, "expected no more rows than were granted"
        self.allowance.give_back(self.rows - rows)
        self.rows = rows


@dataclass(slots=True)
class Allowance:
    """Grants rows to those who ask, one after the other in the order in which they came.

    Whoever is first gets all that is free, so that the batches of a bulk stay large: a process computes one at a time
    anyway. A grant ends with its transaction, whose time is bounded, and so is the wait.
    """

    free: int = HELD_ROWS_MAX
    _line: asyncio.Lock = field(default_factory=asyncio.Lock)  # serves who waits in order
    _returned: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def up_to(self, rows: int) -> AsyncIterator[Held]:
        """Wait for a grant of so many rows, or of as many of them as are of use."""
        async with self._line:
            while self.free < min(rows, USEFUL_ROWS):
                self._returned.clear()
                await self._returned.wait()
            held = Held(min(rows, self.free), self)
            self.free -= held.rows
        try:
            yield held
        finally:
            self.give_back(held.rows)

    def give_back(self, rows: int) -> None:
        """Let the next one have them."""
        self.free += rows
        self._returned.set()
