"""Lists that can grow, a page at a time: keyset cursors, so that a page stays right while rows are added before it."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import strawberry

from graph.refusal import ErrorCode, Refused

FIRST_DEFAULT = 20
FIRST_MAX = 200
CURSOR_CHARACTERS_MAX = 4_096  # three keys of 128 characters, in the longest encoding
CURSOR_VERSION = 1
INT64_MAX = 2**63 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Item = TypeVar("Item")
Row = TypeVar("Row")

First = Annotated[int, strawberry.argument(description="How many items the page holds at most, 1 to 200.")]
After = Annotated[
    str | None,
    strawberry.argument(description="A cursor of this list, as `pageInfo.endCursor`: the page begins behind it."),
]


@strawberry.type(description="Where a page of a list begins and ends.")
class PageInfo:
    """What a client needs to ask for the next page."""

    has_next_page: bool = strawberry.field(description="Whether more items follow this page.")
    has_previous_page: bool = strawberry.field(description="Whether this page was asked for with `after`.")
    start_cursor: str | None = strawberry.field(description="The cursor of the first item; null on an empty page.")
    end_cursor: str | None = strawberry.field(
        description="The cursor of the last item, to be sent as `after`; null on an empty page."
    )


@strawberry.type(description="One item of a list, with its place in it.")
class Edge(Generic[Item]):
    """An item and its cursor."""

    cursor: str = strawberry.field(description="The item's place in the list, to be sent as `after`.")
    node: Item = strawberry.field(description="The item.")


@strawberry.type(description="A page of a list. `nodes` holds the items; `edges` the same items with their cursors.")
class Connection(Generic[Item]):
    """A page; edges are made only when they are asked for."""

    nodes: list[Item] = strawberry.field(description="The items of this page, in the list's order.")
    page_info: PageInfo = strawberry.field(description="Where the page begins and ends.")
    cursors: strawberry.Private[Sequence[str]]

    @strawberry.field(description="The items of this page, each with its cursor.")
    def edges(self) -> list[Edge[Item]]:
        """Pair the items with their cursors."""
        return [Edge(cursor=cursor, node=node) for cursor, node in zip(self.cursors, self.nodes, strict=True)]


@dataclass(frozen=True, slots=True)
class Keyset:
    """The order of one list: its name, and the types of the values that place an item in it (str, int or datetime).

    A cursor carries the name, so that a cursor of another list is refused instead of skipping rows.
    """

    name: str
    kinds: tuple[type, ...]

    def write(self, *place: Any) -> str:
        """The opaque cursor of an item that stands at this place."""
        values = [_micros(value) if isinstance(value, datetime) else value for value in place]
        assert len(values) == len(self.kinds), f"{self.name} is ordered by {len(self.kinds)} values"
        return urlsafe_b64encode(msgspec.json.encode([CURSOR_VERSION, self.name, *values])).rstrip(b"=").decode()

    def read(self, cursor: str | None, *, field: str = "after") -> tuple[Any, ...] | None:
        """The place that a cursor names; None without one. Raises Refused for anything this list never wrote."""
        if cursor is None:
            return None
        values = _decoded(cursor)
        if isinstance(values, list) and values[:2] == [CURSOR_VERSION, self.name]:
            place = tuple(_value(value, kind) for value, kind in zip(values[2:], self.kinds, strict=False))
            # Only what `write` would have written is a cursor: it refuses wrong lengths, types and spellings at once.
            if len(place) == len(self.kinds) and None not in place and self.write(*place) == cursor:
                return place
        raise Refused(ErrorCode.BAD_INPUT, f"'{field}' is not a cursor of this list.", field=(field,))


def limit_of(first: int, *, field: str = "first") -> int:
    """How many rows to read for a page: one more than it shows, to know whether more follow. Raises Refused."""
    if not 1 <= first <= FIRST_MAX:
        raise Refused(ErrorCode.BAD_INPUT, f"'{field}' must be from 1 to {FIRST_MAX}.", field=(field,))
    return first + 1


def page_of(
    rows: Sequence[Row],
    *,
    first: int,
    after: str | None,
    cursor_of: Callable[[Row], str],
    node_of: Callable[[Row], Item],
) -> Connection[Item]:
    """The page that these rows make: at most `first` of them, the rest only say that more follow."""
    shown = rows[:first]
    cursors = [cursor_of(row) for row in shown]
    return Connection(
        nodes=[node_of(row) for row in shown],
        page_info=PageInfo(
            has_next_page=len(rows) > first,
            has_previous_page=after is not None,
            start_cursor=cursors[0] if cursors else None,
            end_cursor=cursors[-1] if cursors else None,
        ),
        cursors=cursors,
    )


def _decoded(cursor: str) -> Any:
    if len(cursor) > CURSOR_CHARACTERS_MAX:
        return None
    try:
        return msgspec.json.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (NotBase64, ValueError, RecursionError):  # ValueError: other letters, other than UTF-8, other than JSON
        return None


def _value(value: Any, kind: type) -> Any:
    if kind is str:
        return value if isinstance(value, str) and "\0" not in value else None
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > INT64_MAX:
        return None
    if kind is int:
        return value
    try:
        return EPOCH + timedelta(microseconds=value)
    except OverflowError:
        return None


def _micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)
