"""Who is slipping, and why: the flags of Definition F, found by comparing what was with what is."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

from rules.calendar import day_start, from_epoch_ms, local_date
from rules.classroom import CountedScore, Member, OpenItem, View
from rules.rounding import half_even
from rules.value import Value

INSTANTS_MAX = 4_096  # due dates: a class shares them
EVIDENCE_MAX = 20  # entries of a list in a flag's evidence; the total stands beside it
MEDIAN_STUDENTS_MIN = 2  # below, there is no median to compare with
MEDIAN_NOTIFY_MIN = 5  # students with a rate; below, the flag would point at a neighbour
REARM_GAP = 20  # thousandths above the median that make a fall below it news again
SILENCE = timedelta(hours=24)  # a flag that comes back sooner, no worse, is no news
COALESCING = timedelta(seconds=2)  # changes of one flag closer than this are one piece of news
TICK = timedelta(microseconds=1)  # the clock's step
END_OF_TIME = datetime.max.replace(tzinfo=UTC)
IDLE_FACTORS = (1, 2, 4)  # limits of inactivity: LOW, MEDIUM, HIGH


class Reason(StrEnum):
    """Why a student is at risk."""

    MISSING_SUBMISSIONS = "MISSING_SUBMISSIONS"
    SCORE_TREND_DOWN = "SCORE_TREND_DOWN"
    COMPLETION_BELOW_MEDIAN = "COMPLETION_BELOW_MEDIAN"
    INACTIVE = "INACTIVE"


class Severity(IntEnum):
    """How much it matters."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3


class Change(StrEnum):
    """What happened to a flag."""

    RAISED = "RAISED"
    SEVERITY_CHANGED = "SEVERITY_CHANGED"
    CLEARED = "CLEARED"


class RiskFlag(Value, frozen=True):
    """(student, reason) in one class, raised; `evidence` is JSON-ready: event ids and numbers."""

    student: str
    reason: Reason
    severity: Severity
    evidence: dict[str, Any]
    clears_when: str  # one sentence a teacher understands, with the numbers
    may_notify: bool  # False where Definition F keeps the flag silent (awaitingGrade alone, under 5 students)
    rate_rearmed: bool = True  # COMPLETION_BELOW_MEDIAN: see FlagMemory.is_armed


class FlagMemory(Value, frozen=True):
    """What is remembered of a (student, reason): the raised flag if any, and what keeps its return silent."""

    severity: Severity | None  # None: not raised now
    raised_at: datetime | None
    cleared_at: datetime | None
    cleared_severity: Severity | None
    notified_at: datetime | None
    notified_severity: Severity | None
    is_armed: bool  # COMPLETION_BELOW_MEDIAN notifies again only after the rate reached median + 0.02


class Transition(Value, frozen=True):
    """One stored change of one flag; `overall` is the student's overall severity after it."""

    student: str
    reason: Reason
    change: Change
    severity: Severity | None  # None once cleared
    earlier: Severity | None
    overall: Severity | None
    notify: bool
    evidence: dict[str, Any]
    clears_when: str


def overall_of(flags: Sequence[RiskFlag]) -> Severity:
    """One student's flags as one severity: the highest, one step more with two reasons or more, at most HIGH."""
    highest = max(flag.severity for flag in flags)
    return _one_step_up(highest) if len(flags) >= 2 else highest


def _one_step_up(severity: Severity) -> Severity:
    return Severity(min(severity + 1, Severity.HIGH))


def _severity_by(value: int, medium_from: int, high_from: int) -> Severity:
    if value < medium_from:
        return Severity.LOW
    return Severity.MEDIUM if value < high_from else Severity.HIGH


