"""Local days: which date an instant falls on in a school's zone, and when that date begins."""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES_MAX = 1_024  # IANA names about 600
DAY_STARTS_MAX = 8_192  # a dozen days in every zone of a busy worker


@lru_cache(maxsize=ZONES_MAX)
def zone_of(name: str) -> ZoneInfo:
    """The IANA zone of this name. Raises ZoneInfoNotFoundError, or ValueError for a malformed name."""
    return ZoneInfo(name)


def is_zone(name: str) -> bool:
    """Whether this names an IANA zone: what a roster must ask before it stores one."""
    try:
        zone_of(name)
    except (KeyError, ValueError, OSError):  # unknown, malformed, a folder of zones
        return False
    return True


def local_date(instant: datetime, zone: str) -> date:
    """The calendar date on the school's wall at this instant."""
    return instant.astimezone(zone_of(zone)).date()


@lru_cache(maxsize=DAY_STARTS_MAX)
def day_start(day: date, zone: str) -> datetime:
    """The first instant (UTC) of a local date.

    Where clocks skip midnight, that is the instant of the jump; where midnight comes twice, the first one: both are
    what `fold=0` means.
    """
    return datetime.combine(day, time.min, tzinfo=zone_of(zone)).astimezone(UTC)


def from_epoch_ms(milliseconds: int) -> datetime:
    """The instant (UTC) of a count of milliseconds since 1970."""
    return EPOCH + timedelta(milliseconds=milliseconds)
