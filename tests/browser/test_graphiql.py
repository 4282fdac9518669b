"""GraphiQL in a real browser: it works alone, under its policy, live, and keeps no token."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from db.live import Live
from db.pool import Pool
from rules.access import Role, Scope
from server.pages.graphiql import TABS, tabs_of
from server.pages.sign_in import Logins
from tests.browser.window import Window, opened
from tests.support.intake import graded
from tests.support.station import Station, station

RECORD = "mutation Tell($input: RecordEventInput!) { recordEvent(input: $input) { status } }"
KEY = "7b-01"  # of the student whom the tabs ask for
LATER = "a-class-typed-afterwards"
HEADER = "Bearer a-token-that-somebody-typed"


@pytest_asyncio.fixture
async def place(pool: Pool, live: Live, redis_url: str, tmp_path: Path) -> AsyncIterator[Station]:
    """A station that offers the tokens of a teacher and a student, as the demo does."""
    logins = tmp_path / "demo.json"
    async with station(pool, live, redis_url, logins=Logins(logins)) as opened_place:
        await opened_place.district.enroll(KEY)
        tokens = {
            "student": opened_place.token(KEY, Role.STUDENT),
            "teacher": opened_place.token("teacher", Role.TEACHER),
        }
        logins.write_text(json.dumps({"tokens": tokens}))
        yield opened_place


@pytest_asyncio.fixture
async def window(browser: Browser, place: Station) -> AsyncIterator[Window]:
    """GraphiQL, opened, with the schema in it."""
    origin = place.address.removesuffix("/graphql")
    async with opened(browser, origin) as found:
        await found.page.goto(f"{origin}/graphiql")
        yield found


async def run(window: Window) -> None:
    await window.page.get_by_role("button", name="Execute query (Ctrl-Enter)").click()


async def run_tab(window: Window, name: str) -> None:
    await window.page.locator(".graphiql-tab-button", has_text=name).click()
    # GraphiQL reads the new document a moment later; asked sooner, it sends the name of the operation of the last tab.
    await window.page.wait_for_function("name => localStorage.getItem('graphiql:operationName') === name", arg=name)
    await run(window)


@pytest.mark.feature("002-11", "003-63")
async def test_it_opens_with_a_tab_for_each_use_and_asks_nobody_else(window: Window) -> None:
    tabs = window.page.get_by_role("tab")

    await expect(tabs).to_have_count(len(tabs_of(TABS)))
    await run_tab(window, "ClassDashboard")
    await expect(window.page.locator(".result-window")).to_contain_text('"name": "Class 7b"')
    await window.page.get_by_role("button", name="Show Documentation Explorer").click()
    await expect(window.page.get_by_text("Root Types")).to_be_visible()
    await window.page.get_by_role("button", name="Show GraphiQL Explorer").click()
    await expect(window.page.locator(".graphiql-explorer-root")).to_be_visible()

    assert (window.abroad, await window.violations(), window.complaints) == ([], [], [])


async def test_another_role_is_another_viewer(window: Window) -> None:
    await window.page.get_by_label("Ask as").select_option("student")
    await run_tab(window, "StudentMastery")
    await expect(window.page.locator(".result-window")).to_contain_text('"mastery"')

    await run_tab(window, "ClassDashboard")

    await expect(window.page.locator(".result-window")).to_contain_text('"dashboard": null')


async def test_a_tab_is_asked_as_the_role_that_it_names_until_another_is_chosen(window: Window) -> None:
    await window.page.locator(".graphiql-tab-button", has_text="StudentMastery").click()
    await expect(window.page.get_by_label("Ask as")).to_have_value("student")
    await window.page.locator(".graphiql-tab-button", has_text="ClassDashboard").click()
    await expect(window.page.get_by_label("Ask as")).to_have_value("teacher")

    await window.page.get_by_label("Ask as").select_option("student")
    await window.page.locator(".graphiql-tab-button", has_text="LiveRisk").click()

    await run_tab(window, "ClassDashboard")
    await expect(window.page.get_by_label("Ask as")).to_have_value("student")
    await expect(window.page.locator(".result-window")).to_contain_text('"dashboard": null')


async def test_a_subscription_hears_what_is_recorded_after_it_began(window: Window, place: Station) -> None:
    await run_tab(window, "LiveMastery")
    await expect(window.page.locator(".result-window")).to_contain_text('"kind": "READY"')

    machine = place.token("lms", Role.INTEGRATOR, scopes=(Scope.INGEST,))
    answer = await place.post(machine, RECORD, {"input": graded(score=0.4, studentId=KEY)})
    assert answer.json()["data"] == {"recordEvent": {"status": "ACCEPTED"}}
    await place.fold()

    await expect(window.page.locator(".result-window")).to_contain_text('"score": 0.4')
    assert (window.abroad, await window.violations(), window.complaints) == ([], [], [])


async def write(window: Window, editor: str, text: str) -> None:
    await window.page.get_by_role("button", name=editor).click()
    await window.page.locator(".graphiql-editor-tool .graphiql-editor:not(.hidden) .CodeMirror").click()
    await window.page.keyboard.insert_text(text)


async def test_no_token_is_kept_in_the_browser_however_it_was_given(window: Window, place: Station) -> None:
    await run_tab(window, "ClassDashboard")
    await expect(window.page.locator(".result-window")).to_contain_text("Class 7b")
    await write(window, "Headers", json.dumps({"Authorization": HEADER}))
    await run(window)
    await expect(window.page.locator(".result-window")).to_contain_text("UNAUTHENTICATED")  # the header won

    # GraphiQL keeps all that was edited at once, a moment after the last edit: what came later shows that it has.
    await write(window, "Variables", json.dumps({"classroom": LATER}))
    await window.page.wait_for_function("text => JSON.stringify({...localStorage}).includes(text)", arg=LATER)
    before = await window.stored()
    await window.page.reload()
    await expect(window.page.get_by_role("tab").first).to_be_visible()
    after = await window.stored()

    for kept in (before, after):
        assert "ClassDashboard" in kept
        assert [token for token in [*place.tokens, HEADER] if token in kept] == []
