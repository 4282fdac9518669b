"""What an event says beside its columns: one JSON text, kept with it."""

import json
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgspec

from rules.evidence import EventInput
from rules.fields import FIELD_BY_NAME, FRACTION_NAMES
from rules.metadata import METADATA_VERSION, Kept

_NAMES = (
    "question_id", "content_id", "rubric_tags", "completed_exercises", "total_exercises", "helper_id", "helped_id",
    "answer", "attempt_number", "app", "reason", "only_if_higher", *FRACTION_NAMES,
)  # fmt: skip
_FIELDS = tuple(FIELD_BY_NAME[name] for name in _NAMES)
_NOTHING = (None,) * len(_NAMES)
_values: Callable[[EventInput], tuple[Any, ...]] = attrgetter(*_NAMES)
_to_json = msgspec.json.Encoder(order="sorted").encode
_to_ascii = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode  # five times slower


def payload_of(given: EventInput, max_score: float | None, difficulty: str | None, extra: Kept | None) -> str:
    """The fields that are no columns, as JSON text; zero has one sign."""
    rest: dict[str, Any] = {}
    if given.score is not None:
        rest["score"] = given.score or 0
    if max_score is not None:
        rest["maxScore"] = max_score
    values = _values(given)
    if values != _NOTHING:
        rest.update((field, value) for field, value in zip(_FIELDS, values, strict=True) if value is not None)
    if difficulty is not None:
        rest["difficulty"] = difficulty
    if extra is not None and extra.values:
        rest["metadata"] = extra.values
        rest["metadataVersion"] = METADATA_VERSION
    if not rest:
        return "{}"
    text = _to_json(rest).decode()
    return text if text.isascii() else _to_ascii(rest)
