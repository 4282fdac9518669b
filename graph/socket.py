"""One socket of graphql-transport-ws: its messages, its operations, and the code it is closed with."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from graph.answers import Answer, refusal
from graph.documents import Documents, Malformed
from graph.frames import (
    OFFER,
    REASON_CHARACTERS_MAX,
    BadMessage,
    Close,
    id_of,
    message_of,
    operation_of,
    payload_of,
    text_frame,
)
from graph.gate import Gate
from graph.hearing import Message
from graph.http import STATUS, correlation_of, token_of
from graph.listening import BLOCKED_SECONDS_MAX, perform
from graph.refusal import BadCredential, ErrorCode, ExpiredCredential, Refused
from graph.request import Engine
from graph.scalars import write_moment
from graph.telling import GONE, Operation, Tell
from graph.wire import Ask, refuse_unstorable_text
from rules.access import Viewer

INIT_SECONDS_MAX = 10
OPERATIONS_PER_SOCKET_MAX = 16
FAREWELL_SECONDS_MAX = 1
STOP_SECONDS_MAX = 5

_encode = msgspec.json.Encoder().encode


class House(Protocol):
    """What a socket needs of the endpoint that accepted it."""

    documents: Documents
    engine: Engine
    gate: Gate
    authenticate: Callable[[str], Awaitable[Viewer]]
    tell: Tell
    messages: int

    def admit(self, viewer: Viewer) -> bool:
        """Count one more socket for a viewer, unless they have as many as they may."""


class _Outlet:
    """Where one operation's shared messages go: the same frame as its own, but for the id."""

    def __init__(self, socket: "Socket", operation: Operation, operation_id: str) -> None:
        self._socket = socket
        self._operation = operation
        self._name = operation_id, asyncio.current_task()
        self._head = b'{"id":%b,"type":"next","payload":' % _encode(operation_id)

    def offer(self, message: Message) -> bool:
        """Splice the frame: nothing of it is encoded again.

        Nothing is sent once the client has completed the operation: its task ends a moment later, and the id may
        already be that of another.
        """
        if not self._socket.runs(*self._name):
            return False
        if message.answer.errors:
            self._operation.answered(message.answer)
        return self._socket.offer(message.framed.get(self._head) or message.frame(self._head, _spliced))


def _spliced(message: Message, head: bytes) -> bytes:
    return text_frame(b"%b%b}" % (head, message.text))


