"""The listener's example against a running service: cut lines, restarts of either side, tokens that end."""

import sys
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

import pytest

from rules.access import Role, Scope
from tests.browser.cable import Cable
from tests.browser.school import School
from tests.examples.program import Program, started
from tests.examples.steps import METRICS_TOKEN, a_newcomer, ended_streams, fall_due, restart, until_refused

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "python" / "watch_risks.py"
SHORT = timedelta(seconds=6)


def token(school: School, life: timedelta = timedelta(hours=1)) -> str:
    return school.token("listener", Role.INTEGRATOR, scopes=(Scope.READ,), life=life)


def run(port: int, folder: Path, held: str, *words: str) -> AbstractAsyncContextManager[Program]:
    (folder / "token").write_text(held)
    told = ("7b", "--url", f"http://127.0.0.1:{port}/graphql", "--token-file", "token", *words)
    return started(sys.executable, str(SCRIPT), *told, folder=folder)


@pytest.mark.feature("003-63", "X-29")
async def test_each_flag_is_told_once_whoever_was_away(school: School, cable: Cable, tmp_path: Path) -> None:
    await fall_due(school, "w1")
    async with run(cable.port, tmp_path, token(school)) as first:
        await first.line("READY: ", "flags are raised in 7b")
        await a_newcomer(school, "s1")
        await first.line("RAISED s1 MISSING_SUBMISSIONS LOW Clears once")

        cable.is_broken = True
        cable.cut()
        await a_newcomer(school, "s2")
        cable.is_broken = False
        await first.line("RAISED s2 MISSING_SUBMISSIONS")

        await school.stop_api()
        await school.start_api()
        await a_newcomer(school, "s3")
        await first.line("RAISED s3 MISSING_SUBMISSIONS")
        first.kill()
        await first.ended()
    await a_newcomer(school, "s4")
    async with run(cable.port, tmp_path, token(school)) as second:
        await second.line("RAISED s4 MISSING_SUBMISSIONS")

    # Killed between telling and keeping its place it tells one thing again; it never leaves one out.
    lines = first.lines + [line for line in second.lines if line != first.lines[-1]]
    assert [line.split()[1] for line in lines if "RAISED s" in line and "MISSING" in line] == ["s1", "s2", "s3", "s4"]
    assert sum(line.startswith(("READY", "RESYNC")) for line in lines) == 1  # it resumed, and never began anew


@pytest.mark.feature("003-30", "003-63")
async def test_a_fresh_token_is_handed_in_on_the_open_socket(school: School, tmp_path: Path) -> None:
    await restart(school, METRICS_TOKEN=METRICS_TOKEN)
    await fall_due(school, "w1")
    old = token(school, SHORT)
    async with run(school.port, tmp_path, old) as watching:
        await watching.line("READY: ")
        (tmp_path / "token").write_text(token(school))

        await until_refused(school, old)
        await a_newcomer(school, "s1")
        await watching.line("RAISED s1 MISSING_SUBMISSIONS")
        assert await ended_streams(school) == []


@pytest.mark.feature("003-30", "003-63")
async def test_after_its_token_has_ended_it_comes_back_with_the_next_and_not_with_a_wrong_one(
    school: School, tmp_path: Path
) -> None:
    await fall_due(school, "w1")
    old = token(school, SHORT)
    async with run(school.port, tmp_path, old) as watching:
        await watching.line("READY: ")
        await until_refused(school, old)
        await a_newcomer(school, "s1")
        (tmp_path / "token").write_text(token(school))
        await watching.line("RAISED s1 MISSING_SUBMISSIONS")

        (tmp_path / "token").write_text("not a token")
        status, complaint = await watching.ended()
    assert (status, complaint.splitlines()[-1]) == (4, "refused: closed with 4401: this token is not accepted")
    assert "4403" in complaint


@pytest.mark.feature("003-63")
async def test_a_class_that_is_not_theirs_and_no_address_are_refused_for_good(school: School, tmp_path: Path) -> None:
    stranger = school.token("somebody", Role.TEACHER)

    async with run(school.port, tmp_path, stranger) as watching:
        status, complaint = await watching.ended()

    assert (status, complaint.startswith("refused: FORBIDDEN")) == (4, True), complaint
    assert watching.lines == []

    async with run(school.port, tmp_path, token(school), "--url", "somewhere") as lost:
        status, complaint = await lost.ended()

    assert (status, complaint.startswith("refused: somewhere isn't a valid URI")) == (4, True), complaint
