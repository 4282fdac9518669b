"""What corrections leave of a history: excuses, reopenings and regrades applied to the events they speak of (X-02 to
X-05). Voids are not seen here: what is voided is not read from the log at all."""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rules.classroom import SCORING_KINDS
from rules.evidence import CORRECTION_KINDS, SCORED_KINDS, EvidenceKey, Kind, LearningEvent

ALL_CLASSES = ""

WORKED_KINDS = SCORED_KINDS | {Kind.SUBMISSION_CREATED, Kind.EXERCISE_COMPLETED, Kind.QUALITY_ASSESSED}
"""What a student does on a piece of work, and how it is judged: an excuse or a reopening sets it aside."""

ITEM_KINDS = WORKED_KINDS | {Kind.ASSIGNMENT_ASSIGNED}
"""What makes a student have a piece of work at all; an excuse or a reopening before any of it waits."""

Item = tuple[str, str]
"""(classroom, item): one student's piece of work."""
Name = tuple[str, str]
"""(source, event id) or (source, submission id)."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What of a view's history counts, in total order, and the regrades that may move its values.

    Work that is set aside keeps its place as plain activity, without item, concepts or score: the student did do
    something that day. A reopening stands as what it is for the student, work assigned again; of an item's excuses
    the last one stands while it is in force.
    """

    events: list[LearningEvent]
    regrades: list[LearningEvent] = field(default_factory=list)
    reopened: Mapping[Item, EvidenceKey] = field(default_factory=dict)
    excused: frozenset[Item] = frozenset()


def attempt_of(event: LearningEvent) -> Name | None:
    """The attempt (source, submission) that a grade belongs to; None for an event that is an attempt of its own."""
    if event.submission is None or event.ratio is None or event.kind not in SCORING_KINDS:
        return None
    return (event.source, event.submission)


def by_view(log: Iterable[LearningEvent], *, classrooms: Container[str]) -> dict[tuple[str, str], list[LearningEvent]]:
    """The events of each view (student, class; class "" over all), with the student's corrections in every one.

    An event of a class that is not among `classrooms` stands nowhere: it waits for the roster.
    """
    found: dict[tuple[str, str], list[LearningEvent]] = defaultdict(list)
    corrections: dict[str, list[LearningEvent]] = defaultdict(list)
    for event in log:
        if event.kind in CORRECTION_KINDS:
            if event.kind is not Kind.EVENT_VOIDED:
                corrections[event.student].append(event)
        elif not event.classroom:
            found[event.student, ALL_CLASSES].append(event)
        elif event.classroom in classrooms:
            found[event.student, ALL_CLASSES].append(event)
            found[event.student, event.classroom].append(event)
    if corrections:
        for (student, _), events in found.items():
            events.extend(corrections.get(student, ()))
    return found


def counted(ordered: Sequence[LearningEvent]) -> Counted:
    """Apply the excuses and reopenings of one view; `ordered` is its whole history in total order.

    An item's last reopening sets aside all work on it before, excuses too; an excuse after it sets aside all work,
    whenever done. A correction of an item that the student does not have has no effect (yet).
    """
    if not any(event.kind in CORRECTION_KINDS for event in ordered):
        return Counted(list(ordered))
    rooms: dict[str, set[str]] = defaultdict(set)
    for event in ordered:
        if event.kind in ITEM_KINDS and event.item is not None:
            rooms[event.item].add(event.classroom)
    reopened: dict[Item, EvidenceKey] = {}
    excused: dict[Item, LearningEvent] = {}
    marks: dict[EvidenceKey, LearningEvent] = {}
    for event in ordered:
        if event.kind not in (Kind.ASSIGNMENT_EXCUSED, Kind.ASSIGNMENT_REOPENED) or event.item is None:
            continue
        for room in rooms.get(event.item, ()):
            if event.classroom not in (ALL_CLASSES, room):  # one without a class means the item wherever it is
                continue
            if event.kind is Kind.ASSIGNMENT_EXCUSED:
                excused[room, event.item] = event
            else:
                excused.pop((room, event.item), None)
                reopened[room, event.item] = event.key
                marks[event.key] = replace(event, kind=Kind.ASSIGNMENT_ASSIGNED)
    marks.update({event.key: event for event in excused.values()})
    left = [_left_of(event, excused, reopened) for event in ordered if event.kind not in CORRECTION_KINDS]
    if marks:
        left = sorted([*left, *marks.values()], key=lambda event: event.key)
    return Counted(
        left, [event for event in ordered if event.kind is Kind.SUBMISSION_REGRADED], reopened, frozenset(excused)
    )


