"""What a process is watched by, built from the settings: its tracer, its log line per operation, its metrics page."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from db.trace import UNTRACED, Tracer
from graph.telling import Operation, Tell
from server.logs import Pseudonyms, RequestLog, Sink, sink_in_use
from server.metrics import Metrics, MetricsPage, Operations, Parts, served
from server.settings import Settings
from server.telemetry import Sampling, sampling_to

VERSION = "0.2.0"


@dataclass(frozen=True, slots=True)
class Observing:
    """The watchers of one process."""

    settings: Settings
    sink: Sink | None
    tracer: Tracer = UNTRACED
    sampling: Sampling | None = None

    def tell_to(self, operations: Operations) -> Tell:
        """Whoever is told of each operation: the numbers, and the log where this process keeps one."""
        if self.sink is None:
            return operations
        written = RequestLog(self.sink, pseudonyms_of(self.settings), level=self.settings.log_level)

        def tell(operation: Operation) -> None:
            operations(operation)
            written(operation)

        return tell

    def page(self, parts: Parts) -> MetricsPage:
        """The metrics of these parts."""
        return MetricsPage(Metrics(parts), self.settings.metrics_token)

    @asynccontextmanager
    async def published(self, page: MetricsPage, *, is_worker: bool = False) -> AsyncIterator[None]:
        """Serve the page on METRICS_PORT; a worker takes the port above, so that both may run on one machine."""
        port = self.settings.metrics_port
        async with served(page, self.settings.host, port + 1 if port is not None and is_worker else port):
            yield

    def close(self) -> None:
        """Send the last spans and write the last lines."""
        if self.sampling is not None:
            self.sampling.close()
        if self.sink is not None:
            self.sink.flush()


def observing(settings: Settings, kind: str) -> Observing:
    """Build them; where tracing is off, nothing of it runs."""
    sink = sink_in_use()
    if not settings.trace_enabled:
        return Observing(settings, sink)
    sampling = sampling_to(
        endpoint=settings.otel_exporter_otlp_endpoint,
        sink=sink,
        ratio=settings.trace_ratio,
        service=f"sightline-{kind}",
        version=VERSION,
    )
    return Observing(settings, sink, sampling or UNTRACED, sampling)


def pseudonyms_of(settings: Settings) -> Pseudonyms:
    """The keyed hash of this process; where its secret cannot be kept, lines match only while the process lives."""
    try:
        return Pseudonyms(settings.hash_secret())
    except OSError:
        return Pseudonyms(secrets.token_urlsafe(32))
