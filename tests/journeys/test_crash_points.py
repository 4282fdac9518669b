"""The short crash-point run: an api and a worker die, or lose Postgres, before and after every turn of the wire."""

import pytest

from server.embedded import EmbeddedServers
from tests.chaos.crashpoints import crash_points

RUN_SECONDS_MAX = 45
POINTS_MIN = 300
RUN = ("record killed", "record disconnected", "drain killed", "drain noted killed")  # `make crashpoints`: all


@pytest.mark.feature("000-09", "000-11", "000-23")
@pytest.mark.timeout(RUN_SECONDS_MAX * 2)
async def test_no_crash_point_of_a_recorded_and_a_drained_batch_loses_or_doubles(servers: EmbeddedServers) -> None:
    """What was answered is stored, nothing stands twice, the outbox empties, every number is that of a rebuild."""
    report = await crash_points(servers, every=False, only=RUN)

    print(report.summary)
    assert report.failed == {}, report.text
    assert report.points.total() >= POINTS_MIN
