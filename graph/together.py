"""Reads that are asked for at the same moment by the same document, in one transaction of their tenant."""

import asyncio
from contextvars import Context as Surroundings
from contextvars import copy_context
from dataclasses import dataclass, field

from db.pages import ASKS_MAX, SETTINGS, Ask, Found, read_pages
from db.pool import LOST, Pool, tenant_transaction
from graph.request import Context, Engine

ROUNDS_MAX = 2  # of one document and tenant under way: one is read while the other is answered


@dataclass(slots=True)
class _Line:
    """Who waits to be read for, of one tenant; each ask once, however many ask it."""

    engine: Engine
    tenant: int
    waiting: dict[Ask, "asyncio.Future[Found | None]"] = field(default_factory=dict)
    surroundings: Surroundings | None = None  # the trace of the first who waits
    rounds: int = 0


class Together:
    """The reads of one document. While a round is under way, the next one gathers: the busier, the cheaper each."""

    def __init__(self, statement: str) -> None:
        self.statement = statement
        self._lines: dict[tuple[Pool, int], _Line] = {}  # only those that somebody waits in
        self._tasks: set[asyncio.Task[None]] = set()

    async def read(self, context: Context, ask: Ask) -> Found | None:
        """What the ask found; None where there is none, or where the statement failed by itself.

        Raises what the pool raises when Postgres is away.
        """
        key = context.pool, context.viewer.tenant
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(context.engine, context.viewer.tenant)
        if not line.waiting:
            line.surroundings = copy_context()
        answer = line.waiting.get(ask)
        if answer is None:
            answer = line.waiting[ask] = asyncio.get_running_loop().create_future()
        self._go_on(key, line)
        return await asyncio.shield(answer)  # whoever leaves takes nothing from the others

    def _go_on(self, key: tuple[Pool, int], line: _Line) -> None:
        if line.waiting and line.rounds < ROUNDS_MAX:
            line.rounds += 1
            task = asyncio.get_running_loop().create_task(self._round(key, line), context=line.surroundings)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _round(self, key: tuple[Pool, int], line: _Line) -> None:
        taken = dict(list(line.waiting.items())[:ASKS_MAX])
        for ask in taken:
            del line.waiting[ask]
        try:
            if taken:
                await self._answer(line, taken)
        finally:
            for answer in taken.values():
                answer.cancel()  # those that nothing has answered
            line.rounds -= 1
            self._go_on(key, line)
            if not line.waiting and not line.rounds:
                self._lines.pop(key, None)

    async def _answer(self, line: _Line, taken: "dict[Ask, asyncio.Future[Found | None]]") -> None:
        engine, now = line.engine, line.engine.clock()
        try:
            async with tenant_transaction(engine.pool, line.tenant, read_only=True, settings=SETTINGS) as connection:
                found = await read_pages(connection, line.tenant, self.statement, list(taken), now=now)
        except Exception as error:
            # Postgres is away for all of them. But one ask that no statement takes (asyncpg's word for it is both) must
            # not fail its neighbours: each is then read by itself.
            is_away = isinstance(error, LOST) and not isinstance(error, ValueError)
            for answer in taken.values():
                answer.set_exception(error) if is_away else answer.set_result(None)
        else:
            for answer, one in zip(taken.values(), found, strict=True):
                answer.set_result(one)
