"""The simulator's stream: decided by its seed, with exactly the kinds of faults that were asked for."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from rules.access import Role, Scope, Viewer
from rules.evidence import EventInput, IntakeSettings, Submission
from rules.validation import validate
from server.sender import wire
from server.simulate import AHEAD_EVENTS, START, STEP, Mix, Pace, events

pytestmark = pytest.mark.feature("000-25")

COUNT = 10_000
NOW = datetime(2026, 3, 11, 9, 30, tzinfo=UTC)
MACHINE = Viewer(1, "lms-1", frozenset({Role.INTEGRATOR}), NOW, frozenset({Scope.INGEST}))


def sent(mix: Mix, count: int = COUNT) -> list[EventInput]:
    return list(islice(events(mix), count))


def number_of(event: EventInput) -> int:
    assert event.event_id is not None
    return int(event.event_id.rpartition("-")[2])


def is_late(event: EventInput) -> bool:
    assert event.occurred_at is not None
    return event.occurred_at < START + number_of(event) * STEP


def test_the_same_seed_sends_the_same_events_in_the_same_order() -> None:
    assert sent(Mix(seed=7)) == sent(Mix(seed=7))


def test_another_seed_and_another_mix_send_other_events_under_other_ids() -> None:
    ids = [
        {event.event_id for event in sent(mix, 100)} for mix in (Mix(1), Mix(2), Mix(1, students=61), Mix(1, late=0.5))
    ]

    assert len(set().union(*ids)) == sum(map(len, ids))


def test_a_clean_mix_is_in_order_without_gaps_repetitions_or_late_events() -> None:
    found = sent(Mix(seed=3, duplicates=0, reorder=0, late=0))

    assert [number_of(event) for event in found] == list(range(COUNT))
    assert not any(map(is_late, found))


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_the_share_of_duplicates_is_what_was_asked_and_each_is_unchanged_and_near(share: float) -> None:
    found = sent(Mix(seed=3, duplicates=share, reorder=0, late=0))

    times = Counter(event.event_id for event in found)
    places: dict[str | None, list[int]] = {}
    for place, event in enumerate(found):
        places.setdefault(event.event_id, []).append(place)
    assert set(times.values()) <= {1, 2}
    assert sum(count == 2 for count in times.values()) / len(times) == pytest.approx(share, abs=0.02)
    assert all(found[first] == found[second] for first, *rest in places.values() for second in rest)
    assert max(second - first for first, *rest in places.values() for second in rest) <= 3 * AHEAD_EVENTS


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_share_that_is_held_back_is_what_was_asked_and_none_is_lost(share: float) -> None:
    found = sent(Mix(seed=3, duplicates=0, reorder=share, late=0))

    numbers = [number_of(event) for event in found]
    overtaken = sum(number < max(numbers[:place], default=-1) for place, number in enumerate(numbers[:2_000]))
    assert set(range(COUNT - 2 * AHEAD_EVENTS)) <= set(numbers)
    assert len(set(numbers)) == COUNT
    assert overtaken / 2_000 == pytest.approx(share, abs=0.06)


def test_the_share_of_late_events_is_what_was_asked_and_each_is_days_late() -> None:
    found = sent(Mix(seed=3, duplicates=0, reorder=0, late=0.1))

    late = [event for event in found if is_late(event)]
    delays = [START + number_of(event) * STEP - event.occurred_at for event in late if event.occurred_at]
    assert len(late) / COUNT == pytest.approx(0.1, abs=0.01)
    assert min(delays) >= timedelta(days=1)
    assert max(delays) <= timedelta(days=14)


def test_every_event_is_one_that_the_service_takes() -> None:
    checked = [
        validate(event, viewer=MACHINE, now=NOW, settings=IntakeSettings(), fresh_id="")
        for event in sent(Mix(seed=5), 2_000)
    ]

    assert [found for found in checked if not isinstance(found, Submission)] == []


def test_what_is_sent_holds_only_what_the_event_says_with_times_that_carry_an_offset() -> None:
    event = EventInput(event_id="e1", source="lms", occurred_at=NOW, student_id="s1", score=0.5, type="QUIZ_ATTEMPT")

    assert wire(event) == {
        "eventId": "e1",
        "source": "lms",
        "occurredAt": "2026-03-11T09:30:00+00:00",
        "studentId": "s1",
        "score": 0.5,
        "type": "QUIZ_ATTEMPT",
    }


@pytest.mark.parametrize(("rate", "batch"), [(0.5, 1), (20, 2), (1_000, 100), (500_000, 1_000)])
def test_a_pace_asks_about_ten_times_a_second_and_never_more_than_the_service_takes(rate: float, batch: int) -> None:
    assert Pace(rate).batch == batch
