"""JSON from strangers: a key that stands twice is found however it is spelled, and nothing else is taken for one."""

from contextlib import suppress
from json import dumps, loads
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from graph.refusal import Refused
from graph.wire import decode

LETTERS = st.text(st.sampled_from('a:"\\ \u003aäΩ\n'), max_size=4)
GAPS = st.text(st.sampled_from(" \t\n\r"), max_size=1)


@st.composite
def spelled(draw: st.DrawFn, text: str) -> str:
    """A string of JSON, of which a letter may be written by its number."""
    letters = (f"\\u{ord(one):04x}" if draw(st.integers(0, 5)) == 0 else dumps(one)[1:-1] for one in text)
    return f'"{"".join(letters)}"'


@st.composite
def objects(draw: st.DrawFn, depth: int = 0) -> str:
    """The text of an object of a few keys, some of them twice."""
    parts = []
    for key in draw(st.lists(LETTERS, max_size=3)):
        kinds = st.sampled_from(["null", "-1.5e3", "text", "list"] + ["object"] * (depth < 2))
        value = {"text": spelled(draw(LETTERS)), "list": st.just('[":", {"a": 1}]'), "object": objects(depth + 1)}
        kind = draw(kinds)
        parts.append(f"{draw(GAPS)}{draw(spelled(key))}{draw(GAPS)}:{draw(GAPS)}{draw(value.get(kind, st.just(kind)))}")
    return f"{{{','.join(parts)}}}"


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


@given(objects())
@settings(max_examples=1_500)
def test_a_body_is_refused_exactly_where_an_object_names_a_key_twice(text: str) -> None:
    found = expected = None
    with suppress(Refused):
        found = decode(text)
    with suppress(ValueError):
        expected = loads(text, object_pairs_hook=unique)

    assert found == expected
