"""Every bench runs to its end at its smallest size, and tells numbers; whether its limits hold is asked elsewhere."""

import pytest

from tests.bench.__main__ import BENCHES, measured
from tests.bench.figures import page_of

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]


@pytest.mark.parametrize("name", BENCHES)
async def test_a_bench_ends_and_tells_what_it_found(name: str) -> None:
    figures = await measured(name, "small")

    assert figures["claims"]
    assert {claim["value"] == 0 for claim in figures["claims"] if claim["name"].startswith("p95")} <= {False}
    assert all(claim["name"] in page_of({name: figures}) for claim in figures["claims"])
