"""Fold one claimed batch inside its transaction: lock, read the facts, let the rules decide, write what differs."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Self, TypeAlias

from db import assessment, closing, facts, projection, unrostered
from db.assessment import ClassOutcome, Counters, FlagKey, StoredFlag, StudentLock
from db.live import Moved
from db.outbox import Claimed, Waiting
from db.pool import Connection
from db.projection import Moves, ViewKey
from rules.classroom import ClassFacts
from rules.corrections import by_view
from rules.evidence import CORRECTION_KINDS, LearningEvent
from rules.outcome import ViewState, assess_classroom, fold_view, needs_replay, replay_view, transitions
from rules.policy import Policy

ALL_CLASSES = ""
CLOCKS_APART_MAX = timedelta(seconds=10)
Step: TypeAlias = Callable[[Sequence[LearningEvent]], ViewState]


class Unfoldable(Exception):
    """One event on which the rules fail: it is at fault, not whichever row made its view be folded."""

    def __init__(self, event: LearningEvent) -> None:
        super().__init__("expected an event that the rules can fold")
        self.event = event


@dataclass(frozen=True, slots=True)
class Batch:
    """Claimed rows, or one class whose moment has come."""

    claimed: tuple[Claimed, ...]
    due_classroom: str | None = None
    traceparent: str | None = None  # of the span that folds it, where one of its rows is traced

    @classmethod
    def of_classroom(cls, classroom: str) -> Self:
        """A batch without rows: time alone passed."""
        return cls((), classroom)

    @property
    def touched_students(self) -> set[str]:
        """Students to replay in every class."""
        return {r.student for r in self.claimed if r.kind is Waiting.TOUCH_STUDENT and not r.classroom}

    @property
    def classrooms(self) -> set[str]:
        """The classes the rows name."""
        found = {row.classroom for row in self.claimed if row.classroom}
        return found | ({self.due_classroom} if self.due_classroom else set())


@dataclass(frozen=True, slots=True)
class Work:
    """What a locked batch has to do: new events by view, and the views to rebuild whatever came."""

    new: Mapping[ViewKey, list[LearningEvent]]
    replayed: frozenset[ViewKey]


@dataclass(frozen=True, slots=True)
class Roster:
    """Who and what the roster knows of this batch; classes with their zones."""

    students: set[str]
    zones: dict[str, str]

    def knows(self, student: str, classroom: str) -> bool:
        """Whether an event of these keys takes effect (C7)."""
        return student in self.students and (not classroom or classroom in self.zones)


async def fold(connection: Connection, tenant: int, batch: Batch, *, now: datetime) -> Moved:
    """Fold a batch and save all that it changes; returns what moved, to be published after the commit.

    Locks class rows, then student rows, each in key order, before it reads any fact: whoever folds the same class or
    student next sees all of this or none.
    """
    views_to_replay = await _touched_views(connection, tenant, batch)
    classrooms = batch.classrooms | {key[1] for key in views_to_replay if key[1]}
    students = {row.student for row in batch.claimed if row.student} | {key[0] for key in views_to_replay}
    counters = await assessment.lock_classrooms(connection, tenant, classrooms) if classrooms else {}
    locked = await assessment.lock_students(connection, tenant, students, now=now) if students else {}
    roster = Roster(
        await facts.rostered_students(connection, tenant, students) if students else set(),
        await facts.rostered_classrooms(connection, tenant, classrooms) if classrooms else {},
    )
    policies = await facts.policies(connection, tenant, classrooms | {ALL_CLASSES})
    work = await _work_of(connection, tenant, batch, views_to_replay, roster)
    moves = await _fold_views(connection, tenant, work, roster, policies)
    moved_keys = moves.moved_keys
    moved_students = {key[0] for key in moved_keys}
    student_changes = {student: locked[student].change_no + 1 for student in moved_students}
    class_changes = {classroom: counters[classroom].change_no + 1 for classroom in counters}
    await projection.save(connection, tenant, moves, class_changes=class_changes, student_changes=student_changes)
    await assessment.save_students(connection, tenant, student_changes)
    if reopened := _reopened(work, locked):
        await closing.reopen(connection, tenant, reopened, now=now)
    traceparent = batch.traceparent
    now = _never_before(now, counters.values())
    await _assess(connection, tenant, roster.zones, counters, policies, now=now, traceparent=traceparent)
    return Moved(
        tenant=tenant,
        classrooms=frozenset(counters),
        students=frozenset(moved_students),
        traceparent=traceparent,
    )


async def _touched_views(connection: Connection, tenant: int, batch: Batch) -> set[ViewKey]:
    """The views that a touch, or a correction's target, asks to rebuild: each with its student's overall view."""
    found = {(row.student, row.classroom) for row in batch.claimed if row.kind is Waiting.TOUCH_STUDENT and row.student}
    if batch.touched_students:
        found |= await facts.classes_of_students(connection, tenant, batch.touched_students)
    return found | {(student, ALL_CLASSES) for student, _ in found}


async def _work_of(
    connection: Connection, tenant: int, batch: Batch, views_to_replay: set[ViewKey], roster: Roster
) -> Work:
    """Sort the claimed events into views; set aside those that the roster does not know."""
    rows = [row for row in batch.claimed if row.kind is Waiting.EVENT and row.student]
    logged = await facts.claimed_events(connection, tenant, [(row.seq, row.received_at) for row in rows])
    beside = {row.seq: (row.student, row.classroom) for row in rows}
    new: dict[ViewKey, list[LearningEvent]] = defaultdict(list)
    replayed = set(views_to_replay)
    strangers = []
    for entry in logged:
        event = entry.event
        if event.kind in CORRECTION_KINDS:
            # It waits under its target's student and class: those views change, whatever the correction says.
            student, classroom = beside[entry.seq]
            replayed |= {(student, classroom), (student, ALL_CLASSES)}
        elif not roster.knows(event.student, event.classroom):
            strangers.append(entry)
        elif not entry.is_out:
            new[event.student, ALL_CLASSES].append(event)
            if event.classroom:
                new[event.student, event.classroom].append(event)
    if strangers:
        await unrostered.set_aside(connection, tenant, strangers)
    if batch.touched_students or views_to_replay:
        await unrostered.bind(connection, tenant, {key[0] for key in views_to_replay})
    revised = await facts.revised_views(connection, tenant, [entry.event for entry in logged])
    replayed |= revised | {(student, ALL_CLASSES) for student, _ in revised}
    corrected = await facts.corrected_views(connection, tenant, [entry.event for entry in logged])
    replayed |= corrected | {(student, ALL_CLASSES) for student, _ in corrected}
    return Work(new, frozenset(key for key in replayed if key[0] in roster.students))


def _reopened(work: Work, locked: Mapping[str, StudentLock]) -> list[str]:
    """The students of whom a day that is closed already has changed: by a late event, or by anything replayed."""
    found = {student for student, _ in work.replayed if locked[student].closed_until is not None}
    for (student, classroom), events in work.new.items():
        until = locked[student].closed_until
        if until is not None and classroom == ALL_CLASSES and any(event.occurred_at < until for event in events):
            found.add(student)
    return sorted(found)


async def _fold_views(
    connection: Connection, tenant: int, work: Work, roster: Roster, policies: Mapping[str, Policy]
) -> Moves:
    """Continue each view from its saved rows where that is sound, rebuild the others from the log."""
    keys = sorted(work.new.keys() | work.replayed)
    moves = Moves()
    if not keys:
        return moves
    saved = await projection.views(connection, tenant, keys)
    replayed = {key for key in keys if needs_replay(saved[key], work.new.get(key, []), revised=key in work.replayed)}
    works = await projection.works(connection, tenant, {k: _items(k, work, replayed) for k in keys if k[1]})
    standings = await projection.standings(connection, tenant, {k: _concepts(k, work, replayed) for k in keys})
    history = await _history(connection, tenant, replayed, roster)
    for key in keys:
        before = ViewState(saved[key], works.get(key, {}), standings[key])
        is_class, policy = key[1] != ALL_CLASSES, policies[key[1]]
        step: Step
        if key in replayed:
            events, step = history.get(key, []), partial(replay_view, policy=policy, is_class=is_class)
        else:
            events, step = work.new[key], partial(fold_view, before, policy=policy, is_class=is_class)
        moves.compare(key, before, _folded(events, step), is_replay=key in replayed)
    return moves


def _folded(events: Sequence[LearningEvent], step: Step) -> ViewState:
    """Run the rules over a view's events in order; raises Unfoldable, naming the first event they fail on."""
    ordered = sorted(events, key=lambda event: event.key)
    try:
        return step(ordered)
    except Exception as error:
        good, bad = 0, len(ordered)  # a fold goes through its events in order: who holds the culprit fails
        while bad - good > 1:
            middle = (good + bad) // 2
            try:
                step(ordered[:middle])
                good = middle
            except Exception:
                bad = middle
        raise Unfoldable(ordered[bad - 1]) from error


