"""The live page in a real browser, on real processes: what a teacher sees of a school day, its cuts included."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, Request, Route, expect

from db.pool import Pool
from tests.browser.cable import Cable, cable_to
from tests.browser.school import School, opened_school
from tests.browser.window import Window, opened

DOCUMENTS = Path(__file__).parents[2] / "server/pages/documents"
CLASS_PAGE = hashlib.sha256((DOCUMENTS / "class.graphql").read_bytes()).hexdigest()


@pytest_asyncio.fixture
async def school(pool: Pool, database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[School]:
    """A school at work."""
    async with opened_school(pool, database_url, redis_url, tmp_path) as found:
        yield found


@pytest_asyncio.fixture
async def cable(school: School) -> AsyncIterator[Cable]:
    """What the browser reaches the school by."""
    async with cable_to(school.port) as found:
        yield found


@pytest_asyncio.fixture
async def window(browser: Browser, school: School, cable: Cable) -> AsyncIterator[Window]:
    """The teacher's page of class 7b, live."""
    origin = f"http://127.0.0.1:{cable.port}"
    async with opened(browser, origin) as found:
        await found.page.goto(f"{origin}/#/class/7b")
        await expect(found.page.get_by_role("heading", name="Class 7b")).to_be_visible()
        await live(found.page)
        yield found


async def live(page: Page) -> None:
    await expect(page.locator(".freshness summary")).to_contain_text("Live")


def line_of(page: Page, student: str) -> Locator:
    return page.locator(f'.at-risk [data-student="{student}"]')


async def assign(school: School, key: str, *, days: int) -> None:
    due = datetime.now(UTC) + timedelta(days=days)
    await school.save(
        "Assignment", key=key, classroomId="7b", title=f"Work {key}", conceptIds=["fractions"], dueAt=due.isoformat()
    )


@pytest.mark.feature("000-17", "000-14")
async def test_an_event_appears_and_a_flag_is_raised_gets_worse_and_clears(window: Window, school: School) -> None:
    page = window.page

    await school.record("ada", "CONTENT_VIEWED", contentId="video-1")
    await expect(page.locator(".activity li").first).to_contain_text("Ada Lovelace viewed content")

    await assign(school, "w1", days=-1)
    await expect(line_of(page, "ada")).to_contain_text("Low")
    await expect(line_of(page, "ada")).to_contain_text("newly at risk")
    await assign(school, "w2", days=-1)
    await expect(line_of(page, "ada")).to_contain_text("Medium")
    await expect(line_of(page, "ada")).to_contain_text("worse")
    await line_of(page, "ada").locator("summary").first.click()
    await expect(line_of(page, "ada")).to_contain_text("2 never handed in")
    await expect(line_of(page, "ada")).to_contain_text("Never handed in")  # the evidence, read when it is opened

    await school.grade("ada", "w1", 0.9)
    await school.grade("ada", "w2", 0.95)
    await expect(line_of(page, "ada")).to_contain_text("cleared")
    await expect(page.locator(".changes ol")).to_contain_text("Ada Lovelace: missing work, cleared")
    cell = page.get_by_label("Fractions: 93 %, 2 pieces of evidence, not enough data")
    await expect(cell).to_be_visible()  # 0.65 * 0.95 + 0.35 * 0.90
    assert (window.abroad, await window.violations(), window.complaints) == ([], [], [])


@pytest.mark.feature("X-29")
async def test_a_cut_connection_resumes_without_gap_or_repeat_and_proves_it(
    window: Window, school: School, cable: Cable
) -> None:
    page = window.page
    await assign(school, "w1", days=-1)
    await expect(line_of(page, "bo")).to_contain_text("Low")

    cable.is_broken = True
    cable.cut()
    await expect(page.locator(".freshness summary")).to_contain_text("Reconnecting")
    await assign(school, "w2", days=-1)
    await school.record("bo", "CONTENT_VIEWED", contentId="while-away")
    await school.grade("ada", "w1", 1.0)
    cable.is_broken = False

    await live(page)
    await expect(line_of(page, "bo")).to_contain_text("Medium")
    await expect(page.locator(".activity")).to_contain_text("Bo Diddley viewed content")
    await page.locator(".freshness summary").click()
    record = page.locator(".freshness .records li").first
    await expect(record).to_contain_text("0 repeated; checked against a fresh reading: equal")
    assert await page.locator(".activity li", has_text="Bo Diddley viewed content").count() == 1


