"""Pages read together: what one document asks of many classes or students at once, as JSON in one statement.

All who ask by the same document at the same moment share one transaction and one look at how far the folds have come;
each has a row of their own among the arguments, and their own ties to what they ask for. The statement is composed of
constants, once for each document; nothing that a caller sent is ever part of its text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from db.freshness import LAG_MS_MAX, PLANNED_ONCE, WITHHELD_MAX
from db.pool import Connection
from db.written import IN_DOUBT, KEPT, Fields, Page, Part, Writer, moment, truth

SETTINGS = PLANNED_ONCE
ASKS_MAX = 64  # in one statement
ENROLLED_TODAY = "m.started <= today.day and (m.ended is null or m.ended > today.day)"

ASK = "unnest($3::int[], $4::text[], $5::text[], $6::bool[], $7::bool[], $8::bool[], $9::bool[], $10::text[]<more>)"
COLUMNS = "place, key, viewer, is_admin, as_teacher, as_guardian, as_student, known"
FIRST_FREE = 11  # the number of the first argument that a document brings

FRESH_FIELDS: Fields = {
    "AsOf": {
        "seq": """'"' || fresh.seq || '"'""",
        "time": moment("fresh.time"),
        "withheld": "fresh.withheld",
    },
    "PageInfo": {},
}
LAG = "fresh.lag_ms"

_WITHHELD = f"""(select count(*) from (
        select from dead_letter d where d.tenant = $1 order by d.source, d.event_id limit {WITHHELD_MAX}
    ) x) + (select count(*) from (
        select from unrostered u where u.tenant = $1 order by u.seq limit {WITHHELD_MAX}
    ) x)"""  # noqa: S608 - a constant of ours
_LAG = f"""coalesce((
        select least(greatest(floor(extract(epoch from $2 - o.received_at) * 1000), 0), {LAG_MS_MAX})::int
        from outbox o where o.tenant = $1 and o.kind = 'EVENT' order by o.seq limit 1
    ), 0)"""  # noqa: S608 - a constant of ours
_FRESH = """(
    select coalesce(w.seq - 1, h.seq) as seq, coalesce(w.received_at, $2) as time, <lag> as lag_ms,
        <withheld> as withheld
    from tenant_head h
    left join lateral (
        select o.seq, o.received_at from outbox o where o.tenant = $1 order by o.seq limit 1
    ) w on true
    where h.tenant = $1
    offset 0
)"""


@dataclass(frozen=True, slots=True)
class Ask:
    """Who asks for what: a key, what the viewer's token says, and the values that the document leaves open."""

    key: str
    viewer: str
    is_admin: bool
    as_teacher: bool
    as_guardian: bool
    as_student: bool
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What one ask found: the viewer's ties today, and what was selected; no text for whom nothing lets in."""

    seq: int | None  # how far the folds had come, where the document speaks of it
    is_tied: bool  # teacher of the class, or of a class of the student
    is_linked: bool  # in the class, or the student's guardian with consent
    text: str | None  # with KEPT where a list belongs
    version: str | None = None  # of what the lists are made of, where there are such lists
    lists: tuple[str, ...] | None = None  # none where the version is the one that is known


def whole(text: str, lists: Sequence[str]) -> str:
    """A text with its lists in their places."""
    first, *others = text.split(KEPT)
    assert len(others) == len(lists)
    return first + "".join(f"{one}{other}" for one, other in zip(lists, others, strict=True))


def composed(statement: str, parts: Sequence[Part], kinds: Sequence[str], *, with_seq: bool) -> str:
    """A statement with its asks, whose open values are of these types, and with as much freshness as is selected."""
    more = "".join(f", ${FIRST_FREE + place}::{kind}[]" for place, kind in enumerate(kinds))
    names = COLUMNS + "".join(f", v{place}" for place in range(len(kinds)))
    return statement.replace("<ask>", f"{ASK.replace('<more>', more)} as a ({names})").replace(
        "<fresh>", _freshness(set(_fields(parts)), with_seq=with_seq)
    )


