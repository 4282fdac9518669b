"""The laws of the fold: whatever the batches, whatever the arrival, the state is the replay's."""

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.classroom import EMPTY_VIEW, ClassFacts, CountedScore, View, rollup_of
from rules.evidence import Kind, LearningEvent
from rules.outcome import (
    Beside,
    OutOfOrder,
    ViewState,
    assess_classroom,
    continue_view,
    fold_view,
    needs_replay,
    replay_view,
)
from rules.policy import DEFAULT_POLICY, Model, Policy
from tests.rules.samples import (
    BERLIN,
    NOTHING,
    START,
    at,
    cut,
    event,
    folded,
    folded_in_batches,
    histories,
    member,
    quizzes,
)

POLICIES = st.sampled_from([DEFAULT_POLICY, replace(DEFAULT_POLICY, model=Model.SUCCESS_RATIO, min_evidence=1)])
CUTS = st.lists(st.integers(0, 25), max_size=6)


@pytest.mark.feature("000-08", "000-11")
@given(histories(has_regrades=False), CUTS, POLICIES, st.booleans())
def test_any_batching_of_the_sorted_events_is_the_replay(
    events: list[LearningEvent], cuts: list[int], policy: Policy, is_class: bool
) -> None:
    ordered = sorted(events, key=lambda e: e.key)

    state = folded_in_batches(cut(ordered, cuts), is_class=is_class, policy=policy)

    assert state == replay_view(events, policy=policy, is_class=is_class)


@pytest.mark.feature("000-08", "000-11")
@given(histories(has_regrades=True), st.randoms(), POLICIES, st.booleans())
def test_no_order_of_arrival_changes_a_replay(
    events: list[LearningEvent], dice: random.Random, policy: Policy, is_class: bool
) -> None:
    shuffled = dice.sample(events, len(events))

    assert replay_view(shuffled, policy=policy, is_class=is_class) == replay_view(
        events, policy=policy, is_class=is_class
    )


@pytest.mark.feature("000-08", "000-11")
@given(histories(has_regrades=True), CUTS, st.randoms(), st.booleans())
def test_shortcut_or_replay_whatever_arrives_when_the_state_is_that_of_the_log(
    events: list[LearningEvent], cuts: list[int], dice: random.Random, is_class: bool
) -> None:
    log: list[LearningEvent] = []
    state = NOTHING
    for batch in cut(dice.sample(events, len(events)), cuts):
        arrived = sorted(batch, key=lambda e: e.key)
        known = {(e.source, e.submission) for e in log if e.ratio is not None and e.submission}
        is_revised = any((e.source, e.submission) in known for e in arrived)
        log += arrived
        if needs_replay(state.view, arrived, revised=is_revised):
            state = replay_view(log, policy=DEFAULT_POLICY, is_class=is_class)
        else:
            state = fold_view(state, arrived, policy=DEFAULT_POLICY, is_class=is_class)

    assert state == replay_view(events, policy=DEFAULT_POLICY, is_class=is_class)


@pytest.mark.feature("000-08", "000-11", "001-02")
@given(histories(has_regrades=False), CUTS, POLICIES, st.sets(st.integers(0, 5), min_size=1))
def test_a_view_beside_another_takes_over_only_what_it_would_have_come_to_itself(
    events: list[LearningEvent], cuts: list[int], policy: Policy, elsewhere: set[int]
) -> None:
    """Some events are of another class: where the two views differ before a batch, they go on differing."""
    everywhere = here = NOTHING
    for number, batch in enumerate(cut(sorted(events, key=lambda e: e.key), cuts)):
        if not batch:
            continue
        told: Any = {"events": batch, "policy": policy}
        moved = continue_view(everywhere.view, {}, everywhere.standings, **told, is_class=False)
        if number not in elsewhere:
            before = {name: everywhere.standings.get(name) for name in moved.standings}
            beside = Beside(before, moved.standings)
            alone = continue_view(here.view, here.works, here.standings, **told, is_class=True)

            assert continue_view(here.view, here.works, here.standings, **told, is_class=True, beside=beside) == alone
            here = ViewState(alone.view, here.works | alone.works, here.standings | alone.standings)
        everywhere = ViewState(moved.view, {}, everywhere.standings | moved.standings)


@pytest.mark.feature("000-13")
@given(histories(has_regrades=True))
def test_the_counters_of_a_view_are_those_of_its_works(events: list[LearningEvent]) -> None:
    state = replay_view(events, policy=DEFAULT_POLICY, is_class=True)

    works, view = list(state.works.values()), state.view
    in_plan = [work for work in works if work.is_assigned]
    scored = sorted((work for work in works if work.is_graded), key=lambda work: work.counted_place or ())
    assert view.assigned == len(in_plan)
    assert view.graded == sum(work.is_graded for work in in_plan)
    assert view.submitted == sum(work.submitted_at is not None for work in in_plan)
    assert (view.score_sum, view.score_count) == (sum(work.counted or 0 for work in works), len(scored))
    assert [entry.item for entry in view.open_items] == sorted(work.item for work in in_plan if not work.is_graded)
    assert [(score.item, score.ratio) for score in view.recent] == [(work.item, work.counted) for work in scored[-4:]]
    assert view.last == max((e.key for e in events), default=None)
    assert view.graded <= view.submitted <= view.assigned


