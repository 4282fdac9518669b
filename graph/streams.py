"""Following one class or student: wait, read what changed past a position, deliver, go on; the position is the queue.

Every stream registers its wake-up before it reads, so that no change falls between; a wake-up that was lost costs at
most a round of the patrol. Nothing waits in memory for a slow reader, and no connection is held while one reads.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Any, Generic, TypeVar

import strawberry

from db import changes
from db.changes import PAGE, Position
from db.freshness import BY_INDEX, Freshness
from db.live import Topic, Watch
from db.pool import LOST, Connection, tenant_transaction
from graph.audience import DELIVERY_RIGHT_SECONDS, IDLE_RIGHT_SECONDS, Right
from graph.refusal import ErrorCode, Refused
from graph.request import Context
from graph.tokens import Cursor, Place, StreamName

STATE_PAUSE_SECONDS = 0.1  # a stream of state tells the newest at most this often
PATIENCE_SECONDS = 30.0  # how long a stream outlives Postgres; then the client resumes elsewhere
RETRY_SECONDS = 0.25
IDLE_WAIT_SECONDS = 1.0
LEADER_WAIT_SECONDS = 5.0  # nobody is judged when it ends
LOOK_AFTER_WAITS = 10

Row = TypeVar("Row")
Value = TypeVar("Value")


@strawberry.enum(description="What a message of a subscription brings.")
class LiveMessageKind(Enum):
    """Every subscription uses the same four."""

    SNAPSHOT = strawberry.enum_value(
        "SNAPSHOT", description="State as it was when you subscribed; sent first, when `after` was left out."
    )
    CHANGE = strawberry.enum_value("CHANGE", description="Something that changed or happened.")
    READY = strawberry.enum_value(
        "READY",
        description="No payload: you have all there was, changes follow. Sent once, when `after` was left out, so that "
        "you hold a resume token before anything happens; `dashboardChanged` sends its SNAPSHOT instead.",
    )
    RESYNC = strawberry.enum_value(
        "RESYNC",
        description="No payload: what happened since `after` is not kept any more. Query the state again; changes from "
        "now on follow, and the new token is good.",
    )


@dataclass(frozen=True, slots=True)
class Told(Generic[Row]):
    """One message on its way to its clients."""

    kind: LiveMessageKind
    place: Place
    token: str
    point: Freshness
    row: Row | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """What one read found past a cursor; shared between the readers who stand there."""

    position: Position
    rows: Sequence[Row] | None = None  # None: nothing has moved, so nothing was read

    @property
    def is_full(self) -> bool:
        """Whether more may follow at once."""
        return self.rows is not None and len(self.rows) >= PAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream(Generic[Row]):
    """What is followed, and how it is read. `place` says where a row stands; `right` is judged again and again."""

    name: StreamName
    topic: Topic
    right: Right
    position: Callable[[Connection, int, str, datetime], Awaitable[Position]]
    read: Callable[[Connection, Cursor], Awaitable[Sequence[Any]]]  # within the transaction that read the position
    place: Callable[[Row], Cursor]
    # The same for many classes past whole changes, where many move at once; their positions are those of classes.
    read_many: Callable[[Connection, int, Sequence[tuple[str, int]]], Awaitable[list[list[Row]]]] | None = None
    is_state: bool
    is_in_snapshot: Callable[[Row], bool] = lambda row: True
    finish: Callable[[Sequence[Any], Freshness], Awaitable[Sequence[Row]]] | None = None  # makes rows of what was read
    tells_ready: bool = True
    trace: Callable[[Row], str | None] | None = None  # where a row keeps the trace of its change


async def follow(context: Context, stream: Stream[Row], after: str | None) -> AsyncGenerator[Told[Row], None]:
    """All that a client is told, from its token (or from now) until it leaves or loses the right. Raises Refused."""
    async with context.engine.patrol.watching(context.engine, stream.topic) as watch:
        teller, first = await _enter(context, stream, after)
        if first is not None:
            context.told = first
            yield first
        loop = asyncio.get_running_loop()
        is_shared = False
        while True:
            read_at = loop.time()
            rung = watch.take_traceparent()  # before the read: what rings later belongs to the next one
            page = await _patiently(partial(_page, context, stream, teller.epoch, teller.cursor))
            for told in teller.tell(page):
                await asyncio.sleep(0)  # a socket with room never waits: a long snapshot must let the others in
                await _patiently(partial(_judge, context, stream, seconds_max=DELIVERY_RIGHT_SECONDS))
                _trace(context, stream, told, rung)
                context.told = told
                yield told
            if page.is_full:
                continue
            # One round alone after each one shared, so that an audience that fails at once is not tried in a circle.
            is_shared = (not is_shared and await _share(context, stream, teller)) or await _wait(
                context, stream, teller, watch
            )
            if stream.is_state and not is_shared:
                await asyncio.sleep(max(0.0, read_at + STATE_PAUSE_SECONDS - loop.time()))


async def _enter(context: Context, stream: Stream[Row], after: str | None) -> tuple["_Teller[Row]", Told[Row] | None]:
    """Where a client comes in, and what it is told of that."""
    if context.enters_at is not None:  # for an audience whose members stand there: nothing is to be asked or told
        await _judge(context, stream, seconds_max=DELIVERY_RIGHT_SECONDS)
        return _Teller(stream, *context.enters_at), None
    await _judge(context, stream, seconds_max=0)
    after = context.resumes_after or after
    resumed = None if after is None else stream.name.read(after)
    position = await _position(context, stream)
    cursor, kind = _entrance(stream, position, resumed)
    teller = _Teller(stream, position.epoch, cursor)
    return teller, None if kind is None else teller.message(kind, position.point)


async def _wait(context: Context, stream: Stream[Row], teller: "_Teller[Row]", watch: Watch) -> bool:
    """Wait for news, judged again meanwhile; True where the news came while others listened too."""
    # The patrol rings for what no message told; looking all the same costs little and trusts nobody.
    for _ in range(LOOK_AFTER_WAITS):
        # Jittered, so that thousands of idle streams do not wake at once.
        seconds_max = LEADER_WAIT_SECONDS if context.enters_at is not None else IDLE_WAIT_SECONDS
        is_news = await watch.moved(seconds_max=seconds_max * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
        if is_news:
            break  # judged before what it brings
        if context.enters_at is not None:
            continue  # who listens is judged in the audience
        await _patiently(partial(_judge, context, stream, seconds_max=IDLE_RIGHT_SECONDS))
        if await _share(context, stream, teller):
            return True
    return False


async def _share(context: Context, stream: Stream[Row], teller: "_Teller[Row]") -> bool:
    """Hear with others what is told next, as long as the client keeps up and may; False where it is to go on alone.

    The client has been told all there is, so its place is a whole change.
    """
    if context.seat is None:
        return False
    place = await context.seat.hear(stream.name, (teller.epoch, teller.cursor), stream.right)
    if place is None:
        return False
    teller.epoch, teller.cursor = place
    return True


def _trace(context: Context, stream: Stream[Row], told: Told[Row], rung: str | None) -> None:
    """Open the span of one message: of the change it tells where the row knows that, else of what rang last."""
    if told.kind is LiveMessageKind.CHANGE and told.row is not None:
        traceparent = rung if stream.trace is None else stream.trace(told.row)
        if traceparent is not None:
            context.push = context.engine.tracer.join("push", (traceparent,))


def _entrance(
    stream: Stream[Row], position: Position, resumed: tuple[int, Cursor] | None
) -> tuple[Cursor, LiveMessageKind | None]:
    """Where a client comes in, and the message without payload that says so."""
    now = Cursor(position.no)
    if resumed is not None:
        epoch, cursor = resumed
        return (now, LiveMessageKind.RESYNC) if _is_lost(position, epoch, cursor) else (cursor, None)
    if not stream.is_state:
        return now, LiveMessageKind.READY
    if position.no == 0 and stream.tells_ready:
        return now, LiveMessageKind.READY
    return Cursor(-1, snapshot=position.no if stream.tells_ready else 0), None


def _is_lost(position: Position, epoch: int, cursor: Cursor) -> bool:
    """Whether nobody can say what a client at this place has missed."""
    is_purged = 0 <= cursor.no < position.floor
    return epoch != position.epoch or is_purged or max(cursor.no, cursor.snapshot) > position.no


@dataclass(slots=True)
class _Teller(Generic[Row]):
    """Turns pages into messages and keeps the place; a message's token says that it is delivered."""

    stream: Stream[Row]
    epoch: int
    cursor: Cursor

    def tell(self, page: Page[Row]) -> Sequence[Told[Row]]:
        """The messages of a page, and the cursor moved behind it."""
        point = page.position.point
        if _is_lost(page.position, self.epoch, self.cursor):
            self.epoch, self.cursor = page.position.epoch, Cursor(page.position.no)
            return [self.message(LiveMessageKind.RESYNC, point)]
        if page.rows is None:
            return []
        told: list[Told[Row]] = []
        for row in page.rows:
            place = self.stream.place(row)
            if self.cursor.snapshot and place.no > self.cursor.snapshot:
                told.append(self._end_snapshot(point))
            is_snapshot = self.cursor.no < 0 or bool(self.cursor.snapshot)
            self.cursor = replace(place, snapshot=self.cursor.snapshot)
            if not is_snapshot or self.stream.is_in_snapshot(row):
                kind = LiveMessageKind.SNAPSHOT if is_snapshot else LiveMessageKind.CHANGE
                told.append(self.message(kind, point, row))
        if not page.is_full:
            if self.cursor.snapshot:
                told.append(self._end_snapshot(point))
            # All that was visible is read: the changes up to here are whole, and other classes' numbers are passed.
            self.cursor = Cursor(max(page.position.no, self.cursor.no))
        return told

    def _end_snapshot(self, point: Freshness) -> Told[Row]:
        self.cursor = Cursor(self.cursor.snapshot)
        return self.message(LiveMessageKind.READY, point)

    def message(self, kind: LiveMessageKind, point: Freshness, row: Row | None = None) -> Told[Row]:
        return Told(kind, (self.epoch, self.cursor), self.stream.name.write(self.epoch, self.cursor), point, row)


