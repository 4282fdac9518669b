"""Reads that are asked for at the same moment, in one transaction of their tenant: the busier, the cheaper each."""

import asyncio
from collections.abc import Callable, Hashable
from contextvars import Context as Surroundings
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeAlias

from db.pages import ASKS_MAX, SETTINGS, Ask, Found, read_pages, whole
from db.pool import LOST, Connection, Pool, tenant_transaction
from graph.kept import Kept, Lists

ROUNDS_MAX = 2  # of one tenant under way: one is read while the other is answered
STATEMENTS_MAX = 8  # in one round

Answer: TypeAlias = "asyncio.Future[Found | None]"
Taken: TypeAlias = dict[str, dict[Ask, Answer]]
"""Who is read for, by statement; each ask once, however many ask it."""


@dataclass(slots=True)
class _Line:
    """Who waits to be read for, of one tenant."""

    pool: Pool
    tenant: int
    clock: Callable[[], datetime]
    waiting: Taken = field(default_factory=dict)
    surroundings: Surroundings | None = None  # the trace of the first who waits
    rounds: int = 0


class Together:
    """The reads of a process. While rounds of a tenant are under way, its next one gathers."""

    def __init__(self, kept: Kept | None = None) -> None:
        self._kept = kept or Kept()
        self._lines: dict[tuple[Pool, int], _Line] = {}  # only those that somebody waits in
        self._tasks: set[asyncio.Task[None]] = set()

    async def read(
        self, pool: Pool, tenant: int, statement: str, ask: Ask, *, clock: Callable[[], datetime]
    ) -> Found | None:
        """What the ask found by a statement of `db.pages`; None where there is none, or where the statement failed.

        Raises what the pool raises when Postgres is away.
        """
        line = self._lines.get((pool, tenant))
        if line is None:
            line = self._lines[pool, tenant] = _Line(pool, tenant, clock)
        if not line.waiting:
            line.surroundings = copy_context()
        asks = line.waiting.setdefault(statement, {})
        answer = asks.get(ask)
        if answer is None:
            answer = asks[ask] = asyncio.get_running_loop().create_future()
        self._go_on(line)
        return await asyncio.shield(answer)  # whoever leaves takes nothing from the others

    def _go_on(self, line: _Line) -> None:
        if line.waiting and line.rounds < ROUNDS_MAX:
            line.rounds += 1
            task = asyncio.get_running_loop().create_task(self._round(line), context=line.surroundings)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _round(self, line: _Line) -> None:
        taken = _taken(line)
        try:
            if taken:
                await self._answer(line, taken)
        finally:
            for asks in taken.values():
                for answer in asks.values():
                    answer.cancel()  # those that nothing has answered
            line.rounds -= 1
            self._go_on(line)
            if not line.rounds:
                self._lines.pop((line.pool, line.tenant), None)

    async def _answer(self, line: _Line, taken: Taken) -> None:
        """Answer all of a round: statement by statement, each as soon as it is read."""
        try:
            async with tenant_transaction(line.pool, line.tenant, read_only=True, settings=SETTINGS) as connection:
                for statement, asks in taken.items():
                    await self._read(connection, line, statement, asks)
        except Exception as error:
            # asyncpg's word for a value that it cannot send is one of both: that is no failure of the server.
            is_away = isinstance(error, LOST) and not isinstance(error, ValueError)
            # Who waits behind a server that says nothing has waited as long, and would wait as long again.
            behind = _taken(line) if isinstance(error, TimeoutError) else {}
            for asks in (*taken.values(), *behind.values()):
                for answer in asks.values():
                    if not answer.done():
                        # One ask that no statement takes must not fail its neighbours: each is then read by itself.
                        answer.set_exception(error) if is_away else answer.set_result(None)

    async def _read(self, connection: Connection, line: _Line, statement: str, asks: dict[Ask, Answer]) -> None:
        keys = [(line.pool, line.tenant, statement, ask.key, ask.values) for ask in asks]
        held = [self._kept.of(key) for key in keys]
        known = [None if one is None else one.version for one in held]
        found = await read_pages(connection, line.tenant, statement, list(asks), known=known, now=line.clock())
        for answer, key, before, one in zip(asks.values(), keys, held, found, strict=True):
            answer.set_result(None if one is None else self._whole(key, before, one))

    def _whole(self, key: Hashable, before: Lists | None, found: Found) -> Found:
        """What was found, with its lists in their places: those of the present version."""
        if found.text is None or found.version is None:
            return found
        lists = found.lists
        if lists is None:
            assert before is not None
            assert before.version == found.version
            lists = before.texts
        else:
            self._kept.keep(key, found.version, lists)
        return replace(found, text=whole(found.text, lists), lists=None)


def _taken(line: _Line) -> Taken:
    """Whom the next round is for: the first who wait for each statement."""
    taken: Taken = {}
    for statement, asks in list(line.waiting.items())[:STATEMENTS_MAX]:
        taken[statement] = {ask: asks.pop(ask) for ask in list(asks)[:ASKS_MAX]}
        if not asks:
            del line.waiting[statement]
    return taken
