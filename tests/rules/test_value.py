"""Values are frozen, equal by what they hold, and dataclasses to whoever copies or lists them."""

from dataclasses import fields, is_dataclass, replace

import pytest

from rules.fields import are_plain_ids, is_id
from rules.skill import Standing
from tests.rules.intake_samples import SURROGATE


def test_a_value_is_a_frozen_dataclass_to_whoever_copies_it() -> None:
    standing = Standing("fractions", count=2)

    copied = replace(standing, count=3)

    assert copied == Standing("fractions", count=3)
    assert standing == Standing("fractions", count=2)
    assert hash(copied) == hash(Standing("fractions", count=3)) != hash(standing)
    assert is_dataclass(standing)
    assert [field.name for field in fields(standing)][:3] == ["concept", "count", "earlier_sum"]


def test_a_value_cannot_be_changed() -> None:
    standing = Standing("fractions")

    with pytest.raises(AttributeError):
        standing.count = 1  # type: ignore[misc] # what the test is about

    assert standing == Standing("fractions")


def test_a_value_has_no_other_field() -> None:
    with pytest.raises(TypeError):
        replace(Standing("fractions"), colour="red")  # type: ignore[call-arg] # what the test is about


@pytest.mark.parametrize(
    ("value", "is_plain"),
    [
        ("e1", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("a b", False),  # an id all the same: `is_id` is asked
        (" e1", False),
        ("a\nb", False),
        ("ä", False),
        (SURROGATE, False),
        (7, False),
        (None, False),
    ],
)
def test_only_what_is_an_id_is_taken_for_a_plain_one(value: object, is_plain: bool) -> None:
    assert are_plain_ids(["e1", value]) is is_plain
    assert is_id(value) or not is_plain
