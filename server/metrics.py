"""Metrics: what the parts have counted, told in the words of Prometheus when it asks. No label names a person."""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from db.backlog import Backlog, backlog
from db.live import Live
from db.pool import LOST, Pool, TimedPool
from db.recorder import Recorder
from db.tally import BOUNDS, Tally
from db.wake import Wake
from graph.telling import FAILED, Operation
from server.health import free_fraction
from server.serving import UVICORN, QuietServer, listen

if TYPE_CHECKING:
    from graph.sockets import GraphQLSockets
    from jobs.drain import Folded
    from jobs.worker import Workplace
    from server.telemetry import Sampling

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BACKLOG_SECONDS = 2.0  # scrapes closer together share one look at the queue
BACKLOG_PATIENCE_SECONDS = 1.0
NOT_UNDERSTOOD = "none"  # the root of a request whose document was refused


@dataclass(slots=True)
class Operations:
    """What the api's operations came to; called once for each."""

    durations: dict[str, Tally] = field(default_factory=dict)  # by root field: words of the schema, some eighty
    dashboards: Tally = field(default_factory=Tally)
    requests: Counter[tuple[str, int, str]] = field(default_factory=Counter)  # (root, status, outcome)
    over_sockets: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def __call__(self, operation: Operation) -> None:
        """Count one operation."""
        plan, outcome = operation.plan, operation.outcome
        root = plan.root if plan else NOT_UNDERSTOOD
        if operation.is_http:
            tally = self.durations.get(root)
            if tally is None:
                tally = self.durations[root] = Tally()
            tally.add(operation.seconds)
            self.requests[root, operation.status, outcome] += 1
            if plan is not None and plan.has_dashboard:
                self.dashboards.add(operation.seconds)
        else:
            self.over_sockets[root, outcome] += 1
        if outcome == "failed":
            self.failures.update(FAILED & operation.codes or {"INTERNAL"})


@dataclass(slots=True, kw_only=True)
class Parts:
    """The parts of one process that count; those it has not are None."""

    kind: str  # api or worker
    version: str
    pool: Pool
    live: Live
    clock: Callable[[], datetime]
    disk: Path
    operations: Operations | None = None
    recorder: Recorder | None = None
    wake: Wake | None = None
    sockets: GraphQLSockets | None = None
    workplace: Workplace | None = None
    sampling: Sampling | None = None


class Metrics(Collector):
    """The registry of one process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._backlog: Backlog | None = None
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()

    async def text(self) -> bytes:
        """What Prometheus reads, with a fresh look at the queue; without Postgres the queue's numbers are left out."""
        async with self._looking:
            if monotonic() - self._looked_at >= BACKLOG_SECONDS:
                self._backlog = await self._look()
                self._looked_at = monotonic()
        return generate_latest(self._registry)

    async def _look(self) -> Backlog | None:
        try:
            async with asyncio.timeout(BACKLOG_PATIENCE_SECONDS):
                return await backlog(self._parts.pool, now=self._parts.clock())
        except LOST:
            return None

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked at registration."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Everything, as it stands."""
        parts = self._parts
        build = GaugeMetricFamily("sightline_build_info", "Which process this is.", labels=["kind", "version"])
        build.add_metric([parts.kind, parts.version], 1)
        yield build
        yield from self._queue()
        yield from self._database()
        yield from self._failures()
        yield _counter("live_failures", "Live messages lost to Redis.", parts.live.failures)
        free = free_fraction(parts.disk)
        if free is not None:
            yield _gauge("disk_used_ratio", "Used part of the disk that holds DATA_DIR.", 1 - free)
        if parts.operations is not None:
            yield from _operations(parts.operations)
        if parts.recorder is not None:
            yield _labelled("events_ingested", "Events answered, by what became of them.", "status",
                            {status.value: count for status, count in parts.recorder.answered.items()})  # fmt: skip
            yield _gauge("recorder_waiting_events", "Events whose commit has not begun.", parts.recorder.waiting)
        if parts.wake is not None:
            yield _counter("wake_failures", "Wake-ups lost to Redis; the sweep finds the rows.", parts.wake.failures)
        if parts.sockets is not None:
            yield _gauge("websocket_connections_active", "Open WebSockets.", len(parts.sockets.open))
            yield _gauge("websocket_operations_active", "Operations under way.", parts.sockets.operations)
            yield _counter("websocket_messages", "Answers sent over WebSockets.", parts.sockets.messages)
            shared = parts.sockets.engine.audiences
            yield _counter("live_shared_executions", "Messages executed for several subscribers.", shared.written)
            yield _counter("live_shared_messages", "Of those, how often one was handed to one.", shared.handed)
        if parts.workplace is not None:
            yield from _folding(parts.workplace)
        if parts.sampling is not None:
            yield _counter("trace_spans", "Spans made.", parts.sampling.spans)
            yield _counter("trace_spans_refused", "Spans beyond the bound per second.", parts.sampling.refused)

    def _queue(self) -> Iterator[Metric]:
        yield _gauge("database_up", "Whether Postgres answered this scrape.", int(self._backlog is not None))
        if self._backlog is None:
            return
        oldest = self._backlog.oldest
        age = 0.0 if oldest is None else max(0.0, (self._parts.clock() - oldest).total_seconds())
        yield _gauge("event_queue_depth", "Rows that wait to be folded, of all tenants.", self._backlog.depth)
        yield _gauge("event_queue_oldest_seconds", "Age of the row that has waited longest.", age)
        yield _gauge("partitions_ahead", "Months of the log made beyond this one.", self._backlog.months_ahead)

    def _database(self) -> Iterator[Metric]:
        pool = self._parts.pool
        active = pool.get_size() - pool.get_idle_size()
        yield _gauge("db_connections_active", "Connections of the pool in use.", active)
        yield _gauge("db_connections_max", "Connections the pool may have.", pool.get_max_size())
        if isinstance(pool, TimedPool):
            yield _histogram("database_seconds", "Transactions, from begin to commit.", pool.transactions)
            yield _histogram("db_connection_wait_seconds", "Waits for a connection of the pool.", pool.waits)
            yield _counter("db_connections_refused", "Waits that ended without a connection.", pool.unserved)

    def _failures(self) -> Iterator[Metric]:
        found: Counter[str] = Counter()
        if self._parts.operations is not None:
            found += self._parts.operations.failures
        if self._parts.workplace is not None:
            found += self._parts.workplace.drain.folded.failures
        yield _labelled("failures", "What went wrong on our side, by kind.", "kind", dict(found))


