"""How long a shard rests between two rounds: live events are seen soon, a bulk is folded in large batches."""

import pytest

from jobs.worker import rest_seconds


@pytest.mark.feature("000-08")
@pytest.mark.parametrize(
    ("rows", "took", "expected"),
    [
        (0, 0.001, 0.01),  # an idle shard does not spin
        (20, 0.03, 0.03),
        (499, 0.4, 0.05),  # a slow round of live events makes nobody wait as long again
        (500, 0.1, 0.1),
        (5_000, 0.4, 0.25),
    ],
)
def test_a_shard_rests_as_long_as_its_round_took_within_bounds(rows: int, took: float, expected: float) -> None:
    assert rest_seconds(rows, took) == expected
