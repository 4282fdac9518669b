"""The work of a class: everyone who is in it while there is work gets it assigned, exactly once."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from db.enrollments import assigned_id
from db.live import Moved
from db.outbox import shard_of
from db.pool import Pool
from rules.access import Role
from tests.rows.office import enrolment, open_class, work

ASSIGNED = "select event_id, student, seq from event where tenant = $1 and kind = 'ASSIGNMENT_ASSIGNED' order by seq"


@pytest.mark.feature("003-17")
async def test_work_is_assigned_by_an_event_to_everyone_in_the_class_and_nobody_else(pool: Pool) -> None:
    office = await open_class(pool, "s1", "s2", "gone", "soon", "never")
    await office.done("saveEnrollment", **enrolment("s1"))
    await office.done("saveEnrollment", **enrolment("s2"))
    await office.done("saveEnrollment", **enrolment("gone", endsOn="2026-11-18"))
    await office.done("saveEnrollment", **enrolment("soon", starts_on="2026-12-01"))
    await office.done("saveEnrollment", **enrolment("never", starts_on="2026-12-01", endsOn="2026-12-01"))
    await office.done("saveEnrollment", **enrolment("t1", role="TEACHER"))
    await office.folded()
    seq = int(await office.head())

    payload = await office.done(
        "saveAssignment",
        "assignment { key classroomId title kind dueAt difficulty conceptIds }",
        **work(dueAt="2026-12-01T22:59:00+01:00", kind="QUIZ", difficulty="ADVANCED", conceptIds=["c2", "c1"]),
    )

    assert payload == {
        "seq": str(seq + 4),
        "assignment": {
            "key": "a1",
            "classroomId": "7b",
            "title": "Work a1",
            "kind": "QUIZ",
            "dueAt": "2026-12-01T21:59:00Z",
            "difficulty": "ADVANCED",
            "conceptIds": ["c2", "c1"],
        },
    }
    assert await office.all_of(ASSIGNED) == [
        ("assigned:a1:s1", "s1", seq + 1),
        ("assigned:a1:s2", "s2", seq + 2),
        ("assigned:a1:soon", "soon", seq + 3),
    ]
    assert await office.waiting() == [
        ("EVENT", "s1", "7b"),
        ("EVENT", "s2", "7b"),
        ("EVENT", "soon", "7b"),
        ("TOUCH_CLASSROOM", "", "7b"),
    ]
    assert office.bell.marked == [(office.tenant, shard_of(classroom="7b", student=""))]
    assert office.bell.announced == [Moved(tenant=office.tenant, recorded=frozenset({"7b"}))]


@pytest.mark.feature("003-17")
async def test_the_event_that_assigns_work_names_its_concepts_and_no_due_date(pool: Pool) -> None:
    office = await open_class(pool, "s1")
    await office.done("saveEnrollment", **enrolment())

    await office.done("saveAssignment", **work(dueAt="2026-12-01T21:59:00Z", conceptIds=["c2", "c1"]))

    statement = (
        "select source, occurred_at, revision, student, classroom, assignment, concepts, due_at, ratio, recorded_by "
        "from event where tenant = $1"
    )
    assert await office.all_of(statement) == [
        ("sightline", office.now, 0, "s1", "7b", "a1", ["c2", "c1"], None, None, "admin")
    ]


@pytest.mark.feature("003-17")
async def test_saving_the_same_work_again_writes_nothing(pool: Pool) -> None:
    office = await open_class(pool, "s1")
    await office.done("saveEnrollment", **enrolment())
    await office.done("saveAssignment", **work(dueAt="2026-12-01T21:59:00Z"))
    before = await office.rows()
    office.now = datetime(2026, 11, 20, tzinfo=UTC)

    payload = await office.done("saveAssignment", "assignment { dueAt }", **work())

    assert payload == {"seq": await office.head(), "assignment": {"dueAt": "2026-12-01T21:59:00Z"}}
    assert await office.rows() == before


@pytest.mark.feature("003-17")
async def test_a_moved_due_date_touches_the_class_and_assigns_nothing_again(pool: Pool) -> None:
    office = await open_class(pool, "s1")
    await office.done("saveEnrollment", **enrolment())
    await office.done("saveAssignment", **work(dueAt="2026-12-01T21:59:00Z"))
    await office.folded()

    await office.done("saveAssignment", **work(title="Another title"))
    after_title = await office.waiting()
    await office.done("saveAssignment", **work(dueAt="2026-12-08T21:59:00Z"))
    await office.done("saveAssignment", **work(dueAt=None))

    assert after_title == []
    assert await office.waiting() == [("TOUCH_CLASSROOM", "", "7b")] * 2
    assert len(await office.all_of(ASSIGNED)) == 1
    assert await office.all_of("select due_at from assignment where tenant = $1") == [(None,)]


@pytest.mark.feature("003-17")
async def test_who_joins_later_gets_all_work_of_the_class_and_who_comes_back_keeps_theirs(pool: Pool) -> None:
    office = await open_class(pool, "s1")
    await office.done("saveAssignment", **work("a1"))
    await office.done("saveAssignment", **work("a2"))
    nobody = await office.all_of(ASSIGNED)
    await office.folded()

    await office.done("saveEnrollment", **enrolment())
    joined = [row[0] for row in await office.all_of(ASSIGNED)]
    waiting = await office.waiting()
    await office.done("saveEnrollment", **enrolment(endsOn="2026-11-10"))
    await office.done("saveAssignment", **work("a3"))
    office.now = datetime(2026, 11, 25, 8, tzinfo=UTC)
    await office.done("saveEnrollment", **enrolment(starts_on="2026-11-25"))

    assert nobody == []
    assert joined == ["assigned:a1:s1", "assigned:a2:s1"]
    assert waiting == [("EVENT", "s1", "7b"), ("EVENT", "s1", "7b"), ("TOUCH_CLASSROOM", "", "7b")]
    assert [row[0] for row in await office.all_of(ASSIGNED)] == [*joined, "assigned:a3:s1"]
    assert await office.all_of("select count(*) from conflict where tenant = $1") == [(0,)]


@pytest.mark.feature("003-17")
async def test_a_time_that_is_over_gets_no_work(pool: Pool) -> None:
    office = await open_class(pool, "s1")
    await office.done("saveAssignment", **work())

    await office.done("saveEnrollment", **enrolment(endsOn="2026-11-18"))

    assert await office.all_of(ASSIGNED) == []


@pytest.mark.feature("003-17")
async def test_a_student_who_joins_while_work_is_assigned_does_not_miss_it(pool: Pool) -> None:
    students = [f"s{number}" for number in range(6)]
    office = await open_class(pool, *students)

    await asyncio.gather(
        *(office.done("saveEnrollment", **enrolment(student)) for student in students),
        *(office.done("saveAssignment", **work(f"a{number}")) for number in range(6)),
    )

    expected = {assigned_id(f"a{number}", student) for number in range(6) for student in students}
    assert {row[0] for row in await office.all_of(ASSIGNED)} == expected
    assert len(expected) == 36


@pytest.mark.feature("003-17")
def test_no_two_pairs_of_work_and_student_share_an_event_id() -> None:
    long = "a" * 128
    pairs = [("a", "b:c"), ("a:b", "c"), ("a:b:c", ""), (long, "s"), (long, "t"), ("a", "b")]

    ids = [assigned_id(*pair) for pair in pairs]

    assert len(set(ids)) == len(pairs)
    assert max(map(len, ids)) <= 128
    assert assigned_id("a", "b") == "assigned:a:b"


@pytest.mark.feature("003-17")
@pytest.mark.parametrize(
    ("sent", "codes"),
    [
        (work(classroomId="8c"), [("NOT_FOUND", "classroomId")]),
        (work(conceptIds=["c1", "c9", "c8"]), [("NOT_FOUND", "conceptIds.1"), ("NOT_FOUND", "conceptIds.2")]),
        (work(conceptIds=[]), [("OUT_OF_RANGE", "conceptIds")]),
        (work(conceptIds=["c1"] * 51), [("TOO_MANY", "conceptIds")]),
        (work(conceptIds=["c1", "c2", "c1"]), [("REPEATED", "conceptIds.2")]),
        (work(conceptIds=["c1", ""]), [("BAD_ID", "conceptIds.1")]),
        (work(key=""), [("BAD_ID", "key")]),
        (work(title="\u0007"), [("BAD_TEXT", "title")]),
        (work(dueAt="2200-01-01T00:00:01Z"), [("OUT_OF_RANGE", "dueAt")]),
    ],
)
async def test_wrong_work_is_told_field_by_field(
    pool: Pool, sent: dict[str, Any], codes: list[tuple[str, str]]
) -> None:
    office = await open_class(pool, "s1")

    assert await office.codes("saveAssignment", **sent) == codes


@pytest.mark.feature("003-17")
async def test_work_does_not_move_to_another_class(pool: Pool) -> None:
    office = await open_class(pool)
    await office.done("saveClassroom", key="8c", name="8c")
    await office.done("saveAssignment", **work())

    assert await office.codes("saveAssignment", **work(classroomId="8c")) == [("NOT_MOVABLE", "key")]


@pytest.mark.feature("003-17", "C7")
async def test_a_teacher_assigns_work_to_own_classes_only_and_is_refused_alike_for_the_rest(pool: Pool) -> None:
    office = await open_class(pool)
    await office.done("saveClassroom", key="8c", name="8c")
    await office.done("saveEnrollment", **enrolment("t1", role="TEACHER"))
    await office.done("saveEnrollment", **enrolment("t2", role="TEACHER", endsOn="2026-11-18"))
    teacher, former = office.viewer("t1", Role.TEACHER), office.viewer("t2", Role.TEACHER)

    own = await office.done("saveAssignment", "assignment { key }", by=teacher, **work())
    foreign = await office.tell("saveAssignment", by=teacher, **work("a2", classroomId="8c"))
    unknown = await office.tell("saveAssignment", by=teacher, **work("a2", classroomId="9d"))
    over = await office.codes("saveAssignment", by=former, **work("a2"))

    assert own["assignment"] == {"key": "a1"}
    assert foreign == unknown
    assert foreign["errors"] == [
        {"code": "FORBIDDEN", "field": ["classroomId"], "message": "expected a class that you teach today"}
    ]
    assert over == [("FORBIDDEN", "classroomId")]
    assert await office.all_of("select assignment from assignment where tenant = $1") == [("a1",)]


@pytest.mark.feature("003-17")
async def test_today_is_the_date_on_the_wall_of_the_class(pool: Pool) -> None:
    office = await open_class(pool, zone="Pacific/Auckland")
    teacher = office.viewer("t1", Role.TEACHER)
    await office.done("saveEnrollment", **enrolment("t1", starts_on="2026-11-19", role="TEACHER"))

    office.now = datetime(2026, 11, 18, 10, 59, tzinfo=UTC)  # 23:59 on the 18th in Auckland
    before = await office.codes("saveAssignment", by=teacher, **work())
    office.now = datetime(2026, 11, 18, 11, 0, tzinfo=UTC)
    await office.done("saveAssignment", by=teacher, **work())

    assert before == [("FORBIDDEN", "classroomId")]
