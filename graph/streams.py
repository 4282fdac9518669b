"""Following one class or student: wait, read what changed past a position, deliver, go on; the position is the queue.

Every stream registers its wake-up before it reads, so that no change falls between; a wake-up that was lost costs at
most a round of the patrol. Nothing waits in memory for a slow reader, and no connection is held while one reads.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Any, Generic, TypeVar

import strawberry

from db.changes import PAGE, Position
from db.freshness import PLANNED_ONCE, Freshness
from db.live import Topic, Watch
from db.pool import LOST, Connection, tenant_transaction
from graph.patience import patiently
from graph.refusal import ErrorCode, Refused
from graph.request import Context
from graph.rights import DELIVERY_RIGHT_SECONDS, IDLE_RIGHT_SECONDS, Right
from graph.tokens import Cursor, Place, StreamName

STATE_PAUSE_SECONDS = 0.1  # a stream of state tells the newest at most this often
QUICK_PAUSE_SECONDS = 0.02  # or this often, of what is cheap to read, while it is
PAUSE_TIMES = 3  # as long as the round took: state is read for a third of the time, while rounds are that short
IDLE_WAIT_SECONDS = 1.0
LOOK_AFTER_WAITS = 10

Row = TypeVar("Row")
Message = TypeVar("Message")


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


@dataclass(frozen=True, slots=True)
class Many(Generic[Row]):
    """How many classes are read in two statements, past whole changes, where many move at once."""

    positions: Callable[[Connection, int, Sequence[str], datetime], Awaitable[list[Position]]]
    read: Callable[[Connection, int, Sequence[tuple[str, int]]], Awaitable[list[list[Row]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream(Generic[Row]):
    """What is followed, and how it is read. `place` says where a row stands; `right` is judged again and again."""

    name: StreamName
    topic: Topic
    right: Right
    position: Callable[[Connection, int, str, datetime], Awaitable[Position]]
    read: Callable[[Connection, Cursor], Awaitable[Sequence[Any]]]  # within the transaction that read the position
    place: Callable[[Row], Cursor]
    many: Many[Row] | None = None
    number: Callable[[Any], int] = lambda numbers: numbers  # of this stream, among those that its topic has come to
    is_state: bool
    is_quick: bool = False  # of state: it is told sooner again where a round is over soon
    is_in_snapshot: Callable[[Row], bool] = lambda row: True
    finish: Callable[[Sequence[Any], Freshness], Awaitable[Sequence[Row]]] | None = None  # makes rows of what was read
    tells_ready: bool = True
    trace: Callable[[Row], str | None] | None = None  # where a row keeps the trace of its change


async def follow(
    context: Context,
    source: Callable[[Context], Stream[Row]],
    after: str | None,
    show: Callable[[Told[Row]], Message],
) -> AsyncGenerator[Message, None]:
    """All that a client is told, from its token (or from now) until it leaves or loses the right. Raises Refused.

    `source` opens the stream with the means of a context, `show` makes what is told the value of the root field.
    """
    stream = source(context)
    async with context.engine.patrol.watching(context.engine, stream.topic) as watch:
        teller, first = await _enter(context, stream, after)
        if first is not None:
            context.told = first
            yield show(first)
        loop = asyncio.get_running_loop()
        share = partial(_share, context, stream, teller, watch, partial(Feed, source, show))
        is_shared = False
        while True:
            began = loop.time()
            rung = watch.take_traceparent()  # before the read: what rings later belongs to the next one
            page = await patiently(partial(_page, context, stream, teller.epoch, teller.cursor))
            for told in teller.tell(page):
                await asyncio.sleep(0)  # a socket with room never waits: a long snapshot must let the others in
                await patiently(partial(_judge, context, stream, seconds_max=DELIVERY_RIGHT_SECONDS))
                _trace(context, stream, told, rung)
                context.told = told
                yield show(told)
            if page.is_full:
                continue
            took = loop.time() - began  # the wait for news is no part of it
            # One round alone after each one shared, so that an audience that fails at once is not tried in a circle.
            is_shared = (not is_shared and await share()) or await _wait(context, stream, watch, share)
            if stream.is_state and not is_shared:
                pause = pause_seconds(took, is_state=True, is_quick=stream.is_quick)
                await asyncio.sleep(max(0.0, began + pause - loop.time()))


async def _enter(context: Context, stream: Stream[Row], after: str | None) -> tuple["_Teller[Row]", Told[Row] | None]:
    """Where a client comes in, and what it is told of that."""
    await _judge(context, stream, seconds_max=0)
    after = context.resumes_after or after
    resumed = None if after is None else stream.name.read(after)
    position = await _position(context, stream)
    cursor, kind = _entrance(stream, position, resumed)
    teller = _Teller(stream, position.epoch, cursor)
    return teller, None if kind is None else teller.message(kind, position.point)


async def _wait(
    context: Context, stream: Stream[Row], watch: Watch, share: Callable[[], Coroutine[Any, Any, bool]]
) -> bool:
    """Wait for news, judged again meanwhile; True where the news came while others listened too."""
    # The patrol rings for what no message told; looking all the same costs little and trusts nobody.
    for _ in range(LOOK_AFTER_WAITS):
        # Jittered, so that thousands of idle streams do not wake at once.
        is_news = await watch.moved(seconds_max=IDLE_WAIT_SECONDS * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
        if is_news:
            break  # judged before what it brings
        await patiently(partial(_judge, context, stream, seconds_max=IDLE_RIGHT_SECONDS))
        if await share():
            return True
    return False


async def _share(
    context: Context,
    stream: Stream[Row],
    teller: "_Teller[Row]",
    watch: Watch,
    feed: Callable[[Context, Place], "Feed[Row, Any]"],
) -> bool:
    """Hear with others what is told next, as long as the client keeps up and may; False where it is to go on alone.

    The client has been told all there is, so its place is a whole change.
    """
    if context.seat is None:
        return False
    at = (teller.epoch, teller.cursor)
    sitting = context.seat.hear(stream.name, at, lambda leading: feed(leading, at), is_behind=watch.is_rung)
    watch.rest()  # whoever reads for the audience is rung instead
    try:
        place = await sitting
    finally:
        watch.resume()
    if place is None:
        return False
    teller.epoch, teller.cursor = place
    return True


def _trace(context: Context, stream: Stream[Row], told: Told[Row], rung: str | None) -> None:
    """Open the span of one message that goes to one."""
    traceparent = _trace_of(stream, told, rung)
    if traceparent is not None:
        context.push = context.engine.tracer.join("push", (traceparent,))


def _trace_of(stream: Stream[Row], told: Told[Row], rung: str | None) -> str | None:
    """The trace of the change that a message tells where the row knows that, else of what rang last."""
    if told.kind is not LiveMessageKind.CHANGE or told.row is None:
        return None
    return rung if stream.trace is None else stream.trace(told.row)


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
            self.cursor = Cursor(place.no, place.place, self.cursor.snapshot)
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


@dataclass(frozen=True, slots=True)
class Uttered(Generic[Row, Message]):
    """One message and the value that every document reads of it."""

    told: Told[Row]
    shown: Message

    @property
    def place(self) -> Place:
        """Where who has heard it stands."""
        return self.told.place

    @property
    def token(self) -> str:
        """The same, for clients."""
        return self.told.token


class Feed(Generic[Row, Message]):
    """A stream from where an audience stands."""

    __slots__ = ("_context", "_show", "_stream", "_teller", "name", "right", "topic")

    def __init__(
        self,
        source: Callable[[Context], Stream[Row]],
        show: Callable[[Told[Row]], Message],
        context: Context,
        place: Place,
    ) -> None:
        self._context = context
        self._stream = stream = source(context)
        self._show = show
        self._teller = _Teller(stream, *place)
        self.name, self.topic, self.right = stream.name, stream.topic, stream.right

    def pause_seconds(self, took: float) -> float:
        """Of state, the newest only."""
        stream = self._stream
        return pause_seconds(took, is_state=stream.is_state, is_quick=stream.is_quick)

    @property
    def place(self) -> Place:
        """All before it is read."""
        return self._teller.epoch, self._teller.cursor

    @property
    def spot(self) -> tuple[str, int, int]:
        """The key and the whole change at which it stands: feeds of one kind and spot read the same."""
        return self.name.key, self._teller.epoch, self._teller.cursor.no

    @property
    def kind(self) -> Hashable | None:
        """Streams of many classes are read together, from whole changes on."""
        is_many = self._stream.many is not None and self._teller.cursor.place is None
        return (self.name.subscription, self.name.tenant, self.name.kind) if is_many else None

    def has_reached(self, numbers: Any) -> bool:
        """Whether all up to these numbers of its topic is read."""
        cursor = self._teller.cursor
        return cursor.place is None and cursor.no >= self._stream.number(numbers)

    async def read(self, feeds: Sequence[Any]) -> list[Page[Row]]:
        """A page for each of these feeds; the only one may be of no kind."""
        if len(feeds) == 1:
            return [await _page(self._context, self._stream, *self.place)]
        spots = [feed.spot for feed in feeds]
        pages = await _pages(self._context, self._stream, list(dict.fromkeys(spots)))
        return [pages[spot] for spot in spots]

    def tell(self, page: Page[Row], told: dict[Hashable, Any]) -> tuple[Sequence[Uttered[Row, Message]], bool] | None:
        """What a page brings, and whether more is to be read at once; None for what each must find for itself."""
        teller = self._teller
        spot = self.spot
        if spot not in told:
            if _is_lost(page.position, *self.place):  # such as a restored tenant, that begins anew
                return None
            told[spot] = ([Uttered(one, self._show(one)) for one in teller.tell(page)], teller.cursor)
        uttered, teller.cursor = told[spot]
        return uttered, page.is_full

    def trace(self, one: Any, rung: str | None) -> str | None:
        """The trace that a message belongs to."""
        return _trace_of(self._stream, one.told, rung)


def pause_seconds(took: float, *, is_state: bool, is_quick: bool) -> float:
    """From the begin of a round that took so long to that of the next.

    A change after some quiet is told at once, and so are those after it, while reading and telling them is little work;
    the more there is to do, the more of what changes meanwhile is told in one round.
    """
    if not is_state:
        return 0.0
    shortest = QUICK_PAUSE_SECONDS if is_quick else STATE_PAUSE_SECONDS
    return min(max(shortest, PAUSE_TIMES * took), STATE_PAUSE_SECONDS)


async def _page(context: Context, stream: Stream[Row], epoch: int, cursor: Cursor) -> Page[Row]:
    """What stands past a cursor, read once for all who are there."""

    async def load() -> Page[Row]:
        name = stream.name
        async with tenant_transaction(context.pool, name.tenant, read_only=True, settings=PLANNED_ONCE) as connection:
            position = await stream.position(connection, name.tenant, name.key, context.engine.clock())
            if cursor.place is None and (position.epoch, position.no) == (epoch, cursor.no):
                return Page(position)
            rows = await stream.read(connection, cursor)
        return Page(position, rows if stream.finish is None else await stream.finish(rows, position.point))

    fanout = context.engine.fanout
    if stream.many is not None and cursor.place is None and cursor.no >= 0:
        name = stream.name
        kind, item = (name.subscription, name.tenant, name.kind), (name.key, epoch, cursor.no)
        try:
            found = await fanout.together(kind, item, partial(_pages, context, stream))
        except LOST:
            raise
        except Exception:
            # What is wrong with one class, or slow for many at once, must not end the streams of the others.
            return await fanout.shared((stream.name, epoch, cursor.bound), load)
        assert found is not None, "every place has a page"
        return found
    return await fanout.shared((stream.name, epoch, cursor.bound), load)


async def _pages(
    context: Context, stream: Stream[Row], places: Sequence[tuple[str, int, int]]
) -> dict[tuple[str, int, int], Page[Row]]:
    """What stands past whole changes (class, epoch, number) of many classes, in two statements."""
    tenant, now = stream.name.tenant, context.engine.clock()
    assert stream.many is not None, "this stream reads one by one"
    async with tenant_transaction(context.pool, tenant, read_only=True, settings=PLANNED_ONCE) as connection:
        keys = [key for key, _, _ in places]
        positions = dict(zip(places, await stream.many.positions(connection, tenant, keys, now), strict=True))
        moved = [place for place in places if (positions[place].epoch, positions[place].no) != place[1:]]
        rows = await stream.many.read(connection, tenant, [(key, no) for key, _, no in moved]) if moved else []
    pages: dict[tuple[str, int, int], Page[Row]] = {place: Page(position) for place, position in positions.items()}
    return pages | {place: Page(positions[place], found) for place, found in zip(moved, rows, strict=True)}


async def _position(context: Context, stream: Stream[Any]) -> Position:
    name = stream.name
    async with tenant_transaction(context.pool, name.tenant, read_only=True, settings=PLANNED_ONCE) as connection:
        return await stream.position(connection, name.tenant, name.key, context.engine.clock())


async def _judge(context: Context, stream: Stream[Any], *, seconds_max: float) -> None:
    """Let nobody through who has lost the right; a class of others and one that is not there are refused alike."""
    if not await stream.right.admits(context.viewer, seconds_max=seconds_max):
        message = f"There is no {stream.name.kind} with this key that you may follow."
        raise Refused(ErrorCode.FORBIDDEN, message, field=(f"{stream.name.kind}Id",))
