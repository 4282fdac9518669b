"""The WebSocket protocol of uvicorn, and a door in it for frames that are ready: what many hear is framed once."""

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import State

from graph.frames import OFFER


class ReadyFrames(WebSocketsSansIOProtocol):
    """Serves as uvicorn does. `OFFER` in the scope's extensions writes a whole frame at once, or not at all.

    Between two callbacks nothing of uvicorn's own frames waits to be written, so that a frame never lands in another.
    Its back-pressure counts for both ways: a frame that is not taken is for the ordinary send, which waits for room.
    """

    def handle_connect(self, event: Request) -> None:
        """Put the door into the scope, before the application begins to run."""
        super().handle_connect(event)
        if self.handshake_initiated and self.response.status_code == 101:
            self.scope["extensions"][OFFER] = self.offer  # type: ignore[assignment] # uvicorn knows its own only

    def offer(self, frame: bytes) -> bool:
        """Write a frame if the peer has room for it and may still be sent one; False writes nothing."""
        if (
            not self.writable.is_set()
            or self.disconnected
            or self.close_sent
            or self.conn.state is not State.OPEN
            or self.transport.is_closing()
        ):
            return False
        self.transport.write(frame)
        return True
