"""Thousands of listeners in one process: raw sockets that note when each frame came, and do nothing else.

`python -m tests.bench.crowd JOB` opens all connections, says "ready" once each has heard the word READY, and after a
line on its input writes when every frame arrived. The same process listens to the service and to the bare server.
"""

import asyncio
import os
import sys
from base64 import b64encode
from pathlib import Path
from time import monotonic
from typing import cast

import msgspec
import uvloop

from tests.bench.figures import PROJECT

OPENING_MAX = 50  # connections that are being opened at once
READY_SECONDS_MAX = 300.0
READY = b"READY"
NEXT = b'"type":"next"'


class Listener(msgspec.Struct):
    """One connection: what it says once it is open, and under which name its frames are counted."""

    name: str
    opening: list[str]
    headers: list[str] = []


class Crowd(msgspec.Struct):
    """Whom to listen to."""

    port: int
    path: str
    listeners: list[Listener]
    out: str = ""


class Ear(asyncio.Protocol):
    """One connection, from its handshake on."""

    def __init__(self, crowd: Crowd, listener: Listener) -> None:
        self.arrivals: list[float] = []
        self.sample = b""
        self.is_lost = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._crowd, self._listener = crowd, listener
        self._received = b""
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by behaviour, not by class
        lines = [
            f"GET {self._crowd.path} HTTP/1.1", f"Host: 127.0.0.1:{self._crowd.port}", "Upgrade: websocket",
            "Connection: Upgrade", "Sec-WebSocket-Version: 13", *self._listener.headers,
            f"Sec-WebSocket-Key: {b64encode(os.urandom(16)).decode()}", "", "",
        ]  # fmt: skip
        self._transport.write("\r\n".join(lines).encode())

    def data_received(self, data: bytes) -> None:
        now = monotonic()
        received = self._received + data if self._received else data
        if not self._is_open:
            head, found, received = received.partition(b"\r\n\r\n")
            if not found:
                self._received = head
                return
            assert head.startswith(b"HTTP/1.1 101"), head[:300]
            self._is_open = True
            for text in self._listener.opening:
                self._transport.write(_frame(text.encode()))
        at, size = 0, len(received)
        while size - at >= 2:
            length, start = received[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(received[at + 2 : at + 4]), at + 4
            elif length == 127:
                length, start = int.from_bytes(received[at + 2 : at + 10]), at + 10
            if size - start < length:
                break
            if received[at] == 0x81:  # a whole text; pings of the server are none
                self._hear(received, start, start + length, now)
            at = start + length
        self._received = received[at:]

    def _hear(self, received: bytes, start: int, end: int, now: float) -> None:
        if self.ready.done():
            self.arrivals.append(now)
            if NEXT not in received[start:end]:
                self.is_lost, self.sample = True, received[start:end]  # the subscription has ended
            if not self.sample:
                self.sample = received[start:end]
        elif READY in received[start:end]:
            self.ready.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        if not self.ready.done():
            self.ready.set_exception(error or ConnectionError(f"closed: {self._received[-200:]!r}"))


class Heard(msgspec.Struct):
    """What came to one listener."""

    name: str
    arrivals: list[float]
    sample: str
    is_lost: bool


def _frame(text: bytes) -> bytes:
    # A mask of zeros is a mask: the specification asks for one, and nobody on this machine reads along.
    head = bytes([0x81, 0x80 | len(text)]) if len(text) < 126 else b"\x81\xfe" + len(text).to_bytes(2)
    return head + b"\0\0\0\0" + text


async def _listen(crowd: Crowd) -> list[Heard]:
    loop = asyncio.get_running_loop()
    places = asyncio.Semaphore(OPENING_MAX)
    ears: list[Ear] = []

    async def open_one(listener: Listener) -> None:
        async with places:
            _, ear = await loop.create_connection(lambda: Ear(crowd, listener), "127.0.0.1", crowd.port)
            await ear.ready
            ears.append(ear)

    async with asyncio.timeout(READY_SECONDS_MAX):
        await asyncio.gather(*(open_one(listener) for listener in crowd.listeners))
    print("ready", flush=True)
    line = await loop.run_in_executor(None, sys.stdin.readline)
    assert line, "whoever started this crowd is gone"
    return [Heard(ear._listener.name, ear.arrivals, ear.sample.decode(), ear.is_lost) for ear in ears]


class Listening:
    """A crowd in its own process."""

    def __init__(self, process: asyncio.subprocess.Process, out: Path) -> None:
        self._process, self._out = process, out

    @classmethod
    async def start(cls, folder: Path, name: str, crowd: Crowd) -> "Listening":
        """Start it and wait until everybody listens."""
        path, out = folder / f"crowd-{name}.json", folder / f"heard-{name}.json"
        crowd.out = str(out)
        path.write_bytes(msgspec.json.encode(crowd))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bench.crowd", str(path)),
            cwd=PROJECT,
            env=os.environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        said = await asyncio.wait_for(process.stdout.readline(), READY_SECONDS_MAX)
        assert said == b"ready\n", f"expected a crowd that is ready, it said {said!r}"
        return cls(process, out)

    async def heard(self) -> list[Heard]:
        """End it, and read what came to each."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"end\n")
        await self._process.stdin.drain()
        assert await asyncio.wait_for(self._process.wait(), 60) == 0
        return msgspec.json.decode(self._out.read_bytes(), type=list[Heard])


def main(path: str) -> None:
    """Listen."""
    crowd = msgspec.json.decode(Path(path).read_bytes(), type=Crowd)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        heard = runner.run(_listen(crowd))
    Path(crowd.out).write_bytes(msgspec.json.encode(heard))


if __name__ == "__main__":
    main(sys.argv[1])
