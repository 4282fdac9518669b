"""A toy schema behind the real transport: real sockets, no database, a clock that the test owns."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import httpx
import msgspec
import strawberry
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from strawberry.schema.config import StrawberryConfig
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from graph.access import ANY_SCOPE, PEOPLE, allow
from graph.budgets import Budgets
from graph.documents import Documents
from graph.events import EventStreams
from graph.gate import Gate
from graph.http import GraphQLHTTP
from graph.refusal import ErrorCode, Refused
from graph.request import Context, Engine, Info, begin
from graph.scalars import SCALARS, Seq
from graph.sockets import GraphQLSockets
from rules.access import Role, Scope, Viewer
from server.identity import Identity, SharedSecret, mint
from server.serving import UVICORN, listen

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
SECRET = "a toy secret of more than thirty-two bytes"
PUPILS_DATA = "Ada scored 12"


@strawberry.type
class Pupil:
    """Someone who learns."""

    name: str

    @strawberry.field
    def friend(self) -> "Pupil":
        return Pupil(name="Grace")

    @strawberry.field
    def said(self, score: float = 0.0, at: datetime | None = None) -> str:
        return f"{score} {at}"

    @strawberry.field
    @allow(Role.TEACHER)
    def risk(self) -> str | None:
        return "LOW"


@strawberry.input
class EventInput:
    """One event."""

    event_id: str
    score: float | None = None


def _visit(info: Info) -> int:
    """How often the loaders of this operation, or of this event, were used."""
    found: int = info.context.loaders.get("visits", 0) + 1
    info.context.loaders["visits"] = found
    return found


@strawberry.type
class Visitor:
    """Who uses the loaders."""

    @strawberry.field
    def visits(self, info: Info) -> int:
        return _visit(info)


@strawberry.type
class Query:
    """Reads."""

    @strawberry.field
    @allow(*PEOPLE, scope=ANY_SCOPE)
    def pupil(self) -> Pupil | None:
        return Pupil(name="Ada")

    @strawberry.field
    @allow(*PEOPLE)
    def echo(self, text: str = "", day: datetime | None = None, seq: Seq | None = None) -> str | None:
        return f"{text}{day or ''}{seq or ''}"

    @strawberry.field
    @allow(Role.ADMIN)
    def admin_only(self) -> str | None:
        return "secret"

    @strawberry.field
    def undeclared(self) -> str | None:
        return "nobody may see this"

    @strawberry.field
    @allow(*PEOPLE)
    def broken(self) -> str | None:
        raise RuntimeError(PUPILS_DATA)

    @strawberry.field
    @allow(*PEOPLE)
    def visits(self, info: Info) -> int | None:
        return _visit(info)

    @strawberry.field
    @allow(*PEOPLE)
    def many_broken(self) -> list[Pupil | None] | None:
        return [Pupil(name=None) for _ in range(9)]  # type: ignore[arg-type]

    @strawberry.field
    @allow(*PEOPLE)
    def refused(self) -> str | None:
        raise Refused(ErrorCode.STALE, "Not there yet.", field=("minSeq",))

    @strawberry.field
    @allow(*PEOPLE)
    def away(self) -> str | None:
        raise ConnectionRefusedError(PUPILS_DATA)

    @strawberry.field
    @allow(*PEOPLE)
    async def waiting(self, info: Info) -> str | None:
        stage: Stage = info.context.engine.live  # type: ignore[assignment]
        stage.arrived.set()
        stage.running += 1
        try:
            await stage.released.wait()
        finally:
            stage.running -= 1
        return "done"


@strawberry.type
class Mutation:
    """Writes."""

    @strawberry.mutation
    @allow(Role.TEACHER, scope=Scope.INGEST)
    def record_events(self, events: list[EventInput]) -> int | None:
        return len(events)

    @strawberry.mutation
    @allow(Role.TEACHER)
    def rename(self, name: str) -> str | None:
        return name


@strawberry.type
class Subscription:
    """Pushes."""

    @strawberry.subscription
    @allow(*PEOPLE)
    async def ticks(self, info: Info, upto: int = 3) -> AsyncGenerator[int, None]:
        stage: Stage = info.context.engine.live  # type: ignore[assignment]
        stage.running += 1
        try:
            for number in range(upto):
                stage.pulled = number
                yield number
            if upto == 0:
                stage.arrived.set()
                await asyncio.Event().wait()
        finally:
            stage.running -= 1
            stage.stopped.set()

    @strawberry.subscription
    @allow(*PEOPLE)
    async def visitors(self, upto: int = 2) -> AsyncGenerator[Visitor, None]:
        for _ in range(upto):
            yield Visitor()

    @strawberry.subscription
    @allow(*PEOPLE)
    async def big(self, info: Info) -> AsyncGenerator[str, None]:
        stage: Stage = info.context.engine.live  # type: ignore[assignment]
        while True:
            stage.pulled += 1
            yield "x" * 65_536

    @strawberry.subscription
    @allow(*PEOPLE)
    async def withdrawn(self) -> AsyncGenerator[int, None]:
        yield 1
        raise Refused(ErrorCode.FORBIDDEN, "You may no longer see this.")

    @strawberry.subscription
    @allow(*PEOPLE)
    async def crashing(self) -> AsyncGenerator[int, None]:
        yield 1
        raise RuntimeError(PUPILS_DATA)

    @strawberry.subscription
    @allow(Role.ADMIN)
    async def admin_ticks(self) -> AsyncGenerator[int, None]:
        yield 1


def toy_schema() -> strawberry.Schema:
    """The toy schema, built anew."""
    return strawberry.Schema(Query, Mutation, Subscription, config=StrawberryConfig(scalar_map=SCALARS))


@dataclass
class Stage:
    """What the resolvers and the test tell each other."""

    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    pulled: int = 0

    def reset(self) -> None:
        """Forget the last test."""
        self.__init__()  # type: ignore[misc]


def engine(stage: Any = None) -> Engine:
    """An engine whose clock stands still."""
    return Engine(clock=lambda: NOW, pool=None, recorder=None, wake=None, live=stage)  # type: ignore[arg-type]


def viewer(*roles: Role) -> Viewer:
    """Someone with these roles, a teacher unless said otherwise."""
    return Viewer(tenant=1, key="t1", roles=frozenset(roles or {Role.TEACHER}), expires_at=NOW + timedelta(hours=1))


def context(*roles: Role) -> Context:
    """The context of one operation by such a viewer."""
    return begin(engine(), viewer(*roles), "c1")


def token(*roles: Role, sub: str = "t1", life: timedelta = timedelta(hours=1)) -> str:
    """A token that the toy server takes."""
    return mint(SECRET, tenant=1, sub=sub, roles=roles or (Role.TEACHER,), now=NOW, life=life)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@dataclass
class Toy:
    """A running server and the ways to it."""

    url: str
    http: httpx.AsyncClient
    stage: Stage
    sockets: GraphQLSockets
    documents: Documents

    async def post(
        self,
        query: str,
        variables: Any = None,
        *,
        accept: str = "application/graphql-response+json",
        roles: tuple[Role, ...] = (),
        **more: Any,
    ) -> httpx.Response:
        """Send one document as a viewer with these roles."""
        headers = {"authorization": f"Bearer {token(*roles)}", "accept": accept}
        return await self.http.post("/graphql", json={"query": query, "variables": variables, **more}, headers=headers)

    async def post_raw(self, body: bytes, **headers: str) -> httpx.Response:
        """Send any bytes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        fixed = {"authorization": f"Bearer {token()}", "content-type": "application/json"}
        return await self.http.post("/graphql", content=body, headers={**fixed, **named})

    def connect(self, *, protocol: str | None = "graphql-transport-ws", **more: Any) -> connect:
        """A socket, not yet initialised."""
        protocols = [Subprotocol(protocol)] if protocol else None
        return connect(self.url.replace("http", "ws") + "/graphql", subprotocols=protocols, **more)

    @asynccontextmanager
    async def session(self, *roles: Role, sub: str = "t1", **more: Any) -> AsyncIterator[ClientConnection]:
        """A socket that has been acknowledged."""
        async with self.connect(**more) as socket:
            await tell(socket, type="connection_init", payload={"authorization": f"Bearer {token(*roles, sub=sub)}"})
            assert await heard(socket) == {"type": "connection_ack"}
            yield socket


