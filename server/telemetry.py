"""Traces: the one place that knows the OpenTelemetry SDK. Sampling is decided before a span object exists."""

from __future__ import annotations

import logging
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context

from db.trace import Span
from server.logs import Sink

log = logging.getLogger(__name__)

TRACEPARENT = re.compile(r"00-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})")
SPANS_PER_SECOND_MAX = 1_000  # of one process: whoever sends traceparents, or watches a busy class, cannot slow it down
# All that a span may carry, and it is counted or chosen from few words; ids, arguments and documents never.
ATTRIBUTES = frozenset({"events", "requests", "rows", "classrooms", "students", "status", "outcome"})
WORDS = frozenset({"ok", "refused", "failed"})
EXPORT_SECONDS_MAX = 3.0
CLOSE_SECONDS_MAX = 1.5  # a collector that is away must not hold up the end of a process
OTLP_KIND = {SpanKind.INTERNAL: 1, SpanKind.SERVER: 2, SpanKind.CLIENT: 3, SpanKind.PRODUCER: 4, SpanKind.CONSUMER: 5}

_encode = msgspec.json.Encoder().encode


class Recorded:
    """One span of the SDK behind the narrow one that the rooms know."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-01"

    def rename(self, name: str) -> None:
        """Say what it turned out to be."""
        self._span.update_name(name)

    def end(self, **counts: int | str) -> None:
        """Close it, with the attributes of the allow-list."""
        if not self._span.is_recording():
            return
        for name, value in counts.items():
            if name in ATTRIBUTES and (isinstance(value, int) or value in WORDS):
                self._span.set_attribute(name, value)
        self._span.end()


class Sampling:
    """The tracer of a process: `ratio` of the requests that bring no trace of their own, and of those that do, all."""

    def __init__(self, processor: SpanProcessor, *, service: str, version: str, ratio: float) -> None:
        self.ratio = ratio
        self.spans = 0
        self.refused = 0  # beyond SPANS_PER_SECOND_MAX
        self._second = 0
        self._made = 0
        # Our decision stands before the SDK is asked, so it keeps all that it is given.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource({"service.name": service, "service.version": version}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("sightline")

    def begin(self, traceparent: str | None) -> Span | None:
        """The span of a request from outside, or None: the caller's decision where there is one, else the dice."""
        if traceparent is None:
            if random.random() >= self.ratio:  # noqa: S311 - which requests are traced is no secret
                return None
            return self._made_span("operation", None, (), 0.0, SpanKind.SERVER)
        caller = context_of(traceparent)
        if caller is None:
            return self.begin(None)
        if not caller.trace_flags.sampled:
            return None
        return self._made_span("operation", caller, (), 0.0, SpanKind.SERVER)

    def join(self, name: str, traceparents: Iterable[str | None], *, seconds_ago: float = 0.0) -> Span | None:
        """A child of the first trace, linked to the others; None where nothing is traced."""
        given = [one for one in traceparents if one is not None]
        if not given:
            return None
        found = [found for one in given if (found := context_of(one)) and found.trace_flags.sampled]
        return self._made_span(name, found[0], found[1:], seconds_ago, SpanKind.INTERNAL) if found else None

    def _made_span(
        self, name: str, parent: SpanContext | None, others: Sequence[SpanContext], seconds_ago: float, kind: SpanKind
    ) -> Span | None:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._made = second, 0
        if self._made >= SPANS_PER_SECOND_MAX:
            self.refused += 1
            return None
        self._made += 1
        self.spans += 1
        above = Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())
        start = time.time_ns() - int(seconds_ago * 1e9)
        links = [Link(other) for other in others]
        return Recorded(self._tracer.start_span(name, context=above, kind=kind, links=links, start_time=start))

    def close(self) -> None:
        """Send what is left, as far as its receiver answers in time."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS_MAX)


def context_of(traceparent: str) -> SpanContext | None:
    """A W3C trace context; None for anything else, which then counts as absent."""
    found = TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    made = SpanContext(
        int(found["trace"], 16), int(found["span"], 16), is_remote=True, trace_flags=TraceFlags(int(found["flags"], 16))
    )
    return made if made.is_valid else None


class Lines(SpanExporter):
    """Spans as JSON lines among the log's."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write them."""
        for span in spans:
            self._sink.write(_encode(line_of(span)))
        return SpanExportResult.SUCCESS


def line_of(span: ReadableSpan) -> dict[str, Any]:
    """A span in the words of a log line."""
    context, start, end = span.context, span.start_time or 0, span.end_time or 0
    assert context is not None, "a span that was started has a context"
    return {
        "timestamp": datetime.fromtimestamp(start / 1e9, UTC),
        "level": "INFO",
        "span": span.name,
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "parent_id": f"{span.parent.span_id:016x}" if span.parent else None,
        "links": [f"{link.context.trace_id:032x}" for link in span.links],
        "duration_ms": round((end - start) / 1e6, 3),
        **(span.attributes or {}),
    }


class Otlp(SpanExporter):
    """Spans to a collector: OTLP over HTTP in its JSON encoding, which every collector takes on port 4318.

    Written here because the exporter packages bring protobuf, requests and six more for these forty lines.
    """

    def __init__(self, endpoint: str) -> None:
        self._url = f"{endpoint.rstrip('/')}/v1/traces"
        self.failures = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them, in the exporter's own thread; what the collector does not take is lost and counted."""
        request = urllib.request.Request(  # noqa: S310 - settings let http and https through
            self._url, _encode(otlp_of(spans)), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=EXPORT_SECONDS_MAX) as answer:  # noqa: S310
                answer.read(4096)
        except (OSError, urllib.error.URLError, ValueError) as error:
            self.failures += 1
            if self.failures == 1:  # once: a collector that is away for a day is one fact, not ten thousand lines
                log.warning("traces_not_taken", extra={"error": type(error).__name__})
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS


def otlp_of(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """An ExportTraceServiceRequest in OTLP's JSON: ids in hexadecimal, 64-bit numbers as text."""
    resource = _otlp_attributes(spans[0].resource.attributes) if spans else []
    scope = {"scope": {"name": "sightline"}, "spans": [_otlp_span(span) for span in spans]}
    return {"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [scope]}]}


def _otlp_span(span: ReadableSpan) -> dict[str, Any]:
    context = span.context
    assert context is not None, "a span that was started has a context"
    return {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "parentSpanId": f"{span.parent.span_id:016x}" if span.parent else "",
        "name": span.name,
        "kind": OTLP_KIND[span.kind],
        "startTimeUnixNano": str(span.start_time or 0),
        "endTimeUnixNano": str(span.end_time or 0),
        "attributes": _otlp_attributes(span.attributes or {}),
        "links": [
            {"traceId": f"{link.context.trace_id:032x}", "spanId": f"{link.context.span_id:016x}"}
            for link in span.links
        ],
    }


def _otlp_attributes(attributes: Any) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": str(value)}}
        for key, value in attributes.items()
    ]


def sampling_to(
    *, endpoint: str | None, sink: Sink | None, ratio: float, service: str, version: str
) -> Sampling | None:
    """The tracer of a process: to a collector, else to its log; None where there is neither."""
    exporter: SpanExporter
    if endpoint is not None:
        exporter = Otlp(endpoint)
    elif sink is not None:
        exporter = Lines(sink)
    else:
        return None
    return Sampling(BatchSpanProcessor(exporter), service=service, version=version, ratio=ratio)
