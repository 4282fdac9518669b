"""A lane beside ASGI for POST /graphql: one complete, ordinary request in one piece is answered in one write.

uvicorn makes a scope, an event, a cycle and a task of each request, and writes its answer in two parts: half of what
recording an event cost the process. Whatever is not ordinary (see `graph.direct.head_of`), comes in parts, or comes
while another request is under way goes uvicorn's way, unchanged.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from graph.direct import Direct, Head, Reply, head_of

FIRST = b"POST /graphql HTTP/1.1\r\n"
END = b"\r\n\r\n"
HEADS_MAX = 1_024  # with HEAD_BYTES_MAX at most some megabytes
HEAD_BYTES_MAX = 4_096
HEADS_HOLD_SECONDS = 60.0  # as long as a token's proof: no bearer stays here for long after it
SIGHTS_MAX = 8_192
BROKEN = Reply(500, b"content-type: text/plain; charset=utf-8\r\ncontent-length: 21\r\n", b"Internal Server Error")

log = logging.getLogger("uvicorn.error")


class Heads:
    """What was found in the headers of a process's clients, by their bytes.

    Kept is what came twice with a proven token: neither strangers nor a proxy that numbers its requests push it out.
    """

    def __init__(self, is_proven: Callable[[str], bool]) -> None:
        self._is_proven = is_proven
        self._known: dict[bytes, Head] = {}
        self._sighted: set[int] = set()  # hashes of those that came once: nothing of a token
        self._unusual: set[int] = set()  # of those that are not ordinary; a chance likeness only takes the longer way
        self._since = monotonic()

    def of(self, sent: bytes) -> Head | None:
        """What the head of a request says; None where it is not an ordinary one of POST /graphql."""
        if monotonic() - self._since > HEADS_HOLD_SECONDS:
            self._known.clear()
            self._since = monotonic()
        head = self._known.get(sent)
        if head is not None or not sent.startswith(FIRST) or hash(sent) in self._unusual:
            return head
        head = _Reading().of(sent)
        if head is None:
            _note(self._unusual, sent)
        elif head.is_lasting and len(sent) <= HEAD_BYTES_MAX and self._is_proven(head.token):
            self._sight(sent, head)
        return head

    def _sight(self, sent: bytes, head: Head) -> None:
        if hash(sent) not in self._sighted:
            _note(self._sighted, sent)
            return
        if len(self._known) >= HEADS_MAX:
            del self._known[next(iter(self._known))]
        self._known[sent] = head


def _note(sights: set[int], sent: bytes) -> None:
    if len(sights) >= SIGHTS_MAX:
        sights.clear()
    sights.add(hash(sent))


class _Reading:
    """One head, read by the parser that uvicorn uses."""

    def __init__(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._parser = httptools.HttpRequestParser(self)
        self._is_ordinary = False

    def of(self, sent: bytes) -> Head | None:
        try:
            self._parser.feed_data(sent)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        return head_of(self._headers) if self._is_ordinary else None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header, as uvicorn does."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """All are there. Asked here, since after a request without a body the parser has forgotten what they said."""
        self._is_ordinary = self._parser.should_keep_alive() and not self._parser.should_upgrade()


class Lane(HttpToolsProtocol):
    """One connection; `direct` and `heads` belong to the process."""

    direct: ClassVar[Direct]
    heads: ClassVar[Heads]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._is_between = True  # no request has begun that uvicorn has not read to its end
        self._is_answering = False
        self._is_leaving = False
        self._held: list[bytes] = []  # what came while a request was being answered
        self._idle_since = 0.0

    def data_received(self, data: bytes) -> None:
        """Answer an ordinary request here, or hand over what came."""
        if self._is_answering:
            # Answers go out in the order of their requests, so this waits, and no more is read until then.
            self._held.append(data)
            self.flow.pause_reading()
            return
        if self._is_between and not self.flow.write_paused and _is_over(self.cycle):
            end = data.find(END) + 4
            head = self.heads.of(data[:end]) if end > 3 else None
            if head is not None and len(data) - end == head.length:
                self._take(head, data[end:])
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Note that uvicorn's parser is within a request."""
        self._is_between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Note that it is between two again."""
        self._is_between = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Note since when the connection is idle."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def shutdown(self) -> None:
        """Close the connection, once what is being answered is."""
        if self._is_answering:
            self._is_leaving = True
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there to hear of what is held."""
        self._held.clear()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for long; requests do not move the timer, so it looks again."""
        self.timeout_keep_alive_task = None
        if self._is_answering or self.transport.is_closing():
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left <= 0:
            super().timeout_keep_alive_handler()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)

    def _take(self, head: Head, raw: bytes) -> None:
        self._is_answering = True
        try:
            answering = self.direct.take(head, raw, self._answered)
        except Exception as error:
            self._answered(error)
            return
        if answering is not None:
            task = self.loop.create_task(self._run(answering))
            task.add_done_callback(self.tasks.discard)
            self.tasks.add(task)

    async def _run(self, answering: Coroutine[Any, Any, Reply]) -> None:
        """Answer by a coroutine, at the pace of who reads."""
        try:
            reply: Reply | BaseException = await answering
            if self.flow.write_paused:
                await self.flow.drain()
        except BaseException as error:  # as uvicorn does for an application: told in the log, and answered
            reply = error
        self._answered(reply)

    def _answered(self, reply: Reply | BaseException) -> None:
        """Write the answer, and go on with what came meanwhile."""
        self._is_answering = False
        is_last = self._is_leaving  # what is held then stays unanswered, as with uvicorn: the client is told so
        if isinstance(reply, BaseException):
            log.error("Exception in ASGI application\n", exc_info=reply)
            reply, is_last = BROKEN, True
        if self.transport.is_closing():
            return
        dated = b"".join([b"%s: %s\r\n" % header for header in self.server_state.default_headers])
        closing = b"connection: close\r\n\r\n" if is_last else b"\r\n"
        self.transport.write(b"".join((STATUS_LINE[reply.status], dated, reply.lines, closing, reply.body)))
        self.server_state.total_requests += 1
        if is_last:
            self.transport.close()
            return
        self._idle_since = self.loop.time()
        self._go_on()

    def _go_on(self) -> None:
        if not self._held:
            if self.timeout_keep_alive_task is None:
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
            return
        held, self._held = b"".join(self._held), []
        self.flow.resume_reading()
        try:
            self.data_received(held)
        except Exception:  # as the loop does with one out of its own call: whoever has the answer told must not bear it
            log.exception("Exception in what came meanwhile\n")
            self.transport.close()


def _is_over(cycle: RequestResponseCycle | None) -> bool:
    return cycle is None or cycle.response_complete


def lane_of(direct: Direct) -> type[asyncio.Protocol]:
    """The protocol of a server's connections, answering by `direct`."""
    return type("OwnLane", (Lane,), {"direct": direct, "heads": Heads(lambda token: direct.known(token) is not None)})
