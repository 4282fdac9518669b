"""What was sent, in 16 bytes: how a second delivery of an event is told from another event under its name."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from operator import attrgetter
from typing import Any

from rules.evidence import EventInput
from rules.kinds import KIND_BY_NAME

FINGERPRINT_BYTES = 16
TRACE_CONTEXT = frozenset({"traceparent", "tracestate", "baggage"})
"""Metadata keys that differ from one delivery to the next and say nothing about the event."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EMPTY = blake2b(digest_size=FINGERPRINT_BYTES)
# The key (source, event_id) names the event and the lane its urgency: neither is what the event says.
_NAMES = tuple(name for name in EventInput.__struct_fields__ if name not in {"event_id", "source", "lane"})
_USUAL = _NAMES.index("due_at")  # the fields from here on say what few events say
_OPENINGS = tuple(f"({name!r}, " for name in _NAMES)
_NOTHING_ELSE = (None,) * (len(_NAMES) - _USUAL)
_values: Callable[[EventInput], tuple[Any, ...]] = attrgetter(*_NAMES)


def fingerprint_of(given: EventInput) -> bytes:
    """16 bytes over the fields as sent, before any default or filling (000-02); `given` must be valid.

    Aliases are mapped, numbers and times normalised, concepts are a sorted set. Absent fields take no part, so that
    a field added later changes no stored fingerprint.
    """
    values = _values(given)
    if values[_USUAL:] == _NOTHING_ELSE:  # as of nearly all events; zip ends with the shorter
        values = values[:_USUAL]
    # The text is that of `ascii([(name, value), ...])`, a third faster than by way of the list and its tuples. ascii()
    # escapes the same way in every Python version; repr() follows the Unicode tables of the day.
    sent = [
        f"{opening}{value if spell is _plain and value.__class__ is str else spell(value)!a})"
        for value, opening, spell in zip(values, _OPENINGS, _SPELLINGS, strict=False)
        if value is not None
    ]
    return digest_of(f"[{', '.join(sent)}]")


def digest_of(sent: str) -> bytes:
    """The fingerprint of fields that are spelled already: ASCII, as `ascii([(name, value), ...])` has them."""
    hasher = _EMPTY.copy()  # a fifth faster than one made by its parameters
    hasher.update(sent.encode("ascii"))
    return hasher.digest()


def spelled(value: float) -> str:
    """A number as it is spelled in the fingerprint."""
    return ascii(_plain(value))


def microseconds_of(moment: datetime) -> int:
    """A time as it is spelled in the fingerprint."""
    return (moment - _EPOCH) // _MICROSECOND


def _plain(value: Any) -> object:
    """A JSON value or a time in its one spelling: 1.0 is 1, objects are sorted by key, lists keep their order."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, datetime):
        return microseconds_of(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list | tuple):
        return ("list", *map(_plain, value))
    if isinstance(value, dict):
        return ("object", *((key, _plain(value[key])) for key in sorted(value)))
    return value


def _metadata(value: dict[str, Any]) -> object:
    return _plain({key: part for key, part in value.items() if key not in TRACE_CONTEXT})


_SPECIAL: dict[str, Callable[[Any], object]] = {
    "type": {name: kind.value for name, kind in KIND_BY_NAME.items()}.__getitem__,
    "concept_ids": lambda value: tuple(value) if len(value) == 1 else tuple(sorted(set(value))),
    "difficulty": lambda value: value.lower(),
    "metadata": _metadata,
}
_SPELLINGS = tuple(_SPECIAL.get(name, _plain) for name in _NAMES)
