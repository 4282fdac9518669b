"""Values written as JSON by Postgres itself: the pieces of which statements that answer clients are composed.

What a caller sent is never part of a statement's text, but for response names, which GraphQL limits to letters, digits
and underscores.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

PARTS_MAX = 40  # of one object; Postgres's format() takes 100 arguments
DOUBT = "\x01"
"""Stands where only the reference executor can say; JSON of Postgres never holds it, since it escapes such letters."""
IN_DOUBT = "E'\\x01'"
KEPT = "\x02"
"""Stands where a list belongs that is written beside the text; see db.pages."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value that comes with each ask: the number of its column."""

    column: int

    def __str__(self) -> str:
        return f"a.v{self.column}"


@dataclass(frozen=True, slots=True)
class Page:
    """Which page of a list: how many items, and behind which place; without `after` from the beginning."""

    first: int | Given
    after: tuple[Given, ...] = ()  # whether a cursor was given, then the values of the place


@dataclass(frozen=True, slots=True)
class Part:
    """One selected field: the name it is answered under, its name in the schema, and what is selected of it."""

    key: str
    field: str
    parts: tuple["Part", ...] = ()
    page: Page | None = None
    classroom: Given | None = None  # the class whose evidence or events are asked for; "" means all
    words: tuple[str, ...] = ()  # of an enum, by which a list is narrowed; none means all of it
    is_newest_first: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """How the items of a list are placed: its name in cursors, the SQL types of a place, and that before all items."""

    name: str
    types: tuple[str, ...]
    beginning: tuple[Any, ...]

    def __post_init__(self) -> None:
        assert len(self.types) == len(self.beginning)


Fields: TypeAlias = Mapping[str, Mapping[str, str]]
"""By type and field: SQL that gives the JSON of what has no parts."""
Objects: TypeAlias = Mapping[tuple[str, str], Callable[[Part], str]]
"""By type and field: what writes a field that has parts of its own."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Composes the SQL of objects from what is known of their fields."""

    fields: Fields
    objects: Objects = field(default_factory=dict)

    def object(self, kind: str, parts: Sequence[Part]) -> str:
        """SQL that writes an object of this type as JSON."""
        assert len(parts) <= PARTS_MAX
        # A name of GraphQL is safe in a literal.
        assert all(part.key.isascii() and part.key.isidentifier() for part in parts)
        template = ",".join(f'"{part.key}":%s' for part in parts)
        return f"format('{{{template}}}', {', '.join(self._value(kind, part) for part in parts)})"

    def _value(self, kind: str, part: Part) -> str:
        if part.field == "__typename":
            return f"""'"{kind}"'"""
        if part.field == KEPT:
            return "E'\\x02'"
        return self.objects[kind, part.field](part) if part.parts else self.fields[kind][part.field]


def all_of(
    kind: str, fields: Fields, below: Mapping[tuple[str, str], str], pages: Collection[tuple[str, str]]
) -> tuple[Part, ...]:
    """All that can be selected of a type; `below` names the types of what has parts of its own."""
    parts = [Part(name, name) for name in fields[kind]]
    for (owner, name), inner in below.items():
        if owner != kind:
            continue
        of_inner, page = all_of(inner, fields, below, pages), None
        if (kind, name) in pages:
            shown = ("hasNextPage", "hasPreviousPage", "startCursor", "endCursor")
            info = Part("pageInfo", "pageInfo", tuple(Part(one, one) for one in shown))
            of_inner, page = (Part("nodes", "nodes", of_inner), info), Page(20)
        parts.append(Part(name, name, of_inner, page=page))
    return tuple(parts)


def text(column: str) -> str:
    """A text, or null."""
    return f"coalesce(to_json({column})::text, 'null')"


def word(column: str) -> str:
    """A word of an enum: letters and underscores."""
    return f"""'"' || {column} || '"'"""


def known_word(column: str, known: Collection[str]) -> str:
    """A word of an enum, of which a newer release may have stored more."""
    words = ", ".join(f"'{one}'" for one in sorted(known))
    return f"""case when {column} in ({words}) then {word(column)} else {IN_DOUBT} end"""


def numbered_word(column: str, words: Mapping[int, str]) -> str:
    """A word of an enum that is stored as a number."""
    cases = " ".join(f"""when {number} then '"{one}"'""" for number, one in words.items())
    return f"case {column} {cases} else {IN_DOUBT} end"


def truth(condition: str) -> str:
    """A condition that is never null."""
    return f"case when {condition} then 'true' else 'false' end"


def moment(column: str) -> str:
    """As `write_moment` of the scalars: in UTC with `Z`, microseconds only where there are any."""
    written = f"""to_char({column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
    return f"""coalesce('"' || replace({written}, '.000000Z', 'Z') || '"', 'null')"""


def day(column: str) -> str:
    """A calendar day, or null."""
    return f"""coalesce('"' || to_char({column}, 'YYYY-MM-DD') || '"', 'null')"""


def number(column: str, parts: int) -> str:
    """A whole number of parts as a float: the shortest digits, and `.0` where there is nothing to say."""
    whole, broken = f"{column} / {parts} || '.0'", f"({column}::float8 / {parts})::text"
    return f"coalesce(case when {column} % {parts} = 0 then {whole} else {broken} end, 'null')"


def global_id(kind: str, column: str) -> str:
    """As `global_id` of the nodes."""
    return f"""'"' || {coded(f"'{kind}:' || {column}")} || '"'"""


def coded(column: str) -> str:
    """A text as URL-safe base64 without its padding and its line breaks."""
    return f"translate(encode(convert_to({column}, 'UTF8'), 'base64'), E'+/=\\n', '-_')"


def micros(column: str) -> str:
    """A moment as cursors hold it: microseconds since 1970."""
    return f"(extract(epoch from {column}) * 1000000)::bigint"


def cursor(order: Order, *values: str) -> str:
    """As `Keyset.write`, of values that are written as JSON already."""
    joined = " || ',' || ".join(values)
    listed = f"""'[1,"{order.name}",' || {joined} || ']'"""
    return f"""'"' || {coded(listed)} || '"'"""
