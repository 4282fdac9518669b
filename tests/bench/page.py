"""The live page in a real browser: how soon a class is painted, and how soon an answered event is on the screen.

Debian's Chromium on the same machine, an empty profile, the service's own processes. A class counts as painted when its
name, its rates and the first rows of its heat map are on the screen: from the click that signs in, so the requests, the
statements behind them and the drawing are all in it. Two classes: 30 students, and the 1,255 of the largest OULAD
class, each with evidence of 20 concepts. An event is timed from its answer over HTTP (committed) to the text on the
screen.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import islice
from time import monotonic
from typing import Any

import httpx
from playwright.async_api import Page, async_playwright

from rules.access import Role
from tests.bench.figures import Figures, claim, median
from tests.bench.orders import RECORD_EVENT, RECORD_EVENTS
from tests.bench.school import ONE_CLASS, SPREAD, Shape, events, settle, teacher_of, token_of
from tests.bench.service import Service

TENANTS = {1: SPREAD, 2: ONE_CLASS}
CLASSROOM = "class-000"
TIMES = {"small": 3, "full": 20}
EVENTS = {"small": 600, "full": 20_000}  # per tenant; some fifteen a student of the largest class
BATCH = 500
LIMIT_MS = 1_000.0
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
)
PAINTED = """() => document.querySelector("h1")?.textContent.startsWith("Class") && document.querySelector(".figure")
  && document.querySelectorAll(".heat .who").length > 20 && document.querySelector(".heat .line .cell[class*=step]")"""


async def run(size: str) -> Figures:
    """Fill two schools, then look at each."""
    async with Service() as service:
        for tenant, shape in TENANTS.items():
            await settle(service.connection, tenant, shape)
            await _fill(service, tenant, shape, EVENTS[size])
        version = await service.postgres_version()
        async with _window() as page:
            small = [await _painted(service, page, 1) for _ in range(TIMES[size])]
            large = [await _painted(service, page, 2) for _ in range(TIMES[size])]
            await _painted(service, page, 1)
            seen = [await _seen(service, page, number) for number in range(TIMES[size])]
        service.check()
    return {
        "postgres": version,
        "claims": [
            claim("30 students: from signing in to a painted class, median", _ms(median(small)), unit="ms",
                  limit=LIMIT_MS),
            claim("the slowest of them", _ms(max(small)), unit="ms"),
            claim("1,255 students: the same, median", _ms(median(large)), unit="ms", limit=LIMIT_MS),
            claim("the slowest of them", _ms(max(large)), unit="ms"),
            claim("an event, from its answer to the screen, median", _ms(median(seen)), unit="ms"),
            claim("the slowest of them", _ms(max(seen)), unit="ms", limit=LIMIT_MS),
        ],
    }  # fmt: skip


def _ms(seconds: float) -> float:
    return round(seconds * 1_000, 1)


@asynccontextmanager
async def _window() -> AsyncIterator[Page]:
    path = shutil.which("chromium")
    assert path is not None, "chromium is needed: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        context = await browser.new_context(viewport={"width": 1280, "height": 1600})
        yield await context.new_page()
        await browser.close()


async def _fill(service: Service, tenant: int, shape: Shape, number: int) -> None:
    token = token_of(tenant, Role.INTEGRATOR, "lms")
    stream = events(shape.everyone, name="page")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}", timeout=30) as client:
        while batch := list(islice(stream, min(BATCH, number))):
            number -= len(batch)
            await _post(client, token, RECORD_EVENTS, {"input": {"events": batch}})
            if number <= 0:
                break
    await service.until_folded(tenant)


async def _post(client: httpx.AsyncClient, token: str, query: str, variables: dict[str, Any]) -> Any:
    answer = await client.post(
        "/graphql", json={"query": query, "variables": variables}, headers={"authorization": f"Bearer {token}"}
    )
    body = answer.json()
    assert "errors" not in body, body
    return body["data"]


async def _painted(service: Service, page: Page, tenant: int) -> float:
    """Seconds from the click to the painted class."""
    await page.goto(f"http://127.0.0.1:{service.port}/#/class/{CLASSROOM}")
    await page.reload()
    await page.get_by_label("Access token").fill(token_of(tenant, Role.TEACHER, teacher_of(CLASSROOM)))
    began = monotonic()
    await page.get_by_role("button", name="Open").click()
    await page.wait_for_function(PAINTED, polling="raf")
    return monotonic() - began


async def _seen(service: Service, page: Page, number: int) -> float:
    """Seconds from the answer to the text on the screen."""
    work = f"work-{number:04d}"
    event = {
        "eventId": f"seen-{number}",
        "source": "page",
        "occurredAt": datetime.now(UTC).isoformat(),
        "studentId": SPREAD.students_of(CLASSROOM)[number % SPREAD.students],
        "classroomId": CLASSROOM,
        "type": "SUBMISSION_CREATED",
        "assignmentId": work,
        "conceptIds": ["concept-00"],
    }
    looking = asyncio.create_task(
        page.wait_for_function(
            "work => document.querySelector('.activity').textContent.includes(work)", arg=work, polling="raf"
        )
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}", timeout=30) as client:
        await _post(client, token_of(1, Role.INTEGRATOR, "lms"), RECORD_EVENT, {"input": event})
    began = monotonic()
    await looking
    return monotonic() - began
