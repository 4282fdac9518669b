"""A man in the middle of a process and Postgres, who reads the wire and cuts it at one message exactly."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from tests.support.folders import reachable_folder

SOCKET = ".s.PGSQL.5432"
CANCEL_REQUEST = 80877102
FLUSH, PARSE = ord("H"), ord("P")
STARTUP = 0  # the first message has no type; its length begins with a zero
ENDS_A_TURN = frozenset((STARTUP, *b"QSH"))  # also Query, Sync, Flush: now the server has its say
GOODBYE = ord("X")
READY = ord("Z")
ENDS_A_FLUSH = frozenset(b"TnE")  # the row description that Flush asked for, none, or an error


class Side(StrEnum):
    """Where the wire is cut."""

    REQUEST = "before request"  # all before it has reached the server, it has not
    ANSWER = "after answer"  # the server has done and said it, the client never hears of it


@dataclass(frozen=True, slots=True)
class Cut:
    """One crash point: the message, counted from 1 over all connections of the process."""

    side: Side
    number: int

    def __str__(self) -> str:
        return f"{self.side} {self.number}"


@dataclass(slots=True)
class _Line:
    """One connection: the two ways, and whether the turn is a mere Flush."""

    to_client: asyncio.StreamWriter
    to_server: asyncio.StreamWriter
    is_flush: bool = False

    def drop(self) -> None:
        for writer in (self.to_client, self.to_server):
            writer.transport.abort()


@dataclass(slots=True)
class Wiretap:
    """Passes on what both sides say, counts it, and drops every connection at the cut."""

    server: Path
    url: str = ""
    cut: Cut | None = None
    is_fatal: bool = True  # the process is dead: whatever it tries from now on reaches nobody
    on_cut: Callable[[], None] = lambda: None
    requests: list[bool] = field(default_factory=list)  # each message of the client: whether it begins a turn
    answers: int = 0
    prepared: list[bytes] = field(default_factory=list)  # the statements, in the messages that brought them
    has_cut: asyncio.Event = field(default_factory=asyncio.Event)
    _lines: list[_Line] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _is_over: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on, unless its process is dead."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            from_server, to_server = await asyncio.open_unix_connection(str(self.server))
        except OSError:
            writer.transport.abort()
            return
        line = _Line(writer, to_server)
        if self._is_over or (self.has_cut.is_set() and self.is_fatal):
            line.drop()
            return
        self._lines.append(line)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._told(reader, line))
                group.create_task(self._answered(from_server, line))
        finally:
            line.drop()

    async def _told(self, reader: asyncio.StreamReader, line: _Line) -> None:
        """What the client says; the first message has no type."""
        with suppress(asyncio.IncompleteReadError, OSError):
            message = await _body(reader)
            is_counted = struct.unpack("!i", message[4:8])[0] != CANCEL_REQUEST
            begins_a_turn = True
            while True:
                if is_counted:
                    self.requests.append(begins_a_turn)
                    if self._is_at(Side.REQUEST, len(self.requests)):
                        return self._drop_all()
                if message[0] == PARSE:
                    self.prepared.append(message)
                line.is_flush = message[0] == FLUSH
                begins_a_turn = message[0] in ENDS_A_TURN
                line.to_server.write(message)
                message = await reader.readexactly(1)
                message += await _body(reader)
                is_counted = message[0] != GOODBYE
        return line.drop()

    async def _answered(self, reader: asyncio.StreamReader, line: _Line) -> None:
        """What the server says, handed on answer by answer."""
        answer = b""
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                kind = await reader.readexactly(1)
                answer += kind + await _body(reader)
                if kind[0] != READY and not (line.is_flush and kind[0] in ENDS_A_FLUSH):
                    continue
                self.answers += 1
                if self._is_at(Side.ANSWER, self.answers):
                    return self._drop_all()
                line.to_client.write(answer)
                answer = b""
        if answer and not self.has_cut.is_set():
            line.to_client.write(answer)  # the server's last words, before it hangs up
            with suppress(OSError):
                await line.to_client.drain()
        return line.drop()

    def _is_at(self, side: Side, number: int) -> bool:
        return self.cut == Cut(side, number) and not self.has_cut.is_set()

    def _drop_all(self) -> None:
        self.has_cut.set()
        self.on_cut()
        for line in self._lines:
            line.drop()

    async def aclose(self) -> None:
        """Drop what is left, and wait until it is gone."""
        self._is_over = True
        for line in self._lines:
            line.drop()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _body(reader: asyncio.StreamReader) -> bytes:
    length = await reader.readexactly(4)
    return length + await reader.readexactly(struct.unpack("!i", length)[0] - 4)


@asynccontextmanager
async def tapped(database_url: str, cut: Cut | None = None, *, is_fatal: bool = True) -> AsyncIterator[Wiretap]:
    """A way to a database behind a unix socket, with its own `url`."""
    parts = urlsplit(database_url)
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    port = query.get("port", "5432")
    with reachable_folder() as folder:
        tap = Wiretap(Path(query["host"]) / f".s.PGSQL.{port}", cut=cut, is_fatal=is_fatal)
        query |= {"host": str(folder), "port": "5432"}
        tap.url = urlunsplit(parts._replace(query=urlencode(query)))
        server = await asyncio.start_unix_server(tap.serve, path=str(folder / SOCKET))
        try:
            yield tap
        finally:
            server.close()
            await tap.aclose()
