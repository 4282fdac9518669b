"""The least that could serve a crowd: the `websockets` library, a dict of groups, and `broadcast` of ready-made text.

`python -m tests.bench.bare PORT REDIS_URL CHANNEL`: each connection names its group in its first message; each message
of the channel is a list of (group, text). It reads no database, judges nobody and remembers nothing.
"""

import asyncio
import sys
from collections import defaultdict
from contextlib import suppress

import msgspec
import uvloop
from redis.asyncio import Redis
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

from server.serving import PING_SECONDS


async def run(port: int, redis_url: str, channel: str) -> None:
    """Serve until killed."""
    groups: dict[str, set[ServerConnection]] = defaultdict(set)

    async def join(connection: ServerConnection) -> None:
        name = str(await connection.recv())
        groups[name].add(connection)
        await connection.send("READY")
        with suppress(ConnectionClosed):
            await connection.wait_closed()
        groups[name].discard(connection)

    pubsub = Redis.from_url(redis_url).pubsub(ignore_subscribe_messages=True)
    await pubsub.subscribe(channel)
    async with serve(
        join, "127.0.0.1", port, compression=None, ping_interval=PING_SECONDS, ping_timeout=None, server_header=None
    ):
        print("ready", flush=True)
        while True:
            message = await pubsub.get_message(timeout=5.0)
            if message is not None:
                for name, text in msgspec.msgpack.decode(message["data"]):
                    broadcast(groups[name], text)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
