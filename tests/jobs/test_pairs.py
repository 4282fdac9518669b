"""What a class and a student have alike of a concept goes out once, and is saved for both."""

import pytest

from db.live import Live
from db.pool import Pool
from db.projection import ViewKey, paired
from rules.skill import Standing
from tests.jobs.test_drain import mill_of
from tests.support.events import graded

ONE, OTHER = Standing("fractions", count=1, score=500), Standing("fractions", count=1, score=500)
ANN: ViewKey = ("ann", "")
ANN_7B: ViewKey = ("ann", "7b")
ANN_8A: ViewKey = ("ann", "8a")
BEN: ViewKey = ("ben", "")
BEN_7B: ViewKey = ("ben", "7b")


@pytest.mark.feature("000-08")
@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        pytest.param([(ANN, ONE), (ANN_7B, ONE)], [(ANN_7B, ONE, True)], id="one and the same"),
        pytest.param([(ANN, ONE), (ANN_7B, OTHER)], [(ANN_7B, OTHER, False), (ANN, ONE, False)], id="not made at once"),
        pytest.param([(ANN, ONE), (BEN_7B, ONE)], [(BEN_7B, ONE, False), (ANN, ONE, False)], id="of two students"),
        pytest.param(
            [(ANN, ONE), (ANN_7B, ONE), (ANN_8A, ONE)], [(ANN_7B, ONE, True), (ANN_8A, ONE, False)], id="of two classes"
        ),
        pytest.param([(ANN_7B, ONE)], [(ANN_7B, ONE, False)], id="of a class alone"),
        pytest.param([(ANN, ONE), (BEN, OTHER)], [(ANN, ONE, False), (BEN, OTHER, False)], id="of no class"),
    ],
)
def test_what_is_alike_goes_out_once(
    moved: list[tuple[ViewKey, Standing]], expected: list[tuple[ViewKey, Standing, bool]]
) -> None:
    found = list(zip(*paired(moved), strict=True))

    assert found == expected
    assert [id(standing) for _, standing, _ in found] == [id(standing) for _, standing, _ in expected]


STORED = """
select classroom, concept, count, score, class_change > 0, student_change from standing where tenant = $1 order by 1, 2
"""


@pytest.mark.feature("000-08")
async def test_both_rows_of_a_pair_are_saved_each_with_its_own_numbers(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)

    await mill.recorded_and_folded(
        [graded("e1", "s1", 0.5, concepts=("fractions", "decimals"))],
        [graded("e2", "s1", 0.7, at=1)],
        [graded("e3", "s1", 0.9, at=2, classroom="")],
    )

    assert await mill.rows(STORED) == [
        ("", "decimals", 1, 500, False, 1),
        ("", "fractions", 3, 795, False, 3),
        ("7b", "decimals", 1, 500, True, 1),
        ("7b", "fractions", 2, 630, True, 2),
    ]
