"""Law 5: a snapshot and the changes pushed after it are the snapshot asked again, however often a client is cut off."""

import asyncio
from base64 import urlsafe_b64decode
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from db.live import Live
from db.pool import Pool
from rules.evidence import Kind, LearningEvent
from tests.support.events import graded, void
from tests.support.listening import DASHBOARD, EVENTS, MASTERY, RISK, Desk, Room, open_desk

STUDENTS = ("s1", "s2")
GLANCE_SECONDS = 0.04  # how long a client stays when nothing comes; wherever it is cut off, the law holds

NEWEST_OF_CLASS = """
select class_change, student, concept from standing where tenant = $1 and classroom = '7b'
order by 1 desc, 2 desc, 3 desc limit 1"""
NEWEST_OF_STUDENT = """
select student_change, classroom, concept from standing where tenant = $1 and student = 's1'
order by 1 desc, 2 desc, 3 desc limit 1"""

# What happens: work is assigned, graded, voided; all in batches, folded together or one by one; a day passes.
happenings = st.one_of(
    st.tuples(st.just("assign"), st.sampled_from(STUDENTS), st.integers(1, 3)),
    st.tuples(st.just("grade"), st.sampled_from(STUDENTS), st.integers(1, 3), st.integers(0, 10), st.integers(0, 50)),
    st.tuples(st.just("void"), st.integers(0, 20)),
)
batches = st.lists(happenings, min_size=1, max_size=5)
# In each round some clients listen for a while, to so many messages, while batches are recorded and folded; several
# folds in one sitting and cuts within one change are where a token can go wrong.
rounds = st.lists(
    st.tuples(
        st.lists(batches, min_size=1, max_size=3),
        st.booleans(),  # whether each batch is folded at once
        st.integers(0, 9),  # days that pass after them
        st.dictionaries(st.integers(0, 4), st.integers(1, 6), max_size=5),  # messages heard, by client
    ),
    min_size=1,
    max_size=6,
)


@dataclass
class Client:
    """Somebody who keeps what one stream tells, and is cut off again and again."""

    document: str
    subject: dict[str, Any]
    newest: str  # reads the place of the newest change
    token: str | None = None
    state: dict[Any, Any] = field(default_factory=dict)
    heard: list[Any] = field(default_factory=list)

    async def glance(self, desk: Desk, *, at_most: int) -> None:
        """Resume, hear some messages, and lose the connection."""
        # Not alone, and with little room: it hears by itself and with the other, in turns, as its place has it.
        other = desk.share(self.document, **self.subject, after=self.token)
        hearing = asyncio.ensure_future(other.answer())
        listener = desk.share(self.document, **self.subject, after=self.token, room=Room(2))
        with suppress(TimeoutError):
            for _ in range(at_most):
                self._keep(await listener.message(seconds_max=GLANCE_SECONDS))
        await listener.close()
        hearing.cancel()
        await asyncio.wait({hearing})
        await other.close()

    async def start(self, desk: Desk) -> None:
        """Hear the first message."""
        listener = desk.listen(self.document, **self.subject)
        self._keep(await listener.message())
        await listener.close()

    async def catch_up(self, desk: Desk) -> None:
        """Resume, and hear everything up to the newest change."""
        (newest,) = await desk.mill.rows(self.newest) or [(0,)]
        goal = (newest[0], 0, *newest[1:]) if len(newest) > 1 else (newest[0] or 0, 1)
        listener = desk.listen(self.document, **self.subject, after=self.token)
        while self.token is None or place_of(self.token) < goal:
            self._keep(await listener.message())
        await listener.close()

    def _keep(self, message: dict[str, Any]) -> None:
        assert message["kind"] != "RESYNC"
        if self.token is not None:
            assert place_of(message["resumeToken"]) > place_of(self.token), "a token went back, or stood still"
        self.token = message["resumeToken"]
        if mastery := message.get("mastery"):
            self.state[message["studentId"], mastery["classroomId"], mastery["concept"]["key"]] = mastery
        elif dashboard := message.get("dashboard"):
            self.state = dashboard
        elif message["kind"] == "CHANGE":
            self.heard.append(message.get("transition") or message["activity"])

    @property
    def standings(self) -> dict[Any, Any]:
        """What the client shows: concepts without evidence are not there."""
        return {key: mastery for key, mastery in self.state.items() if mastery["state"] != "NO_DATA"}