def _count_of(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _percent(millionths: int) -> str:
    """As a teacher reads it: one decimal, and none where it is whole."""
    return f"{millionths / 10_000:.1f}".removesuffix(".0") + "%"


def _event(source: str, event_id: str) -> dict[str, str]:
    return {"source": source, "eventId": event_id}


@lru_cache(maxsize=INSTANTS_MAX)
def _iso(instant: datetime) -> str:
    return instant.isoformat()


def _open_entries(items: Sequence[tuple[OpenItem, datetime | None]]) -> list[dict[str, Any]]:
    return [
        {
            "item": entry.item,
            "dueAt": None if due_at is None else _iso(due_at),
            "assignedBy": {"source": entry.assigned_by[0], "eventId": entry.assigned_by[1]},
        }
        for entry, due_at in items[:EVIDENCE_MAX]
    ]


class DueWatch:
    """MISSING_SUBMISSIONS over one class at one moment.

    An item's due date is the assigning event's, else the assignment's own; without one it is missing at once. It is
    past due strictly after that instant.
    """

    def __init__(self, now: datetime, due_by_item: Mapping[str, datetime | None]) -> None:
        self._now = now
        self._due_by_item = due_by_item
        self._next_due = END_OF_TIME

    def flag_of(self, member: Member) -> RiskFlag | None:
        """The member's flag; notes what falls due later."""
        missing: list[tuple[OpenItem, datetime | None]] = []
        awaiting: list[tuple[OpenItem, datetime | None]] = []
        for entry in member.view.open_items:
            due_at = entry.due_at
            if due_at is None:
                due_at = self._due_by_item.get(entry.item)
            if due_at is not None and due_at >= self._now:
                if due_at < self._next_due:
                    self._next_due = due_at
            else:
                (awaiting if entry.is_submitted else missing).append((entry, due_at))
        return _missing_flag_of(member.student, missing, awaiting) if missing or awaiting else None

    def next_at(self) -> datetime | None:
        """The earliest instant at which work of a member seen so far is past due."""
        return None if self._next_due == END_OF_TIME else self._next_due + TICK


def _missing_flag_of(
    student: str,
    missing: Sequence[tuple[OpenItem, datetime | None]],
    awaiting: Sequence[tuple[OpenItem, datetime | None]],
) -> RiskFlag:
    evidence = {
        "missing": _open_entries(missing),
        "missingCount": len(missing),
        "awaitingGrade": _open_entries(awaiting),
        "awaitingGradeCount": len(awaiting),
    }
    severity = _severity_by(len(missing), 2, 3)
    total = len(missing) + len(awaiting)
    states = [(len(missing), "never handed in"), (len(awaiting), "waiting for a grade")]
    told = ", ".join(f"{number} {state}" for number, state in states if number)
    verb = "is" if total == 1 else "are"
    clears_when = f"Clears once {_count_of(total, 'piece')} of due work {verb} graded or excused: {told}."
    return RiskFlag(student, Reason.MISSING_SUBMISSIONS, severity, evidence, clears_when, may_notify=bool(missing))


def trend_flag(student: str, recent: Sequence[CountedScore]) -> RiskFlag | None:
    """SCORE_TREND_DOWN: the last counted score is below the one before; `recent` is in order of place."""
    if len(recent) < 2 or recent[-1].ratio >= recent[-2].ratio:
        return None
    falls = 1
    while falls < len(recent) - 1 and recent[-falls - 1].ratio < recent[-falls - 2].ratio:
        falls += 1
    before, last = recent[-2].ratio, recent[-1].ratio
    drop = half_even(before - last, 1000)
    severity = _severity_by(drop, 50, 150)
    if falls >= 3:
        severity = _one_step_up(severity)
    scores = [
        {"item": score.item, "score": score.ratio / 1_000_000, "event": _event(score.place[2], score.place[3])}
        for score in recent[-falls - 1 :]
    ]
    clears_when = (
        f"Clears with a next score of {_percent(last)} or more; "
        f"the last one fell from {_percent(before)} to {_percent(last)}."
    )
    evidence = {"scores": scores, "drop": drop / 1000, "falls": falls}
    return RiskFlag(student, Reason.SCORE_TREND_DOWN, severity, evidence, clears_when, may_notify=True)


def median_of(rates: Sequence[int]) -> int | None:
    """percentile_cont(0.5) of rates in thousandths, rounded half-even; None below two students with a rate."""
    if len(rates) < MEDIAN_STUDENTS_MIN:
        return None
    ordered = sorted(rates)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return half_even(ordered[middle - 1] + ordered[middle], 2)


def below_median_flag(student: str, view: View, *, rate: int, median: int, rated_count: int) -> RiskFlag:
    """COMPLETION_BELOW_MEDIAN of a student whose rate is below the median; both in thousandths."""
    gap = median - rate
    evidence = {
        "rate": rate / 1000,
        "median": median / 1000,
        "gap": gap / 1000,
        "studentCount": rated_count,
        "graded": view.graded,
        "assigned": view.assigned,
        "open": _open_entries([(entry, entry.due_at) for entry in view.open_items[:EVIDENCE_MAX]]),
        "openCount": len(view.open_items),
    }
    clears_when = (
        f"Clears once {_percent(median * 1000)} of the assigned work is graded, as in the middle of the class; "
        f"now it is {_percent(rate * 1000)} ({view.graded} of {view.assigned})."
    )
    return RiskFlag(
        student,
        Reason.COMPLETION_BELOW_MEDIAN,
        _severity_by(gap, 100, 250),
        evidence,
        clears_when,
        may_notify=rated_count >= MEDIAN_NOTIFY_MIN,
        rate_rearmed=False,
    )


class IdleWatch:
    """INACTIVE over one class at one moment.

    A student's idle days are local dates. Rather than a date for each student it keeps, for each zone, the instants
    before which the last activity must lie, and compares instants.
    """

    def __init__(self, now: datetime, limit_days: int) -> None:
        self._now = now
        self._limit_days = limit_days
        self._limits: dict[str, tuple[datetime, datetime, datetime]] = {}
        self._oldest: dict[
            tuple[str, int], datetime
        ] = {}  # by (zone, limits reached): who crosses the next limit first

    def _limits_of(self, zone: str) -> tuple[datetime, datetime, datetime]:
        """Idle for n days means: last active before local day today - n + 1 began."""
        limits = self._limits.get(zone)
        if limits is None:
            tomorrow = local_date(self._now, zone) + timedelta(days=1)
            low, medium, high = (day_start(tomorrow - timedelta(self._limit_days * n), zone) for n in IDLE_FACTORS)
            limits = self._limits[zone] = (low, medium, high)
        return limits

    def flag_of(self, member: Member) -> RiskFlag | None:
        """The member's flag; counted from enrolment if never active in the class."""
        active_at = member.view.last_active_at
        since = from_epoch_ms(member.enrolled_on_ms) if active_at is None else active_at
        low, medium, high = self._limits_of(member.zone)
        reached = 0 if since >= low else 1 if since >= medium else 2 if since >= high else 3
        if reached < 3:
            place = (member.zone, reached)
            oldest = self._oldest.get(place)
            if oldest is None or since < oldest:
                self._oldest[place] = since
        if reached == 0:
            return None
        return self._flag(member, local_date(since, member.zone).isoformat(), Severity(reached))

    def _flag(self, member: Member, since: str, severity: Severity) -> RiskFlag:
        """The evidence holds no count up to today: it would change each night without any change of the flag."""
        is_ever_active = member.view.last_active_at is not None
        days = self._limit_days * IDLE_FACTORS[severity - 1]
        evidence = {
            "lastActiveOn": since if is_ever_active else None,
            "enrolledOn": None if is_ever_active else since,
            "limitDays": self._limit_days,
            "reachedDays": days,
        }
        what = "last active on" if is_ever_active else "never active since enrolment on"
        clears_when = f"Clears with new activity in this class; {what} {since}, at least {days} days ago."
        return RiskFlag(member.student, Reason.INACTIVE, severity, evidence, clears_when, may_notify=True)

    def next_at(self) -> datetime | None:
        """The earliest local midnight at which a member seen so far reaches the next limit."""
        moments = [
            day_start(local_date(since, zone) + timedelta(self._limit_days * IDLE_FACTORS[reached]), zone)
            for (zone, reached), since in self._oldest.items()
        ]
        return min(moments, default=None)


FIRST_MEMORY = FlagMemory(
    severity=None,
    raised_at=None,
    cleared_at=None,
    cleared_severity=None,
    notified_at=None,
    notified_severity=None,
    is_armed=True,
)


class Step(NamedTuple):
    """What became of one flag: its change if any, whether that is news, and what to remember."""

    change: Change | None
    notify: bool
    memory: FlagMemory


def follow(memory: FlagMemory, flag: RiskFlag | None, *, reason: Reason, is_rearmed: bool, now: datetime) -> Step:
    """Compare a remembered flag with the assessed one. Evidence alone is no change."""
    if is_rearmed and reason is Reason.COMPLETION_BELOW_MEDIAN and not memory.is_armed:
        memory = replace(memory, is_armed=True)
    severity = None if flag is None else flag.severity
    if severity == memory.severity:
        return Step(None, False, memory)
    if flag is None:
        change = Change.CLEARED
        is_news = _is_announced(memory)  # nobody is told that something ended which nobody was told of
        after = replace(memory, severity=None, raised_at=None, cleared_at=now, cleared_severity=memory.severity)
    else:
        change = Change.RAISED if memory.severity is None else Change.SEVERITY_CHANGED
        is_news = _is_news(memory, flag, now)
        after = replace(memory, severity=severity, raised_at=memory.raised_at or now)
    notify = is_news and not _is_coalesced(memory, severity, now)
    if notify:
        is_armed = memory.is_armed and not (flag is not None and reason is Reason.COMPLETION_BELOW_MEDIAN)
        after = replace(after, notified_at=now, notified_severity=severity, is_armed=is_armed)
    return Step(change, notify, after)


def _is_announced(memory: FlagMemory) -> bool:
    """Whether somebody was told of the flag while it has been up this time."""
    if memory.raised_at is None or memory.notified_at is None:
        return False
    return memory.notified_severity is not None and memory.notified_at >= memory.raised_at


def _is_news(memory: FlagMemory, flag: RiskFlag, now: datetime) -> bool:
    """Whether a raise or a change of severity may be notified (Definition F, silence)."""
    if not flag.may_notify:
        return False
    if _is_announced(memory):
        return True
    if flag.reason is Reason.COMPLETION_BELOW_MEDIAN and not memory.is_armed:
        return False
    if memory.cleared_at is None or memory.cleared_severity is None:
        return True
    began_at = memory.raised_at or now
    return began_at - memory.cleared_at >= SILENCE or flag.severity > memory.cleared_severity


def _is_coalesced(memory: FlagMemory, severity: Severity | None, now: datetime) -> bool:
    """Whether this is the same piece of news as the one just told: within 2 s of it and no worse."""
    if memory.notified_at is None or now - memory.notified_at >= COALESCING:
        return False
    return (severity or 0) <= (memory.notified_severity or 0)
