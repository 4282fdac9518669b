"""Events, views and strategies from which the tests of the rules are made."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import strategies as st

from rules.classroom import EMPTY_VIEW, ClassFacts, CountedScore, Member, OpenItem, View
from rules.corrections import attempt_of
from rules.evidence import Kind, LearningEvent
from rules.outcome import Assessment, ViewState, assess_classroom, fold_view
from rules.policy import DEFAULT_POLICY, Policy

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)  # a Monday
BERLIN = "Europe/Berlin"
NOTHING = ViewState(EMPTY_VIEW, {}, {})


def at(minutes: float) -> datetime:
    """So many minutes after the start of every example."""
    return START + timedelta(minutes=minutes)


def event(
    kind: Kind,
    name: str,
    when: datetime,
    *,
    score: float | None = None,
    item: str | None = None,
    quiz: str | None = None,
    concepts: Sequence[str] = ("fractions",),
    submission: str | None = None,
    due_at: datetime | None = None,
    spent_ms: int | None = None,
) -> LearningEvent:
    """One valid event of student s1 in class 7b; `score` is a fraction."""
    return LearningEvent(
        source="lms",
        event_id=name,
        kind=kind,
        occurred_at=when,
        student="s1",
        classroom="7b",
        assignment=item,
        quiz=quiz,
        concepts=tuple(concepts),
        ratio=None if score is None else round(score * 1_000_000),
        submission=submission,
        due_at=due_at,
        time_spent_ms=spent_ms,
    )


def quizzes(*scores: float) -> list[LearningEvent]:
    """One quiz attempt a minute, each on a quiz of its own."""
    return [event(Kind.QUIZ_ATTEMPT, f"e{n}", at(n), score=score, quiz=f"q{n}") for n, score in enumerate(scores, 1)]


def folded(events: Sequence[LearningEvent], *, policy: Policy = DEFAULT_POLICY, is_class: bool = True) -> ViewState:
    """The events folded at once, in the order given."""
    return fold_view(NOTHING, events, policy=policy, is_class=is_class)


def touching(state: ViewState, events: Sequence[LearningEvent]) -> ViewState:
    """The state as a database hands it over: only the items and concepts that the events name."""
    items = {e.item for e in events}
    concepts = {concept for e in events for concept in e.concepts}
    return ViewState(
        state.view,
        {item: work for item, work in state.works.items() if item in items},
        {concept: standing for concept, standing in state.standings.items() if concept in concepts},
    )


def folded_in_batches(
    batches: Sequence[Sequence[LearningEvent]], *, is_class: bool, policy: Policy = DEFAULT_POLICY
) -> ViewState:
    """Batch after batch, each with nothing at hand but the rows it touches, each saved before the next."""
    state = NOTHING
    for batch in batches:
        after = fold_view(touching(state, batch), batch, policy=policy, is_class=is_class)
        state = ViewState(after.view, state.works | after.works, state.standings | after.standings)
    return state


def member(student: str = "s1", *, view: View = EMPTY_VIEW, zone: str = BERLIN, enrolled: datetime = START) -> Member:
    """An active enrolment; by default of the day every example starts."""
    return Member(student, int(enrolled.timestamp() * 1000), zone, view)


def rated(student: str, graded: int, assigned: int, *, active_at: datetime = START) -> Member:
    """A student whose completion rate is graded/assigned."""
    return member(student, view=View(assigned=assigned, graded=graded, submitted=graded, last_active_at=active_at))


def open_item(item: str, *, due_at: datetime | None = None, is_submitted: bool = False) -> OpenItem:
    """An assigned item without a grade."""
    return OpenItem(item, due_at, is_submitted, ("lms", f"assign-{item}"))


def recent(*scores: float) -> tuple[CountedScore, ...]:
    """Counted scores, one an item, a minute apart."""
    return tuple(
        CountedScore(f"a{n}", round(score * 1_000_000), (at(n), 0, "lms", f"g{n}")) for n, score in enumerate(scores, 1)
    )


def assessed(*members: Member, now: datetime = START, policy: Policy = DEFAULT_POLICY) -> Assessment:
    """The class of these members, assessed."""
    return assess_classroom(ClassFacts(members, BERLIN), policy=policy, now=now)


KINDS = st.sampled_from(
    [
        Kind.ASSIGNMENT_ASSIGNED,
        Kind.SUBMISSION_CREATED,
        Kind.SUBMISSION_GRADED,
        Kind.SUBMISSION_GRADED,
        Kind.QUIZ_ATTEMPT,
        Kind.CONCEPT_STARTED,
        Kind.CONCEPT_COMPLETED,
        Kind.CONCEPT_MASTERED,
        Kind.CONTENT_VIEWED,
        Kind.STUDENT_LOGIN,
        Kind.OTHER,
    ]
)
RATIOS = st.sampled_from([0, 333_333, 599_999, 600_000, 800_000, 1_000_000, 1_100_000])
ALWAYS_SCORED = {Kind.SUBMISSION_GRADED, Kind.QUIZ_ATTEMPT}
SOMETIMES_SCORED = {Kind.CONCEPT_STARTED, Kind.CONCEPT_COMPLETED, Kind.CONCEPT_MASTERED}


@st.composite
def histories(draw: st.DrawFn, *, has_regrades: bool) -> list[LearningEvent]:
    """Distinct events of one student, crowded on few instants, items, concepts and (if asked) submissions."""
    count = draw(st.integers(0, 25))  # lists left to themselves stay short
    names = draw(st.permutations([f"e{n}" for n in range(1, 26)]))[:count]
    found = [_drawn(draw, name) for name in names]
    return found if has_regrades else _without_regrades(found)


def _drawn(draw: st.DrawFn, name: str) -> LearningEvent:
    kind = draw(KINDS)
    is_scored = kind in ALWAYS_SCORED or (kind in SOMETIMES_SCORED and draw(st.booleans()))
    ratio = draw(RATIOS) if is_scored else None
    return LearningEvent(
        source=draw(st.sampled_from(["a", "b"])),
        event_id=name,
        kind=kind,
        occurred_at=at(draw(st.integers(0, 4))),  # equal instants are the rule
        revision=draw(st.integers(0, 1)),
        student="s1",
        classroom="7b",
        assignment=draw(st.sampled_from(["a1", "a2", "a3", "a4", "a5", "a6", None])),
        quiz=draw(st.sampled_from(["q1", None])),
        concepts=tuple(draw(st.lists(st.sampled_from(["k1", "k2", "k3"]), unique=True, max_size=3))),
        ratio=ratio,
        submission=draw(st.sampled_from(["sub1", "sub2", "sub3", None, None])),
        due_at=draw(st.sampled_from([at(2), at(9), None])),
        time_spent_ms=draw(st.sampled_from([None, 0, 1_000])),
    )


def _without_regrades(events: list[LearningEvent]) -> list[LearningEvent]:
    seen: set[tuple[str, str]] = set()
    kept = []
    for one in events:
        attempt = attempt_of(one)
        if attempt is None or attempt not in seen:
            kept.append(one)
        if attempt is not None:
            seen.add(attempt)
    return kept


def cut(events: list[LearningEvent], places: Sequence[int]) -> list[list[LearningEvent]]:
    """The list in pieces, cut at these places (some may fall together: an empty batch)."""
    edges = [0, *sorted(min(place, len(events)) for place in places), len(events)]
    return [events[start:end] for start, end in pairwise(edges)]
