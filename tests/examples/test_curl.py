"""Every line of curl in the documents does, exactly as it is printed, what the document says."""

import json
import re
import shutil
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

import pytest

from rules.access import Role, Scope
from tests.browser.school import School
from tests.examples.program import Program, started
from tests.examples.steps import a_newcomer, fall_due

ROOT = Path(__file__).parents[2]
CURL = ROOT / "docs" / "examples" / "curl.md"
README = ROOT / "README.md"
PRINTED_HOST = "http://127.0.0.1:8080"
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")


def lines_of(path: Path) -> list[str]:
    """The lines of its shell blocks, but for what starts the service."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if re.match(r"[A-Z]+=|curl ", line)]


def run(school: School, folder: Path, *lines: str) -> AbstractAsyncContextManager[Program]:
    """Paste lines into a shell where the demo's file is that of this school."""
    tokens = {
        "teacher": school.token("teacher", Role.TEACHER, life=timedelta(hours=1)),
        "integrator": school.token("lms", Role.INTEGRATOR, scopes=(Scope.INGEST,)),
    }
    (folder / ".sightline").mkdir(exist_ok=True)
    (folder / ".sightline" / "demo.json").write_text(json.dumps({"tokens": tokens}))
    pasted = "\n".join(lines).replace(PRINTED_HOST, f"http://127.0.0.1:{school.port}")
    return started("bash", "-c", f"set -eu\n{pasted}", folder=folder)


@needs_curl
@pytest.mark.feature("003-63", "000-02")
async def test_record_query_and_subscribe_are_one_line_each(school: School, tmp_path: Path) -> None:
    *setup, record, query, subscribe = lines_of(CURL)
    await school.enroll("7b-01", "Ada of the demo")

    async with run(school, tmp_path, *setup, record, "echo", record, "echo", query) as asked:
        assert await asked.ended() == (0, "")
    first, again, shown = (json.loads(line)["data"] for line in asked.lines)
    assert (first["recordEvent"]["status"], first["recordEvent"]["errors"]) == ("ACCEPTED", [])
    assert again["recordEvent"] == {**first["recordEvent"], "status": "DUPLICATE"}
    assert shown["classroom"]["name"] == "Class 7b"
    assert {"completionRate", "averageScore", "atRisk"} == set(shown["classroom"]["dashboard"])

    async with run(school, tmp_path, *setup, f"exec {subscribe}") as listening:
        await listening.line("data: ", '"kind":"READY"')
        await fall_due(school, "w1")
        await a_newcomer(school, "s1")
        await listening.line("data: ", '"change":"RAISED"', '"studentId":"s1"', "MISSING_SUBMISSIONS")


@needs_curl
@pytest.mark.feature("003-63", "000-02")
async def test_the_lines_of_the_readme_record_and_ask(school: School, tmp_path: Path) -> None:
    *setup, record = lines_of(README)
    await school.enroll("7b-01", "Ada of the demo")
    await fall_due(school, "7b-week-01")

    async with run(school, tmp_path, *setup, record) as told:
        assert await told.ended() == (0, "")

    payload = json.loads(told.lines[0])["data"]["recordEvent"]
    assert (payload["status"], payload["errors"]) == ("ACCEPTED", [])
