"""Floors that import contracts cannot express: the OpenTelemetry SDK and the environment stay in server/."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOWER_ROOMS = ("graph", "jobs", "db", "rules")
ENVIRONMENT = {"os.environ", "os.getenv", "os.putenv"}


def offences(source: str) -> list[str]:
    """What a module below the street door takes that it must be handed instead."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [name for name in [ast.unparse(node)] if name in ENVIRONMENT]
        else:
            continue
        found += [name for name in names if name in ENVIRONMENT or f"{name}.".startswith("opentelemetry.sdk.")]
    return found


@pytest.mark.parametrize("room", LOWER_ROOMS)
def test_a_room_below_the_street_door_reads_no_environment_and_knows_no_telemetry_sdk(room: str) -> None:
    told = {str(path.relative_to(ROOT)): offences(path.read_text()) for path in (ROOT / room).rglob("*.py")}

    assert {path: found for path, found in told.items() if found} == {}


def test_the_check_sees_every_way_to_take_them() -> None:
    source = "import os\nfrom os import getenv\nfrom opentelemetry.sdk.trace import X\n"
    source += "from opentelemetry import sdk\nos.environ['A']\n"

    assert offences(source) == ["os.getenv", "opentelemetry.sdk.trace.X", "opentelemetry.sdk", "os.environ"]
