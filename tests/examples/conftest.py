"""A school on real processes for the examples to talk to."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from db.pool import Pool
from tests.browser.cable import Cable, cable_to
from tests.browser.school import School, opened_school
from tests.examples.test_typescript import LEFT_OUT


@pytest_asyncio.fixture
async def school(pool: Pool, database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[School]:
    """A school at work."""
    async with opened_school(pool, database_url, redis_url, tmp_path) as found:
        yield found


@pytest_asyncio.fixture
async def cable(school: School) -> AsyncIterator[Cable]:
    """What an example reaches the school by."""
    async with cable_to(school.port) as found:
        yield found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Skips are one letter among two thousand dots; this is a line of its own."""
    if any(LEFT_OUT in str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_sep("!", LEFT_OUT, yellow=True, bold=True)
