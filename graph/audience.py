"""Audiences: subscribers who hear the same at the same place of a stream hear one execution, written once.

A subscriber who has heard all there is takes a seat. One subscription runs for all who sit, resumed where they stand;
each of its messages is written once and handed to each of them who has not heard it yet, may still hear it, and has
room for it. Whoever has no room leaves with its own place, reads on from there alone, and comes back at the end.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from db.pool import LOST
from graph.answers import Answer
from graph.fanout import TOGETHER_MAX
from graph.tokens import Place, StreamName
from rules.access import Viewer

if TYPE_CHECKING:
    from graph.request import Context
    from graph.streams import Told

DELIVERY_RIGHT_SECONDS = 2.0  # a right that was withdrawn ends the deliveries within this
IDLE_RIGHT_SECONDS = 3.5  # with a second's wait, who hears nothing is judged again at least every 5 s
ROUND_SECONDS = 1.0
FRAMED_MAX = 4  # frames kept while a message is handed out: ids that nobody else uses are not worth the memory
TURN = 500  # messages handed over before other work of the process gets its turn: some four milliseconds

log = logging.getLogger("sightline.graph")

_encode = msgspec.json.Encoder().encode

Ties: TypeAlias = Callable[[float], Awaitable[Any]]
"""What binds people to what is followed, as it was at most so many seconds ago; None where there is nothing."""


@dataclass(frozen=True, slots=True)
class Right:
    """Who may hear a stream. The ties are the same for all who ask, so that one read judges thousands."""

    ties: Ties
    may: Callable[[Viewer, Any], bool]

    async def admits(self, viewer: Viewer, *, seconds_max: float) -> bool:
        """Whether the viewer may hear it, by ties at most so old."""
        ties = await self.ties(seconds_max)
        return ties is not None and self.may(viewer, ties)


@dataclass(frozen=True, slots=True)
class Message:
    """One answer for many, written once as JSON; `token` is that of its place."""

    answer: Answer
    text: bytes
    token: str
    framed: dict[bytes, bytes] = field(default_factory=dict)

    def frame(self, head: bytes, make: Callable[["Message", bytes], bytes]) -> bytes:
        """What goes to the wire, made once for all in front of whose text the same stands."""
        known = self.framed.get(head)
        if known is None:
            known = make(self, head)
            if len(self.framed) < FRAMED_MAX:
                self.framed[head] = known
        return known


class Outlet(Protocol):
    """Where the messages of one subscriber leave the process."""

    def offer(self, message: Message) -> bool:
        """Send one message if there is room for it at once; False sends nothing."""


Lead: TypeAlias = "Callable[[Place], tuple[Context, AsyncGenerator[Answer]]]"
"""Opens the subscription of an audience at a place."""


class Seat:
    """One subscriber, for the length of its subscription. Seats of equal `likeness` hear the same of a stream."""

    def __init__(
        self, audiences: "Audiences", viewer: Viewer, outlet: Outlet, *, likeness: Hashable, lead: Lead
    ) -> None:
        self.viewer = viewer
        self.outlet = outlet
        self.heard: tuple[int, int, str, str] = (0, 0, "", "")
        self.place: Place
        self.judged_by: Any = None  # the ties that admitted this viewer
        self.left: asyncio.Future[None]
        self._audiences = audiences
        self._likeness = likeness
        self._lead = lead
        self._row: Hashable = None

    async def hear(self, name: StreamName, place: Place, right: Right) -> Place | None:
        """Sit from this place on; the place reached when the seat was lost, or None where there was none to take.

        Nobody sits alone (an audience costs a subscription more), nor before what an audience has heard.
        """
        if self._row is None:
            self._row = (name, self._likeness)
            self._audiences.interested[self._row] += 1
        audience = self._audiences.at(self._row, place, right, self._lead)
        if audience is None:
            return None
        self.place, self.heard = place, order_of(place)
        self.left = asyncio.get_running_loop().create_future()
        audience.seats.add(self)
        try:
            await self.left
        finally:
            audience.seats.discard(self)
            if not audience.seats:
                audience.end()
        return self.place

    def give_up(self) -> None:
        """Be counted no more; call it when the subscription ends."""
        if self._row is not None:
            self._audiences.interested[self._row] -= 1
            if not self._audiences.interested[self._row]:
                del self._audiences.interested[self._row]

    def leave(self, error: Exception | None = None) -> None:
        """Wake the subscriber, who goes on alone, or fails with what the audience failed of."""
        if not self.left.done():
            self.left.set_exception(error) if error else self.left.set_result(None)


class Audience:
    """Those who sit; one task runs their subscription and hands out its messages."""

    def __init__(self, audiences: "Audiences", row: Hashable, place: Place, right: Right, lead: Lead) -> None:
        self.heard = order_of(place)
        self.seats: set[Seat] = set()
        self._audiences = audiences
        self._row = row
        self._right = right
        self._epoch = place[0]
        self._task = asyncio.create_task(self._perform(*lead(place)))

    def end(self) -> None:
        """Stop the subscription: nobody listens any more."""
        self._audiences.forget(self._row, self)
        self._task.cancel()

    async def judge(self, *, seconds_max: float) -> Any:
        """Send those away who have lost the right, and return the ties that the others were judged by."""
        ties = await self._right.ties(seconds_max)
        for seat in tuple(self.seats):
            self._admits(seat, ties)
        return ties

    def _admits(self, seat: Seat, ties: Any) -> bool:
        if seat.judged_by is ties and ties is not None:
            return True
        if ties is None or not self._right.may(seat.viewer, ties):
            self._dismiss(seat)  # it is judged again by itself, and refused in words
            return False
        seat.judged_by = ties
        return True

    async def _perform(self, context: "Context", answers: AsyncGenerator[Answer]) -> None:
        failure = None
        try:
            async with aclosing(answers):
                async for answer in answers:
                    # What is no message, or no later one (a restored tenant begins anew), each finds for itself.
                    told = context.told
                    if not answer.is_executed or told is None or told.place[0] != self._epoch:
                        break
                    await self._hand_out(answer, told)
        except LOST:
            pass  # each goes on alone, as patiently as without an audience
        except Exception as error:  # raised in each subscription that sits here, and masked there
            failure = error
        finally:
            self._audiences.forget(self._row, self)
            for seat in tuple(self.seats):
                self._dismiss(seat, failure)

    async def _hand_out(self, answer: Answer, told: "Told[Any]") -> None:
        message = Message(answer, _encode(answer.body), told.token)
        # First of all: whoever comes from here on has read as far as this message.
        self.heard = order = order_of(told.place)
        self._audiences.written += 1
        for turn, seat in enumerate(tuple(self.seats)):
            if turn % TURN == 0:
                if turn:
                    await asyncio.sleep(0)
                ties = await self._right.ties(DELIVERY_RIGHT_SECONDS)
            if seat not in self.seats or seat.heard >= order or not self._admits(seat, ties):
                continue
            if seat.outlet.offer(message):
                seat.place, seat.heard = told.place, order
                self._audiences.handed += 1
            else:
                self._dismiss(seat)

    def _dismiss(self, seat: Seat, error: Exception | None = None) -> None:
        self.seats.discard(seat)
        seat.leave(error)


class Audiences:
    """Every audience of a process, by what is heard."""

    def __init__(self) -> None:
        self.interested: Counter[Hashable] = Counter()
        self.written = 0  # messages executed and written for an audience
        self.handed = 0  # of those, how often one was handed to a subscriber
        self._open: dict[Hashable, Audience] = {}
        self._judging: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    @property
    def seated(self) -> int:
        """How many subscribers sit in one."""
        return sum(len(audience.seats) for audience in self._open.values())

    def at(self, row: Hashable, place: Place, right: Right, lead: Lead) -> Audience | None:
        """The audience of a row that somebody at this place may join, opened where two are interested."""
        audience = self._open.get(row)
        if audience is None and self.interested[row] > 1:
            audience = self._open[row] = Audience(self, row, place, right, lead)
            if self._judging is None:
                self._judging = asyncio.create_task(self._judge_idle())
        return audience if audience is not None and audience.heard <= order_of(place) else None

    def forget(self, row: Hashable, audience: Audience) -> None:
        """Close an audience to whoever comes later."""
        if self._open.get(row) is audience:
            del self._open[row]
        if not self._open and self._judging is not None:
            self._judging.cancel()
            self._judging = None

    async def _judge_idle(self) -> None:
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            waiting = list(self._open.values())
            while waiting:  # so many together, whose ties are then read in one statement
                some, waiting = waiting[:TOGETHER_MAX], waiting[TOGETHER_MAX:]
                await asyncio.gather(*(_judged(audience) for audience in some))


async def _judged(audience: Audience) -> None:
    try:
        # As fresh as a delivery wants them: then no message waits for the ties of its class to be read.
        await audience.judge(seconds_max=ROUND_SECONDS)
    except Exception as error:  # the round must go on for the others; nothing is told of what cannot be judged
        if not isinstance(error, LOST):
            log.error("rights_unread type=%s", type(error).__name__, extra={"error_type": type(error).__name__})


def order_of(place: Place) -> tuple[int, int, str, str]:
    """Places of one stream in the order they are reached."""
    epoch, cursor = place
    return (epoch, *cursor.bound)
