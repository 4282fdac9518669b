"""Listening to subscriptions as a client does: messages one by one, with a bound on the wait, cut and resumed."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import strawberry
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from strawberry.schema.config import StrawberryConfig
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from db.evidence import Answer as Recorded
from db.live import Live
from db.pool import Pool
from db.recorder import Recorder
from graph.answers import Answer
from graph.classrooms import ClassroomQuery
from graph.documents import Documents
from graph.events import EventStreams
from graph.fanout import Fanout
from graph.gate import Gate
from graph.hearing import Message
from graph.http import GraphQLHTTP
from graph.listening import listen
from graph.live import LiveSubscription
from graph.request import Engine, begin
from graph.scalars import SCALARS
from graph.sockets import PROTOCOL, GraphQLSockets
from graph.students import StudentQuery
from rules.access import Role, Scope, Viewer
from rules.evidence import LearningEvent
from server.identity import Identity, SharedSecret, mint
from server.serving import UVICORN
from server.serving import listen as listening_socket
from tests.graph.toy import SECRET, heard, tell
from tests.graph.toy import _Server as StartedServer
from tests.rows.district import District, open_district
from tests.rows.reading import decoded
from tests.support.events import Mill, submission

NOW = datetime(2026, 3, 3, 9, 0, tzinfo=UTC)  # the day after the events of tests.support.events
EXPIRY = datetime(2099, 1, 1, tzinfo=UTC)
WAIT_SECONDS_MAX = 5.0


@strawberry.type
class Query(StudentQuery, ClassroomQuery):
    """What is asked again."""


DOCUMENTS = Documents(
    strawberry.Schema(query=Query, subscription=LiveSubscription, config=StrawberryConfig(scalar_map=SCALARS))
)

RISK = """subscription ($key: ID!, $after: String) { riskFlagChanged(classroomId: $key, after: $after) {
    kind resumeToken asOf { seq } transition {
        change studentId reason severity earlier overall notify clearsWhen at evidence { numbers { name value } }
    } } }"""
MASTERY = """subscription ($student: ID, $key: ID, $after: String) {
    masteryChanged(studentId: $student, classroomId: $key, after: $after) {
    kind resumeToken asOf { seq } studentId mastery { concept { key } classroomId score state evidenceCount }
    } }"""
DASHBOARD = """subscription ($key: ID!, $after: String) { dashboardChanged(classroomId: $key, after: $after) {
    kind resumeToken asOf { seq } dashboard {
        averageScore completionRate submissionRate activeStudents
        atRisk { nodes { studentId severity flags { reason severity } } }
        recentActivity { nodes { studentId event { eventId effect } } }
    } } }"""
EVENTS = """subscription ($key: ID!, $after: String) { eventRecorded(classroomId: $key, after: $after) {
    kind resumeToken asOf { seq } activity { studentId event { seq eventId type effect } }
    } }"""


class Silent:
    """A wake that wakes nobody: these tests fold by hand."""

    def mark(self, tenant: int, shard: int) -> None:
        """Nothing."""


@dataclass
class Watch:
    """Seconds that a test moves."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Listener:
    """One subscription of one client."""

    def __init__(self, answers: AsyncGenerator[Answer]) -> None:
        self._answers = answers

    async def answer(self, *, seconds_max: float = WAIT_SECONDS_MAX) -> Answer:
        """The next answer, whatever it is. Raises TimeoutError."""
        async with asyncio.timeout(seconds_max):
            return await anext(self._answers)

    async def message(self, *, seconds_max: float = WAIT_SECONDS_MAX) -> Any:
        """The payload of the next message, which must not fail."""
        answer = await self.answer(seconds_max=seconds_max)
        assert answer.errors == (), answer.errors
        assert answer.data is not None
        (message,) = answer.data.values()
        return message

    async def messages(self, count: int) -> list[Any]:
        """The next so many messages."""
        return [await self.message() for _ in range(count)]

    async def refusal(self) -> str:
        """The code that the stream ends with; nothing comes after it."""
        answer = await self.answer()
        assert answer.data is None
        assert [found async for found in self._answers] == []
        (error,) = answer.errors
        code: str = error["extensions"]["code"]
        return code

    async def close(self) -> None:
        """Leave."""
        await self._answers.aclose()


