"""How a student's mastery index has moved, as clients read it."""

from datetime import date
from typing import Any

import pytest

from db.pool import Pool
from tests.rows.district import District, open_district
from tests.rows.reading import Reader

TRENDS = """
query ($id: ID!) { student(id: $id) { trends {
  state slope direction rSquared historicalAverage
  snapshots { day score level coverage completion quiz quality consistency }
} } }
"""
EXAMPLE = {1: 500, 2: 520, 3: 550, 6: 600, 7: 610, 8: 630, 9: 660, 10: 680}  # Definition E, in March; today is the 11th

pytestmark = [pytest.mark.feature("004-12", "001-27", "003-60", "E")]


async def with_ada(pool: Pool, scores: dict[int, int]) -> District:
    district = await open_district(pool, zone="Europe/Berlin")
    await district.enroll("ada")
    for day, score in scores.items():
        await district.put(
            "daily_index", student="ada", day=date(2026, 3, day), score=score, coverage=700, completion=score, quiz=900
        )
    return district


async def trends_of(district: District) -> Any:
    reader = Reader(district.pool, district.tenant)
    return (await reader.data(TRENDS, id="ada"))["student"]["trends"]


async def test_the_snapshots_come_with_their_trend_and_average(pool: Pool) -> None:
    told = await trends_of(await with_ada(pool, EXAMPLE))

    snapshots = told.pop("snapshots")
    assert [one["day"] for one in snapshots] == [f"2026-03-{day:02}" for day in EXAMPLE]
    assert snapshots[-1] == {
        "day": "2026-03-10",
        "score": 0.68,
        "level": "COMPETENT",
        "coverage": 0.7,
        "completion": 0.68,
        "quiz": 0.9,
        "quality": None,
        "consistency": None,
    }
    assert told == {
        "state": "OK",
        "slope": 0.019214,
        "direction": "IMPROVING",
        "rSquared": 0.991944,
        "historicalAverage": 0.594,
    }


@pytest.mark.feature("X-11")
async def test_two_snapshots_are_shown_without_a_trend(pool: Pool) -> None:
    told = await trends_of(await with_ada(pool, {9: 500, 10: 600}))

    assert [one["score"] for one in told.pop("snapshots")] == [0.5, 0.6]
    assert told == {
        "state": "NOT_ENOUGH_DATA",
        "slope": None,
        "direction": None,
        "rSquared": None,
        "historicalAverage": 0.55,
    }


@pytest.mark.feature("X-11")
async def test_a_student_without_snapshots_has_no_numbers(pool: Pool) -> None:
    told = await trends_of(await with_ada(pool, {}))

    assert (told["state"], told["historicalAverage"], told["snapshots"]) == ("NOT_ENOUGH_DATA", None, [])
