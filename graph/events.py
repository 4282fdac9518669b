"""GraphQL over Server-Sent Events (graphql-sse, distinct connections): for clients that cannot use WebSockets."""

import asyncio
import re
from contextlib import aclosing, suppress
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from graph.answers import Answer, refusal
from graph.documents import Malformed
from graph.frames import Close
from graph.hearing import Message
from graph.http import (
    BODY_BYTES_MAX,
    RETRY_AFTER_SECONDS,
    STATUS,
    GraphQLHTTP,
    Halted,
    asked,
    correlation_of,
    response_of,
    sealed,
    too_large,
)
from graph.listening import BLOCKED_SECONDS_MAX, perform, sent_at_once
from graph.refusal import ErrorCode, Refused
from graph.sockets import GraphQLSockets
from graph.telling import GONE, Operation
from graph.wire import Ask
from rules.access import Viewer

EVENT_STREAM = "text/event-stream"
HEARTBEAT_SECONDS = 12.0  # proxies close what is silent, often after 30 s or 60 s
FAREWELL_SECONDS_MAX = 1
EVENT = b"event"  # no head of a socket's frame
HEARTBEAT = b":\n\n"
COMPLETE = b"event: complete\ndata:\n\n"  # without `data` a browser's EventSource would not tell it

_encode = msgspec.json.Encoder().encode


class EventStreams:
    """The ASGI endpoint of POST and GET /graphql: event streams for those who ask for one, JSON for the others.

    An event stream counts as a socket of its viewer, and goes home with the sockets at shutdown.
    """

    def __init__(self, http: GraphQLHTTP, house: GraphQLSockets) -> None:
        self._http = http
        self._house = house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        if not wants_events(request.headers.get("accept")):
            await self._http(scope, receive, send)
            return
        operation = Operation(correlation_of(request.headers.get("x-request-id")), None, is_http=False, status=GONE)
        try:
            await self._serve(request, send, operation)
        except ClientDisconnect:
            pass  # before all of the request was here
        except Halted as halted:
            operation.status = halted.status
            response = response_of(refusal(halted.refused), halted.status, headers=halted.headers)
            await sealed(response, operation.correlation_id)(scope, receive, send)
        finally:
            if operation.codes and operation.status == GONE:
                operation.status = STATUS[ErrorCode(min(operation.codes))]
            operation.finish(self._house.tell)

    async def _serve(self, request: Request, send: Send, operation: Operation) -> None:
        self._http.check_request(request)
        viewer = operation.viewer = await self._http.viewer_of(request)
        wanted = await _wanted(request)
        stream = EventStream(request, send, self._house, operation, viewer)
        async with self._house.holding(stream):
            if not self._house.admit(viewer):
                wait = {"retry-after": str(RETRY_AFTER_SECONDS)}
                raise Halted(429, Refused(ErrorCode.RATE_LIMITED, "Too many live connections of this viewer."), wait)
            stream.viewer = viewer
            await stream.run(wanted)


async def _wanted(request: Request) -> Ask | Refused:
    """What is asked, or why it is refused: that is told as an event, for a browser's EventSource sees no status."""
    try:
        ask, size = await asked(request)
    except Refused as refused:
        return refused
    return too_large(BODY_BYTES_MAX) if size > BODY_BYTES_MAX else ask


