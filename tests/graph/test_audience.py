"""Audiences: what many hear is executed and written once, and nobody hears anything else than they would alone."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from random import Random
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from db.changes import CLASSROOM_POSITIONS
from db.live import Live, open_live
from db.pool import Pool
from graph.frames import Close, text_frame
from graph.hearing import Message
from graph.listening import likeness_of
from graph.socket import Socket, _Outlet
from rules.access import Role, Scope, Viewer
from rules.evidence import Kind, LearningEvent
from tests.graph.toy import heard, subscribe
from tests.rows.reading import CountingPool
from tests.support.events import graded
from tests.support.listening import (
    DOCUMENTS,
    EVENTS,
    MASTERY,
    NOW,
    RISK,
    Desk,
    Room,
    begun,
    open_desk,
    seated,
    served,
    standing_of,
)

NAMED = """subscription ($key: ID!, $after: String) { masteryChanged(classroomId: $key, after: $after) {
    kind resumeToken student { key displayName } mastery { concept { key } score } } }"""


@pytest_asyncio.fixture
async def desk(pool: Pool, live: Live) -> Desk:
    """A class with nothing recorded."""
    return await open_desk(pool, live)


@contextmanager
def counted(desk: Desk) -> Iterator[dict[str, int]]:
    """How many messages were executed and written for audiences, how often they were handed out, and the rest."""
    audiences, tally = desk.engine.audiences, DOCUMENTS.tally
    written, handed, executed = audiences.written, audiences.handed, tally.compiled + tally.reference
    found: dict[str, int] = {}
    yield found
    found["written"], found["handed"] = audiences.written - written, audiences.handed - handed
    found["executed"] = tally.compiled + tally.reference - executed


def assigned(student: str, number: int) -> LearningEvent:
    """One missing submission more."""
    fields: dict[str, Any] = {"kind": Kind.ASSIGNMENT_ASSIGNED, "ratio": None, "assignment": f"hw{number}"}
    return graded(f"a{number}-{student}", student, 0, concepts=(), **fields)


@pytest.mark.feature("003-43")
async def test_what_many_sockets_hear_is_executed_once_and_differs_in_the_id_alone(desk: Desk) -> None:
    async with served(desk) as connect, AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connect("teacher", Role.TEACHER)) for _ in range(4)]
        sockets += [await stack.enter_async_context(connect(f"admin{n}", Role.ADMIN)) for n in range(4)]
        for number, socket in enumerate(sockets):
            await subscribe(socket, f"op{number}", RISK, variables={"key": "7b"})
            await heard(socket)
        await seated(desk, 8)

        with counted(desk) as found:
            await desk.fold(assigned("s1", 1))
            frames = [[await socket.recv() for _ in range(4)] for socket in sockets]

    for number, own in enumerate(frames):
        assert [str(frame).replace(f'"op{number}"', '"op0"') for frame in own] == frames[0]
    assert str(frames[0][0]).startswith('{"id":"op0","type":"next","payload":{"data":{"riskFlagChanged":{')
    assert found == {"written": 4, "handed": 8 * 4, "executed": 4}


@pytest.mark.feature("003-43", "000-18")
async def test_a_document_that_shows_each_viewer_their_own_is_shared_within_a_scope_only(desk: Desk) -> None:
    await desk.district.put("person", person="s1", display_name="Ada")
    machine = desk.viewer("sis", Role.INTEGRATOR, scopes=frozenset({Scope.READ}))
    admins = [desk.viewer(f"admin{n}", Role.ADMIN) for n in range(2)]
    by = [*admins, desk.viewer("teacher", Role.TEACHER), desk.viewer("teacher", Role.TEACHER), machine, machine]
    listeners = [desk.share(NAMED, key="7b", by=viewer) for viewer in by]
    await begun(*listeners)
    await seated(desk, 6)

    with counted(desk) as found:
        await desk.fold(graded("e1", "s1", 0.55))
        messages = [await listener.message() for listener in listeners]

    names = [message["student"]["displayName"] for message in messages]
    assert names == ["Ada"] * 4 + [None] * 2  # a machine reads numbers, never names
    assert (found["written"], found["handed"]) == (3, 6)
    for listener in listeners:
        await listener.close()


def test_likeness_is_the_document_the_scope_and_every_variable_but_the_place() -> None:
    used_twice = NAMED.replace("displayName", "timeline(after: $after) { nodes { eventId } }")
    plain, named, twice = (DOCUMENTS.plan(document, None) for document in (MASTERY, NAMED, used_twice))
    admin, other, teacher = (
        Viewer(1, key, frozenset({role}), NOW)
        for key, role in (("a", Role.ADMIN), ("b", Role.ADMIN), ("t", Role.TEACHER))
    )

    assert likeness_of(plain, {"after": "1"}, admin) == likeness_of(plain, {"after": "2"}, teacher)
    assert likeness_of(named, {"key": "7b", "after": "1"}, admin) == likeness_of(named, {"key": "7b"}, other)
    assert likeness_of(named, {"key": "7b"}, admin) != likeness_of(named, {"key": "7b"}, teacher)
    assert likeness_of(named, {"key": "7b"}, admin) != likeness_of(named, {"key": "7b", "more": 1}, admin)
    assert likeness_of(twice, {"key": "7b", "after": "1"}, admin) != likeness_of(twice, {"key": "7b"}, admin)


@pytest.mark.feature("003-43", "X-29")
async def test_whoever_is_slow_or_comes_and_goes_hears_exactly_what_they_would_alone(desk: Desk) -> None:
    alone = desk.listen(EVENTS, key="7b")
    token = (await alone.message())["resumeToken"]
    dice = Random(7)
    total = 120

    async def hear(room: int) -> list[Any]:
        """Everything, cut and resumed now and then, with little room."""
        told: list[Any] = []
        after = token
        while len(told) < total:
            listener = desk.share(EVENTS, key="7b", after=after, room=Room(room))
            for _ in range(dice.randint(1, 40)):
                if len(told) == total:
                    break
                message = await listener.message(seconds_max=20)
                after = message["resumeToken"]
                told.append(message)
                for _ in range(dice.randint(0, 3)):
                    await asyncio.sleep(0)
            await listener.close()
        return told

    async def teach() -> None:
        for number in range(total // 4):
            await desk.record(*(graded(f"e{number}-{n}", "s1", 0.5) for n in range(4)))

    with counted(desk) as found:
        async with asyncio.TaskGroup() as group:
            hearing = [group.create_task(hear(room)) for room in (1, 1, 2, 5, 100, 100)]
            group.create_task(teach())
    expected = await alone.messages(total)

    for each in hearing:
        assert [_but_for_its_moment(message) for message in each.result()] == [_but_for_its_moment(m) for m in expected]
    assert found["handed"] > 0, "nothing was shared, so nothing was shown"
    await alone.close()


def _but_for_its_moment(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != "asOf"}


@pytest.mark.feature("003-43")
async def test_a_socket_that_reads_nothing_leaves_the_audience_and_reads_on_from_its_place(desk: Desk) -> None:
    # Two pages of the log at once, many times what the buffers hold.
    async with (
        served(desk, buffer_bytes=4096) as connect,
        connect("teacher", Role.TEACHER) as slow,
        connect("admin", Role.ADMIN) as fast,
    ):
        for socket in (slow, fast):
            await subscribe(socket, "1", EVENTS, variables={"key": "7b"})
            await heard(socket)
        await seated(desk, 2)
        names = [f"e{number}" for number in range(400)]

        for start in range(0, len(names), 100):
            await desk.record(*(graded(name, "s1", 0.5) for name in names[start : start + 100]))
        quick = [(await heard(fast))["payload"]["data"]["eventRecorded"] for _ in names]
        behind = [(await heard(slow))["payload"]["data"]["eventRecorded"] for _ in names]

    assert [message["activity"]["event"]["eventId"] for message in quick] == names
    assert [message["activity"]["event"]["eventId"] for message in behind] == names


@pytest.mark.feature("003-43", "X-29")
async def test_an_event_stream_hears_what_sockets_hear_and_resumes_by_its_last_id_or_by_after(desk: Desk) -> None:
    async with served(desk) as street, street("teacher", Role.TEACHER) as connection:
        await subscribe(connection, "1", RISK, variables={"key": "7b"})
        await heard(connection)
        async with street.events("admin", Role.ADMIN, RISK, key="7b") as stream:
            ready, message = await anext(stream)
            assert (message["kind"], message["resumeToken"]) == ("READY", ready)
            await seated(desk, 2)
            with counted(desk) as found:
                await desk.fold(assigned("s1", 1))
                told = [await anext(stream) for _ in range(4)]
                sent = [(await heard(connection))["payload"]["data"]["riskFlagChanged"] for _ in range(4)]
        (first, _), *rest = told
        async with street.events("admin", Role.ADMIN, RISK, first, key="7b") as stream:
            by_id = [await anext(stream) for _ in rest]
        async with street.events("admin", Role.ADMIN, RISK, key="7b", after=first) as stream:
            by_after = [await anext(stream) for _ in rest]

    assert [message for _, message in told] == sent
    assert [name for name, _ in told] == [message["resumeToken"] for message in sent]
    assert (found["written"], found["handed"]) == (4, 8)
    assert by_id == by_after
    assert [name for name, _ in by_id] == [name for name, _ in rest]


@pytest.mark.feature("000-18")
async def test_who_loses_the_right_hears_nothing_more_and_the_others_go_on(desk: Desk) -> None:
    teacher, *admins = listeners = [
        desk.share(RISK, key="7b", by=desk.viewer(key, role))
        for key, role in (("teacher", Role.TEACHER), ("a1", Role.ADMIN), ("a2", Role.ADMIN))
    ]
    await begun(*listeners)
    await seated(desk, 3)

    await desk.district.run("update enrollment set ended = $2 where tenant = $1 and role = 'TEACHER'", NOW.date())
    desk.seconds.now += 2.1
    await desk.fold(assigned("s1", 1))

    assert await teacher.refusal() == "FORBIDDEN"
    for admin in admins:
        assert [m["transition"]["change"] for m in await admin.messages(4)] == ["RAISED"] * 4
        await admin.close()


@pytest.mark.feature("000-18")
async def test_who_sits_and_hears_nothing_is_judged_all_the_same(desk: Desk) -> None:
    listeners = [desk.share(RISK, key="7b") for _ in range(2)]
    await begun(*listeners)
    await seated(desk, 2)

    await desk.district.run("update enrollment set ended = $2 where tenant = $1 and role = 'TEACHER'", NOW.date())
    desk.seconds.now += 5.0

    assert [await listener.refusal() for listener in listeners] == ["FORBIDDEN"] * 2


@pytest.mark.feature("003-43")
async def test_an_audience_ends_with_its_last_listener(desk: Desk) -> None:
    listeners = [desk.share(RISK, key="7b") for _ in range(3)]
    await begun(*listeners)
    await seated(desk, 3)

    for listener in listeners:
        await listener.close()

    audiences = desk.engine.audiences
    assert (audiences.seated, len(audiences)) == (0, 0)


@pytest.mark.feature("003-43", "X-29")
async def test_many_classes_that_move_at_once_are_read_together_and_each_is_told(desk: Desk) -> None:
    classes = [f"class-{number:03}" for number in range(120)]
    for key in classes:
        await desk.district.classroom(key)
        await desk.district.enroll("s1", key)
    admin = desk.viewer("admin", Role.ADMIN)
    listeners = {
        key: [desk.share(MASTERY, key=key, by=admin) for _ in range(1 + place % 2)] for place, key in enumerate(classes)
    }
    await begun(*(listener for group in listeners.values() for listener in group))
    await seated(desk, 120)

    for round_no in range(3):
        await desk.fold(*(graded(f"e{round_no}-{key}", "s1", 0.5, classroom=key, at=round_no) for key in classes))
        for key, group in listeners.items():
            for listener in group:
                assert standing_of(await listener.message()) == ("s1", key, round_no + 1)

    for group in listeners.values():
        for listener in group:
            await listener.close()


@pytest.mark.feature("000-18", "003-43")
async def test_a_round_that_fails_is_not_the_last_one(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners = [desk.share(RISK, key="7b") for _ in range(2)]
    await begun(*listeners)
    await seated(desk, 2)
    failing = asyncio.Event()

    async def fail(*_arguments: object) -> Any:
        failing.set()
        raise asyncpg.QueryCanceledError("a statement took too long")

    with monkeypatch.context() as broken, caplog.at_level("ERROR"):
        broken.setattr("db.visibility.followers_of_classrooms", fail)
        desk.seconds.now += 5.0
        await asyncio.wait_for(failing.wait(), 5)
    await desk.district.run("update enrollment set ended = $2 where tenant = $1 and role = 'TEACHER'", NOW.date())
    desk.seconds.now += 5.0

    assert [await listener.refusal() for listener in listeners] == ["FORBIDDEN"] * 2
    assert "rights_unread type=QueryCanceledError" in caplog.text


@pytest.mark.feature("003-43")
async def test_who_listens_alone_sits_too_and_classes_that_move_together_cost_one_reading(desk: Desk) -> None:
    counted = CountingPool(desk.pool)
    desk.engine = replace(desk.engine, pool=counted)
    classes = [f"class-{number:02}" for number in range(20)]
    for key in classes:
        await desk.district.classroom(key)
        await desk.district.enroll("s1", key)
    admin = desk.viewer("admin", Role.ADMIN)
    listeners = [desk.share(MASTERY, key=key, by=admin) for key in classes]
    await begun(*listeners)
    await seated(desk, 20)
    counted.asked.clear()

    desk.live.ring([(desk.mill.tenant, "classroom", key) for key in classes])
    async with asyncio.timeout(10):
        while not counted.asked[CLASSROOM_POSITIONS]:  # noqa: ASYNC110 - a statement rings no bell
            await asyncio.sleep(0.01)
    readings = counted.asked[CLASSROOM_POSITIONS]
    await desk.fold(*(graded(f"e-{key}", "s1", 0.5, classroom=key) for key in classes))
    messages = [await listener.message() for listener in listeners]

    assert [standing_of(message) for message in messages] == [("s1", key, 1) for key in classes]
    assert readings <= 2  # and what a round of the patrol may add
    for listener in listeners:
        await listener.close()


@pytest.mark.feature("003-43", "X-29")
async def test_an_id_that_is_used_again_at_once_hears_nothing_of_its_first_subscription(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An audience hands out between `complete` and the end of the subscription's task, of which `subscribe` follows."""
    handed: list[tuple[_Outlet, Message]] = []
    offering, subscribing = _Outlet.offer, Socket._subscribe

    def offer(outlet: _Outlet, message: Message) -> bool:
        handed.append((outlet, message))
        return offering(outlet, message)

    async def begin_again(socket: Socket, *given: Any) -> None:
        await subscribing(socket, *given)
        if handed:
            offering(*handed[0])

    monkeypatch.setattr(_Outlet, "offer", offer)
    monkeypatch.setattr(Socket, "_subscribe", begin_again)
    async with served(desk) as street, street("teacher", Role.TEACHER) as connection:
        await subscribe(connection, "1", EVENTS, variables={"key": "7b"})
        kinds = [(await heard(connection))["payload"]["data"]["eventRecorded"]["kind"]]
        await seated(desk, 1)
        await desk.record(graded("e1", "s1", 0.5))
        kinds.append((await heard(connection))["payload"]["data"]["eventRecorded"]["kind"])
        await connection.send('{"id": "1", "type": "complete"}')
        await subscribe(connection, "1", EVENTS, variables={"key": "7b"})
        kinds.append((await heard(connection))["payload"]["data"]["eventRecorded"]["kind"])
        await seated(desk, 1)
        await desk.record(graded("e2", "s1", 0.5, at=1))
        again = await heard(connection)

    assert kinds == ["READY", "CHANGE", "READY"]
    assert again["payload"]["data"]["eventRecorded"]["activity"]["event"]["eventId"] == "e2"


