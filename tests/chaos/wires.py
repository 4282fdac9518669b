"""The wires of a crash run: TCP ways to an api or to Postgres, whose connections can be reset and answers cut."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

CHUNK_BYTES = 65_536
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST, and drops what is under way
COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"  # Postgres has committed, and says so
ANSWERED = b"HTTP/1.1 200"  # an api has done what it was asked, and says so


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """One connection: its two ends."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter

    def reset(self) -> None:
        """End both at once, with RST where the end is a TCP one."""
        for writer in (self.near, self.far):
            one = writer.get_extra_info("socket")
            if one is not None and one.family == socket.AF_INET:
                with suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()


@dataclass(slots=True)
class Wire:
    """A port that leads to a server. Connections are passed on as they are, until somebody resets or cuts them."""

    far: Path | int  # a unix socket, or a port of this machine
    port: int = 0
    cut: bytes | None = None  # while set: a connection whose server says this is reset, and its client never hears it
    connections: int = 0  # ever made
    cuts: int = 0
    resets: int = 0
    _lines: set[_Line] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def reset(self) -> None:
        """Reset every connection that stands now."""
        self.resets += len(self._lines)
        for line in list(self._lines):
            line.reset()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on until both sides have hung up."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            from_far, far = await self._reached()
        except OSError:
            writer.transport.abort()
            return
        line = _Line(writer, far)
        self.connections += 1
        self._lines.add(line)
        try:
            await asyncio.gather(self._pass(reader, far, line), self._pass(from_far, writer, line, is_answer=True))
        finally:
            self._lines.discard(line)
            line.reset()

    async def _reached(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.far, int):
            return await asyncio.open_connection("127.0.0.1", self.far)
        return await asyncio.open_unix_connection(str(self.far))

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: _Line, *, is_answer: bool = False
    ) -> None:
        """One way of a connection. A mark stands whole in one chunk: both servers send it with the end of a turn."""
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                if is_answer and self.cut is not None and self.cut in chunk:
                    self.cuts += 1
                    line.reset()
                    return
                writer.write(chunk)
                await writer.drain()
            writer.write_eof()
        except OSError:
            line.reset()

    async def aclose(self) -> None:
        """Reset what is left, and wait until it is gone."""
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def laid(far: Path | int) -> AsyncIterator[Wire]:
    """A wire to a server, which need not be there yet."""
    wire = Wire(far)
    listener = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.port = listener.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        listener.close()
        await wire.aclose()
