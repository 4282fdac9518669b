"""The short crash run: one seed of `make chaos`, on real processes and durable servers."""

import pytest

from tests.chaos.run import crash_run
from tests.chaos.script import ALWAYS, plan_of

SEED = 1
RUN_SECONDS_MAX = 180  # about 25 on two idle cores, five times that beside other suites


@pytest.mark.feature("000-09", "000-11", "000-23", "X-29")
@pytest.mark.timeout(RUN_SECONDS_MAX + 20)
async def test_a_crash_of_each_kind_loses_doubles_and_misses_nothing() -> None:
    """Every event answered stands once, projections equal a rebuild, subscribers got 1 to N; settled within 5 s."""
    report = await crash_run(plan_of(SEED, len(ALWAYS)))

    print(report.summary)
    assert report.failures == [], report.text
    assert report.returns > 0
    assert report.seconds <= RUN_SECONDS_MAX
