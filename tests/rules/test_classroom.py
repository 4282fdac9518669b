"""Definitions C and D: one student's work in a class, and what the class adds up to."""

import random
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.classroom import (
    EMPTY_VIEW,
    CountedScore,
    OpenItem,
    Rollup,
    View,
    Work,
    WorkStatus,
    completion_of,
    is_late,
    rollup_of,
    status_of_work,
)
from rules.evidence import Kind, LearningEvent
from rules.outcome import ViewState, fold_view
from rules.policy import DEFAULT_POLICY
from tests.rules.samples import NOTHING, at, event, folded, folded_in_batches, member, rated


def assigned(item: str, minute: float, due_at: datetime | None = None, name: str = "") -> LearningEvent:
    return event(Kind.ASSIGNMENT_ASSIGNED, name or f"assign-{item}", at(minute), item=item, due_at=due_at)


def graded(item: str, minute: float, score: float) -> LearningEvent:
    return event(Kind.SUBMISSION_GRADED, f"grade-{item}-{minute}", at(minute), item=item, score=score)


@pytest.mark.feature("000-13", "C", "X-09")
def test_the_class_of_definition_c() -> None:
    p = folded(
        [
            *(assigned(item, n) for n, item in enumerate("abcd")),
            *(graded(item, 10 + n, score) for n, (item, score) in enumerate(zip("abc", (0.7, 0.8, 0.9), strict=True))),
            event(Kind.SUBMISSION_CREATED, "sub-d", at(20), item="d"),
        ]
    )
    excused = ViewState(EMPTY_VIEW, {"d": Work("d", is_excused=True)}, {})
    q = fold_view(
        excused,
        [*(assigned(item, n) for n, item in enumerate("abcd")), *(graded(item, 10 + ord(item), 0.9) for item in "abc")],
        policy=DEFAULT_POLICY,
        is_class=True,
    )

    rollup = rollup_of([member("P", view=p.view), member("Q", view=q.view), member("R")])  # S is dropped: not given

    assert (p.view.assigned, p.view.graded, p.view.submitted) == (4, 3, 4)
    assert (q.view.assigned, q.view.graded, q.view.submitted) == (3, 3, 3)
    assert rollup == Rollup(completion_rate=875, average_score=850, submission_rate=1000, active_students=3)


@pytest.mark.feature("000-13", "X-11")
def test_a_class_without_work_has_no_rates() -> None:
    assert rollup_of([member("R")]) == Rollup(None, None, None, active_students=1)
    assert rollup_of([]) == Rollup(None, None, None, active_students=0)


@pytest.mark.feature("C14", "000-13")
def test_a_grade_without_assignment_counts_for_averages_and_enters_the_rate_once_assigned() -> None:
    alone = folded([graded("a", 1, 0.6)])
    later = folded([graded("a", 1, 0.6), assigned("a", 2)])

    assert alone.view == View(
        last=(at(1), 0, "lms", "grade-a-1"),
        score_sum=600_000,
        score_count=1,
        recent=(CountedScore("a", 600_000, (at(1), 0, "lms", "grade-a-1")),),
    )
    assert completion_of(alone.view) is None
    assert (later.view.assigned, later.view.graded, later.view.open_items) == (1, 1, ())
    assert completion_of(later.view) == 1000


@pytest.mark.feature("000-13", "C")
def test_the_attempt_last_in_order_gives_the_counted_score() -> None:
    state = folded([assigned("a", 0), graded("a", 1, 0.9), graded("b", 2, 0.5), graded("a", 3, 0.4)])

    assert (state.view.score_sum, state.view.score_count) == (900_000, 2)
    assert [(score.item, score.ratio) for score in state.view.recent] == [("b", 500_000), ("a", 400_000)]


@pytest.mark.feature("000-15")
def test_the_last_four_counted_scores_are_kept_one_an_item() -> None:
    grades = [graded(item, n, 0.5) for n, item in enumerate("abcdeb")]

    at_once, one_by_one = folded(grades), folded_in_batches([[grade] for grade in grades], is_class=True)

    assert [score.item for score in at_once.view.recent] == ["c", "d", "e", "b"]
    assert one_by_one == at_once


@pytest.mark.feature("000-14", "D")
def test_the_last_assignment_in_order_gives_the_due_date() -> None:
    state = folded([assigned("a", 0, at(100), "first"), assigned("a", 1, at(200), "second")])

    assert state.view.open_items == (OpenItem("a", at(200), False, ("lms", "second")),)
    assert state.view.assigned == 1


