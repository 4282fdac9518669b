"""What has changed in a class is found by the stamps of its views, and among all its rows where a stamp is missing."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from db import assessment, changes, projection
from db.live import Live
from db.outbox import Touch, Waiting
from db.pool import Pool, tenant_transaction
from rules.evidence import Kind, LearningEvent
from tests.jobs.test_drain import mill_of
from tests.jobs.test_releases import LEFT
from tests.support.events import Mill, graded, void

STANDINGS = """
select class_change, student, concept from standing where tenant = $1 and classroom = '7b' order by 1, 2, 3
"""
COUNTERS = "select change_no, stamped_from, stamped_to from classroom_state where tenant = $1 and classroom = '7b'"
NEW_VERSION = """
insert into classroom_policy (tenant, classroom, version, model, recent_percent, success_threshold, mastery_threshold,
    min_evidence, inactivity_days, created_at, created_by)
select $1, '7b', coalesce(max(version), 1) + 1, 'DECAYING_AVERAGE', 65, 700000, 800000, 3, 7, now(), 't'
from classroom_policy where tenant = $1 and classroom = '7b'
"""

# As the release before has them: it knows of no stamps.
OLDER: dict[tuple[ModuleType, str], Callable[[str], str]] = {
    (projection, "SAVE_VIEWS"): lambda text: (
        text.replace("recent, class_change)", "recent)")
        .replace("w.*", "w.student, w.classroom, w.a, w.b, w.c, w.d, w.e, w.f, w.g, w.h, w.i, w.j, w.k, w.l")
        .replace(" as w", " as w (student, classroom, a, b, c, d, e, f, g, h, i, j, k, l, stamp)")
        .replace(", class_change = excluded.class_change", "")
    ),
    (assessment, "SAVE_CLASSROOMS"): lambda text: (
        text[: text.index(",\n    stamped_to")] + "\n" + text[text.index("from unnest(") :]
    ),
}

happenings = st.one_of(
    st.tuples(st.just("grade"), st.sampled_from(("s1", "s2")), st.integers(0, 10), st.integers(0, 50)),
    st.tuples(st.just("void"), st.integers(0, 20)),
    st.just(("policy",)),
)
folds = st.lists(st.tuples(st.lists(happenings, min_size=1, max_size=3), st.booleans()), min_size=1, max_size=8)


async def happen(mill: Mill, told: list[LearningEvent], happening: tuple[Any, ...]) -> None:
    """Let one thing happen that the next fold is to see."""
    match happening:
        case ("grade", student, tenths, minute):
            told.append(graded(f"e{len(told)}", student, tenths / 10, at=minute, concepts=("fractions", "decimals")))
            await mill.record(told[-1])
        case ("void", index) if told:
            told.append(void(f"e{len(told)}", told[index % len(told)]))
            await mill.record(told[-1])
        case ("policy",):
            await policy_changes(mill)


async def policy_changes(mill: Mill) -> None:
    """A new version of the class's policy moves standings of which the views may stay as they are."""
    async with tenant_transaction(mill.pool, mill.tenant) as connection:
        await connection.execute(NEW_VERSION, mill.tenant)
    await mill.touch(Touch(Waiting.REFOLD_CLASSROOM, classroom="7b"))


async def fold(mill: Mill, monkeypatch: pytest.MonkeyPatch, *, is_older: bool = False) -> None:
    """Fold all that waits, as this release or as the one before."""
    with monkeypatch.context() as patch:
        for (module, name), rewritten in OLDER.items() if is_older else ():
            patch.setattr(module, name, rewritten(getattr(module, name)))
        while await mill.fold():
            pass
    assert await mill.rows(LEFT) == [(0,)]


async def assert_all_is_found(mill: Mill) -> None:
    """From every place, alone and with others, exactly what was written past it is found."""
    stored = await mill.rows(STANDINGS)
    ((newest, _, _),) = await mill.rows(COUNTERS)
    async with tenant_transaction(mill.pool, mill.tenant, read_only=True) as connection:
        places = [(no + 1, "", "") for no in range(-1, newest + 1)] + [tuple(row) for row in stored]
        for place in places:
            found = await changes.classroom_standings(connection, mill.tenant, "7b", after=place)
            assert [seen(one) for one in found] == [row for row in stored if tuple(row) > place]
            some = await changes.classroom_standings(connection, mill.tenant, "7b", after=place, limit=1)
            assert some[:1] == found[:1]
        asked = [("7b", no) for no in range(-1, newest + 1)]
        together = await changes.many_classroom_standings(connection, mill.tenant, asked)
        few = await changes.many_classroom_standings(connection, mill.tenant, asked, limit=1)
    expected = [[row for row in stored if row[0] > no] for _, no in asked]
    assert [[seen(one) for one in rows] for rows in together] == expected
    assert [[seen(one) for one in rows] for rows in few] == [rows[:1] for rows in expected]


