"""GraphQL over Server-Sent Events: every event and every end of a stream, byte for byte, over real connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest

from graph import events, listening
from graph.frames import Close
from rules.access import Role
from tests.graph.toy import PUPILS_DATA, Toy, served, token

ENDLESS = "subscription { ticks(upto: 0) }"


@pytest.fixture(scope="module")
async def house() -> AsyncIterator[Toy]:
    async with served() as running:
        yield running


@pytest.fixture
async def toy(house: Toy) -> AsyncIterator[Toy]:
    yield house
    await house.sockets.wait_until_open(0)
    house.stage.reset()


@asynccontextmanager
async def stream(
    toy: Toy, query: str, variables: Any = None, *, credential: str | None = None, **headers: str
) -> AsyncIterator[httpx.Response]:
    """Ask for events; the response's body is still to come."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    fixed = {"authorization": f"Bearer {credential or token()}", "accept": "text/event-stream"}
    body = {"query": query, "variables": variables}
    async with toy.http.stream("POST", "/graphql", json=body, headers={**fixed, **named}) as response:
        yield response


async def whole(toy: Toy, query: str, variables: Any = None, **more: Any) -> str:
    """All that comes until the stream ends."""
    async with stream(toy, query, variables, **more) as response:
        assert response.status_code == 200
        return (await response.aread()).decode()


def told(text: str) -> list[Any]:
    """The data of each `next`, and that each is one."""
    blocks = [block for block in text.split("\n\n") if block not in ("", ":")]
    assert blocks[-1] == "event: complete\ndata:"
    for block in blocks[:-1]:
        assert block.startswith("event: next\ndata: "), block
    return [msgspec.json.decode(block.removeprefix("event: next\ndata: ")) for block in blocks[:-1]]


@pytest.mark.feature("003-24")
async def test_a_subscription_is_told_event_by_event_and_completes(toy: Toy) -> None:
    async with stream(toy, "subscription ($n: Int!) { ticks(upto: $n) }", {"n": 2}, x_request_id="r1") as response:
        text = (await response.aread()).decode()

    assert text == (
        ":\n\n"
        'event: next\ndata: {"data":{"ticks":0}}\n\n'
        'event: next\ndata: {"data":{"ticks":1}}\n\n'
        "event: complete\ndata:\n\n"
    )
    wanted = ("content-type", "cache-control", "x-accel-buffering", "x-content-type-options", "x-request-id")
    assert [response.headers[name] for name in wanted] == [
        "text/event-stream; charset=utf-8", "no-store", "no", "nosniff", "r1"
    ]  # fmt: skip


async def test_get_asks_too_and_a_query_is_one_event(toy: Toy) -> None:
    headers = {"authorization": f"Bearer {token()}", "accept": "text/event-stream"}
    answer = await toy.http.get("/graphql", params={"query": '{ echo(text: "a\\nb") }'}, headers=headers)

    assert told(answer.text) == [{"data": {"echo": "a\nb"}}]


@pytest.mark.parametrize(
    ("query", "variables", "code"),
    [
        ("{ echo", None, "GRAPHQL_PARSE_FAILED"),
        ("subscription { nope }", None, "GRAPHQL_VALIDATION_FAILED"),
        ("subscription($n: Int!) { ticks(upto: $n) }", {"n": "x"}, "BAD_INPUT"),
        ("", None, "BAD_INPUT"),
        ("query($t: String!) { echo(text: $t) }", {"t": "\0"}, "BAD_INPUT"),
        ('mutation { rename(name: "x") }', None, "BAD_INPUT"),
        ("subscription { adminTicks }", None, "FORBIDDEN"),
        ("{ echo }" + " " * 300_000, None, "TOO_LARGE"),
    ],
)
async def test_what_is_wrong_with_an_operation_is_told_as_an_event(
    toy: Toy, query: str, variables: Any, code: str
) -> None:
    (answer,) = told(await whole(toy, query, variables))

    assert "data" not in answer
    assert answer["errors"][0]["extensions"]["code"] == code


@pytest.mark.parametrize(
    ("query", "code"), [("subscription { withdrawn }", "FORBIDDEN"), ("subscription { crashing }", "INTERNAL")]
)
async def test_an_end_in_mid_stream_is_told_with_its_code(toy: Toy, query: str, code: str) -> None:
    first, last = told(await whole(toy, query))

    assert first["data"]
    assert last["errors"][0]["extensions"]["code"] == code
    assert PUPILS_DATA not in str(last)