def _left_of(
    event: LearningEvent, excused: Mapping[Item, LearningEvent], reopened: Mapping[Item, EvidenceKey]
) -> LearningEvent:
    if event.kind not in WORKED_KINDS or event.item is None:
        return event
    item, since = (event.classroom, event.item), reopened.get((event.classroom, event.item))
    if item not in excused and (since is None or event.key > since):
        return event
    return replace(event, assignment=None, quiz=None, concepts=(), ratio=None, submission=None)


def attempts_of(history: Counted) -> list[LearningEvent]:
    """One event an attempt: the first grade keeps the place (and the kind), the last word on it gives the value.

    Time spent is the last one stated: a teacher who grades again states none.
    """
    attempts: list[list[LearningEvent]] = []
    places: dict[Name, int] = {}
    for event in history.events:
        attempt = attempt_of(event)
        place = len(attempts) if attempt is None else places.setdefault(attempt, len(attempts))
        if place == len(attempts):
            attempts.append([event])
        else:
            attempts[place].append(event)
    whole = [_graded(grades) for grades in attempts]
    return _regraded(whole, attempts, history) if history.regrades else whole


def _graded(grades: Sequence[LearningEvent]) -> LearningEvent:
    """The attempt after its last grade."""
    if len(grades) == 1:
        return grades[0]
    last = grades[-1]
    spent = [event.time_spent_ms for event in grades if event.time_spent_ms is not None]
    return replace(
        grades[0],
        ratio=last.ratio,
        concepts=last.concepts,
        assignment=last.assignment,
        quiz=last.quiz,
        time_spent_ms=spent[-1] if spent else None,
    )


def _regraded(
    whole: Sequence[LearningEvent], attempts: Sequence[Sequence[LearningEvent]], history: Counted
) -> list[LearningEvent]:
    """The attempts with the values that grades and regrades, each at its place in total order, leave them."""
    of_event: dict[Name, list[LearningEvent]] = defaultdict(list)
    of_submission: dict[Name, list[LearningEvent]] = defaultdict(list)
    for regrade in history.regrades:
        source = regrade.target_source or ""
        if regrade.target_event_id is not None:
            of_event[source, regrade.target_event_id].append(regrade)
        elif regrade.submission is not None:
            of_submission[source, regrade.submission].append(regrade)
    valued: list[LearningEvent] = []
    for attempt, grades in zip(whole, attempts, strict=True):
        if attempt.ratio is None or attempt.kind not in SCORED_KINDS:
            valued.append(attempt)
            continue
        named = attempt_of(grades[0])
        spoken = [(grades[0], regrade) for regrade in of_submission.get(named, ())] if named else []
        for grade in grades:
            spoken += [(grade, regrade) for regrade in of_event.get((grade.source, grade.event_id), ())]
        standing = [
            (grade, regrade)
            for grade, regrade in spoken
            if (since := history.reopened.get((grade.classroom, grade.item or ""))) is None or regrade.key > since
        ]
        valued.append(replace(attempt, ratio=_value_of(grades, standing)) if standing else attempt)
    return valued


def _value_of(grades: Sequence[LearningEvent], regrades: Sequence[tuple[LearningEvent, LearningEvent]]) -> int | None:
    """The value in force after all grades and regrades, each (what it regrades, regrade).

    A regrade speaks no earlier than what it regrades, though clocks may say so.
    """
    steps = [(grade.key, False, grade.key, grade) for grade in grades]
    steps += [(max(regrade.key, grade.key), True, regrade.key, regrade) for grade, regrade in regrades]
    value: int | None = None
    for _, _, _, step in sorted(steps, key=lambda step: step[:3]):
        if not step.only_if_higher or value is None or (step.ratio is not None and step.ratio > value):
            value = step.ratio
    return value