def _items(key: ViewKey, work: Work, replayed: set[ViewKey]) -> Iterable[str] | None:
    if key in replayed:
        return None
    return {event.item for event in work.new[key] if event.item is not None}


def _concepts(key: ViewKey, work: Work, replayed: set[ViewKey]) -> Iterable[str] | None:
    if key in replayed:
        return None
    return set(chain.from_iterable(event.concepts for event in work.new[key]))


async def _history(
    connection: Connection, tenant: int, replayed: set[ViewKey], roster: Roster
) -> dict[ViewKey, list[LearningEvent]]:
    """The effective events and corrections of the views to rebuild: those of unknown classes wait for the roster."""
    events = await facts.log_of_students(connection, tenant, {student for student, _ in replayed})
    unknown = {event.classroom for event in events if event.classroom} - roster.zones.keys()
    zones = roster.zones | (await facts.rostered_classrooms(connection, tenant, unknown) if unknown else {})
    return by_view(events, classrooms=zones)


def _never_before(now: datetime, counters: Iterable[Counters]) -> datetime:
    """The moment to assess at: two workers' clocks differ by a little, and a flag must not flap between them.

    A class that was assessed by a clock far ahead is assessed by ours: that clock was wrong.
    """
    seen = [one.assessed_at for one in counters if one.assessed_at is not None]
    return max([now, *(moment for moment in seen if moment - now <= CLOCKS_APART_MAX)])