def _operations(found: Operations) -> Iterator[Metric]:
    durations = HistogramMetricFamily(
        "http_request_duration_seconds", "GraphQL over HTTP, by root field.", labels=["operation"]
    )
    for root, tally in found.durations.items():
        durations.add_metric([root], _buckets(tally), tally.seconds)
    yield durations
    requests = CounterMetricFamily(
        "http_requests", "GraphQL requests over HTTP.", labels=["operation", "status", "outcome"]
    )
    for (root, status, outcome), count in found.requests.items():
        requests.add_metric([root, str(status), outcome], count)
    yield requests
    operations = CounterMetricFamily(
        "websocket_operations", "Operations over WebSockets that have ended.", labels=["operation", "outcome"]
    )
    for (root, outcome), count in found.over_sockets.items():
        operations.add_metric([root, outcome], count)
    yield operations
    yield _histogram("dashboard_latency_seconds", "Requests that ask for a dashboard.", found.dashboards)


def _folding(workplace: Workplace) -> Iterator[Metric]:
    folded: Folded = workplace.drain.folded
    yield _histogram("worker_latency_seconds", "From stored to visible, of each batch's oldest row.", folded.latency)
    yield _histogram("worker_batch_seconds", "Fold transactions, from claim to commit.", folded.batches)
    yield _counter("worker_rows_folded", "Rows folded.", folded.rows)
    yield _gauge("worker_rows_claimed", "Rows held by folds right now.", folded.claimed)
    saturation = min(1.0, workplace.busy / workplace.concurrency)
    yield _gauge("worker_saturation_ratio", "Places of WORKER_CONCURRENCY in use.", saturation)


def _buckets(tally: Tally) -> list[tuple[str, float]]:
    found, total = [], 0
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), tally.counts, strict=True):
        total += count
        found.append((bound, float(total)))
    return found


def _histogram(name: str, about: str, tally: Tally) -> Metric:
    return HistogramMetricFamily(name, about, buckets=_buckets(tally), sum_value=tally.seconds)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=value)


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(name, about, value=value)


def _labelled(name: str, about: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, about, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


# ---------------------------------------------------------------- GET /metrics


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """The page itself; with a token, only for who brings it."""

    metrics: Metrics
    token: str | None = field(repr=False)

    async def answer(self, request: Request) -> Response:
        """Answer one scrape."""
        if self.token is not None:
            sent = request.headers.get("authorization", "")
            if not hmac.compare_digest(sent.encode(), f"Bearer {self.token}".encode()):
                return PlainTextResponse("", 401, {"www-authenticate": 'Bearer realm="metrics"'})
        return Response(await self.metrics.text(), media_type=CONTENT_TYPE, headers={"cache-control": "no-store"})

    @property
    def route(self) -> Route:
        """Where it is found."""
        return Route("/metrics", self.answer)


@asynccontextmanager
async def served(page: MetricsPage, host: str, port: int | None) -> AsyncIterator[None]:
    """Serve the page on a port of its own while the block runs; without a port, do nothing."""
    if port is None:
        yield
        return
    listener = listen(host, port)
    listener.listen()  # at once: who comes before uvicorn is ready waits
    config = uvicorn.Config(Starlette(routes=[page.route]), lifespan="off", log_config=None, **UVICORN)
    server = QuietServer(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving
