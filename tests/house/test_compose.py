"""The container files are checked as far as that goes without an engine: against the schema, and command by command."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
OUR_COMMAND = re.compile(r'"python", "-m", "server", "(?P<name>[a-z-]+)"(?P<rest>(?:, "[^"]*")*)')

pytestmark = pytest.mark.feature("000-26")


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = YAML(typ="safe").load(COMPOSE)["services"]
    return found


def our_commands() -> set[tuple[str, ...]]:
    """Every `python -m server …` in Dockerfile and compose file: its subcommand and what follows."""
    return {
        (match["name"], *re.findall(r'"([^"]*)"', match["rest"]))
        for path in (DOCKERFILE, COMPOSE)
        for match in OUR_COMMAND.finditer(path.read_text())
    }


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_compose_file_follows_the_compose_specification() -> None:
    checked = run("check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE))

    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout


def test_the_validator_would_notice_a_wrong_key(tmp_path: Path) -> None:
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(COMPOSE.read_text().replace("healthcheck:", "health_check:", 1))

    assert run("check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(wrong)).returncode == 1


def test_the_services_are_api_worker_migration_postgres_and_redis() -> None:
    assert sorted(services()) == ["api", "migrate", "postgres", "redis", "worker"]


@pytest.mark.parametrize("name", sorted(services()))
def test_every_service_is_pinned_limited_checked_and_not_root(name: str) -> None:
    service = services()[name]

    assert re.search(r":\d+\.\d+", service["image"])
    assert service["user"] not in {"root", "0", "0:0"}
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert "test" in service["healthcheck"] or name == "migrate"
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", ["api", "worker"])
def test_api_and_worker_wait_for_the_migration(name: str) -> None:
    assert services()[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_every_port_is_published_on_this_machine_only() -> None:
    published = [port for service in services().values() for port in service.get("ports", [])]

    assert published == ["127.0.0.1:${PORT:-8080}:8080", "127.0.0.1:5432:5432", "127.0.0.1:6379:6379"]


def test_the_image_is_pinned_runs_as_a_user_and_installs_by_hash() -> None:
    text = DOCKERFILE.read_text()

    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-\w+", image) for image in re.findall(r"^FROM (\S+)", text, re.M))
    assert re.findall(r"^USER (\S+)", text, re.M) == ["sightline"]
    assert "--require-hashes" in text


def test_the_image_holds_the_packages_of_the_tested_lock_and_no_other_version() -> None:
    tested, shipped = (
        set(re.findall(r"^([\w.-]+==\S+)", (ROOT / ".ci" / name).read_text(), re.M))
        for name in ("requirements.txt", "requirements-run.txt")
    )

    assert shipped < tested
    assert not [pin for pin in shipped if pin.startswith(("pytest", "hypothesis", "mypy", "ruff"))]


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-run.txt"])
def test_a_lock_names_no_registry_and_no_path(lock: str) -> None:
    text = (ROOT / ".ci" / lock).read_text()

    lines = {re.sub(r"[0-9a-f]{64}", "HASH", line).removesuffix(" \\") for line in text.splitlines()}

    assert [line for line in lines if "/" in line or "://" in line or line.startswith("-")] == []


@pytest.mark.parametrize("command", sorted(our_commands()), ids=" ".join)
def test_every_command_in_the_container_files_is_one_the_program_knows(command: tuple[str, ...]) -> None:
    told = run("server", command[0], "--help")

    assert told.returncode == 0, told.stderr
    assert all(option in told.stdout for option in command[1:])
