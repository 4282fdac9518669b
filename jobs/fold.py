"""Fold one claimed batch inside its transaction: lock, read the facts, let the rules decide, write what differs."""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Self, TypeAlias

from db import assessment, closing, facts, projection, unrostered
from db.assessment import ClassOutcome, Counters, StudentLock
from db.facts import LoggedEvent
from db.live import Moved
from db.outbox import Claimed, Waiting
from db.pool import Connection
from db.projection import Moves, ViewKey, Wanted
from jobs.memory import Known, Recall, Surroundings
from rules.calendar import local_date
from rules.corrections import by_view
from rules.evidence import CORRECTION_KINDS, EvidenceKey, LearningEvent
from rules.outcome import Beside, ViewState, assess_classroom, continue_view, needs_replay, replay_view, transitions
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
    log_seconds: float | None = None  # how long reading a long history may take, where that is not the pool's own limit

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

    @property
    def touched_classrooms(self) -> set[str]:
        """The classes whose roster, assignments or policy may have changed, or whose moment has come."""
        found = {row.classroom for row in self.claimed if row.kind is not Waiting.EVENT and row.classroom}
        return found | ({self.due_classroom} if self.due_classroom else set())


@dataclass(frozen=True, slots=True)
class Work:
    """What a locked batch has to do: new events by view, in total order, and the views to rebuild whatever came."""

    new: Mapping[ViewKey, list[LearningEvent]]
    replayed: frozenset[ViewKey]
    log_seconds: float | None = None

    def is_all_of(self, key: ViewKey) -> bool:
        """Whether the student's new events are those of this class and no others: both views then take the same."""
        return len(self.new[key]) == len(self.new[key[0], ALL_CLASSES])


@dataclass(frozen=True, slots=True)
class Roster:
    """Who and what the roster knows of this batch; classes with their zones."""

    students: set[str]
    zones: dict[str, str]

    def knows(self, student: str, classroom: str) -> bool:
        """Whether an event of these keys takes effect (C7)."""
        return student in self.students and (not classroom or classroom in self.zones)


async def fold(connection: Connection, tenant: int, batch: Batch, *, now: datetime, recall: Recall) -> Moved:
    """Fold a batch and save all that it changes; returns what moved, to be published after the commit.

    Locks class rows, then student rows, each in key order, before it reads any fact: whoever folds the same class or
    student next sees all of this or none. What `recall` knows of them is not read again; `recall.keep` is the caller's,
    after the commit.
    """
    views_to_replay = await _touched_views(connection, tenant, batch)
    replayed_classrooms = {key[1] for key in views_to_replay if key[1]}
    classrooms = batch.classrooms | replayed_classrooms
    students = {row.student for row in batch.claimed if row.student} | {key[0] for key in views_to_replay}
    counters, locked = await _locked(connection, tenant, classrooms, students, recall, now=now)
    recall.begin(counters, locked, touched=batch.touched_classrooms | replayed_classrooms)
    roster = await _roster_of(connection, tenant, classrooms, locked, recall)
    policies = await facts.policies(connection, tenant, classrooms | {ALL_CLASSES})
    work = await _work_of(connection, tenant, batch, views_to_replay, roster)
    moves = await _fold_views(connection, tenant, work, roster, policies, recall)
    moved_students = moves.students
    student_changes = {student: locked[student].change_no + 1 for student in moved_students}
    class_changes = {classroom: counters[classroom].change_no + 1 for classroom in counters}
    await projection.save(connection, tenant, moves, class_changes=class_changes, student_changes=student_changes)
    await assessment.save_students(connection, tenant, student_changes)
    if reopened := _reopened(work, locked):
        await closing.reopen(connection, tenant, reopened, now=now)
    traceparent = batch.traceparent
    now = _never_before(now, counters.values())
    assessed = await _assess(
        connection, tenant, roster.zones, counters, policies, recall,
        unstamped=moves.unstamped, now=now, traceparent=traceparent,
    )  # fmt: skip
    recall.number(assessed, student_changes)
    return Moved(
        tenant=tenant,
        classrooms=frozenset(counters),
        students=frozenset(moved_students),
        traceparent=traceparent,
    )


