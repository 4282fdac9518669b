"""The live page in every state of a class, and for everyone: keyboard, screen reader, zoom, phone, print."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, Request, Route, WebSocketRoute, expect

from db.live import Live
from db.pool import Pool
from rules.access import Role, Scope
from server.pages.sign_in import Logins
from tests.browser.window import Window, opened
from tests.rows.district import NOW, District
from tests.support.intake import graded
from tests.support.station import Station, station

DOCUMENTS = Path(__file__).parents[2] / "server/pages/documents"
RECORD_MANY = "mutation ($input: RecordEventsInput!) { recordEvents(input: $input) { results { status } } }"
LONG = "Wolfeschlegelsteinhausenbergerdorff" * 3
HEBREW, ARABIC = "ליאת בן־דוד", "عبد الرحمن بن محمد"
CONCEPTS = [f"concept-{number:02}" for number in range(12)]
SERIOUS = {"serious", "critical"}
FILL_CLASS = """
with new as (
    insert into student (tenant, student, created_at)
    select $1, 's' || lpad(n::text, 5, '0'), now() from generate_series(1, $2) n returning student
), enrolled as (
    insert into enrollment (tenant, classroom, person, role, started)
    select $1, '7b', student, 'STUDENT', date '2026-01-07' from new
)
insert into standing (tenant, student, classroom, concept, count, earlier_sum, newest, successes, quiz_attempts, score,
    last_evidence_at, rank, time_spent_ms, last_accessed_at, policy_version, class_change, student_change)
select $1, student, '7b', concept, 4, 0, 500000, 0, 0, (abs(hashtext(student || concept)) % 1000),
    $3, 1, 0, $3, 1, 1, 1
