"""The demo from outside: it gets ready, shows a class, keeps walls, goes without a trace and comes back as it was."""

import asyncio
import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.pages.graphiql import TABS
from tests.journeys.test_commands import ROOT, environment, free_port, run

READY_SECONDS_MAX = 60.0  # what the demo promises
GONE_SECONDS_MAX = 20.0
LIVE_SECONDS_MAX = 15.0
# A shell that starts the demo with SIGINT ignored, as background jobs get it; the demo becomes its process.
QUIET_START = 'trap "" INT; exec "$0" -m server demo'
# A parent that only waits, as make does.
UNDER_MAKE = 'MAKELEVEL=1 "$0" -m server demo & wait'

ASK_AS = re.compile(r"^# Ask as: (\w+)$", re.MULTILINE)
DASHBOARD = """query Dashboard($id: ID!) { classroom(id: $id) { name asOf { seq } dashboard {
    completionRate activeStudents atRisk(first: 3) { nodes { studentId flags { reason } } } } } }"""
MASTERY = '{ student(id: "7b-01") { key mastery(first: 20) { nodes { score } } } }'
CONFLICTS = "{ ingestion { conflicts(first: 5) { nodes { eventId } } unrostered(first: 5) { nodes { eventId } } } }"
FIRST_LIVE = '{ ingestion { event(source: "demo", eventId: "live-000000000001") { __typename } } }'


