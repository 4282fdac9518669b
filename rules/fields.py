"""One field at a time: its limits, and what is said when it breaks them."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from rules.evidence import EventInput, Problem, ProblemCode
from rules.metadata import is_text
from rules.policy import MILLION

ID_LENGTH_MAX = 128
APP_LENGTH_MAX = 50
ANSWER_LENGTH_MAX = 4_000
REASON_LENGTH_MAX = 1_000
CONCEPTS_MAX = 50
RUBRIC_TAGS_MAX = 50
EXERCISES_MAX = 100_000
ATTEMPTS_MAX = 100_000
TIME_SPENT_MS_MAX = 86_400_000
REVISION_MIN, REVISION_MAX = -(2**31), 2**31 - 1
SCORE_MAX = 1_000_000_000
RATIO_MAX = 10 * MILLION  # extra credit beyond tenfold is a forgotten maxScore
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DIFFICULTIES = frozenset({"beginner", "intermediate", "advanced"})

FIELD_BY_NAME: Mapping[str, str] = MappingProxyType(
    {name: re.sub(r"_(\w)", lambda found: found[1].upper(), name) for name in EventInput.__struct_fields__}
)
"""EventInput's attributes as clients write them."""

# C0, DEL and half characters: none can be typed, and Postgres refuses the first and the last.
_UNWANTED = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_TEXTS_ALONE = {str}
_PLAIN = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_WHOLE = (
    ("revision", REVISION_MIN, REVISION_MAX),
    ("time_spent_ms", 0, TIME_SPENT_MS_MAX),
    ("completed_exercises", 0, EXERCISES_MAX),
    ("total_exercises", 1, EXERCISES_MAX),
    ("attempt_number", 1, ATTEMPTS_MAX),
)
FRACTION_NAMES = ("code_quality", "correctness", "efficiency", "peer_review")
_TEXTS = (("answer", 0, ANSWER_LENGTH_MAX), ("reason", 1, REASON_LENGTH_MAX), ("app", 1, APP_LENGTH_MAX))
_DETAIL_NAMES = (
    "difficulty", "rubric_tags", "metadata", "due_at", "only_if_higher", *FRACTION_NAMES,
    *(name for name, _, _ in _WHOLE + _TEXTS),
)  # fmt: skip
_details: Callable[[EventInput], tuple[Any, ...]] = attrgetter(*_DETAIL_NAMES)
_NO_DETAILS = (None,) * len(_DETAIL_NAMES)


def has_details(given: EventInput) -> bool:
    """Whether the event has any of the fields that `check_details`, the metadata and the app rules look at."""
    return _details(given) != _NO_DETAILS


def is_id(value: object) -> bool:
    """Whether it can name something: 1 to 128 characters, none of them unprintable, no blank at either end."""
    if type(value) is not str or not 0 < len(value) <= ID_LENGTH_MAX:
        return False
    if value.isascii() and value.isprintable():
        return value[0] != " " and value[-1] != " "
    return _UNWANTED.search(value) is None and value == value.strip()


def are_plain_ids(values: Sequence[object]) -> bool:
    """Whether all of these are ids of the plainest kind, without any blank; where False, `is_id` says which are none.

    Nearly all ids are plain, and looking at an event's ids at once costs a third of looking at each.
    """
    if set(map(type, values)) != _TEXTS_ALONE or "" in values:
        return False
    text = "".join(values)  # type: ignore[arg-type] # the line above has seen to it
    if len(text) > ID_LENGTH_MAX and max(map(len, values)) > ID_LENGTH_MAX:  # type: ignore[arg-type]
        return False
    return text.isascii() and text.isprintable() and " " not in text


@lru_cache(maxsize=8_192)
def ratio_of(score: float, max_score: float) -> int:
    """score / max_score in millionths, half-even, exact in the decimal digits that were sent."""
    top, bottom = Decimal(repr(score)).as_integer_ratio()
    scale_top, scale_bottom = Decimal(repr(max_score)).as_integer_ratio()
    bottom *= scale_top
    whole, rest = divmod(top * scale_bottom * MILLION, bottom)
    is_up = rest * 2 > bottom or (rest * 2 == bottom and whole % 2 == 1)
    return whole + is_up