async def _assess(
    connection: Connection,
    tenant: int,
    zones: dict[str, str],
    counters: Mapping[str, Counters],
    policies: Mapping[str, Policy],
    *,
    now: datetime,
    traceparent: str | None,
) -> None:
    """Assess each touched class once, over all its active students."""
    if not zones:
        return
    stored = await assessment.stored_flags(connection, tenant, zones)
    class_facts = await assessment.class_facts(connection, tenant, zones, now=now)
    roster_moments = await assessment.next_roster_moments(connection, tenant, zones, now=now)
    outcomes = [
        _outcome(
            classroom,
            class_facts[classroom],
            stored[classroom],
            counters[classroom],
            policies[classroom],
            roster_moment=roster_moments.get(classroom),
            now=now,
        )
        for classroom in sorted(zones)
    ]
    await assessment.save_classes(connection, tenant, outcomes, stored, now=now, traceparent=traceparent)


def _outcome(
    classroom: str,
    given: ClassFacts,
    stored: Mapping[FlagKey, StoredFlag],
    counters: Counters,
    policy: Policy,
    *,
    roster_moment: datetime | None,
    now: datetime,
) -> ClassOutcome:
    assessed = assess_classroom(given, policy=policy, now=now)
    changes, memories = transitions({key: flag.memory for key, flag in stored.items()}, assessed, now=now)
    moments = [moment for moment in (assessed.reassess_at, roster_moment) if moment is not None]
    return ClassOutcome(
        classroom=classroom,
        counters=Counters(counters.change_no + 1, counters.risk_no + len(changes)),
        assessment=assessed,
        transitions=changes,
        memories=memories,
        policy_version=policy.version,
        reassess_at=min(moments, default=None),
    )
