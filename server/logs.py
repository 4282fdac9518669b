"""Log lines: one JSON object each, to stdout and to a file where asked; no name, no key and no value of anybody.

What we log ourselves is made of words and counts. What libraries log is not trusted: their lines keep the template
without its arguments, and errors keep class and frames, because the messages of asyncpg quote the rows they failed on.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from io import BufferedWriter
from logging.handlers import RotatingFileHandler
from pathlib import Path
from traceback import extract_tb
from types import TracebackType
from typing import Any

import msgspec

from graph.telling import Operation
from rules.fields import ID_LENGTH_MAX
from server.clock import clock_with

FILE_BYTES_MAX = 10_000_000  # 003-51
BACKUPS = 5
BACKUP_DAYS_MAX = 30
FLUSH_SECONDS = 0.1  # lines below WARNING share one write; a kill -9 may cost so much of them
LINE_CHARACTERS_MAX = 2_000  # of one message
FRAMES_MAX = 20
PSEUDONYMS_MAX = 4_096
OURS = ("sightline", "server", "graph", "jobs", "db", "rules")
# `extra` fields that a line may carry; anything else stays out, whoever adds it.
FIELDS = (
    *("correlation_id", "error_id", "error_type", "error", "trace_id"),
    *("tenant", "job", "rows"),  # numbers and keys of ours: nobody's
    *("jobs", "drift_reports", "risk_changes"),  # how many went
)
CHATTY = ("arq", "asyncio", "alembic", "asyncpg", "httpx", "redis", "uvicorn", "websockets")

_encode = msgspec.json.Encoder().encode


class Sink:
    """Where lines go: stdout and, if named, a file with backups. Safe to write to from any thread."""

    def __init__(self, out: BufferedWriter | Any, file: Path | None = None) -> None:
        self._out = out
        self._file: RotatingFileHandler | None = None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._file = RotatingFileHandler(file, backupCount=BACKUPS, encoding="utf-8")
            _drop_old(file)
        self._lines: list[bytes] = []
        self._lock = threading.Lock()

    def write(self, line: bytes, *, is_urgent: bool = False) -> None:
        """Take one line; an urgent one is out when this returns, with all before it."""
        with self._lock:
            self._lines.append(line)
            is_first = len(self._lines) == 1
        if is_urgent:
            self.flush()
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no loop runs in this thread: nobody would come back for it
            self.flush()
            return
        if is_first:
            loop.call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what waits. A full disk or a closed pipe costs the lines, never the work they tell of."""
        with self._lock:
            lines, self._lines = self._lines, []
            if not lines:
                return
            text = b"\n".join(lines) + b"\n"
            try:
                self._out.write(text)
                self._out.flush()
                if self._file is not None:
                    self._keep(self._file, text)
            except (OSError, ValueError):
                pass

    @staticmethod
    def _keep(file: RotatingFileHandler, text: bytes) -> None:
        assert file.stream is not None, "open from the start, and again after a rollover"
        file.stream.write(text.decode())
        file.stream.flush()
        if file.stream.tell() >= FILE_BYTES_MAX:
            file.doRollover()
            _drop_old(Path(file.baseFilename))

    def close(self) -> None:
        """Write what waits, and close the file."""
        self.flush()
        if self._file is not None:
            self._file.close()


def _drop_old(file: Path) -> None:
    oldest = time.time() - BACKUP_DAYS_MAX * 86_400
    for backup in file.parent.glob(f"{file.name}.[0-9]"):
        if backup.stat().st_mtime < oldest:
            backup.unlink(missing_ok=True)


class JsonHandler(logging.Handler):
    """Turns the records of every logger into lines of a sink."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self.sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            self.sink.write(_encode(shown(record)), is_urgent=record.levelno >= logging.WARNING)
        except Exception:
            self.handleError(record)


def shown(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of one record that may be read by whoever reads logs."""
    line: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(record.created, UTC),
        "level": "WARN" if record.levelno == logging.WARNING else record.levelname,
        "logger": record.name,
        "message": _message(record),
    }
    for name in FIELDS:
        value = record.__dict__.get(name)
        if isinstance(value, str | int):
            line[name] = value
    if record.exc_info and record.exc_info[0] is not None:
        line |= {"error": record.exc_info[0].__name__, "frames": frames_of(record.exc_info[2])}
    return line


