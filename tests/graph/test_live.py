"""The subscriptions on real Postgres and Valkey: pushed, resumed without a gap, and ended with the right to them."""

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from db.live import Live, open_live
from db.many_changes import MANY_RISK_CHANGES
from db.pool import Pool
from rules.access import Role, Scope
from rules.evidence import Kind, LearningEvent
from tests.graph.toy import heard, subscribe, tell
from tests.rows.reading import CountingPool
from tests.support.events import graded, void
from tests.support.listening import DASHBOARD, EVENTS, MASTERY, NOW, RISK, Desk, Listener, open_desk, served

STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "risk": (RISK, {"key": "7b"}),
    "mastery of a class": (MASTERY, {"key": "7b"}),
    "mastery of a student": (MASTERY, {"student": "s1"}),
    "dashboard": (DASHBOARD, {"key": "7b"}),
    "events": (EVENTS, {"key": "7b"}),
}
EVERY_STREAM = pytest.mark.parametrize(("document", "subject"), STREAMS.values(), ids=STREAMS)


@pytest_asyncio.fixture
async def desk(pool: Pool, live: Live) -> Desk:
    """A class with nothing recorded."""
    return await open_desk(pool, live)


@pytest_asyncio.fixture
async def deaf_desk(pool: Pool, redis_url: str) -> AsyncIterator[Desk]:
    """A process that hears no message: Redis lost them all."""
    deaf = open_live(redis_url)
    yield await open_desk(pool, deaf)
    await deaf.aclose()


def assigned(student: str, number: int) -> LearningEvent:
    """An assignment without a due date: one missing submission more."""
    fields: dict[str, Any] = {"kind": Kind.ASSIGNMENT_ASSIGNED, "ratio": None, "assignment": f"hw{number}"}
    return graded(f"a{number}-{student}", student, 0, concepts=(), **fields)


def standing(message: Any) -> tuple[Any, ...]:
    """A mastery message in one line."""
    mastery = message["mastery"]
    keys = (message["studentId"], mastery["classroomId"], mastery["concept"]["key"])
    return (message["kind"], *keys, mastery["score"], mastery["state"])


