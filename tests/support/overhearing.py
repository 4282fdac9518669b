"""Hears the telemetry of this process where it leaves the product, and learns whom the tests made up."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg
import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from rules.access import Viewer
from server.demo_school import CLASS_SIZE, CLASSROOMS, FIRST_NAMES, student_key
from server.identity import Identity
from server.logs import CHATTY, Sink, shown
from server.metrics import Metrics
from server.telemetry import Sampling, line_of, otlp_of
from tests.support.privacy import EAR, Ear

PEOPLE = """
    select person from person union select student from student union select person from enrollment
    union select guardian from guardian_link union select student from guardian_link union select student from event
"""
NAMES = "select display_name from person where display_name is not null"

_encode = msgspec.json.Encoder().encode


async def spare_everybody_in(database_url: str, ear: Ear = EAR) -> None:
    """Learn whom the tests put into this database."""
    connection = await asyncpg.connect(database_url)
    try:
        ear.spare(*(key for (key,) in await connection.fetch(PEOPLE)))
        ear.spare_named(*(name for (name,) in await connection.fetch(NAMES)))
    finally:
        await connection.close()


def spare_the_demo(ear: Ear = EAR) -> None:
    """The demo's made-up school has a database of its own."""
    ear.spare(*(student_key(classroom, place + 1) for classroom in CLASSROOMS for place in range(CLASS_SIZE)))
    ear.spare_named(*FIRST_NAMES)


class Overheard(logging.Handler):
    """Hears each record as a process of ours would write it."""

    def __init__(self, ear: Ear) -> None:
        super().__init__()
        self._ear = ear

    def emit(self, record: logging.LogRecord) -> None:
        """Hear one."""
        self._ear.hear(f"a log record of {record.name}", _encode(shown(record)).decode())


class OverheardSpans(SpanExporter):
    """Hears each span, in both wordings."""

    def __init__(self, ear: Ear) -> None:
        self._ear = ear

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hear some."""
        for span in spans:
            self._ear.hear(f"the span {span.name}", _encode(line_of(span)).decode())
        self._ear.hear("a trace", _encode(otlp_of(spans)).decode())
        return SpanExportResult.SUCCESS


@contextmanager
def listening(ear: Ear) -> Iterator[None]:
    """Hear all telemetry of this process, and learn who shows a token."""
    write, start, text, viewer_of = Sink.write, Sampling.__init__, Metrics.text, Identity.viewer_of

    def written(sink: Sink, line: bytes, **more: Any) -> None:
        ear.hear("a log line", line.decode(errors="replace"))
        write(sink, line, **more)

    def started(sampling: Sampling, *given: Any, **more: Any) -> None:
        start(sampling, *given, **more)
        sampling._provider.add_span_processor(SimpleSpanProcessor(OverheardSpans(ear)))

    async def told(metrics: Metrics) -> bytes:
        page = await text(metrics)
        ear.hear("/metrics", page.decode())
        return page

    async def seen(identity: Identity, token: str) -> Viewer:
        ear.spare(token, *token.split(".")[1:2])
        viewer = await viewer_of(identity, token)
        ear.spare(viewer.key)
        return viewer

    with pytest.MonkeyPatch.context() as patched, _root_handler(Overheard(ear)):
        patched.setattr(Sink, "write", written)
        patched.setattr(Sampling, "__init__", started)
        patched.setattr(Metrics, "text", told)
        patched.setattr(Identity, "viewer_of", seen)
        yield


@contextmanager
def _root_handler(handler: logging.Handler) -> Iterator[None]:
    """As `server.logs.log_to` sets a process up, at the level that ours run with."""
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