async def _page(context: Context, stream: Stream[Row], epoch: int, cursor: Cursor) -> Page[Row]:
    """What stands past a cursor, read once for all who are there."""

    async def load() -> Page[Row]:
        name = stream.name
        async with tenant_transaction(context.pool, name.tenant, read_only=True, settings=BY_INDEX) as connection:
            position = await stream.position(connection, name.tenant, name.key, context.engine.clock())
            if cursor.place is None and (position.epoch, position.no) == (epoch, cursor.no):
                return Page(position)
            rows = await stream.read(connection, cursor)
        return Page(position, rows if stream.finish is None else await stream.finish(rows, position.point))

    fanout = context.engine.fanout
    if stream.read_many is not None and cursor.place is None and cursor.no >= 0:
        name = stream.name
        kind, item = (name.subscription, name.tenant, name.kind), (name.key, epoch, cursor.no)
        found = await fanout.together(kind, item, partial(_pages, context, stream))
        assert found is not None, "every place has a page"
        return found
    return await fanout.shared((stream.name, epoch, cursor.bound), load)


async def _pages(
    context: Context, stream: Stream[Row], places: Sequence[tuple[str, int, int]]
) -> dict[tuple[str, int, int], Page[Row]]:
    """What stands past whole changes (class, epoch, number) of many classes, in two statements."""
    tenant, now = stream.name.tenant, context.engine.clock()
    assert stream.read_many is not None, "this stream reads one by one"
    async with tenant_transaction(context.pool, tenant, read_only=True, settings=BY_INDEX) as connection:
        keys = [key for key, _, _ in places]
        positions = dict(zip(places, await changes.classroom_positions(connection, tenant, keys, now), strict=True))
        moved = [place for place in places if (positions[place].epoch, positions[place].no) != place[1:]]
        rows = await stream.read_many(connection, tenant, [(key, no) for key, _, no in moved]) if moved else []
    pages: dict[tuple[str, int, int], Page[Row]] = {place: Page(position) for place, position in positions.items()}
    return pages | {place: Page(positions[place], found) for place, found in zip(moved, rows, strict=True)}


async def _position(context: Context, stream: Stream[Any]) -> Position:
    name = stream.name
    async with tenant_transaction(context.pool, name.tenant, read_only=True, settings=BY_INDEX) as connection:
        return await stream.position(connection, name.tenant, name.key, context.engine.clock())


async def _judge(context: Context, stream: Stream[Any], *, seconds_max: float) -> None:
    """Let nobody through who has lost the right; a class of others and one that is not there are refused alike."""
    if not await stream.right.admits(context.viewer, seconds_max=seconds_max):
        message = f"There is no {stream.name.kind} with this key that you may follow."
        raise Refused(ErrorCode.FORBIDDEN, message, field=(f"{stream.name.kind}Id",))


async def _patiently(load: Callable[[], Awaitable[Value]]) -> Value:
    """Try again while Postgres restarts: a stream that has lost nothing should not end for it."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_SECONDS
    while True:
        try:
            return await load()
        except LOST:
            if loop.time() >= deadline:
                raise
        await asyncio.sleep(RETRY_SECONDS)