def forged(token: str, **changes: Any) -> str:
    """A token with some of its values replaced, by name."""
    names = ["version", "subscription", "tenant", "kind", "key", "epoch", "no", "snapshot"]
    values = msgspec.json.decode(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    for name, value in changes.items():
        values[names.index(name)] = value
    return urlsafe_b64encode(msgspec.json.encode(values)).rstrip(b"=").decode()


async def consent(desk: Desk) -> None:
    """Let "parent" follow s1."""
    await desk.district.put("guardian_link", guardian="parent", student="s1", consent_at=NOW - timedelta(days=1))


async def quiet(listener: Listener) -> None:
    """Nothing more comes."""
    with pytest.raises(TimeoutError):
        await listener.message(seconds_max=0.3)


async def start(listener: Listener) -> str:
    """Read up to READY (or the dashboard's snapshot) and return the token to resume from."""
    while True:
        message = await listener.message()
        if message["kind"] == "READY" or "dashboard" in message:
            token: str = message["resumeToken"]
            return token


@pytest.mark.feature("000-14", "003-40", "X-29")
async def test_every_flag_transition_is_pushed_once_and_in_order(desk: Desk) -> None:
    listener = desk.listen(RISK, key="7b")
    ready = await listener.message()

    await desk.fold(assigned("s1", 1))
    await desk.fold(assigned("s1", 2))

    heard = await listener.messages(4 + 1)
    assert (ready["kind"], ready["transition"]) == ("READY", None)
    # All three have been inactive since the term began, 55 days ago.
    assert [
        (m["kind"], m["transition"]["change"], m["transition"]["studentId"], m["transition"]["reason"])
        for m in heard
    ] == [
        ("CHANGE", "RAISED", "s1", "INACTIVE"),
        ("CHANGE", "RAISED", "s1", "MISSING_SUBMISSIONS"),
        ("CHANGE", "RAISED", "s2", "INACTIVE"),
        ("CHANGE", "RAISED", "s3", "INACTIVE"),
        ("CHANGE", "SEVERITY_CHANGED", "s1", "MISSING_SUBMISSIONS"),
    ]  # fmt: skip
    last = heard[-1]["transition"]
    assert (last["severity"], last["earlier"], last["overall"], last["at"]) == (
        "MEDIUM", "LOW", "HIGH", "2026-03-03T09:00:00Z"
    )  # fmt: skip
    assert {"name": "NEVER_SUBMITTED", "value": 2.0} in last["evidence"]["numbers"]
    await listener.close()


@pytest.mark.feature("000-12", "X-29")
async def test_mastery_of_a_class_begins_with_a_snapshot_and_goes_on_with_changes(desk: Desk) -> None:
    await desk.fold(graded("e1", "s1", 0.55), graded("e2", "s2", 0.8))
    listener = desk.listen(MASTERY, key="7b")

    snapshot = await listener.messages(3)
    await desk.fold(graded("e3", "s2", 1.0, at=5))

    assert [standing(message) for message in snapshot[:2]] == [
        ("SNAPSHOT", "s1", "7b", "fractions", 0.55, "LOW_EVIDENCE"),
        ("SNAPSHOT", "s2", "7b", "fractions", 0.8, "LOW_EVIDENCE"),
    ]
    assert (snapshot[2]["kind"], snapshot[2]["mastery"]) == ("READY", None)
    assert standing(await listener.message()) == ("CHANGE", "s2", "7b", "fractions", 0.93, "LOW_EVIDENCE")
    await listener.close()


@pytest.mark.feature("000-12")
async def test_mastery_of_a_student_brings_the_view_over_all_classes_and_that_of_each_class(desk: Desk) -> None:
    student = desk.viewer("s1", Role.STUDENT)
    listener = desk.listen(MASTERY, student="s1", by=student)
    await start(listener)

    await desk.fold(graded("e1", "s1", 0.55), graded("e2", "s2", 0.8))

    assert [standing(message) for message in await listener.messages(2)] == [
        ("CHANGE", "s1", None, "fractions", 0.55, "LOW_EVIDENCE"),
        ("CHANGE", "s1", "7b", "fractions", 0.55, "LOW_EVIDENCE"),
    ]
    await listener.close()


@pytest.mark.feature("X-01", "X-29")
async def test_a_standing_whose_evidence_was_voided_is_told_as_no_data_and_is_in_no_snapshot(desk: Desk) -> None:
    only = graded("e1", "s1", 0.55)
    await desk.fold(only)
    listener = desk.listen(MASTERY, key="7b")
    await start(listener)

    await desk.fold(void("v1", only))

    assert standing(await listener.message()) == ("CHANGE", "s1", "7b", "fractions", None, "NO_DATA")
    assert [m["kind"] for m in await desk.listen(MASTERY, key="7b").messages(1)] == ["READY"]
    await listener.close()


@pytest.mark.feature("000-17", "X-29")
async def test_the_dashboard_is_sent_whole_and_again_when_it_changes(desk: Desk) -> None:
    listener = desk.listen(DASHBOARD, key="7b")
    first = await listener.message()

    await desk.fold(assigned("s1", 1), graded("e1", "s1", 0.5, assignment="hw1", at=5))

    second = await listener.message()
    assert (first["kind"], first["dashboard"]["averageScore"]) == ("SNAPSHOT", None)
    assert (second["kind"], second["dashboard"]["averageScore"]) == ("CHANGE", 0.5)
    assert [n["event"]["eventId"] for n in second["dashboard"]["recentActivity"]["nodes"]] == ["e1", "a1-s1"]
    assert int(second["asOf"]["seq"]) > int(first["asOf"]["seq"])
    await listener.close()


@pytest.mark.feature("000-17")
async def test_an_event_is_pushed_when_it_is_recorded_before_it_is_folded(desk: Desk) -> None:
    listener = desk.listen(EVENTS, key="7b")
    token = await start(listener)
    event = graded("e1", "s1", 0.55)

    await desk.record(event, graded("x1", "s1", 0.5, classroom="8a"), graded("g1", "ghost", 0.5))
    await desk.record(graded("e2", "s2", 0.8))

    heard = [m["activity"] for m in await listener.messages(2)]
    assert [(a["studentId"], a["event"]["eventId"], a["event"]["effect"]) for a in heard] == [
        ("s1", "e1", "EFFECTIVE"), ("s2", "e2", "EFFECTIVE")
    ]  # fmt: skip
    await listener.close()

    await desk.record(void("v1", event))
    again = desk.listen(EVENTS, key="7b", after=token)
    assert (await again.message())["activity"]["event"]["effect"] == "VOIDED"
    await again.close()


@pytest.mark.feature("X-29")
async def test_a_client_that_comes_back_hears_exactly_what_it_missed_while_events_go_on(desk: Desk) -> None:
    token = await start(desk.listen(RISK, key="7b"))
    told: list[tuple[Any, ...]] = []

    async def teach() -> None:
        for number in range(12):
            await desk.fold(assigned("s1", number), assigned("s2", number))
            await desk.fold(*(graded(f"g{number}-{s}", s, 0.5, assignment=f"hw{number}") for s in ("s1", "s2")))

    teaching = asyncio.create_task(teach())
    while True:
        listener = desk.listen(RISK, key="7b", after=token)
        try:
            for _ in range(3):  # the connection breaks after every third message
                message = await listener.message(seconds_max=1.5)
                token = message["resumeToken"]
                change = message["transition"]
                told.append((change["studentId"], change["reason"], change["change"], change["severity"]))
        except TimeoutError:
            if teaching.done():
                break
        finally:
            await listener.close()
    await teaching

    severities = {None: None, 1: "LOW", 2: "MEDIUM", 3: "HIGH"}
    stored = await desk.mill.rows(
        "select student, reason, change, severity from risk_change where tenant = $1 order by no"
    )
    assert len(stored) > 20
    assert told == [(s, r, c, severities[severity]) for s, r, c, severity in stored]


@pytest.mark.feature("X-29")
async def test_a_snapshot_larger_than_a_page_is_whole_also_when_it_is_cut_and_resumed(desk: Desk) -> None:
    concepts = [f"c{number:03}" for number in range(500)]
    await desk.fold(*(graded(f"e{c}", "s1", 0.5, concepts=(c,), assignment=None) for c in concepts))
    token: str | None = None
    heard: list[tuple[Any, ...]] = []

    for _ in range(2):
        listener = desk.listen(MASTERY, key="7b", after=token)
        for message in await listener.messages(230):
            heard.append(standing(message)[:4:3])
        token = message["resumeToken"]
        await listener.close()
    listener = desk.listen(MASTERY, key="7b", after=token)
    rest = await listener.messages(41)

    heard += [standing(message)[:4:3] for message in rest[:40]]
    assert heard == [("SNAPSHOT", concept) for concept in concepts]
    assert rest[40]["kind"] == "READY"
    await listener.close()


@EVERY_STREAM
@pytest.mark.feature("X-29")
async def test_a_message_lost_by_redis_costs_a_moment_and_no_change(
    deaf_desk: Desk, document: str, subject: dict[str, Any]
) -> None:
    listener = deaf_desk.listen(document, **subject)
    await start(listener)

    await deaf_desk.fold(assigned("s1", 1), graded("e1", "s1", 0.55))

    assert (await listener.message(seconds_max=3.0))["kind"] == "CHANGE"
    await listener.close()


@EVERY_STREAM
@pytest.mark.feature("X-29")
async def test_after_a_token_nothing_is_repeated(desk: Desk, document: str, subject: dict[str, Any]) -> None:
    await desk.fold(assigned("s1", 1), graded("e1", "s1", 0.55))
    token = await start(desk.listen(document, **subject))
    await desk.fold(assigned("s1", 2), graded("e2", "s1", 0.8, at=5))
    first = desk.listen(document, **subject, after=token)
    heard = []
    with suppress(TimeoutError):
        while True:
            heard.append((await first.message(seconds_max=0.3))["resumeToken"])

    for place, each in enumerate(heard):
        again = desk.listen(document, **subject, after=each)
        rest = await again.messages(len(heard) - place - 1)
        assert [message["resumeToken"] for message in rest] == heard[place + 1 :]
        await quiet(again)
    assert heard


@EVERY_STREAM
@pytest.mark.feature("X-29")
async def test_a_token_of_an_earlier_life_or_from_the_future_gets_one_resync_and_a_good_token(
    desk: Desk, document: str, subject: dict[str, Any]
) -> None:
    await desk.fold(assigned("s1", 1), graded("e1", "s1", 0.55))
    token = await start(desk.listen(document, **subject))

    for stale in (forged(token, epoch=0), forged(token, no=10**12)):
        listener = desk.listen(document, **subject, after=stale)
        assert (await listener.message())["kind"] == "RESYNC"
        await listener.close()
    listener = desk.listen(document, **subject, after=forged(token, epoch=0))
    resync = await listener.message()
    await desk.fold(assigned("s1", 2), graded("e2", "s1", 0.8, at=5))
    assert (await listener.message())["kind"] == "CHANGE"
    await listener.close()
    resumed = desk.listen(document, **subject, after=resync["resumeToken"])
    assert (await resumed.message())["kind"] == "CHANGE"
    await resumed.close()


@pytest.mark.feature("X-29")
async def test_transitions_that_are_kept_no_more_get_a_resync(desk: Desk) -> None:
    token = await start(desk.listen(RISK, key="7b"))
    await desk.fold(assigned("s1", 1))
    listener = desk.listen(RISK, key="7b", after=token)
    second = (await listener.messages(2))[1]["resumeToken"]
    await listener.close()

    await desk.district.run("delete from risk_change where tenant = $1 and no <= 2")

    lost, kept = desk.listen(RISK, key="7b", after=token), desk.listen(RISK, key="7b", after=second)
    assert (await lost.message())["kind"] == "RESYNC"
    assert (await kept.message())["transition"]["studentId"] == "s2"
    await lost.close()
    await kept.close()


@EVERY_STREAM
@pytest.mark.feature("X-29")
async def test_a_token_of_another_stream_subject_or_tenant_is_bad_input(
    desk: Desk, document: str, subject: dict[str, Any]
) -> None:
    token = await start(desk.listen(document, **subject))
    wrong = [
        forged(token, subscription="somethingElse"), forged(token, key="8a"), forged(token, tenant=1),
        forged(token, version=9), forged(token, no=-1), forged(token, no="1"), token + "A", token[:-1], "", "é", "%%%",
        "A" * 5_000,
    ]  # fmt: skip

    codes = [await desk.listen(document, **subject, after=each).refusal() for each in wrong]

    assert codes == ["BAD_INPUT"] * len(wrong)


@pytest.mark.feature("X-29")
async def test_mastery_is_of_a_student_or_of_a_class(desk: Desk) -> None:
    assert await desk.listen(MASTERY).refusal() == "BAD_INPUT"
    assert await desk.listen(MASTERY, key="7b", student="s1").refusal() == "BAD_INPUT"


@EVERY_STREAM
@pytest.mark.feature("000-17", "000-18")
async def test_a_class_of_others_is_refused_like_one_that_does_not_exist(
    desk: Desk, pool: Pool, live: Live, document: str, subject: dict[str, Any]
) -> None:
    other = await open_desk(pool, live)
    await other.fold(graded("e1", "s1", 0.55))
    await desk.district.classroom("8a")
    await desk.district.enroll("s9", "8a")
    foreign: dict[str, Any] = {"key": "8a"} if "key" in subject else {"student": "s9"}
    unknown: dict[str, Any] = dict.fromkeys(subject, "nobody")

    answers = [await desk.listen(document, **s).answer() for s in (foreign, unknown)]
    by_others = [
        await desk.listen(document, **subject, by=other.viewer("teacher", Role.TEACHER)).answer(),
    ]

    assert answers[0] == answers[1]
    assert answers[0].errors[0]["extensions"]["code"] == "FORBIDDEN"
    # The other district's teacher reads the other district's class of the same key, never ours.
    assert by_others[0].errors == ()


@pytest.mark.feature("000-14", "000-17", "000-18")
async def test_who_may_listen_to_what(desk: Desk) -> None:
    await consent(desk)
    people = {
        "student": desk.viewer("s1", Role.STUDENT),
        "guardian": desk.viewer("parent", Role.GUARDIAN),
        "teacher": desk.viewer("teacher", Role.TEACHER),
        "admin": desk.viewer("admin", Role.ADMIN),
        "machine": desk.viewer("sis", Role.INTEGRATOR, scopes=frozenset({Scope.READ})),
        "ingester": desk.viewer("lms", Role.INTEGRATOR, scopes=frozenset({Scope.INGEST})),
    }

    admitted = {}
    for name, (document, subject) in STREAMS.items():
        answers = {who: await desk.listen(document, by=v, **subject).answer() for who, v in people.items()}
        admitted[name] = {who for who, answer in answers.items() if not answer.errors}
        assert all(a.errors[0]["extensions"]["code"] == "FORBIDDEN" for a in answers.values() if a.errors)

    staff = {"teacher", "admin"}
    assert admitted == {
        "risk": staff | {"machine"},
        "mastery of a class": staff | {"machine"},
        "mastery of a student": staff | {"machine", "student", "guardian"},
        "dashboard": staff,
        "events": staff,
    }


@EVERY_STREAM
@pytest.mark.feature("000-18", "003-40")
async def test_a_teacher_who_leaves_the_class_is_told_nothing_more(
    desk: Desk, document: str, subject: dict[str, Any]
) -> None:
    listener = desk.listen(document, **subject)
    await start(listener)

    await desk.district.run("update enrollment set ended = $2 where tenant = $1 and role = 'TEACHER'", NOW.date())
    desk.seconds.now += 2.1
    await desk.fold(assigned("s1", 1), graded("e1", "s1", 0.55))

    assert await listener.refusal() == "FORBIDDEN"


@pytest.mark.feature("000-18")
async def test_a_guardian_whose_consent_ends_is_told_nothing_more_also_while_nothing_happens(desk: Desk) -> None:
    await consent(desk)
    listener = desk.listen(MASTERY, student="s1", by=desk.viewer("parent", Role.GUARDIAN))
    await start(listener)

    await desk.district.run("update guardian_link set revoked_at = $2 where tenant = $1", NOW - timedelta(hours=1))
    desk.seconds.now += 5.0

    assert await listener.refusal() == "FORBIDDEN"


@pytest.mark.feature("003-43")
async def test_listeners_of_one_class_share_its_reads_and_a_slow_one_misses_nothing(desk: Desk) -> None:
    counted = CountingPool(desk.pool)
    desk.engine = replace(desk.engine, pool=counted)
    slow, *fast = [desk.listen(RISK, key="7b") for _ in range(20)]
    for listener in (slow, *fast):
        await start(listener)
    counted.asked.clear()

    waiting = [asyncio.create_task(listener.messages(4)) for listener in fast]
    await desk.fold(assigned("s1", 1))
    alike = await asyncio.gather(*waiting)
    reads = counted.asked[MANY_RISK_CHANGES]
    await desk.fold(assigned("s1", 2))
    late = await slow.messages(5)

    assert all(messages == alike[0] for messages in alike)
    assert 1 <= reads <= 3  # one for those who waited; those who had not come to wait yet, and a slow check, add theirs
    assert [m["transition"]["change"] for m in late] == ["RAISED"] * 4 + ["SEVERITY_CHANGED"]
    for listener in (slow, *fast):
        await listener.close()


@pytest.mark.feature("003-40", "003-24")
async def test_over_a_real_socket_an_event_reaches_its_subscribers(desk: Desk) -> None:
    async with served(desk) as connect, connect("teacher", Role.TEACHER) as socket:
        for name, (document, subject) in STREAMS.items():
            await subscribe(socket, name, document, variables=subject)
        first = {(m["id"], _kind(m)) for m in [await heard(socket) for _ in STREAMS]}

        await desk.fold(assigned("s1", 1), graded("e1", "s1", 0.55))

        changed: set[tuple[str, str]] = set()
        async with asyncio.timeout(5):
            while len(changed) < len(STREAMS):
                message = await heard(socket)
                assert message["type"] == "next"
                changed.add((message["id"], _kind(message)))
    assert first == {(name, "SNAPSHOT" if name == "dashboard" else "READY") for name in STREAMS}
    assert changed == {(name, "CHANGE") for name in STREAMS}


@pytest.mark.feature("000-18")
async def test_over_a_real_socket_a_lost_right_ends_that_stream_and_not_the_socket(desk: Desk) -> None:
    async with served(desk) as connect, connect("teacher", Role.TEACHER) as socket:
        await subscribe(socket, "risk", RISK, variables={"key": "7b"})
        await heard(socket)

        await desk.district.run("update enrollment set ended = $2 where tenant = $1 and role = 'TEACHER'", NOW.date())
        desk.seconds.now += 2.1
        await desk.fold(assigned("s1", 1))

        message = await heard(socket)
        assert (message["id"], message["type"]) == ("risk", "error")
        assert message["payload"][0]["extensions"]["code"] == "FORBIDDEN"
        await tell(socket, type="ping")
        assert await heard(socket) == {"type": "pong"}


def _kind(message: Any) -> str:
    (payload,) = message["payload"]["data"].values()
    kind: str = payload["kind"]
    return kind
