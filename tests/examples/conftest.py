"""A school on real processes for the examples to talk to."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from db.pool import Pool
from tests.browser.cable import Cable, cable_to
from tests.browser.school import School, opened_school


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
