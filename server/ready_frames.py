"""The WebSocket protocol of uvicorn, and a door in it for frames that are ready: what many hear is framed once."""

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State

from graph.frames import OFFER

OPEN = State.OPEN
PONG_HEAD = bytes([0x80 | Opcode.PONG])  # of an unfragmented frame
PING = Frame(Opcode.PING, b"").serialize(mask=False)


class ReadyFrames(WebSocketsSansIOProtocol):
    """Serves as uvicorn does. `OFFER` in the scope's extensions writes a whole frame at once, or not at all.

    Between two callbacks nothing of uvicorn's own frames waits to be written, so that a frame never lands in another.
    Its back-pressure counts for both ways: a frame that is not taken is for the ordinary send, which waits for room.
    """

    waiting_pong = b""  # the answer to the newest ping of a peer that reads nothing

    def handle_connect(self, event: Request) -> None:
        """Put the door into the scope, before the application begins to run."""
        super().handle_connect(event)
        if self.handshake_initiated and self.response.status_code == 101:
            self.scope["extensions"][OFFER] = self.offer  # type: ignore[assignment] # uvicorn knows its own only

    def offer(self, frame: bytes) -> bool:
        """Write a frame if the peer has room for it and may still be sent one; False writes nothing."""
        transport = self.transport
        if not self.writable.is_set() or self.conn.state is not OPEN or transport.is_closing():
            return False
        transport.write(frame)
        return True

    def handle_ping(self) -> None:
        """Answer pings while the peer reads, and the newest of the others once it reads again (RFC 6455, 5.5.3).

        Whoever pings and reads nothing would otherwise fill our memory with answers.
        """
        frames = (
            self.conn.data_to_send()
        )  # the pongs of all that has just come, and what ends the connection after them
        if not self.writable.is_set():
            self.waiting_pong = next((one for one in reversed(frames) if one.startswith(PONG_HEAD)), self.waiting_pong)
            frames = [one for one in frames if not one.startswith(PONG_HEAD)]
        if frames:
            self.transport.write(b"".join(frames))

    def resume_writing(self) -> None:
        """The peer reads again."""
        super().resume_writing()
        pong, self.waiting_pong = self.waiting_pong, b""
        if pong and self.conn.state is OPEN and not self.transport.is_closing():
            self.transport.write(pong)

    def send_keepalive_ping(self) -> None:
        """Ping without a payload: nobody waits for the answer, and 20,000 sockets make a thousand pings a second."""
        self.ping_timer = None
        if self.conn.state is OPEN and not self.transport.is_closing():
            self.transport.write(PING)
            self.schedule_ping()
