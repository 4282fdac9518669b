"""Ordinary requests of POST /graphql, answered without ASGI: what is usual costs no more than what it says.

Everything here is answered as `graph/http.py` answers it, byte for byte, or by it. One event that a machine tells waits
for nothing but its commit, so it needs no task and no coroutine either; until it is charged and submitted nothing has
changed, and every doubt before leaves the request to the way that all others go.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextvars import Context as Surroundings
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import msgspec
from starlette.responses import Response

from db.evidence import Answer as Stored
from graph.answers import Answer
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
        self.known = known
        self._under_way: dict[_Ride, None] = {}  # in the order of their deadlines; no more than the gate has places
        self._watch: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def take(self, head: Head, raw: bytes, told: Told) -> Coroutine[Any, Any, Reply] | None:
        """Answer a request whose body is all there: `told` gets the reply, at once or later, unless a coroutine
        comes back. That one is then to be awaited in a task, and returns the reply."""
        tracer = self.http.engine.tracer
        operation = Operation(correlation_of(head.correlation_id), tracer.begin(head.traceparent))
        ask: Ask | Refused | None = None
        if operation.span is None and len(raw) <= BODY_BYTES_MAX:
            try:
                viewer = self.known(head.token)
                ask = None if viewer is None else _ask_or_refusal(raw)
                ride = self._ride(head, viewer, ask, operation, told) if viewer and isinstance(ask, Ask) else None
            except BaseException:
                operation.finish(self.http.tell)
                raise
            if ride is not None:
                self._start(ride)
                return None
        return self._answer(head, raw, ask, operation)

    async def aclose(self) -> None:
        """Let the answers end that are still being worded; after the recorder's end no more come."""
        await asyncio.gather(*self._ending, return_exceptions=True)
        if self._watch is not None:
            self._watch.cancel()

    async def _answer(self, head: Head, raw: bytes, ask: Ask | Refused | None, operation: Operation) -> Reply:
        """The way of all other requests, from where ASGI would have handed them over."""
        try:
            response = await self.http.respond(self._asked(head, raw, ask), operation, head.media_type, is_get=False)
            operation.status = response.status_code
        finally:
            operation.finish(self.http.tell)
        return _reply_of(sealed(response, operation.correlation_id))

    async def _asked(self, head: Head, raw: bytes, ask: Ask | Refused | None) -> tuple[Viewer, Ask, int]:
        """`ask` is what was read of it already: a large body costs more to read than all else about it."""
        viewer = await self.http.bearer_of(head.authorization)
        if isinstance(ask, Refused):
            raise ask
        return viewer, ask or ask_in(raw), len(raw)

    def _ride(self, head: Head, viewer: Viewer, ask: Ask, operation: Operation, told: Told) -> "_Ride | None":
        """The request where it waits for nothing but its commit, with a place and charged; else nothing has changed."""
        http = self.http
        plan = http.documents.known(ask)
        if plan is None or plan.mutation is None or plan.mutation.begin is None or not http.gate.is_open:
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
        except BaseException as error:
            http.gate.leave()
            if isinstance(error, Refused):
                return None
            raise
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
            self._watch = loop.call_at(ride.over_at, self._stop_late, context=Surroundings())
        try:
            self.http.engine.recorder.submit(viewer.tenant, ride.begun.submissions, ride.end, recorded_by=viewer.key)
        except Exception as error:
            ride.end(error)

    def forget(self, ride: "_Ride") -> None:
        """Watch it no longer."""
        self._under_way.pop(ride, None)

    def _stop_late(self) -> None:
        """Answer whoever has waited for longer than an operation may."""
        loop = asyncio.get_running_loop()
        try:
            for ride in [ride for ride in self._under_way if ride.over_at <= loop.time()]:
                self.forget(ride)
                ride.stop()
        finally:  # whatever broke, the others are stopped too
            oldest = next(iter(self._under_way), None)
            again = None if oldest is None else loop.call_at(oldest.over_at, self._stop_late, context=Surroundings())
            self._watch = again

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
        self._reply(self._written, shown)

    def stop(self) -> None:
        """Answer that it took too long, unless it has its answer; what was told may be stored all the same."""
        if not self.is_over:
            self._reply(lambda plan: self._answered(self.direct.http.documents.stopped(plan)), self.plan)

    async def worded(self, outcome: Any) -> None:
        """Answer by the reference executor."""
        variables = self.operation.variables or {}
        try:
            answer = await self.direct.http.documents.ended(self.plan, variables, self.context, outcome)
        except BaseException as error:
            self._reply(_raised, error)
        else:
            self._reply(self._answered, answer)

    def _reply(self, made: Callable[[Any], Reply], what: Any) -> None:
        """Make the reply and hand it on: called once, and whatever breaks, who asked is told once."""
        self.is_over = True
        reply: Reply | BaseException
        try:
            try:
                reply = made(what)
                self.operation.status = reply.status
            finally:
                self._finish()
        except BaseException as error:
            reply = error
        self.told(reply)

    def _written(self, shown: dict[str, Any]) -> Reply:
        body: dict[str, Any] = {"data": {self.mutation.key: shown}}
        if self.operation.cost is not None:
            body["extensions"] = {"cost": self.operation.cost}
        text = _encode(body)
        return Reply(200, (self.head.lines % (len(text), self.operation.correlation_id)).encode(), text)

    def _answered(self, answer: Answer) -> Reply:
        response = self.direct.http.response(answer.costing(self.operation.cost), self.operation, self.head.media_type)
        return _reply_of(sealed(response, self.operation.correlation_id))

    def _finish(self) -> None:
        self.direct.http.gate.leave()
        self.direct.forget(self)
        self.operation.finish(self.direct.http.tell)


def _raised(error: BaseException) -> Reply:
    raise error


def _ask_or_refusal(raw: bytes) -> Ask | Refused:
    try:
        return ask_in(raw)
    except Refused as refused:
        return refused


def _reply_of(response: Response) -> Reply:
    lines = b"".join([b"%s: %s\r\n" % header for header in response.raw_headers])
    return Reply(response.status_code, lines, bytes(response.body))
