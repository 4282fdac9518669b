"""One window of a browser with an empty profile, and a witness of what its page tried to do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, Page, Request, Route

ANSWER_MS_MAX = 20_000  # a slow machine, never a wait on a fast one
# Told by the browser itself, also for what a page does before its own code runs.
WITNESS = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));
"""
STORED = """async () => JSON.stringify([
  {...localStorage}, {...sessionStorage}, document.cookie, (await indexedDB.databases()).map((found) => found.name),
])"""


@dataclass(slots=True)
class Window:
    """A page and what was seen of it."""

    page: Page
    abroad: list[str] = field(default_factory=list)  # requests to anywhere else, all of them cut
    complaints: list[str] = field(default_factory=list)  # errors and warnings of its console

    async def violations(self) -> Any:
        """What the content security policy forbade."""
        return await self.page.evaluate("window.violations")

    async def stored(self) -> str:
        """All that the page left behind in the browser."""
        kept: str = await self.page.evaluate(STORED)
        return kept


@asynccontextmanager
async def opened(browser: Browser, origin: str) -> AsyncIterator[Window]:
    """A window that reaches this origin and nothing else."""
    context = await browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(ANSWER_MS_MAX)
    await context.add_init_script(WITNESS)
    window = Window(await context.new_page())

    async def pass_or_cut(route: Route, request: Request) -> None:
        if request.url.startswith((f"{origin}/", "data:")):
            await route.continue_()
        else:
            window.abroad.append(request.url)
            await route.abort()

    await context.route("**/*", pass_or_cut)
    window.page.on(
        "console",
        lambda said: window.complaints.append(said.text) if said.type in ("error", "warning") else None,
    )
    window.page.on("pageerror", lambda error: window.complaints.append(str(error)))
    try:
        yield window
    finally:
        await context.close()
