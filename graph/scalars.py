"""The scalars of the schema: moments, days and log positions, each with one spelling on the wire."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, NewType

import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

Seq = NewType("Seq", int)
EventTime = NewType("EventTime", object)
"""A datetime with an offset, or the text that is none: the intake refuses the one event that carries it."""
Metadata = NewType("Metadata", object)
"""Any JSON value; the intake refuses the one event whose metadata is no object."""

SEQ_MAX = 2**63 - 1
YEAR_MIN = 1970
YEAR_MAX = 9999

# fromisoformat is wider than RFC 3339: it takes week dates, a missing offset, and non-ASCII digits.
_moment = re.compile(r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,32}))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
# What fromisoformat reads as it is, and means the same: most clocks write it so.
_usual_moment = re.compile(  # a class of digits costs less than \d and what says how many of them are ASCII
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{3}|\.[0-9]{6})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
_day = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_whole = re.compile(r"\d{1,19}", re.ASCII)


def read_moment(value: Any) -> datetime:
    """Read an RFC 3339 moment, in UTC and cut (never rounded) to microseconds. Raises GraphQLError."""
    match = _moment.fullmatch(value) if isinstance(value, str) and len(value) <= 64 else None
    if not match:
        raise GraphQLError("DateTime must be RFC 3339 with an offset, such as 2026-03-01T09:30:00Z.")
    day, time, fraction, offset = match.groups()
    shift = "+00:00" if offset in "Zz" else offset
    try:
        moment = datetime.fromisoformat(f"{day}T{time}{shift}").astimezone(UTC)
    except (ValueError, OverflowError):
        # OverflowError: 9999-12-31T23:59:59-01:00 is a date of its zone and has no place in UTC.
        raise GraphQLError("DateTime names a moment that does not exist.") from None
    if not YEAR_MIN <= moment.year <= YEAR_MAX:
        raise GraphQLError(f"DateTime must lie in the years {YEAR_MIN} to {YEAR_MAX}.")
    return moment + timedelta(microseconds=int(f"{fraction or 0:0<6}"[:6]))


def read_event_time(value: Any) -> EventTime:
    """Read an event's moment, cut to microseconds, in any year; text that is none stays text for the intake to refuse.

    One wrong date among a thousand events must not turn the others away. Raises GraphQLError for what is no string.
    """
    if not isinstance(value, str):
        raise GraphQLError("EventTime must be a string, such as 2026-03-01T09:30:00Z.")
    try:
        if _usual_moment.fullmatch(value):
            return EventTime(datetime.fromisoformat(value))
        match = _moment.fullmatch(value) if len(value) <= 64 else None
    except ValueError:
        return EventTime(value)
    if not match:
        return EventTime(value)
    day, time, fraction, offset = match.groups()
    shift = "+00:00" if offset in "Zz" else offset
    try:
        moment = datetime.fromisoformat(f"{day}T{time}{shift}")
    except ValueError:
        return EventTime(value)
    return EventTime(moment.replace(microsecond=int(f"{fraction:0<6}"[:6])) if fraction else moment)


def write_moment(value: datetime) -> str:
    """Write a moment in UTC with `Z`. Raises ValueError for one without a zone: guessing it would shift days."""
    if value.tzinfo is None:
        raise ValueError("a moment without a zone")
    return value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def read_day(value: Any) -> date:
    """Read a calendar day as YYYY-MM-DD. Raises GraphQLError."""
    try:
        if isinstance(value, str) and _day.fullmatch(value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise GraphQLError("Date must be a calendar day such as 2026-03-01.")


def read_seq(value: Any) -> Seq:
    """Read a position in the log, given as a string of digits or as a JSON integer. Raises GraphQLError."""
    if isinstance(value, str) and _whole.fullmatch(value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= SEQ_MAX:
        return Seq(value)
    raise GraphQLError("Seq must be a whole number from 0 to 9223372036854775807, as a string or an integer.")


SCALARS: dict[object, ScalarDefinition] = {
    datetime: strawberry.scalar(
        name="DateTime",
        description="A moment: RFC 3339 with an offset, years 1970 to 9999, cut to microseconds; answered in UTC.",
        specified_by_url="https://scalars.graphql.org/andimarek/date-time.html",
        serialize=write_moment,
        parse_value=read_moment,
    ),
    date: strawberry.scalar(
        name="Date",
        description="A calendar day, `YYYY-MM-DD`, in the time zone that the field names.",
        specified_by_url="https://scalars.graphql.org/andimarek/local-date.html",
        serialize=date.isoformat,
        parse_value=read_day,
    ),
    # A string, because JavaScript reads JSON numbers above 2^53 wrongly and silently, and Int has only 32 bits.
    Seq: strawberry.scalar(
        name="Seq",
        description="A position in the tenant's log, a 64-bit whole number: answered as a string of digits, accepted "
        "as a string or an integer. Positions only grow; compare them as numbers.",
        serialize=str,
        parse_value=read_seq,
    ),
    EventTime: strawberry.scalar(
        name="EventTime",
        description="When an event happened: RFC 3339 with an offset, such as 2026-03-01T09:30:00Z, from 1970 on and "
        "at most 15 minutes ahead, cut to microseconds. Another text rejects only the event that carries it "
        "(BAD_TIMESTAMP or FUTURE_TIMESTAMP), never its neighbours.",
        specified_by_url="https://scalars.graphql.org/andimarek/date-time.html",
        serialize=str,
        parse_value=read_event_time,
    ),
    Metadata: strawberry.scalar(
        name="Metadata",
        description="A JSON object with details of an event, at most 16 KiB, 5 levels and 1,000 values. Each event "
        "type keeps the keys it knows and leaves out the others.",
        serialize=lambda value: value,
        parse_value=Metadata,
    ),
}
"""Hand these to `StrawberryConfig(scalar_map=SCALARS)`."""


def as_id(key: str | None) -> strawberry.ID | None:
    """A tenant's own key as an ID; None where an event or a row names none ("" in the store)."""
    return strawberry.ID(key) if key else None
