"""The least HTTP client that can load the service: keep-alive lanes that send prepared bytes and read the answer."""

import asyncio
from typing import Any, cast

import msgspec

HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"


class Lane(asyncio.Protocol):
    """One connection with one request in flight. Answers must carry a content-length, as the service's do."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._missing: int | None = None  # bytes until the answer is whole; None until its head is read
        self._body_at = 0
        self._answered: asyncio.Future[bytes] | None = None

    @classmethod
    async def open(cls, port: int) -> "Lane":
        """Connect to the service on this machine."""
        _, lane = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return lane

    async def send(self, request: bytes) -> bytes:
        """The body of the answer. Raises AssertionError for any status but 200."""
        assert self._transport is not None
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by behaviour, not by class

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._missing is None:
            end = self._received.find(HEAD_END)
            if end < 0:
                return
            head = bytes(self._received[:end]).lower()
            length = head.partition(LENGTH)[2].partition(b"\r\n")[0]
            self._body_at = end + len(HEAD_END)
            self._missing = self._body_at + int(length)
        if len(self._received) >= self._missing:
            self._end()

    def _end(self) -> None:
        assert self._answered is not None
        status, body = bytes(self._received[9:12]), bytes(self._received[self._body_at : self._missing])
        self._received.clear()
        self._missing = None
        if status == b"200":
            self._answered.set_result(body)
        else:
            self._answered.set_exception(AssertionError(f"HTTP {status.decode()}: {body[:500]!r}"))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error or ConnectionError("the service closed the connection"))

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


def request_of(token: str, document: str, variables: dict[str, Any]) -> bytes:
    """A whole POST /graphql."""
    body = msgspec.json.encode({"query": document, "variables": variables})
    head = (
        "POST /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\naccept: application/json\r\n"
        f"authorization: Bearer {token}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
