"""Who and what a tenant has: the words of the roster, and what an entry must be before it is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from unicodedata import category

from rules.calendar import is_zone
from rules.fields import is_id
from rules.policy import MILLION, Policy

NAME_LENGTH_MAX = 200
CATALOG_ITEMS_MAX = 2_000  # subjects, and concepts, in one saveCatalog
CATALOG_CONCEPTS_MAX = 50_000  # in a tenant: the search for cycles reads the whole graph
PREREQUISITES_MAX = 50  # of one concept
ASSIGNMENT_CONCEPTS_MAX = 50  # what one event may name
CLASSROOM_STUDENTS_MAX = 5_000  # one transaction assigns a piece of work to all of them
CLASSROOM_ASSIGNMENTS_MAX = 1_000  # one transaction assigns all of them to a student who joins
INTERVALS_MAX = 100  # times one person may join the same class
DAY_MIN, DAY_MAX = (
    date(1970, 1, 1),
    date(2199, 12, 31),
)  # far from the ends of the calendar
MOMENT_MIN, MOMENT_MAX = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
INACTIVITY_DAYS = (7, 14, 30, 90)
RECENT_PERCENT_MIN, RECENT_PERCENT_MAX = 1, 99
MIN_EVIDENCE_MIN, MIN_EVIDENCE_MAX = 1, 100
THRESHOLD_MIN, THRESHOLD_MAX = MILLION // 1_000, MILLION  # a threshold of 0 would master everyone unseen

# Control characters and line ends break every list that shows a name; half characters (Cs) cannot be stored.
_UNSHOWABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


class EnrollmentRole(StrEnum):
    """What a person is in a class."""

    STUDENT = "STUDENT"
    TEACHER = "TEACHER"


class AssignmentKind(StrEnum):
    """What kind of work is assigned."""

    ASSIGNMENT = "ASSIGNMENT"
    QUIZ = "QUIZ"
    EXERCISE = "EXERCISE"


class Difficulty(StrEnum):
    """How hard a piece of work is; its weight in the mastery index."""

    BEGINNER = "beginner"
    INTERMEDIATE = "intermediate"
    ADVANCED = "advanced"


@dataclass(frozen=True, slots=True)
class School:
    """A school; without a zone it lives in the tenant's."""

    key: str
    name: str
    zone: str | None = None


@dataclass(frozen=True, slots=True)
class Student:
    """A rostered student; the name lives elsewhere (000-24) and is only carried here."""

    key: str
    zone: str | None = None
    display_name: str | None = None


@dataclass(frozen=True, slots=True)
class Classroom:
    """A class; without a zone it lives in its school's, else the tenant's."""

    key: str
    name: str
    school: str | None = None
    zone: str | None = None


@dataclass(frozen=True, slots=True)
class Enrollment:
    """A person's time in a class: local dates, [started, ended); the same date twice is no day at all."""

    classroom: str
    person: str
    role: EnrollmentRole
    started: date
    ended: date | None = None

    def overlaps(self, other: "Enrollment") -> bool:
        """Whether both intervals hold at least one common day."""
        first = max(self.started, other.started)
        last = min(self.ended or date.max, other.ended or date.max)
        return first < last

    def is_over(self, today: date) -> bool:
        """Whether nothing of it is left, today included."""
        return self.ended is not None and self.ended <= max(today, self.started)


@dataclass(frozen=True, slots=True)
class Assignment:
    """A piece of work of a class; an event assigns it to a student, and its own due date holds where that has none."""

    key: str
    classroom: str
    title: str
    kind: AssignmentKind = AssignmentKind.ASSIGNMENT
    due_at: datetime | None = None
    difficulty: Difficulty | None = None
    concepts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GuardianLink:
    """A guardian's consent, as it was recorded, to follow one student."""

    guardian: str
    student: str
    consent_at: datetime
    revoked_at: datetime | None = None


class RosterCode(StrEnum):
    """Why an entry is not kept."""

    BAD_ID = "BAD_ID"
    BAD_TEXT = "BAD_TEXT"
    BAD_ZONE = "BAD_ZONE"
    CYCLE = "CYCLE"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    NOT_MOVABLE = "NOT_MOVABLE"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    OVERLAP = "OVERLAP"
    REPEATED = "REPEATED"
    REVOKED = "REVOKED"
    TOO_LONG = "TOO_LONG"
    TOO_MANY = "TOO_MANY"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an entry: the input's path as clients write it, what was expected and what came."""

    code: RosterCode
    field: tuple[str, ...]
    message: str