from new, unnest($4::text[]) as named (concept)
"""


@pytest_asyncio.fixture
async def place(pool: Pool, live: Live, redis_url: str, tmp_path: Path) -> AsyncIterator[Station]:
    """A station whose page signs in the teacher of 7b, and a student who may see no class."""
    logins = tmp_path / "demo.json"
    async with station(pool, live, redis_url, logins=Logins(logins)) as opened_place:
        tokens = {
            "teacher": opened_place.token("teacher", Role.TEACHER),
            "student": opened_place.token("ann", Role.STUDENT),
        }
        logins.write_text(json.dumps({"tokens": tokens}))
        yield opened_place


@asynccontextmanager
async def looking(browser: Browser, place: Station, hash: str, *, query: str = "") -> AsyncIterator[Window]:
    """A window on one place of the page."""
    origin = place.address.removesuffix("/graphql")
    async with opened(browser, origin) as window:
        await window.page.goto(f"{origin}/{query}#{hash}")
        yield window


async def a_school_day(district: District) -> None:
    """Five students of every kind of name and number."""
    for key, name in {"ann": "Ann Abel", "liat": HEBREW, "abd": ARABIC, "wolf": LONG, "zoe": "Zoë"}.items():
        await district.enroll(key)
        await district.person(key, name)
    await district.assignment("hw1", concepts=["fractions"], due_at=NOW - timedelta(days=1))
    await district.rates(completion_rate=333, average_score=None, submission_rate=667, active_students=5)
    evidence: dict[str, Any] = {
        "missing": [],
        "numbers": {"ITEMS_OPEN": 1},
    }
    await district.flag("wolf", "MISSING_SUBMISSIONS", 3, evidence=evidence)
    await district.flag("liat", "INACTIVE", 1, evidence={})
    await district.event("e1", "ann")


async def wide(page: Page) -> bool:
    """Whether the page is wider than its window: something would have to be scrolled sideways."""
    found: bool = await page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return found


async def serious_findings(page: Page) -> list[str]:
    """What axe finds and calls serious or critical."""
    found = await Axe().run(page)
    assert len(found.response["passes"]) > 10, "the rules ran"
    return [
        f"{each['id']}: {[node['target'] for node in each['nodes']]}"
        for each in found.response["violations"]
        if each["impact"] in SERIOUS
    ]


async def test_a_class_without_students_says_so(browser: Browser, place: Station) -> None:
    await place.district.rates(active_students=0)

    async with looking(browser, place, "/class/7b") as window:
        await expect(window.page.get_by_text("Nobody is enrolled in this class today")).to_be_visible()
        await expect(window.page.get_by_text("not enough data").first).to_be_visible()


async def test_a_class_of_one_student_is_whole(browser: Browser, place: Station) -> None:
    await place.district.enroll("ann")
    await place.district.assignment("hw1")
    await place.district.rates(completion_rate=1000, average_score=850, submission_rate=1000, active_students=1)

    async with looking(browser, place, "/class/7b") as window:
        await expect(window.page.get_by_text("Nobody in this class is at risk")).to_be_visible()
        await expect(window.page.get_by_text("1 of 1 students")).to_be_visible()
        await expect(window.page.get_by_text("85.0 %")).to_be_visible()


@pytest.mark.feature("003-29")
async def test_who_may_not_see_a_class_is_told_and_shown_nothing(browser: Browser, place: Station) -> None:
    await a_school_day(place.district)

    async with looking(browser, place, "/class/nowhere") as window:
        await expect(window.page.get_by_role("heading", name="No such class")).to_be_visible()
    async with looking(browser, place, "/class/7b", query="?as=student") as window:
        await expect(window.page.get_by_role("heading", name="Not for you to see")).to_be_visible()
        assert "Zoë" not in await window.page.content()
    async with looking(browser, place, "/class/7b", query="?as=nobody") as window:
        await expect(window.page.get_by_text("Signing you in")).to_be_visible()


@pytest.mark.parametrize("width", [390, 640, 768, 1280])  # a phone; 1280 at 200 % zoom; a tablet; a laptop
async def test_nothing_is_cut_off_at_any_width_whatever_the_names(browser: Browser, place: Station, width: int) -> None:
    await a_school_day(place.district)

    async with looking(browser, place, "/class/7b") as window:
        await window.page.set_viewport_size({"width": width, "height": 800})
        await expect(window.page.locator(".at-risk summary").get_by_text(HEBREW)).to_be_visible()
        assert not await wide(window.page)
        await window.page.goto(window.page.url.partition("#")[0] + "#/class/7b/student/wolf")
        await expect(window.page.get_by_role("heading", name=LONG)).to_be_visible()
        assert not await wide(window.page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious(browser: Browser, place: Station, scheme: Any) -> None:
    await a_school_day(place.district)

    for hash, heading in (("/class/7b", "Class 7b"), ("/class/7b/student/liat", HEBREW), ("/", "Your classes")):
        async with looking(browser, place, hash) as window:
            await window.page.emulate_media(color_scheme=scheme)
            if hash == "/":
                await window.page.goto(window.page.url.partition("#")[0] + "#/class/nowhere")
                heading = "No such class"
            await expect(window.page.get_by_role("heading", name=heading)).to_be_visible()
            assert (hash, await serious_findings(window.page)) == (hash, [])


async def test_the_keyboard_alone_reaches_everything(browser: Browser, place: Station) -> None:
    await a_school_day(place.district)
    await place.district.run(FILL_CLASS, 3, NOW, CONCEPTS)

    async with looking(browser, place, "/class/7b") as window:
        page = window.page
        await expect(page.get_by_text("8 of 8 students")).to_be_visible()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="To the content")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("main")).to_be_focused()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator(".at-risk details").first).to_have_attribute("open", "")
        await page.locator(".who a[tabindex='0']").focus()
        for key in ("Control+End", "ArrowUp", "Home"):
            await page.keyboard.press(key)
        await expect(page.locator("[data-focus=yes]")).to_be_focused()
        assert await page.evaluate("document.activeElement.tagName") == "A"
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Mastery", exact=True)).to_be_visible()


async def test_a_heat_map_of_the_largest_class_draws_what_is_in_view(browser: Browser, place: Station) -> None:
    await place.district.rates(active_students=1_255)
    await place.district.run(FILL_CLASS, 1_255, NOW, CONCEPTS)

    async with looking(browser, place, "/class/7b") as window:
        page = window.page
        await expect(page.get_by_text("1255 of 1255 students")).to_be_visible()
        grid = page.get_by_role("grid")
        await expect(grid).to_have_attribute("aria-rowcount", "1257")
        assert await page.locator(".heat [aria-rowindex]").count() < 60
        await page.locator(".who a[tabindex='0']").focus()
        await page.keyboard.press("Control+End")
        await expect(page.locator('[aria-rowindex="1257"]')).to_be_visible()
        await page.get_by_label("Find").fill("s00042")
        await expect(page.get_by_text("1 of 1255 students")).to_be_visible()


async def test_a_standing_that_is_heard_before_its_row_is_read_is_shown(browser: Browser, place: Station) -> None:
    await place.district.rates(active_students=8, change_no=1)
    await place.district.run(FILL_CLASS, 8, NOW, CONCEPTS)
    rows = hashlib.sha256((DOCUMENTS / "heat_map.graphql").read_bytes()).hexdigest()
    snapshot: list[tuple[WebSocketRoute, str | bytes]] = []
    is_whole = asyncio.Event()

    def relay(line: WebSocketRoute) -> None:
        def hear(frame: str | bytes) -> None:
            if '"masteryChanged"' not in str(frame):
                return line.send(frame)
            snapshot.append((line, frame))
            return is_whole.set() if "READY" in str(frame) else None

        line.connect_to_server().on_message(hear)

    async def tell_first(route: Route, request: Request) -> None:
        if rows in (request.post_data or ""):  # asked for, not answered yet
            await is_whole.wait()
            for line, frame in snapshot:
                line.send(frame)
        await route.continue_()

    async with looking(browser, place, "/") as window:
        page = window.page
        await page.route_web_socket("**/graphql", relay)
        await page.route("**/graphql", tell_first)
        await page.reload()
        await page.goto(page.url.partition("#")[0] + "#/class/7b")
        await expect(page.get_by_text("8 of 8 students")).to_be_visible()
        await expect(page.locator(".heat [role=gridcell].cell")).to_have_count(8 * len(CONCEPTS))
        assert await page.locator(".heat [role=gridcell].none").count() == 0


async def test_five_thousand_events_a_minute_neither_grow_the_page_nor_stop_it(
    browser: Browser, place: Station
) -> None:
    await a_school_day(place.district)
    machine = place.token("lms", Role.INTEGRATOR, scopes=(Scope.INGEST,))

    async with looking(browser, place, "/class/7b") as window:
        page = window.page
        await expect(page.locator(".freshness summary")).to_contain_text("Live")
        for batch in range(5):
            events = [graded(f"b{batch}-{n}", studentId="zoe", occurredAt=NOW.isoformat()) for n in range(100)]
            answer = await place.post(machine, RECORD_MANY, {"input": {"events": events}})
            assert len(answer.json()["data"]["recordEvents"]["results"]) == 100

        await expect(page.get_by_text("500 in the last minute")).to_be_visible()
        assert await page.locator(".activity li").count() == 60
        await page.get_by_role("button", name="Pause").click()
        await expect(page.get_by_role("button", name="Go on")).to_be_visible()


async def test_a_print_holds_the_numbers_and_no_controls(browser: Browser, place: Station) -> None:
    await a_school_day(place.district)

    async with looking(browser, place, "/class/7b") as window:
        await expect(window.page.get_by_role("heading", name="Class 7b")).to_be_visible()
        await window.page.locator(".freshness summary").click()
        await window.page.emulate_media(media="print")
        await expect(window.page.locator(".theme")).to_be_hidden()
        await expect(window.page.locator(".records")).to_be_hidden()  # it would lie over the numbers
        await expect(window.page.get_by_text("33.3 %")).to_be_visible()


async def test_a_print_holds_every_row_of_the_heat_map(browser: Browser, place: Station) -> None:
    await place.district.rates(active_students=300)
    await place.district.run(FILL_CLASS, 300, NOW, CONCEPTS)

    async with looking(browser, place, "/class/7b") as window:
        page = window.page
        await expect(page.get_by_text("300 of 300 students")).to_be_visible()
        assert await page.locator(".heat .who").count() < 60
        # As the browser's own print does: told just before, with no time to wait for.
        printed = await page.evaluate(
            "async () => { dispatchEvent(new Event('beforeprint')); await null; await null;"
            " return document.querySelectorAll('.heat .who').length; }"
        )
        await page.evaluate("dispatchEvent(new Event('afterprint'))")
        await expect(page.locator('[aria-rowindex="302"]')).to_have_count(0)

    assert printed == 300


async def test_work_and_concepts_are_called_by_their_names(browser: Browser, place: Station) -> None:
    await a_school_day(place.district)
    await place.district.put("concept", concept="fractions", name="Fractions", kind="CONCEPT", subject="maths")
    await place.district.event("e2", "zoe", kind="SUBMISSION_CREATED", assignment="hw1", concepts=["fractions"])
    await place.district.event("e3", "zoe", concepts=["fractions"])

    async with looking(browser, place, "/class/7b") as window:
        page = window.page
        activity = page.locator(".activity ol")
        await expect(activity).to_contain_text("Zoë handed in Work hw1")
        await expect(activity).to_contain_text("Zoë viewed content about Fractions")
        await page.goto(page.url.partition("#")[0] + "#/class/7b/student/zoe")
        await expect(page.locator(".timeline")).to_contain_text("handed in Work hw1")


async def test_a_students_class_leads_to_their_own_page(browser: Browser, place: Station) -> None:
    await a_school_day(place.district)
    await place.district.classroom("8c")
    await place.district.enroll("ann", "8c")

    async with looking(browser, place, "/", query="?as=student") as window:
        await window.page.get_by_role("link", name="Class 7b").click()
        await expect(window.page.get_by_role("heading", name="Ann Abel")).to_be_visible()
        await expect(window.page.get_by_role("heading", name="Flags")).to_be_hidden()  # the staff's alone


async def test_the_list_of_classes_says_how_each_is_doing(browser: Browser, place: Station) -> None:
    await a_school_day(place.district)
    await place.district.classroom("8c")
    await place.district.teach("teacher", "8c")

    async with looking(browser, place, "/") as window:
        card = window.page.locator(".classes > li", has_text="Class 7b")
        await expect(card).to_contain_text("5 students")
        await expect(card).to_contain_text("Completed33 %")
        await expect(card).to_contain_text("Averageno data")
        await expect(card).to_contain_text("High 1")
        assert await serious_findings(window.page) == []
        await expect(window.page.get_by_text("signed in as teacher (teacher)")).to_be_visible()
        await card.click()
        await expect(window.page.get_by_role("heading", name="Class 7b")).to_be_visible()
