"""Where a student is heading: a straight line through the daily snapshots of the mastery index (Definition E)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from fractions import Fraction

from rules.policy import MILLION
from rules.rounding import half_even

TREND_DAYS = 30
HISTORY_DAYS = 90
SNAPSHOTS_MIN = 3
STEEP = 10_000  # millionths a day: 0.01


class Direction(StrEnum):
    """What the slope means."""

    IMPROVING = "IMPROVING"
    STABLE = "STABLE"
    DECLINING = "DECLINING"


@dataclass(frozen=True, slots=True)
class Trend:
    """The line through the snapshots of the last 30 days; numbers in millionths."""

    slope: int  # change of the index per day
    direction: Direction
    r_squared: int | None  # the share of the movement that the line explains; None where nothing moved


def trend_of(scores: Mapping[date, int], *, today: date) -> Trend | None:
    """The trend at `today`, from scores in thousandths by day; None with fewer than 3 snapshots in the 30 days before.

    Ordinary least squares over calendar days, exact until it is rounded to 6 decimals.
    """
    first = today - timedelta(days=TREND_DAYS)
    points = [(day.toordinal(), Fraction(score, 1000)) for day, score in scores.items() if first <= day < today]
    if len(points) < SNAPSHOTS_MIN:
        return None
    x_mean = Fraction(sum(x for x, _ in points), len(points))
    y_mean = sum((y for _, y in points), Fraction(0)) / len(points)
    x_spread = sum(((x - x_mean) ** 2 for x, _ in points), Fraction(0))
    y_spread = sum(((y - y_mean) ** 2 for _, y in points), Fraction(0))
    together = sum(((x - x_mean) * (y - y_mean) for x, y in points), Fraction(0))
    slope = _millionths(together / x_spread)
    return Trend(slope, _direction(slope), _millionths(together**2 / (x_spread * y_spread)) if y_spread else None)


def _direction(slope: int) -> Direction:
    if slope > STEEP:
        return Direction.IMPROVING
    return Direction.DECLINING if slope < -STEEP else Direction.STABLE


def historical_average(scores: Mapping[date, int], *, today: date) -> int | None:
    """The mean of the snapshots of the 90 days before today, in thousandths; None without any."""
    first = today - timedelta(days=HISTORY_DAYS)
    found = [score for day, score in scores.items() if first <= day < today]
    return half_even(sum(found), len(found)) if found else None


def _millionths(value: Fraction) -> int:
    return half_even(value.numerator * MILLION, value.denominator)
