"""The tracer by itself: whose trace it goes on with, what a span may carry, how many there are, and how it is sent."""

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from db.trace import inner, within
from server import telemetry
from server.telemetry import Otlp, Sampling, context_of

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{CALLER}-01"


def tracer(ratio: float = 0.0) -> tuple[Sampling, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    return Sampling(SimpleSpanProcessor(exporter), service="sightline-test", version="1", ratio=ratio), exporter


@pytest.mark.feature("003-50")
@pytest.mark.parametrize(
    "traceparent",
    ["", "00", f"01-{TRACE}-{CALLER}-01", f"00-{'0' * 32}-{CALLER}-01", f"00-{TRACE}-{'0' * 16}-01",
     f"00-{TRACE.upper()}-{CALLER}-01", f"{SAMPLED}-x", f"{SAMPLED}\n"],
)  # fmt: skip
def test_what_is_no_trace_context_counts_as_none(traceparent: str) -> None:
    made, _ = tracer()

    assert context_of(traceparent) is None
    assert (made.begin(traceparent), made.join("fold batch", [traceparent]), made.spans) == (None, None, 0)


@pytest.mark.feature("003-50")
def test_a_span_goes_on_with_its_first_trace_and_is_linked_to_the_others() -> None:
    made, exporter = tracer()
    other = f"00-{'a' * 32}-{'b' * 16}-01"

    span = made.join("fold batch", [None, SAMPLED, f"00-{'c' * 32}-{'d' * 16}-00", other], seconds_ago=1.0)
    assert span is not None
    span.end(rows=2)

    (told,) = exporter.get_finished_spans()
    assert told.context is not None
    assert span.traceparent == f"00-{TRACE}-{told.context.span_id:016x}-01"
    assert [f"{link.context.trace_id:032x}" for link in told.links] == ["a" * 32]
    assert ((told.end_time or 0) - (told.start_time or 0)) >= 1e9


@pytest.mark.feature("003-50", "000-24")
def test_a_span_carries_counts_and_known_words_only() -> None:
    made, exporter = tracer()
    span = made.begin(SAMPLED)
    assert span is not None

    span.end(rows=1, outcome="ok", status="s1", student="s1")
    span.end(rows=2)

    (told,) = exporter.get_finished_spans()
    assert dict(told.attributes or {}) == {"rows": 1, "outcome": "ok"}


def test_spans_have_a_bound_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "SPANS_PER_SECOND_MAX", 3)
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    made, _ = tracer()

    spans = [made.begin(SAMPLED) for _ in range(5)]

    assert [span is None for span in spans] == [False, False, False, True, True]
    assert (made.spans, made.refused) == (3, 2)


async def test_a_transaction_is_a_child_of_the_span_it_runs_within_also_in_a_task_of_it() -> None:
    made, exporter = tracer()
    span = made.begin(SAMPLED)

    async def ask() -> None:
        child = inner("postgres read")
        assert child is not None
        child.end()

    with within(made, span):
        await asyncio.create_task(ask())
        with within(made, None):
            assert inner("postgres read") is None
    assert inner("postgres read") is None

    (told,) = exporter.get_finished_spans()
    assert span is not None
    assert told.parent is not None
    assert f"{told.parent.span_id:016x}" == span.traceparent[36:52]


class _Collector(BaseHTTPRequestHandler):
    taken: list[tuple[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.taken.append((self.path, msgspec.json.decode(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.mark.feature("003-50")
def test_a_collector_gets_the_spans_as_otlp_json() -> None:
    _Collector.taken = []
    with HTTPServer(("127.0.0.1", 0), _Collector) as collector:
        serving = threading.Thread(target=collector.handle_request)
        serving.start()
        made, exporter = tracer()
        span = made.begin(SAMPLED)
        assert span is not None
        span.rename("mutation Tell")
        span.end(status=200, outcome="ok")
        sent = Otlp(f"http://127.0.0.1:{collector.server_port}/").export(exporter.get_finished_spans())
        serving.join()

    ((path, body),) = _Collector.taken
    (resource,) = body["resourceSpans"]
    (told,) = resource["scopeSpans"][0]["spans"]
    assert (sent, path) == (SpanExportResult.SUCCESS, "/v1/traces")
    assert {"key": "service.name", "value": {"stringValue": "sightline-test"}} in resource["resource"]["attributes"]
    assert (told["traceId"], told["parentSpanId"], told["name"], told["kind"]) == (TRACE, CALLER, "mutation Tell", 2)
    assert told["attributes"] == [
        {"key": "status", "value": {"intValue": "200"}}, {"key": "outcome", "value": {"stringValue": "ok"}}
    ]  # fmt: skip


def test_a_collector_that_is_away_costs_the_spans_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    made, exporter = tracer()
    span = made.begin(SAMPLED)
    assert span is not None
    span.end()
    otlp = Otlp("http://127.0.0.1:9")

    results = [otlp.export(exporter.get_finished_spans()) for _ in range(2)]

    assert results == [SpanExportResult.FAILURE] * 2
    assert (otlp.failures, [found.message for found in caplog.records]) == (2, ["traces_not_taken"])