@pytest.mark.parametrize("accept", ["text/event-stream;q=0, application/json", "text/event-stream, application/json"])
async def test_who_names_json_gets_json(toy: Toy, accept: str) -> None:
    answer = await toy.post("{ echo }", accept=accept)

    assert (answer.headers["content-type"], answer.json()) == (
        "application/json; charset=utf-8",
        {"data": {"echo": ""}},
    )


@pytest.mark.feature("003-30")
@pytest.mark.parametrize("credential", ["x", token(life=timedelta(minutes=-1))])
async def test_a_bad_or_expired_credential_is_401_before_anything_else(toy: Toy, credential: str) -> None:
    async with stream(toy, ENDLESS, credential=credential) as response:
        answer = msgspec.json.decode(await response.aread())

    assert (response.status_code, answer["errors"][0]["extensions"]["code"]) == (401, "UNAUTHENTICATED")
    assert "www-authenticate" in response.headers


async def test_other_requests_that_http_refuses_are_refused(toy: Toy) -> None:
    async with stream(toy, ENDLESS, content_type="text/plain") as response:
        assert response.status_code == 415


@pytest.mark.feature("003-30", "C10")
async def test_a_token_that_expires_ends_the_stream_with_its_code(toy: Toy) -> None:
    (last,) = told(await whole(toy, ENDLESS, credential=token(life=timedelta(seconds=1))))

    assert last["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert toy.stage.running == 0


async def test_a_client_that_leaves_stops_the_source(toy: Toy) -> None:
    async with stream(toy, ENDLESS):
        await toy.stage.arrived.wait()
        assert toy.stage.running == 1

    await toy.sockets.wait_until_open(0)
    assert toy.stage.running == 0


async def test_a_silent_stream_is_kept_open_by_heartbeats(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.01)
    async with stream(toy, ENDLESS) as response:
        beats = b""
        async for part in response.aiter_raw():
            beats += part
            if len(beats) >= 12:
                break

    assert beats.startswith(b":\n\n:\n\n:\n\n:\n\n")


@pytest.mark.feature("003-43")
async def test_event_streams_and_sockets_of_one_viewer_count_together(toy: Toy) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(toy.session())
        for _ in range(3):
            response = await stack.enter_async_context(stream(toy, ENDLESS))
            assert response.status_code == 200
        async with stream(toy, ENDLESS) as refused:
            answer = msgspec.json.decode(await refused.aread())
        async with stream(toy, "{ echo }", credential=token(sub="someone else")) as other:
            assert other.status_code == 200

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert answer["errors"][0]["extensions"]["code"] == "RATE_LIMITED"
    await toy.sockets.wait_until_open(0)
    assert told(await whole(toy, "{ echo }")) == [{"data": {"echo": ""}}]


async def test_a_logout_ends_the_stream_with_its_code(toy: Toy) -> None:
    async with stream(toy, ENDLESS) as response:
        await toy.stage.arrived.wait()
        toy.sockets.close_viewer(1, "t1", Close.UNAUTHORIZED, "Logged out")
        (last,) = told((await response.aread()).decode())

    assert last["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


@pytest.mark.feature("000-10")
async def test_at_shutdown_a_stream_ends_whole_and_without_complete_so_that_clients_come_back() -> None:
    async with served() as toy, stream(toy, ENDLESS) as response:
        await toy.stage.arrived.wait()
        shutting = asyncio.create_task(toy.sockets.shut())

        assert await response.aread() == b":\n\n"
        await shutting
        assert toy.stage.running == 0


async def test_a_peer_that_does_not_read_stops_the_source_and_is_let_go(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "BLOCKED_SECONDS_MAX", 0.2)
    monkeypatch.setattr(events, "FAREWELL_SECONDS_MAX", 0.05)
    async with stream(toy, "subscription { big }"):
        await toy.sockets.wait_until_open(0)
        pulled = toy.stage.pulled

    assert 0 < pulled < 500  # 64 KiB each: what the kernel's buffers hold, and no more


async def test_roles_of_the_token_hold_on_a_stream(toy: Toy) -> None:
    assert told(await whole(toy, "subscription { adminTicks }", credential=token(Role.ADMIN))) == [
        {"data": {"adminTicks": 1}}
    ]


def test_a_send_that_would_wait_is_called_off_before_it_does_anything() -> None:
    room, written = asyncio.Event(), []

    async def send(part: str) -> None:
        await room.wait()
        written.append(part)

    async def fail() -> None:
        raise OSError

    async def both() -> list[bool]:
        blocked = listening.sent_at_once(send("a"))
        room.set()
        return [blocked, listening.sent_at_once(send("b")), listening.sent_at_once(fail())]

    assert asyncio.run(both()) == [False, True, False]
    assert written == ["b"]
