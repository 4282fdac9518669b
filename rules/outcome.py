"""All that one batch changes, as one value: the fold of a view and the assessment of a class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from rules.classroom import (
    EMPTY_VIEW,
    WORK_KINDS,
    ClassFacts,
    Rollup,
    View,
    Work,
    completion_of,
    fresh_work,
    rollup_of,
    view_after,
    work_after,
)
from rules.corrections import attempt_of, attempts_of, counted
from rules.evidence import EvidenceKey, LearningEvent
from rules.policy import Policy
from rules.risk import (
    FIRST_MEMORY,
    REARM_GAP,
    Change,
    DueWatch,
    FlagMemory,
    IdleWatch,
    Reason,
    RiskFlag,
    Severity,
    Transition,
    below_median_flag,
    follow,
    median_of,
    overall_of,
    trend_flag,
)
from rules.skill import EFFECTS, Standing, advance, fresh_standing
from rules.value import Value


class OutOfOrder(Exception):
    """An event that does not sort after what is folded: the view must be replayed from the log."""

    def __init__(self, *, after: EvidenceKey, got: EvidenceKey) -> None:
        super().__init__(f"expected an event after {after}, got {got}")
        self.after = after
        self.got = got


class ViewState(Value, frozen=True):
    """A view with the items and concepts at hand: all of them after a replay, else those that the events touch."""

    view: View
    works: dict[str, Work]
    standings: dict[str, Standing]


@dataclass(frozen=True, slots=True)
class Beside:
    """Another view of the same student, continued by the very same events under an equal policy.

    `standings` are those it had before, `moved` what came of them: of equal standings the same comes again.
    """

    standings: Mapping[str, Standing | None]
    moved: Mapping[str, Standing]


def needs_replay(view: View, events: Sequence[LearningEvent], *, revised: bool) -> bool:
    """Whether the view must be rebuilt from the log instead of continued.

    `revised`: an event grades a known attempt again, corrects another, or an input changed. Two grades of one
    attempt inside the batch are found here.
    """
    if revised:
        return True
    last = view.last
    if last is not None:
        last_at = last[0]
        for event in events:
            # The instants differ nearly always, and a key is made anew each time it is asked for.
            if event.occurred_at <= last_at and event.key <= last:
                return True
    attempts = [attempt for event in events if event.submission is not None and (attempt := attempt_of(event))]
    return len(attempts) != len(set(attempts))


def fold_view(state: ViewState, events: Sequence[LearningEvent], *, policy: Policy, is_class: bool) -> ViewState:
    """Continue a view with effective events, sorted, all after `state.view.last`, each an attempt of its own.

    `state.works` and `state.standings` must hold what the events touch, and may hold nothing else: the counters
    move by the difference. Over all classes (`is_class` False) there are standings and the last activity only.
    Raises OutOfOrder where an event does not sort after the one before.
    """
    if not events:
        return state
    moved = continue_view(state.view, state.works, state.standings, events, policy=policy, is_class=is_class)
    return ViewState(moved.view, {**state.works, **moved.works}, {**state.standings, **moved.standings})


def continue_view(
    view: View,
    works: Mapping[str, Work | None],
    standings: Mapping[str, Standing | None],
    events: Sequence[LearningEvent],
    *,
    policy: Policy,
    is_class: bool,
    beside: Beside | None = None,
) -> ViewState:
    """The same, returning of works and standings only what the events move; None is a row that does not exist."""
    _in_order(view.last, events)
    moved: dict[str, Standing] = {}
    if beside is not None:
        earlier = beside.standings
        moved = {c: one for c, one in beside.moved.items() if standings.get(c) == earlier.get(c)}
    shared = frozenset(moved)
    is_all_shared = beside is not None and len(moved) == len(beside.moved)
    last_active_at = view.last_active_at
    touched: dict[str, Work] = {}
    for event in events:
        kind = event.kind
        if EFFECTS[kind].is_active:
            last_active_at = event.occurred_at
        if not is_all_shared:
            for concept in event.concepts:
                if concept in shared:
                    continue
                standing = moved.get(concept) or standings.get(concept) or fresh_standing(concept)
                after = advance(standing, event, policy=policy)
                if after is not standing:
                    moved[concept] = after
        if is_class and kind in WORK_KINDS and (item := event.assignment or event.quiz) is not None:
            touched[item] = work_after(touched.get(item) or works.get(item) or fresh_work(item), event)
    last = events[-1].key
    if not is_class:
        return ViewState(View(last=last, last_active_at=last_active_at), {}, moved)
    after_view = view_after(view, earlier=works, changed=touched, last=last, last_active_at=last_active_at)
    return ViewState(after_view, touched, moved)


def _in_order(last: EvidenceKey | None, events: Sequence[LearningEvent]) -> None:
    """Raise OutOfOrder where an event does not sort after the one before, the first after `last`."""
    last_at = None if last is None else last[0]
    before: LearningEvent | None = None
    for event in events:
        at = event.occurred_at
        if last_at is not None and at <= last_at:  # at another instant there is nothing more to compare
            after = last if before is None else before.key
            if after is not None and event.key <= after:
                raise OutOfOrder(after=after, got=event.key)
        before, last_at = event, at


def replay_view(events: Sequence[LearningEvent], *, policy: Policy, is_class: bool) -> ViewState:
    """Build a view from all its effective events and the student's corrections, in whatever order they come."""
    nothing = ViewState(EMPTY_VIEW, {}, {})
    if not events:
        return nothing
    ordered = sorted(events, key=_key_of)
    history = counted(ordered)
    if not history.events:
        return nothing
    state = fold_view(nothing, attempts_of(history), policy=policy, is_class=is_class)
    # A later grade of an attempt moves to its place, yet it was folded: the view goes on after it.
    return replace(state, view=replace(state.view, last=history.events[-1].key))


