"""How uvicorn listens: the settings that the measurements and the sockets' close codes rest on."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from server.ready_frames import ReadyFrames

SOCKET_BYTES_MAX = 1024 * 1024  # beyond it uvicorn closes with 1009; up to it graph.socket answers with 4400
PING_SECONDS = 20
DEAD_PEER_SECONDS = 40

UVICORN: dict[str, Any] = {
    "http": "httptools",
    "loop": "uvloop",
    "ws": ReadyFrames,
    "ws_max_size": SOCKET_BYTES_MAX,
    "ws_per_message_deflate": False,  # costs more CPU than it saves on short frames, and memory on every socket
    "ws_ping_interval": PING_SECONDS,
    # uvicorn closes with 1011 when a pong is late, and graph-ws clients take 1011 for final: a laptop that slept would
    # never come back. Pings keep the way open; `listen` lets the kernel drop a peer that acknowledges nothing.
    "ws_ping_timeout": None,
    "server_header": False,
    "access_log": False,  # our own line (004-23) says more and names no one
}


def listen(host: str, port: int) -> socket.socket:
    """A listening socket for `uvicorn.Server.serve(sockets=[...])`; its connections inherit the kernel's deadline."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named TCP, or else asyncio leaves Nagle's algorithm on for what it accepts: 40 ms on every small answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; elsewhere the system's own retry limit ends dead peers
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_SECONDS * 1000)
    listener.bind((host, port))
    return listener


class QuietServer(uvicorn.Server):
    """uvicorn without its own signal handlers: the process decides when it stops, in one place."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield
