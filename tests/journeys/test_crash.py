"""The short crash run: one seed of `make chaos`, on real processes and durable servers."""

import pytest

from tests.chaos.run import crash_run
from tests.chaos.script import plan_of

SEED, FAULTS = 1, 8
RUN_SECONDS_MAX = 90


@pytest.mark.feature("000-09", "000-11", "000-23", "X-29")
@pytest.mark.timeout(RUN_SECONDS_MAX + 20)
async def test_eight_crashes_lose_double_and_miss_nothing() -> None:
    """Every event answered stands once, projections equal a rebuild, subscribers got 1 to N; settled within 5 s."""
    report = await crash_run(plan_of(SEED, FAULTS))

    print(report.summary)
    assert report.failures == [], report.text
    assert report.waits_without_redis
    assert report.returns > 0
    assert report.seconds <= RUN_SECONDS_MAX
