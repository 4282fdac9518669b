"""graphql-transport-ws: every message and close code of the protocol, over real sockets."""

import asyncio
import logging
import socket as tcp
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from graph import socket as graph_socket
from graph import sockets as graph_sockets
from rules.access import Role
from server.serving import UVICORN, listen
from tests.graph.toy import PUPILS_DATA, Toy, heard, served, subscribe, tell, token


@pytest.fixture(scope="module")
async def house() -> AsyncIterator[Toy]:
    async with served() as running:
        yield running


@pytest.fixture
async def toy(house: Toy) -> AsyncIterator[Toy]:
    yield house
    await house.sockets.wait_until_open(0)
    house.stage.reset()


async def closed(socket: ClientConnection) -> int:
    """The code that the server closes with, after whatever else it says."""
    try:
        while True:
            await socket.recv()
    except ConnectionClosed as end:
        return end.rcvd.code if end.rcvd else 1006


def asking(query: str = "subscription { ticks(upto: 0) }", **payload: Any) -> dict[str, Any]:
    return {"id": "1", "type": "subscribe", "payload": {"query": query, **payload}}


async def test_a_subscription_answers_each_event_and_completes(toy: Toy) -> None:
    async with toy.session() as socket:
        await subscribe(socket, "1", "subscription Ask($n: Int!) { ticks(upto: $n) }", variables={"n": 2})

        assert [await heard(socket) for _ in range(3)] == [
            {"id": "1", "type": "next", "payload": {"data": {"ticks": 0}}},
            {"id": "1", "type": "next", "payload": {"data": {"ticks": 1}}},
            {"id": "1", "type": "complete"},
        ]


async def test_a_query_is_answered_and_a_mutation_refused(toy: Toy) -> None:
    async with toy.session() as socket:
        await subscribe(socket, "q", '{ echo(text: "hi") }')
        assert await heard(socket) == {"id": "q", "type": "next", "payload": {"data": {"echo": "hi"}}}
        assert await heard(socket) == {"id": "q", "type": "complete"}

        await subscribe(socket, "q", 'mutation { rename(name: "x") }')
        refused = await heard(socket)
        assert (refused["type"], refused["payload"][0]["extensions"]["code"]) == ("error", "BAD_INPUT")


@pytest.mark.parametrize(
    ("query", "variables", "code"),
    [
        ("{ echo", None, "GRAPHQL_PARSE_FAILED"),
        ("subscription { nope }", None, "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { ticks } query Q { echo }", None, "BAD_INPUT"),
        ("subscription($n: Int!) { ticks(upto: $n) }", {"n": "x"}, "BAD_INPUT"),
        ("query($t: String!) { echo(text: $t) }", {"t": "\0"}, "BAD_INPUT"),
        ("subscription { adminTicks }", None, "FORBIDDEN"),
    ],
)
async def test_a_wrong_operation_ends_alone(toy: Toy, query: str, variables: Any, code: str) -> None:
    async with toy.session() as socket:
        await subscribe(socket, "bad", query, variables=variables)
        got = await heard(socket)
        assert (got["id"], got["type"], got["payload"][0]["extensions"]["code"]) == ("bad", "error", code)

        await subscribe(socket, "bad", "{ echo }")
        assert (await heard(socket))["payload"] == {"data": {"echo": ""}}


async def test_a_right_withdrawn_in_mid_stream_ends_the_operation(toy: Toy) -> None:
    async with toy.session() as socket:
        await subscribe(socket, "1", "subscription { withdrawn }")
        assert (await heard(socket))["payload"] == {"data": {"withdrawn": 1}}
        got = await heard(socket)
        assert (got["type"], got["payload"]) == (
            "error", [{"message": "You may no longer see this.", "extensions": {"code": "FORBIDDEN"}}])  # fmt: skip


