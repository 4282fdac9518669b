"""The commands as a stranger meets them: their help, their refusals, and two processes on one folder."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import httpx
import pytest

from graph.trusted import id_of
from rules.access import Role, Scope
from server.commands import main
from server.identity import Identity, SharedSecret
from server.settings import TABLE
from tests.support.privacy import EAR

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "api",
    "worker",
    "migrate",
    "demo",
    "simulate",
    "replay-oulad",
    "token",
    "recompute",
    "verify",
    "schema",
    "documents",
    "settings",
)
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 25.0
SECRET = "correct horse battery staple, 32+ bytes"


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Ours, without any setting of the machine that runs the tests."""
    ours = {row.name for row in TABLE} | {"MAKELEVEL"}
    return {name: value for name, value in os.environ.items() if name not in ours} | {"DATA_DIR": str(folder)} | more


def run(*arguments: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=START_SECONDS_MAX,
    )
    EAR.hear(f"stderr of {arguments[0]}", done.stderr)
    return done


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(*arguments: str, folder: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A command in the background, ended at the latest with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env=environment(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            said, _ = process.communicate(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
        EAR.hear(f"the output of {arguments[0]}", said)


async def until_there(path: Path) -> None:
    async with asyncio.timeout(START_SECONDS_MAX):
        while not path.exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)


async def until_answer(url: str, status: int) -> httpx.Response:
    """The first answer with this status; nothing but asking tells when a server is there."""
    until = monotonic() + START_SECONDS_MAX
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            try:
                response = await client.get(url)
                if response.status_code == status:
                    return response
            except httpx.TransportError:
                pass
            assert monotonic() < until, f"{url} never answered {status}"
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"], {})

    told = capsys.readouterr()
    assert (ended.value.code, told.err) == (0, "")
    assert f"usage: python -m server {command}" in told.out
    assert "python -m server settings" in told.out


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"], {})

    told = capsys.readouterr().out
    assert [command for command in COMMANDS if f"\n    {command} " not in told.replace("\n                ", " ")] in (
        [],
        ["replay-oulad"],  # argparse breaks the line after a long name
    )


@pytest.mark.parametrize("command", ["api", "worker", "migrate", "demo"])
def test_a_wrong_setting_is_one_line_with_its_name_and_what_it_expects(command: str, tmp_path: Path) -> None:
    told = run(command, folder=tmp_path, PORT="eighty")

    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr == "sightline: wrong setting: PORT expects a port, 1 to 65535; got 'eighty'\n"
    assert list(tmp_path.iterdir()) == []


def test_production_does_not_start_on_a_default(tmp_path: Path) -> None:
    told = run("api", folder=tmp_path, ENVIRONMENT="production")

    assert told.returncode == 2
    assert told.stderr.startswith("sightline: wrong setting: DATABASE_URL expects ")


async def test_a_token_is_the_viewer_it_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["token", "--role", "integrator", "--role", "admin", "--sub", "lms-1", "--tenant", "7", "--hours", "2"]
    status = main([*asked, "--scope", "read", "--source", "lms"], {"JWT_SECRET": SECRET})

    token = capsys.readouterr().out.strip()
    viewer = await Identity(SharedSecret(SECRET), clock=lambda: datetime.now(UTC)).viewer_of(token)
    assert status == 0
    assert (viewer.tenant, viewer.key, viewer.roles) == (7, "lms-1", frozenset({Role.INTEGRATOR, Role.ADMIN}))
    assert (viewer.scopes, viewer.sources) == (frozenset({Scope.READ}), frozenset({"lms"}))
    assert 7_100 < (viewer.expires_at - datetime.now(UTC)).total_seconds() <= 7_200


def test_production_mints_no_token_and_runs_no_demo(capsys: pytest.CaptureFixture[str]) -> None:
    production = {
        "ENVIRONMENT": "production",
        "DATABASE_URL": "postgresql://sight:Zq8-long-one@db:5432/sightline",
        "REDIS_URL": "redis://cache:6379/0",
        "JWT_SECRET": SECRET,
    }

    statuses = [main(["token", "--role", "admin", "--sub", "a"], production), main(["demo"], production)]

    told = capsys.readouterr()
    assert (statuses, told.out) == ([2, 2], "")
    assert told.err.count("wrong setting: ENVIRONMENT expects development") == 2


def test_a_simulation_without_a_service_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["simulate"], {"DATA_DIR": str(tmp_path)})

    assert status == 2
    assert "--url and --token are needed" in capsys.readouterr().err


def test_the_schema_and_the_settings_are_printed(tmp_path: Path) -> None:
    schema, settings = run("schema", folder=tmp_path), run("settings", folder=tmp_path)

    assert (schema.returncode, settings.returncode) == (0, 0)
    assert "type Query" in schema.stdout
    assert [row.name for row in TABLE if row.name not in settings.stdout] == []


def test_trusted_documents_are_listed_by_the_id_that_calls_them(tmp_path: Path) -> None:
    (tmp_path / "mine.graphql").write_text("{ service { status } }")

    told = run("documents", "--json", folder=tmp_path, TRUSTED_DOCUMENTS=str(tmp_path))
    lines = run("documents", folder=tmp_path, TRUSTED_DOCUMENTS=str(tmp_path)).stdout.splitlines()

    listed = json.loads(told.stdout)
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "server/pages/documents").rglob("*.graphql")}
    assert set(listed.values()) == pages | {str(tmp_path / "mine.graphql")}
    assert [listed[id_of(Path(ROOT, name).read_text())] for name in listed.values()] == list(listed.values())
    assert lines == [f"{name}  {place}" for name, place in listed.items()]