def _key_of(event: LearningEvent) -> EvidenceKey:
    return event.key


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a class adds up to at one moment: its rollup, its flags, and when to look again.

    `median` (thousandths) is None below two students with a rate; `rearmed` are the students whose rate has reached
    the median + 0.02, so that falling below it is news again.
    """

    rollup: Rollup
    flags: dict[tuple[str, Reason], RiskFlag]
    overall: dict[str, Severity]  # of students with a flag
    median: int | None
    reassess_at: datetime | None  # the earliest instant at which an answer changes without any event
    rearmed: frozenset[str] = frozenset()


def assess_classroom(facts: ClassFacts, *, policy: Policy, now: datetime) -> Assessment:
    """Definitions C and F for one class, from its active enrolments and the clock."""
    rates = {one.student: rate for one in facts.members if (rate := completion_of(one.view)) is not None}
    median = median_of(list(rates.values()))
    idle, due = IdleWatch(now, policy.inactivity_days), DueWatch(now, facts.due_by_item)
    flags: dict[tuple[str, Reason], RiskFlag] = {}
    overall: dict[str, Severity] = {}
    for member in facts.members:
        student, view = member.student, member.view
        rate = rates.get(student)
        candidates = (
            due.flag_of(member) if view.open_items else None,
            trend_flag(student, view.recent),
            below_median_flag(student, view, rate=rate, median=median, rated_count=len(rates))
            if median is not None and rate is not None and rate < median
            else None,
            idle.flag_of(member),
        )
        found = [flag for flag in candidates if flag is not None]
        if found:
            overall[student] = overall_of(found)
            flags.update({(student, flag.reason): flag for flag in found})
    return Assessment(
        rollup=rollup_of(facts.members),
        flags=flags,
        overall=overall,
        median=median,
        reassess_at=min((moment for moment in (idle.next_at(), due.next_at()) if moment is not None), default=None),
        rearmed=frozenset(one for one, rate in rates.items() if median is not None and rate >= median + REARM_GAP),
    )


def transitions(
    memories: Mapping[tuple[str, Reason], FlagMemory], assessment: Assessment, *, now: datetime
) -> tuple[list[Transition], dict[tuple[str, Reason], FlagMemory]]:
    """What changed between the flags remembered and the flags assessed, sorted by (student, reason).

    Only presence and severity make a transition. Returns also the memories that differ from those given. A student
    who left the class is in `memories` but not in the assessment: the flags clear.
    """
    found: list[Transition] = []
    changed: dict[tuple[str, Reason], FlagMemory] = {}
    for key in sorted(memories.keys() | assessment.flags.keys()):
        student, reason = key
        memory, flag = memories.get(key, FIRST_MEMORY), assessment.flags.get(key)
        step = follow(memory, flag, reason=reason, is_rearmed=student in assessment.rearmed, now=now)
        if step.memory is not memory:
            changed[key] = step.memory
        if step.change is not None:
            found.append(_transition(key, step.change, flag, memory, assessment, notify=step.notify))
    return found, changed


def _transition(
    key: tuple[str, Reason],
    change: Change,
    flag: RiskFlag | None,
    memory: FlagMemory,
    assessment: Assessment,
    *,
    notify: bool,
) -> Transition:
    return Transition(
        student=key[0],
        reason=key[1],
        change=change,
        severity=None if flag is None else flag.severity,
        earlier=memory.severity,
        overall=assessment.overall.get(key[0]),
        notify=notify,
        evidence={} if flag is None else flag.evidence,
        clears_when="" if flag is None else flag.clears_when,
    )