class Room:
    """An outlet with room for so many messages; it takes what is written, not what was meant."""

    def __init__(self, places: int) -> None:
        self.waiting: asyncio.Queue[Answer | None] = asyncio.Queue(maxsize=places)
        self.offered: list[bytes] = []

    def offer(self, message: Message) -> bool:
        """As a socket does."""
        if self.waiting.full():
            return False
        written = msgspec.json.decode(message.text)
        (shown,) = written["data"].values()
        assert shown["resumeToken"] == message.token
        assert written == msgspec.json.decode(msgspec.json.encode(message.answer.body))
        self.offered.append(message.text)
        self.waiting.put_nowait(Answer(tuple(written.get("errors", ())), written["data"], is_executed=True))
        return True


async def _in(room: Room, own: AsyncGenerator[Answer]) -> AsyncGenerator[Answer]:
    """What comes to one subscriber either way, in its order."""

    async def pull() -> None:
        async with aclosing(own):
            async for answer in own:
                await room.waiting.put(answer)
        await room.waiting.put(None)

    pulling = asyncio.create_task(pull())
    try:
        while (answer := await room.waiting.get()) is not None:
            yield answer
        await pulling
    finally:
        pulling.cancel()
        await asyncio.wait({pulling})


@dataclass
class Desk:
    """A tenant with class 7b, its teacher, and ways to record, fold and listen."""

    pool: Pool
    mill: Mill
    district: District
    live: Live
    seconds: Watch = field(default_factory=Watch)
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        recorder = Recorder(self.pool, clock=self.mill.clock, wake=Silent(), live=self.live)  # type: ignore[arg-type]
        self.engine = Engine(
            clock=self.mill.clock,
            pool=self.pool,
            recorder=recorder,
            wake=Silent(),  # type: ignore[arg-type]
            live=self.live,
            fanout=Fanout(self.seconds),
        )

    def viewer(self, key: str, *roles: Role, scopes: frozenset[Scope] = frozenset()) -> Viewer:
        """Somebody of this tenant."""
        return Viewer(self.mill.tenant, key, frozenset(roles), EXPIRY, scopes)

    def listen(self, document: str, *, by: Viewer | None = None, **variables: Any) -> Listener:
        """Subscribe, as the teacher unless said otherwise; nothing happens before the first message is asked for."""
        context = begin(self.engine, by or self.viewer("teacher", Role.TEACHER), "test")
        return Listener(DOCUMENTS.subscribe(DOCUMENTS.plan(document, None), variables, context))

    def share(self, document: str, *, by: Viewer | None = None, room: Room | None = None, **variables: Any) -> Listener:
        """Subscribe as a socket does: what others hear too is executed once."""
        context = begin(self.engine, by or self.viewer("teacher", Role.TEACHER), "test")
        taken = room or Room(100)
        plan = DOCUMENTS.plan(document, None)
        return Listener(_in(taken, listen(DOCUMENTS, plan, variables, context, taken)))

    async def ask(self, document: str, **variables: Any) -> Any:
        """The data of a query by an admin."""
        context = begin(self.engine, self.viewer("admin", Role.ADMIN), "test")
        answer = await DOCUMENTS.execute(DOCUMENTS.plan(document, None), variables, context)
        assert answer.errors == ()
        return decoded(answer).data

    async def record(self, *events: LearningEvent) -> list[Recorded]:
        """Record as the api does, watchers of the log told."""
        sent = [submission(event) for event in events]
        return await self.engine.recorder.record(self.mill.tenant, sent, recorded_by="lms")

    async def fold(self, *events: LearningEvent) -> None:
        """Record and fold."""
        if events:
            await self.record(*events)
        await self.mill.fold()


