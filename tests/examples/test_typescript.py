"""The TypeScript example against a running service: cut lines, restarts, tokens that end, documents by their id."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.browser.cable import Cable
from tests.browser.school import School
from tests.examples.program import Program, started
from tests.examples.steps import METRICS_TOKEN, a_newcomer, ended_streams, fall_due, restart, until_refused

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "typescript"
LEFT_OUT = "LEFT OUT: the TypeScript example; `make conformance` runs it (Node 20 or newer)"
is_prepared = shutil.which("node") is not None and (EXAMPLE / "node_modules/.ready").exists()
if_prepared = pytest.mark.skipif(not is_prepared, reason=LEFT_OUT)


@pytest_asyncio.fixture(scope="session")
async def dist() -> AsyncIterator[Path]:
    """The example as its reader builds it."""
    async with started("npm", "run", "--silent", "build", folder=EXAMPLE) as build:
        status, complaint = await build.ended()
    assert status == 0, (build.lines, complaint)
    yield EXAMPLE / "dist"


def run(script: Path, port: int, **more: str) -> AbstractAsyncContextManager[Program]:
    url = f"http://127.0.0.1:{port}/graphql"
    return started("node", str(script), "7b", folder=EXAMPLE, SIGHTLINE_URL=url, **more)


@if_prepared
@pytest.mark.feature("003-63")
async def test_the_dashboard_is_shown_with_who_is_at_risk_and_why(dist: Path, school: School) -> None:
    async with run(dist / "watch-risks.js", school.port) as watching:
        await watching.line("flags are raised in 7b")
        await fall_due(school, "w1")
        await watching.line("(bo): MISSING_SUBMISSIONS RAISED LOW")  # with the whole class
    async with run(dist / "class-dashboard.js", school.port) as shown:
        assert await shown.ended() == (0, "")

    assert shown.lines[0].startswith("Class 7b, as of ")
    assert shown.lines[1:3] == ["2 students: 0 % completed, 0 % handed in", "average score none yet"]
    assert [line for line in shown.lines if line.startswith("HIGH")] == [
        "HIGH Ada Lovelace (ada)",
        "HIGH Bo Diddley (bo)",
    ]
    assert sum(line.startswith("  MISSING_SUBMISSIONS: Clears once 1 piece") for line in shown.lines) == 2


@if_prepared
@pytest.mark.feature("003-63", "X-29")
async def test_flags_are_told_once_through_a_cut_line_and_a_restart(dist: Path, school: School, cable: Cable) -> None:
    await fall_due(school, "w1")
    async with run(dist / "watch-risks.js", cable.port) as watching:
        await watching.line("flags are raised in 7b")
        await a_newcomer(school, "s1")
        await watching.line("Newcomer s1 (s1): MISSING_SUBMISSIONS RAISED LOW Clears once")

        cable.is_broken = True
        cable.cut()
        await a_newcomer(school, "s2")
        cable.is_broken = False
        await watching.line("(s2): MISSING_SUBMISSIONS RAISED")

        await school.stop_api()
        await school.start_api()
        await a_newcomer(school, "s3")
        await watching.line("(s3): MISSING_SUBMISSIONS RAISED")

    told = [line.split("(")[1][:2] for line in watching.lines if "Newcomer" in line and "MISSING" in line]
    assert told == ["s1", "s2", "s3"], watching.lines
    assert sum("flags are raised" in line for line in watching.lines) == 1  # it resumed, and never began anew


@if_prepared
@pytest.mark.feature("003-30", "003-63")
async def test_a_token_is_renewed_on_the_open_socket_and_one_that_is_not_accepted_ends_it(
    dist: Path, school: School
) -> None:
    await restart(school, METRICS_TOKEN=METRICS_TOKEN)
    await fall_due(school, "w1")
    async with run(dist / "watch-risks.js", school.port) as watching:
        await watching.line("flags are raised in 7b")
        as_old = await signed_in(school)  # as old as any that the example has by now

        await until_refused(school, as_old)
        await a_newcomer(school, "s1")
        await watching.line("(s1): MISSING_SUBMISSIONS RAISED")
        assert await ended_streams(school) == []

        await restart(school, JWT_SECRET="another secret, of which no token of before is")
        status, complaint = await watching.ended()
    assert status == 1
    assert "closed with 4401" in complaint or "/sign-in answered 4" in complaint


async def signed_in(school: School) -> str:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{school.port}", trust_env=False) as client:
        token: str = (await client.post("/sign-in", json={"role": "teacher"})).json()["accessToken"]
    return token


@if_prepared
@pytest.mark.feature("003-63")
async def test_where_only_registered_documents_are_answered_their_ids_do(dist: Path, school: School) -> None:
    async with run(dist / "class-dashboard.js", school.port, SIGHTLINE_TRUSTED="1") as unregistered:
        status, complaint = await unregistered.ended()
    assert (status, "BAD_INPUT: No document with this" in complaint) == (1, True), complaint

    await restart(school, DOCUMENTS="trusted", TRUSTED_DOCUMENTS=str(EXAMPLE / "documents"))
    async with run(dist / "watch-risks.js", school.port, SIGHTLINE_TRUSTED="1") as watching:
        await watching.line("flags are raised in 7b")
    async with run(dist / "class-dashboard.js", school.port, SIGHTLINE_TRUSTED="1") as by_id:
        assert await by_id.ended() == (0, "")


def test_every_package_is_pinned_by_its_hash_and_no_address_is_named() -> None:
    text = (EXAMPLE / "package-lock.json").read_text()
    package = json.loads((EXAMPLE / "package.json").read_text())
    wanted = package["dependencies"] | package["devDependencies"]
    packages = {name: found for name, found in json.loads(text)["packages"].items() if name}

    assert [name for name, found in packages.items() if not found["integrity"].startswith("sha512-")] == []
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert "resolved" not in text
    assert "://" not in (EXAMPLE / ".npmrc").read_text()