@pytest.mark.feature("003-43", "000-18")
async def test_an_audience_that_cannot_be_read_for_fails_for_each_and_the_next_subscription_is_served(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners = [desk.share(MASTERY, key="7b") for _ in range(2)]
    await begun(*listeners)
    await seated(desk, 2)

    def fail(*_arguments: object, **_named: object) -> Any:
        raise asyncpg.DataError("a row that nobody can read")

    with monkeypatch.context() as broken:
        broken.setattr("db.changes.freshness_of", fail)
        await desk.fold(graded("e1", "s1", 0.5))
        codes = [await listener.refusal() for listener in listeners]

    assert codes == ["INTERNAL"] * 2
    again = desk.share(MASTERY, key="7b")
    assert standing_of(await again.message()) == ("s1", "7b", 1)
    await again.close()


@pytest.mark.feature("003-43")
async def test_a_peer_without_room_is_offered_nothing_and_one_that_is_closing_neither(desk: Desk) -> None:
    async with served(desk) as connect, connect("teacher", Role.TEACHER) as connection:
        (open_one,) = connect.sockets.open
        assert isinstance(open_one, Socket)
        frame = text_frame(b'{"type":"pong"}')

        is_sent = open_one.offer(frame)
        answer = await heard(connection)
        open_one.close(Close.RESTARTING, "bye")
        is_sent_after = open_one.offer(frame)

    assert (is_sent, answer, is_sent_after) == (True, {"type": "pong"}, False)


@pytest.mark.feature("003-43", "X-29")
@pytest.mark.parametrize("document", [MASTERY, EVENTS, RISK], ids=["mastery", "events", "flags"])
async def test_who_sits_hears_what_a_lost_message_hid(pool: Pool, redis_url: str, document: str) -> None:
    deaf = open_live(redis_url)
    desk = await open_desk(pool, deaf)
    listeners = [desk.share(document, key="7b") for _ in range(2)]
    await begun(*listeners)
    await seated(desk, 2)

    await desk.fold(assigned("s1", 1), graded("e1", "s1", 0.5))
    first = [await listener.message() for listener in listeners]
    for listener in listeners:
        await listener.close()
    await deaf.aclose()

    assert first[0]["kind"] == "CHANGE"
    assert first[0]["resumeToken"] == first[1]["resumeToken"]
