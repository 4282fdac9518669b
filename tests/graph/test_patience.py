"""Patience: an operation that takes too long is stopped with its statement, and says so; a subscription may live on."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import strawberry

from graph.access import PEOPLE, allow
from graph.documents import Documents
from graph.request import Engine, Info, begin
from rules.access import Role, Viewer
from tests.graph.toy import heard, served, subscribe, toy_schema

if TYPE_CHECKING:
    from db.pool import Pool


async def test_an_operation_that_takes_too_long_is_stopped_and_told_to_come_back() -> None:
    async with served(documents=Documents(toy_schema(), operation_seconds_max=0.05)) as toy:
        got = await toy.post("{ echo waiting }")

        assert (got.status_code, got.headers["retry-after"]) == (503, "1")
        assert got.json() == {
            "errors": [
                {
                    "message": "Stopped after 0.05 s: ask for less at once, or try again shortly.",
                    "extensions": {"code": "UNAVAILABLE"},
                }
            ]
        }
        assert toy.stage.running == 0  # its resolver was cancelled
        assert (await toy.post("{ echo }")).json() == {"data": {"echo": ""}}


async def test_over_a_socket_a_query_is_stopped_alike_and_a_subscription_is_not() -> None:
    async with served(documents=Documents(toy_schema(), operation_seconds_max=0.05)) as toy, toy.session() as socket:
        await subscribe(socket, "lives", "subscription { ticks(upto: 0) }")
        await toy.stage.arrived.wait()
        await subscribe(socket, "ends", "{ waiting }")

        ended = await heard(socket)

        assert (ended["id"], ended["type"], ended["payload"][0]["extensions"]["code"]) == (
            "ends",
            "error",
            "UNAVAILABLE",
        )
        assert toy.stage.running == 1  # the subscription's source


@strawberry.type
class Query:
    """Reads that Postgres takes its time for."""

    @strawberry.field
    @allow(*PEOPLE)
    async def slow(self, info: Info) -> str | None:
        from db.pool import tenant_transaction  # late, so that tests of the transport alone need no database code

        async with tenant_transaction(info.context.pool, info.context.viewer.tenant, read_only=True) as connection:
            return str(await connection.fetchval("select pg_sleep(1.5) /* patience */"))


BEGUN, RELEASED, FINISHED = asyncio.Event(), asyncio.Event(), asyncio.Event()


@strawberry.type
class Slow:
    """A message that takes its time to be written."""

    @strawberry.field
    async def word(self) -> str:
        BEGUN.set()
        await RELEASED.wait()
        FINISHED.set()
        return "late"


@strawberry.type
class Subscription:
    """One message."""

    @strawberry.subscription
    @allow(*PEOPLE)
    async def none(self) -> AsyncGenerator[Slow, None]:
        yield Slow()


async def test_a_message_whose_listener_leaves_is_executed_to_its_end() -> None:
    documents = Documents(strawberry.Schema(Query, subscription=Subscription))
    now = datetime.now(UTC)
    engine = Engine(clock=lambda: now, pool=None, recorder=None, wake=None, live=None)  # type: ignore[arg-type] # asked of nothing
    listener = Viewer(1, "t1", frozenset({Role.TEACHER}), now + timedelta(hours=1))
    plan = documents.plan("subscription { none { word } }", None)
    hearing = asyncio.ensure_future(anext(documents.subscribe(plan, {}, begin(engine, listener, "c1"))))
    await BEGUN.wait()

    hearing.cancel()
    await asyncio.wait({hearing})
    RELEASED.set()
    await documents.settle()

    assert hearing.cancelled()
    assert FINISHED.is_set()


async def test_a_stopped_operation_cancels_its_statements_and_gives_its_connections_back(pool: "Pool") -> None:
    documents = Documents(strawberry.Schema(Query, subscription=Subscription), operation_seconds_max=0.2)
    now = datetime.now(UTC)
    engine = Engine(clock=lambda: now, pool=pool, recorder=None, wake=None, live=None)  # type: ignore[arg-type] # asked of nothing else
    asker = Viewer(1, "t1", frozenset({Role.TEACHER}), now + timedelta(hours=1))

    answer = await documents.execute(documents.plan("{ a: slow b: slow }", None), {}, begin(engine, asker, "c1"))

    assert answer.codes == {"UNAVAILABLE"}
    running = "select count(*) from pg_stat_activity where state = 'active' and query like 'select pg_sleep%patience%'"
    async with asyncio.timeout(1.0), pool.acquire() as connection:
        while await connection.fetchval(running):
            pass  # the cancellation is on its way; asking is waiting
    assert pool.get_size() - pool.get_idle_size() == 0
