"""The metrics page: who may read it, where it is served, and what it says while Postgres is away."""

import socket
from pathlib import Path

import httpx
import pytest

from db.live import Live
from db.pool import Pool, tenant_transaction
from db.wake import Waker
from graph.refusal import ErrorCode
from graph.telling import GONE, Operation
from server.app import Api
from server.engine import Means
from server.metrics import Metrics, MetricsPage, Operations, Parts, served
from server.observing import Observing
from server.settings import Settings
from tests.rows.district import NOW
from tests.support.station import SETTINGS
from tests.support.tenants import fresh_tenant

TOKEN = "a metrics token of more than 32 bytes"


def parts(pool: Pool, live: Live) -> Parts:
    return Parts(kind="api", version="test", pool=pool, live=live, clock=lambda: NOW, disk=Path("."))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.mark.feature("000-20", "004-22")
async def test_the_page_has_a_port_of_its_own_and_asks_for_the_token(pool: Pool, live: Live) -> None:
    port = free_port()
    page = MetricsPage(Metrics(parts(pool, live)), TOKEN)
    async with (
        served(page, "127.0.0.1", port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        strange = await client.get("/metrics")
        wrong = await client.get("/metrics", headers={b"authorization": "Bearer ünknown".encode()})
        told = await client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})

    assert (strange.status_code, strange.text, wrong.status_code) == (401, "", 401)
    assert (told.status_code, told.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "\ndatabase_up 1.0\n" in told.text


@pytest.mark.feature("000-20")
@pytest.mark.parametrize(
    ("given", "status"),
    [({}, 404), ({"METRICS_TOKEN": TOKEN}, 401), ({"METRICS_TOKEN": TOKEN, "METRICS_PORT": "9464"}, 404)],
    ids=["closed", "token", "port"],
)
async def test_on_the_public_port_the_page_needs_a_token_and_no_port_of_its_own(
    pool: Pool, live: Live, redis_url: str, given: dict[str, str], status: int
) -> None:
    settings = Settings.read({**SETTINGS, **given})
    waker = Waker(redis_url)
    api = Api(settings, Means(pool, live, waker, lambda: NOW), Observing(settings, None))
    transport = httpx.ASGITransport(api.app)

    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        answer = await client.get("/metrics")

    await waker.aclose()
    assert answer.status_code == status


@pytest.mark.feature("003-33")
async def test_without_postgres_the_page_still_tells_what_the_process_knows(pool: Pool, live: Live) -> None:
    class Gone:
        def __getattr__(self, name: str) -> object:
            return getattr(pool, name)

        def acquire(self, **_: object) -> object:
            raise ConnectionRefusedError

    text = (await Metrics(parts(Gone(), live)).text()).decode()

    assert "\ndatabase_up 0.0\n" in text
    assert "event_queue_depth" not in text
    assert "\ndb_connections_max 10.0\n" in text


@pytest.mark.feature("003-49")
async def test_transactions_are_timed_and_waits_without_a_connection_counted(database_url: str) -> None:
    from db import pool as module

    opened = await module.open_pool(database_url, size_max=1, size_idle=1)
    tenant = await fresh_tenant(opened)
    before = opened.transactions.count

    async with tenant_transaction(opened, tenant):
        with pytest.MonkeyPatch.context() as hasty:
            hasty.setattr(module, "ACQUIRE_SECONDS", 0.01)
            with pytest.raises(TimeoutError):
                async with tenant_transaction(opened, tenant):
                    raise AssertionError("there is one connection only")

    assert (opened.transactions.count - before, opened.unserved) == (1, 1)
    assert opened.transactions.seconds > 0
    await opened.close()


@pytest.mark.feature("003-49")
@pytest.mark.parametrize(
    ("status", "codes", "outcome"),
    [
        (200, set(), "ok"),
        (200, {ErrorCode.BAD_INPUT}, "refused"),
        (403, set(), "refused"),
        (503, {ErrorCode.UNAVAILABLE}, "failed"),
        (500, set(), "failed"),
        (GONE, set(), "left"),  # whoever closes a page has nothing to mend
        (GONE, {ErrorCode.INTERNAL}, "failed"),
    ],
)
def test_an_operation_is_counted_by_whose_it_is_to_mend(status: int, codes: set[str], outcome: str) -> None:
    counts = Operations()
    operation = Operation("c1", None, is_http=False, status=status, codes=codes)

    operation.finish(counts)

    assert counts.over_sockets == {("none", outcome): 1}
    assert counts.failures.total() == int(outcome == "failed")