@pytest.mark.feature("X-29", "000-10")
async def test_a_restarted_service_is_found_again(window: Window, school: School) -> None:
    page = window.page

    await school.stop_api()
    await expect(page.locator(".freshness summary")).to_contain_text("Reconnecting")
    await school.start_api()
    await live(page)

    await school.record("ada", "CONTENT_VIEWED", contentId="afterwards")
    await expect(page.locator(".activity li").first).to_contain_text("Ada Lovelace viewed content")


@pytest.mark.feature("X-29", "003-30")
async def test_a_token_that_ended_while_the_service_was_away_is_no_reason_to_stay_away(
    window: Window, school: School
) -> None:
    page = window.page

    await school.stop_api()
    for _try in range(2):  # five seconds apart: the token, good for six, has ended by then
        async with page.expect_request("**/sign-in", timeout=20_000):
            pass
    await school.start_api()
    await live(page)

    await school.record("ada", "CONTENT_VIEWED", contentId="afterwards")
    await expect(page.locator(".activity li").first).to_contain_text("Ada Lovelace viewed content")


@pytest.mark.feature("X-29")
async def test_what_happens_while_the_class_is_being_read_holds(browser: Browser, school: School) -> None:
    origin, ready, told = f"http://127.0.0.1:{school.port}", asyncio.Event(), asyncio.Event()

    async def hold(route: Route, request: Request) -> None:
        if CLASS_PAGE in (request.post_data or ""):
            answer = await route.fetch()
            await told.wait()
            await route.fulfill(response=answer)
        else:
            await route.continue_()

    def hear(frame: str | bytes) -> None:
        if '"riskFlagChanged"' in str(frame):
            (told if "RAISED" in str(frame) else ready).set()

    async with opened(browser, origin) as window:
        page = window.page
        page.on("websocket", lambda line: line.on("framereceived", hear))
        await page.route("**/graphql", hold)
        async with page.expect_request(lambda request: CLASS_PAGE in (request.post_data or "")):
            await page.goto(f"{origin}/#/class/7b")
        await ready.wait()
        await assign(school, "w1", days=-1)

        await expect(line_of(page, "ada")).to_contain_text("Low")
        await expect(line_of(page, "bo")).to_contain_text("Low")


async def test_who_looks_at_another_page_was_not_interrupted(browser: Browser, school: School) -> None:
    origin = f"http://127.0.0.1:{school.port}"

    async with opened(browser, origin) as window:
        page = window.page
        async with page.expect_websocket() as opening:
            await page.goto(f"{origin}/#/class/7b")
        await live(page)
        async with (await opening.value).expect_event("close"):  # nobody listens, so the line is put down
            await page.goto(f"{origin}/#/")
        await page.goto(f"{origin}/#/class/7b")
        await live(page)

        await page.locator(".freshness summary").click()
        await expect(page.locator(".freshness .records")).to_contain_text("has not been interrupted")


@pytest.mark.feature("003-30")
async def test_a_token_that_ends_is_renewed_and_the_stream_goes_on(window: Window, school: School) -> None:
    page = window.page
    for _renewal in range(3):  # the tokens of this school's page live for six seconds
        async with page.expect_request("**/sign-in", timeout=15_000):
            pass

    await school.record("ada", "CONTENT_VIEWED", contentId="three-tokens-later")

    await expect(page.locator(".activity li").first).to_contain_text("Ada Lovelace viewed content")
    await page.locator(".freshness summary").click()
    await expect(page.locator(".freshness .records")).to_contain_text("has not been interrupted")
