"""Ordinary requests of POST /graphql, answered without ASGI: what is usual costs no more than what it says.

Everything here is answered as `graph/http.py` answers it, byte for byte, or by it. One event that a machine tells waits
for nothing but its commit, so it needs no task and no coroutine either; until it is charged and submitted nothing has
changed, and every doubt before leaves the request to the way that all others go.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import msgspec
from starlette.responses import Response

from db.evidence import Answer as Stored
from graph.compiled import Begun, Mutation
from graph.documents import Plan
from graph.events import wants_events
from graph.http import BODY_BYTES_MAX, GraphQLHTTP, Halted, ask_in, correlation_of, is_json, negotiated, sealed
from graph.http import token_of as token_in
from graph.refusal import BadCredential, Refused
from graph.request import Context, begin
from graph.telling import Operation
from graph.wire import Ask
from rules.access import Viewer

UNUSUAL = frozenset({"expect", "transfer-encoding", "upgrade", "content-encoding", "trailer", "te"})

_encode = msgspec.json.Encoder().encode


class Reply(NamedTuple):
    """A response: its status, its header lines (each with its line end) but for date and connection, and its body."""

    status: int
    lines: bytes
    body: bytes


Told: TypeAlias = Callable[[Reply | BaseException], None]
"""Who takes the reply, once; an exception is a bug of ours, and is answered with 500."""


@dataclass(frozen=True, slots=True)
class Head:
    """What the headers of an ordinary request say; clients send the same ones again and again."""

    length: int  # of the body, in bytes
    authorization: str
    token: str
    media_type: str  # to answer with
    correlation_id: str | None
    traceparent: str | None
    lines: str  # of the reply: `%d` is the body's length, `%s` the correlation id

    @property
    def is_lasting(self) -> bool:
        """Whether the next request may come with the very same one."""
        return self.correlation_id is None and self.traceparent is None


def head_of(sent: Iterable[tuple[bytes, bytes]]) -> Head | None:
    """What the headers of a POST say, names in lower case; None for any that only the ordinary way may judge."""
    headers: dict[str, str] = {}
    for name, value in sent:
        key = name.decode("latin-1")
        if key in headers or key in UNUSUAL:
            return None
        headers[key] = value.decode("latin-1")
    length, authorization, accept = (
        headers.get("content-length", ""),
        headers.get("authorization"),
        headers.get("accept"),
    )
    is_plain = length.isascii() and length.isdecimal() and len(length) < 8 and is_json(headers.get("content-type", ""))
    if not is_plain or authorization is None or wants_events(accept):
        return None
    try:
        token, media_type = token_in(authorization), negotiated(accept)
    except (BadCredential, Halted):
        return None
    lines = (
        f"content-length: %d\r\ncontent-type: {media_type}; charset=utf-8\r\nx-request-id: %s\r\n"
        "x-content-type-options: nosniff\r\ncache-control: no-store\r\n"
    )
    known = (headers.get("x-request-id"), headers.get("traceparent"))
    return Head(int(length), authorization, token, media_type, *known, lines)


class Direct:
    """Answers what `head_of` knows; one per process."""

    def __init__(self, http: GraphQLHTTP, known: Callable[[str], Viewer | None]) -> None:
        """`known` tells the bearer of a token without waiting, or says nothing by None."""
        self.http = http
        self._known = known
        self._under_way: dict[_Ride, None] = {}  # in the order of their deadlines; no more than the gate has places
        self._watch: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def take(self, head: Head, raw: bytes, told: Told) -> Coroutine[Any, Any, Reply] | None:
        """Answer a request whose body is all there: `told` gets the reply, at once or later, unless a coroutine
        comes back. That one is then to be awaited in a task, and returns the reply."""
        tracer = self.http.engine.tracer
        operation = Operation(correlation_of(head.correlation_id), tracer.begin(head.traceparent))
        if operation.span is None and len(raw) <= BODY_BYTES_MAX:
            try:
                ride = self._ride(head, raw, operation, told)
            except BaseException:
                operation.finish(self.http.tell)
                raise
            if ride is not None:
                self._start(ride)
                return None
        return self._answer(head, raw, operation)

    async def _answer(self, head: Head, raw: bytes, operation: Operation) -> Reply:
        """The way of all other requests, from where ASGI would have handed them over."""
        try:
            response = await self.http.respond(self._asked(head, raw), operation, head.media_type, is_get=False)
            operation.status = response.status_code
        finally:
            operation.finish(self.http.tell)
        return _reply_of(sealed(response, operation.correlation_id))

    async def _asked(self, head: Head, raw: bytes) -> tuple[Viewer, Ask, int]:
        return await self.http.bearer_of(head.authorization), ask_in(raw), len(raw)

    def _ride(self, head: Head, raw: bytes, operation: Operation, told: Told) -> "_Ride | None":
        """The request where it waits for nothing but its commit, with a place and charged; else nothing has changed."""
        http = self.http
        viewer = self._known(head.token)
        if viewer is None:
            return None
        try:
            ask = ask_in(raw)
        except Refused:
            return None
        plan = http.documents.known(ask)
        if plan is None or plan.mutation is None:
            return None
        context = begin(http.engine, viewer, operation.correlation_id)
        begun = plan.mutation.begun(ask.variables, context)
        if begun is None or (
            begun.submissions and not http.engine.recorder.is_ready(viewer.tenant, len(begun.submissions))
        ):
            return None
        if not http.gate.enter():
            return None
        try:
            operation.cost = http.gate.charge_known(plan, ask.variables, viewer)
        except Refused:
            http.gate.leave()
            return None
        operation.plan, operation.viewer, operation.variables = plan, viewer, ask.variables
        return _Ride(self, head, operation, plan, plan.mutation, context, begun, told)

    def _start(self, ride: "_Ride") -> None:
        if not ride.begun.submissions:
            ride.end(())
            return
        viewer, loop = ride.context.viewer, asyncio.get_running_loop()
        ride.over_at = loop.time() + self.http.documents.seconds_max
        self._under_way[ride] = None
        if self._watch is None:
            self._watch = loop.call_at(ride.over_at, self._stop_late)
        self.http.engine.recorder.submit(viewer.tenant, ride.begun.submissions, ride.end, recorded_by=viewer.key)

    def forget(self, ride: "_Ride") -> None:
        """Watch it no longer."""
        self._under_way.pop(ride, None)

    def _stop_late(self) -> None:
        """Answer whoever has waited for longer than an operation may."""
        loop = asyncio.get_running_loop()
        for ride in [ride for ride in self._under_way if ride.over_at <= loop.time()]:
            ride.stop()
        oldest = next(iter(self._under_way), None)
        self._watch = None if oldest is None else loop.call_at(oldest.over_at, self._stop_late)

    def end_slowly(self, ride: "_Ride", outcome: Any) -> None:
        """Have an answer worded that no shape writes: an error, or a payload out of shape."""
        task = asyncio.get_running_loop().create_task(ride.worded(outcome))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


@dataclass(slots=True, eq=False)
class _Ride:
    """One mutation on its way to its commit and back."""

    direct: Direct
    head: Head
    operation: Operation
    plan: Plan
    mutation: Mutation
    context: Context
    begun: Begun
    told: Told
    over_at: float = 0.0
    is_over: bool = False

    def end(self, outcome: Sequence[Stored] | Exception) -> None:
        """Answer with what became of it."""
        if self.is_over:
            return
        try:
            payload = self.begun.finish(outcome)
            shown = self.mutation.shown(payload)
        except Exception as error:  # worded, or masked and logged, where every error of a resolver is
            payload, shown = error, None
        if shown is None:
            self.is_over = True  # its answer is being worded, and the watch has no say in it any more
            self.direct.forget(self)
            self.direct.end_slowly(self, payload)
            return
        self.direct.http.documents.tally.compiled += 1
        body: dict[str, Any] = {"data": {self.mutation.key: shown}}
        if self.operation.cost is not None:
            body["extensions"] = {"cost": self.operation.cost}
        self._finish(200)
        text = _encode(body)
        self.told(Reply(200, (self.head.lines % (len(text), self.operation.correlation_id)).encode(), text))

    def stop(self) -> None:
        """Answer that it took too long, unless it has its answer; what was told may be stored all the same."""
        if not self.is_over:
            self._respond(self.direct.http.documents.stopped(self.plan))

    async def worded(self, outcome: Any) -> None:
        """Answer by the reference executor."""
        variables = self.operation.variables or {}
        try:
            self._respond(await self.direct.http.documents.ended(self.plan, variables, self.context, outcome))
        except BaseException as error:
            self._finish(500)
            self.told(error)

    def _respond(self, answer: Any) -> None:
        response = self.direct.http.response(answer.costing(self.operation.cost), self.operation, self.head.media_type)
        self._finish(response.status_code)
        self.told(_reply_of(sealed(response, self.operation.correlation_id)))

    def _finish(self, status: int) -> None:
        self.is_over = True
        self.direct.forget(self)
        self.operation.status = status
        self.direct.http.gate.leave()
        self.operation.finish(self.direct.http.tell)


def _reply_of(response: Response) -> Reply:
    lines = b"".join([b"%s: %s\r\n" % header for header in response.raw_headers])
    return Reply(response.status_code, lines, bytes(response.body))
