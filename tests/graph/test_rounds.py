"""Rounds of reads in which something goes wrong: who is told what, and who is read for all the same."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from db.pool import Pool, lent, open_pool
from graph.documents import Documents
from graph.schema import schema
from graph.together import ROUNDS_MAX
from server.app import excuse
from tests.graph.page_cases import open_school
from tests.graph.test_pages import DASHBOARD, PAGE, asked, engine_on, viewers, written
from tests.rows.district import open_district

FLAGS = "query ($id: ID!) { classroom(id: $id) { riskFlags { nodes { reason } } } }"


async def test_a_store_that_is_away_is_told_to_each(pool: Pool) -> None:
    documents, district = Documents(schema), await open_school(pool)
    admin = viewers(district.tenant, 0)["admin"]

    def away(**_: Any) -> Any:
        raise ConnectionRefusedError("10.0.0.7")

    broken = type("Broken", (), {"acquire": staticmethod(away)})()

    answers = await asyncio.gather(
        *(asked(documents, documents.plan(DASHBOARD, None), {"id": id}, admin, broken) for id in ("7b", "8a"))
    )

    assert [answer.codes for answer in answers] == [{"UNAVAILABLE"}, {"UNAVAILABLE"}]
    assert not any(b"10.0.0.7" in written(answer) for answer in answers)


async def test_who_has_waited_long_behind_a_server_that_says_nothing_is_told_with_those_before_them(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.together.PATIENCE_SECONDS", 0.0)
    documents, district = Documents(schema), await open_district(pool)
    admin, silent = viewers(district.tenant, 0)["admin"], Silent()
    plan = documents.plan(DASHBOARD, None)
    readers = []
    for id in ("7b", "8a", "9c", "10d"):
        readers.append(asyncio.create_task(asked(documents, plan, {"id": id}, admin, silent)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the first rounds have begun, and the others gather

    silent.over.set()
    answers = await asyncio.gather(*readers)

    assert [answer.codes for answer in answers] == [{"UNAVAILABLE"}] * 4
    assert silent.asked == ROUNDS_MAX  # nobody waited for a silence of their own


class Silent:
    """A pool of which no connection says anything until it is given up."""

    def __init__(self) -> None:
        self.over, self.asked = asyncio.Event(), 0

    @asynccontextmanager
    async def acquire(self, *, timeout: float) -> AsyncIterator[Any]:  # noqa: ASYNC109 - asyncpg's own signature
        """Lend a connection that gives up in the end."""
        self.asked += 1
        yield self

    async def execute(self, _statement: str, *, timeout: float) -> None:  # noqa: ASYNC109 - asyncpg's own signature
        """BEGIN, and no answer."""
        await self.over.wait()
        raise TimeoutError

    def is_closed(self) -> bool:
        """Nothing is left to be ended."""
        return True


@pytest.mark.feature("003-41")
async def test_a_statement_that_takes_too_long_is_told_to_whom_it_is_for_and_the_others_are_read(
    database_url: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration holds a table's lock: who reads another table must neither wait for it again nor be refused."""
    monkeypatch.setattr("db.pool.READ_STATEMENT_MS", 200)
    documents, district = Documents(schema, excuse=excuse), await open_school(pool)
    admin, owner = viewers(district.tenant, 0)["admin"], await asyncpg.connect(database_url)
    asks = [(PAGE, "s0"), (FLAGS, "7b"), (FLAGS, "8a"), ("query ($id: ID!) { student(id: $id) { key } }", "s5")]
    plans = [(documents.plan(text, None), id) for text, id in asks]
    try:
        async with owner.transaction():
            await owner.execute("lock table risk_flag in access exclusive mode")
            before, *slow, after = await asyncio.gather(
                *(asked(documents, plan, {"id": id, "c": "7b"}, admin, pool) for plan, id in plans)
            )
    finally:
        await owner.close()

    assert [answer.codes for answer in slow] == [{"UNAVAILABLE"}] * 2
    assert b'"key":"s0"' in written(before)
    assert written(after) == b'{"data":{"student":{"key":"s5"}}}'
    assert (documents.tally.compiled, documents.tally.reference) == (2, 2)


async def test_who_asks_again_for_what_was_put_back_is_answered_with_the_first(
    database_url: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.pool.READ_STATEMENT_MS", 200)
    documents, district = Documents(schema, excuse=excuse), await open_school(pool)
    admin, owner = viewers(district.tenant, 0)["admin"], await asyncpg.connect(database_url)
    slow, quick = documents.plan(FLAGS, None), documents.plan(DASHBOARD, None)
    readers = []
    try:
        async with owner.transaction():
            await owner.execute("lock table risk_flag in access exclusive mode")
            for plan in (slow, quick):
                readers.append(asyncio.create_task(asked(documents, plan, {"id": "7b"}, admin, pool)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # the first round has begun with both
            for id in ("7b", "8a"):
                readers.append(asyncio.create_task(asked(documents, slow, {"id": id}, admin, pool)))
                readers.append(asyncio.create_task(asked(documents, quick, {"id": id}, admin, pool)))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            answers = await asyncio.gather(*readers)
    finally:
        await owner.close()

    assert [answer.codes for answer in answers] == [{"UNAVAILABLE"}, set()] * 3
    assert written(answers[1]) == written(answers[3])
    assert documents.tally.compiled == 3


@pytest.mark.parametrize(("patience", "is_read"), [(0.0, False), (5.0, True)])
async def test_a_full_pool_is_told_to_who_waited_long_and_not_to_who_has_just_come(
    database_url: str, pool: Pool, monkeypatch: pytest.MonkeyPatch, patience: float, is_read: bool
) -> None:
    monkeypatch.setattr("db.pool.ACQUIRE_SECONDS", 0.2)
    monkeypatch.setattr("graph.together.PATIENCE_SECONDS", patience)
    documents, district = Documents(schema, excuse=excuse), await open_school(pool)
    admin, plan = viewers(district.tenant, 0)["admin"], documents.plan(DASHBOARD, None)
    small = await open_pool(database_url, size_max=1, size_idle=1)
    readers = []
    try:
        async with lent(small):
            for id in ("7b", "8a", "7b"):
                readers.append(asyncio.create_task(asked(documents, plan, {"id": id}, admin, small)))
                await asyncio.sleep(0)
                await asyncio.sleep(0)  # two rounds wait for a connection, and the third reader for a round
            told = [await reader for reader in readers[:ROUNDS_MAX]]
        last = await readers[-1]
    finally:
        await small.close()
        engine_on.cache_clear()

    assert [answer.codes for answer in told] == [{"UNAVAILABLE"}] * ROUNDS_MAX
    assert (last.codes, documents.tally.compiled) == ((set(), 1) if is_read else ({"UNAVAILABLE"}, 0))
