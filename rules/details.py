"""What an event says beside its columns, as far as the mastery index reads it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from rules.policy import MILLION
from rules.roster import Difficulty

QUALITIES = ("codeQuality", "correctness", "efficiency", "peerReview")


@dataclass(frozen=True, slots=True)
class Detail:
    """The difficulty, exercises and ratios of one event; ratios in millionths."""

    difficulty: Difficulty | None = None
    exercises: int = 0
    exercises_done: int = 0
    quality: Fraction | None = None  # the mean of the sub-scores present
    rubric: Fraction | None = None  # the mean of the rubric's ratios


def detail_of(said: Mapping[str, Any]) -> Detail:
    """Read an event's payload. A rubric's ratios are the numbers from 0 to 1 under its criteria; tags carry none."""
    metadata = said.get("metadata")
    rubric = metadata.get("rubric") if isinstance(metadata, dict) else None
    difficulty = said.get("difficulty")
    return Detail(
        difficulty=Difficulty(difficulty) if difficulty in set(Difficulty) else None,
        exercises=said.get("totalExercises") or 0,
        exercises_done=said.get("completedExercises") or 0,
        quality=_mean(said.get(name) for name in QUALITIES),
        rubric=_mean(rubric.values()) if isinstance(rubric, dict) else None,
    )


def _mean(values: Iterable[Any]) -> Fraction | None:
    ratios = [_millionths(value) for value in values if _is_ratio(value)]
    return Fraction(sum(ratios), len(ratios)) if ratios else None


def _is_ratio(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _millionths(value: float) -> int:
    """The number as it was written, not as the machine holds it."""
    return round(Fraction(Decimal(repr(value))) * MILLION)
