"""Audiences: subscribers who hear the same at the same place of a stream hear one execution, written once.

A subscriber who has heard all there is takes a seat. What a stream tells next is read once for all who sit, wherever
they sit (`graph/mover.py`), executed and written once for each audience, and handed to each of its seats that has not
heard it yet, may still hear it, and has room for it. Whoever has no room leaves with its own place, reads on from there
alone, and comes back at the end.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from db.live import Live
from db.pool import LOST
from graph.fanout import UNKNOWN
from graph.hearing import Feed, Message, Outlet, Voice
from graph.mover import Mover
from graph.patience import PATIENCE_SECONDS
from graph.rights import Circle, renew
from graph.tokens import Place, StreamName
from rules.access import Viewer

if TYPE_CHECKING:
    from graph.request import Context

TURN = 500  # messages handed over before other work of the process gets its turn: some four milliseconds

ROUND_SECONDS = 1.5  # ties that are read so often are fresh enough for every delivery

log = logging.getLogger("sightline.graph")

_encode = msgspec.json.Encoder().encode


Lead: TypeAlias = "Callable[[], tuple[Context, Voice]]"
"""Opens what an audience executes with."""


class Seat:
    """One subscriber, for the length of its subscription. Seats of equal `likeness` hear the same of a stream."""

    __slots__ = ("_audiences", "_lead", "_likeness", "heard", "judged_by", "left", "outlet", "place", "viewer")

    def __init__(
        self, audiences: "Audiences", viewer: Viewer, outlet: Outlet, *, likeness: Hashable, lead: Lead
    ) -> None:
        self.viewer = viewer
        self.outlet = outlet
        self.heard: tuple[int, int, str, str] = (0, 0, "", "")
        self.place: Place
        self.judged_by: Any = UNKNOWN  # the ties that admitted this viewer
        self.left: asyncio.Future[None]
        self._audiences = audiences
        self._likeness = likeness
        self._lead = lead

    async def hear(
        self, name: StreamName, place: Place, feed: "Callable[[Context], Feed]", *, is_behind: bool
    ) -> Place | None:
        """Sit from this place on; the place reached when the seat was lost, or None where there was none to take.

        Nobody sits before what an audience has heard. `is_behind`: something may have moved since the place was read.
        """
        audience = self._audiences.of((name, self._likeness))
        if audience is None:
            context, voice = self._lead()
            audience = self._audiences.open((name, self._likeness), feed(context), voice, context.engine.live)
            if is_behind:
                audience.ring(None)
        elif audience.heard > order_of(place):
            return None
        self.place, self.heard = place, order_of(place)
        self.left = asyncio.get_running_loop().create_future()
        audience.seat(self)
        try:
            await self.left
        finally:
            audience.unseat(self)
        return self.place

    def leave(self, error: Exception | None = None) -> None:
        """Wake the subscriber, who goes on alone, or fails with what the audience failed of."""
        if not self.left.done():
            self.left.set_exception(error) if error else self.left.set_result(None)


class Audience:
    """Those who sit, and what they hear."""

    __slots__ = (
        "_audiences",
        "_live",
        "_row",
        "began",
        "circle",
        "due",
        "feed",
        "heard",
        "is_moving",
        "is_open",
        "is_rung",
        "rung_by",
        "seats",
        "timer",
        "voice",
    )

    def __init__(self, audiences: "Audiences", row: Hashable, feed: Feed, voice: Voice, live: Live) -> None:
        self.feed = feed
        self.voice = voice
        self.heard = order_of(feed.place)
        self.seats: set[Seat] = set()
        self.is_open = True
        self.rung_by: str | None = None  # the trace of what rang last
        # Kept by whoever moves it.
        self.is_moving = False
        self.is_rung = False
        self.began = 0.0  # when the last round did
        self.due = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self._audiences = audiences
        self._row = row
        self.circle = audiences.circle_of(self)
        self._live = live
        live.enlist(feed.topic, self)

    def ring(self, traceparent: str | None) -> None:
        """What it hears has moved."""
        self.rung_by = traceparent or self.rung_by
        self._audiences.mover.ring(self)

    def remind(self, numbers: Any) -> None:
        """What it hears has come to these numbers; what it has read already is no news."""
        if not self.feed.has_reached(numbers):
            self.ring(None)

    def seat(self, seat: Seat) -> None:
        """Let somebody sit."""
        self.seats.add(seat)
        self.circle.admitted_by = UNKNOWN

    def unseat(self, seat: Seat) -> None:
        """Let somebody go; the last one closes the audience."""
        self.seats.discard(seat)
        if not self.seats:
            self.close()

    def close(self, error: Exception | None = None) -> None:
        """Send all away, who go on alone or fail with this error."""
        if self.is_open:
            self.is_open = False
            self._live.dismiss(self.feed.topic, self)
            self._audiences.forget(self._row, self)
        for seat in tuple(self.seats):
            self._dismiss(seat, error)

    def judge(self, ties: Any) -> None:
        """Send those away who have lost the right."""
        for seat in tuple(self.seats):
            if seat.judged_by is not ties:
                self._admits(seat, ties)

    def _admits(self, seat: Seat, ties: Any) -> bool:
        if ties is None or not self.feed.right.may(seat.viewer, ties):
            self._dismiss(seat)  # it is judged again by itself, and refused in words
            return False
        seat.judged_by = ties
        return True

    async def hear(self, page: Any, told: dict[Hashable, Any]) -> bool:
        """Hand out what a page brings; True where more is to be read at once."""
        found = self.feed.tell(page, told)
        if found is None:
            self.close()
            return False
        rung, self.rung_by = self.rung_by, None
        messages, is_more = found
        for one in messages:
            if not self.seats:  # the rest is told to nobody, so nobody may sit down behind it
                self.close()
                return False
            traceparent = self.feed.trace(one, rung)
            span = None if traceparent is None else self.voice.trace(traceparent)
            answer = self.voice.at_once(one.shown) or await self.voice.answer(one.shown)
            if not answer.is_executed:
                self.close()  # what is no message, each finds for itself
                return False
            try:
                await self._hand_out(Message(answer, _encode(answer.body), one.token), one.place)
            finally:
                if span is not None:
                    span.end()
        return is_more

    async def _hand_out(self, message: Message, place: Place) -> None:
        # First of all: whoever comes from here on has read as far as this message.
        self.heard = order = order_of(place)
        audiences, seats = self._audiences, self.seats
        audiences.written += 1
        ties = await self.circle.ties()
        for seat in tuple(seats):
            if audiences.turn >= TURN:
                await audiences.take_turns()
                ties = await self.circle.ties()
            if seat.heard >= order or seat not in seats:
                continue
            if seat.judged_by is not ties and not self._admits(seat, ties):
                continue
            audiences.turn += 1
            if seat.outlet.offer(message):
                seat.place, seat.heard = place, order
                audiences.handed += 1
            else:
                self._dismiss(seat)

    def _dismiss(self, seat: Seat, error: Exception | None = None) -> None:
        self.seats.discard(seat)
        seat.leave(error)


class Audiences:
    """Every audience of a process, by what is heard."""

    def __init__(self) -> None:
        self.written = 0  # messages executed and written for an audience
        self.handed = 0  # of those, how often one was handed to a subscriber
        self.turn = 0  # handed over since other work of the process had its turn
        self.mover = Mover()
        self._open: dict[Hashable, Audience] = {}
        self._circles: dict[Hashable, Circle[Audience]] = {}
        self._judging: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    @property
    def seated(self) -> int:
        """How many subscribers sit in one."""
        return sum(len(audience.seats) for audience in self._open.values())

    def of(self, row: Hashable) -> Audience | None:
        """The audience of a row, where one is open."""
        return self._open.get(row)

    def open(self, row: Hashable, feed: Feed, voice: Voice, live: Live) -> Audience:
        """Open the audience of a row that has none; somebody must sit down in it at once."""
        audience = self._open[row] = Audience(self, row, feed, voice, live)
        if self._judging is None:
            self._judging = asyncio.create_task(self._judge_all())
        return audience

    def circle_of(self, audience: Audience) -> Circle[Audience]:
        """Those who are judged together with a new audience."""
        ties = audience.feed.right.ties
        circle = self._circles.setdefault((ties.kind, ties.key), Circle(audience.feed.right))
        circle.members.add(audience)
        return circle

    def forget(self, row: Hashable, audience: Audience) -> None:
        """Close an audience to whoever comes later."""
        if self._open.get(row) is audience:
            del self._open[row]
        self.mover.forget(audience)
        ties = audience.feed.right.ties
        circle = self._circles.get((ties.kind, ties.key))
        if circle is not None:
            circle.members.discard(audience)
            if not circle.members:
                del self._circles[ties.kind, ties.key]
        if not self._open and self._judging is not None:
            self._judging.cancel()
            self._judging = None

    async def take_turns(self) -> None:
        """Let other work of the process have its turn."""
        self.turn = 0
        await asyncio.sleep(0)

    async def _judge_all(self) -> None:
        """Judge those who hear nothing too: a right that was withdrawn ends the stream within 5 s."""
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            try:
                # As fresh as a delivery wants them: then no message waits for the ties of its class to be read.
                await renew(list(self._circles.values()))
            except Exception as error:  # the round must go on; nothing is told of what cannot be judged
                _log(error)
            for circle in tuple(self._circles.values()):
                try:
                    _judge(circle)
                except Exception as error:
                    _log(error)
                    _send_on_alone(circle)


def _judge(circle: Circle[Audience]) -> None:
    ties = circle.known
    if ties is not UNKNOWN and ties is not circle.admitted_by:
        circle.admitted_by = ties
        for audience in tuple(circle.members):
            audience.judge(ties)
    elif circle.unread_seconds >= PATIENCE_SECONDS:
        _send_on_alone(circle)


def _send_on_alone(circle: Circle[Audience]) -> None:
    """Let each be judged by itself, and end where it cannot be."""
    for audience in tuple(circle.members):
        audience.close()


def _log(error: Exception) -> None:
    if not isinstance(error, LOST):
        log.error("rights_unread type=%s", type(error).__name__, extra={"error_type": type(error).__name__})


def order_of(place: Place) -> tuple[int, int, str, str]:
    """Places of one stream in the order they are reached."""
    epoch, cursor = place
    return (epoch, *cursor.bound)