class Socket:
    """One connection. The reader handles messages in order; each operation is a task that pulls at its own pace."""

    def __init__(self, websocket: WebSocket, house: House) -> None:
        self._offer_frame: Callable[[bytes], bool] = websocket.scope["extensions"][OFFER]
        self.viewer: Viewer | None = None
        self._websocket = websocket
        self._house = house
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # the reader and every operation, completed ones until they end
        self._has_init = False
        self._verdict: asyncio.Future[tuple[Close, str]] = asyncio.get_running_loop().create_future()
        self._correlation = correlation_of(websocket.headers.get("x-request-id"))
        self._expiry: asyncio.TimerHandle | None = None

    @property
    def operations(self) -> int:
        """How many operations run."""
        return len(self._operations)

    def runs(self, operation_id: str, task: asyncio.Task[None] | None) -> bool:
        """Whether the operation of this id is still the one of this task."""
        return self._operations.get(operation_id) is task

    def close(self, code: Close, reason: str) -> None:
        """Decide the end of the socket; the first verdict stands, and `run` carries it out."""
        if not self._verdict.done():
            self._verdict.set_result((code, reason))

    async def run(self) -> None:
        """Serve the socket until the peer leaves or a verdict falls; then stop everything it started."""
        loop = asyncio.get_running_loop()
        ends: set[asyncio.Future[Any]] = {self._verdict}
        deadline = loop.call_later(INIT_SECONDS_MAX, self._end_uninitialised)
        reader = loop.create_task(self._read())
        self._tasks.add(reader)
        try:
            await asyncio.wait(ends | {reader}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            deadline.cancel()
            if self._expiry:
                self._expiry.cancel()
            try:
                await self._stop()
            finally:
                await self._say_goodbye()

    async def _stop(self) -> None:
        self._operations.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        # Bounded, because one swallowed cancellation must not keep the process from stopping.
        done, _stuck = await asyncio.wait(tasks, timeout=STOP_SECONDS_MAX)
        for task in done:
            if not task.cancelled() and (error := task.exception()):
                raise error  # a bug of ours: the outermost edge of the server logs it

    async def _say_goodbye(self) -> None:
        if not self._verdict.done():
            return
        code, reason = self._verdict.result()
        try:
            async with asyncio.timeout(FAREWELL_SECONDS_MAX):
                await self._websocket.close(code, reason)
        except (TimeoutError, WebSocketDisconnect, WebSocketDisconnected, RuntimeError):
            pass  # the peer reads nothing or has gone: the transport is dropped when we return

    def _end_uninitialised(self) -> None:
        if self.viewer is None:
            self.close(Close.INIT_TIMEOUT, "Connection initialisation timeout")

    async def _read(self) -> None:
        try:
            while not self._verdict.done():
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                await self._handle(message.get("text"))
        except BadMessage as error:
            self.close(Close.BAD_REQUEST, str(error))
        except (WebSocketDisconnect, WebSocketDisconnected):
            return

    async def _handle(self, text: str | None) -> None:
        message = message_of(text)
        match message.get("type"):
            case "connection_init":
                await self._init(payload_of(message))
            case "ping":
                await self._pong(payload_of(message))
            case "pong":
                payload_of(message)
            case "subscribe":
                await self._subscribe(id_of(message), operation_of(message), text or "")
            case "complete":
                task = self._operations.pop(id_of(message), None)
                if task:
                    task.cancel()
            case _:
                raise BadMessage("Unknown message type")

    async def _init(self, payload: dict[str, Any] | None) -> None:
        if self._has_init:
            self.close(Close.TOO_MANY_INITS, "Too many initialisation requests")
            return
        self._has_init = True
        # Browsers cannot set headers on a socket, so the payload carries the token; other clients may use either.
        authorization = _authorization(payload) or self._websocket.headers.get("authorization")
        try:
            viewer = await self._house.authenticate(token_of(authorization))
        except ExpiredCredential:
            self.close(Close.EXPIRED, "Token expired")
        except BadCredential:
            self.close(Close.UNAUTHORIZED, "Unauthorized")
        else:
            await self._welcome(viewer)

    async def _welcome(self, viewer: Viewer) -> None:
        if not self._house.admit(viewer):
            self.close(Close.TRY_AGAIN_LATER, "Too many sockets")
            return
        self.viewer = viewer
        self._expire(viewer.expires_at)
        await self._send({"type": "connection_ack"})

    def _expire(self, moment: datetime) -> None:
        if self._expiry:
            self._expiry.cancel()
        seconds = (moment - self._house.engine.clock()).total_seconds()
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_later(max(0.0, seconds), self.close, Close.EXPIRED, "Token expired")

    async def _pong(self, payload: dict[str, Any] | None) -> None:
        """Answer a ping with what it brought; one that brings a credential renews that of the socket (0017)."""
        authorization = _authorization(payload)
        if authorization is None:
            await self._send({"type": "pong"} if payload is None else {"type": "pong", "payload": payload})
        elif (told := await self._renewed(authorization)) is not None:
            await self._send({"type": "pong", "payload": told})

    async def _renewed(self, authorization: Any) -> dict[str, Any] | None:
        """What is told of a fresh credential; None where it ends the socket. No stream notices."""
        viewer = self.viewer
        if viewer is None:
            self.close(Close.UNAUTHORIZED, "Unauthorized")
            return None
        try:
            fresh = await self._house.authenticate(token_of(authorization))
        except ExpiredCredential:
            # The one before still holds: a client whose clock is slow may send the next one.
            expires_at = write_moment(viewer.expires_at)
            return {"authorized": False, "code": ErrorCode.UNAUTHENTICATED, "expiresAt": expires_at}
        except BadCredential:
            self.close(Close.UNAUTHORIZED, "Unauthorized")
            return None
        # Streams were opened with the rights of the first credential: another person, or other rights, begin anew.
        if replace(fresh, expires_at=viewer.expires_at) != viewer:
            self.close(Close.UNAUTHORIZED, "The credential is of another viewer, or of other rights")
            return None
        self.viewer = fresh
        self._expire(fresh.expires_at)
        return {"authorized": True, "expiresAt": write_moment(fresh.expires_at)}

    async def _subscribe(self, operation_id: str, ask: Ask, text: str) -> None:
        if self.viewer is None:
            self.close(Close.UNAUTHORIZED, "Unauthorized")
        elif operation_id in self._operations:
            self.close(Close.ID_TAKEN, f"Subscriber for {operation_id} already exists"[:REASON_CHARACTERS_MAX])
        elif len(self._operations) >= OPERATIONS_PER_SOCKET_MAX:
            # Said here and not in a task of its own: a peer that asks without reading is then read no further.
            refused = Refused(ErrorCode.RATE_LIMITED, f"A socket runs {OPERATIONS_PER_SOCKET_MAX} operations at most.")
            await self._send({"id": operation_id, "type": "error", "payload": list(refusal(refused).errors)})
        else:
            task = asyncio.create_task(self._operate(operation_id, ask, text, self.viewer))
            self._operations[operation_id] = task
            self._tasks.add(task)
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        # A failed task stays, so that `_stop` finds its error; the socket is ended for it.
        if task.cancelled() or not task.exception():
            self._tasks.discard(task)
        else:
            self.close(Close.TRY_AGAIN_LATER, "Internal error")

    async def _operate(self, operation_id: str, ask: Ask, text: str, viewer: Viewer) -> None:
        """Run one operation to its end; whatever is wrong with it ends it alone, never the socket."""
        me = asyncio.current_task()
        operation = Operation(
            self._correlation, None, is_http=False, viewer=viewer, variables=ask.variables, status=GONE
        )
        try:
            refuse_unstorable_text(text, ask.variables)
            outlet = _Outlet(self, operation, operation_id)
            async with aclosing(perform(self._house, ask, operation, outlet)) as answers:
                async for answer, _ in answers:
                    if self._operations.get(operation_id) is not me:
                        return  # completed by the client meanwhile
                    operation.answered(answer)
                    if not answer.is_executed:
                        await self._fail(operation_id, answer)
                        return
                    self._house.messages += 1
                    await self._send({"id": operation_id, "type": "next", "payload": answer.body})
            await self._finish(operation_id, {"id": operation_id, "type": "complete"})
            operation.status = 200
        except Malformed as malformed:
            operation.answered(malformed.answer)
            await self._fail(operation_id, malformed.answer)
        except Refused as refused:
            operation.answered(refusal(refused))
            await self._fail(operation_id, refusal(refused))
        except (WebSocketDisconnect, WebSocketDisconnected):
            return
        finally:
            if self._operations.get(operation_id) is me:
                del self._operations[operation_id]
            if operation.codes and operation.status == GONE:
                operation.status = STATUS[ErrorCode(min(operation.codes))]
            operation.finish(self._house.tell)

    def offer(self, frame: bytes) -> bool:
        """Send one frame if there is room for it at once; False sends nothing."""
        if self._verdict.done():
            return False
        is_sent = self._offer_frame(frame)
        self._house.messages += is_sent
        return is_sent

    async def _fail(self, operation_id: str, answer: Answer) -> None:
        # `error` is itself the last message of an operation: the protocol allows no `complete` after it.
        await self._finish(operation_id, {"id": operation_id, "type": "error", "payload": list(answer.errors)})

    async def _finish(self, operation_id: str, message: dict[str, Any]) -> None:
        """Send an operation's last message; its id is free before the peer can know, so that it may use it again."""
        if self._operations.get(operation_id) is asyncio.current_task():
            del self._operations[operation_id]
            await self._send(message)

    async def _send(self, message: dict[str, Any]) -> None:
        """Send one frame and return when there is room for the next: whoever sends is paced by the peer."""
        if self._verdict.done():
            raise WebSocketDisconnected
        text = _encode(message).decode()
        try:
            async with asyncio.timeout(BLOCKED_SECONDS_MAX):
                await self._websocket.send_text(text)
        except TimeoutError:
            self.close(Close.TRY_AGAIN_LATER, "Slow consumer")
            raise WebSocketDisconnected from None


def _authorization(payload: dict[str, Any] | None) -> Any:
    """The credential that a payload carries, under a name spelled like a header's."""
    return next((value for key, value in (payload or {}).items() if str(key).lower() == "authorization"), None)