@pytest.mark.feature("000-12", "000-13")
@given(st.lists(histories(has_regrades=True), min_size=1, max_size=4), st.randoms())
def test_no_order_of_members_changes_an_assessment(classes: list[list[LearningEvent]], dice: random.Random) -> None:
    members = [
        member(f"s{n}", view=replay_view(events, policy=DEFAULT_POLICY, is_class=True).view)
        for n, events in enumerate(classes)
    ]

    first, second = (
        assess_classroom(ClassFacts(tuple(some), BERLIN), policy=DEFAULT_POLICY, now=at(3))
        for some in (members, dice.sample(members, len(members)))
    )

    assert first == second
    assert first.rollup == rollup_of(members)
    assert set(first.overall) == {student for student, _ in first.flags}
    assert first.reassess_at is None or first.reassess_at > at(3)


@pytest.mark.feature("000-08")
def test_at_one_instant_e10_comes_before_e9() -> None:
    nine = replace(quizzes(0.9)[0], event_id="e9")
    ten = replace(quizzes(0.1)[0], event_id="e10")

    state = replay_view([nine, ten], policy=DEFAULT_POLICY, is_class=True)

    assert state.standings["fractions"].latest == 900_000
    with pytest.raises(OutOfOrder) as caught:
        folded([nine, ten])
    assert (caught.value.after, caught.value.got) == (nine.key, ten.key)


@pytest.mark.feature("000-08")
def test_an_event_at_or_before_the_last_key_needs_a_replay() -> None:
    first, second, third = quizzes(0.5, 0.6, 0.7)
    view = folded([first, second]).view

    assert not needs_replay(view, [third], revised=False)
    assert needs_replay(view, [third], revised=True)
    assert needs_replay(view, [third, first], revised=False)
    assert needs_replay(view, [second], revised=False)
    assert not needs_replay(EMPTY_VIEW, [first], revised=False)
    with pytest.raises(OutOfOrder):
        fold_view(folded([first, second]), [second], policy=DEFAULT_POLICY, is_class=True)


@pytest.mark.feature("000-12", "000-15", "A")
def test_the_last_grade_of_a_submission_gives_the_value_and_the_first_keeps_the_place() -> None:
    first = event(Kind.SUBMISSION_GRADED, "g1", at(1), score=0.4, item="a", submission="sub")
    other = event(Kind.SUBMISSION_GRADED, "g2", at(2), score=0.7, item="b")
    again = event(Kind.SUBMISSION_GRADED, "g3", at(3), score=0.9, item="a", submission="sub", concepts=("decimals",))

    state = replay_view([first, other, again], policy=DEFAULT_POLICY, is_class=True)

    assert needs_replay(EMPTY_VIEW, [first, other, again], revised=False)
    assert state.view.recent == (CountedScore("a", 900_000, first.key), CountedScore("b", 700_000, other.key))
    assert state.view.last == again.key
    assert {name: (one.count, one.score) for name, one in state.standings.items()} == {
        "decimals": (1, 900),
        "fractions": (1, 700),
    }
    assert state.standings["decimals"].last_evidence_at == at(1)


@pytest.mark.feature("000-12")
def test_a_quiz_attempt_graded_again_by_hand_stays_a_quiz_attempt_with_its_time() -> None:
    attempt = event(Kind.QUIZ_ATTEMPT, "g1", at(1), score=0.4, quiz="q", submission="sub", spent_ms=5_000)
    by_hand = event(Kind.SUBMISSION_GRADED, "g2", at(2), score=0.8, quiz="q", submission="sub")

    standing = replay_view([attempt, by_hand], policy=DEFAULT_POLICY, is_class=True).standings["fractions"]

    assert (standing.quiz_attempts, standing.successes, standing.count, standing.best) == (1, 1, 1, 800_000)
    assert (standing.time_spent_ms, standing.last_accessed_at) == (5_000, at(1))


@pytest.mark.feature("000-12")
def test_one_submission_id_of_two_sources_is_two_attempts() -> None:
    one = event(Kind.SUBMISSION_GRADED, "g1", at(1), score=0.4, item="a", submission="sub")

    state = replay_view([one, replace(one, source="other", event_id="g2")], policy=DEFAULT_POLICY, is_class=True)

    assert state.standings["fractions"].count == 2


@pytest.mark.feature("001-04")
def test_a_claim_is_no_grade_of_an_attempt() -> None:
    grade = event(Kind.SUBMISSION_GRADED, "g1", at(1), score=0.4, item="a", submission="sub")
    claim = event(Kind.CONCEPT_COMPLETED, "c1", at(2), score=0.9, submission="sub")

    standing = replay_view([grade, claim], policy=DEFAULT_POLICY, is_class=True).standings["fractions"]

    assert (standing.count, standing.rank) == (2, 2)


@pytest.mark.feature("X-01")
def test_a_replay_without_the_third_score_is_as_if_it_never_was() -> None:
    state = replay_view(quizzes(0.55, 0.80, 0.90)[:2], policy=DEFAULT_POLICY, is_class=True)

    standing = state.standings["fractions"]
    assert (standing.score, standing.count, standing.mastered_at) == (712, 2, None)


@pytest.mark.feature("000-13")
def test_a_replay_of_nothing_is_nothing() -> None:
    assert replay_view([], policy=DEFAULT_POLICY, is_class=True) == NOTHING


@pytest.mark.feature("000-13", "X-11")
def test_an_empty_class_is_assessed_too() -> None:
    assessment = assess_classroom(ClassFacts((), BERLIN), policy=DEFAULT_POLICY, now=START)

    assert (assessment.rollup.active_students, assessment.flags, assessment.median) == (0, {}, None)
    assert assessment.reassess_at is None
    assert View() == EMPTY_VIEW