async def tell(socket: ClientConnection, **message: Any) -> None:
    """Send one message."""
    await socket.send(msgspec.json.encode(message).decode())


async def subscribe(socket: ClientConnection, operation_id: str, query: str, **payload: Any) -> None:
    """Start one operation."""
    await tell(socket, id=operation_id, type="subscribe", payload={"query": query, **payload})


async def heard(socket: ClientConnection) -> Any:
    """The next message."""
    return msgspec.json.decode(await socket.recv())


@asynccontextmanager
async def served(
    *,
    places: int = 100,
    wait_seconds_max: float = 1.0,
    documents: Documents | None = None,
    status_edition: Literal[2025, 2026] = 2025,
    budgets: Budgets | None = None,
) -> AsyncIterator[Toy]:
    """Run the toy on an ephemeral port with the settings of production."""
    stage, gate = Stage(), Gate(places=places, wait_seconds_max=wait_seconds_max, budgets=budgets)
    documents, means = documents or Documents(toy_schema()), engine(stage)
    authenticate = Identity(SharedSecret(SECRET), clock=lambda: NOW).viewer_of
    sockets = GraphQLSockets(
        documents=documents, engine=means, authenticate=authenticate, gate=gate, allowed_origins={"https://ok.example"}
    )
    http = GraphQLHTTP(
        documents=documents, engine=means, authenticate=authenticate, gate=gate, status_edition=status_edition
    )
    app = Starlette(
        routes=[Route("/graphql", EventStreams(http, sockets), methods=None), WebSocketRoute("/graphql", sockets)]
    )
    server = _Server(uvicorn.Config(app, **UVICORN, lifespan="off", log_config=None))
    listener = listen("127.0.0.1", 0)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    await server.ready.wait()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url) as client:
        try:
            yield Toy(url, client, stage, sockets, documents)
        finally:
            await sockets.shut()
            server.should_exit = True
            await running
