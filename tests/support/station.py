"""The whole api and a worker's drain in this process, with everything that watches them turned on and kept."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from io import BytesIO
from typing import Any

import httpx
import msgspec
import uvicorn
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from db.live import Live
from db.outbox import SHARDS
from db.pool import Pool
from db.wake import Waker
from graph.sockets import PROTOCOL
from jobs.worker import Workplace
from rules.access import Role, Scope
from server.app import Api
from server.engine import Means
from server.identity import mint
from server.logs import JsonHandler, Sink
from server.metrics import Metrics, Parts
from server.observing import Observing
from server.pages.sign_in import Logins
from server.serving import UVICORN, listen
from server.settings import Settings
from server.telemetry import Lines, Sampling, otlp_of
from tests.graph.toy import _Server as StartedServer
from tests.graph.toy import heard, tell
from tests.rows.district import NOW, District, open_district

SECRET = "a station's secret of more than thirty-two bytes"
SETTINGS = {"JWT_SECRET": SECRET, "LOG_HASH_SECRET": "the key of hashes, of more than 32 bytes"}


@dataclass(slots=True)
class Station:
    """A tenant, the ways to it, and all that was said about it."""

    api: Api
    workplace: Workplace
    http: httpx.AsyncClient
    address: str
    district: District
    sink: Sink
    output: BytesIO
    exporter: InMemorySpanExporter
    sampling: Sampling
    tokens: list[str] = field(default_factory=list)

    def token(self, key: str, *roles: Role, scopes: tuple[Scope, ...] = ()) -> str:
        """A token of the tenant."""
        made = mint(
            SECRET, tenant=self.district.tenant, sub=key, roles=roles, now=NOW, life=timedelta(hours=1), scopes=scopes
        )
        self.tokens.append(made)
        return made

    async def post(self, token: str, query: str, variables: Any = None, **headers: str) -> httpx.Response:
        """Send one document."""
        return await self.http.post(
            "/graphql",
            json={"query": query, "variables": variables},
            headers={"authorization": f"Bearer {token}", **headers},
        )

    @asynccontextmanager
    async def socket(self, token: str) -> AsyncIterator[ClientConnection]:
        """An acknowledged socket."""
        async with connect(self.address.replace("http", "ws"), subprotocols=[Subprotocol(PROTOCOL)]) as socket:
            await tell(socket, type="connection_init", payload={"authorization": f"Bearer {token}"})
            assert await heard(socket) == {"type": "connection_ack"}
            yield socket

    async def fold(self) -> None:
        """Drain every shard of the tenant."""
        for shard in range(SHARDS):
            await self.workplace.drain.shard(self.district.tenant, shard)

    @property
    def spans(self) -> list[ReadableSpan]:
        """Every span that has ended."""
        return list(self.exporter.get_finished_spans())

    def lines(self) -> list[dict[str, Any]]:
        """Every log line so far."""
        self.sink.flush()
        return [msgspec.json.decode(line) for line in self.output.getvalue().splitlines()]

    async def everything(self) -> str:
        """All that left the process about its work: log lines, spans in both wordings, both pages of metrics."""
        Lines(self.sink).export(self.spans)
        self.sink.flush()
        metrics = await self.api.metrics.metrics.text() + await self.worker_metrics().text()
        return (self.output.getvalue() + msgspec.json.encode(otlp_of(self.spans)) + metrics).decode()

    def worker_metrics(self) -> Metrics:
        """What the worker would publish."""
        opened = self.workplace
        return Metrics(
            Parts(
                kind="worker",
                version="test",
                pool=opened.pool,
                live=opened.live,
                clock=opened.clock,
                disk=Settings.read({}).data_dir,
                workplace=opened,
                sampling=self.sampling,
            )
        )


@asynccontextmanager
async def station(
    pool: Pool, live: Live, redis_url: str, *, ratio: float = 0.0, logins: Logins | None = None, **more: str
) -> AsyncIterator[Station]:
    """Open one; class 7b has the teacher "teacher". `more` are settings by their names."""
    district = await open_district(pool)
    await district.classroom("7b")
    await district.teach("teacher")
    waker, output, exporter = Waker(redis_url), BytesIO(), InMemorySpanExporter()
    sink = Sink(output)
    handler = JsonHandler(sink)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    sampling = Sampling(SimpleSpanProcessor(exporter), service="sightline-test", version="test", ratio=ratio)
    opened = Means(pool, live, waker, lambda: NOW)
    settings = Settings.read(SETTINGS | more)
    api = Api(settings, opened, Observing(settings, sink, sampling, sampling), logins=logins)
    workplace = Workplace(pool=pool, clock=lambda: NOW, live=live, waker=waker, concurrency=2, tracer=sampling)
    server = StartedServer(
        uvicorn.Config(api.app, **{**UVICORN, "http": api.protocol}, lifespan="off", log_config=None)
    )
    listener = listen("127.0.0.1", 0)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    await server.ready.wait()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=address, timeout=30) as client:
            yield Station(api, workplace, client, f"{address}/graphql", district, sink, output, exporter, sampling)
    finally:
        await api.sockets.shut()
        server.should_exit = True
        await running
        await api.aclose()
        await waker.aclose()
        root.removeHandler(handler)
        root.setLevel(level)
        sink.close()
