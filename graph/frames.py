"""The messages of graphql-transport-ws: their shapes, and the codes that end a socket."""

from enum import IntEnum
from typing import Any

from graph.refusal import Refused
from graph.wire import Ask, ask_of, decode

MESSAGE_BYTES_MAX = 256 * 1024
OPERATION_ID_CHARACTERS_MAX = 128
REASON_CHARACTERS_MAX = 120  # a close frame holds 123 bytes

OFFER = "sightline.offer"
"""In the scope's extensions: the server's function that writes a ready frame at once, or says that there is no room."""


class Close(IntEnum):
    """Close codes, chosen by what the graphql-ws client does with them.

    It gives up for ever at 4400, 4401, 4406, 4409, 4429 and at most of 1000-1999 (1011 among them), and comes back
    after 4403, 1012 and 1013.
    """

    RESTARTING = 1012
    TRY_AGAIN_LATER = 1013
    BAD_REQUEST = 4400
    UNAUTHORIZED = 4401
    EXPIRED = 4403
    UNACCEPTABLE_SUBPROTOCOL = 4406
    INIT_TIMEOUT = 4408
    ID_TAKEN = 4409
    TOO_MANY_INITS = 4429


class BadMessage(Exception):
    """A message that the protocol does not allow; the socket ends with 4400."""


def message_of(text: str | None) -> dict[str, Any]:
    """One message of the protocol, its type not yet judged. Raises BadMessage."""
    if text is None:
        raise BadMessage("Only text messages are understood")
    # Four bytes is the longest letter in UTF-8: encoding is needed only where the answer is in doubt.
    if len(text) * 4 > MESSAGE_BYTES_MAX and len(text.encode()) > MESSAGE_BYTES_MAX:
        raise BadMessage("Message too large")
    try:
        return decode(text)
    except Refused:
        raise BadMessage("Invalid message") from None


def payload_of(message: dict[str, Any]) -> dict[str, Any] | None:
    """The payload of a message that may do without one. Raises BadMessage."""
    payload = message.get("payload")
    if not isinstance(payload, dict | None):
        raise BadMessage("The payload must be an object")
    return payload


def id_of(message: dict[str, Any]) -> str:
    """The id that the client chose for an operation. Raises BadMessage."""
    operation_id = message.get("id")
    if not isinstance(operation_id, str) or not 1 <= len(operation_id) <= OPERATION_ID_CHARACTERS_MAX:
        raise BadMessage("The id must be a string of 1 to 128 characters")
    return operation_id


def operation_of(message: dict[str, Any]) -> Ask:
    """What `subscribe` asks for; whether its document is any good is not the socket's matter. Raises BadMessage."""
    payload = message.get("payload")
    if not isinstance(payload, dict):
        raise BadMessage("The payload must be an object")
    try:
        return ask_of(payload)
    except Refused as refused:
        raise BadMessage(refused.message[:REASON_CHARACTERS_MAX]) from None


def text_frame(payload: bytes) -> bytes:
    """A whole text message in one frame of the WebSocket protocol, as servers send it: not masked (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        head = bytes((0x81, size))
    elif size < 1 << 16:
        head = b"\x81\x7e" + size.to_bytes(2, "big")
    else:
        head = b"\x81\x7f" + size.to_bytes(8, "big")
    return head + payload
