"""Times as events send them: the usual spelling is read at once, and means what every other spelling means."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph.scalars import read_event_time


def numbers(width: int, most: int) -> st.SearchStrategy[str]:
    return st.integers(0, most).map(lambda number: f"{number:0{width}}")


SPELLINGS = st.builds(
    "{}-{}-{}T{}:{}:{}{}{}".format,
    numbers(4, 9999),
    *(numbers(2, most) for most in (13, 32, 24, 60, 60)),
    st.sampled_from(["", ".5", ".123", ".1234", ".123456", ".1234567", ".999999999", "."]),
    st.one_of(st.just("Z"), st.builds("{}{}:{}".format, st.sampled_from("+-"), numbers(2, 25), numbers(2, 61))),
)


@pytest.mark.feature("000-02")
@given(SPELLINGS)
@settings(max_examples=1_000)
def test_a_time_means_the_same_in_its_usual_spelling_and_in_any_other(text: str) -> None:
    found: object = read_event_time(text)
    other: object = read_event_time(text.replace("T", "t"))

    if isinstance(found, datetime) and isinstance(other, datetime):
        assert (found, found.utcoffset()) == (other, other.utcoffset())
    else:
        assert (found, other) == (text, text.replace("T", "t"))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-01T09:30:00Z", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        ("2026-03-01T09:30:00.123Z", datetime(2026, 3, 1, 9, 30, 0, 123_000, tzinfo=UTC)),
        ("2026-03-01T09:30:00.1239999Z", datetime(2026, 3, 1, 9, 30, 0, 123_999, tzinfo=UTC)),
        ("2026-03-01T09:30:00.123456+05:30", datetime(2026, 3, 1, 9, 30, 0, 123_456, timezone(timedelta(hours=5.5)))),
    ],
)
def test_a_time_is_read_to_its_microsecond(text: str, moment: datetime) -> None:
    assert read_event_time(text) == moment
