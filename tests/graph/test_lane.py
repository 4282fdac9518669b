"""The lane beside ASGI: whatever is sent, the bytes that come back are those that uvicorn and Starlette would send."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.routing import Route

from db.live import Live, open_live
from db.pool import Pool, open_pool
from db.recorder import Recorder
from db.wake import Wake, Waker
from graph.budgets import Budgets
from graph.direct import Direct
from graph.documents import Documents
from graph.gate import Gate
from graph.http import BODY_BYTES_MAX, GraphQLHTTP, ask_in
from graph.request import Engine
from graph.telling import Operation
from rules.access import Role, Scope
from server.app import excuse, past_routing
from server.identity import Identity, SharedSecret
from server.lane import Heads, lane_of
from server.serving import UVICORN, listen
from tests.jobs.test_recorder import held
from tests.rows.district import NOW, District
from tests.support.intake import RECORD, RECORD_MANY, SCHEMA, SECRET, VOID, Door, Intake, by_teacher, graded
from tests.support.station import station
from tests.support.tenants import fresh_tenant

SECONDS_MAX = 10.0
# What differs between two runs of the same: the moment of the answer, and what was made for this one alone.
_UNLIKE = re.compile(
    rb"(?<=date: )[^\r]+|(?<=x-request-id: )[0-9a-f]{32}"
    rb"|[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|(?<=\"errorId\":\")[0-9a-f]{16}"
)
QUERY = "query Which { service { version } }"


class Counted(Direct):
    """Counts what comes by the lane, and what of it needed neither task nor coroutine."""

    taken = 0
    straight = 0

    def take(self, *arguments: Any) -> Any:
        """Count it."""
        answering = super().take(*arguments)
        self.taken += 1
        self.straight += answering is None
        return answering


@dataclass(slots=True)
class Side:
    """One server, and all it told of its operations."""

    port: int
    server: uvicorn.Server
    recorder: Recorder
    documents: Documents
    gate: Gate
    told: list[tuple[Any, ...]] = field(default_factory=list)
    direct: Counted | None = None
    broken_at: str = ""  # the event at which telling breaks

    def tell(self, operation: Operation) -> None:
        """Keep what metrics and log would make of it."""
        if self.broken_at and (operation.variables or {}).get("input", {}).get("eventId") == self.broken_at:
            raise RuntimeError
        plan = operation.plan and (operation.plan.title, operation.plan.root)
        viewer = operation.viewer and operation.viewer.key
        what = (plan, viewer, operation.variables, operation.cost, operation.is_http)
        self.told.append((*what, operation.status, sorted(operation.codes), operation.outcome))

    @property
    def places(self) -> int:
        """How many places of the gate are free."""
        taken = 0
        while self.gate.enter():
            taken += 1
        for _ in range(taken):
            self.gate.leave()
        return taken

    async def met(self, token: str) -> None:
        """Let it know the token, and the document that records."""
        await self.sent(post(token, asked(RECORD, {"input": graded("known")})), last(token))
        self.told.clear()

    async def sent(self, *requests: bytes) -> bytes:
        """All that comes back on one connection, each request sent after the answer to the one before."""
        answers = b""
        async with connected(self.port) as (reader, writer), asyncio.timeout(SECONDS_MAX):
            for request in requests:
                writer.write(request)
                answers += await answer_on(reader)
            return answers + await reader.read()  # nothing more, once the last one closed the connection

    async def poured(self, *chunks: bytes) -> bytes:
        """The same where all is sent without waiting for answers; how it arrives in reads is the kernel's affair."""
        async with connected(self.port) as (reader, writer), asyncio.timeout(SECONDS_MAX):
            for chunk in chunks:
                writer.write(chunk)
                await asyncio.sleep(0)
            return await reader.read()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that is closed at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer_on(reader: asyncio.StreamReader) -> bytes:
    """One whole answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        return head + await answer_on(reader)
    return head + await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]))


@asynccontextmanager
async def side_on(
    pool: Pool, live: Live, redis_url: str, *, by_lane: bool, budgets: bool = False
) -> AsyncIterator[Side]:
    """A server of the recording mutations, by ASGI alone or with the lane."""
    waker = Waker(redis_url)
    wake = Wake(waker)
    recorder = Recorder(pool, clock=lambda: NOW, wake=wake, live=live)
    engine = Engine(clock=lambda: NOW, pool=pool, recorder=recorder, wake=wake, live=live)
    identity = Identity(SharedSecret(SECRET), clock=lambda: NOW)
    documents, gate = (
        Documents(SCHEMA, excuse=excuse),
        Gate(places=100, budgets=Budgets(clock=lambda: 0.0) if budgets else None),
    )
    side = Side(0, None, recorder, documents, gate)  # type: ignore[arg-type]
    http = GraphQLHTTP(documents=documents, engine=engine, authenticate=identity.viewer_of, gate=gate, tell=side.tell)
    settings = dict(UVICORN)
    if by_lane:
        side.direct = Counted(http, identity.known)
        settings["http"] = lane_of(side.direct)
    app = past_routing(Starlette(routes=[Route("/graphql", http, methods=None)]))
    side.server = uvicorn.Server(uvicorn.Config(app, **settings, lifespan="off", log_config=None))
    listener = listen("127.0.0.1", 0)
    side.port = listener.getsockname()[1]
    listener.listen()
    running = asyncio.create_task(side.server.serve(sockets=[listener]))
    try:
        yield side
    finally:
        side.server.should_exit = True
        await running
        await recorder.aclose()
        if side.direct is not None:
            await side.direct.aclose()
        await wake.aclose()
        await waker.aclose()


@asynccontextmanager
async def side_on_uvloop(database_url: str, redis_url: str) -> AsyncIterator[Side]:
    """A server with the lane on the loop that serves in production, in a thread of its own."""
    opened: Future[Side] = Future()
    loop, left = uvloop.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        pool, live = await open_pool(database_url, size_max=4), open_live(redis_url)
        live.listen()
        try:
            async with side_on(pool, live, redis_url, by_lane=True) as side:
                opened.set_result(side)
                await left.wait()
        finally:
            await live.aclose()
            await pool.close()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    serving, opening = asyncio.create_task(asyncio.to_thread(run)), asyncio.wrap_future(opened)
    ends: set[asyncio.Future[Any]] = {serving, opening}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if not opening.done():
        await serving
    try:
        yield await opening
    finally:
        loop.call_soon_threadsafe(left.set)
        await serving


@dataclass(slots=True)
class Pair:
    """The same requests, told to both."""

    asgi: Side
    lane: Side
    pool: Pool

    async def tenant(self) -> Intake:
        """A tenant of its own, with class 7b."""
        district = District(self.pool, await fresh_tenant(self.pool), count(1))
        await district.classroom("7b")
        await district.enroll("s1")
        await district.teach("t1")
        return Intake(Door(None, self.pool, self.lane.recorder, self.lane.documents), district)  # type: ignore[arg-type]

    async def alike(self, requests_of: Callable[[Intake], Sequence[bytes]], *, by_lane: int | None) -> list[bytes]:
        """The answers, which are equal; `by_lane` of them came by the lane, or None where all is poured at once."""
        direct = self.lane.direct
        assert direct is not None
        before, answers = direct.taken, []
        for side in (self.asgi, self.lane):
            side.told.clear()
            requests = requests_of(await self.tenant())
            answers.append(_UNLIKE.sub(b"~", await (side.poured if by_lane is None else side.sent)(*requests)))
        theirs, ours = answers
        assert ours == theirs
        assert self.asgi.told == self.lane.told
        assert by_lane is None or direct.taken - before == by_lane
        return [b"HTTP/1.1 " + one for one in ours.split(b"HTTP/1.1 ")[1:]]


@pytest_asyncio.fixture(params=["asyncio", "uvloop"])
async def pair(
    request: pytest.FixtureRequest, pool: Pool, live: Live, redis_url: str, database_url: str
) -> AsyncIterator[Pair]:
    own = side_on(pool, live, redis_url, by_lane=True)
    async with (
        side_on(pool, live, redis_url, by_lane=False) as asgi,
        own if request.param == "asyncio" else side_on_uvloop(database_url, redis_url) as lane,
    ):
        yield Pair(asgi, lane, pool)


def post(token: str, body: bytes, *lines: str, version: str = "1.1", without: Sequence[str] = ()) -> bytes:
    """One request, as clients write it; `lines` are more headers."""
    usual = {
        "host": "here",
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "accept": "application/graphql-response+json",
        "content-length": str(len(body)),
    }
    written = [f"{name}: {value}" for name, value in usual.items() if name not in without]
    return "\r\n".join([f"POST /graphql HTTP/{version}", *written, *lines, "", ""]).encode("latin-1") + body


def asked(query: str, variables: Any = None, **more: Any) -> bytes:
    """A body."""
    return msgspec.json.encode({"query": query, "variables": variables, **more})


def last(token: str) -> bytes:
    """A request that ends the connection."""
    return post(token, asked(QUERY), "connection: close")


BODIES: list[tuple[str, bytes]] = [
    ("an event", asked(RECORD, {"input": graded()})),
    ("the same again", asked(RECORD, {"input": graded()})),
    ("another under its name", asked(RECORD, {"input": graded(score=0.5)})),
    ("one that is wrong", asked(RECORD, {"input": graded("e2", score=7)})),
    ("one whose score is a text", asked(RECORD, {"input": graded("e3", score="high")})),
    ("one with an unknown field", asked(RECORD, {"input": graded("e4", nope=1)})),
    ("one without an id", asked(RECORD, {"input": graded() | {"eventId": None}})),
    ("one without variables", asked(RECORD)),
    ("one of the assignment's concepts", asked(RECORD, {"input": graded("e5", conceptIds=None)})),
    ("a batch", asked(RECORD_MANY, {"input": {"events": [graded("e6"), graded("e7", score=9)]}})),
    ("an empty batch", asked(RECORD_MANY, {"input": {"events": []}})),
    ("a void", asked(VOID, {"input": {"source": "lms", "eventId": "e1", "reason": "twice"}})),
    ("a query", asked(QUERY)),
    ("a chosen operation", asked(QUERY + " query Other { service { version } }", operationName="Other")),
    ("none chosen", asked(QUERY + " query Other { service { version } }")),
    ("a document that is wrong", asked("{ nope }")),
    ("a document that is broken", asked("{ service {")),
    ("a document by a hash that nobody knows", b'{"documentId": "sha256:00"}'),
    ("no JSON", b"{"),
    ("a key twice", b'{"query": "{ service { version } }", "query": ""}'),
    ("NUL", b'{"query": "{ service { version } }", "variables": {"a": "\\u0000"}}'),
    ("nothing", b""),
    ("too much", asked(QUERY, {"a": "x" * BODY_BYTES_MAX})),
]


@pytest.mark.feature("000-01", "003-36")
async def test_every_answer_is_the_same_by_the_lane_as_by_asgi(pair: Pair) -> None:
    def chunks(intake: Intake) -> list[bytes]:
        token = intake.token()
        return [*(post(token, body) for _, body in BODIES), last(token)]

    # All but the last, which closes, and what does not come in one piece.
    answers = await pair.alike(chunks, by_lane=len(BODIES) - 1)

    assert len(answers) == len(BODIES) + 1
    assert [answer.split(b" ", 2)[1] for answer in answers[:4]] == [b"200"] * 4
    assert pair.lane.direct is not None
    assert pair.lane.direct.straight == 3  # the event again, another under its name, and the one without an id


@pytest.mark.feature("000-01")
async def test_people_are_answered_alike_too(pair: Pair) -> None:
    def chunks(intake: Intake) -> list[bytes]:
        teacher, stranger = intake.token(Role.TEACHER, sub="t1"), intake.token(Role.TEACHER, sub="stranger")
        student, bound = intake.token(Role.STUDENT, sub="s1"), intake.token(sources=["other"])
        grade = asked(RECORD, {"input": by_teacher()})
        return [
            *(post(token, grade) for token in (teacher, stranger, student)),
            *(post(bound, asked(RECORD, {"input": graded()})), post("no token", grade), post("", grade)),
            last(teacher),
        ]

    answers = await pair.alike(chunks, by_lane=5)

    assert [answer.split(b" ", 2)[1] for answer in answers] == [b"200"] * 4 + [b"401"] * 2 + [b"200"]


HEADERS: list[tuple[str, Sequence[str], Sequence[str], int]] = [
    ("an id of the caller's", ["x-request-id: mine"], [], 1),
    ("an id that is none", ["x-request-id: a b"], [], 1),
    ("a trace", [f"traceparent: 00-{'1' * 32}-{'2' * 16}-01"], [], 1),
    ("names in capitals", ["X-Request-ID: Mine"], [], 1),
    ("the legacy type", ["accept: application/json"], ["accept"], 1),
    ("no accept", [], ["accept"], 1),
    ("another type", ["accept: text/html"], ["accept"], 0),
    ("a charset", ["content-type: application/json; charset=UTF-8"], ["content-type"], 1),
    ("another charset", ["content-type: application/json; charset=latin-1"], ["content-type"], 0),
    ("a form", ["content-type: text/plain"], ["content-type"], 0),
    ("no type", [], ["content-type"], 0),
    ("packed", ["content-encoding: gzip"], [], 0),
    ("no token", [], ["authorization"], 0),
    ("two tokens", ["authorization: Bearer other"], [], 0),
    ("an expectation", ["expect: 100-continue"], [], 0),
    ("an upgrade", ["connection: upgrade", "upgrade: h2c"], [], 0),
    ("kept alive by name", ["connection: keep-alive"], [], 1),
    ("a forwarded address", ["x-forwarded-for: 192.0.2.1"], [], 1),
]


@pytest.mark.feature("003-36")
async def test_headers_are_judged_alike(pair: Pair) -> None:
    for case, lines, without, by_lane in HEADERS:

        def chunks(intake: Intake, lines: Sequence[str] = lines, without: Sequence[str] = without) -> list[bytes]:
            request = post(intake.token(), asked(RECORD, {"input": graded()}), *lines, without=without)
            return [request, last(intake.token())]

        answers = await pair.alike(chunks, by_lane=by_lane)

        assert len(answers) >= 2, case


@pytest.mark.feature("003-36")
@pytest.mark.parametrize("value", ["close", "foo, CLOSE", "keep-alive, close"])
async def test_a_connection_ends_where_a_request_without_a_body_asks_for_it(pair: Pair, value: str) -> None:
    answers = await pair.alike(lambda intake: [post(intake.token(), b"", f"connection: {value}")], by_lane=0)

    assert [answer[9:12] for answer in answers] == [b"400"]


async def test_pieces_and_rows_of_requests_are_answered_in_order(pair: Pair) -> None:
    def events(intake: Intake) -> list[bytes]:
        return [post(intake.token(), asked(RECORD, {"input": graded(f"e{n}")})) for n in range(6)]

    def in_one(intake: Intake) -> list[bytes]:
        return [b"".join(events(intake)) + last(intake.token())]

    def in_halves(intake: Intake) -> list[bytes]:
        whole = b"".join(events(intake))
        return [whole[:40], whole[40:700], whole[700:], last(intake.token())]

    def body_later(intake: Intake) -> list[bytes]:
        first, second, *rest = events(intake)
        return [first[:-10], first[-10:] + second, *rest, last(intake.token())]

    def at_once(intake: Intake) -> list[bytes]:
        return [*events(intake), last(intake.token())]

    for requests in (in_one, in_halves, body_later, at_once):
        assert len(await pair.alike(requests, by_lane=None)) == 7


async def test_other_ways_to_end_a_connection_are_uvicorns(pair: Pair) -> None:
    body = asked(RECORD, {"input": graded()})

    def old(intake: Intake) -> list[bytes]:
        return [post(intake.token(), body, version="1.0")]

    def broken(intake: Intake) -> list[bytes]:
        return [post(intake.token(), body), b"no request at all\r\n\r\n"]

    def chunked(intake: Intake) -> list[bytes]:
        parts = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        head = post(intake.token(), b"", "transfer-encoding: chunked", without=["content-length"])
        return [head + parts, last(intake.token())]

    def elsewhere(intake: Intake) -> list[bytes]:
        token = intake.token()
        return [post(token, body).replace(b"/graphql", b"/other", 1), post(token, body), last(token)]

    def longer(intake: Intake) -> list[bytes]:
        return [post(intake.token(), body) + b"\r\n", post(intake.token(), body), last(intake.token())]

    def split(intake: Intake) -> list[bytes]:
        first, second = post(intake.token(), body), post(intake.token(), asked(QUERY))
        return [first + second[:30], second[30:] + first, last(intake.token())]

    assert len(await pair.alike(old, by_lane=0)) == 1
    assert [answer[9:12] for answer in await pair.alike(broken, by_lane=1)] == [b"200", b"400"]
    assert len(await pair.alike(chunked, by_lane=0)) == 2
    assert [answer[9:12] for answer in await pair.alike(elsewhere, by_lane=1)] == [b"404", b"200", b"200"]
    assert len(await pair.alike(longer, by_lane=1)) == 3
    assert len(await pair.alike(split, by_lane=None)) == 4


@pytest.mark.feature("003-32")
async def test_budgets_are_charged_alike(pool: Pool, live: Live, redis_url: str) -> None:
    async with (
        side_on(pool, live, redis_url, by_lane=False, budgets=True) as asgi,
        side_on(pool, live, redis_url, by_lane=True, budgets=True) as lane,
    ):

        def chunks(intake: Intake) -> list[bytes]:
            token = intake.token(Role.ADMIN, sub="boss")
            events = [post(token, asked(RECORD, {"input": by_teacher(eventId=f"e{n}")})) for n in range(103)]
            return [*events, post(token, asked("{ nope }")), *events[:1], last(token)]

        answers = await Pair(asgi, lane, pool).alike(chunks, by_lane=105)

        codes = [answer[9:12] for answer in answers]
        assert (codes.count(b"200"), codes.count(b"429"), codes.count(b"400")) == (100, 5, 1)
        assert all(b'"throttle"' in answer for answer in answers[:100])


@pytest.mark.feature("000-01")
async def test_an_answer_comes_after_the_commit_and_what_was_sent_meanwhile_after_it(
    pair: Pair, database_url: str
) -> None:
    assert pair.lane.direct is not None
    intake = await pair.tenant()
    token = intake.token()
    await pair.lane.sent(post(token, asked(RECORD, {"input": graded("known")})), last(token))  # document and token
    before = pair.lane.direct.straight
    async with connected(pair.lane.port) as (reader, writer):
        async with held(database_url, intake.district.tenant) as hold:
            writer.write(post(token, asked(RECORD, {"input": graded("e1")})))
            await hold.blocked()
            writer.write(post(token, asked(QUERY)) + last(token))

            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.05)
        answers = (await asyncio.wait_for(reader.read(), SECONDS_MAX)).split(b"HTTP/1.1 ")[1:]

    assert pair.lane.direct.straight - before == 1
    assert [b"ACCEPTED" in answer for answer in answers] == [True, False, False]
    assert [event[1] for event in await intake.log()] == ["known", "e1"]


async def test_who_leaves_before_the_commit_has_told_it_all_the_same(pair: Pair, database_url: str) -> None:
    intake = await pair.tenant()
    token = intake.token()
    await pair.lane.sent(post(token, asked(RECORD, {"input": graded("known")})), last(token))
    pair.lane.told.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", pair.lane.port)
    async with held(database_url, intake.district.tenant) as hold:
        writer.write(post(token, asked(RECORD, {"input": graded("e1")})))
        await hold.blocked()
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(SECONDS_MAX):
            while pair.lane.server.server_state.connections:  # noqa: ASYNC110 - uvicorn tells nobody
                await asyncio.sleep(0)
    async with asyncio.timeout(SECONDS_MAX):
        while not pair.lane.told:  # noqa: ASYNC110 - told beside the connection
            await asyncio.sleep(0)

    assert [event[1] for event in await intake.log()] == ["known", "e1"]
    assert pair.lane.told[0][-3:] == (200, [], "ok")


@pytest.mark.feature("003-33")
async def test_a_shutdown_answers_what_is_under_way_and_closes_the_connection(
    pool: Pool, live: Live, redis_url: str, database_url: str
) -> None:
    for by_lane in (False, True):
        async with side_on(pool, live, redis_url, by_lane=by_lane) as side:
            intake = await Pair(side, side, pool).tenant()
            token = intake.token()
            await side.sent(post(token, asked(RECORD, {"input": graded("known")})), last(token))
            async with connected(side.port) as (idle, _), connected(side.port) as (reader, writer):
                async with held(database_url, intake.district.tenant) as hold:
                    writer.write(post(token, asked(RECORD, {"input": graded("e1")})))
                    await hold.blocked()
                    side.server.should_exit = True
                    assert await asyncio.wait_for(idle.read(), SECONDS_MAX) == b""
                answer = await asyncio.wait_for(reader.read(), SECONDS_MAX)

            assert b"ACCEPTED" in answer, by_lane
            assert b"connection: close\r\n" in answer, by_lane
            assert [event[1] for event in await intake.log()] == ["known", "e1"]


async def test_at_a_shutdown_half_a_next_request_is_not_waited_for(
    pool: Pool, live: Live, redis_url: str, database_url: str
) -> None:
    answers = []
    for by_lane in (False, True):
        async with side_on(pool, live, redis_url, by_lane=by_lane) as side:
            intake = await Pair(side, side, pool).tenant()
            token = intake.token()
            await side.met(token)
            async with connected(side.port) as (idle, _), connected(side.port) as (reader, writer):
                async with held(database_url, intake.district.tenant) as hold:
                    writer.write(post(token, asked(RECORD, {"input": graded("e1")})))
                    await hold.blocked()
                    writer.write(post(token, asked(RECORD, {"input": graded("e2")}))[:40])
                    await side.sent(last(token))  # by then the half has come too
                    side.server.should_exit = True
                    assert await asyncio.wait_for(idle.read(), SECONDS_MAX) == b""
                answers.append(_UNLIKE.sub(b"~", await asyncio.wait_for(reader.read(), SECONDS_MAX)))

    assert answers[1] == answers[0]
    assert b"ACCEPTED" in answers[1]
    assert b"connection: close\r\n" in answers[1]


async def test_an_error_of_the_store_is_worded_alike(pair: Pair, database_url: str) -> None:
    answers = []
    for side in (pair.asgi, pair.lane):
        intake = await pair.tenant()
        token = intake.token()
        await side.sent(post(token, asked(RECORD, {"input": graded("known")})), last(token))
        side.told.clear()
        async with held(database_url, intake.district.tenant) as hold:
            event = post(token, asked(RECORD, {"input": graded("e1")}))
            sending = asyncio.create_task(side.sent(event, last(token)))
            first = await hold.blocked()
            await hold.kill(first)
            await hold.kill(await hold.blocked(but=[first]))  # the second try
            answers.append(_UNLIKE.sub(b"~", await sending))
    assert answers[0] == answers[1]
    assert b"UNAVAILABLE" in answers[0]
    assert pair.asgi.told == pair.lane.told


async def test_a_mistake_of_ours_is_500_and_ends_the_connection(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr("graph.http.ask_in", broken)
    monkeypatch.setattr("graph.direct.ask_in", broken)

    answers = await pair.alike(lambda intake: [post(intake.token(), asked(QUERY))], by_lane=1)

    assert [answer[9:12] for answer in answers] == [b"500"]
    assert [record.message.strip() for record in caplog.records] == ["Exception in ASGI application"] * 2


async def test_a_mistake_with_one_answer_is_no_others(pair: Pair, database_url: str) -> None:
    answers = []
    for side in (pair.asgi, pair.lane):
        intake = await pair.tenant()
        token = intake.token()
        await side.met(token)
        side.broken_at = "bad"
        async with held(database_url, intake.district.tenant) as hold:
            first = asyncio.create_task(one_event(side, token, "first"))
            await hold.blocked()
            behind = [asyncio.create_task(one_event(side, token, name)) for name in ("e1", "bad", "e2")]
            await side.sent(last(token))
        answers.append(await asyncio.gather(first, *behind))
        assert sorted(event[1] for event in await intake.log()) == ["bad", "e1", "e2", "first", "known"]

    assert [answer[9:12] for answer in answers[1]] == [b"200", b"200", b"500", b"200"]
    assert answers[1] == answers[0]
    assert pair.lane.places == 100


async def one_event(side: Side, token: str, name: str) -> bytes:
    """What comes back for an event on a connection of its own; all that differs by its moment left out."""
    async with connected(side.port) as (reader, writer), asyncio.timeout(SECONDS_MAX):
        writer.write(post(token, asked(RECORD, {"input": graded(name)})))
        return _UNLIKE.sub(b"~", await answer_on(reader))


async def test_a_mistake_with_one_that_is_stopped_is_no_others(pair: Pair, database_url: str) -> None:
    answers = []
    for side in (pair.asgi, pair.lane):
        intake = await pair.tenant()
        token = intake.token()
        await side.met(token)
        side.documents.seconds_max, side.broken_at = 0.3, "bad"
        async with held(database_url, intake.district.tenant):
            answers.append(await asyncio.gather(*(one_event(side, token, name) for name in ("bad", "e1", "e2"))))

    assert [answer[9:12] for answer in answers[1]] == [b"500", b"503", b"503"]
    assert answers[1] == answers[0]
    assert pair.lane.places == 100


async def test_an_answer_that_cannot_be_written_is_500(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    for side in (pair.asgi, pair.lane):
        token = (await pair.tenant()).token()
        await side.met(token)
        with monkeypatch.context() as broken:
            for module in ("graph.http", "graph.direct"):
                broken.setattr(f"{module}._encode", _broken)
            answers.append(await one_event(side, token, "e1"))

    assert [answer[9:12] for answer in answers] == [b"500"] * 2
    assert answers[1] == answers[0]
    assert pair.lane.told == pair.asgi.told
    assert pair.lane.places == 100


def _broken(*_arguments: Any, **_named: Any) -> Any:
    raise RuntimeError


@pytest.mark.parametrize("broken", ["db.recorder.Recorder.submit", "graph.gate.Gate.charge"])
async def test_a_mistake_on_the_way_in_gives_the_place_back(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    answers = []
    for side in (pair.asgi, pair.lane):
        token = (await pair.tenant()).token()
        await side.met(token)
        with monkeypatch.context() as during:
            during.setattr(broken, _broken)
            answers.append(await one_event(side, token, "e1"))
        assert b"ACCEPTED" in await one_event(side, token, "e2")
        assert side.places == 100

    assert answers[1] == answers[0]
    assert (b"INTERNAL" in answers[1]) == (broken == "db.recorder.Recorder.submit")


async def test_an_operation_that_takes_too_long_is_stopped(pair: Pair, database_url: str) -> None:
    answers = []
    for side in (pair.asgi, pair.lane):
        side.documents.seconds_max = 0.1
        intake = await pair.tenant()
        token = intake.token()
        async with held(database_url, intake.district.tenant):
            await side.sent(post(token, asked(RECORD, {"input": graded("first")})), last(token))
            side.told.clear()
            answers.append(await side.sent(post(token, asked(RECORD, {"input": graded("e1")})), last(token)))
    assert _UNLIKE.sub(b"~", answers[0]) == _UNLIKE.sub(b"~", answers[1])
    assert b"Stopped after 0.1 s" in answers[1]
    assert pair.asgi.told == pair.lane.told


async def test_a_peer_that_does_not_read_is_waited_for(pair: Pair) -> None:
    intake = await pair.tenant()
    token, many = intake.token(), [graded(f"e{n}") for n in range(300)]
    request = post(token, asked(RECORD_MANY, {"input": {"events": many}}))
    rounds = 60

    reader, writer = await asyncio.open_connection("127.0.0.1", pair.lane.port, limit=1024)
    sending = asyncio.create_task(_send(writer, [request] * rounds + [last(token)]))
    async with asyncio.timeout(60):
        connections: Any = pair.lane.server.server_state.connections
        while not any(one.flow.write_paused for one in list(connections)):  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0)
        answers = await reader.read()
    await sending
    writer.close()

    assert answers.count(b"HTTP/1.1 200") == rounds + 1
    assert answers.count(b'"status":"DUPLICATE"') == 300 * (rounds - 1)


async def _send(writer: asyncio.StreamWriter, requests: Sequence[bytes]) -> None:
    for request in requests:
        writer.write(request)
        await writer.drain()


@pytest.mark.feature("004-24")
async def test_nothing_of_one_callers_trace_reaches_anothers(
    pool: Pool, live: Live, redis_url: str, database_url: str
) -> None:
    async with station(pool, live, redis_url) as place:
        machine = place.token("lms", Role.INTEGRATOR, scopes=(Scope.INGEST,))
        teacher = place.token("teacher", Role.TEACHER)
        port, trace = int(place.address.rpartition(":")[2].partition("/")[0]), "1" * 32
        query = asked('query Q { classroom(id: "7b") { name } }')
        async with connected(port) as (traced, to_traced), connected(port) as (other, to_other):
            to_other.write(post(machine, asked(RECORD, {"input": graded("known")})))
            await answer_on(other)
            to_other.write(post(teacher, query))
            await answer_on(other)
            async with held(database_url, place.district.tenant) as hold:
                event = asked(RECORD, {"input": graded("e1")})
                to_traced.write(post(machine, event, f"traceparent: 00-{trace}-{'2' * 16}-01"))
                await hold.blocked()
                for request in (post(machine, asked(RECORD, {"input": graded("e2")})), post(teacher, query)):
                    to_other.write(request)
                    await place.post(teacher, QUERY)  # by then it has come too, in a read of its own
            answers = [await answer_on(one) for one in (traced, other, other)]

    assert [answer[9:12] for answer in answers] == [b"200"] * 3
    of_trace = sorted(span.name for span in place.spans if span.context and span.context.trace_id == int(trace, 16))
    assert of_trace == ["mutation recordEvent", "postgres write", "record batch"]


async def test_a_body_is_read_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    token, read = (await pair.tenant()).token(), []
    await pair.lane.met(token)

    def counted(raw: bytes) -> Any:
        read.append(raw)
        return ask_in(raw)

    monkeypatch.setattr("graph.direct.ask_in", counted)
    bodies = [asked(QUERY), asked(RECORD_MANY, {"input": {"events": [graded("e1")]}}), b"{"]
    await pair.lane.sent(*(post(token, body) for body in bodies), last(token).replace(b"connection: close\r\n", b""))

    assert read == [*bodies, asked(QUERY)]


async def test_while_no_place_is_free_nothing_is_begun(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    for side in (pair.asgi, pair.lane):
        token = (await pair.tenant()).token()
        await side.met(token)
        with monkeypatch.context() as during:
            during.setattr("graph.compiled.Mutation.begun", _broken)
            while side.gate.enter():
                pass
            answers.append(await one_event(side, token, "e1"))
        for _ in range(100):
            side.gate.leave()

    assert b"OVERLOADED" in answers[1]
    assert answers[1] == answers[0]


async def test_the_end_waits_for_answers_that_are_being_worded(
    pool: Pool, live: Live, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with side_on(pool, live, redis_url, by_lane=True) as side:
        assert side.direct is not None
        token = (await Pair(side, side, pool).tenant()).token()
        await side.met(token)
        words, begun, worded = asyncio.Event(), asyncio.Event(), side.documents.ended

        async def slowly(*arguments: Any) -> Any:
            begun.set()
            await words.wait()
            return await worded(*arguments)

        monkeypatch.setattr(side.documents, "ended", slowly)
        monkeypatch.setattr(side.recorder, "submit", _broken)
        asking = asyncio.create_task(one_event(side, token, "e1"))
        await begun.wait()
        closing = asyncio.create_task(side.direct.aclose())
        await asyncio.sleep(0)

        assert not closing.done()

        words.set()
        await closing
        assert b"INTERNAL" in await asking


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> Heads:
    monkeypatch.setattr("server.lane.HEADS_MAX", 2)
    return Heads(lambda token: token != "stranger")


def _is_kept(heads: Heads, head: bytes) -> bool:
    found = heads.of(head)
    assert found is not None
    return heads.of(head) is found


def test_heads_are_kept_from_their_second_sight_on_and_only_with_a_proven_token(heads: Heads) -> None:
    assert not _is_kept(heads, post("known", b""))
    assert _is_kept(heads, post("known", b""))
    assert [heads.of(post("known", b"", "connection: close")) for _ in range(2)] == [None, None]
    assert not any(_is_kept(heads, post("stranger", b"")) for _ in range(5))
    assert not any(_is_kept(heads, post("known", b"", "x-request-id: mine")) for _ in range(5))
    assert not any(_is_kept(heads, post("known", b"", "x-more: " + "x" * 5_000)) for _ in range(5))


def test_heads_that_come_once_push_none_out(heads: Heads) -> None:
    for _ in range(3):
        heads.of(post("known", b""))

    for number in range(10):
        heads.of(post("known", b"", f"x-amzn-trace-id: {number}"))

    assert _is_kept(heads, post("known", b""))


def test_no_head_is_kept_for_long(heads: Heads, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        found = heads.of(post("known", b""))
    monkeypatch.setattr("server.lane.HEADS_HOLD_SECONDS", -1.0)

    assert heads.of(post("known", b"")) is not found
