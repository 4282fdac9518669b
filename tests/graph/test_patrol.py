"""The patrol: what it has seen and could not tell, it sees again."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from db import changes
from db.live import SLOW_CHECK_SECONDS, Live, Topic
from db.pool import Pool
from graph.patrol import Patrol
from tests.support.events import graded
from tests.support.listening import Desk, open_desk


@pytest_asyncio.fixture
async def desk(pool: Pool, live: Live) -> Desk:
    """A class with one standing."""
    desk = await open_desk(pool, live)
    await desk.fold(graded("e1", "s1", 0.5))
    return desk


class Ear:
    """Somebody who listens to a topic."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[str] = asyncio.Queue()

    def ring(self, traceparent: str | None) -> None:
        """Something moved."""
        self.heard.put_nowait("rung")

    def remind(self, numbers: Any) -> None:
        """It has come to these numbers."""
        self.heard.put_nowait("reminded")

    async def hears(self, what: str) -> None:
        """Wait for it. Raises TimeoutError."""
        async with asyncio.timeout(5 * SLOW_CHECK_SECONDS):
            while await self.heard.get() != what:
                pass


@asynccontextmanager
async def listening(desk: Desk) -> AsyncIterator[Ear]:
    """An ear for class 7b, and a patrol that rings for it."""
    topic, ear = (desk.mill.tenant, "classroom", "7b"), Ear()
    async with Patrol().watching(desk.engine, topic):
        desk.live.enlist(topic, ear)
        yield ear
        desk.live.dismiss(topic, ear)


@pytest.mark.feature("X-29")
async def test_a_restore_is_rung_for_also_when_the_round_that_saw_it_failed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tenant, classrooms = changes.numbers_of_tenant, changes.numbers_of_classrooms
    lives: list[int] = []
    async with listening(desk) as ear:
        await ear.hears("reminded")
        await ear.hears("rung")  # the first round is over

        async def restored(connection: Any, key: int) -> tuple[int, int]:
            epoch, seq = await tenant(connection, key)
            return epoch + 1, seq

        async def fail_once(*arguments: Any) -> Any:
            lives.append(len(lives))
            if len(lives) == 1:
                raise asyncpg.QueryCanceledError("a statement took too long")
            return await classrooms(*arguments)

        monkeypatch.setattr(changes, "numbers_of_tenant", restored)
        monkeypatch.setattr(changes, "numbers_of_classrooms", fail_once)

        await ear.hears("rung")
    assert len(lives) == 2
    assert "numbers_unread type=QueryCanceledError" in caplog.text


@pytest.mark.feature("X-29")
async def test_what_could_not_be_told_is_told_in_the_next_round(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    remind = desk.live.remind
    rounds: list[int] = []

    def fail_once(numbers: Mapping[Topic, Any]) -> None:
        rounds.append(len(rounds))
        if len(rounds) == 1:
            raise ValueError("a number that nobody understands")
        remind(numbers)

    monkeypatch.setattr(desk.live, "remind", fail_once)

    async with listening(desk) as ear:
        await ear.hears("reminded")
    assert len(rounds) == 2
    assert "numbers_unread type=ValueError" in caplog.text
