"""The mover: what is wrong with one of those who are read for together is not wrong with the others."""

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

import db.visibility
from db import changes, many_changes
from db.live import Live
from db.pool import Pool
from graph import patience, streams
from graph.documents import Voice
from rules.access import Role
from tests.graph.test_audience import NAMED
from tests.support.events import graded
from tests.support.listening import EVENTS, MASTERY, RISK, Desk, Listener, begun, open_desk, seated, standing_of

CLASSES = tuple(f"class-{number:02}" for number in range(8))
TIES = "db.visibility.followers_of_classrooms"


@pytest_asyncio.fixture
async def desk(pool: Pool, live: Live) -> Desk:
    """Classes that share a student, and nothing recorded."""
    desk = await open_desk(pool, live)
    for key in CLASSES:
        await desk.district.classroom(key)
        await desk.district.enroll("s1", key)
    return desk


async def listening(desk: Desk) -> dict[str, Listener]:
    """One who sits for each class."""
    admin = desk.viewer("admin", Role.ADMIN)
    listeners = {key: desk.share(MASTERY, key=key, by=admin) for key in CLASSES}
    await begun(*listeners.values())
    await seated(desk, len(CLASSES))
    return listeners


async def taught(desk: Desk, name: str, *, at: int = 0) -> None:
    """Each class moves."""
    await desk.fold(*(graded(f"{name}-{key}", "s1", 0.5, classroom=key, at=at) for key in CLASSES))


async def told(listener: Listener) -> str:
    """The class that a message tells of, or the code that the stream ends with."""
    answer = await listener.answer()
    if answer.errors:
        return str(answer.errors[0]["extensions"]["code"])
    assert answer.data is not None
    return standing_of(answer.data["masteryChanged"])[1]


@pytest.mark.feature("003-43")
async def test_ties_that_are_too_old_are_read_for_all_who_moved_at_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners = await listening(desk)
    read, sizes = db.visibility.followers_of_classrooms, []

    async def counting(connection: Any, tenant: int, keys: Sequence[str], *rest: Any) -> Any:
        sizes.append(len(keys))
        return await read(connection, tenant, keys, *rest)

    with monkeypatch.context() as watched:
        watched.setattr(TIES, counting)
        desk.seconds.now += 2.1
        await taught(desk, "e1")
        found = [await told(listener) for listener in listeners.values()]

    assert found == list(CLASSES)
    assert len(sizes) < len(CLASSES)
    for listener in listeners.values():
        await listener.close()


@pytest.mark.feature("003-43")
async def test_nobody_waits_for_postgres_behind_others_who_wait_for_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners = await listening(desk)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.5)

    async def gone(*_arguments: object) -> Any:
        raise OSError("postgres is away")

    with monkeypatch.context() as broken:
        broken.setattr(TIES, gone)
        desk.seconds.now += 2.1
        await taught(desk, "e1")
        ends = [asyncio.create_task(listener.refusal()) for listener in listeners.values()]
        # Patient together and then alone: not eight times over.
        codes = await asyncio.wait_for(asyncio.gather(*ends), 3.5)

    assert codes == ["INTERNAL"] * len(CLASSES)  # in words by the street, which these documents are not served by


@pytest.mark.feature("003-43")
async def test_a_class_that_cannot_be_read_ends_its_own_stream_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners = await listening(desk)
    shown = changes._changed_standing

    def show(row: Any) -> Any:
        if row["classroom"] == CLASSES[3]:
            raise ValueError("a row that nobody can read")
        return shown(row)

    monkeypatch.setattr(changes, "_changed_standing", show)
    await taught(desk, "e1")

    found = [await told(listener) for listener in listeners.values()]
    assert found == [*CLASSES[:3], "INTERNAL", *CLASSES[4:]]
    for listener in listeners.values():
        await listener.close()


