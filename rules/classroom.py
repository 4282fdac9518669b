"""One student's work in one class, and what a whole class adds up to."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache

from rules.evidence import EvidenceKey, Kind, LearningEvent
from rules.rounding import half_even
from rules.value import Value

RECENT_MAX = 4  # three falls in a row take four scores
FRESH_MAX = 16_384  # items of the classes a worker folds


class Work(Value, frozen=True):
    """One item (assignment or quiz) as one student did it in one class.

    `counted` is the counted score in millionths (attempt policy LATEST: the attempt last in total order);
    `counted_place` is where that attempt stands: the key of its first grade.
    """

    item: str
    is_assigned: bool = False
    is_excused: bool = False
    due_at: datetime | None = None  # from the last ASSIGNMENT_ASSIGNED; wins over the assignment's own
    assigned_by: tuple[str, str] | None = None  # (source, event_id) of that event
    submitted_at: datetime | None = None  # the first submission, quiz attempt or grade
    counted: int | None = None
    counted_place: EvidenceKey | None = None

    @property
    def is_graded(self) -> bool:
        """Whether a score counts for this item."""
        return self.counted is not None


class OpenItem(Value, frozen=True):
    """Assigned, not excused, not graded: what may be missing, now or once it is due."""

    item: str
    due_at: datetime | None
    is_submitted: bool
    assigned_by: tuple[str, str]


class CountedScore(Value, frozen=True):
    """A counted score at its attempt's place, with the event it came from."""

    item: str
    ratio: int
    place: EvidenceKey


class View(Value, frozen=True):
    """What one student's work adds up to in one class ("" = over all classes, where only `last` is used)."""

    last: EvidenceKey | None = None  # the last key folded: later events may continue from here
    assigned: int = 0  # assigned and not excused
    graded: int = 0  # of those, with a counted score
    submitted: int = 0  # of those, submitted or graded
    score_sum: int = 0  # sum of all counted scores of non-excused items, in millionths
    score_count: int = 0
    last_active_at: datetime | None = None
    open_items: tuple[OpenItem, ...] = ()  # sorted by item
    recent: tuple[CountedScore, ...] = ()  # the last 4 counted scores by place, one per item


EMPTY_VIEW = View()


class Member(Value, frozen=True):
    """One active enrolment, as the class assessment sees it."""

    student: str
    enrolled_on_ms: int  # start of the enrolment's first local day, epoch milliseconds UTC
    zone: str  # IANA zone: the student's, else the classroom's, the school's, the tenant's
    view: View


@dataclass(frozen=True, slots=True)
class Rollup:
    """Definition C over active enrolments; rates in thousandths, None where nothing can be said."""

    completion_rate: int | None = None
    average_score: int | None = None
    submission_rate: int | None = None
    active_students: int = 0


@dataclass(frozen=True, slots=True)
class ClassFacts:
    """Everything an assessment reads beside the clock."""

    members: tuple[Member, ...]
    zone: str
    due_by_item: dict[str, datetime | None] = field(default_factory=dict)  # the assignments' own due dates


class WorkStatus(StrEnum):
    """Where one item stands for one student (Definition D): the first that holds."""

    EXCUSED = "EXCUSED"
    GRADED = "GRADED"
    SUBMITTED = "SUBMITTED"
    OVERDUE = "OVERDUE"
    ASSIGNED = "ASSIGNED"


def is_past_due(due_at: datetime | None, now: datetime) -> bool:
    """Whether the due instant is over; at that very instant work is still on time."""
    return due_at is not None and due_at < now


def status_of_work(work: Work, *, due_at: datetime | None, now: datetime) -> WorkStatus | None:
    """Where the item stands; `due_at` is the assignment's own, which the event's wins over. None: never assigned."""
    if work.is_excused:
        return WorkStatus.EXCUSED
    if work.is_graded:
        return WorkStatus.GRADED
    if work.submitted_at is not None:
        return WorkStatus.SUBMITTED
    if not work.is_assigned:
        return None
    return WorkStatus.OVERDUE if is_past_due(work.due_at or due_at, now) else WorkStatus.ASSIGNED


def is_late(work: Work, *, due_at: datetime | None) -> bool:
    """Whether the first submission came after the item was due."""
    due = work.due_at or due_at
    return work.submitted_at is not None and due is not None and work.submitted_at > due


SCORING_KINDS = frozenset({Kind.SUBMISSION_GRADED, Kind.QUIZ_ATTEMPT})
WORK_KINDS = SCORING_KINDS | {Kind.ASSIGNMENT_ASSIGNED, Kind.SUBMISSION_CREATED, Kind.ASSIGNMENT_EXCUSED}


@lru_cache(maxsize=FRESH_MAX)
def fresh_work(item: str) -> Work:
    """An item nothing is known of; shared, because a fold asks for it all the time."""
    return Work(item)