def check_key(value: str, *field: str) -> list[Fault]:
    """A key names something of the tenant's own."""
    if is_id(value):
        return []
    message = f"expected 1 to 128 characters, none unprintable, no blank at either end, got {len(value)} characters"
    return [Fault(RosterCode.BAD_ID, field, message)]


def check_name(value: str | None, *field: str) -> list[Fault]:
    """A name is one line that people read; None is no name, where that is allowed."""
    if value is None:
        return []
    if len(value) > NAME_LENGTH_MAX:
        message = f"expected at most {NAME_LENGTH_MAX} characters, got {len(value)}"
        return [Fault(RosterCode.TOO_LONG, field, message)]
    if not value.strip() or any(category(letter) in _UNSHOWABLE for letter in value):
        return [Fault(RosterCode.BAD_TEXT, field, "expected one line of text, not blank, without control characters")]
    return []


def check_zone(value: str | None, *field: str) -> list[Fault]:
    """A zone is an IANA name; None leaves it to the floor above."""
    if value is None or (len(value) <= NAME_LENGTH_MAX and is_zone(value)):
        return []
    return [Fault(RosterCode.BAD_ZONE, field, "expected the name of an IANA time zone, such as Europe/Berlin")]


def check_day(value: date | None, *field: str) -> list[Fault]:
    """A day that calendars of a school hold."""
    if value is None or DAY_MIN <= value <= DAY_MAX:
        return []
    message = f"expected a day from {DAY_MIN} to {DAY_MAX}, got {value}"
    return [Fault(RosterCode.OUT_OF_RANGE, field, message)]


def check_moment(value: datetime | None, *field: str, latest: datetime = MOMENT_MAX) -> list[Fault]:
    """A moment from 1970 to `latest`."""
    if value is None or MOMENT_MIN <= value <= latest:
        return []
    message = f"expected a time from {MOMENT_MIN.isoformat()} to {latest.isoformat()}, got {value.isoformat()}"
    return [Fault(RosterCode.OUT_OF_RANGE, field, message)]


def check_count(items: Sequence[object], least: int, most: int, *field: str) -> list[Fault]:
    """A list no shorter and no longer than this."""
    if least <= len(items) <= most:
        return []
    code = RosterCode.TOO_MANY if len(items) > most else RosterCode.OUT_OF_RANGE
    return [Fault(code, field, f"expected {least} to {most} items, got {len(items)}")]


def check_distinct(keys: Sequence[str], *field: str) -> list[Fault]:
    """A list that names nothing twice."""
    seen: set[str] = set()
    for place, key in enumerate(keys):
        if key in seen:
            message = f"expected each key once, got {key!r} again"
            return [Fault(RosterCode.REPEATED, (*field, str(place)), message)]
        seen.add(key)
    return []


def check_policy(policy: Policy) -> list[Fault]:
    """The bounds of every number that a class may choose (X-07)."""
    millionths = (THRESHOLD_MIN, THRESHOLD_MAX, MILLION)
    bounds = (
        ("recentPercent", policy.recent_percent, (RECENT_PERCENT_MIN, RECENT_PERCENT_MAX, 1)),
        ("successThreshold", policy.success_threshold, millionths),
        ("masteryThreshold", policy.mastery_threshold, millionths),
        ("minEvidence", policy.min_evidence, (MIN_EVIDENCE_MIN, MIN_EVIDENCE_MAX, 1)),
    )
    faults = [
        Fault(RosterCode.OUT_OF_RANGE, (name,), f"expected {least / unit:g} to {most / unit:g}, got {value / unit:g}")
        for name, value, (least, most, unit) in bounds
        if not least <= value <= most
    ]
    if policy.inactivity_days not in INACTIVITY_DAYS:
        message = f"expected 7, 14, 30 or 90, got {policy.inactivity_days}"
        faults.append(Fault(RosterCode.OUT_OF_RANGE, ("inactivityDays",), message))
    return faults


def cycle_among(prerequisites: Mapping[str, Sequence[str]]) -> list[str] | None:
    """A way from a concept over its prerequisites back to itself, the first named again at the end; None if none."""
    sorter = TopologicalSorter({concept: sorted(before) for concept, before in sorted(prerequisites.items())})
    try:
        sorter.prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle
    return None
