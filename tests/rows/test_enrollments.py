"""Who is in a class, and when: intervals that never overlap, closed and opened again without losing any."""

from datetime import date
from typing import Any

import pytest

from db.outbox import shard_of
from db.pool import Pool
from rules.access import Role, Scope
from tests.rows.office import enrolment, open_class

INTERVALS = "select person, role, started, ended from enrollment where tenant = $1 order by person, role, started"


@pytest.mark.feature("003-17", "X-09")
async def test_an_enrolment_touches_its_class_once(pool: Pool) -> None:
    office = await open_class(pool, "s1")
    wants = "enrollment { personId role startsOn endsOn displayName }"

    payload = await office.done("saveEnrollment", wants, **enrolment(displayName="Ada"))
    waiting, rows = await office.waiting(), await office.rows()
    again = await office.done("saveEnrollment", wants, **enrolment(displayName="Ada"))

    assert payload == again
    assert payload == {
        "seq": await office.head(),
        "enrollment": {
            "personId": "s1",
            "role": "STUDENT",
            "startsOn": "2026-09-01",
            "endsOn": None,
            "displayName": "Ada",
        },
    }
    assert waiting == [("TOUCH_CLASSROOM", "", "7b")]
    assert await office.rows() == rows
    assert office.bell.marked == [(office.tenant, shard_of(classroom="7b", student=""))]


@pytest.mark.feature("X-09")
async def test_a_student_can_leave_and_come_back(pool: Pool) -> None:
    office = await open_class(pool, "s1")
    await office.done("saveEnrollment", **enrolment())

    await office.done("saveEnrollment", **enrolment(endsOn="2026-10-01"))
    await office.done("saveEnrollment", **enrolment())  # without endsOn: a late repeat of the first message
    await office.done("saveEnrollment", **enrolment(starts_on="2026-10-01"))

    assert await office.all_of(INTERVALS) == [
        ("s1", "STUDENT", date(2026, 9, 1), date(2026, 10, 1)),
        ("s1", "STUDENT", date(2026, 10, 1), None),
    ]
    assert await office.waiting() == [("TOUCH_CLASSROOM", "", "7b")] * 3


@pytest.mark.feature("X-09")
async def test_null_opens_a_closed_interval_again(pool: Pool) -> None:
    office = await open_class(pool, "s1")
    await office.done("saveEnrollment", **enrolment(endsOn="2026-10-01"))

    await office.done("saveEnrollment", **enrolment(endsOn=None))

    assert await office.all_of(INTERVALS) == [("s1", "STUDENT", date(2026, 9, 1), None)]


@pytest.mark.feature("X-09")
@pytest.mark.parametrize(
    ("starts_on", "ends_on"),
    [
        ("2026-09-30", None),
        ("2026-08-01", "2026-09-02"),
        ("2026-08-01", None),
        ("2026-09-10", "2026-09-11"),
    ],
)
async def test_days_in_common_with_another_interval_are_refused(
    pool: Pool, starts_on: str, ends_on: str | None
) -> None:
    office = await open_class(pool, "s1")
    await office.done("saveEnrollment", **enrolment(endsOn="2026-10-01"))

    codes = await office.codes("saveEnrollment", **enrolment(starts_on=starts_on, endsOn=ends_on))

    assert codes == [("OVERLAP", "startsOn")]


@pytest.mark.feature("X-09")
async def test_an_interval_may_not_grow_into_the_next_one(pool: Pool) -> None:
    office = await open_class(pool, "s1")
    await office.done("saveEnrollment", **enrolment(endsOn="2026-10-01"))
    await office.done("saveEnrollment", **enrolment(starts_on="2026-10-01"))

    assert await office.codes("saveEnrollment", **enrolment(endsOn="2026-10-02")) == [("OVERLAP", "startsOn")]


@pytest.mark.feature("X-09")
async def test_an_enrolment_is_cancelled_by_ending_on_its_first_day(pool: Pool) -> None:
    office = await open_class(pool, "s1")
    await office.done("saveEnrollment", **enrolment())

    await office.done("saveEnrollment", **enrolment(endsOn="2026-09-01"))
    await office.done("saveEnrollment", **enrolment(starts_on="2026-08-15", endsOn="2026-09-15"))

    assert await office.all_of(INTERVALS) == [
        ("s1", "STUDENT", date(2026, 8, 15), date(2026, 9, 15)),
        ("s1", "STUDENT", date(2026, 9, 1), date(2026, 9, 1)),
    ]


@pytest.mark.feature("003-17", "000-24")
async def test_a_teacher_needs_no_student_entry_and_moves_no_number(pool: Pool) -> None:
    office = await open_class(pool)

    payload = await office.done(
        "saveEnrollment", "enrollment { displayName }", **enrolment("t1", role="TEACHER", displayName="Ms. Ray")
    )

    assert payload["enrollment"] == {"displayName": "Ms. Ray"}
    assert await office.all_of(INTERVALS) == [("t1", "TEACHER", date(2026, 9, 1), None)]
    assert await office.all_of("select student from student where tenant = $1") == []
    assert (await office.waiting(), office.bell.marked) == ([], [])


@pytest.mark.feature("000-24")
async def test_a_machine_is_shown_no_name(pool: Pool) -> None:
    office = await open_class(pool)
    machine = office.viewer("sis", Role.INTEGRATOR, scopes=frozenset({Scope.ROSTER}))

    payload = await office.done(
        "saveEnrollment",
        "enrollment { personId displayName }",
        by=machine,
        **enrolment("t1", role="TEACHER", displayName="Ms. Ray"),
    )

    assert payload["enrollment"] == {"personId": "t1", "displayName": None}


@pytest.mark.feature("003-17")
@pytest.mark.parametrize(
    ("sent", "codes"),
    [
        (enrolment("s9"), [("NOT_FOUND", "personId")]),
        (enrolment(classroomId="8c"), [("NOT_FOUND", "classroomId")]),
        (enrolment(endsOn="2026-08-31"), [("OUT_OF_RANGE", "endsOn")]),
        (enrolment(starts_on="1969-12-31"), [("OUT_OF_RANGE", "startsOn")]),
        (enrolment(starts_on="9999-12-31"), [("OUT_OF_RANGE", "startsOn")]),
        (enrolment(endsOn="2200-01-01"), [("OUT_OF_RANGE", "endsOn")]),
        (enrolment("", classroomId=""), [("BAD_ID", "classroomId"), ("BAD_ID", "personId")]),
        (enrolment(displayName=" "), [("BAD_TEXT", "displayName")]),
    ],
)
async def test_a_wrong_enrolment_is_told_field_by_field(
    pool: Pool, sent: dict[str, Any], codes: list[tuple[str, str]]
) -> None:
    office = await open_class(pool, "s1")

    assert await office.codes("saveEnrollment", **sent) == codes