def _freshness(selected: set[str], *, with_seq: bool) -> str:
    if not with_seq and selected.isdisjoint({"asOf", "lagMs"}):
        return "(select null::bigint as seq)"
    lag = _LAG if "lagMs" in selected else "null"
    return _FRESH.replace("<lag>", lag).replace("<withheld>", _WITHHELD if "withheld" in selected else "null")


def _fields(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        yield part.field
        yield from _fields(part.parts)


def paged(writer: Writer, kind: str, part: Part, rows: str, *, places: Sequence[str], cursor: str) -> str:
    """SQL that writes one page of a list.

    `rows` gives its items in order as `x`, and one more when there is more; `cursor` is made of their `places`, which
    it finds as `l.k0` and so on.
    """
    assert part.page is not None
    first, nodes = part.page.first, [inner for inner in part.parts if inner.field == "nodes"]
    made = [f"array_agg({writer.object(kind, node.parts)}) as n{place}" for place, node in enumerate(nodes)]
    kept = [f"array_agg({place}) as k{number}" for number, place in enumerate(places)]
    values = {
        id(node): f"format('[%s]', array_to_string(l.n{place}[1:{first}], ','))" for place, node in enumerate(nodes)
    }
    written = [
        values.get(id(inner)) or _of_page(writer, kind, inner, part.page, len(places), cursor) for inner in part.parts
    ]
    template = ",".join(f'"{inner.key}":%s' for inner in part.parts)
    return f"""(
        select format('{{{template}}}', {", ".join(written)})
        from (select count(*) as count, {", ".join([*made, *kept])} from {rows}) l
    )"""  # noqa: S608 - response names are letters, digits and underscores; the rest are constants


def limit_of(page: Page) -> str:
    """How many rows a page reads: one more than it shows."""
    return f"{page.first} + 1" if not isinstance(page.first, int) else str(page.first + 1)


def _of_page(writer: Writer, kind: str, part: Part, page: Page, places: int, cursor: str) -> str:
    if part.field == "__typename":
        return f"""'"{kind}Connection"'"""
    at_first, at_last = cursor, cursor
    for number in range(places):
        at_first = at_first.replace(f"l.k{number}", f"l.k{number}[1]")
        at_last = at_last.replace(f"l.k{number}", f"l.k{number}[least(l.count, {page.first})]")
    # A place with a part that is null has no cursor, and whether it may be null only the reference executor can say.
    at_first, at_last = (f"coalesce({at}, {IN_DOUBT})" for at in (at_first, at_last))
    fields = {
        "hasNextPage": truth(f"l.count > {page.first}"),
        "hasPreviousPage": truth(str(page.after[0])) if page.after else "'false'",
        "startCursor": f"case when l.count = 0 then 'null' else {at_first} end",
        "endCursor": f"case when l.count = 0 then 'null' else {at_last} end",
    }
    return Writer({"PageInfo": fields}).object("PageInfo", part.parts)


async def read_pages(
    connection: Connection,
    tenant: int,
    statement: str,
    asks: Sequence[Ask],
    *,
    known: Sequence[str | None],
    now: datetime,
) -> list[Found | None]:
    """Read what each ask is for, in a transaction begun with SETTINGS; None where the roster has no such key.

    `known` has the version of the lists that the caller holds for each ask: those are not written again.
    """
    assert len(asks) <= ASKS_MAX
    rows = await connection.fetch(
        statement,
        tenant,
        now,
        list(range(len(asks))),
        [ask.key for ask in asks],
        [ask.viewer for ask in asks],
        [ask.is_admin for ask in asks],
        [ask.as_teacher for ask in asks],
        [ask.as_guardian for ask in asks],
        [ask.as_student for ask in asks],
        known,
        *map(list, zip(*(ask.values for ask in asks), strict=True)),
    )
    found: list[Found | None] = [None] * len(asks)
    for place, seq, is_tied, is_linked, text, version, lists in rows:
        found[place] = Found(seq, is_tied, is_linked, text, version, None if lists is None else tuple(lists))
    return found
