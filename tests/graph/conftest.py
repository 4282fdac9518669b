"""Fixtures of the tests at the GraphQL edge."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest_asyncio

if TYPE_CHECKING:
    from db.live import Live
    from db.pool import Pool
    from tests.support.intake import Door, Intake


@pytest_asyncio.fixture(scope="session")
async def door(pool: "Pool", live: "Live", redis_url: str) -> AsyncIterator["Door"]:
    """The served recording mutations, for tenants of any test."""
    from tests.support.intake import intake_served  # late, so that tests of the transport alone need no database code

    async with intake_served(pool, live, redis_url) as opened:
        yield opened


@pytest_asyncio.fixture
async def intake(door: "Door") -> "Intake":
    """A tenant of the test's own, and the ways to tell it something."""
    return await door.tenant()