@dataclass
class Street:
    """The desk's subscriptions behind real connections; call it to connect as somebody of the tenant."""

    desk: Desk
    port: int
    buffer_bytes: int
    sockets: GraphQLSockets

    def bearer(self, key: str, *roles: Role) -> str:
        """A credential of an hour."""
        life = timedelta(hours=1)
        tenant, now = self.desk.mill.tenant, self.desk.mill.clock()
        return f"Bearer {mint(SECRET, tenant=tenant, sub=key, roles=roles, now=now, life=life)}"

    @asynccontextmanager
    async def __call__(self, key: str, *roles: Role) -> AsyncIterator[ClientConnection]:
        """An acknowledged socket."""
        plain = socket.create_connection(("127.0.0.1", self.port))
        if self.buffer_bytes:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer_bytes)
        url = f"ws://127.0.0.1:{self.port}/graphql"
        async with connect(url, sock=plain, subprotocols=[Subprotocol(PROTOCOL)], max_queue=1) as connection:
            await tell(connection, type="connection_init", payload={"authorization": self.bearer(key, *roles)})
            assert await heard(connection) == {"type": "connection_ack"}
            yield connection

    @asynccontextmanager
    async def events(
        self, who: str, role: Role, document: str, last_event_id: str | None = None, **variables: Any
    ) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
        """An event stream: the id and the message of each event."""
        headers = {"authorization": self.bearer(who, role), "accept": "text/event-stream"}
        named = {} if last_event_id is None else {"last-event-id": last_event_id}
        body = {"query": document, "variables": variables}
        url = f"http://127.0.0.1:{self.port}/graphql"
        async with (
            httpx.AsyncClient(timeout=WAIT_SECONDS_MAX) as client,
            client.stream("POST", url, json=body, headers=headers | named) as response,
        ):
            yield _messages(response)


async def _messages(response: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        elif "data" in fields:
            (message,) = msgspec.json.decode(fields["data"])["data"].values()
            yield fields["id"], message
            fields = {}


@asynccontextmanager
async def served(desk: Desk, *, buffer_bytes: int = 0) -> AsyncIterator[Street]:
    """Run the desk's subscriptions; `buffer_bytes` leaves the kernel little room for what nobody reads."""
    authenticate = Identity(SharedSecret(SECRET), clock=desk.mill.clock).viewer_of
    means: dict[str, Any] = {"documents": DOCUMENTS, "engine": desk.engine, "authenticate": authenticate}
    sockets = GraphQLSockets(**means, gate=Gate())
    streams = EventStreams(GraphQLHTTP(**means, gate=Gate()), sockets)
    app = Starlette(routes=[Route("/graphql", streams, methods=None), WebSocketRoute("/graphql", sockets)])
    server = StartedServer(uvicorn.Config(app, **UVICORN, lifespan="off", log_config=None))
    listener = listening_socket("127.0.0.1", 0)
    if buffer_bytes:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    await server.ready.wait()
    try:
        yield Street(desk, listener.getsockname()[1], buffer_bytes, sockets)
    finally:
        await sockets.shut()
        server.should_exit = True
        await running


async def open_desk(pool: Pool, live: Live, *, students: tuple[str, ...] = ("s1", "s2", "s3")) -> Desk:
    """A fresh tenant with a class, its teacher and its students."""
    district = await open_district(pool)
    await district.classroom("7b")
    await district.teach("teacher")
    for student in students:
        await district.enroll(student)
    return Desk(pool, Mill.of(pool, district.tenant, live, now=NOW), district, live)


async def seated(desk: Desk, count: int) -> None:
    """Wait until so many subscribers sit in audiences."""
    async with asyncio.timeout(10):
        while desk.engine.audiences.seated < count:  # noqa: ASYNC110 - taking a seat rings no bell, for nobody else waits for it
            await asyncio.sleep(0.01)


async def begun(*listeners: Listener) -> None:
    """Hear READY."""
    for listener in listeners:
        assert (await listener.message())["kind"] == "READY"


def standing_of(message: Any) -> tuple[str, str, int]:
    """Whose standing in which class, after how much evidence."""
    return message["studentId"], message["mastery"]["classroomId"], message["mastery"]["evidenceCount"]
