"""Fixtures of all tests: real PostgreSQL and Valkey, started once per session; always embedded, never a mock."""

from collections.abc import AsyncIterator, Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from server.embedded import EmbeddedServers
from tests.support.folders import reachable_folder
from tests.support.privacy import EAR, shown_findings

if TYPE_CHECKING:
    from db.live import Live
    from db.pool import Pool


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says at the end, where everyone reads, what was left out: a skip is one letter among two thousand dots."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = {str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped if report.longrepr}
    for reason in sorted(reasons):
        if reason.startswith("LEFT OUT"):
            terminalreporter.write_sep("!", reason, yellow=True, bold=True)


@pytest.fixture(scope="session", autouse=True)
def nobody_is_named(request: pytest.FixtureRequest) -> Iterator[None]:
    """000-24, C13: whatever ran, no log, trace or metric of it names a person or shows a token.

    The last fixture to end: it fails as an error of the last test, and names the test that was overheard.
    """
    if all(item.path.parent.name == "rules" for item in request.session.items):
        yield  # pure: they say nothing, and mutants of the rules are tried by the hundred
        return
    from tests.support.overhearing import listening, spare_the_demo  # late, as below

    spare_the_demo()
    with listening(EAR):
        yield
    found = EAR.findings()
    assert not found, shown_findings(found)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A throwaway folder that embedded servers can live in (as root, tmp_path is closed to them)."""
    with reachable_folder() as folder:
        yield folder


@pytest_asyncio.fixture(scope="session")
async def servers() -> AsyncIterator[EmbeddedServers]:
    """Both servers, nothing of them flushed to disk: kill them as you like, they come back (`until_replaced`)."""
    with reachable_folder() as folder:
        async with EmbeddedServers(folder, durable=False) as running:
            yield running


@pytest_asyncio.fixture(scope="session")
async def database_url(servers: EmbeddedServers) -> AsyncIterator[str]:
    """A database with every migration applied, shared by all tests: each test works in a tenant of its own."""
    from db.migrate import make_partitions, migrate  # late, so that tests of pure rules need no database code

    await migrate(servers.addresses.database_url)
    await make_partitions(servers.addresses.database_url, first_day=date(2025, 12, 1), months=36)
    yield servers.addresses.database_url
    from tests.support.overhearing import spare_everybody_in  # late, as above

    await spare_everybody_in(servers.addresses.database_url)


@pytest_asyncio.fixture(scope="session")
async def pool(database_url: str) -> AsyncIterator["Pool"]:
    """The session's one asyncpg pool."""
    from db.pool import open_pool  # late, as above

    opened = await open_pool(database_url, size_max=10)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="session")
async def redis_url(servers: EmbeddedServers) -> str:
    """Address of the session's Valkey."""
    return servers.addresses.redis_url


@pytest_asyncio.fixture(scope="session")
async def live(redis_url: str) -> AsyncIterator["Live"]:
    """The session's publisher and listener, on the real Valkey."""
    from db.live import open_live  # late, as above

    opened = open_live(redis_url)
    opened.listen()
    yield opened
    await opened.aclose()
