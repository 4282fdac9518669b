"""What /health answers: built from facts that the caller asked for, so that it can be tested without them."""

import shutil
from pathlib import Path
from typing import TypedDict

DISK_FREE_MIN = 0.05  # fraction; below it Postgres may soon have no room for its log
OK, FAILING = "ok", "failing"
DEGRADED = "degraded"


class Checks(TypedDict):
    """Each "ok" or "failing"."""

    database: str
    redis: str
    disk_space: str


class Health(TypedDict):
    """The payload of /health (003-70)."""

    status: str
    version: str
    checks: Checks
    uptime_seconds: int


def health_of(*, version: str, database: bool, redis: bool, disk: Path, uptime_seconds: float) -> Health:
    """The payload of /health: "ok", or "degraded" where a check failed; losing Redis costs speed only, and is told too.

    `disk` is any folder of the disk to look at, whether it exists yet or not.
    """
    free = free_fraction(disk)
    checks = Checks(
        database=_word(database), redis=_word(redis), disk_space=_word(free is None or free >= DISK_FREE_MIN)
    )
    is_well = set(checks.values()) == {OK}
    return Health(
        status=OK if is_well else DEGRADED, version=version, checks=checks, uptime_seconds=int(uptime_seconds)
    )


def free_fraction(folder: Path) -> float | None:
    """The free part of the disk that holds a folder, or its nearest parent that is there; None if it cannot be told."""
    place = next((place for place in (folder.absolute(), *folder.absolute().parents) if place.exists()), None)
    if place is None:
        return None
    try:
        usage = shutil.disk_usage(place)
    except OSError:
        return None
    return usage.free / usage.total if usage.total else None


def _word(is_well: bool) -> str:
    return OK if is_well else FAILING