def seen(one: changes.ChangedStanding) -> tuple[Any, ...]:
    return (one.class_change, one.student, one.mastery.concept.key)


@pytest.mark.feature("X-29", "X-38", "000-14")
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(script=folds)
@example(script=[([("grade", "s1", 5, 1)], False), ([("void", 0)], False), ([("grade", "s1", 7, 2)], False)])
@example(script=[([("grade", "s1", 5, 1)], False), ([("grade", "s2", 7, 2)], True), ([("grade", "s1", 7, 3)], False)])
@example(script=[([("grade", "s1", 5, 1), ("grade", "s2", 5, 1)], False), ([("policy",)], False)])
async def test_whoever_folds_every_change_of_a_class_is_found_from_every_place(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch, script: list[Any]
) -> None:
    mill = await mill_of(pool, live)
    told: list[LearningEvent] = []
    for happened, is_older in [([("grade", "s1", 5, 0)], False), *script]:
        for happening in happened:
            await happen(mill, told, happening)
        await fold(mill, monkeypatch, is_older=is_older)
        await assert_all_is_found(mill)


@pytest.mark.feature("X-29")
async def test_folds_of_this_release_stamp_every_change(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill = await mill_of(pool, live)
    await mill.recorded_and_folded([graded("e1", "s1", 0.5), graded("e2", "s2", 0.5)], [graded("e3", "s1", 0.6, at=1)])
    await policy_changes(mill)
    await fold(mill, monkeypatch)

    ((change_no, stamped_from, stamped_to),) = await mill.rows(COUNTERS)

    assert (stamped_from, stamped_to) == (0, change_no)
    stamps = "select student, class_change from view_state where tenant = $1 and classroom = $2 order by 1"
    newest = "select student, max(class_change) from standing where tenant = $1 and classroom = $2 group by 1"
    assert await mill.rows(stamps, "7b") == sorted(await mill.rows(newest, "7b"))


def emptied(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> Any:
    return mill.recorded_and_folded([void("v", graded("e1", "s1", 0.5))])


async def folded_by_an_older_worker(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    await mill.record(graded("e9", "s2", 0.5))
    await fold(mill, monkeypatch, is_older=True)


@pytest.mark.feature("X-29", "X-38")
@pytest.mark.parametrize("gap", [emptied, folded_by_an_older_worker])
async def test_a_change_without_its_stamp_is_told_apart_and_the_next_ones_are_stamped(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch, gap: Callable[..., Any]
) -> None:
    mill = await mill_of(pool, live)
    await mill.recorded_and_folded([graded("e1", "s1", 0.5)])
    await gap(mill, monkeypatch)
    ((unstamped, _, _),) = await mill.rows(COUNTERS)

    await mill.recorded_and_folded([graded("e2", "s2", 0.6, at=1)])

    assert await mill.rows(COUNTERS) == [(unstamped + 1, unstamped, unstamped + 1)]
    await assert_all_is_found(mill)


@pytest.mark.feature("X-29")
async def test_what_moved_before_its_view_was_dropped_is_found(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)
    grade = graded("e1", "s1", 0.5)
    beside = graded("e2", "s1", 0.5, at=1, kind=Kind.CONTENT_VIEWED, ratio=None, concepts=())
    await mill.recorded_and_folded([grade, beside], [void("v1", grade)], [void("v2", beside)])
    views = "select count(*) from view_state where tenant = $1 and classroom = '7b'"

    assert await mill.rows(views) == [(0,)]
    await assert_all_is_found(mill)


@pytest.mark.feature("X-29")
async def test_a_page_of_a_large_class_has_room_for_one_row_of_each_student(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)
    await mill.recorded_and_folded(
        [graded("e1", "s1", 0.5, concepts=("a", "b")), graded("e2", "s2", 0.5, concepts=("a", "b"))]
    )
    async with tenant_transaction(pool, mill.tenant) as connection:
        pages = {}
        for students in (0, 3):
            await connection.execute("update classroom_state set active_students = $1", students)
            page = await changes.classroom_standings(connection, mill.tenant, "7b", after=(0, "", ""), limit=2)
            pages[students] = [seen(one)[1:] for one in page]

    assert pages == {0: [("s1", "a"), ("s1", "b")], 3: [("s1", "a"), ("s1", "b"), ("s2", "a")]}


INDEXED = """
select count(*) from pg_index i
join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
where i.indrelid = 'standing'::regclass and a.attname not in ('tenant', 'student', 'classroom', 'concept')
"""


@pytest.mark.feature("000-08")
async def test_no_index_of_standings_names_what_a_fold_changes(pool: Pool) -> None:
    async with pool.acquire() as connection:
        assert await connection.fetchval(INDEXED) == 0