def work_after(work: Work, event: LearningEvent) -> Work:
    """Let one event of WORK_KINDS move an item; the event sorts after all the item has seen.

    The newest assignment that states a due date gives it, the newest attempt the counted score, the first submission
    its time. One that states none (the service's own) leaves an earlier one standing: an event's date wins.
    """
    if event.kind is Kind.ASSIGNMENT_EXCUSED:
        return replace(work, is_excused=True)
    if event.kind is Kind.ASSIGNMENT_ASSIGNED:
        return Work(
            work.item,
            True,
            work.is_excused,
            event.due_at or work.due_at,
            (event.source, event.event_id),
            work.submitted_at,
            work.counted,
            work.counted_place,
        )
    counted, place = work.counted, work.counted_place
    if event.ratio is not None and event.kind is not Kind.SUBMISSION_CREATED:
        counted, place = event.ratio, event.key
    submitted_at = event.occurred_at if work.submitted_at is None else work.submitted_at
    return Work(
        work.item,
        work.is_assigned,
        work.is_excused,
        work.due_at,
        work.assigned_by,
        submitted_at,
        counted,
        place,
    )


def open_item_of(work: Work) -> OpenItem | None:
    """The item as work still open: assigned, not excused, without a counted score."""
    if not work.is_assigned or work.is_excused or work.counted is not None or work.assigned_by is None:
        return None
    return OpenItem(work.item, work.due_at, work.submitted_at is not None, work.assigned_by)


def _numbers_of(work: Work | None) -> tuple[int, int, int, int, int]:
    """What one item adds to a view: assigned, graded, submitted, score_sum, score_count."""
    if work is None or work.is_excused:
        return (0, 0, 0, 0, 0)
    is_graded = work.counted is not None
    scored = (work.counted or 0, int(is_graded))
    if not work.is_assigned:  # graded but never assigned counts for averages only (C14)
        return (0, 0, 0, *scored)
    return (1, int(is_graded), int(is_graded or work.submitted_at is not None), *scored)


def view_after(
    view: View,
    *,
    earlier: Mapping[str, Work | None],
    changed: Mapping[str, Work],
    last: EvidenceKey,
    last_active_at: datetime | None,
) -> View:
    """Move a view's numbers by what the changed items say now, less what they said before."""
    assigned, graded, submitted = view.assigned, view.graded, view.submitted
    score_sum, score_count = view.score_sum, view.score_count
    for item, work in changed.items():
        before, after = _numbers_of(earlier.get(item)), _numbers_of(work)
        assigned += after[0] - before[0]
        graded += after[1] - before[1]
        submitted += after[2] - before[2]
        score_sum += after[3] - before[3]
        score_count += after[4] - before[4]
    return View(
        last,
        assigned,
        graded,
        submitted,
        score_sum,
        score_count,
        last_active_at,
        _open_after(view.open_items, changed) if changed else view.open_items,
        _recent_after(view.recent, changed) if changed else view.recent,
    )


def _open_after(open_items: tuple[OpenItem, ...], changed: Mapping[str, Work]) -> tuple[OpenItem, ...]:
    kept = [entry for entry in open_items if entry.item not in changed]
    now_open = [entry for work in changed.values() if (entry := open_item_of(work)) is not None]
    if not now_open:
        return tuple(kept)
    return tuple(sorted(kept + now_open, key=lambda entry: entry.item))


def _recent_after(recent: tuple[CountedScore, ...], changed: Mapping[str, Work]) -> tuple[CountedScore, ...]:
    """The last counted scores by place, one an item: a new attempt moves its item to the end."""
    scored = [
        CountedScore(work.item, work.counted, work.counted_place)
        for work in changed.values()
        if work.counted is not None and work.counted_place is not None and not work.is_excused
    ]
    if not scored:
        return recent
    kept = [entry for entry in recent if entry.item not in changed]
    return tuple(sorted(kept + scored, key=lambda entry: entry.place)[-RECENT_MAX:])


def completion_of(view: View) -> int | None:
    """The student's completion rate in thousandths, as every comparison uses it; None if nothing is assigned."""
    return half_even(view.graded * 1000, view.assigned) if view.assigned else None


def rollup_of(members: Sequence[Member]) -> Rollup:
    """Definition C over the given (active) enrolments, each mean exact and rounded once."""
    completed: defaultdict[int, int] = defaultdict(int)
    submitted: defaultdict[int, int] = defaultdict(int)
    scored: defaultdict[int, int] = defaultdict(int)
    rated_count = scored_count = 0
    # Fractions with one denominator add as integers; a class has few denominators, so the sum stays exact and fast.
    for member in members:
        view = member.view
        if view.assigned:
            rated_count += 1
            completed[view.assigned] += view.graded
            submitted[view.assigned] += view.submitted
        if view.score_count:
            scored_count += 1
            scored[view.score_count] += view.score_sum
    return Rollup(
        completion_rate=_mean_of(completed, rated_count, scale=1000),
        average_score=_mean_of(scored, scored_count, scale=Fraction(1, 1000)),
        submission_rate=_mean_of(submitted, rated_count, scale=1000),
        active_students=len(members),
    )


def _mean_of(numerators: Mapping[int, int], count: int, *, scale: int | Fraction) -> int | None:
    """The mean of `count` fractions, given as numerator sums by denominator, rounded half-even after scaling."""
    if count == 0:
        return None
    total = sum((Fraction(numerator, denominator) for denominator, numerator in numerators.items()), Fraction(0))
    mean = total * scale / count
    return half_even(mean.numerator, mean.denominator)