@pytest.mark.parametrize("command", ["documents", "api"])
def test_a_trusted_document_that_is_not_valid_stops_the_start_with_one_line(command: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.graphql"
    wrong.write_text("{ service { nope } }")

    told = run(command, folder=tmp_path / "data", TRUSTED_DOCUMENTS=str(tmp_path))

    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr == (
        f"sightline: trusted document {wrong}: Cannot query field 'nope' on type 'Service'. (line 1 column 13)\n"
    )
    assert not (tmp_path / "data").exists()


def test_the_check_of_a_worker_fails_where_none_runs(tmp_path: Path) -> None:
    told = run("worker", "--check", folder=tmp_path)

    assert told.returncode == 1
    assert "no worker has shown itself" in told.stdout


@pytest.mark.feature("000-10", "003-70")
async def test_later_processes_join_the_servers_of_the_first_and_end_with_a_reason_when_it_ends(
    open_folder: Path,
) -> None:
    port = free_port()
    with running("worker", folder=open_folder) as worker:
        await until_there(open_folder / "servers.json")
        migrated = await asyncio.to_thread(run, "migrate", folder=open_folder)
        checked = await asyncio.to_thread(run, "worker", "--check", folder=open_folder)
        with running("api", folder=open_folder, PORT=str(port)) as api:
            await until_answer(f"http://127.0.0.1:{port}/ready", 200)
            health = (await until_answer(f"http://127.0.0.1:{port}/health", 200)).json()
            worker.send_signal(signal.SIGTERM)
            told, _ = await asyncio.to_thread(api.communicate, timeout=STOP_SECONDS_MAX)
        said, _ = await asyncio.to_thread(worker.communicate, timeout=STOP_SECONDS_MAX)

    assert (migrated.returncode, checked.returncode) == (0, 0)
    assert "joined the embedded servers" in migrated.stderr
    assert health["status"] == "ok"
    assert set(health) == {"status", "version", "checks", "uptime_seconds"}
    assert health["checks"] == {"database": "ok", "redis": "ok", "disk_space": "ok"}
    assert (worker.returncode, "Traceback" in said) == (0, False)
    assert api.returncode == 1
    assert f"have stopped with process {worker.pid}" in told
    assert not (open_folder / "servers.json").exists()