@pytest.mark.feature("000-14")
def test_an_open_item_knows_that_it_was_handed_in_and_leaves_once_graded() -> None:
    handed_in = [assigned("a", 0), event(Kind.SUBMISSION_CREATED, "sub", at(1), item="a")]

    assert folded(handed_in).view.open_items == (OpenItem("a", None, True, ("lms", "assign-a")),)
    assert folded([*handed_in, graded("a", 2, 0.0)]).view.open_items == ()


@pytest.mark.feature("000-13")
def test_over_all_classes_a_view_keeps_only_its_last_key_and_activity() -> None:
    state = folded([assigned("a", 0), *[event(Kind.CONTENT_VIEWED, "v", at(1))], graded("a", 2, 0.5)], is_class=False)

    assert state.view == View(last=(at(2), 0, "lms", "grade-a-2"), last_active_at=at(1))
    assert state.works == {}
    assert state.standings["fractions"].score == 500


@pytest.mark.feature("000-13")
def test_a_grade_is_no_activity_of_the_student() -> None:
    assert folded([graded("a", 1, 0.5)]).view.last_active_at is None
    assert folded([event(Kind.STUDENT_LOGIN, "l", at(1))]).view.last_active_at is None
    assert folded([event(Kind.SUBMISSION_CREATED, "s", at(1), item="a")]).view.last_active_at == at(1)


@pytest.mark.feature("D")
def test_the_days_of_definition_d() -> None:
    due_at = datetime(2026, 3, 10, 22, 59, tzinfo=UTC)  # 10 March 23:59 in Berlin
    work = Work("a", is_assigned=True, assigned_by=("lms", "x"), due_at=due_at)
    handed_in = Work("a", is_assigned=True, due_at=due_at, submitted_at=datetime(2026, 3, 12, 9, tzinfo=UTC))
    excused = Work("a", is_assigned=True, is_excused=True, due_at=due_at, submitted_at=handed_in.submitted_at)

    def status(work: Work, day: int) -> WorkStatus | None:
        return status_of_work(work, due_at=None, now=datetime(2026, 3, day, 12, tzinfo=UTC))

    assert [status(work, 10), status(work, 11)] == [WorkStatus.ASSIGNED, WorkStatus.OVERDUE]
    assert (status(handed_in, 12), is_late(handed_in, due_at=None)) == (WorkStatus.SUBMITTED, True)
    assert status(excused, 13) is WorkStatus.EXCUSED


@pytest.mark.feature("D")
def test_work_is_on_time_at_the_due_instant_and_graded_work_never_overdue() -> None:
    work = Work("a", is_assigned=True, assigned_by=("lms", "x"))

    assert status_of_work(work, due_at=at(5), now=at(5)) is WorkStatus.ASSIGNED
    assert status_of_work(work, due_at=at(5), now=at(5.001)) is WorkStatus.OVERDUE
    assert status_of_work(Work("a", is_assigned=True, counted=1), due_at=at(5), now=at(9)) is WorkStatus.GRADED
    assert status_of_work(Work("a"), due_at=at(5), now=at(9)) is None
    assert not is_late(Work("a", submitted_at=at(5)), due_at=at(5))


@pytest.mark.feature("000-13", "C")
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), max_size=12), st.randoms())
def test_class_means_are_exact_and_no_order_changes_a_digit(
    rows: list[tuple[int, int, int]], dice: random.Random
) -> None:
    members = [
        member(f"s{n}", view=View(assigned=a, graded=min(g, a), submitted=a, score_sum=g * 777_777, score_count=c))
        for n, (a, g, c) in enumerate(rows)
    ]

    rollup = rollup_of(members)

    rates = [Fraction(one.view.graded, one.view.assigned) for one in members if one.view.assigned]
    means = [Fraction(one.view.score_sum, one.view.score_count) for one in members if one.view.score_count]
    assert rollup.completion_rate == (round(sum(rates) / len(rates) * 1000) if rates else None)
    assert rollup.average_score == (round(sum(means) / len(means) / 1000) if means else None)
    assert (rollup.completion_rate or 0) <= 1000
    assert (rollup.submission_rate or 0) <= 1000
    assert rollup_of(dice.sample(members, len(members))) == rollup


@pytest.mark.feature("000-13")
def test_a_student_rate_is_rounded_half_even() -> None:
    assert [completion_of(rated("s", graded, of).view) for graded, of in ((2, 3), (1, 16), (3, 16))] == [667, 62, 188]


def test_no_event_leaves_a_view_as_it_is() -> None:
    assert fold_view(NOTHING, [], policy=DEFAULT_POLICY, is_class=True) is NOTHING
