"""What is read for many classes at once is what is read for each: the same rows in the same order."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from db import changes, many_changes
from db.changes import Position
from db.live import Live
from db.pool import Pool, tenant_transaction
from rules.access import Role
from tests.support.events import graded, void
from tests.support.listening import EVENTS, NOW, RISK, Desk, begun, open_desk, seated

CLASSES = ("class-0", "class-1", "class-2")
STRANGE = "nobody-teaches-here"


async def lively(pool: Pool, live: Live) -> Desk:
    """Three classes with transitions and events: of one the oldest transitions are kept no more."""
    desk = await open_desk(pool, live)
    for place, key in enumerate(CLASSES):
        await desk.district.classroom(key)
        for student in ("s1", "s2", "s3")[: place + 1]:
            await desk.district.enroll(student, key)
    for key in CLASSES:
        await desk.fold(graded(f"a-{key}", "s1", 0.1, classroom=key), graded(f"b-{key}", "s1", 0.9, classroom=key))
    await desk.fold(void("v", graded(f"a-{CLASSES[1]}", "s1", 0.1, classroom=CLASSES[1])))
    await desk.district.run("delete from risk_change where tenant = $1 and classroom = 'class-2' and no <= 1")
    return desk


@pytest.mark.feature("003-43", "X-29")
@pytest.mark.parametrize("after", [0, 1, 4])
async def test_many_classes_read_together_say_what_each_says(pool: Pool, live: Live, after: int) -> None:
    desk = await lively(pool, live)
    keys, places = [*CLASSES, STRANGE], [(key, after) for key in (*CLASSES, STRANGE)]
    now, tenant = NOW + timedelta(hours=1), desk.district.tenant

    async with tenant_transaction(pool, tenant, read_only=True) as one:
        risk_positions = await many_changes.risk_positions(one, tenant, keys, now)
        log_positions = await many_changes.log_positions(one, tenant, keys, now)
        transitions = await many_changes.many_risk_changes(one, tenant, places, limit=2)
        recorded = await many_changes.many_recorded_events(one, tenant, places, limit=2)
        assert risk_positions == [await changes.risk_position(one, tenant, key, now) for key in keys]
        assert log_positions == [await changes.log_position(one, tenant, key, now) for key in keys]
        assert transitions == [await changes.risk_changes(one, tenant, key, after=after, limit=2) for key in keys]
        assert recorded == [await changes.recorded_events(one, tenant, key, after=after, limit=2) for key in keys]

    assert [position.floor for position in risk_positions[2:]] == [1, 0]
    assert [len(of_class) for of_class in recorded][-1] == len(transitions[-1]) == 0
    if after == 0:
        assert [len(of_class) for of_class in recorded[:-1]] == [2, 2, 2]


@pytest.mark.feature("003-43")
@pytest.mark.parametrize("document", [RISK, EVENTS])
async def test_flags_and_events_of_classes_that_move_together_are_read_together(
    pool: Pool, live: Live, document: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await open_desk(pool, live)
    for key in CLASSES:
        await desk.district.classroom(key)
        await desk.district.enroll("s1", key)
    admin = desk.viewer("admin", Role.ADMIN)
    listeners = [desk.share(document, key=key, by=admin) for key in CLASSES]
    await begun(*listeners)
    await seated(desk, len(CLASSES))
    sizes: list[int] = []
    positions = many_changes._positions

    def counting(rows: Sequence[asyncpg.Record], now: datetime) -> list[Position]:
        sizes.append(len(rows))
        return positions(rows, now)

    monkeypatch.setattr(many_changes, "_positions", counting)
    await desk.fold(*(graded(f"e-{key}", "s1", 0.5, classroom=key) for key in CLASSES))
    heard = [await listener.message() for listener in listeners]

    assert [message["kind"] for message in heard] == ["CHANGE"] * len(CLASSES)
    assert max(sizes) > 1
    for listener in listeners:
        await listener.close()


@pytest.mark.feature("000-18", "003-43")
@pytest.mark.parametrize("document", [RISK, EVENTS])
async def test_who_loses_one_of_the_classes_read_together_hears_nothing_more_of_that_one(
    pool: Pool, live: Live, document: str
) -> None:
    desk = await open_desk(pool, live)
    for key in CLASSES:
        await desk.district.classroom(key)
        await desk.district.enroll("s1", key)
        await desk.district.teach("teacher", key)
    listeners = [desk.share(document, key=key) for key in CLASSES]
    await begun(*listeners)
    await seated(desk, len(CLASSES))

    await desk.district.run(
        "update enrollment set ended = $2 where tenant = $1 and role = 'TEACHER' and classroom = $3",
        NOW.date(),
        CLASSES[1],
    )
    desk.seconds.now += 2.1
    await desk.fold(*(graded(f"e-{key}", "s1", 0.5, classroom=key) for key in CLASSES))

    assert await listeners[1].refusal() == "FORBIDDEN"
    for listener in (listeners[0], listeners[2]):
        assert (await listener.message())["kind"] == "CHANGE"
        await listener.close()


@pytest.mark.feature("003-43")
async def test_other_work_has_its_turn_while_the_rows_of_many_classes_are_made(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await lively(pool, live)
    made: list[int] = []
    make = changes.recorded_event

    def counting(columns: dict[str, Any]) -> changes.RecordedEvent:
        made.append(columns["seq"])
        return make(columns)

    async def look() -> None:
        while True:
            looks.append(len(made))
            await asyncio.sleep(0)

    looks: list[int] = []
    monkeypatch.setattr(many_changes, "PAGE", 2)
    monkeypatch.setattr(many_changes, "recorded_event", counting)
    looking = asyncio.create_task(look())
    async with tenant_transaction(pool, desk.district.tenant, read_only=True) as one:
        await many_changes.many_recorded_events(one, desk.district.tenant, [(key, 0) for key in CLASSES])
    looking.cancel()

    assert len(made) == 6
    assert {2, 4} <= set(looks)
