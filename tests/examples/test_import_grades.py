"""The integrator's example against a running service: outages, limits, rows that are wrong, a second run."""

import csv
import sys
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rules.access import Role, Scope
from tests.browser.school import School
from tests.examples.program import Program, started
from tests.examples.steps import fall_due

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "python" / "import_grades.py"
COLUMNS = ("student", "class", "assignment", "submission", "score", "max_score", "graded_at")
ROWS = 1_600  # more than the 1,000 events that the budget holds below
A_WHILE_AGO = datetime(2026, 3, 2, 9, tzinfo=UTC)


def write(path: Path, *rows: tuple[str, ...]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def grade(student: str, score: str, minute: int = 0) -> tuple[str, ...]:
    at = A_WHILE_AGO + timedelta(minutes=minute)
    return (student, "7b", "w1", f"{student}-{minute}", score, "10", at.isoformat())


def run(school: School, *words: str, folder: Path, token: str | None = None) -> AbstractAsyncContextManager[Program]:
    machine = school.token("lms", Role.INTEGRATOR, scopes=(Scope.INGEST,)) if token is None else token
    url = f"http://127.0.0.1:{school.port}/graphql"
    return started(sys.executable, str(SCRIPT), "--url", url, *words, folder=folder, SIGHTLINE_TOKEN=machine)


@pytest.mark.feature("003-63", "003-32")
async def test_a_file_is_stored_once_through_an_outage_and_a_limit(school: School, tmp_path: Path) -> None:
    write(tmp_path / "grades.csv", *(grade("ada", "7", minute) for minute in range(ROWS)))
    await fall_due(school, "w1")
    await school.stop_api()

    async with run(school, "grades.csv", "--batch", "400", folder=tmp_path) as first:
        school.environment["INTEGRATOR_EVENTS_PER_SECOND"] = "500"
        await school.start_api()
        assert await first.ended() == (0, "")
    async with run(school, "grades.csv", folder=tmp_path) as second:
        assert await second.ended() == (0, "")

    counts, _, retries = first.lines[0].partition(" retries=")
    assert counts == f"accepted={ROWS} duplicate=0 conflict=0 rejected=0 unreadable=0"
    assert int(retries) >= 2  # the outage, and the limit
    assert second.lines[0].startswith(f"accepted=0 duplicate={ROWS} conflict=0 rejected=0 unreadable=0 retries=")
    assert not (tmp_path / "rejects.csv").exists()


@pytest.mark.feature("003-63")
async def test_what_was_not_stored_is_written_down_with_its_reason(school: School, tmp_path: Path) -> None:
    await fall_due(school, "w1")
    write(tmp_path / "grades.csv", grade("ada", "7"))
    async with run(school, "grades.csv", folder=tmp_path) as first:
        assert await first.ended() == (0, "")
    write(tmp_path / "grades.csv", grade("ada", "8"), grade("bo", "11"), grade("bo", "ill", 1), grade("bo", "9", 2))

    async with run(school, "grades.csv", "--batch", "2", "--rejects", "why.csv", folder=tmp_path) as second:
        assert await second.ended() == (5, "")

    assert second.lines == [
        "accepted=1 duplicate=0 conflict=1 rejected=1 unreadable=1 retries=0",
        "why rows were not stored: why.csv",
    ]
    with (tmp_path / "why.csv").open(newline="") as file:
        why = [(row["line"], row["status"], row["code"], row["field"]) for row in csv.DictReader(file)]
    assert why == [
        ("2", "CONFLICT", "", ""),
        ("3", "REJECTED", "SCORE_OUT_OF_RANGE", "score"),
        ("4", "UNREADABLE", "", ""),
    ]


@pytest.mark.feature("003-63")
async def test_it_says_why_it_gave_up(school: School, tmp_path: Path) -> None:
    write(tmp_path / "grades.csv", grade("ada", "7"))
    (tmp_path / "other.csv").write_text("name,points\nAda,7\n")

    async with run(school, "grades.csv", folder=tmp_path, token="not a token") as unknown:
        assert await unknown.ended() == (4, "refused: UNAUTHENTICATED: A valid bearer token is required.\n")
    async with run(school, "other.csv", folder=tmp_path) as other:
        status, complaint = await other.ended()
    assert (status, complaint.startswith("refused: the file lacks the columns assignment, class,")) == (4, True)
    async with run(school, "grades.csv", folder=tmp_path, token="") as nobody:
        status, complaint = await nobody.ended()
    assert (status, "SIGHTLINE_TOKEN must hold a token" in complaint) == (2, True)
    async with run(school, "grades.csv", "--url", "somewhere", folder=tmp_path) as nowhere:
        status, complaint = await nowhere.ended()
    assert (status, complaint.startswith("refused: UnsupportedProtocol")) == (4, True)
    async with run(school, "lost.csv", folder=tmp_path) as lost:
        status, complaint = await lost.ended()
    assert (status, "there is no file lost.csv" in complaint) == (2, True)
    await school.stop_api()
    async with run(school, "grades.csv", "--tries", "2", folder=tmp_path) as alone:
        status, complaint = await alone.ended()
    assert (status, complaint.startswith("given up, run it again: no answer in 2 tries")) == (3, True)


@pytest.mark.feature("003-63")
async def test_the_sample_file_shows_each_fate(school: School, tmp_path: Path) -> None:
    await fall_due(school, "7b-week-01")
    async with run(school, str(SCRIPT.with_name("grades.csv")), folder=tmp_path) as sample:
        assert await sample.ended() == (5, "")

    assert sample.lines[0] == "accepted=3 duplicate=0 conflict=0 rejected=2 unreadable=1 retries=0"