def started(script: str, folder: Path, port: int) -> subprocess.Popen[bytes]:
    output = (folder / "printed.txt").open("ab")  # no log: it is where the demo says its tokens
    with output:
        return subprocess.Popen(
            ["sh", "-c", script, sys.executable],
            cwd=ROOT,
            env=environment(folder, PORT=str(port)),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


async def ready(folder: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What demo.json says once it is there."""
    async with asyncio.timeout(READY_SECONDS_MAX):
        while not (folder / "demo.json").exists():
            assert process.poll() is None, (folder / "printed.txt").read_text()
            await asyncio.sleep(0.05)
    known: dict[str, Any] = json.loads((folder / "demo.json").read_text())
    return known


async def ask(known: dict[str, Any], role: str, query: str, **variables: str) -> Any:
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.post(
            known["graphqlUrl"],
            json={"query": query, "variables": variables},
            headers={"authorization": f"Bearer {known['tokens'][role]}"},
        )
    answer = response.json()
    assert "errors" not in answer, answer
    return answer["data"]


async def until(is_reached: Callable[[], Awaitable[bool]], seconds_max: float) -> None:
    async with asyncio.timeout(seconds_max):
        while not await is_reached():  # noqa: ASYNC110 - other processes get there, and tell nobody
            await asyncio.sleep(0.2)  # a person may ask a hundred times a minute


def left_in(folder: Path) -> list[str]:
    """Every process that belongs to the folder: by its arguments, or by the DATA_DIR of its environment."""
    # The sockets' folder is named by the keeper's hash; PostgreSQL and Valkey have it among their arguments.
    names = (str(folder).encode(), hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:12].encode())
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "ZX" and any(name in known for name in names):
            found.append(f"{process.name} {known[:120].decode(errors='replace')}")
    return found


async def seq_of(known: dict[str, Any]) -> int:
    return int((await ask(known, "teacher", DASHBOARD, id=known["ids"]["classroom"]))["classroom"]["asOf"]["seq"])


@pytest.mark.timeout(150)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are counted in /proc")
@pytest.mark.feature("000-10", "000-25", "002-11", "003-17")
async def test_a_demo_gets_ready_keeps_walls_stops_without_a_trace_and_goes_on_where_it_was(open_folder: Path) -> None:
    port = free_port()
    process = started(QUIET_START, open_folder, port)
    try:
        known = await ready(open_folder, process)
        await _shows_what_it_promises(known, open_folder, port)
        before = await seq_of(known)
        taken, occupied = await _seconds_are_refused(open_folder, port)

        process.send_signal(signal.SIGINT)
        await asyncio.to_thread(process.wait, GONE_SECONDS_MAX)

        assert process.returncode == 0, (open_folder / "printed.txt").read_text()
        assert left_in(open_folder) == []
        assert (taken.returncode, "PORT expects a free port" in taken.stderr) == (2, True)
        assert (occupied.returncode, "DATA_DIR expects a folder of its own" in occupied.stderr) == (2, True)
        process = started(UNDER_MAKE, open_folder, port)
        (open_folder / "demo.json").unlink(missing_ok=True)
        await _goes_on(await ready(open_folder, process), before)

        process.kill()  # make is gone without a word
        process.wait()
        await until(lambda: asyncio.to_thread(lambda: left_in(open_folder) == []), GONE_SECONDS_MAX)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(GONE_SECONDS_MAX)


async def _shows_what_it_promises(known: dict[str, Any], folder: Path, port: int) -> None:
    assert set(known) == {"graphqlUrl", "wsUrl", "tokens", "ids"}
    assert (known["graphqlUrl"], known["wsUrl"]) == (
        f"http://127.0.0.1:{port}/graphql",
        f"ws://127.0.0.1:{port}/graphql",
    )
    assert set(known["tokens"]) == {"student", "guardian", "teacher", "admin", "integrator", "otherTenantTeacher"}
    assert set(known["ids"]) == {"tenant", "school", "classroom", "student", "assignment", "concept"}
    assert stat.S_IMODE((folder / "demo.json").stat().st_mode) == 0o600

    shown = (await ask(known, "teacher", DASHBOARD, id=known["ids"]["classroom"]))["classroom"]["dashboard"]
    real = (await ask(known, "teacher", DASHBOARD, id="BBB-2013J"))["classroom"]["dashboard"]
    foreign = await ask(known, "otherTenantTeacher", DASHBOARD, id=known["ids"]["classroom"])
    own = (await ask(known, "student", MASTERY))["student"]["mastery"]["nodes"]
    child = (await ask(known, "guardian", MASTERY))["student"]["mastery"]["nodes"]

    assert shown["activeStudents"] == 30
    assert 0 < shown["completionRate"] < 1
    assert len(shown["atRisk"]["nodes"]) == 3
    assert real["activeStudents"] > 800
    assert foreign == {"classroom": None}
    assert own == child
    assert own
    await until(lambda: _is_live(known), LIVE_SECONDS_MAX)
    await _graphiql_works_as_it_opens(known, port)


async def _graphiql_works_as_it_opens(known: dict[str, Any], port: int) -> None:
    """Every tab that is no subscription answers the role it names, with something in it; the tokens are offered."""
    async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
        page, logins = await client.get("/graphiql"), await client.get("/graphiql/logins")
    assert (page.status_code, logins.json()) == (200, known["tokens"])
    for path in sorted(TABS.iterdir()):
        document = path.read_text()
        (role,) = ASK_AS.findall(document)
        if "subscription" not in document:
            answer = await ask(known, role, document)
            assert all(answer.values()), (path.name, answer)
            assert not any(isinstance(told, dict) and told.get("errors") for told in answer.values()), answer


async def _is_live(known: dict[str, Any]) -> bool:
    return (await ask(known, "admin", FIRST_LIVE))["ingestion"]["event"] is not None


async def _seconds_are_refused(folder: Path, port: int) -> list[subprocess.CompletedProcess[str]]:
    """A second demo on the same port, and one in the same folder."""
    elsewhere = folder / "elsewhere"
    return [
        await asyncio.to_thread(run, "demo", folder=elsewhere, PORT=str(port)),
        await asyncio.to_thread(run, "demo", folder=folder, PORT=str(free_port())),
    ]


async def _goes_on(known: dict[str, Any], before: int) -> None:
    after = await seq_of(known)
    assert before <= after < before + 500  # a second load would be thousands
    await until(lambda: _has_grown(known, after), LIVE_SECONDS_MAX)
    ingestion = (await ask(known, "admin", CONFLICTS))["ingestion"]
    assert ingestion == {"conflicts": {"nodes": []}, "unrostered": {"nodes": []}}


async def _has_grown(known: dict[str, Any], seq: int) -> bool:
    return await seq_of(known) > seq