async def give_up(connection: Connection, tenant: int, batch: Batch) -> None:
    """Count up the numbers of all that a batch of touches would have changed: no worker knows the roster of it."""
    views = await _touched_views(connection, tenant, batch)
    classrooms = batch.classrooms | {key[1] for key in views if key[1]}
    await assessment.count_up(connection, tenant, classrooms, {key[0] for key in views})


async def _locked(
    connection: Connection, tenant: int, classrooms: set[str], students: set[str], recall: Recall, *, now: datetime
) -> tuple[dict[str, Counters], dict[str, StudentLock]]:
    """Lock class rows, then student rows."""
    counters: dict[str, Counters] = {}
    locked: dict[str, StudentLock] = {}
    if classrooms:
        unseen = recall.unseen_classrooms(classrooms)
        counters = await assessment.lock_classrooms(connection, tenant, classrooms, unseen=unseen)
    if students:
        strange = recall.unseen_students(students)
        locked = await assessment.lock_students(connection, tenant, students, now=now, unseen=strange)
    return counters, locked


async def _roster_of(
    connection: Connection, tenant: int, classrooms: set[str], locked: Mapping[str, StudentLock], recall: Recall
) -> Roster:
    """What the roster knows of what is locked; it forgets no student, so only those who are not known yet are asked."""
    if strange := locked.keys() - recall.students.keys():
        recall.meet(await facts.rostered_students(connection, tenant, strange), locked)
    zones: dict[str, str] = {}
    if classrooms:
        zones, touched = await facts.rostered_and_touched(connection, tenant, classrooms)
        recall.doubt(touched)
    return Roster(set(recall.students), zones)


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
    logged = await facts.claimed_events(connection, tenant, rows)
    beside = {row.seq: (row.student, row.classroom) for row in rows}
    new: dict[ViewKey, list[LearningEvent]] = defaultdict(list)
    replayed = set(views_to_replay)
    strangers = []
    known: dict[ViewKey, bool] = {}  # whether the roster knows them: asked once for all events of a view
    for entry in sorted(logged, key=_order_of):
        event = entry.event
        view = event.student, event.classroom
        if entry.is_revised:
            replayed |= {view, (event.student, ALL_CLASSES)}
        if event.kind in CORRECTION_KINDS:
            # It waits under its target's student and class: those views change, whatever the correction says.
            student, classroom = beside[entry.seq]
            replayed |= {(student, classroom), (student, ALL_CLASSES)}
            continue
        if (is_known := known.get(view)) is None:
            is_known = known[view] = roster.knows(*view)
        if not is_known:
            strangers.append(entry)
        elif not entry.is_out:
            new[view].append(event)
            if event.classroom:
                new[event.student, ALL_CLASSES].append(event)
    if strangers:
        await unrostered.set_aside(connection, tenant, strangers)
    if batch.touched_students or views_to_replay:
        await unrostered.bind(connection, tenant, {key[0] for key in views_to_replay})
    rebuilt = frozenset(key for key in replayed if key[0] in roster.students)
    return Work(new, rebuilt, batch.log_seconds)


def _order_of(entry: LoggedEvent) -> EvidenceKey:
    """The event's key, made here: a call less for each event."""
    event = entry.event
    return (event.occurred_at, event.revision, event.source, event.event_id)


def _reopened(work: Work, locked: Mapping[str, StudentLock]) -> list[str]:
    """The students of whom a day that is closed already has changed: by a late event, or by anything replayed."""
    found = {student for student, _ in work.replayed if locked[student].closed_until is not None}
    for (student, classroom), events in work.new.items():
        until = locked[student].closed_until
        if until is not None and classroom == ALL_CLASSES and any(event.occurred_at < until for event in events):
            found.add(student)
    return sorted(found)


