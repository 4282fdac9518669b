"""Definition F: who is slipping, how much it matters, and what is news."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.calendar import day_start, is_zone, local_date
from rules.classroom import ClassFacts, Member, OpenItem, View
from rules.outcome import Assessment, assess_classroom, transitions
from rules.policy import DEFAULT_POLICY
from rules.risk import FIRST_MEMORY, Change, FlagMemory, Reason, RiskFlag, Severity, Transition, median_of
from tests.rules.samples import BERLIN, START, assessed, at, member, open_item, rated, recent

LOW, MEDIUM, HIGH = Severity.LOW, Severity.MEDIUM, Severity.HIGH
MISSING, TREND = Reason.MISSING_SUBMISSIONS, Reason.SCORE_TREND_DOWN
MEDIAN, INACTIVE = Reason.COMPLETION_BELOW_MEDIAN, Reason.INACTIVE
Memories = dict[tuple[str, Reason], FlagMemory]


def severities(assessment: Assessment) -> dict[tuple[str, Reason], Severity]:
    return {key: flag.severity for key, flag in assessment.flags.items()}


def with_open(*items: OpenItem) -> Member:
    return member(view=View(open_items=items, last_active_at=START))


def with_recent(*scores: float) -> Member:
    return member(view=View(recent=recent(*scores), last_active_at=START))


# MISSING_SUBMISSIONS


@pytest.mark.feature("000-14", "F", "X-12")
def test_two_never_submitted_and_one_awaiting_a_grade_are_medium() -> None:
    one = with_open(open_item("a"), open_item("b", is_submitted=True), open_item("c", due_at=at(-1)))

    flag = assessed(one).flags["s1", MISSING]

    assert flag == RiskFlag(
        student="s1",
        reason=MISSING,
        severity=MEDIUM,
        evidence={
            "missing": [
                {"item": "a", "dueAt": None, "assignedBy": {"source": "lms", "eventId": "assign-a"}},
                {
                    "item": "c",
                    "dueAt": "2026-03-02T07:59:00+00:00",
                    "assignedBy": {"source": "lms", "eventId": "assign-c"},
                },
            ],
            "missingCount": 2,
            "awaitingGrade": [{"item": "b", "dueAt": None, "assignedBy": {"source": "lms", "eventId": "assign-b"}}],
            "awaitingGradeCount": 1,
        },
        clears_when="Clears once 3 pieces of due work are graded or excused: 2 never handed in, 1 waiting for a grade.",
        may_notify=True,
    )


@pytest.mark.feature("000-14", "F")
@pytest.mark.parametrize(("count", "severity"), [(1, LOW), (2, MEDIUM), (3, HIGH), (4, HIGH)])
def test_severity_of_missing_work_follows_the_number_never_submitted(count: int, severity: Severity | None) -> None:
    assert assessed(with_open(*map(open_item, "abcd"[:count]))).flags["s1", MISSING].severity is severity


@pytest.mark.feature("000-14", "F")
def test_work_awaiting_a_grade_alone_is_low_and_silent() -> None:
    flag = assessed(with_open(*(open_item(item, is_submitted=True) for item in "abc"))).flags["s1", MISSING]

    assert (flag.severity, flag.may_notify) == (LOW, False)


@pytest.mark.feature("000-14", "F")
def test_an_item_is_missing_strictly_after_its_due_instant_and_the_class_looks_again_then() -> None:
    one = with_open(open_item("a", due_at=at(5)))

    before, on_time = assessed(one, now=at(0)), assessed(one, now=at(5))
    assert before.flags == on_time.flags == {}
    assert before.reassess_at == on_time.reassess_at == at(5) + timedelta(microseconds=1)

    assert severities(assessed(one, now=at(5) + timedelta(microseconds=1))) == {("s1", MISSING): LOW}


@pytest.mark.feature("000-14", "F")
def test_the_assigning_event_s_due_date_wins_over_the_assignment_s_own() -> None:
    one = with_open(open_item("a", due_at=at(50)), open_item("b"), open_item("c"))
    facts = ClassFacts((one,), BERLIN, {"a": at(-9), "b": at(-9), "c": at(40)})

    assessment = assess_classroom(facts, policy=DEFAULT_POLICY, now=START)

    assert [entry["item"] for entry in assessment.flags["s1", MISSING].evidence["missing"]] == ["b"]
    assert assessment.reassess_at == at(40) + timedelta(microseconds=1)


@pytest.mark.feature("X-12")
def test_evidence_lists_are_bounded_and_the_totals_are_not() -> None:
    flag = assessed(with_open(*(open_item(f"a{n:03}") for n in range(50)))).flags["s1", MISSING]

    assert (len(flag.evidence["missing"]), flag.evidence["missingCount"]) == (20, 50)


def test_a_due_date_at_the_end_of_time_is_never_looked_at_again() -> None:
    one = replace(with_open(open_item("a", due_at=datetime.max.replace(tzinfo=UTC))), zone="UTC")

    assert assessed(one).reassess_at == datetime(2026, 3, 9, tzinfo=UTC)  # when the student turns inactive


# SCORE_TREND_DOWN


@pytest.mark.feature("000-15", "F", "X-12")
def test_a_fall_from_082_to_070_is_medium_with_both_events_as_evidence() -> None:
    flag = assessed(with_recent(0.82, 0.70)).flags["s1", TREND]

    assert flag == RiskFlag(
        student="s1",
        reason=TREND,
        severity=MEDIUM,
        evidence={
            "scores": [
                {"item": "a1", "score": 0.82, "event": {"source": "lms", "eventId": "g1"}},
                {"item": "a2", "score": 0.7, "event": {"source": "lms", "eventId": "g2"}},
            ],
            "drop": 0.12,
            "falls": 1,
        },
        clears_when="Clears with a next score of 70% or more; the last one fell from 82% to 70%.",
        may_notify=True,
    )


@pytest.mark.feature("000-15", "F")
@pytest.mark.parametrize(
    ("scores", "severity"),
    [
        ((0.5, 0.5), None),
        ((0.5,), None),
        ((), None),
        ((0.9, 0.2, 0.3), None),  # the last score rose
        ((0.5, 0.499999), LOW),
        ((0.5, 0.4506), LOW),
        ((0.5, 0.4505), MEDIUM),  # a drop of 0.0495 is a tie, to the even 0.050
        ((0.5, 0.45), MEDIUM),
        ((0.5, 0.3506), MEDIUM),
        ((0.5, 0.35), HIGH),
        ((0.9, 0.89, 0.88), LOW),
        ((0.90, 0.89, 0.88, 0.87), MEDIUM),  # three falls in a row: one step more
        ((0.90, 0.80, 0.70, 0.50), HIGH),  # already the highest
        ((0.87, 0.90, 0.89, 0.88), LOW),
    ],
)
def test_severity_of_a_falling_trend(scores: tuple[float, ...], severity: Severity | None) -> None:
    flag = assessed(with_recent(*scores)).flags.get(("s1", TREND))

    assert (None if flag is None else flag.severity) is severity


# COMPLETION_BELOW_MEDIAN


@pytest.mark.feature("000-16", "F", "X-12")
def test_five_rates_around_the_median_of_definition_f() -> None:
    assessment = assessed(*(rated(f"s{graded}", graded, 10) for graded in (2, 5, 7, 9, 10)))

    assert assessment.median == 700
    assert severities(assessment) == {("s5", MEDIAN): MEDIUM, ("s2", MEDIAN): HIGH}
    assert assessment.flags["s5", MEDIAN] == RiskFlag(
        student="s5",
        reason=MEDIAN,
        severity=MEDIUM,
        evidence={
            "rate": 0.5,
            "median": 0.7,
            "gap": 0.2,
            "studentCount": 5,
            "graded": 5,
            "assigned": 10,
            "open": [],
            "openCount": 0,
        },
        clears_when="Clears once 70% of the assigned work is graded, as in the middle of the class; "
        "now it is 50% (5 of 10).",
        may_notify=True,
        rate_rearmed=False,
    )


@pytest.mark.feature("000-16", "F")
def test_an_even_number_of_rates_has_its_median_between_two() -> None:
    assessment = assessed(*(rated(f"s{graded}", graded, 10) for graded in (4, 6, 8, 10)))

    assert assessment.median == 700
    assert {key: (flag.severity, flag.may_notify) for key, flag in assessment.flags.items()} == {
        ("s4", MEDIAN): (HIGH, False),  # below five students the flag is stored and silent
        ("s6", MEDIAN): (MEDIUM, False),
    }


@pytest.mark.feature("000-16", "F", "X-11")
def test_one_student_with_a_rate_has_no_median() -> None:
    assessment = assessed(rated("s1", 1, 10), rated("s2", 0, 0))

    assert (assessment.median, assessment.flags) == (None, {})


@pytest.mark.feature("000-16", "F", "X-09")
def test_students_without_rate_or_enrolment_move_no_median() -> None:
    rates = [rated("s1", 2, 10), rated("s2", 6, 10)]

    assert assessed(*rates, rated("s3", 0, 0)).median == assessed(*rates).median == 400
    assert assessed(*rates, rated("s4", 10, 10)).median == 600


@pytest.mark.feature("000-16", "F")
def test_rates_are_compared_as_rounded() -> None:
    two_thirds = [rated(f"s{n}", 2, 3) for n in range(4)]

    assert assessed(*two_thirds, rated("near", 666_666, 1_000_000)).flags == {}  # 0.667 and 0.667
    assert severities(assessed(*two_thirds, rated("below", 666, 1000))) == {("below", MEDIAN): LOW}


@pytest.mark.feature("000-16", "F")
@pytest.mark.parametrize(("graded", "severity"), [(401, LOW), (400, MEDIUM), (251, MEDIUM), (250, HIGH)])
def test_severity_by_the_gap_to_the_median(graded: int, severity: Severity | None) -> None:
    assert (
        assessed(rated("s1", graded, 1000), rated("s2", 500, 1000), rated("s3", 500, 1000)).flags["s1", MEDIAN].severity
        is severity
    )


@pytest.mark.feature("000-16", "F")
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=9))
def test_nobody_at_or_above_the_median_is_flagged_and_less_than_all_are_below(rates: list[int]) -> None:
    assessment = assessed(*(rated(f"s{n}", rate, 1000) for n, rate in enumerate(rates)))

    below = {f"s{n}" for n, rate in enumerate(rates) if assessment.median is not None and rate < assessment.median}
    assert {student for student, _ in assessment.flags} == below
    assert len(below) <= len(rates) / 2
    assert assessment.median == (median_of(rates) if len(rates) > 1 else None)


# INACTIVE


@pytest.mark.feature("F", "000-14")
@pytest.mark.parametrize(
    ("days", "severity"),
    [(0, None), (6, None), (7, LOW), (13, LOW), (14, MEDIUM), (15, MEDIUM), (27, MEDIUM), (28, HIGH)],
)
def test_severity_of_inactivity_by_local_days(days: int, severity: Severity | None) -> None:
    one = member(view=View(last_active_at=START))

    flag = assessed(one, now=START + timedelta(days=days)).flags.get(("s1", INACTIVE))

    assert (None if flag is None else flag.severity) is severity


@pytest.mark.feature("F", "X-12")
def test_inactivity_names_the_last_active_date_and_the_limit_reached() -> None:
    flag = assessed(member(view=View(last_active_at=START)), now=START + timedelta(days=15)).flags["s1", INACTIVE]

    assert flag == RiskFlag(
        student="s1",
        reason=INACTIVE,
        severity=MEDIUM,
        evidence={"lastActiveOn": "2026-03-02", "enrolledOn": None, "limitDays": 7, "reachedDays": 14},
        clears_when="Clears with new activity in this class; last active on 2026-03-02, at least 14 days ago.",
        may_notify=True,
    )


@pytest.mark.feature("F")
def test_a_student_never_active_counts_from_enrolment() -> None:
    enrolled = datetime(2026, 3, 1, 23, 0, tzinfo=UTC)  # 2 March 00:00 in Berlin

    one, turns = member(enrolled=enrolled), datetime(2026, 3, 8, 23, 0, tzinfo=UTC)

    flag = assessed(one, now=turns).flags["s1", INACTIVE]

    assert assessed(one, now=turns - timedelta(microseconds=1)).flags == {}

    assert flag.severity is LOW
    assert flag.evidence == {"lastActiveOn": None, "enrolledOn": "2026-03-02", "limitDays": 7, "reachedDays": 7}


@pytest.mark.feature("F")
def test_inactivity_turns_at_local_midnight_over_a_change_of_clocks() -> None:
    active = datetime(2026, 3, 27, 23, 30, tzinfo=UTC)  # 28 March 00:30 in Berlin, the night before the clocks change
    one = member(view=View(last_active_at=active))
    turns = datetime(2026, 4, 3, 22, 0, tzinfo=UTC)  # 4 April 00:00 in Berlin, now two hours ahead of UTC

    before = assessed(one, now=turns - timedelta(microseconds=1))

    assert (before.flags, before.reassess_at) == ({}, turns)
    assert severities(assessed(one, now=turns)) == {("s1", INACTIVE): LOW}
    assert assessed(one, now=turns).reassess_at == datetime(2026, 4, 10, 22, 0, tzinfo=UTC)


@pytest.mark.feature("F")
def test_each_student_s_days_are_those_of_their_own_zone() -> None:
    active = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)  # 2 March in both zones
    view = View(last_active_at=active)
    now = datetime(2026, 3, 8, 23, 30, tzinfo=UTC)  # 9 March in Berlin, still 8 March in New York

    assessment = assessed(member("berlin", view=view), member("york", view=view, zone="America/New_York"), now=now)

    assert severities(assessment) == {("berlin", INACTIVE): LOW}
    assert assessment.reassess_at == datetime(2026, 3, 9, 4, 0, tzinfo=UTC)  # midnight in New York, clocks just changed


@pytest.mark.feature("F")
def test_at_four_times_the_limit_nothing_more_can_happen() -> None:
    assert assessed(member(view=View(last_active_at=START)), now=START + timedelta(days=28)).reassess_at is None


ZONES = ["Europe/Berlin", "America/New_York", "Africa/Cairo", "Asia/Beirut", "America/Havana", "Pacific/Apia", "UTC"]


@pytest.mark.feature("F")
@given(st.integers(0, 200 * 24 * 60), st.integers(0, 40 * 24 * 60), st.sampled_from(ZONES), st.sampled_from([7, 14]))
def test_inactivity_is_the_difference_of_local_dates_and_reassess_at_is_when_it_changes(
    minute: int, later: int, zone: str, limit: int
) -> None:
    active, now = at(minute), at(minute + later)
    one = member(view=View(last_active_at=active), zone=zone)
    policy = replace(DEFAULT_POLICY, inactivity_days=limit)

    assessment = assessed(one, now=now, policy=policy)

    idle_days = (local_date(now, zone) - local_date(active, zone)).days
    reached = sum(idle_days >= limit * factor for factor in (1, 2, 4))
    flag = assessment.flags.get(("s1", INACTIVE))
    assert (0 if flag is None else flag.severity) == reached
    if reached == 3:
        assert assessment.reassess_at is None
    else:
        moment = assessment.reassess_at
        assert moment is not None
        assert moment > now
        assert assessed(one, now=moment - timedelta(microseconds=1), policy=policy).flags == assessment.flags
        assert severities(assessed(one, now=moment, policy=policy)) == {("s1", INACTIVE): Severity(reached + 1)}


def test_a_local_day_begins_after_a_skipped_midnight_and_at_the_first_of_two() -> None:
    cairo, havana = datetime(2026, 4, 24, tzinfo=UTC).date(), datetime(2026, 11, 1, tzinfo=UTC).date()

    assert day_start(cairo, "Africa/Cairo") == datetime(2026, 4, 23, 22, tzinfo=UTC)  # 00:00 jumps to 01:00
    assert day_start(havana, "America/Havana") == datetime(2026, 11, 1, 4, tzinfo=UTC)  # 01:00 falls back to 00:00


def test_zones_are_iana_names() -> None:
    assert [is_zone(name) for name in ("Europe/Berlin", "Berlin", "../etc", "", "Europe")] == [
        True,
        False,
        False,
        False,
        False,
    ]


# Overall


@pytest.mark.feature("F")
def test_two_reasons_are_one_step_more_than_the_highest() -> None:
    one = member(view=View(open_items=(open_item("a"),), recent=recent(0.82, 0.70), last_active_at=START))

    assessment = assessed(one)

    assert severities(assessment) == {("s1", MISSING): LOW, ("s1", TREND): MEDIUM}
    assert assessment.overall == {"s1": HIGH}


@pytest.mark.feature("F")
def test_one_reason_is_its_own_severity_and_high_is_the_end() -> None:
    assert assessed(with_open(open_item("a"))).overall == {"s1": LOW}
    worst = member(view=View(open_items=tuple(map(open_item, "abc")), recent=recent(0.9, 0.1)))
    assert assessed(worst).overall == {"s1": HIGH}
    assert assessed(member()).overall == {}


# Transitions and their silence


def flags(
    severity: Severity | None, *, reason: Reason = TREND, may_notify: bool = True, rearmed: frozenset[str] = frozenset()
) -> Assessment:
    """An assessment with one flag of s1, or with none."""
    found: dict[tuple[str, Reason], RiskFlag] = {}
    if severity is not None:
        found["s1", reason] = RiskFlag("s1", reason, severity, {"n": 1}, "Clears some day.", may_notify)
    overall = {} if severity is None else {"s1": severity}
    return replace(assessed(), flags=found, overall=overall, rearmed=rearmed)


def story(*chapters: tuple[float, Assessment]) -> list[tuple[Change, bool]]:
    """What is stored, and whether it is news, when the class is assessed at these minutes."""
    memories: Memories = {}
    told = []
    for minute, assessment in chapters:
        found, changed = transitions(memories, assessment, now=at(minute))
        memories |= changed
        told += [(one.change, one.notify) for one in found]
        assert transitions(memories, assessment, now=at(minute)) == ([], {})  # looking twice changes nothing
    return told


RAISED, WORSE, CLEARED = Change.RAISED, Change.SEVERITY_CHANGED, Change.CLEARED
DAY = 24 * 60


@pytest.mark.feature("F", "000-15")
def test_a_flag_is_raised_with_its_evidence_and_remembered() -> None:
    found, changed = transitions({}, flags(MEDIUM), now=START)

    assert found == [Transition("s1", TREND, RAISED, MEDIUM, None, MEDIUM, True, {"n": 1}, "Clears some day.")]
    assert changed == {("s1", TREND): FlagMemory(MEDIUM, START, None, None, START, MEDIUM, True)}


@pytest.mark.feature("F", "000-15")
def test_a_flag_that_ends_is_cleared_and_its_severity_remembered() -> None:
    _, memories = transitions({}, flags(MEDIUM), now=START)

    found, changed = transitions(memories, flags(None), now=at(5))

    assert found == [Transition("s1", TREND, CLEARED, None, MEDIUM, None, True, {}, "")]
    assert changed == {("s1", TREND): FlagMemory(None, None, at(5), MEDIUM, at(5), None, True)}


@pytest.mark.feature("F")
def test_evidence_alone_is_no_change() -> None:
    _, memories = transitions({}, flags(MEDIUM), now=START)
    other = flags(MEDIUM)
    other.flags["s1", TREND] = replace(other.flags["s1", TREND], evidence={"n": 2})

    assert transitions(memories, other, now=at(5)) == ([], {})


@pytest.mark.feature("F", "X-09")
def test_the_flags_of_a_student_who_left_are_cleared() -> None:
    one = member(view=View(open_items=(open_item("a"),), recent=recent(0.8, 0.7), last_active_at=START))
    _, memories = transitions({}, assessed(one), now=START)

    found, _ = transitions(memories, assessed(), now=at(5))

    assert [(t.reason, t.change, t.overall) for t in found] == [(MISSING, CLEARED, None), (TREND, CLEARED, None)]


@pytest.mark.feature("F")
def test_a_flag_back_within_a_day_at_no_higher_severity_is_stored_in_silence() -> None:
    told = story((0, flags(MEDIUM)), (10, flags(None)), (10 + DAY - 1, flags(MEDIUM)), (10 + DAY + 5, flags(None)))

    assert told == [(RAISED, True), (CLEARED, True), (RAISED, False), (CLEARED, False)]


@pytest.mark.feature("F")
def test_a_flag_back_within_a_day_but_worse_or_after_a_day_is_news() -> None:
    assert story((0, flags(LOW)), (10, flags(None)), (20, flags(MEDIUM)))[-1] == (RAISED, True)
    assert story((0, flags(LOW)), (10, flags(None)), (10 + DAY, flags(LOW)))[-1] == (RAISED, True)


@pytest.mark.feature("F")
def test_a_flag_that_came_back_in_silence_is_news_once_it_is_worse_than_it_was() -> None:
    told = story((0, flags(MEDIUM)), (10, flags(None)), (20, flags(LOW)), (30, flags(MEDIUM)), (40, flags(HIGH)))

    assert told == [(RAISED, True), (CLEARED, True), (RAISED, False), (WORSE, False), (WORSE, True)]


@pytest.mark.feature("F")
def test_the_news_of_an_end_is_no_news_of_a_return_at_the_same_instant() -> None:
    told = story((0, flags(MEDIUM)), (10, flags(None)), (10, flags(LOW)), (30, flags(MEDIUM)))

    assert told == [(RAISED, True), (CLEARED, True), (RAISED, False), (WORSE, False)]


@pytest.mark.feature("F")
def test_changes_within_two_seconds_are_one_piece_of_news_unless_worse() -> None:
    second = 1 / 60
    told = story(
        (0, flags(LOW)),
        (1 * second, flags(MEDIUM)),
        (2 * second, flags(LOW)),
        (3 * second, flags(MEDIUM)),
    )

    assert told == [(RAISED, True), (WORSE, True), (WORSE, False), (WORSE, True)]


@pytest.mark.feature("F", "000-14")
def test_a_silent_flag_is_news_when_it_may_speak_and_changes() -> None:
    silent = flags(LOW, reason=MISSING, may_notify=False)

    assert story((0, silent), (1, flags(MEDIUM, reason=MISSING))) == [(RAISED, False), (WORSE, True)]
    assert story((0, silent), (1, flags(None))) == [(RAISED, False), (CLEARED, False)]


@pytest.mark.feature("F", "000-16")
def test_a_rate_below_the_median_is_news_again_only_after_it_reached_the_median_and_two_hundredths() -> None:
    below, above = flags(LOW, reason=MEDIAN), flags(None)
    well_above = flags(None, rearmed=frozenset({"s1"}))

    touching = story((0, below), (10, above), (3 * DAY, below), (3 * DAY + 5, flags(HIGH, reason=MEDIAN)))
    recovered = story((0, below), (10, above), (20, well_above), (30, above), (3 * DAY, below))

    assert touching == [(RAISED, True), (CLEARED, True), (RAISED, False), (WORSE, False)]
    assert recovered == [(RAISED, True), (CLEARED, True), (RAISED, True)]


@pytest.mark.feature("F", "000-16")
def test_students_at_the_median_and_two_hundredths_are_rearmed() -> None:
    assessment = assessed(*(rated(f"s{graded}", graded, 100) for graded in (40, 50, 51, 52, 60)))

    assert assessment.median == 510
    assert assessment.rearmed == {"s60"}
    assert assessed(*(rated(f"s{g}", g, 100) for g in (40, 50, 53, 55, 60))).rearmed == {"s55", "s60"}


@pytest.mark.feature("F")
@given(
    st.lists(
        st.tuples(
            st.integers(1, 4_000_000),
            st.sampled_from([None, LOW, MEDIUM, HIGH]),
            st.booleans(),
            st.booleans(),
            st.sampled_from(list(Reason)),
        ),
        max_size=12,
    )
)
def test_the_stored_changes_replayed_are_always_the_flag_that_stands(
    chapters: list[tuple[int, Severity | None, bool, bool, Reason]],
) -> None:
    memories: Memories = {}
    shown: dict[Reason, Severity | None] = {}
    now = START
    for wait_ms, severity, may_notify, is_rearmed, reason in chapters:
        now += timedelta(milliseconds=wait_ms)
        assessment = flags(
            severity, reason=reason, may_notify=may_notify, rearmed=frozenset({"s1"} if is_rearmed else ())
        )

        found, changed = transitions(memories, assessment, now=now)

        for one in found:
            assert shown.get(one.reason) == one.earlier
            assert one.severity != one.earlier
            assert not one.notify or one.severity is None or may_notify
            shown[one.reason] = one.severity
        memories |= changed
        assert {r: s for r, s in shown.items() if s} == ({reason: severity} if severity else {})
        assert all(memory != FIRST_MEMORY for memory in changed.values())