async def test_a_crash_in_mid_stream_is_masked(toy: Toy, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        async with toy.session() as socket:
            await subscribe(socket, "1", "subscription { crashing }")
            await heard(socket)
            got = await heard(socket)

    assert (got["type"], got["payload"][0]["message"]) == ("error", "Internal error")
    assert PUPILS_DATA not in caplog.text + str(got)


async def test_completing_an_operation_stops_its_source_and_frees_its_id(toy: Toy) -> None:
    async with toy.session() as socket:
        await tell(socket, **asking())
        await toy.stage.arrived.wait()
        assert toy.stage.running == 1

        await tell(socket, id="1", type="complete")
        await tell(socket, id="unknown", type="complete")
        await toy.stage.stopped.wait()
        assert toy.stage.running == 0

        await subscribe(socket, "1", "{ echo }")
        assert (await heard(socket))["type"] == "next"


async def test_a_lost_peer_stops_its_sources(toy: Toy) -> None:
    async with toy.session() as socket:
        await tell(socket, **asking())
        await toy.stage.arrived.wait()
        socket.transport.abort()

    await toy.sockets.wait_until_open(0)
    assert toy.stage.running == 0


async def test_a_ping_is_answered_with_its_payload_at_any_time(toy: Toy) -> None:
    async with toy.connect() as socket:
        await tell(socket, type="ping")
        await tell(socket, type="pong", payload={"a": 1})
        await tell(socket, type="ping", payload={"at": 1})

        assert [await heard(socket), await heard(socket)] == [{"type": "pong"}, {"type": "pong", "payload": {"at": 1}}]


BAD_MESSAGES: dict[str, str | bytes] = {
    "nothing": "",
    "no JSON": "hello",
    "a list": "[]",
    "a number": "1",
    "a string": '"x"',
    "null": "null",
    "a deep list": "[" * 50_000,
    "a lone surrogate": '{"type": "ping", "payload": {"a": "\\ud800"}}',
    "a key twice": '{"type": "ping", "type": "pong"}',
    "a binary frame": b'{"type": "ping"}',
    "no type": "{}",
    "an unknown type": '{"type": "start"}',
    "a type that is a list": '{"type": []}',
    "a message of servers": '{"type": "connection_ack"}',
    "an answer": '{"type": "next", "id": "1", "payload": {}}',
    "a payload of ping that is a string": '{"type": "ping", "payload": "x"}',
    "a payload of pong that is a list": '{"type": "pong", "payload": []}',
    "a payload of init that is a number": '{"type": "connection_init", "payload": 1}',
    "complete without id": '{"type": "complete"}',
    "complete with an object": '{"type": "complete", "id": {}}',
    "subscribe without id": '{"type": "subscribe", "payload": {"query": "{ echo }"}}',
    "subscribe with an empty id": '{"type": "subscribe", "id": "", "payload": {"query": "{ echo }"}}',
    "subscribe with a number": '{"type": "subscribe", "id": 1, "payload": {"query": "{ echo }"}}',
    "subscribe with a long id": '{"type": "subscribe", "id": "%s", "payload": {"query": "{ echo }"}}' % ("x" * 129),
    "subscribe without payload": '{"type": "subscribe", "id": "1"}',
    "subscribe with null": '{"type": "subscribe", "id": "1", "payload": null}',
    "subscribe with a string": '{"type": "subscribe", "id": "1", "payload": "x"}',
    "subscribe without query": '{"type": "subscribe", "id": "1", "payload": {}}',
    "a query that is a number": '{"type": "subscribe", "id": "1", "payload": {"query": 1}}',
    "a name that is a number": '{"type": "subscribe", "id": "1", "payload": {"query": "{a}", "operationName": 1}}',
    "variables that are a list": '{"type": "subscribe", "id": "1", "payload": {"query": "{a}", "variables": []}}',
    "extensions that are a string": '{"type": "subscribe", "id": "1", "payload": {"query": "{a}", "extensions": "x"}}',
    "300 KiB": '{"type": "ping", "payload": {"a": "%s"}}' % ("x" * 300_000),
}


@pytest.mark.parametrize("is_initialised", [False, True])
async def test_a_message_of_any_wrong_shape_closes_with_4400(toy: Toy, is_initialised: bool) -> None:
    for case, message in BAD_MESSAGES.items():
        async with toy.session() if is_initialised else toy.connect() as socket:
            await socket.send(message)
            assert await closed(socket) == 4400, case
    async with toy.session():
        pass  # and the house still stands


@pytest.mark.parametrize("payload", [None, {}, {"authorization": None}, {"authorization": 1}, {"authorization": "x"},
                                     {"authorization": "Bearer x.y.z"}, {"authorization": "Basic x"}])  # fmt: skip
async def test_a_bad_credential_closes_with_4401(toy: Toy, payload: Any) -> None:
    async with toy.connect() as socket:
        await tell(socket, type="connection_init", payload=payload)
        assert await closed(socket) == 4401


async def test_a_client_that_can_set_headers_may_authenticate_with_one(toy: Toy) -> None:
    async with toy.connect(additional_headers={"authorization": f"Bearer {token()}"}) as socket:
        await tell(socket, type="connection_init")
        assert await heard(socket) == {"type": "connection_ack"}


async def test_an_expired_token_closes_with_4403_so_that_clients_renew_it(toy: Toy) -> None:
    async with toy.connect() as socket:
        expired = token(life=timedelta(minutes=-1))
        await tell(socket, type="connection_init", payload={"authorization": f"Bearer {expired}"})
        assert await closed(socket) == 4403


async def test_a_token_that_expires_on_an_open_socket_closes_it_with_4403(toy: Toy) -> None:
    async with toy.connect() as socket:
        nearly = token(life=timedelta(seconds=1))
        await tell(socket, type="connection_init", payload={"authorization": f"Bearer {nearly}"})
        await heard(socket)
        await tell(socket, **asking())
        await toy.stage.arrived.wait()

        assert await closed(socket) == 4403
    await toy.sockets.wait_until_open(0)
    assert toy.stage.running == 0


async def renew(socket: ClientConnection, credential: Any, name: str = "authorization") -> Any:
    """Send a fresh credential and hear what came of it."""
    await tell(socket, type="ping", payload={name: credential})
    return await heard(socket)


@pytest.mark.feature("003-30", "C10")
async def test_a_token_renewed_on_an_open_socket_lets_its_stream_run_on(toy: Toy) -> None:
    nearly = {"authorization": f"Bearer {token(life=timedelta(seconds=1))}"}
    async with toy.connect() as renewed, toy.connect() as left:
        for socket in (renewed, left):
            await tell(socket, type="connection_init", payload=nearly)
            await heard(socket)
        await tell(renewed, **asking())
        await toy.stage.arrived.wait()

        answer = await renew(renewed, f"Bearer {token(life=timedelta(hours=2))}", "Authorization")
        assert await closed(left) == 4403  # by now the first token of both has expired

        assert answer == {"type": "pong", "payload": {"authorized": True, "expiresAt": "2026-03-01T11:30:00Z"}}
        assert toy.stage.running == 1
        await subscribe(renewed, "2", "{ echo }")
        assert (await heard(renewed))["payload"] == {"data": {"echo": ""}}


@pytest.mark.feature("003-30", "C10")
async def test_a_credential_that_came_too_late_is_told_and_the_present_one_holds(toy: Toy) -> None:
    async with toy.session() as socket:
        answer = await renew(socket, f"Bearer {token(life=timedelta(minutes=-1))}")
        await subscribe(socket, "1", "{ echo }")

        told = {"authorized": False, "code": "UNAUTHENTICATED", "expiresAt": "2026-03-01T10:30:00Z"}
        assert answer == {"type": "pong", "payload": told}
        assert (await heard(socket))["payload"] == {"data": {"echo": ""}}


@pytest.mark.feature("003-30", "C10")
@pytest.mark.parametrize(
    "credential",
    [
        "", 1, "x", "Bearer x.y.z", {"a": 1},
        f"Bearer {token(sub='somebody else')}", f"Bearer {token(Role.ADMIN)}",
        f"Bearer {token(Role.TEACHER, Role.ADMIN)}",
    ],
)  # fmt: skip
async def test_a_bad_credential_or_that_of_another_viewer_ends_the_socket_with_4401(toy: Toy, credential: Any) -> None:
    async with toy.session() as socket:
        await tell(socket, **asking())
        await toy.stage.arrived.wait()
        await tell(socket, type="ping", payload={"authorization": credential})
        assert await closed(socket) == 4401
    await toy.sockets.wait_until_open(0)
    assert toy.stage.running == 0


async def test_a_credential_before_init_closes_with_4401_and_is_not_sent_back(toy: Toy) -> None:
    async with toy.connect() as socket:
        await tell(socket, type="ping", payload={"authorization": f"Bearer {token()}"})
        with pytest.raises(ConnectionClosed) as end:
            await heard(socket)
        assert end.value.rcvd is not None
        assert end.value.rcvd.code == 4401


async def test_subscribing_before_init_closes_with_4401(toy: Toy) -> None:
    async with toy.connect() as socket:
        await tell(socket, **asking("{ echo }"))
        assert await closed(socket) == 4401


async def test_silence_before_init_closes_with_4408(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_socket, "INIT_SECONDS_MAX", 0.05)
    async with toy.connect() as socket:
        assert await closed(socket) == 4408


async def test_an_id_in_use_closes_with_4409(toy: Toy) -> None:
    async with toy.session() as socket:
        await tell(socket, **asking())
        await tell(socket, **asking())
        assert await closed(socket) == 4409


async def test_a_second_init_closes_with_4429(toy: Toy) -> None:
    async with toy.session() as socket:
        await tell(socket, type="connection_init")
        assert await closed(socket) == 4429


@pytest.mark.parametrize("protocol", [None, "graphql-ws", "graphql-transport-ws2"])
async def test_another_subprotocol_closes_with_4406(toy: Toy, protocol: str | None) -> None:
    async with toy.connect(protocol=protocol) as socket:
        assert socket.subprotocol is None
        assert await closed(socket) == 4406


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://ok.example.evil.example", "https://ok.example:444"]
)
async def test_a_page_of_a_foreign_site_gets_no_socket(toy: Toy, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with toy.connect(origin=origin):
            pass
    assert refused.value.response.status_code == 403


async def test_pages_of_this_site_and_of_allowed_ones_get_a_socket(toy: Toy) -> None:
    for origin in ("https://ok.example", toy.url):
        async with toy.session(origin=origin):
            pass


async def test_the_seventeenth_operation_is_refused_alone(toy: Toy) -> None:
    async with toy.session() as socket:
        for number in range(17):
            await subscribe(socket, str(number), "subscription { ticks(upto: 0) }")
        got = await heard(socket)
        assert (got["id"], got["payload"][0]["extensions"]["code"]) == ("16", "RATE_LIMITED")


async def test_the_ninth_socket_of_one_viewer_is_asked_to_come_back(toy: Toy) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(toy.session())
        async with toy.connect() as socket:
            await tell(socket, type="connection_init", payload={"authorization": f"Bearer {token()}"})
            assert await closed(socket) == 1013
        async with toy.session(sub="someone else"):
            pass
    await toy.sockets.wait_until_open(0)
    async with toy.session():
        pass


async def test_at_shutdown_every_socket_is_closed_with_1012() -> None:
    async with served() as toy, toy.session() as first, toy.connect() as second:
        await tell(first, **asking())
        await toy.stage.arrived.wait()

        shutting = asyncio.create_task(toy.sockets.shut())

        assert [await closed(first), await closed(second)] == [1012, 1012]
        await shutting
        assert toy.stage.running == 0


async def test_a_peer_that_does_not_read_stops_the_source_and_is_let_go(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_socket, "BLOCKED_SECONDS_MAX", 0.2)
    monkeypatch.setattr(graph_socket, "FAREWELL_SECONDS_MAX", 0.05)
    async with toy.session(max_queue=1) as socket:
        await subscribe(socket, "1", "subscription { big }")
        await toy.sockets.wait_until_open(0)
        pulled = toy.stage.pulled
        socket.transport.abort()

    assert pulled < 500  # 64 KiB each: what the kernel's buffers hold, and no more


async def test_roles_of_the_token_hold_on_a_socket(toy: Toy) -> None:
    async with toy.session(Role.ADMIN) as socket:
        await subscribe(socket, "1", "subscription { adminTicks }")
        assert (await heard(socket))["payload"] == {"data": {"adminTicks": 1}}


async def test_each_operation_and_each_event_has_loaders_of_its_own(toy: Toy) -> None:
    async with toy.session() as socket:
        for operation_id in ("1", "2"):
            await subscribe(socket, operation_id, "{ a: visits b: visits }")
            assert (await heard(socket))["payload"] == {"data": {"a": 1, "b": 2}}
            await heard(socket)

        await subscribe(socket, "3", "subscription { visitors { a: visits b: visits } }")
        events = [(await heard(socket))["payload"] for _ in range(2)]

    assert events == [{"data": {"visitors": {"a": 1, "b": 2}}}] * 2


async def test_no_socket_lives_for_ever_and_its_client_comes_back(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_sockets, "SOCKET_SECONDS_MAX", 0.2)
    async with toy.session() as socket:
        await tell(socket, **asking())
        await toy.stage.arrived.wait()

        assert await closed(socket) == 1012
    await toy.sockets.wait_until_open(0)
    assert toy.stage.running == 0


async def test_a_bug_of_ours_closes_with_1013_and_never_with_1011(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_operation: Any) -> None:
        raise RuntimeError("a counter that cannot count")

    monkeypatch.setattr(toy.sockets, "tell", broken)
    async with toy.session() as socket:
        await subscribe(socket, "1", "{ echo }")

        assert await closed(socket) == 1013


def test_the_kernel_drops_a_peer_that_acknowledges_nothing_and_uvicorn_never_closes_with_1011() -> None:
    """Half-open peers: pings make traffic, which a dead peer does not acknowledge."""
    listener = listen("127.0.0.1", 0)
    try:
        deadline = listener.getsockopt(tcp.IPPROTO_TCP, tcp.TCP_USER_TIMEOUT)
    finally:
        listener.close()

    assert deadline == 40_000
    assert (UVICORN["ws_ping_interval"], UVICORN["ws_ping_timeout"]) == (20, None)
