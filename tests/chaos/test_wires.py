"""The wires pass on what is said, reset what stands, and cut an answer after its work was done."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.chaos.wires import Wire, laid
from tests.support.folders import reachable_folder


@dataclass(slots=True)
class Clerk:
    """A server that notes each line it is sent, and says so."""

    done: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.done.append(line)
                writer.write(b"done " + line)
                await writer.drain()
        except ConnectionResetError:
            pass
        writer.close()


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[Clerk, Wire]]:
    """A clerk behind a wire."""
    with reachable_folder() as folder:
        clerk, path = Clerk(), folder / "clerk"
        server = await asyncio.start_unix_server(clerk.serve, str(path))
        async with laid(path) as wire:
            yield clerk, wire
        server.close()


async def connected(wire: Wire) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that has been answered once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(b"hello\n")
    assert await reader.readline() == b"done hello\n"
    return reader, writer


async def test_a_wire_passes_on_both_ways_and_the_end_too() -> None:
    async with wired() as (clerk, wire):
        reader, writer = await connected(wire)
        writer.write(b"more\n")
        writer.write_eof()

        assert await reader.read() == b"done more\n"
        assert clerk.done == [b"hello\n", b"more\n"]
        assert wire.connections == 1
        writer.close()


async def test_a_reset_reaches_the_client_as_one_and_leaves_the_way_open() -> None:
    async with wired() as (_, wire):
        reader, _writer = await connected(wire)
        wire.reset()

        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert wire.resets == 1
        _, again = await connected(wire)
        again.close()


async def test_a_cut_answer_is_never_heard_and_its_work_is_done() -> None:
    async with wired() as (clerk, wire):
        reader, writer = await connected(wire)
        wire.cut = b"done pay"
        writer.write(b"pay\n")

        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert clerk.done == [b"hello\n", b"pay\n"]
        assert wire.cuts == 1


async def test_behind_a_wire_to_nobody_nobody_answers() -> None:
    with reachable_folder() as folder:
        async with laid(folder / "nobody") as wire:
            reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)

            assert await reader.read() == b""
            assert wire.connections == 0
            writer.close()
