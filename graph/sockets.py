"""The street side of live connections: who may connect, how many, and how all are sent home at shutdown."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from graph.documents import Documents
from graph.frames import Close
from graph.gate import Gate
from graph.http import Authenticate
from graph.request import Engine
from graph.socket import Socket
from graph.telling import Tell, nobody
from rules.access import Viewer

PROTOCOL = "graphql-transport-ws"  # the legacy graphql-ws is never offered: it let clients past authentication
SOCKETS_PER_VIEWER_MAX = 8
SOCKET_SECONDS_MAX = 12 * 3600  # then its client comes back, perhaps to another process; streams resume by token
SOCKETS_MAX = 20_000  # of one process, at 25 KB each; strangers hold one for at most INIT_SECONDS_MAX


class Connection(Protocol):
    """A socket or an event stream; its viewer is set once it counts as one of theirs."""

    @property
    def viewer(self) -> Viewer | None:
        """Whose it is."""

    @property
    def operations(self) -> int:
        """How many operations run on it."""

    def close(self, code: Close, reason: str) -> None:
        """Decide its end."""


class GraphQLSockets:
    """The ASGI endpoint of WebSocket /graphql; it knows every socket and event stream that is open.

    `allowed_origins` are other sites whose pages may connect; pages of the service's own host always may.
    """

    def __init__(
        self,
        *,
        documents: Documents,
        engine: Engine,
        authenticate: Authenticate,
        gate: Gate,
        allowed_origins: Collection[str] = (),
        tell: Tell = nobody,
    ) -> None:
        self.documents = documents
        self.engine = engine
        self.authenticate = authenticate
        self.gate = gate
        self.tell = tell
        self.messages = 0  # answers sent, over all sockets that ever were
        self.allowed_origins = frozenset(allowed_origins)
        self.open: set[Connection] = set()
        self._of_viewer: Counter[tuple[int, str]] = Counter()
        self._is_closing = False
        self._changed = asyncio.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection until it is closed."""
        websocket = WebSocket(scope, receive, send)
        if not self._is_origin_allowed(websocket):
            await websocket.send_denial_response(Response(status_code=403))
            return
        if PROTOCOL not in websocket.scope["subprotocols"]:
            await websocket.accept()
            await websocket.close(Close.UNACCEPTABLE_SUBPROTOCOL, "Subprotocol not acceptable")
            return
        await websocket.accept(subprotocol=PROTOCOL)
        socket = Socket(websocket, self)
        async with self.holding(socket):
            await socket.run()

    @asynccontextmanager
    async def holding(self, connection: Connection) -> AsyncIterator[None]:
        """Count a live connection as open for the length of the block; where there is no room it is closed at once."""
        if self._is_closing:
            connection.close(Close.RESTARTING, "Service restarting")
        elif len(self.open) >= SOCKETS_MAX:
            connection.close(Close.TRY_AGAIN_LATER, "Too many sockets")
        self.open.add(connection)
        loop = asyncio.get_running_loop()
        end = loop.call_later(SOCKET_SECONDS_MAX, connection.close, Close.RESTARTING, "Time to reconnect")
        try:
            yield
        finally:
            end.cancel()
            self.open.discard(connection)
            if connection.viewer:
                self._let_go(connection.viewer)
            async with self._changed:
                self._changed.notify_all()

    @property
    def operations(self) -> int:
        """How many operations run over all open sockets: subscriptions, nearly all of them."""
        return sum(socket.operations for socket in self.open)

    def admit(self, viewer: Viewer) -> bool:
        """Count one more socket for a viewer, unless they have as many as they may."""
        if self._of_viewer[_key(viewer)] >= SOCKETS_PER_VIEWER_MAX:
            return False
        self._of_viewer[_key(viewer)] += 1
        return True

    def _let_go(self, viewer: Viewer) -> None:
        self._of_viewer[_key(viewer)] -= 1
        if not self._of_viewer[_key(viewer)]:
            del self._of_viewer[_key(viewer)]  # the counter never outgrows the open sockets

    def close_viewer(self, tenant: int, key: str, code: Close, reason: str) -> None:
        """Send one viewer's sockets home: after logout, or when a right was withdrawn."""
        for socket in self.open:
            if socket.viewer and _key(socket.viewer) == (tenant, key):
                socket.close(code, reason)

    async def shut(self) -> None:
        """Close every socket with 1012, so that clients come back, and wait until all are gone and nothing is read."""
        self._is_closing = True
        for socket in self.open:
            socket.close(Close.RESTARTING, "Service restarting")
        async with self._changed:
            await self._changed.wait_for(lambda: not self.open)
        await self.engine.audiences.mover.settle()

    async def wait_until_open(self, count: int) -> None:
        """Wait until no more than `count` sockets are open; for tests and for draining."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.open) <= count)

    def _is_origin_allowed(self, websocket: WebSocket) -> bool:
        # A page of another site can open a socket without asking (no preflight exists), but cannot forge its Origin.
        origin = websocket.headers.get("origin")
        if origin is None or origin in self.allowed_origins:
            return True
        return bool(urlsplit(origin).netloc) and urlsplit(origin).netloc == websocket.headers.get("host")


def _key(viewer: Viewer) -> tuple[int, str]:
    return viewer.tenant, viewer.key