def utc(sent: object, field: str, problems: list[Problem]) -> datetime | None:
    """The time in UTC, from 1970 on; the ends of the calendar do not overflow."""
    message = "expected a time with an offset, from 1970-01-01T00:00:00Z to the end of the year 9999"
    if isinstance(sent, datetime) and sent.tzinfo is not None:
        try:
            moment = sent if sent.tzinfo is UTC else sent.astimezone(UTC)
            if moment >= EPOCH:
                return moment
            message += f", got {moment.isoformat()}"
        except (OverflowError, ValueError):
            # Only the last hours of the year 9999 and the first of the year 1 leave the calendar on their way to UTC.
            if field == "occurredAt" and sent.year > 1:
                problems.append(Problem(ProblemCode.FUTURE_TIMESTAMP, (field,), message))
                return None
    problems.append(Problem(ProblemCode.BAD_TIMESTAMP, (field,), message))
    return None


def check_details(given: EventInput, problems: list[Problem]) -> str | None:
    """The fields most events leave out; returns the difficulty in lower case."""
    for name, low, high in _WHOLE:
        value = getattr(given, name)
        if value is not None and (type(value) is not int or not low <= value <= high):
            problems.append(_out_of_range(name, f"a whole number from {low} to {high}", value))
    for name in FRACTION_NAMES:
        value = getattr(given, name)
        if value is not None and not (is_number(value) and 0 <= value <= 1):
            problems.append(_out_of_range(name, "a number from 0 to 1", value))
    for name, least, most in _TEXTS:
        value = getattr(given, name)
        if value is not None:
            _check_text(name, value, least, most, problems)
    flag: object = given.only_if_higher
    if flag is not None and type(flag) is not bool:
        problems.append(_out_of_range("only_if_higher", "true or false", flag))
    _check_tags(given.rubric_tags, problems)
    if given.due_at is not None:
        utc(given.due_at, "dueAt", problems)
    return _difficulty_of(given.difficulty, problems)


def _check_text(name: str, value: object, least: int, most: int, problems: list[Problem]) -> None:
    field = (FIELD_BY_NAME[name],)
    if not isinstance(value, str) or not is_text(value):
        message = "expected text without NUL or unpaired surrogates"
        problems.append(Problem(ProblemCode.BAD_TEXT, field, message))
    elif len(value.strip()) < least:
        problems.append(required(name, "not to be blank"))
    elif len(value) > most:
        message = f"expected at most {most} characters, got {len(value)}"
        problems.append(Problem(ProblemCode.TOO_LONG, field, message))


def _check_tags(tags: object, problems: list[Problem]) -> None:
    if tags is None:
        return
    if not isinstance(tags, list | tuple):
        problems.append(bad_id(("rubricTags",), tags))
    elif len(tags) > RUBRIC_TAGS_MAX:
        message = f"expected at most {RUBRIC_TAGS_MAX} tags, got {len(tags)}"
        problems.append(Problem(ProblemCode.TOO_MANY, ("rubricTags",), message))
    else:
        bad = [(str(place), tag) for place, tag in enumerate(tags) if not is_id(tag)]
        problems.extend(bad_id(("rubricTags", place), tag) for place, tag in bad)


def _difficulty_of(sent: object, problems: list[Problem]) -> str | None:
    if sent is None:
        return None
    name = sent.lower() if isinstance(sent, str) and (sent.islower() or sent.isupper()) else ""
    if name not in DIFFICULTIES:
        problems.append(_out_of_range("difficulty", "beginner, intermediate or advanced", sent))
    return name


def is_number(value: object) -> bool:
    """A finite number; true and false are none."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def shown(value: object) -> str:
    """What came, short enough for a message; free text is counted, not repeated: it could name a child."""
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else f"a text of {len(value)} characters"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, int):
        # str() refuses integers beyond 4,300 digits.
        return str(value) if abs(value) < 10**18 else f"an integer of {value.bit_length()} bits"
    return repr(value) if isinstance(value, float) else f"a {type(value).__name__}"


def bad_id(field: tuple[str, ...], value: object) -> Problem:
    if isinstance(value, str) and len(value) > ID_LENGTH_MAX:
        message = f"expected an id of 1 to {ID_LENGTH_MAX} characters, got {len(value)}"
        return Problem(ProblemCode.TOO_LONG, field, message)
    message = f"expected an id of 1 to {ID_LENGTH_MAX} characters without control characters or blanks around it"
    return Problem(ProblemCode.BAD_ID, field, message)


def required(name: str, by: str) -> Problem:
    field = FIELD_BY_NAME[name]
    return Problem(ProblemCode.REQUIRED, (field,), f"{field} is required {by}")


def forbidden(name: str, message: str) -> Problem:
    return Problem(ProblemCode.FORBIDDEN, (FIELD_BY_NAME[name],), message)


def _out_of_range(name: str, expected: str, value: object) -> Problem:
    return Problem(ProblemCode.OUT_OF_RANGE, (FIELD_BY_NAME[name],), f"expected {expected}, got {shown(value)}")
