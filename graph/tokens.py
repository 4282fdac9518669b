"""Resume tokens: where in which stream a client stands, opaque to clients and checked when it comes back (X-29)."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from graph.refusal import ErrorCode, Refused

TOKEN_VERSION = 1
TOKEN_CHARACTERS_MAX = 4_096  # four keys of 128 characters, in the longest encoding
INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything up to here is delivered: change `no` whole, or only as far as `place` within it.

    A state stream's first snapshot is everything up to change `snapshot`; 0 once it is over, or without one.
    """

    no: int
    place: tuple[str, str] | None = None
    snapshot: int = 0

    @property
    def bound(self) -> tuple[int, str, str]:
        """What comes next stands strictly after this (no key is empty on both sides)."""
        return (self.no + 1, "", "") if self.place is None else (self.no, *self.place)


Place: TypeAlias = tuple[int, Cursor]
"""An epoch, and a cursor in it."""


@dataclass(frozen=True, slots=True)
class StreamName:
    """Which stream a token belongs to: the subscription, and the class or student of one tenant that it follows."""

    subscription: str
    tenant: int
    kind: str  # classroom or student
    key: str

    def write(self, epoch: int, cursor: Cursor) -> str:
        """The token of a place in this stream."""
        place = list(cursor.place or ())
        values = [TOKEN_VERSION, *self._name, epoch, cursor.no, cursor.snapshot, *place]
        return urlsafe_b64encode(msgspec.json.encode(values)).rstrip(b"=").decode()

    def read(self, token: str) -> tuple[int, Cursor]:
        """The epoch and place that a token names. Raises Refused for anything this stream never wrote."""
        match _decoded(token):
            case [version, subscription, tenant, kind, key, int() as epoch, int() as no, int() as snapshot, *place]:
                is_ours = [version, subscription, tenant, kind, key] == [TOKEN_VERSION, *self._name]
                cursor = Cursor(no, _place(place), snapshot)
                in_range = all(0 <= number <= INT64_MAX for number in (epoch, no, snapshot))
                # Only what `write` would have written is a token: that refuses wrong types and spellings at once.
                if is_ours and in_range and self.write(epoch, cursor) == token:
                    return epoch, cursor
        raise Refused(ErrorCode.BAD_INPUT, "'after' is not a resume token of this subscription.", field=("after",))

    @property
    def _name(self) -> list[Any]:
        return [self.subscription, self.tenant, self.kind, self.key]


def _place(values: list[Any]) -> tuple[str, str] | None:
    match values:
        case [str() as first, str() as second] if "\0" not in first + second:
            return first, second
    return None


def _decoded(token: str) -> Any:
    if len(token) > TOKEN_CHARACTERS_MAX:
        return None
    try:
        return msgspec.json.decode(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (NotBase64, ValueError, RecursionError):  # ValueError: other letters, other than UTF-8, other than JSON
        return None
