"""Import grades from a CSV file into Sightline, in batches; safe to run twice, and after any interruption."""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import httpx

COLUMNS = ("student", "class", "assignment", "submission", "score", "max_score", "graded_at")
REJECT_COLUMNS = ("line", "event_id", "status", "code", "field", "message")
BATCH_EVENTS_MAX = 1_000  # what recordEvents takes
TRIES = 8  # some two minutes
BACK_OFF_SECONDS_FIRST = 0.5
BACK_OFF_SECONDS_MAX = 30.0
ANSWER_SECONDS_MAX = 20.0
# Of all codes, these alone say that the same request may succeed later.
RETRYABLE_CODES = {"UNAVAILABLE", "OVERLOADED", "RATE_LIMITED"}
RETRYABLE_STATUS = {429, 502, 503, 504}  # the service's own, and what proxies answer in its place
STORED, AWAY, REFUSED, SOME_REFUSED = 0, 3, 4, 5  # exit statuses; 1 and 2 are Python's and argparse's

RECORD = """
mutation ImportGrades($input: RecordEventsInput!) {
  recordEvents(input: $input) {
    results { status errors { code field message } conflict { storedHash sentHash } }
    errors { code field message }
  }
}
"""


class Refused(Exception):
    """The service answered, and what it said will not change by asking again."""


class Away(Exception):
    """The service did not answer, or was busy, in every one of the tries."""


class Busy(Exception):
    """One try failed in a way that another may not; `wait_seconds` is what the service asked for."""

    def __init__(self, why: str, wait_seconds: float = 0.0) -> None:
        super().__init__(why)
        self.wait_seconds = wait_seconds


@dataclass(slots=True)
class Row:
    """A line of the file, and the event it stands for; `problem` where it stands for none."""

    line: int
    event: dict[str, Any]
    problem: str = ""


@dataclass(slots=True)
class Rejects:
    """The file of rows that were not stored, with their reasons; it is made with the first one."""

    path: Path
    count: int = 0
    _file: io.TextIOBase | None = None

    def add(self, row: Row, status: str, code: str, field: str, message: str) -> None:
        """Write one reason."""
        if self._file is None:
            self._file = self.path.open("w", newline="", encoding="utf-8")
            csv.writer(self._file).writerow(REJECT_COLUMNS)
        csv.writer(self._file).writerow([row.line, row.event.get("eventId", ""), status, code, field, message])
        self.count += 1

    def close(self) -> None:
        """Finish the file."""
        if self._file is not None:
            self._file.close()


@dataclass(slots=True)
class Progress:
    """A bar on standard error: how much of the file is read, and what became of it. Silent where nobody looks."""

    size: int
    statuses: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    is_shown: bool = field(default_factory=lambda: sys.stderr.isatty())

    def show(self, done: int, waiting: str = "") -> None:
        """Draw the bar again."""
        if self.is_shown:
            share = min(1.0, done / self.size) if self.size else 1.0
            bar = "#" * int(30 * share)
            print(f"\r[{bar:<30}] {share:4.0%}  {self.line()}  {waiting}\033[K", end="", file=sys.stderr, flush=True)

    def line(self) -> str:
        """The counts, as one line."""
        names = ("ACCEPTED", "DUPLICATE", "CONFLICT", "REJECTED", "UNREADABLE")
        return " ".join(f"{name.lower()}={self.statuses[name]}" for name in names) + f" retries={self.retries}"


