"""Definition A and the progress of a concept, by the examples of the specification and by law."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.evidence import Kind
from rules.policy import DEFAULT_POLICY, Model, Policy
from rules.rounding import half_even
from rules.skill import (
    Mastery,
    MasterySource,
    Progress,
    Standing,
    State,
    Status,
    evidence_count,
    mastery_of,
    progress_of,
    state_of,
    status_of,
)
from tests.rules.samples import at, event, folded, quizzes

RATIO_POLICY = replace(DEFAULT_POLICY, model=Model.SUCCESS_RATIO)


def standing_after(*scores: float, policy: Policy = DEFAULT_POLICY) -> Standing:
    return folded(quizzes(*scores), policy=policy).standings["fractions"]


@pytest.mark.feature("000-12", "A")
def test_the_newest_of_three_scores_weighs_most() -> None:
    scores = [standing_after(*(0.55, 0.80, 0.90)[:count]).score for count in (1, 2, 3)]

    assert scores == [550, 712, 821]


@pytest.mark.feature("000-12", "A", "X-11")
def test_mastery_begins_at_the_first_event_that_holds_the_threshold_with_enough_evidence() -> None:
    two, three = standing_after(0.90, 0.90), standing_after(0.55, 0.80, 0.90)

    assert (two.score, two.mastered_at, state_of(two, DEFAULT_POLICY)) == (900, None, State.LOW_EVIDENCE)
    assert (three.score, three.mastered_at, state_of(three, DEFAULT_POLICY)) == (821, at(3), State.OK)


@pytest.mark.feature("001-05", "000-12")
def test_later_low_scores_do_not_undo_mastery() -> None:
    standing = standing_after(0.55, 0.80, 0.90, 0.10)

    assert standing.score == 328  # 0.65 * 0.10 + 0.35 * mean(0.55, 0.80, 0.90) = 0.3275, the tie to the even
    assert standing.mastered_at == at(3)
    assert status_of(standing) is Status.MASTERED


@pytest.mark.feature("A")
def test_the_threshold_compares_the_rounded_score() -> None:
    almost = standing_after(0.7995, 0.7995, 0.7995)  # 0.7995 is a tie: to 0.800, the even neighbour

    assert (almost.score, almost.mastered_at) == (800, at(3))


@pytest.mark.feature("A")
def test_extra_credit_lifts_no_mastery_above_one_but_shows_as_the_best_score() -> None:
    standing = standing_after(1.1)

    assert (standing.score, standing.newest, standing.best, standing.latest) == (1000, 1_000_000, 1_100_000, 1_100_000)


@pytest.mark.feature("002-06", "A")
def test_success_ratio_counts_successful_quiz_attempts_of_all() -> None:
    standing = standing_after(0.55, 0.80, 0.90, policy=RATIO_POLICY)

    assert (standing.successes, standing.quiz_attempts, standing.score) == (2, 3, 667)


@pytest.mark.feature("002-06")
def test_a_ratio_at_the_success_threshold_is_a_success() -> None:
    assert standing_after(0.60, 0.599999, policy=RATIO_POLICY).score == 500


@pytest.mark.feature("002-06", "002-07", "X-11")
def test_without_quiz_attempts_the_success_ratio_is_none_and_the_state_no_data() -> None:
    graded = event(Kind.SUBMISSION_GRADED, "e1", at(1), score=0.9, item="a1")

    standing = folded([graded], policy=RATIO_POLICY).standings["fractions"]

    assert (standing.score, standing.count, evidence_count(standing, RATIO_POLICY)) == (None, 1, 0)
    assert state_of(standing, RATIO_POLICY) is State.NO_DATA


@pytest.mark.feature("002-07", "X-11")
def test_a_concept_without_evidence_has_no_data() -> None:
    nothing = Standing("fractions")

    assert (nothing.score, state_of(nothing, DEFAULT_POLICY)) == (None, State.NO_DATA)
    assert (mastery_of(nothing), status_of(nothing)) == (None, Status.NOT_STARTED)


@pytest.mark.feature("A")
@pytest.mark.parametrize(
    ("kind", "is_evidence"),
    [
        (Kind.SUBMISSION_GRADED, True),
        (Kind.QUIZ_ATTEMPT, True),
        (Kind.CONCEPT_COMPLETED, True),
        (Kind.CONCEPT_MASTERED, True),
        (Kind.CONCEPT_STARTED, False),
        (Kind.EXERCISE_COMPLETED, False),
        (Kind.OTHER, False),
    ],
)
def test_only_four_kinds_of_scored_events_are_evidence(kind: Kind, is_evidence: bool) -> None:
    standing = folded([event(kind, "e1", at(1), score=0.7)]).standings.get("fractions", Standing("fractions"))

    assert (standing.count, standing.score) == ((1, 700) if is_evidence else (0, None))


@pytest.mark.feature("A")
def test_an_event_naming_several_concepts_counts_fully_for_each() -> None:
    state = folded([event(Kind.QUIZ_ATTEMPT, "e1", at(1), score=0.7, concepts=("k1", "k2"))])

    assert {name: (one.count, one.score) for name, one in state.standings.items()} == {"k1": (1, 700), "k2": (1, 700)}


@pytest.mark.feature("001-04", "001-05")
def test_of_a_claim_and_a_computation_the_earlier_gives_the_date() -> None:
    claim = event(Kind.CONCEPT_MASTERED, "claim", at(2.5))
    computed_first = folded([*quizzes(0.55, 0.80, 0.90), event(Kind.CONCEPT_MASTERED, "claim", at(9))])
    claimed_first = folded(sorted([*quizzes(0.55, 0.80, 0.90), claim], key=lambda e: e.key))

    assert mastery_of(computed_first.standings["fractions"]) == Mastery(at(3), MasterySource.COMPUTED)
    assert mastery_of(claimed_first.standings["fractions"]) == Mastery(at(2.5), MasterySource.CLAIMED)


@pytest.mark.feature("001-04")
@pytest.mark.parametrize(
    ("kind", "score", "status", "is_accessed", "time_spent_ms"),
    [
        (Kind.CONCEPT_STARTED, None, Status.IN_PROGRESS, True, 60_000),
        (Kind.CONTENT_VIEWED, None, Status.IN_PROGRESS, True, 60_000),
        (Kind.SUBMISSION_GRADED, 0.4, Status.IN_PROGRESS, False, 60_000),
        (Kind.CONCEPT_COMPLETED, None, Status.COMPLETED, True, 60_000),
        (Kind.CONCEPT_MASTERED, None, Status.MASTERED, True, 60_000),
        (Kind.HELP_REQUESTED, None, Status.NOT_STARTED, False, 60_000),
        (Kind.ASSIGNMENT_ASSIGNED, None, Status.NOT_STARTED, False, 0),
        (Kind.EVENT_VOIDED, None, Status.NOT_STARTED, False, 0),
    ],
)
def test_progress_by_kind_of_event(
    kind: Kind, score: float | None, status: Status, is_accessed: bool, time_spent_ms: int
) -> None:
    one = event(kind, "e1", at(1), score=score, item="a1", spent_ms=60_000)

    standing = folded([one]).standings.get("fractions", Standing("fractions"))

    assert status_of(standing) is status
    assert standing.last_accessed_at == (at(1) if is_accessed else None)
    assert standing.time_spent_ms == time_spent_ms


@pytest.mark.feature("001-04")
def test_status_is_the_highest_rank_whatever_came_later() -> None:
    state = folded([event(Kind.CONCEPT_COMPLETED, "e1", at(1)), event(Kind.CONCEPT_STARTED, "e2", at(2))])

    assert status_of(state.standings["fractions"]) is Status.COMPLETED


@pytest.mark.feature("001-04")
def test_attempts_best_and_latest_of_a_concept() -> None:
    standing = standing_after(0.5, 0.9, 0.7)

    assert (standing.count, standing.best, standing.latest) == (3, 900_000, 700_000)
    assert standing.last_evidence_at == at(3)


@pytest.mark.feature("001-03")
def test_overall_progress_adds_up_concepts() -> None:
    state = folded(
        [
            *quizzes(0.55, 0.80, 0.90),
            event(Kind.CONCEPT_STARTED, "e4", at(4), concepts=("decimals",), spent_ms=1_500),
            event(Kind.QUIZ_ATTEMPT, "e5", at(5), concepts=("ratios",), score=0.5, quiz="q5", spent_ms=500),
        ]
    )

    assert progress_of(state.standings.values()) == Progress(
        by_status={Status.NOT_STARTED: 0, Status.IN_PROGRESS: 2, Status.COMPLETED: 0, Status.MASTERED: 1},
        average_score=660,  # mean(0.821, 0.500) = 0.6605, the tie to the even
        time_spent_ms=2_000,
        last_activity_at=at(5),
    )


@pytest.mark.feature("001-03", "X-11")
def test_overall_progress_of_nothing_has_no_average() -> None:
    assert progress_of([]) == Progress(dict.fromkeys(Status, 0), None, 0, None)


@pytest.mark.feature("000-12")
def test_a_standing_names_the_policy_version_that_made_it() -> None:
    assert standing_after(0.5, policy=replace(DEFAULT_POLICY, version=7)).policy_version == 7


@pytest.mark.feature("A")
@given(
    st.lists(st.integers(0, 1_100_000), min_size=1, max_size=30),
    st.integers(1, 99),
)
def test_the_decaying_average_is_definition_a_to_the_digit(ratios: list[int], percent: int) -> None:
    policy = replace(DEFAULT_POLICY, recent_percent=percent)
    events = [replace(quizzes(0.0)[0], event_id=f"e{n}", occurred_at=at(n), ratio=r) for n, r in enumerate(ratios)]

    standing = folded(events, policy=policy).standings["fractions"]

    capped = [Fraction(min(ratio, 1_000_000), 1_000_000) for ratio in ratios]
    part = Fraction(percent, 100)
    exact = capped[0] if len(capped) == 1 else part * capped[-1] + (1 - part) * sum(capped[:-1]) / (len(capped) - 1)
    assert standing.score == round(exact * 1000)  # Fraction rounds half-even


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**9))
def test_half_even_rounds_as_exact_fractions_do(numerator: int, denominator: int) -> None:
    assert half_even(numerator, denominator) == round(Fraction(numerator, denominator))
