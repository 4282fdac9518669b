"""The name of a void: one for each event, an id like any other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.fields import is_id
from rules.voids import void_id

IDS = st.text(alphabet="ab:#", min_size=1, max_size=128)


@pytest.mark.feature("X-01")
@given(IDS, IDS, IDS, IDS)
def test_no_two_events_share_a_void(source: str, event_id: str, other_source: str, other_event_id: str) -> None:
    is_same_event = (source, event_id) == (other_source, other_event_id)

    assert (void_id(source, event_id) == void_id(other_source, other_event_id)) == is_same_event


@pytest.mark.feature("X-01")
@given(IDS, IDS)
def test_a_void_has_an_id_that_the_log_takes(source: str, event_id: str) -> None:
    assert is_id(void_id(source, event_id))


def test_a_colon_in_the_source_hides_the_parts() -> None:
    assert void_id("lms", "e:1") == "void:lms:e:1"
    assert void_id("lms:e", "1").startswith("void#")