class Sender:
    """Sends batches, again where that can help. Keys make it harmless to send again what was stored."""

    def __init__(self, url: str, token: str, tries: int, progress: Progress) -> None:
        self._url = url
        self._tries = tries
        self._client = httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=ANSWER_SECONDS_MAX)
        self.progress = progress

    def send(self, events: list[dict[str, Any]], lane: str, done: int) -> list[dict[str, Any]]:
        """Record a batch; the results are in its order. Raises Refused, or Away after the last try."""
        why: Exception = Away()
        for attempt in range(self._tries):
            try:
                return self._try({"events": events, "lane": lane})
            except Busy as busy:
                why = busy
                longest = min(BACK_OFF_SECONDS_MAX, BACK_OFF_SECONDS_FIRST * 2**attempt)
                # Jitter, so that senders who were cut off together do not come back together.
                wait = busy.wait_seconds + random.uniform(longest / 2, longest)  # noqa: S311 - no secret
                self.progress.retries += 1
                self.progress.show(done, f"waiting {wait:.0f} s: {busy}")
                time.sleep(wait)
        raise Away(f"no answer in {self._tries} tries, at last: {why}")

    def _try(self, sent: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            response = self._client.post(self._url, json={"query": RECORD, "variables": {"input": sent}})
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise Refused(f"{type(error).__name__} {error}") from error  # our own mistake, and nothing was sent
        except httpx.TransportError as error:
            raise Busy(f"{type(error).__name__} {error}") from error  # whether it was stored, the next answer tells
        wait = response.headers.get("retry-after", "")
        wait_seconds = float(wait) if wait.isdecimal() else 0.0
        try:
            answer = response.json()
        except ValueError:
            if response.status_code in RETRYABLE_STATUS:
                raise Busy(f"HTTP {response.status_code}", wait_seconds) from None
            raise Refused(f"HTTP {response.status_code} without JSON: is {self._url} the service?") from None
        if errors := answer.get("errors"):
            codes = [(error.get("extensions") or {}).get("code") for error in errors]
            if set(codes) <= RETRYABLE_CODES:
                raise Busy(str(codes[0]), wait_seconds)
            raise Refused(f"{codes[0]}: {errors[0]['message']}")
        payload = answer["data"]["recordEvents"]
        if payload["errors"]:
            raise Refused(f"{payload['errors'][0]['code']}: {payload['errors'][0]['message']}")
        results: list[dict[str, Any]] = payload["results"]
        return results


def rows(file: io.TextIOWrapper, source: str) -> Iterator[Row]:
    """The rows of a CSV file, read as they are needed. Raises Refused for a file of other columns."""
    table = csv.DictReader(file)
    missing = set(COLUMNS) - set(table.fieldnames or ())
    if missing:
        raise Refused(f"the file lacks the columns {', '.join(sorted(missing))}")
    for cells in table:
        yield row_of(table.line_num, {name: (cells[name] or "").strip() for name in COLUMNS}, source)


def row_of(line: int, cells: dict[str, str], source: str) -> Row:
    """What one line says.

    The event's id is made of what makes a grade that grade, never of its value or its line: the same row sent again is
    a DUPLICATE, and a row whose score was changed afterwards a CONFLICT that a person must look at.
    """
    identity = "\n".join(cells[name] for name in ("student", "class", "assignment", "submission", "graded_at"))
    event: dict[str, Any] = {
        "eventId": f"grade-{hashlib.sha256(identity.encode()).hexdigest()[:32]}",
        "source": source,
        "type": "SUBMISSION_GRADED",
        "studentId": cells["student"],
        "classroomId": cells["class"],
        "assignmentId": cells["assignment"],
        "occurredAt": cells["graded_at"],
    }
    if cells["submission"]:
        event["submissionId"] = cells["submission"]
    try:
        event["score"] = float(cells["score"])
        event["maxScore"] = float(cells["max_score"])
    except ValueError:
        return Row(
            line, event, f"score and max_score must be numbers, not {cells['score']!r} and {cells['max_score']!r}"
        )
    return Row(line, event)


def import_file(file: io.TextIOWrapper, sender: Sender, rejects: Rejects, asked: argparse.Namespace) -> None:
    """Send the whole file; no more than one batch of it is ever in memory."""
    found, progress = rows(file, asked.source), sender.progress
    while batch := list(islice(found, asked.batch)):
        for row in batch:
            if row.problem:
                progress.statuses["UNREADABLE"] += 1
                rejects.add(row, "UNREADABLE", "", "", row.problem)
        sound = [row for row in batch if not row.problem]
        if sound:
            results = sender.send([row.event for row in sound], asked.lane, read_bytes(file))
            for row, result in zip(sound, results, strict=True):
                count(row, result, progress, rejects)
        progress.show(read_bytes(file))


def read_bytes(file: io.TextIOWrapper) -> int:
    """How far the file is read; `tell` is not to be had while csv iterates over it."""
    return os.lseek(file.fileno(), 0, os.SEEK_CUR)


def count(row: Row, result: dict[str, Any], progress: Progress, rejects: Rejects) -> None:
    """Take one result."""
    status = result["status"]
    progress.statuses[status] += 1
    if status == "CONFLICT":
        rejects.add(row, status, "", "", f"stored before with another content: {result['conflict']['storedHash']}")
    for error in result["errors"]:
        rejects.add(row, status, error["code"], ".".join(error["field"] or []), error["message"])


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=f"{__doc__} The columns are {', '.join(COLUMNS)}; graded_at is RFC 3339 with an offset.",
        epilog="The token is read from the environment: SIGHTLINE_TOKEN. "
        "Exit status: 0 all rows are stored; 3 the service stayed away: run it again; "
        "4 it refused: token, rights or file; 5 some rows were refused: the file of rejects says why.",
    )
    parser.add_argument("file", type=Path, help="the CSV file")
    parser.add_argument("--url", default="http://127.0.0.1:8080/graphql", help="default: %(default)s")
    parser.add_argument("--source", default="lms", help="the system that tells the grades; default: %(default)s")
    parser.add_argument("--rejects", type=Path, default=Path("rejects.csv"), help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=500, metavar="N", help="rows a request, 1 to 1,000; default: 500")
    parser.add_argument("--tries", type=int, default=TRIES, metavar="N", help="of each batch; default: %(default)s")
    lanes = ("LIVE", "BACKFILL")
    parser.add_argument(
        "--lane", choices=lanes, default="LIVE", help="BACKFILL, for a large past, lets today overtake it"
    )
    asked = parser.parse_args()
    if not 1 <= asked.batch <= BATCH_EVENTS_MAX:
        parser.error(f"--batch must be from 1 to {BATCH_EVENTS_MAX}")
    if not os.environ.get("SIGHTLINE_TOKEN"):
        parser.error("SIGHTLINE_TOKEN must hold a token")
    if not asked.file.is_file():
        parser.error(f"there is no file {asked.file}")
    return asked


def main() -> int:
    """Import one file and return the exit status."""
    asked = arguments()
    rejects = Rejects(asked.rejects)
    asked.rejects.unlink(missing_ok=True)  # of an earlier run
    progress = Progress(asked.file.stat().st_size)
    status, why = STORED, ""
    try:
        with asked.file.open(encoding="utf-8-sig", newline="") as file:
            sender = Sender(asked.url, os.environ["SIGHTLINE_TOKEN"], asked.tries, progress)
            import_file(file, sender, rejects, asked)
    except Away as away:
        status, why = AWAY, f"given up, run it again: {away}"
    except Refused as refused:
        status, why = REFUSED, f"refused: {refused}"
    except UnicodeDecodeError as error:
        status, why = REFUSED, f"the file is not UTF-8: {error.reason} at byte {error.start} of a piece"
    finally:
        rejects.close()
    if progress.is_shown:
        print(file=sys.stderr)
    print(progress.line())
    if rejects.count:
        print(f"why rows were not stored: {asked.rejects}")
        status = status or SOME_REFUSED
    if why:
        print(why, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