class EventStream:
    """One response: the events of one operation, until it ends, the client leaves, or a verdict falls."""

    def __init__(
        self, request: Request, send: Send, house: GraphQLSockets, operation: Operation, bearer: Viewer
    ) -> None:
        self.viewer: Viewer | None = None  # once it counts as one of theirs
        self.operations = 1
        self._request = request
        self._send_part = send
        self._house = house
        self._operation = operation
        self._bearer = bearer
        self._verdict: asyncio.Future[Close] = asyncio.get_running_loop().create_future()
        self._heartbeat: asyncio.TimerHandle | None = None

    def close(self, code: Close, _reason: str) -> None:
        """Decide the end of the stream; the first verdict stands."""
        if not self._verdict.done():
            self._verdict.set_result(code)

    def offer(self, message: Message) -> bool:
        """Send one event if there is room for it at once."""
        self._operation.answered(message.answer)
        if self._verdict.done() or not self._offer(message.frame(EVENT, _shared_event)):
            return False
        self._house.messages += 1
        return True

    async def run(self, wanted: Ask | Refused) -> None:
        """Answer with the events of what is asked, or with why it is refused."""
        loop = asyncio.get_running_loop()
        seconds = (self._bearer.expires_at - self._house.engine.clock()).total_seconds()
        expiry = loop.call_later(max(0.0, seconds), self.close, Close.EXPIRED, "")
        await self._send_part(_start(self._operation))
        self._beat()  # the first one tells the client that it is connected
        telling = loop.create_task(self._tell(wanted))
        leaving = loop.create_task(self._until_gone())
        ends: set[asyncio.Future[Any]] = {telling, leaving, self._verdict}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            expiry.cancel()
            if self._heartbeat is not None:
                self._heartbeat.cancel()
            for task in (telling, leaving):
                task.cancel()
            await asyncio.wait({telling, leaving})
            await self._end(telling)

    async def _end(self, telling: "asyncio.Task[None]") -> None:
        if not telling.cancelled() and (error := telling.exception()):
            raise error  # a bug of ours: the outermost edge of the server logs it
        last = b""
        if self._verdict.done() and self._verdict.result() in (Close.EXPIRED, Close.UNAUTHORIZED):
            over = refusal(Refused(ErrorCode.UNAUTHENTICATED, "The token has expired, or holds no more."))
            self._operation.answered(over)
            last = _event(_encode(over.body)) + COMPLETE
        # For any other verdict the stream just ends: clients take that for a broken line and come back.
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(FAREWELL_SECONDS_MAX):
                await self._send_part({"type": "http.response.body", "body": last, "more_body": False})

    async def _tell(self, wanted: Ask | Refused) -> None:
        try:
            if isinstance(wanted, Refused):
                raise wanted
            after = self._request.headers.get("last-event-id")
            async with aclosing(perform(self._house, wanted, self._operation, self, resumes_after=after)) as answers:
                async for answer, token in answers:
                    self._house.messages += 1
                    await self._tell_one(answer, token)
            self._operation.status = 200
        except Malformed as malformed:
            await self._tell_one(malformed.answer)
        except Refused as refused:
            await self._tell_one(refusal(refused))
        await self._send(COMPLETE)

    async def _tell_one(self, answer: Answer, token: str | None = None) -> None:
        self._operation.answered(answer)
        await self._send(_event(_encode(answer.body), token))

    async def _send(self, event: bytes) -> None:
        """Send one event and return when there is room for the next: whoever sends is paced by the peer."""
        try:
            async with asyncio.timeout(BLOCKED_SECONDS_MAX):
                await self._send_part(_part(event))
        except TimeoutError:
            self.close(Close.TRY_AGAIN_LATER, "Slow consumer")  # and `run` stops whoever sends

    def _offer(self, event: bytes) -> bool:
        return sent_at_once(self._send_part(_part(event)))

    def _beat(self) -> None:
        self._offer(HEARTBEAT)  # where there is no room the line is not silent either
        self._heartbeat = asyncio.get_running_loop().call_later(HEARTBEAT_SECONDS, self._beat)

    async def _until_gone(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass


def wants_events(accept: str | None) -> bool:
    """Whether a client takes an event stream, and names no JSON that it would rather have."""
    taken = set()
    for part in (accept or "").lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        if not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters):
            taken.add(kind)
    return EVENT_STREAM in taken and not any(kind.endswith("json") for kind in taken)


def _shared_event(message: Message, _head: bytes) -> bytes:
    return _event(message.text, message.token)


def _event(data: bytes, token: str | None = None) -> bytes:
    # JSON as we write it holds no line break, so one `data` line is enough.
    name = b"" if token is None else b"id: %s\n" % token.encode()
    return b"%sevent: next\ndata: %s\n\n" % (name, data)


def _part(event: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": event, "more_body": True}


def _start(operation: Operation) -> dict[str, Any]:
    response = sealed(Response(media_type=EVENT_STREAM), operation.correlation_id)
    del response.headers["content-length"]
    response.headers["x-accel-buffering"] = "no"  # nginx would keep the events until its buffer is full
    return {"type": "http.response.start", "status": 200, "headers": response.raw_headers}