def place_of(token: str) -> tuple[Any, ...]:
    """Where a token stands; a whole change is after each of its parts."""
    _, _, _, _, _, _, no, _, *place = msgspec.json.decode(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    return (no, 0, *place) if place else (no, 1)


@dataclass
class World:
    """What was recorded, so that it can be voided."""

    desk: Desk
    events: list[LearningEvent] = field(default_factory=list)

    def event(self, happening: tuple[Any, ...]) -> LearningEvent | None:
        """Make a happening an event."""
        name = f"e{len(self.events)}"
        match happening:
            case ("assign", student, item):
                kind = Kind.ASSIGNMENT_ASSIGNED
                made = graded(name, student, 0, kind=kind, ratio=None, concepts=(), assignment=f"hw{item}")
            case ("grade", student, item, tenths, minute):
                concepts = ("fractions",) if item == 1 else ("fractions", "decimals")
                made = graded(name, student, tenths / 10, assignment=f"hw{item}", at=minute, concepts=concepts)
            case ("void", index) if self.events:
                made = void(name, self.events[index % len(self.events)])
            case _:
                return None
        self.events.append(made)
        return made

    async def teach(self, batches: list[list[tuple[Any, ...]]], *, is_folded: bool, days: int) -> None:
        """Record batches, fold them now or later, and let days pass."""
        for happenings in batches:
            made = [event for happening in happenings if (event := self.event(happening))]
            if made:
                await self.desk.record(*made)
            if is_folded:
                await self.desk.mill.fold()
        if days:
            self.desk.mill.clock.now += timedelta(days=days)
            await self.desk.mill.drain.classroom(self.desk.mill.tenant, "7b")


@pytest.mark.feature("X-29", "000-12", "000-14", "000-17")
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(script=rounds)
@example(
    script=[([[("grade", "s1", 2, 5, 1)]], True, 0, {}), ([[("assign", "s1", 1)]], False, 0, {1: 1, 2: 1})]
)  # cut in a change
async def test_snapshot_and_changes_are_the_snapshot_asked_again(pool: Pool, live: Live, script: list[Any]) -> None:
    desk = await open_desk(pool, live, students=STUDENTS)
    world = World(desk)
    risk, of_class, of_student, board, log = clients = (
        Client(RISK, {"key": "7b"}, "select risk_no from classroom_state where tenant = $1"),
        Client(MASTERY, {"key": "7b"}, NEWEST_OF_CLASS),
        Client(MASTERY, {"student": "s1"}, NEWEST_OF_STUDENT),
        Client(DASHBOARD, {"key": "7b"}, "select change_no from classroom_state where tenant = $1"),
        Client(EVENTS, {"key": "7b"}, "select max(seq) from event where tenant = $1 and classroom = '7b'"),
    )
    for client in (risk, log):  # streams of happenings tell what happens from now on
        await client.start(desk)

    for taught, is_folded, days, listening in script:
        glances = [clients[number].glance(desk, at_most=count) for number, count in listening.items()]
        await asyncio.gather(world.teach(taught, is_folded=is_folded, days=days), *glances)
    await desk.mill.fold()
    for client in clients:
        await client.catch_up(desk)

    assert [(t["studentId"], t["reason"], t["change"], t["notify"]) for t in risk.heard] == await desk.mill.rows(
        "select student, reason, change, notify from risk_change where tenant = $1 order by no"
    )
    assert [(int(a["event"]["seq"]), a["event"]["eventId"]) for a in log.heard] == await desk.mill.rows(
        "select seq, event_id from event where tenant = $1 and classroom = '7b' order by seq"
    )
    for client in (of_class, of_student, board):
        again = Client(client.document, client.subject, client.newest)
        await again.catch_up(desk)
        shown = client.state if client is board else client.standings
        assert shown == again.state
    assert of_student.standings == await asked(desk, "s1")
    await desk.engine.audiences.mover.settle()  # the loop of this example ends with it


async def asked(desk: Desk, student: str) -> dict[Any, Any]:
    """One student's mastery as the query answers it."""
    fields = "nodes { concept { key } classroomId score state evidenceCount }"
    document = f"""query ($id: ID!) {{ student(id: $id) {{
        overall: mastery(first: 200) {{ {fields} }}
        inClass: mastery(first: 200, classroomId: "7b") {{ {fields} }} }} }}"""
    found = (await desk.ask(document, id=student))["student"]
    nodes = found["overall"]["nodes"] + found["inClass"]["nodes"]
    return {(student, n["classroomId"], n["concept"]["key"]): n for n in nodes if n["state"] != "NO_DATA"}
