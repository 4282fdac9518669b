"""Log lines: which fields they have, what of a library's line is kept, how files turn, how little the hash says."""

import ast
import logging
import os
import time
from hashlib import blake2b
from io import BytesIO
from pathlib import Path

import msgspec
import pytest

from server import logs
from server.children import with_log_of_its_own
from server.logs import FIELDS, JsonHandler, Pseudonyms, Sink, shown, student_of

ROOT = Path(__file__).parents[2]


def record(
    name: str, message: object, *values: object, level: int = logging.ERROR, **extra: object
) -> logging.LogRecord:
    made = logging.LogRecord(name, level, "f.py", 1, message, values, None)
    made.__dict__.update(extra)
    return made


@pytest.mark.feature("003-51")
def test_our_own_line_keeps_its_message_and_the_fields_of_the_list() -> None:
    line = shown(
        record("jobs.sweep", "postgres_away after %s", 3, level=logging.WARNING, error="OSError", student="s1")
    )

    del line["timestamp"]
    assert line == {
        "level": "WARN", "logger": "jobs.sweep", "message": "postgres_away after 3", "error": "OSError"
    }  # fmt: skip


@pytest.mark.feature("003-51")
def test_whatever_our_code_says_beside_a_message_reaches_the_line() -> None:
    """A field that is not on the list is dropped without a word: what a runbook promises would be missing."""
    said = {
        key.value
        for room in ("db", "jobs", "graph", "server")
        for path in sorted((ROOT / room).rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        for given in call.keywords
        if given.arg == "extra" and isinstance(given.value, ast.Dict)
        for key in given.value.keys
        if isinstance(key, ast.Constant)
    }

    assert {"error", "job", "rows"} <= said <= set(FIELDS)


@pytest.mark.feature("000-24", "003-51")
@pytest.mark.parametrize(
    ("message", "values", "kept"),
    [
        ("lost %s", ("s1",), "lost %s"),
        ("slow by %d ms", (7,), "slow by 7 ms"),
        ("Task exception was lost\nfuture: <Task exception=KeyError('s1')>", (), "Task exception was lost"),
    ],
)  # fmt: skip
def test_of_a_librarys_line_the_words_stay_and_the_values_go(
    message: str, values: tuple[object, ...], kept: str
) -> None:
    assert shown(record("asyncio", message, *values))["message"] == kept


@pytest.mark.feature("000-24")
def test_an_exception_is_told_by_class_and_frames_and_not_by_what_it_says() -> None:
    try:
        raise KeyError("s1")
    except KeyError as error:
        made = record("server.app", "it_broke")
        made.exc_info = (KeyError, error, error.__traceback__)

    line = shown(made)

    assert line["error"] == "KeyError"
    assert line["frames"][-1].startswith("test_logs.py:")
    assert "s1" not in str(line)


def test_lines_wait_for_one_write_and_a_warning_waits_for_nothing() -> None:
    output = BytesIO()
    sink = Sink(output)
    handler = JsonHandler(sink)

    handler.emit(record("jobs", "one", level=logging.WARNING))

    assert msgspec.json.decode(output.getvalue())["message"] == "one"


async def test_inside_a_loop_lines_are_gathered() -> None:
    output = BytesIO()
    sink = Sink(output)

    sink.write(b"{}")
    waiting = output.getvalue()
    sink.flush()

    assert (waiting, output.getvalue()) == (b"", b"{}\n")


@pytest.mark.feature("003-51")
def test_a_file_turns_at_its_size_and_old_backups_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES_MAX", 100)
    path = tmp_path / "log" / "api.log"
    path.parent.mkdir()
    old, young = path.with_name("api.log.5"), path.with_name("api.log.4")
    for backup in (old, young):
        backup.write_text("{}")
    month_ago = time.time() - 31 * 86_400
    os.utime(old, (month_ago, month_ago))

    sink = Sink(BytesIO(), path)
    gone = old.exists()
    for _ in range(20):
        sink.write(b'{"message":"' + b"x" * 40 + b'"}', is_urgent=True)
    sink.close()

    assert gone is False
    assert sorted(found.name for found in path.parent.iterdir()) == ["api.log", *(f"api.log.{n}" for n in range(1, 6))]
    assert path.with_name("api.log.1").stat().st_size >= 100
    assert (logs.BACKUPS, logs.BACKUP_DAYS_MAX) == (5, 30)


@pytest.mark.feature("003-51")
def test_each_child_of_a_demo_keeps_a_log_file_of_its_own() -> None:
    assert with_log_of_its_own({"LOG_FILE": "/var/log/sightline.json", "PORT": "1"}, "api") == {
        "LOG_FILE": "/var/log/sightline-api.json",
        "PORT": "1",
    }
    assert with_log_of_its_own({"LOG_FILE": " ", "PORT": "1"}, "api") == {"LOG_FILE": " ", "PORT": "1"}
    assert with_log_of_its_own({}, "worker") == {}


@pytest.mark.feature("003-51")
def test_a_full_disk_costs_the_line_and_not_the_work() -> None:
    class Full(BytesIO):
        def write(self, _text: object) -> int:
            raise OSError(28, "No space left on device")

    Sink(Full()).write(b"{}", is_urgent=True)


@pytest.mark.feature("C13")
def test_the_hash_of_a_key_depends_on_tenant_key_and_secret() -> None:
    ours = Pseudonyms("a secret of more than thirty-two bytes")
    hashes = {ours.of(1, "s1"), ours.of(1, "s2"), ours.of(2, "s1"), Pseudonyms("another").of(1, "s1")}

    assert ours.of(1, "s1") == ours.of(1, "s1")
    assert (len(hashes), {len(one) for one in hashes}) == (4, {16})


@pytest.mark.feature("C13")
def test_the_hash_of_a_key_never_changes_and_only_ids_are_kept() -> None:
    ours, secret = Pseudonyms("a secret of more than thirty-two bytes"), b"a secret of more than thirty-two bytes"

    for key in ("s1", "s1", "ä" * 128, "x" * 129):
        known = blake2b(f"1:{key}".encode(), key=blake2b(secret).digest(), digest_size=8).hexdigest()
        assert ours.of(1, key) == known
    assert ours._known.cache_info().currsize == 2


@pytest.mark.parametrize(
    ("variables", "student"),
    [
        (None, None),
        ({}, None),
        ({"studentId": "s1"}, "s1"),
        ({"input": {"studentId": "s1"}}, "s1"),
        ({"input": {"events": [{"studentId": "s1"}]}}, None),
        ({"studentId": 7}, None),
    ],
)
def test_a_line_is_about_a_student_where_one_is_named(variables: dict[str, object] | None, student: str | None) -> None:
    assert student_of(variables) == student
