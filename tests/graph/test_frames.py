"""Frames written past the library: byte for byte its own, and never more of them than a peer makes room for."""

import asyncio

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from graph.frames import text_frame
from server.ready_frames import ReadyFrames
from server.serving import UVICORN

UPGRADE = (
    b"GET /graphql HTTP/1.1\r\nHost: school\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.mark.feature("003-43")
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_a_ready_frame_is_what_the_library_would_send(size: int) -> None:
    payload = b"x" * size

    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


class Wire(asyncio.Transport):
    """What was written to a peer."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written += data

    def pause_reading(self) -> None:
        """Nobody reads here."""

    def resume_reading(self) -> None:
        """Nobody reads here."""

    def is_closing(self) -> bool:
        """After `close`."""
        return self.is_closed

    def close(self) -> None:
        """No more."""
        self.is_closed = True

    def taken(self) -> bytes:
        """What was written since the last time."""
        written, self.written = self.written, b""
        return written


async def accepted() -> tuple[ReadyFrames, Wire]:
    """A socket that was accepted."""
    open_now = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        open_now.set()
        while (await receive())["type"] != "websocket.disconnect":
            pass

    settings = {**UVICORN, "loop": "asyncio"}
    protocol = ReadyFrames(uvicorn.Config(app, **settings, lifespan="off", log_config=None), ServerState(), {})
    wire = Wire()
    protocol.connection_made(wire)
    protocol.data_received(UPGRADE)
    await open_now.wait()
    wire.taken()
    return protocol, wire


def ping(number: int) -> bytes:
    """As a client sends it."""
    return Frame(Opcode.PING, b"%0125d" % number).serialize(mask=True)


def pong(number: int) -> bytes:
    """The answer."""
    return Frame(Opcode.PONG, b"%0125d" % number).serialize(mask=False)


@pytest.mark.feature("003-43")
async def test_pings_of_a_peer_that_reads_nothing_take_no_memory_and_the_newest_is_answered() -> None:
    protocol, wire = await accepted()

    protocol.data_received(ping(1) + ping(2))
    while_it_reads = wire.taken()
    protocol.pause_writing()
    for number in range(0, 10_000, 10):
        protocol.data_received(b"".join(ping(number + one) for one in range(10)))
    while_it_does_not = wire.taken()
    protocol.resume_writing()
    afterwards = wire.taken()
    protocol.pause_writing()
    protocol.resume_writing()

    assert while_it_reads == pong(1) + pong(2)
    assert while_it_does_not == b""
    assert afterwards == pong(9_999)
    assert wire.taken() == b""  # once
    protocol.connection_lost(None)


@pytest.mark.feature("003-43")
async def test_a_close_behind_pings_is_echoed_to_a_peer_that_reads_nothing_and_nothing_follows() -> None:
    protocol, wire = await accepted()
    bye = b"\x03\xe8"

    protocol.pause_writing()
    protocol.data_received(ping(1) + ping(2) + Frame(Opcode.CLOSE, bye).serialize(mask=True))
    protocol.resume_writing()

    assert wire.taken() == Frame(Opcode.CLOSE, bye).serialize(mask=False)
    assert wire.is_closed
    protocol.connection_lost(None)
