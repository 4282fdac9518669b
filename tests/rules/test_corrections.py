"""Regrades, excuses and reopenings as rules: a history is folded as if it had always been the corrected one."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rules.classroom import EMPTY_VIEW, WorkStatus, status_of_work
from rules.corrections import by_view
from rules.evidence import Kind, LearningEvent
from rules.outcome import ViewState, replay_view
from rules.policy import DEFAULT_POLICY
from rules.skill import State, state_of
from tests.rules.samples import at, event, quizzes
from tests.support.corrections import about_item, corrected_set, corrections, is_plain, regrade

MOMENTS = [at(minutes) for minutes in (0, 1, 2, 3, 4, 5)]
RATIOS = (0, 300_000, 700_000, 1_000_000)
EXCUSED, REOPENED = Kind.ASSIGNMENT_EXCUSED, Kind.ASSIGNMENT_REOPENED


def replayed(events: list[LearningEvent]) -> ViewState:
    return replay_view(events, policy=DEFAULT_POLICY, is_class=True)


def score_of(events: list[LearningEvent]) -> int | None:
    return replayed(events).standings["fractions"].score


def assigned(when: float = 0, **more: Any) -> LearningEvent:
    return event(Kind.ASSIGNMENT_ASSIGNED, "assigned", at(when), item="hw", **more)


def grade(name: str, score: float, when: float, **more: Any) -> LearningEvent:
    return event(Kind.SUBMISSION_GRADED, name, at(when), score=score, item="hw", **more)


@st.composite
def histories(draw: st.DrawFn) -> list[LearningEvent]:
    kinds = st.sampled_from(
        [Kind.SUBMISSION_GRADED] * 3
        + [Kind.QUIZ_ATTEMPT, Kind.ASSIGNMENT_ASSIGNED, Kind.SUBMISSION_CREATED, Kind.CONCEPT_COMPLETED]
    )
    found = []
    for number in range(draw(st.integers(1, 7))):
        kind = draw(kinds)
        has_score = kind in (Kind.SUBMISSION_GRADED, Kind.QUIZ_ATTEMPT) or (
            kind is Kind.CONCEPT_COMPLETED and draw(st.booleans())
        )
        item = draw(st.sampled_from(["hw1", "hw2"]))
        found.append(
            event(
                kind, f"e{number}", draw(st.sampled_from(MOMENTS)), item=item,
                score=draw(st.sampled_from([0, 0.5, 0.9, 1])) if has_score else None,
                submission=draw(st.sampled_from([None, f"{item}-a", f"{item}-b"])) if has_score else None,
                due_at=draw(st.sampled_from([None, at(2)])) if kind is Kind.ASSIGNMENT_ASSIGNED else None,
            )
        )  # fmt: skip
    return found


@pytest.mark.feature("I", "X-02", "X-03", "X-04", "X-05")
@settings(max_examples=400)
@given(data=st.data())
def test_in_any_order_corrections_leave_what_the_corrected_set_says(data: st.DataObject) -> None:
    events = data.draw(histories())
    assume(is_plain(events))
    told = data.draw(corrections(events, moments=MOMENTS, ratios=RATIOS))

    mixed = replayed(data.draw(st.permutations([*events, *told])))

    left, excused = corrected_set(events, told)
    plain = replayed(left)
    assert replace(mixed.view, last=None) == replace(plain.view, last=None)
    assert mixed.standings == plain.standings
    assert {item for item, work in mixed.works.items() if work.is_excused} == {item for _, _, item in excused}
    assert {item: work for item, work in mixed.works.items() if not work.is_excused} == plain.works


@pytest.mark.feature("I", "X-02")
def test_the_example_of_a_regraded_third_score() -> None:
    first, second, third = quizzes(0.55, 0.80, 0.90)
    told = regrade("r", third, 700_000, at(9))

    before, after = replayed([first, second, third]), replayed([first, second, third, told])

    assert (before.standings["fractions"].score, before.standings["fractions"].mastered_at) == (821, third.occurred_at)
    assert (after.standings["fractions"].score, after.standings["fractions"].mastered_at) == (691, None)
    assert state_of(after.standings["fractions"], DEFAULT_POLICY) is State.OK


@pytest.mark.feature("X-02")
def test_a_regrade_keeps_the_place_in_time_and_the_last_one_in_total_order_wins() -> None:
    first, second, third = quizzes(0.55, 0.80, 0.90)
    early, late = regrade("a", second, 100_000, at(50)), regrade("b", second, 200_000, at(60))

    assert score_of([late, third, early, second, first]) == score_of(quizzes(0.55, 0.20, 0.90))


@pytest.mark.feature("X-02")
@pytest.mark.parametrize(
    ("steps", "value"),
    [
        ([(600_000, True, 10)], 800_000),
        ([(800_000, True, 10)], 800_000),
        ([(900_000, True, 10)], 900_000),
        ([(900_000, True, 10), (850_000, True, 20)], 900_000),
        ([(300_000, False, 10), (500_000, True, 20)], 500_000),  # higher than what is in force by then
        ([(500_000, True, 10), (300_000, False, 20)], 300_000),  # 0.8 stands until the last word
    ],
)
def test_only_if_higher_compares_with_the_value_in_force_at_its_place(
    steps: list[tuple[int, bool, int]], value: int
) -> None:
    given_grade = grade("g", 0.8, 1)
    told = [
        regrade(f"r{place}", given_grade, ratio, at(when), only_if_higher=flag)
        for place, (ratio, flag, when) in enumerate(steps)
    ]

    assert replayed([*told[::-1], assigned(), given_grade]).works["hw"].counted == value


@pytest.mark.feature("X-02")
def test_a_regrade_of_a_submission_is_a_word_among_its_grades() -> None:
    first, again = grade("g1", 0.5, 1, submission="s"), grade("g2", 0.6, 3, submission="s")
    between = regrade("r1", first, 900_000, at(2), by_submission=True)
    last = regrade("r2", first, 100_000, at(4), by_submission=True)

    assert replayed([first, between, again]).works["hw"].counted == 600_000  # graded again after the regrade
    assert replayed([first, between, again, last]).works["hw"].counted == 100_000
    assert replayed([first, last]).works["hw"].counted_place == first.key


@pytest.mark.feature("X-02", "X-05")
def test_a_regrade_stamped_before_its_grade_still_replaces_it_and_a_regrade_of_a_regrade_nothing() -> None:
    late_clock = regrade("r", grade("g", 0.5, 9), 700_000, at(1))
    of_it = regrade("rr", late_clock, 100_000, at(20))

    assert replayed([grade("g", 0.5, 9), late_clock, of_it]).works["hw"].counted == 700_000


@pytest.mark.feature("X-02")
def test_what_has_no_score_cannot_be_regraded() -> None:
    handed_in = event(Kind.SUBMISSION_CREATED, "s", at(1), item="hw")

    assert replayed([handed_in, regrade("r", handed_in, 900_000, at(2))]) == replayed([handed_in])


@pytest.mark.feature("X-03", "D")
def test_excused_work_counts_nowhere_though_the_student_was_active() -> None:
    work = [
        assigned(),
        event(Kind.SUBMISSION_CREATED, "s", at(1), item="hw"),
        grade("g", 0.2, 2),
        event(Kind.QUIZ_ATTEMPT, "q", at(3), score=0.9, item="other"),
    ]
    excuse = about_item(EXCUSED, "x", work[0], at(4))
    later = grade("again", 0.3, 5)

    state = replayed([*work, excuse, later])

    assert (state.view.assigned, state.view.graded, state.view.open_items) == (0, 0, ())
    assert (state.view.score_sum, state.view.score_count) == (900_000, 1)
    assert [score.item for score in state.view.recent] == ["other"]
    assert (state.standings["fractions"].count, state.standings["fractions"].score) == (1, 900)
    assert state.view.last_active_at == at(3)
    assert status_of_work(state.works["hw"], due_at=None, now=at(9)) is WorkStatus.EXCUSED


@pytest.mark.feature("X-04", "D")
def test_reopened_work_is_assigned_again_and_only_what_comes_later_counts() -> None:
    work = [assigned(due_at=at(1)), grade("g", 0.2, 2, submission="s")]
    excuse, reopening = about_item(EXCUSED, "x", work[0], at(3)), about_item(REOPENED, "o", work[0], at(4))
    with_due = about_item(REOPENED, "o2", work[0], at(5), due_at=at(60))
    again = grade("g2", 0.7, 6, submission="s")
    stale = regrade("r", work[1], 1_000_000, at(3), by_submission=True)

    reopened = replayed([*work, excuse, reopening])
    moved = replayed([*work, excuse, reopening, with_due])
    done = replayed([*work, excuse, reopening, stale, again])

    assert status_of_work(reopened.works["hw"], due_at=None, now=at(9)) is WorkStatus.OVERDUE
    assert status_of_work(moved.works["hw"], due_at=None, now=at(9)) is WorkStatus.ASSIGNED
    assert reopened.standings == {}
    assert (reopened.view.assigned, reopened.view.graded, len(reopened.view.open_items)) == (1, 0, 1)
    assert (done.works["hw"].counted, done.works["hw"].counted_place) == (700_000, again.key)
    assert done.standings["fractions"].score == 700


@pytest.mark.feature("X-03", "X-04")
def test_between_excuse_and_reopening_the_later_one_wins() -> None:
    work = [assigned(), grade("g", 0.2, 1)]
    excuse, reopening = about_item(EXCUSED, "x", work[0], at(5)), about_item(REOPENED, "o", work[0], at(4))

    assert replayed([*work, reopening, excuse]).works["hw"].is_excused
    assert not replayed([*work, excuse, about_item(REOPENED, "o", work[0], at(6))]).works["hw"].is_excused


@pytest.mark.feature("X-03", "X-04", "X-05")
@pytest.mark.parametrize("kind", [EXCUSED, REOPENED])
def test_a_correction_of_an_item_that_the_student_does_not_have_waits(kind: Kind) -> None:
    told = about_item(kind, "c", assigned(), at(1), due_at=None)

    assert replayed([told]).view == EMPTY_VIEW
    assert replayed([told, event(Kind.CONTENT_VIEWED, "v", at(2))]).works == {}


@pytest.mark.feature("X-03")
def test_corrections_stay_within_their_class_and_student() -> None:
    here, there = grade("g", 0.5, 1), grade("h", 0.7, 2)
    elsewhere = LearningEvent(**{**_fields(there), "classroom": "8a"})
    excuse = about_item(EXCUSED, "x", here, at(3))

    views = by_view([here, elsewhere, excuse], classrooms={"7b", "8a"})

    assert set(views) == {("s1", ""), ("s1", "7b"), ("s1", "8a")}
    scores = {
        key[1]: replay_view(events, policy=DEFAULT_POLICY, is_class=bool(key[1])).standings
        for key, events in views.items()
    }
    assert {room: [standing.score for standing in found.values()] for room, found in scores.items()} == {
        "": [700], "7b": [], "8a": [700],
    }  # fmt: skip


def _fields(given: LearningEvent) -> dict[str, Any]:
    return {name: getattr(given, name) for name in given.__struct_fields__}


def test_a_view_goes_on_after_the_last_event_that_is_left() -> None:
    work = [assigned(), grade("g", 0.2, 1)]

    assert replayed([*work, regrade("r", work[1], 1, at(9) + timedelta(days=1))]).view.last == work[1].key
