"""What a worker knows from its last fold: never read again while it holds, never trusted once it may not."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

import asyncpg
import pytest

from db import assessment, claims, facts, fold_level, outbox, projection, roster
from db.assessment import Counters
from db.enrollments import save_assignment
from db.fold_level import Era
from db.live import Live
from db.outbox import SHARDS, Touch, Waiting
from db.pool import Pool, tenant_transaction
from jobs import drain
from jobs.drain import AGED, CRASHES_MAX, Drain
from jobs.fold import Batch, fold
from jobs.memory import Known, KnownClass, KnownStudent, Memory, Shelf, Surroundings
from jobs.replay import drift
from rules.classroom import EMPTY_VIEW, ClassFacts, Member, OpenItem, View
from rules.roster import Assignment, AssignmentKind
from tests.rows.district import District
from tests.support.events import Mill, graded, void
from tests.support.tenants import fresh_tenant

NOW = datetime(2026, 3, 3, 9, 0, tzinfo=UTC)  # the day after the events of tests.support.events
ROLLUP = "select active_students, average_score from classroom_state where tenant = $1 and classroom = '7b'"
MISSING = "select change, notify from risk_change where tenant = $1 and reason = 'MISSING_SUBMISSIONS'"


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

    same = memory.recall(mill.tenant, await _era(mill)).unseen_students(["s1", "s2"])
    other = memory.recall(mill.tenant, Era(NOW)).unseen_students(["s1", "s2"])

    assert (same, other) == ([], ["s1", "s2"])


@pytest.mark.feature("000-08")
@pytest.mark.parametrize("met", [Era(NOW), Era(NOW + timedelta(days=1), epoch=1)])
async def test_a_fold_on_the_old_server_leaves_nothing_once_another_was_met(
    school: tuple[Mill, District], met: Era
) -> None:
    mill, _ = school
    memory, old = Memory(), Era(NOW + timedelta(days=1))

    async with tenant_transaction(mill.pool, mill.tenant) as connection:
        recall = memory.recall(mill.tenant, old)
        await fold(connection, mill.tenant, Batch.of_classroom("7b"), now=mill.clock(), recall=recall)
        memory.recall(mill.tenant, met)  # by the drain of another shard
    recall.keep()

    assert memory.recall(mill.tenant, met).unseen_classrooms(["7b"]) == ["7b"]


@pytest.mark.feature("000-09", "003-17")
@pytest.mark.parametrize(
    "touch", [Touch(Waiting.TOUCH_CLASSROOM, classroom="7b"), Touch(Waiting.TOUCH_STUDENT, student="s1")]
)
async def test_what_a_touch_that_is_given_up_would_have_changed_is_read_again(
    school: tuple[Mill, District], pool: Pool, touch: Touch
) -> None:
    mill, district = school
    await district.enroll("s3")
    seq = await mill.touch(touch)
    for number in range(CRASHES_MAX):
        await claims.note(
            pool, mill.tenant, touch.shard, token=f"dead-{number}", first=seq, last=seq, rows=1, now=mill.clock()
        )
    mill.clock.now += AGED * 2
    await mill.fold()
    left = await mill.rows("select count(*) from outbox where tenant = $1")

    await mill.recorded_and_folded([graded("e4", "s2", 0.9, at=1)])

    assert left == [(0,)]
    assert await mill.rows(ROLLUP) == [(3, 650)]


@pytest.mark.feature("003-21", "000-14")
async def test_new_work_is_missing_for_nobody_though_its_touch_comes_with_the_next_batch(
    school: tuple[Mill, District], monkeypatch: pytest.MonkeyPatch
) -> None:
    mill, _ = school
    monkeypatch.setattr(drain, "CLAIM_ROWS_MAX", 2)  # as many as the class has students: 5,000 of 5,000, once a year
    await _assign(mill)

    await mill.fold()

    assert await mill.rows(MISSING) == []


@pytest.mark.feature("003-21", "000-14")
async def test_new_work_is_missing_for_nobody_though_another_worker_has_claimed_its_touch(
    school: tuple[Mill, District], pool: Pool
) -> None:
    mill, _ = school
    await _assign(mill)

    async with tenant_transaction(pool, mill.tenant) as other:
        await other.execute("select from outbox where tenant = $1 and kind <> 'EVENT' for update", mill.tenant)
        await mill.fold()
    await mill.fold()

    assert await mill.rows(MISSING) == []


@pytest.mark.feature("000-08")
async def test_touches_are_found_by_index_though_the_planner_believes_the_outbox_empty(
    school: tuple[Mill, District], pool: Pool, database_url: str
) -> None:
    mill, _ = school
    owner = await asyncpg.connect(database_url)
    await owner.execute("analyze outbox")
    await owner.close()

    async with tenant_transaction(pool, mill.tenant, settings=outbox.CLAIM_SETTINGS) as connection:
        await connection.execute(
            "insert into outbox (tenant, shard, lane, occurred_at, seq, kind, classroom, received_at) "
            "select $1, n % 4, 0, $2, n, 'EVENT', '7b', $2 from generate_series(1, 20000) n",
            mill.tenant, NOW,
        )  # fmt: skip
        rows = await connection.fetch(f"explain (analyze) {facts.ROSTERED_AND_TOUCHED}", mill.tenant, ["7b", "8c"])
        found = await facts.rostered_and_touched(connection, mill.tenant, ["7b", "8c"])
        await connection.execute("delete from outbox where tenant = $1", mill.tenant)

    scans = [row[0].split(" using ")[1].split(" ")[0] for row in rows if " using outbox" in row[0]]
    assert scans == ["outbox_touches"] * 2
    assert found == ({"7b": "UTC", "8c": "UTC"}, set())


@pytest.mark.feature("000-08")
def test_a_class_is_known_by_all_its_numbers() -> None:
    memory, now = Memory(), Counters(2, 1, NOW)
    recall = memory.recall(1, Era())
    for classroom, counters in (("same", now), ("flags", Counters(2, 0, NOW)), ("time", Counters(2, 1))):
        memory.classes.put((1, classroom), KnownClass(counters, {"s1": Known(EMPTY_VIEW)}))

    recall.begin(dict.fromkeys(("same", "flags", "time"), now), {}, touched=())

    assert [classroom for classroom, known in recall.classes.items() if known.views] == ["same"]


async def _era(mill: Mill) -> Era:
    async with tenant_transaction(mill.pool, mill.tenant, read_only=True) as connection:
        return (await fold_level.ground_of(connection, mill.tenant))[1]


async def _assign(mill: Mill) -> None:
    """Give work that is due tomorrow: its events and its touch are committed together."""
    async with tenant_transaction(mill.pool, mill.tenant) as connection:
        await roster.lock(connection, mill.tenant)
        due_at = mill.clock() + timedelta(days=1)
        work = Assignment("essay", "7b", "Essay", AssignmentKind.ASSIGNMENT, due_at, None, ())
        change = await save_assignment(connection, mill.tenant, work, now=mill.clock())
        await roster.settle(connection, mill.tenant, change, recorded_by="t1", now=mill.clock())


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


def _class_of(members: int, *, open_items: int = 0, due: int = 0) -> KnownClass:
    views = [
        View(open_items=tuple(OpenItem(f"i{n}", None, False, ("lms", f"a{n}")) for n in range(open_items)))
        for _ in range(members)
    ]
    listed = tuple(Member(f"s{n}", 0, "UTC", view) for n, view in enumerate(views))
    facts = ClassFacts(listed, "UTC", {f"i{n}": None for n in range(due)})
    known = KnownClass(Counters(1, 0), {"s0": Known(views[0])})
    known.surround(Surroundings(facts, date(2026, 3, 3), None, {}))
    return known


@pytest.mark.feature("000-08")
def test_classes_without_members_and_work_that_is_due_or_open_take_memory_too() -> None:
    assert KnownClass(Counters(1, 0)).rows == 1
    assert _class_of(3).rows == 1 + 3 + 1
    assert _class_of(3, open_items=4, due=5).rows == 1 + 5 + 3 * (1 + 4) + (1 + 4)


@pytest.mark.feature("000-08")
def test_what_alone_is_more_than_may_be_kept_makes_a_worker_forget_nothing_else() -> None:
    shelf: Shelf[KnownClass] = Shelf(10)
    shelf.put((1, "small"), _class_of(2))
    shelf.put((1, "large"), _class_of(11))

    assert [key for key in ("small", "large") if (1, key) in shelf] == ["small"]
