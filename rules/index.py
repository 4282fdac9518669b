"""The mastery index: a student's completion, quizzes, quality and consistency in one number (Definition B)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from fractions import Fraction

from rules.calendar import local_date
from rules.corrections import Item, Name, attempts_of, counted
from rules.details import Detail
from rules.evidence import ACTIVE_KINDS, EvidenceKey, Kind, LearningEvent
from rules.policy import MILLION
from rules.roster import Difficulty
from rules.rounding import half_even

RECENT_DAYS = 28  # local days in which quizzes and quality count
ACTIVE_DAYS = 14  # local days in which activity counts
GOAL_DAYS = 5  # active days a week of a student without a goal of their own
IDLE_FACTOR = Fraction(9, 10)  # for each day without activity but the first
COVERAGE_MIN = 500  # thousandths of the weights; an index that rests on less has no level
WEIGHTS = {"completion": 4, "quiz": 3, "quality": 2, "consistency": 1}  # tenths
EFFORT = {Difficulty.BEGINNER: 8, Difficulty.INTERMEDIATE: 10, Difficulty.ADVANCED: 12}  # tenths of an item
DONE_KINDS = frozenset({Kind.SUBMISSION_CREATED, Kind.SUBMISSION_GRADED, Kind.QUIZ_ATTEMPT})
LONGEST_DAY = timedelta(hours=26)


class Level(StrEnum):
    """What a score means (004-03), lowest first."""

    BEGINNER = "BEGINNER"
    DEVELOPING = "DEVELOPING"
    COMPETENT = "COMPETENT"
    PROFICIENT = "PROFICIENT"
    EXPERT = "EXPERT"


_LEVELS = ((900, Level.EXPERT), (750, Level.PROFICIENT), (600, Level.COMPETENT), (400, Level.DEVELOPING))


@dataclass(frozen=True, slots=True)
class Components:
    """The four parts as exact fractions; None where there is nothing to say."""

    completion: Fraction | None = None
    quiz: Fraction | None = None
    quality: Fraction | None = None
    consistency: Fraction | None = None


@dataclass(frozen=True, slots=True)
class MasteryIndex:
    """The index of one student at one moment, in thousandths: rounded once, at the end."""

    score: int
    coverage: int  # the sum of the weights that are really present
    completion: int | None
    quiz: int | None
    quality: int | None
    consistency: int | None

    @property
    def level(self) -> Level | None:
        """Taken from the rounded score; None where too little is known."""
        if self.coverage < COVERAGE_MIN:
            return None
        return next((level for least, level in _LEVELS if self.score >= least), Level.BEGINNER)


@dataclass(frozen=True, slots=True)
class History:
    """What counts of a student's work over all classes, in total order, with all that the index asks of it."""

    events: Sequence[LearningEvent]
    excused: frozenset[Item]
    details: Mapping[Name, Detail]
    difficulties: Mapping[Item, Difficulty]  # as the assignments themselves say; what assigns the work wins
    zone: str  # of the student's local days


def combined(given: Components) -> MasteryIndex | None:
    """Weigh the parts (004-01). Where only one of quiz and quality exists it stands for both; None without any."""
    present = {name: value for name in WEIGHTS if (value := getattr(given, name)) is not None}
    if not present:
        return None
    weights = {name: WEIGHTS[name] for name in present}
    if len({"quiz", "quality"} & weights.keys()) == 1:
        alone = "quiz" if "quiz" in weights else "quality"
        weights[alone] = WEIGHTS["quiz"] + WEIGHTS["quality"]
    mean = sum((weights[name] * value for name, value in present.items()), Fraction(0)) / sum(weights.values())
    return MasteryIndex(
        score=_thousandths(min(max(mean, Fraction(0)), Fraction(1))),
        coverage=sum(WEIGHTS[name] for name in present) * 100,
        completion=_shown(given.completion),
        quiz=_shown(given.quiz),
        quality=_shown(given.quality),
        consistency=_shown(given.consistency),
    )


def _shown(value: Fraction | None) -> int | None:
    return None if value is None else _thousandths(value)


def _thousandths(value: Fraction) -> int:
    return half_even(value.numerator * 1000, value.denominator)


def consistency_of(active: int, idle_days: int, *, goal_days: int = GOAL_DAYS) -> Fraction:
    """How regular the last two weeks were: active days of them, and days since the last one (today = 0)."""
    return min(Fraction(1), Fraction(active, 2 * goal_days)) * IDLE_FACTOR ** max(0, idle_days - 1)


def history_of(
    view: Sequence[LearningEvent],
    *,
    details: Mapping[Name, Detail],
    difficulties: Mapping[Item, Difficulty],
    zone: str,
) -> History:
    """What corrections leave of the student's view over all classes; `view` has them too, and comes in any order."""
    ordered = sorted(view, key=_key_of)
    left = counted(ordered)
    items = {event.key: event.item for event in ordered}
    set_aside = {
        (event.source, event.event_id) for event in left.events if event.item is None and items[event.key] is not None
    }
    kept = {name: detail for name, detail in details.items() if name not in set_aside}
    return History(attempts_of(left), left.excused, kept, difficulties, zone)


