"""The mastery index and its trend: every worked example of Definitions B and E, and what they leave to be said."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest

from rules.details import Detail, detail_of
from rules.evidence import Kind, LearningEvent
from rules.index import Components, Level, MasteryIndex, combined, consistency_of, history_of, indexes_at
from rules.roster import Difficulty
from rules.trend import Direction, Trend, historical_average, trend_of

pytestmark = pytest.mark.feature("B", "004-01")

DAY = timedelta(days=1)
NOON = datetime(2026, 3, 16, 12, tzinfo=UTC)
END = datetime(2026, 3, 17, tzinfo=UTC)  # of the 16th, in UTC


def event(kind: Kind, event_id: str, *, days_ago: int = 0, **fields: Any) -> LearningEvent:
    defaults = {"source": "lms", "student": "s1", "classroom": "7b", "occurred_at": NOON - days_ago * DAY}
    return LearningEvent(kind=kind, event_id=event_id, **{**defaults, **fields})


def assigned(item: str, **fields: Any) -> LearningEvent:
    return event(Kind.ASSIGNMENT_ASSIGNED, f"a-{item}", assignment=item, **fields)


def submitted(item: str, **fields: Any) -> LearningEvent:
    return event(Kind.SUBMISSION_CREATED, f"s-{item}", assignment=item, **fields)


def quizzed(event_id: str, quiz: str, score: float, **fields: Any) -> LearningEvent:
    return event(Kind.QUIZ_ATTEMPT, event_id, quiz=quiz, ratio=round(score * 1_000_000), **fields)


def index_of(
    *events: LearningEvent, said: dict[str, dict[str, Any]] | None = None, zone: str = "UTC", at: datetime = END
) -> MasteryIndex | None:
    """The index at the end of the 16th; `said` is the payloads of events by id."""
    details = {("lms", name): detail_of(payload) for name, payload in (said or {}).items()}
    [found] = indexes_at(history_of(events, details=details, difficulties={}, zone=zone), [at])
    return found


def parts(**given: str) -> Components:
    return Components(**{name: Fraction(value) for name, value in given.items()})


@pytest.mark.feature("004-02", "004-03")
@pytest.mark.parametrize(
    ("given", "score", "coverage", "level"),
    [
        ({"completion": "0.85", "quiz": "0.90", "quality": "0.85", "consistency": "0.82"}, 862, 1000, Level.PROFICIENT),
        ({"completion": "0.70", "quiz": "0.75", "quality": "0.80", "consistency": "0.65"}, 730, 1000, Level.COMPETENT),
        ({"completion": "0.80", "quiz": "0.90"}, 856, 700, Level.PROFICIENT),
        ({"quiz": "0.90", "consistency": "0.40"}, 817, 400, None),
        ({"completion": "0.80", "quality": "0.90"}, 856, 600, Level.PROFICIENT),
        ({"completion": "0.80", "consistency": "0.80"}, 800, 500, Level.PROFICIENT),
        ({"quiz": "1.4"}, 1000, 300, None),
    ],
)
def test_the_parts_are_weighed_and_what_is_missing_leaves_its_weight_to_the_others(
    given: dict[str, str], score: int, coverage: int, level: Level | None
) -> None:
    found = combined(parts(**given))

    assert found is not None
    assert (found.score, found.coverage, found.level) == (score, coverage, level)


@pytest.mark.feature("X-11")
def test_without_any_part_there_is_no_index() -> None:
    assert combined(Components()) is None
    assert index_of() is None
    assert index_of(event(Kind.STUDENT_LOGIN, "e1")) is None


@pytest.mark.feature("004-03")
@pytest.mark.parametrize(
    ("score", "level"),
    [
        ("0.3994", Level.BEGINNER),
        ("0.3996", Level.DEVELOPING),
        ("0.6", Level.COMPETENT),
        ("0.75", Level.PROFICIENT),
        ("0.8994", Level.PROFICIENT),
        ("0.9", Level.EXPERT),
        ("1", Level.EXPERT),
    ],
)
def test_the_level_is_that_of_the_rounded_score(score: str, level: Level) -> None:
    found = combined(parts(completion=score, quiz=score, quality=score, consistency=score))

    assert found is not None
    assert found.level is level


def test_completion_of_eight_of_ten_exercises_one_hard_item_open_and_an_easy_one_done() -> None:
    found = index_of(
        event(Kind.EXERCISE_COMPLETED, "x"),
        assigned("hard"),
        assigned("easy"),
        submitted("easy"),
        said={
            "x": {"totalExercises": 10, "completedExercises": 8, "difficulty": "intermediate"},
            "a-hard": {"difficulty": "advanced"},
            "a-easy": {"difficulty": "beginner"},
        },
    )

    assert found is not None
    assert found.completion == 733  # 8.8 / 12


def test_the_difficulty_that_assigns_the_work_wins_over_that_of_the_assignment() -> None:
    events = [assigned("a"), submitted("a"), assigned("b")]
    kept = {("7b", "a"): Difficulty.ADVANCED, ("7b", "b"): Difficulty.BEGINNER}

    def completion(details: dict[tuple[str, str], Detail]) -> int | None:
        [found] = indexes_at(history_of(events, details=details, difficulties=kept, zone="UTC"), [END])
        return None if found is None else found.completion

    assert completion({}) == 600  # 1.2 / 2.0
    assert completion({("lms", "a-b"): Detail(Difficulty.ADVANCED)}) == 500


def test_a_quiz_counts_once_with_its_latest_attempt() -> None:
    found = index_of(quizzed("q1", "q", 0.80, days_ago=2), quizzed("q2", "q", 0.90), quizzed("q3", "r", 0.70))

    assert found is not None
    assert found.quiz == 800


def test_quizzes_and_quality_count_for_28_local_days() -> None:
    within, before = 27, 28
    said = {"x": {"codeQuality": 0.5}}

    def found(days_ago: int) -> tuple[int | None, int | None]:
        one = index_of(
            assigned("a"),
            quizzed("q", "q", 0.6, days_ago=days_ago),
            event(Kind.QUALITY_ASSESSED, "x", days_ago=days_ago),
            said=said,
        )
        assert one is not None
        return one.quiz, one.quality

    assert (found(within), found(before)) == ((600, 500), (None, None))


def test_quality_is_the_mean_of_the_sub_scores_present() -> None:
    said = {"x": {"codeQuality": 0.80, "correctness": 0.90, "efficiency": 0.70}}

    found = index_of(event(Kind.QUALITY_ASSESSED, "x"), said=said)

    assert found is not None
    assert found.quality == 800


def test_without_assessments_the_rubrics_of_graded_work_are_its_quality_and_tags_are_not() -> None:
    work = [event(Kind.SUBMISSION_GRADED, name, assignment=name, ratio=500_000) for name in ("g1", "g2", "g3")]
    said: dict[str, dict[str, Any]] = {
        "g1": {"metadata": {"rubric": {"style": 0.6, "proof": 0.8, "remark": "good"}}},
        "g2": {"metadata": {"rubric": {"style": 0.9, "points": 7}}},
        "g3": {"rubricTags": ["clear"]},
    }

    alone = index_of(*work, said=said)
    beside = index_of(*work, event(Kind.QUALITY_ASSESSED, "x"), said={**said, "x": {"correctness": 0}})

    assert alone is not None
    assert beside is not None
    assert (alone.quality, beside.quality) == (800, 0)


def test_consistency_of_six_active_days_and_three_idle_ones() -> None:
    assert consistency_of(6, 3) == Fraction("0.486")
    assert consistency_of(14, 0) == 1
    events = [event(Kind.CONTENT_VIEWED, f"v{n}", days_ago=n) for n in (3, 4, 5, 8, 13, 3, 12)]

    found = index_of(*events)
    assert found is not None
    assert found.consistency == 486


def test_two_weeks_without_activity_are_zero_and_before_the_first_there_is_nothing() -> None:
    long_ago = index_of(event(Kind.CONTENT_VIEWED, "v", days_ago=14))
    never = index_of(assigned("a"))

    assert long_ago is not None
    assert never is not None
    assert (long_ago.consistency, never.consistency) == (0, None)


def test_days_are_those_on_the_wall_of_the_student() -> None:
    """At 23:30 UTC it is the next day in Berlin: both views lie on one date there, on two in London."""
    views = [
        event(Kind.CONTENT_VIEWED, "v1", occurred_at=datetime(2026, 3, 15, 23, 30, tzinfo=UTC)),
        event(Kind.CONTENT_VIEWED, "v2", occurred_at=datetime(2026, 3, 16, 8, tzinfo=UTC)),
    ]

    def consistency(zone: str) -> int | None:
        found = index_of(*views, zone=zone)
        return None if found is None else found.consistency

    assert (consistency("Europe/London"), consistency("Europe/Berlin")) == (200, 100)


@pytest.mark.feature("E", "004-12")
def test_a_day_counts_what_happened_before_its_end_and_corrections_whenever_they_came() -> None:
    excuse = event(Kind.ASSIGNMENT_EXCUSED, "x", assignment="b", days_ago=-3)
    history = [assigned("a", days_ago=2), assigned("b", days_ago=2), submitted("a", days_ago=1)]

    def completions(*events: LearningEvent) -> list[int | None]:
        ends: Sequence[datetime] = [END - 3 * DAY, END - 2 * DAY, END - DAY, END]
        found = indexes_at(history_of(events, details={}, difficulties={}, zone="UTC"), ends)
        return [None if one is None else one.completion for one in found]

    assert completions(*history) == [None, 0, 500, 500]
    assert completions(*history, excuse) == [None, 0, 1000, 1000]


def test_work_set_aside_by_a_reopening_keeps_its_activity_and_loses_its_exercises() -> None:
    said = {"x": {"totalExercises": 4, "completedExercises": 4}}
    reopened = event(Kind.ASSIGNMENT_REOPENED, "r", assignment="a", occurred_at=NOON + timedelta(hours=1))
    done = [assigned("a", days_ago=1), event(Kind.EXERCISE_COMPLETED, "x", assignment="a")]

    before, after = index_of(*done, said=said), index_of(*done, reopened, said=said)

    assert before is not None
    assert after is not None
    assert (before.completion, before.consistency) == (800, 100)
    assert (after.completion, after.consistency) == (0, 100)


# ---------------------------------------------------------------- trend

FIRST = date(2026, 3, 1)
EXAMPLE = dict(zip((1, 2, 3, 6, 7, 8, 9, 10), (500, 520, 550, 600, 610, 630, 660, 680), strict=True))


@pytest.mark.feature("E", "001-27", "003-60")
def test_the_trend_of_definition_e() -> None:
    scores = {FIRST + (day - 1) * DAY: score for day, score in EXAMPLE.items()}

    found = trend_of(scores, today=FIRST + 10 * DAY)

    assert found is not None
    assert (round(found.slope / 1e6, 4), found.direction) == (0.0192, Direction.IMPROVING)
    assert found.r_squared is not None
    assert round(found.r_squared / 1e6, 3) == 0.992
    assert historical_average(scores, today=FIRST + 10 * DAY) == 594  # 0.59375, half to even


@pytest.mark.feature("E", "X-11")
def test_two_snapshots_are_no_trend_and_today_and_what_is_older_do_not_count() -> None:
    today = FIRST + 40 * DAY
    scores = {FIRST: 900, today - 30 * DAY: 500, today - DAY: 500, today: 900}

    assert trend_of(scores, today=today) is None
    assert trend_of({**scores, today - 2 * DAY: 500}, today=today) == Trend(0, Direction.STABLE, None)
    assert historical_average({}, today=today) is None


@pytest.mark.feature("E")
@pytest.mark.parametrize(
    ("step", "direction"),
    [(11, Direction.IMPROVING), (10, Direction.STABLE), (-10, Direction.STABLE), (-11, Direction.DECLINING)],
)
def test_a_hundredth_a_day_is_still_stable(step: int, direction: Direction) -> None:
    found = trend_of({FIRST + n * DAY: 500 + n * step for n in range(3)}, today=FIRST + 3 * DAY)

    assert found is not None
    assert (found.slope, found.direction) == (step * 1000, direction)