async def _fold_views(
    connection: Connection,
    tenant: int,
    work: Work,
    roster: Roster,
    policies: Mapping[str, Policy],
    recall: Recall,
) -> Moves:
    """Continue each view from its saved rows where that is sound, rebuild the others from the log."""
    keys = sorted(work.new.keys() | work.replayed)
    moves = Moves()
    if not keys:
        return moves
    saved = await _known_views(connection, tenant, keys, work, recall)
    replayed = _replayed(keys, work, saved)
    rows = Wanted(
        {key: _items(key, work, replayed) for key in keys if key[1]},
        {key: _concepts(key, work, replayed) for key in keys},
    )
    await _know_rows(connection, tenant, rows, saved)
    history = await _history(connection, tenant, replayed, roster, seconds=work.log_seconds)
    is_alike = {classroom: policy == policies[ALL_CLASSES] for classroom, policy in policies.items()}
    overall: tuple[str, Beside] | None = None  # of the student whose view over all classes was continued last
    for key in keys:  # that view comes first of a student's
        known, policy, is_class = saved[key], policies[key[1]], key[1] != ALL_CLASSES
        before: ViewState | None = None
        step: Step
        if key in replayed:
            before = known.state
            events = sorted(history.get(key, []), key=lambda event: event.key)
            step = partial(replay_view, policy=policy, is_class=is_class)
        else:
            events = work.new[key]
            is_beside = overall is not None and overall[0] == key[0] and is_alike[key[1]] and work.is_all_of(key)
            step = partial(
                continue_view,
                known.view,
                known.works,
                known.standings,
                policy=policy,
                is_class=is_class,
                beside=overall[1] if overall is not None and is_beside else None,
            )
        after = _folded(events, step)
        if not is_class and before is None:
            earlier = known.standings
            overall = key[0], Beside({name: earlier.get(name) for name in after.standings}, after.standings)
        moves.compare(key, before or known, after, is_replay=before is not None)
        recall.follow(key, known, before, after)
    return moves


def _replayed(keys: Sequence[ViewKey], work: Work, saved: Mapping[ViewKey, Known]) -> set[ViewKey]:
    """The views to rebuild; each student's over all classes is judged first, and then often the one of the class."""
    found: set[ViewKey] = set()
    for key in keys:
        overall = key[0], ALL_CLASSES
        if key in work.replayed:
            found.add(key)
        elif (
            key[1] and overall not in found and work.is_all_of(key) and saved[key].view.last == saved[overall].view.last
        ):
            continue
        elif needs_replay(saved[key].view, work.new.get(key, ()), revised=False):
            found.add(key)
    return found


async def _known_views(
    connection: Connection, tenant: int, keys: Sequence[ViewKey], work: Work, recall: Recall
) -> dict[ViewKey, Known]:
    """These views, read as far as they are not known; one that is to be rebuilt is read anyhow, as it may be wrong."""
    found = {key: None if key in work.replayed else recall.known(key) for key in keys}
    if unknown := [key for key, known in found.items() if known is None]:
        for key, view in (await projection.views(connection, tenant, unknown)).items():
            found[key] = recall.learn(key, view)
    return {key: known for key, known in found.items() if known is not None}


async def _know_rows(connection: Connection, tenant: int, rows: Wanted, saved: Mapping[ViewKey, Known]) -> None:
    """Read the rows of these views that are wanted and not known; of views to rebuild, all of them."""
    items: dict[ViewKey, set[str] | None] = {}
    for key, names in rows.items.items():
        if names is None or (names := names.difference(saved[key].works)):
            items[key] = names
    concepts: dict[ViewKey, set[str] | None] = {}
    for key, names in rows.concepts.items():
        if names is None or (names := names.difference(saved[key].standings)):
            concepts[key] = names
    works = await projection.works(connection, tenant, items) if items else {}
    for key, names in items.items():
        if names is None:
            saved[key].works.clear()
        saved[key].works |= {**dict.fromkeys(names or ()), **works[key]}
    standings = await projection.standings(connection, tenant, concepts) if concepts else {}
    for key, names in concepts.items():
        if names is None:
            saved[key].standings.clear()
        saved[key].standings |= {**dict.fromkeys(names or ()), **standings[key]}


