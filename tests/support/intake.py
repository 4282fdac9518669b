"""The intake for tests: real HTTP in front of the real recorder and Postgres, one tenant a test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import httpx
import strawberry
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from strawberry.schema.config import StrawberryConfig

from db.live import Live
from db.pool import Pool, tenant_transaction
from db.recorder import Recorder
from db.wake import Wake, Waker
from graph.corrections import CorrectionMutation
from graph.direct import Direct
from graph.documents import Documents
from graph.gate import Gate
from graph.http import GraphQLHTTP
from graph.recording import RecordingMutation
from graph.request import Engine
from graph.scalars import SCALARS
from graph.service import ServiceQuery
from rules.access import Role, Scope
from server.app import excuse
from server.identity import Identity, SharedSecret, mint
from server.lane import lane_of
from server.serving import UVICORN, listen
from tests.rows.district import NOW, District
from tests.support.tenants import fresh_tenant

SECRET = "an intake secret of more than thirty-two bytes"


@strawberry.type(description="What can be told.")
class Told(RecordingMutation, CorrectionMutation):
    """What is recorded, and what mends it."""


SCHEMA = strawberry.Schema(ServiceQuery, Told, config=StrawberryConfig(scalar_map=SCALARS))

ERRORS = "errors { code field message }"
RESULT = f"status seq typeInferred idempotent effect conflict {{ storedHash sentHash }} {ERRORS} \
event {{ id seq source eventId receivedAt }}"
RECORD = f"mutation ($input: RecordEventInput!) {{ recordEvent(input: $input) {{ {RESULT} }} }}"
RECORD_MANY = (
    f"mutation ($input: RecordEventsInput!) {{ recordEvents(input: $input) {{ results {{ {RESULT} }} seq {ERRORS} }} }}"
)
VOID = f"mutation ($input: VoidEventInput!) {{ voidEvent(input: $input) {{ status seq effect {ERRORS} \
event {{ id seq source eventId receivedAt }} }} }}"


def graded(event_id: str = "e1", **more: Any) -> dict[str, Any]:
    """A grade of s1 in class 7b, as a machine sends it."""
    return {
        "source": "lms", "eventId": event_id, "occurredAt": "2026-03-11T09:00:00+01:00", "studentId": "s1",
        "classroomId": "7b", "assignmentId": "hw1", "conceptIds": ["fractions"], "score": 0.8,
        "type": "SUBMISSION_GRADED", **more,
    }  # fmt: skip


def by_teacher(**more: Any) -> dict[str, Any]:
    """A grade of s1 in class 7b, as a person sends it."""
    return {key: value for key, value in {**graded(), **more}.items() if key not in {"source", "eventId"}}


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@dataclass(slots=True)
class Door:
    """A running server and its recorder, for any number of tenants."""

    http: httpx.AsyncClient
    pool: Pool
    recorder: Recorder
    documents: Documents

    async def tenant(self) -> "Intake":
        """A tenant of its own for one test: class 7b with the pupils s1 and s2 and the teacher t1."""
        district = District(self.pool, await fresh_tenant(self.pool), count(1))
        await district.classroom("7b")
        await district.enroll("s1")
        await district.enroll("s2")
        await district.teach("t1")
        return Intake(self, district)


@dataclass(slots=True)
class Intake:
    """One tenant, and the ways to tell it something."""

    door: Door
    district: District

    def token(
        self, *roles: Role, sub: str = "lms-token", scopes: tuple[Scope, ...] = (), sources: list[str] | None = None
    ) -> str:
        """A token of this tenant; a machine with the scope `ingest` unless said otherwise."""
        roles = roles or (Role.INTEGRATOR,)
        scopes = scopes or ((Scope.INGEST,) if Role.INTEGRATOR in roles else ())
        return mint(
            SECRET, tenant=self.district.tenant, sub=sub, roles=roles, now=NOW, life=timedelta(hours=1),
            scopes=scopes, sources=sources,
        )  # fmt: skip

    async def post(self, query: str, variables: Any = None, *, token: str | None = None) -> httpx.Response:
        """Send one document as JSON."""
        headers = {
            "authorization": f"Bearer {token or self.token()}",
            "accept": "application/graphql-response+json",
        }
        return await self.door.http.post("/graphql", json={"query": query, "variables": variables}, headers=headers)

    async def told(self, query: str, given: dict[str, Any], *, token: str | None = None) -> dict[str, Any]:
        """The payload of a mutation that was executed."""
        response = await self.post(query, {"input": given}, token=token)
        body = response.json()
        assert (response.status_code, "errors" in body) == (200, False), body
        (payload,) = body["data"].values()
        return dict(payload)

    async def record(self, *, token: str | None = None, **given: Any) -> dict[str, Any]:
        """Tell one event."""
        return await self.told(RECORD, given, token=token)

    async def refusals(self, *, token: str | None = None, **given: Any) -> list[tuple[str, str]]:
        """The codes and fields of an event that was rejected, having changed nothing."""
        before = await self.log()
        payload = await self.record(token=token, **given)
        nothing = {
            "status": "REJECTED", "event": None, "seq": None, "typeInferred": None, "idempotent": None,
            "effect": None, "conflict": None,
        }  # fmt: skip
        errors = payload.pop("errors")
        assert (payload, await self.log()) == (nothing, before)
        return [(error["code"], ".".join(error["field"] or ())) for error in errors]

    async def rows(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement whose $1 is the tenant."""
        async with tenant_transaction(self.door.pool, self.district.tenant, read_only=True) as connection:
            return [tuple(row) for row in await connection.fetch(statement, self.district.tenant, *arguments)]

    async def log(self) -> list[tuple[Any, ...]]:
        """(source, event id, kind, student, class) of the log, in order."""
        return await self.rows(
            "select source, event_id, kind, student, classroom from event where tenant = $1 order by seq"
        )

    async def waiting(self) -> int:
        """How many rows wait in the outbox."""
        ((depth,),) = await self.rows("select count(*)::int from outbox where tenant = $1")
        return int(depth)


@asynccontextmanager
async def intake_served(
    pool: Pool, live: Live, redis_url: str, *, clock: Callable[[], datetime] = lambda: NOW
) -> AsyncIterator[Door]:
    """Serve the recording mutations with the settings of production."""
    waker = Waker(redis_url)
    wake = Wake(waker)
    recorder = Recorder(pool, clock=clock, wake=wake, live=live)
    engine = Engine(clock=clock, pool=pool, recorder=recorder, wake=wake, live=live)
    identity = Identity(SharedSecret(SECRET), clock=clock)
    documents = Documents(SCHEMA, excuse=excuse)
    http = GraphQLHTTP(documents=documents, engine=engine, authenticate=identity.viewer_of, gate=Gate(places=100))
    served = {**UVICORN, "http": lane_of(Direct(http, identity.known))}
    server = _Server(
        uvicorn.Config(Starlette(routes=[Route("/graphql", http)]), **served, lifespan="off", log_config=None)
    )
    listener = listen("127.0.0.1", 0)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    await server.ready.wait()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
        try:
            yield Door(client, pool, recorder, documents)
        finally:
            server.should_exit = True
            await running
            await recorder.aclose()
            await wake.aclose()
            await waker.aclose()
