"""What a worker knows from its last fold: never read again while it holds, never trusted once it may not."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from db import assessment, projection
from db.live import Live
from db.outbox import SHARDS, Touch, Waiting
from db.pool import Pool
from jobs.drain import Drain
from jobs.memory import Known, KnownStudent, Memory
from jobs.replay import drift
from rules.classroom import EMPTY_VIEW
from tests.rows.district import District
from tests.support.events import Mill, graded, void
from tests.support.tenants import fresh_tenant

NOW = datetime(2026, 3, 3, 9, 0, tzinfo=UTC)  # the day after the events of tests.support.events
ROLLUP = "select active_students, average_score from classroom_state where tenant = $1 and classroom = '7b'"


@pytest.fixture
async def school(pool: Pool, live: Live) -> AsyncIterator[tuple[Mill, District]]:
    """Two students of class 7b, one of them in 8c too, and a first fold of all views."""
    tenant = await fresh_tenant(pool)
    district = District(pool, tenant, count(1))
    for classroom, student in (("7b", "s1"), ("7b", "s2"), ("8c", "s1")):
        if student != "s2":
            await district.classroom(classroom)
        await district.enroll(student, classroom)
    mill = Mill.of(pool, tenant, live, now=NOW)
    await mill.recorded_and_folded(
        [graded("e1", "s1", 0.5), graded("e2", "s2", 0.7), graded("e3", "s1", 0.9, classroom="8c")]
    )
    yield mill, district
    assert await drift(pool, tenant, now=mill.clock()) == []


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch, *readers: tuple[Any, str]) -> Iterator[dict[str, int]]:
    """How many times each of these functions is called."""
    calls = dict.fromkeys((name for _, name in readers), 0)

    def counting(name: str, working: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*given: Any, **named: Any) -> Any:
            calls[name] += 1
            return await working(*given, **named)

        return call

    with monkeypatch.context() as patched:
        for module, name in readers:
            patched.setattr(module, name, counting(name, getattr(module, name)))
        yield calls


READERS = (
    (projection, "views"),
    (projection, "works"),
    (projection, "standings"),
    (assessment, "class_facts"),
    (assessment, "stored_flags"),
)


@pytest.mark.feature("003-42")
async def test_what_the_last_fold_left_is_not_read_again(
    school: tuple[Mill, District], monkeypatch: pytest.MonkeyPatch
) -> None:
    mill, _ = school
    await mill.recorded_and_folded([graded("e4", "s1", 0.6, at=1, assignment="hw")])

    with counted(monkeypatch, *READERS) as calls:
        await mill.recorded_and_folded([graded("e5", "s1", 0.8, at=2, assignment="hw")])

    assert calls == dict.fromkeys(calls, 0)


@pytest.mark.feature("003-42", "000-11")
async def test_only_what_is_not_known_yet_is_read(
    school: tuple[Mill, District], monkeypatch: pytest.MonkeyPatch
) -> None:
    mill, _ = school

    with counted(monkeypatch, *READERS) as calls:
        await mill.recorded_and_folded([graded("e4", "s1", 0.6, at=1, concepts=("decimals", "fractions"))])

    assert calls == {"views": 0, "works": 1, "standings": 1, "class_facts": 0, "stored_flags": 0}


@pytest.mark.feature("000-08", "000-11")
async def test_two_workers_in_turns_never_take_what_they_know_for_what_is_stored(
    school: tuple[Mill, District], pool: Pool, live: Live
) -> None:
    mill, _ = school
    workers = [mill.drain, Drain(pool, mill.clock, live), Drain(pool, mill.clock, live)]

    for turn in range(12):
        who, where = (("s1", "7b"), ("s2", "7b"), ("s1", "8c"))[turn % 3]
        await mill.record(graded(f"t{turn}", who, turn / 12, at=10 + turn, classroom=where, assignment="hw"))
        for shard in range(SHARDS):
            await workers[turn * 7 % 5 % 3].shard(mill.tenant, shard)

    assert await mill.rows("select count(*) from outbox where tenant = $1") == [(0,)]


@pytest.mark.feature("000-08")
async def test_a_fold_that_is_rolled_back_leaves_nothing_behind(
    school: tuple[Mill, District], monkeypatch: pytest.MonkeyPatch
) -> None:
    mill, _ = school

    async def fails(*_: Any, **__: Any) -> None:
        raise ConnectionResetError

    await mill.record(graded("e4", "s1", 0.6, at=1))
    with monkeypatch.context() as broken:
        broken.setattr(assessment, "save_classes", fails)  # all is folded by then
        with pytest.raises(ConnectionResetError):
            await mill.fold()
    await mill.fold()

    assert await mill.rows("select count from standing where tenant = $1 and student = 's1' order by classroom") == [
        (3,),
        (2,),
        (1,),
    ]


@pytest.mark.feature("000-11", "X-02")
async def test_late_events_and_voids_are_folded_into_what_is_known(school: tuple[Mill, District]) -> None:
    mill, _ = school
    late = graded("e0", "s1", 0.1, at=-5, concepts=("decimals",))

    await mill.recorded_and_folded(
        [late],
        [graded("e4", "s1", 0.6, at=4, concepts=("decimals",))],
        [void("v1", late, at=5)],
        [graded("e5", "s1", 0.7, at=6, concepts=("decimals",))],
    )

    assert await mill.rows(
        "select count from standing where tenant = $1 and student = 's1' and concept = 'decimals' and classroom = '7b'"
    ) == [(2,)]


@pytest.mark.feature("003-17", "C")
async def test_a_roster_change_is_seen_with_its_touch(school: tuple[Mill, District]) -> None:
    mill, district = school

    await district.enroll("s3")
    await mill.touch(Touch(Waiting.TOUCH_CLASSROOM, classroom="7b"))
    await mill.fold()
    joined = await mill.rows(ROLLUP)
    await mill.recorded_and_folded([graded("e4", "s3", 0.3, at=1)])

    assert joined == [(3, 600)]
    assert await mill.rows(ROLLUP) == [(3, 500)]


@pytest.mark.feature("003-17", "C")
async def test_an_enrolment_begins_with_its_day(school: tuple[Mill, District]) -> None:
    mill, district = school
    await district.enroll("s3", started=date(2026, 3, 4))
    await mill.touch(Touch(Waiting.TOUCH_CLASSROOM, classroom="7b"))
    await mill.fold()

    mill.clock.now += timedelta(days=1)
    await mill.recorded_and_folded([graded("e4", "s1", 0.5, at=1)])

    assert await mill.rows(ROLLUP) == [(3, 600)]


@pytest.mark.feature("000-08")
async def test_another_server_makes_a_worker_forget(school: tuple[Mill, District]) -> None:
    mill, _ = school
    memory = mill.drain.memory

    same = memory.recall(mill.tenant, server_began=memory.server_began).unseen_students(["s1", "s2"])
    other = memory.recall(mill.tenant, server_began=NOW).unseen_students(["s1", "s2"])

    assert (same, other) == ([], ["s1", "s2"])


@pytest.mark.feature("000-08")
def test_what_was_not_used_for_longest_is_forgotten_first() -> None:
    memory = Memory(student_rows_max=3)
    for student in ("s1", "s2", "s3"):
        memory.students.put((1, student), KnownStudent(1, Known(EMPTY_VIEW)))

    used = memory.students.take((1, "s1"))
    assert used is not None
    memory.students.put((1, "s1"), used)
    memory.students.put((1, "s4"), KnownStudent(1, Known(EMPTY_VIEW)))

    assert [key for key in ("s1", "s2", "s3", "s4") if (1, key) in memory.students] == ["s1", "s3", "s4"]