def _folded(events: Sequence[LearningEvent], step: Step) -> ViewState:
    """Run the rules over a view's ordered events; raises Unfoldable, naming the first event they fail on."""
    try:
        return step(events)
    except Exception as error:
        good, bad = 0, len(events)  # a fold goes through its events in order: who holds the culprit fails
        while bad - good > 1:
            middle = (good + bad) // 2
            try:
                step(events[:middle])
                good = middle
            except Exception:
                bad = middle
        raise Unfoldable(events[bad - 1]) from error


def _items(key: ViewKey, work: Work, replayed: set[ViewKey]) -> set[str] | None:
    if key in replayed:
        return None
    return {item for event in work.new[key] if (item := event.assignment or event.quiz) is not None}


def _concepts(key: ViewKey, work: Work, replayed: set[ViewKey]) -> set[str] | None:
    if key in replayed:
        return None
    return set(chain.from_iterable([event.concepts for event in work.new[key]]))


async def _history(
    connection: Connection, tenant: int, replayed: set[ViewKey], roster: Roster, *, seconds: float | None
) -> dict[ViewKey, list[LearningEvent]]:
    """The effective events and corrections of the views to rebuild: those of unknown classes wait for the roster."""
    events = await facts.log_of_students(connection, tenant, {student for student, _ in replayed}, seconds=seconds)
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
    recall: Recall,
    *,
    unstamped: Container[str],
    now: datetime,
    traceparent: str | None,
) -> dict[str, Counters]:
    """Assess each touched class once, over all its active students; returns their new numbers."""
    if not zones:
        return {}
    around = await _surroundings(connection, tenant, zones, recall, now=now)
    outcomes = [
        _outcome(
            classroom,
            around[classroom],
            counters[classroom],
            policies[classroom],
            is_stamped=classroom not in unstamped,
            now=now,
        )
        for classroom in sorted(zones)
    ]
    flags = {classroom: found.flags for classroom, found in around.items()}
    await assessment.save_classes(connection, tenant, outcomes, flags, now=now, traceparent=traceparent)
    return {outcome.classroom: outcome.counters for outcome in outcomes}


async def _surroundings(
    connection: Connection, tenant: int, zones: Mapping[str, str], recall: Recall, *, now: datetime
) -> dict[str, Surroundings]:
    """What the assessments of these classes read, from the tables as far as it is not known."""
    found = {c: known for c, z in zones.items() if (known := recall.surroundings(c, zone=z, now=now)) is not None}
    unknown = {classroom: zone for classroom, zone in zones.items() if classroom not in found}
    if unknown:
        stored = await assessment.stored_flags(connection, tenant, unknown)
        class_facts = await assessment.class_facts(connection, tenant, unknown, now=now)
        moments = await assessment.next_roster_moments(connection, tenant, unknown, now=now)
        for c, zone in unknown.items():
            around = Surroundings(class_facts[c], local_date(now, zone), moments.get(c), stored[c])
            recall.classes[c].surround(around)
            found[c] = around
    return found


def _outcome(
    classroom: str, around: Surroundings, counters: Counters, policy: Policy, *, is_stamped: bool, now: datetime
) -> ClassOutcome:
    assessed = assess_classroom(around.facts, policy=policy, now=now)
    changes, memories = transitions({key: flag.memory for key, flag in around.flags.items()}, assessed, now=now)
    moments = [moment for moment in (assessed.reassess_at, around.roster_moment) if moment is not None]
    return ClassOutcome(
        classroom=classroom,
        counters=Counters(counters.change_no + 1, counters.risk_no + len(changes), now),
        assessment=assessed,
        transitions=changes,
        memories=memories,
        policy_version=policy.version,
        reassess_at=min(moments, default=None),
        is_stamped=is_stamped,
    )
