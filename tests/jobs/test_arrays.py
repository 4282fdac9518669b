"""Arrays on their way to Postgres: what they hold is never asked what it is."""

import sys
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import asyncpg
import pytest

from db.pool import Pool

ARRAYS = "select $1::text[], $2::int[], $3::timestamptz[], $4::bool[]"
NOW = datetime(2026, 3, 3, 9, 0, tzinfo=UTC)
GIVEN: tuple[list[Any], ...] = (["a", None] * 50, [1, 2] * 50, [NOW, None] * 50, [True, False] * 50)


@pytest.mark.feature("003-42")
async def test_no_value_of_an_array_is_asked_through_python_whether_it_is_an_array(pool: Pool) -> None:
    asked: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name == "__instancecheck__":
            asked.append(frame.f_code.co_filename)

    async with pool.acquire() as connection:
        await connection.fetchrow(ARRAYS, *GIVEN)  # prepared
        sys.setprofile(note)
        try:
            found = await connection.fetchrow(ARRAYS, *GIVEN)
        finally:
            sys.setprofile(None)

    assert tuple(found or ()) == GIVEN
    assert len(asked) <= 2 * len(GIVEN)  # the arrays themselves are


@pytest.mark.feature("003-42")
async def test_a_tuple_is_an_array_too_and_a_mapping_is_none(pool: Pool) -> None:
    async with pool.acquire() as connection:
        assert await connection.fetchval("select $1::int[]", (1, 2)) == [1, 2]
        with pytest.raises(asyncpg.DataError, match="a sized iterable container expected"):
            await connection.fetchval("select $1::int[]", {1: 2})
