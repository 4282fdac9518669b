"""Reads that are asked for at the same moment, in one transaction of their tenant: the busier, the cheaper each."""

import asyncio
from collections.abc import Callable, Hashable, Iterator
from contextvars import Context as Surroundings
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import monotonic
from typing import TypeAlias

from db.pages import ASKS_MAX, SETTINGS, Ask, Found, read_pages, whole
from db.pool import CANCELLED, LOST, Connection, Pool, tenant_transaction
from graph.kept import Kept, Lists

ROUNDS_MAX = 2  # of one tenant under way: one is read while the other is answered
STATEMENTS_MAX = 8  # in one round
PATIENCE_SECONDS = 0.25  # who waited longer behind a round that got no connection, or no word, is told with it


@dataclass(slots=True)
class _Asked:
    """One ask that waits, and all who wait for its answer: each alone, so that whoever leaves takes nothing along."""

    since: float  # monotonic seconds
    answers: "list[asyncio.Future[Found | None]]" = field(default_factory=list)

    def tell(self, outcome: Found | Exception | None) -> None:
        """Answer all who still wait."""
        for answer in self.answers:
            if answer.done():
                continue
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)


Taken: TypeAlias = dict[str, dict[Ask, _Asked]]
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
        asked = asks.get(ask)
        if asked is None:
            asked = asks[ask] = _Asked(monotonic())
        answer: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        asked.answers.append(answer)
        self._go_on(line)
        return await answer

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
            for asked in _each(taken):
                for answer in asked.answers:
                    answer.cancel()  # those that nothing has answered
            line.rounds -= 1
            self._go_on(line)
            if not line.rounds:
                self._lines.pop((line.pool, line.tenant), None)

    async def _answer(self, line: _Line, taken: Taken) -> None:
        """Answer all of a round: statement by statement, each as soon as it is read; `taken` keeps the others."""
        try:
            async with tenant_transaction(line.pool, line.tenant, read_only=True, settings=SETTINGS) as connection:
                for statement in list(taken):
                    await self._read(connection, line, statement, taken[statement])
                    del taken[statement]
        except CANCELLED as error:
            # It took all the time that a statement has: by the reference executor it would take as long once more.
            for asked in taken.pop(next(iter(taken), ""), {}).values():
                asked.tell(error)
            _put_back(line, taken)
        except Exception as error:
            # asyncpg's word for a value that it cannot send is one of both: that is no failure of the server.
            is_away = isinstance(error, LOST) and not isinstance(error, ValueError)
            waited = _given_up(line) if isinstance(error, TimeoutError) else []
            for asked in (*_each(taken), *waited):
                # One ask that no statement takes must not fail its neighbours: each is then read by itself.
                asked.tell(error if is_away else None)

    async def _read(self, connection: Connection, line: _Line, statement: str, asks: dict[Ask, _Asked]) -> None:
        keys = [(line.pool, line.tenant, statement, ask.key, ask.values) for ask in asks]
        held = [self._kept.of(key) for key in keys]
        known = [None if one is None else one.version for one in held]
        found = await read_pages(connection, line.tenant, statement, list(asks), known=known, now=line.clock())
        for asked, key, before, one in zip(asks.values(), keys, held, found, strict=True):
            asked.tell(None if one is None else self._whole(key, before, one))

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


def _put_back(line: _Line, left: Taken) -> None:
    """Let those of a round whom nothing was asked for be the first of the next one."""
    for statement, asks in left.items():
        for ask, behind in line.waiting.pop(statement, {}).items():
            asks.setdefault(ask, _Asked(behind.since)).answers.extend(behind.answers)
    line.waiting = {**left, **line.waiting}
    left.clear()


def _given_up(line: _Line) -> list[_Asked]:
    """Take those from the line who have waited long; the others came when the silence may have been over."""
    given_up, now = [], monotonic()
    for statement, asks in list(line.waiting.items()):
        late = [ask for ask, asked in asks.items() if now - asked.since > PATIENCE_SECONDS]
        given_up += [asks.pop(ask) for ask in late]
        if not asks:
            del line.waiting[statement]
    return given_up


def _each(taken: Taken) -> Iterator[_Asked]:
    for asks in taken.values():
        yield from asks.values()
