"""What an event may say beside its contract: the keys each kind knows, everything else is left out."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

from rules.kinds import CONCEPT_KINDS, QUIZ_SESSION_KINDS, Kind

METADATA_VERSION = 1
"""Stored beside the metadata, so that a later schema can tell what was checked by which."""
METADATA_BYTES_MAX = 16 * 1024
DEPTH_MAX = 5
VALUES_MAX = 1_000
INTEGER_MAX = 2**53 - 1  # the largest integer that every JSON reader keeps exactly
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Shape(Enum):
    """What a key may hold."""

    TEXT = "text"
    NUMBER = "a number"
    FLAG = "true or false"
    TREE = "any JSON value"


@dataclass(frozen=True, slots=True)
class Kept:
    """Metadata as it may be stored, and how many keys were left out."""

    values: dict[str, Any]
    dropped: int


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why metadata is refused; `path` leads to the key."""

    path: tuple[str, ...]
    message: str


_COMMON = {
    "appVersion": Shape.TEXT,
    "device": Shape.TEXT,
    "locale": Shape.TEXT,
    "platform": Shape.TEXT,
    "sessionId": Shape.TEXT,
}
_QUIZ = {
    "quizId": Shape.TEXT,
    "classroomId": Shape.TEXT,
    "questionId": Shape.TEXT,
    "answer": Shape.TREE,
    "correct": Shape.FLAG,
    "timeSpentMs": Shape.NUMBER,
    "attemptNumber": Shape.NUMBER,
    "startedAt": Shape.TEXT,
    "displayedAt": Shape.TEXT,
    "endedAt": Shape.TEXT,
    "questionCount": Shape.NUMBER,
}
_WORK = {"attemptNumber": Shape.NUMBER, "format": Shape.TEXT, "wordCount": Shape.NUMBER, "rubric": Shape.TREE}
_CONCEPT = {"attemptNumber": Shape.NUMBER, "contentId": Shape.TEXT}
_BY_KIND: dict[Kind, dict[str, Shape]] = {
    Kind.ASSIGNMENT_ASSIGNED: _WORK,
    Kind.SUBMISSION_CREATED: _WORK,
    Kind.SUBMISSION_GRADED: _WORK,
    **dict.fromkeys(CONCEPT_KINDS, _CONCEPT),
    **dict.fromkeys(QUIZ_SESSION_KINDS | {Kind.QUIZ_ATTEMPT, Kind.ANSWER_SUBMITTED}, _QUIZ),
    Kind.CONTENT_VIEWED: {
        "contentKind": Shape.TEXT,
        "completed": Shape.FLAG,
        "durationMs": Shape.NUMBER,
        "positionMs": Shape.NUMBER,
    },
    Kind.EXERCISE_COMPLETED: {"exerciseId": Shape.TEXT, "language": Shape.TEXT, "attemptNumber": Shape.NUMBER},
    Kind.QUALITY_ASSESSED: {"rubric": Shape.TREE, "tool": Shape.TEXT, "toolVersion": Shape.TEXT},
    Kind.PEER_HELP: {"channel": Shape.TEXT, "durationMs": Shape.NUMBER},
    Kind.HELP_REQUESTED: {"topic": Shape.TEXT, "questionId": Shape.TEXT, "urgency": Shape.TEXT},
    Kind.APP_ERROR: {"code": Shape.TEXT, "component": Shape.TEXT, "severity": Shape.TEXT},
    Kind.OTHER: {"verb": Shape.TEXT, "objectType": Shape.TEXT, "activityType": Shape.TEXT},
}
SCHEMAS: Mapping[Kind, Mapping[str, Shape]] = MappingProxyType(
    {kind: MappingProxyType({**_COMMON, **_BY_KIND.get(kind, {})}) for kind in Kind}
)
"""The keys of METADATA_VERSION, by kind."""


def kept(metadata: object, kind: Kind) -> Kept | Flaw:
    """The keys that the kind's schema knows; a value of another shape or an oversized object is a Flaw."""
    if not isinstance(metadata, dict):
        return Flaw((), "metadata must be a JSON object")
    message = _flaw_within(metadata)
    if message:
        return Flaw((), message)
    size = len(_compact(metadata).encode())
    if size > METADATA_BYTES_MAX:
        return Flaw((), f"metadata must be at most {METADATA_BYTES_MAX} bytes as JSON, it has {size}")
    schema = SCHEMAS[kind]
    values = {key: value for key, value in metadata.items() if key in schema}
    for key, value in values.items():
        if not _fits(value, schema[key]):
            return Flaw((key,), f"metadata.{key} must be {schema[key].value}")
    return Kept(values, dropped=len(metadata) - len(values))


def is_text(value: object) -> bool:
    """Whether Postgres and every JSON reader can hold it: a string without NUL and without half a character."""
    if not isinstance(value, str):
        return False
    return "\0" not in value and (value.isascii() or not any("\ud800" <= mark <= "\udfff" for mark in value))


def _flaw_within(metadata: dict[Any, Any]) -> str | None:
    """What is wrong anywhere inside, looking at VALUES_MAX values and DEPTH_MAX levels at most."""
    level: list[Any] = [metadata]
    seen = 0
    for _ in range(DEPTH_MAX + 1):
        below: list[Any] = []
        for value in level:
            seen += 1
            if seen > VALUES_MAX:
                return f"metadata must hold at most {VALUES_MAX} values"
            if isinstance(value, dict):
                if not all(map(is_text, value)):
                    return "metadata keys must be text without NUL or unpaired surrogates"
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            elif not _is_leaf(value):
                return "metadata must hold JSON values: text without NUL or unpaired surrogates, finite numbers"
        if not below:
            return None
        level = below
    return f"metadata must be nested at most {DEPTH_MAX} levels deep"


def _is_leaf(value: object) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return -INTEGER_MAX <= value <= INTEGER_MAX
    if isinstance(value, float):
        return math.isfinite(value)
    return is_text(value)


def _fits(value: object, shape: Shape) -> bool:
    if value is None or shape is Shape.TREE:
        return True
    if shape is Shape.FLAG:
        return isinstance(value, bool)
    if shape is Shape.NUMBER:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str)