@pytest.mark.feature("003-43")
@pytest.mark.parametrize("document", [EVENTS, RISK, MASTERY])
async def test_a_class_that_cannot_be_read_ends_nobody_who_reads_alone_beside_it(
    desk: Desk, document: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_broken = False

    def spoil(module: Any, name: str) -> None:
        read = getattr(module, name)

        async def reading(connection: Any, tenant: int, asked: Any, *rest: Any, **named: Any) -> Any:
            keys = [asked] if isinstance(asked, str) else [key for key, _ in asked]
            if is_broken and CLASSES[3] in keys:
                raise ValueError("a row that nobody can read")
            return await read(connection, tenant, asked, *rest, **named)

        monkeypatch.setattr(module, name, reading)

    spoil(changes, "recorded_events")
    spoil(changes, "risk_changes")
    spoil(changes, "classroom_standings")
    spoil(changes, "many_classroom_standings")
    spoil(many_changes, "many_recorded_events")
    spoil(many_changes, "many_risk_changes")
    admin = desk.viewer("admin", Role.ADMIN)
    listeners = [desk.listen(document, key=key, by=admin) for key in CLASSES]
    await begun(*listeners)
    is_broken = True
    waiting = [asyncio.create_task(listener.answer()) for listener in listeners]
    await asyncio.sleep(0.05)

    await taught(desk, "e1")
    found = [bool((await answer).errors) for answer in waiting]

    assert found == [place == 3 for place in range(len(CLASSES))]
    for listener in listeners:
        await listener.close()


@pytest.mark.feature("003-43")
async def test_a_statement_too_slow_for_many_is_tried_for_each(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    read, sizes = changes.many_classroom_standings, []

    async def slow(connection: Any, tenant: int, after: Sequence[tuple[str, int]]) -> Any:
        sizes.append(len(after))
        if len(after) > 1:
            raise asyncpg.QueryCanceledError("a statement took too long")
        return await read(connection, tenant, after)

    monkeypatch.setattr(changes, "many_classroom_standings", slow)
    listeners = await listening(desk)

    await taught(desk, "e1")
    found = [await told(listener) for listener in listeners.values()]

    assert found == list(CLASSES)
    assert max(sizes) > 1
    for listener in listeners.values():
        await listener.close()


@pytest.mark.feature("003-43")
async def test_an_end_from_below_leaves_nobody_deaf(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = desk.share(NAMED, key="7b")
    await begun(listener)
    await seated(desk, 1)

    async def end(*_arguments: object) -> Any:
        broken.undo()
        raise asyncio.CancelledError

    with monkeypatch.context() as broken:
        broken.setattr(Voice, "answer", end)
        await desk.fold(graded("e1", "s1", 0.5))
        first = await listener.message()
    await desk.fold(graded("e2", "s2", 0.5))
    second = await listener.message()

    assert [message["student"]["key"] for message in (first, second)] == ["s1", "s2"]
    await listener.close()


@pytest.mark.feature("003-40", "003-43")
@pytest.mark.parametrize(
    ("took", "is_state", "is_quick", "expected"),
    [
        (0.001, True, True, 0.02),  # little to do: the next change is told soon
        (0.02, True, True, 0.06),  # a third of the time at most
        (0.05, True, True, 0.1),
        (2.0, True, True, 0.1),
        (0.001, True, False, 0.1),  # what costs much to read, however fast that was
        (2.0, True, False, 0.1),
        (2.0, False, False, 0.0),  # what happens is told at once
    ],
)
def test_a_stream_of_state_rests_the_longer_the_more_there_is_to_do(
    took: float, is_state: bool, is_quick: bool, expected: float
) -> None:
    assert streams.pause_seconds(took, is_state=is_state, is_quick=is_quick) == pytest.approx(expected)


@pytest.mark.feature("003-40", "003-43")
async def test_the_first_change_after_some_quiet_is_told_at_once_and_the_next_after_the_pause(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = desk.share(MASTERY, key=CLASSES[0], by=desk.viewer("admin", Role.ADMIN))
    await begun(listener)
    await seated(desk, 1)
    monkeypatch.setattr(streams, "STATE_PAUSE_SECONDS", 60.0)

    await taught(desk, "e1")
    first = await listener.message()  # well under the minute
    monkeypatch.setattr(streams, "PAUSE_TIMES", 1_000_000)
    await taught(desk, "e2", at=1)
    second = await listener.message()  # the first round was short
    await taught(desk, "e3", at=2)
    with pytest.raises(TimeoutError):
        await listener.message(seconds_max=0.3)

    assert [m["mastery"]["evidenceCount"] for m in (first, second)] == [1, 2]
    await listener.close()


@pytest.mark.feature("003-40", "003-43")
async def test_whoever_reads_alone_rests_as_long_as_the_round_took_however_long_it_waited(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "STATE_PAUSE_SECONDS", 60.0)
    monkeypatch.setattr(streams, "PAUSE_TIMES", 20)
    listener = desk.listen(MASTERY, key=CLASSES[0], by=desk.viewer("admin", Role.ADMIN))
    await begun(listener)
    waiting = asyncio.create_task(listener.message())
    await asyncio.sleep(0.5)  # times 20 it would be more than anybody waits for a message

    await taught(desk, "e1")

    assert (await waiting)["mastery"]["evidenceCount"] == 1
    await listener.close()