def _message(record: logging.LogRecord) -> str:
    if record.name.partition(".")[0] in OURS:
        return record.getMessage()[:LINE_CHARACTERS_MAX]
    # A library's: asyncio, for one, writes the repr of an exception into the lines below the first.
    template = str(record.msg).partition("\n")[0][:LINE_CHARACTERS_MAX]
    values = record.args.values() if isinstance(record.args, Mapping) else record.args or ()
    if values and all(isinstance(value, int | float) for value in values):
        return record.getMessage()[:LINE_CHARACTERS_MAX]
    return template


def frames_of(trace: TracebackType | None) -> list[str]:
    """Where an error came from, the innermost last; no source line and no value."""
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in extract_tb(trace)[-FRAMES_MAX:]]


def log_to(sink: Sink, level: str) -> None:
    """Send every logger of this process, and an exception that ends it, to the sink."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(JsonHandler(sink))
    root.setLevel(level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    sys.excepthook = _uncaught
    atexit.register(sink.flush)  # what was written in the loop's last moments


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("sightline").critical("process_failed", exc_info=(kind, error, trace))


def sink_in_use() -> Sink | None:
    """The sink that `log_to` gave this process; None in tests and tools that log in their own way."""
    found = [handler.sink for handler in logging.getLogger().handlers if isinstance(handler, JsonHandler)]
    return found[0] if found else None


class Pseudonyms:
    """Keyed hashes of keys (C13): lines about one student can be found by who holds the secret, and by no one else."""

    def __init__(self, secret: str) -> None:
        self._keyed = blake2b(key=blake2b(secret.encode()).digest(), digest_size=8)
        self._known = lru_cache(PSEUDONYMS_MAX)(self._made)  # requests come again and again for the same students

    def of(self, tenant: int, key: str) -> str:
        """Sixteen hexadecimal digits for a key of a tenant."""
        # What is longer than any id is a stranger's idea, and is not kept.
        return self._known(tenant, key) if len(key) <= ID_LENGTH_MAX else self._made(tenant, key)

    def _made(self, tenant: int, key: str) -> str:
        hasher = self._keyed.copy()
        hasher.update(f"{tenant}:{key}".encode())
        return hasher.hexdigest()


class RequestLog:
    """One line for each operation (004-23)."""

    def __init__(self, sink: Sink, pseudonyms: Pseudonyms, *, level: str = "INFO") -> None:
        self._sink = sink
        self._pseudonyms = pseudonyms
        self._is_brief = logging.getLevelName(level) > logging.INFO
        self._now = clock_with(
            timedelta()
        )  # also where the service's clock is moved: lines tell when they were written

    def __call__(self, operation: Operation) -> None:
        """Write the operation's line."""
        outcome = operation.outcome
        if self._is_brief and outcome != "failed":
            return
        line: dict[str, Any] = {
            "timestamp": self._now(),
            "level": "ERROR" if outcome == "failed" else "INFO",
            "correlation_id": operation.correlation_id,
            "endpoint": operation.plan.title if operation.plan else None,
            "student_id": self._student(operation),
            "duration_ms": int(operation.seconds * 100_000 + 0.5) / 100,  # round() takes four times as long
            "status_code": operation.status,
            "transport": "http" if operation.is_http else "websocket",
        }
        if operation.codes:
            line["codes"] = sorted(operation.codes)
        if operation.error_ids:
            line["error_id"] = operation.error_ids[0]
        if operation.span is not None:
            line["trace_id"] = operation.span.traceparent[3:35]
        self._sink.write(_encode(line))

    def _student(self, operation: Operation) -> str | None:
        student = student_of(operation.variables)
        if student is None or operation.viewer is None:
            return None
        return self._pseudonyms.of(operation.viewer.tenant, student)


def student_of(variables: Mapping[str, Any] | None) -> str | None:
    """The one student that variables name as `studentId`, at their top or in one input; a list names no one."""
    if not variables:
        return None
    found = variables.get("studentId")
    if found is None:
        for value in variables.values():
            if isinstance(value, dict) and "studentId" in value:
                found = value["studentId"]
                break
    return found if isinstance(found, str) else None
