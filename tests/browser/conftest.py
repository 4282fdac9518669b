"""A real browser for the pages, with nothing but this machine to talk to."""

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.browser.window import ANSWER_MS_MAX

# Debian's name first; no browser is downloaded for the tests.
NAMES = ("chromium", "chromium-browser", "google-chrome")
LEFT_OUT = "LEFT OUT: the pages in a real browser; install chromium (apt-get install chromium) to run them"
# Of a browser's talk with its maker nothing is wanted, and /dev/shm is small in containers.
QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


def browser_path() -> str | None:
    """Where this machine's browser is, if it has one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest_asyncio.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium without a screen, one for the whole session."""
    path = browser_path()
    if path is None:
        pytest.skip(LEFT_OUT)
    async with async_playwright() as playwright:
        expect.set_options(timeout=ANSWER_MS_MAX)
        running = await playwright.chromium.launch(executable_path=path, args=QUIET)
        yield running
        await running.close()
