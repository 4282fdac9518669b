"""The process's clock: the one place outside tests where the time of day is read."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta


def clock_with(offset: timedelta) -> Callable[[], datetime]:
    """A clock that reads UTC, moved by `offset` (SIGHTLINE_NOW_OFFSET, never in production)."""
    return (lambda: datetime.now(UTC) + offset) if offset else (lambda: datetime.now(UTC))