def _key_of(event: LearningEvent) -> EvidenceKey:
    return event.key


def indexes_at(history: History, moments: Sequence[datetime]) -> list[MasteryIndex | None]:
    """The index at each of these ascending moments, none of which has happened yet for what comes at or after it."""
    track = _Track(history, since=moments[0] - RECENT_DAYS * LONGEST_DAY) if moments else None
    found: list[MasteryIndex | None] = []
    place = 0
    for moment in moments:
        assert track is not None
        while place < len(history.events) and history.events[place].occurred_at < moment:
            track.take(history.events[place])
            place += 1
        found.append(combined(track.components(local_date(moment - timedelta(microseconds=1), history.zone))))
    return found


@dataclass(slots=True)
class _Track:
    """A student's way through a history: what is known after the events taken so far."""

    history: History
    since: datetime  # before it, only completion and the last activity are of interest
    assigned: dict[Item, None] = field(default_factory=dict)
    difficulties: dict[Item, Difficulty] = field(default_factory=dict)
    done: set[Item] = field(default_factory=set)
    exercises: int = 0  # tenths, each by its effort
    exercises_done: int = 0
    quizzes: list[tuple[date, Item, int]] = field(default_factory=list)
    qualities: list[tuple[date, Fraction]] = field(default_factory=list)
    rubrics: list[tuple[date, Fraction]] = field(default_factory=list)
    active: set[date] = field(default_factory=set)
    last_active_at: datetime | None = None

    def take(self, event: LearningEvent) -> None:
        """Let one event count; it comes after all taken before."""
        if event.kind in ACTIVE_KINDS:
            self.last_active_at = event.occurred_at
            if event.occurred_at >= self.since:
                self.active.add(self._date(event))
        detail = self.history.details.get((event.source, event.event_id))
        if event.item is not None:
            self._take_work(event, (event.classroom, event.item), detail)
        if detail is None:
            return
        if event.kind is Kind.EXERCISE_COMPLETED:
            effort = EFFORT[detail.difficulty or Difficulty.INTERMEDIATE]
            self.exercises += effort * detail.exercises
            self.exercises_done += effort * detail.exercises_done
        if event.occurred_at >= self.since:
            if event.kind is Kind.QUALITY_ASSESSED and detail.quality is not None:
                self.qualities.append((self._date(event), detail.quality))
            elif event.kind is Kind.SUBMISSION_GRADED and detail.rubric is not None:
                self.rubrics.append((self._date(event), detail.rubric))

    def _take_work(self, event: LearningEvent, item: Item, detail: Detail | None) -> None:
        if event.kind is Kind.ASSIGNMENT_ASSIGNED:
            self.assigned[item] = None
            if detail is not None and detail.difficulty is not None:
                self.difficulties[item] = detail.difficulty
        elif event.kind in DONE_KINDS:
            self.done.add(item)
        if event.kind is Kind.QUIZ_ATTEMPT and event.ratio is not None and event.occurred_at >= self.since:
            self.quizzes.append((self._date(event), item, event.ratio))

    def _date(self, event: LearningEvent) -> date:
        return local_date(event.occurred_at, self.history.zone)

    def components(self, today: date) -> Components:
        """The four parts at the end of this local day."""
        recent = today - timedelta(days=RECENT_DAYS - 1)
        scores = {item: ratio for day, item, ratio in self.quizzes if day >= recent}  # the last of each quiz
        return Components(
            completion=self._completion(),
            quiz=_mean(list(scores.values())),
            quality=_mean(_since(recent, self.qualities) or _since(recent, self.rubrics)),
            consistency=self._consistency(today),
        )

    def _completion(self) -> Fraction | None:
        done, whole = self.exercises_done, self.exercises
        for item in self.assigned.keys() - self.history.excused:
            known = self.difficulties.get(item) or self.history.difficulties.get(item)
            effort = EFFORT[known or Difficulty.INTERMEDIATE]
            whole += effort
            done += effort if item in self.done else 0
        return Fraction(done, whole) if whole else None

    def _consistency(self, today: date) -> Fraction | None:
        if self.last_active_at is None:
            return None
        first = today - timedelta(days=ACTIVE_DAYS - 1)
        active = sum(first <= day <= today for day in self.active)
        idle_days = (today - local_date(self.last_active_at, self.history.zone)).days
        return consistency_of(active, idle_days) if active else Fraction(0)


def _since(first: date, ratios: Sequence[tuple[date, Fraction]]) -> list[Fraction]:
    return [ratio for day, ratio in ratios if day >= first]


def _mean(ratios: Sequence[int | Fraction]) -> Fraction | None:
    """The mean of ratios in millionths, as a fraction of 1."""
    return Fraction(sum(ratios), len(ratios) * MILLION) if ratios else None
