"""Schools, students, classes and guardian links: saved once, named to the fold only when something changed."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from db.outbox import shard_of
from db.pool import Pool
from rules.access import Role, Scope
from tests.rows.office import Office, enrolment, open_class, open_office

ROSTER = frozenset({Scope.ROSTER})


@pytest.mark.feature("003-17", "X-10")
async def test_a_new_student_is_touched_so_that_what_came_before_the_roster_is_bound(pool: Pool) -> None:
    office = await open_office(pool)

    payload = await office.done(
        "saveStudent", "student { key zone displayName }", key="s1", displayName="Ada", zone="Europe/Berlin"
    )

    assert payload == {"seq": "1", "student": {"key": "s1", "zone": "Europe/Berlin", "displayName": "Ada"}}
    assert await office.waiting() == [("TOUCH_STUDENT", "s1", "")]
    assert office.bell.marked == [(office.tenant, shard_of(classroom="", student="s1"))]


@pytest.mark.feature("003-17")
async def test_saving_the_same_student_again_writes_nothing_and_names_the_same_position(pool: Pool) -> None:
    office = await open_office(pool)
    await office.done("saveStudent", key="s1", displayName="Ada", zone="Europe/Berlin")
    office.bell.marked.clear()
    before = await office.rows()

    payload = await office.done("saveStudent", key="s1", displayName="Ada", zone="Europe/Berlin")

    assert payload == {"seq": "1"}
    assert await office.rows() == before
    assert office.bell.marked == []


@pytest.mark.feature("003-17", "000-24")
async def test_a_new_name_moves_no_number_and_a_new_zone_does(pool: Pool) -> None:
    office = await open_office(pool)
    await office.done("saveStudent", key="s1", displayName="Ada", zone="Europe/Berlin")
    await office.folded()

    await office.done("saveStudent", key="s1", displayName="Ada L.")
    after_name = await office.waiting()
    await office.done("saveStudent", key="s1", zone="Asia/Tokyo")

    assert after_name == []
    assert await office.waiting() == [("TOUCH_STUDENT", "s1", "")]
    assert await office.all_of("select person, display_name from person where tenant = $1") == [("s1", "Ada L.")]


@pytest.mark.feature("003-17", "X-09")
async def test_a_students_new_zone_reaches_the_classes_in_which_they_have_done_nothing(pool: Pool) -> None:
    office = await open_class(pool, "s1", "s2")
    await office.done("saveEnrollment", **enrolment("s1"))
    await office.folded()

    await office.done("saveStudent", key="s1", zone="Asia/Tokyo")
    await office.done("saveStudent", key="s2", zone="Asia/Tokyo")

    assert sorted(await office.waiting()) == [
        ("TOUCH_CLASSROOM", "", "7b"),
        ("TOUCH_STUDENT", "s1", ""),
        ("TOUCH_STUDENT", "s2", ""),
    ]


@pytest.mark.feature("003-17", "000-24")
async def test_null_forgets_a_name_and_a_zone_and_leaving_out_keeps_them(pool: Pool) -> None:
    office = await open_office(pool)
    wants = "student { zone displayName }"
    await office.done("saveStudent", key="s1", displayName="Ada", zone="Asia/Tokyo")

    kept = await office.done("saveStudent", wants, key="s1")
    cleared = await office.done("saveStudent", wants, key="s1", displayName=None, zone=None)

    assert kept["student"] == {"zone": "Asia/Tokyo", "displayName": "Ada"}
    assert cleared["student"] == {"zone": "UTC", "displayName": None}
    assert await office.all_of("select person from person where tenant = $1") == []


@pytest.mark.feature("003-17", "000-24")
async def test_a_person_who_was_named_as_a_teacher_keeps_the_name_as_a_student(pool: Pool) -> None:
    office = await open_office(pool)
    await office.done("saveClassroom", key="7b", name="7b")
    await office.done(
        "saveEnrollment", classroomId="7b", personId="p1", role="TEACHER", startsOn="2026-09-01", displayName="Ms. Ray"
    )

    payload = await office.done("saveStudent", "student { displayName }", key="p1")

    assert payload["student"] == {"displayName": "Ms. Ray"}


@pytest.mark.feature("003-17", "X-10")
async def test_a_new_class_is_folded_again_from_the_log(pool: Pool) -> None:
    office = await open_office(pool)
    await office.done("saveSchool", key="north", name="North School", zone="Europe/Berlin")

    payload = await office.done(
        "saveClassroom", "classroom { key name zone }", key="7b", name="Maths 7b", schoolId="north"
    )

    assert payload == {"seq": "1", "classroom": {"key": "7b", "name": "Maths 7b", "zone": "Europe/Berlin"}}
    assert await office.waiting() == [("REFOLD_CLASSROOM", "", "7b")]
    assert office.bell.marked == [(office.tenant, shard_of(classroom="7b", student=""))]


@pytest.mark.feature("003-17")
async def test_a_class_is_looked_at_again_when_its_days_move_and_not_when_its_name_does(pool: Pool) -> None:
    office = await open_office(pool)
    await office.done("saveSchool", key="north", name="North School")
    await office.done("saveClassroom", key="7b", name="7b")
    await office.folded()

    await office.done("saveClassroom", key="7b", name="Maths 7b")
    after_name = await office.waiting()
    await office.done("saveClassroom", key="7b", name="Maths 7b", zone="Asia/Tokyo")
    await office.done("saveClassroom", key="7b", name="Maths 7b", schoolId="north")
    await office.done("saveClassroom", key="7b", name="Maths 7b", schoolId="north", zone="Asia/Tokyo")

    assert after_name == []
    assert await office.waiting() == [("TOUCH_CLASSROOM", "", "7b")] * 2


@pytest.mark.feature("003-17")
async def test_a_schools_zone_reaches_its_classes_that_have_none_of_their_own(pool: Pool) -> None:
    office = await open_office(pool)
    await office.done("saveSchool", key="north", name="North School")
    await office.done("saveClassroom", key="7a", name="7a", schoolId="north", zone="Asia/Tokyo")
    await office.done("saveClassroom", key="7b", name="7b", schoolId="north")
    await office.done("saveClassroom", key="8c", name="8c")
    await office.folded()

    await office.done("saveSchool", key="north", name="Northern School")
    after_name = await office.waiting()
    payload = await office.done("saveSchool", "school { key name zone }", key="north", name="N", zone="Asia/Kolkata")

    assert after_name == []
    assert await office.waiting() == [("TOUCH_CLASSROOM", "", "7b")]
    assert payload == {"seq": await office.head(), "school": {"key": "north", "name": "N", "zone": "Asia/Kolkata"}}


@pytest.mark.feature("003-17")
async def test_a_class_of_an_unknown_school_is_refused(pool: Pool) -> None:
    office = await open_office(pool)

    assert await office.codes("saveClassroom", key="7b", name="7b", schoolId="nowhere") == [("NOT_FOUND", "schoolId")]


@pytest.mark.feature("001-31")
async def test_a_guardians_consent_is_recorded_once(pool: Pool) -> None:
    office = await open_office(pool)
    await office.done("saveStudent", key="s1")
    await office.folded()
    consent: dict[str, Any] = {"guardianId": "g1", "studentId": "s1", "consentAt": "2026-11-02T08:00:00Z"}

    payload = await office.done("linkGuardian", "student { key }", **consent)
    before = await office.rows()
    await office.done("linkGuardian", **consent)

    assert payload == {"seq": "1", "student": {"key": "s1"}}
    assert await office.rows() == before
    assert await office.waiting() == []
    assert await office.all_of(
        "select guardian, student, consent_at, revoked_at from guardian_link where tenant = $1"
    ) == [("g1", "s1", datetime(2026, 11, 2, 8, tzinfo=UTC), None)]


@pytest.mark.feature("001-31")
async def test_an_old_consent_does_not_bring_back_a_revoked_link_and_a_new_one_does(pool: Pool) -> None:
    office = await open_office(pool)
    await office.done("saveStudent", key="s1")
    await office.done("linkGuardian", guardianId="g1", studentId="s1", consentAt="2026-11-02T08:00:00Z")
    async with office.writing() as connection:
        revoked = "update guardian_link set revoked_at = '2026-11-10T08:00:00Z' where tenant = $1"
        await connection.execute(revoked, office.tenant)

    old = await office.codes("linkGuardian", guardianId="g1", studentId="s1", consentAt="2026-11-02T08:00:00Z")
    await office.done("linkGuardian", guardianId="g1", studentId="s1", consentAt="2026-11-11T08:00:00Z")

    assert old == [("REVOKED", "consentAt")]
    assert await office.all_of("select revoked_at from guardian_link where tenant = $1") == [(None,)]


@pytest.mark.feature("001-31")
async def test_a_consent_needs_a_known_student_and_a_time_that_has_come(pool: Pool) -> None:
    office = await open_office(pool)
    consent_at = "2026-11-02T08:00:00Z"

    unknown = await office.codes("linkGuardian", guardianId="g1", studentId="s9", consentAt=consent_at)
    ahead = await office.codes("linkGuardian", guardianId="g1", studentId="s9", consentAt="2026-11-18T09:45:01Z")

    assert unknown == [("NOT_FOUND", "studentId")]
    assert ahead == [("OUT_OF_RANGE", "consentAt")]


WRONG: list[tuple[str, dict[str, Any], list[tuple[str, str]]]] = [
    ("saveSchool", {"key": "", "name": "N"}, [("BAD_ID", "key")]),
    ("saveSchool", {"key": " n", "name": "N"}, [("BAD_ID", "key")]),
    ("saveSchool", {"key": "n" * 129, "name": "N"}, [("BAD_ID", "key")]),
    ("saveSchool", {"key": "n\n", "name": "N"}, [("BAD_ID", "key")]),
    ("saveSchool", {"key": "n", "name": ""}, [("BAD_TEXT", "name")]),
    ("saveSchool", {"key": "n", "name": " \u00a0"}, [("BAD_TEXT", "name")]),
    ("saveSchool", {"key": "n", "name": "a\tb"}, [("BAD_TEXT", "name")]),
    ("saveSchool", {"key": "n", "name": "a\u2028b"}, [("BAD_TEXT", "name")]),
    ("saveSchool", {"key": "n", "name": "N" * 201}, [("TOO_LONG", "name")]),
    ("saveSchool", {"key": "n", "name": "N", "zone": "Mars/Olympus"}, [("BAD_ZONE", "zone")]),
    ("saveSchool", {"key": "n", "name": "N", "zone": ""}, [("BAD_ZONE", "zone")]),
    ("saveSchool", {"key": "n", "name": "N", "zone": "../../etc/passwd"}, [("BAD_ZONE", "zone")]),
    ("saveSchool", {"key": "n", "name": "N", "zone": "Europe"}, [("BAD_ZONE", "zone")]),
    ("saveSchool", {"key": "n", "name": "N", "zone": "z" * 5_000}, [("BAD_ZONE", "zone")]),
    (
        "saveSchool",
        {"key": "", "name": "", "zone": "x"},
        [("BAD_ID", "key"), ("BAD_TEXT", "name"), ("BAD_ZONE", "zone")],
    ),
    ("saveStudent", {"key": "\x7f"}, [("BAD_ID", "key")]),
    ("saveStudent", {"key": "s1", "displayName": ""}, [("BAD_TEXT", "displayName")]),
    ("saveStudent", {"key": "s1", "zone": "UTC\x00"}, [("BAD_ZONE", "zone")]),
    ("saveClassroom", {"key": "7b", "name": "7b", "schoolId": ""}, [("BAD_ID", "schoolId")]),
    (
        "linkGuardian",
        {"guardianId": "", "studentId": "", "consentAt": "1970-01-01T00:00:00Z"},
        [("BAD_ID", "guardianId"), ("BAD_ID", "studentId")],
    ),
]


@pytest.mark.feature("003-17")
@pytest.mark.parametrize(("mutation", "sent", "codes"), WRONG)
async def test_wrong_input_is_told_field_by_field_and_changes_nothing(
    pool: Pool, mutation: str, sent: dict[str, Any], codes: list[tuple[str, str]]
) -> None:
    office = await open_office(pool)

    assert await office.codes(mutation, **sent) == codes


@pytest.mark.feature("003-17")
async def test_names_in_every_script_are_kept_as_they_are(pool: Pool) -> None:
    office = await open_office(pool)
    name = "\u0645\u062f\u0631\u0633\u0629 \u5317 O\u2019Neill \U0001f469\u200d\U0001f3eb \U0001fae9"

    payload = await office.done("saveSchool", "school { name }", key="n\u00f6rd", name=name)

    assert payload["school"] == {"name": name}


SENT: list[tuple[str, dict[str, Any]]] = [
    ("saveSchool", {"key": "x", "name": "X"}),
    ("saveStudent", {"key": "x"}),
    ("saveClassroom", {"key": "x", "name": "X"}),
    ("linkGuardian", {"guardianId": "g1", "studentId": "s1", "consentAt": "2026-11-02T08:00:00Z"}),
    ("saveEnrollment", {"classroomId": "7b", "personId": "s1", "role": "STUDENT", "startsOn": "2026-09-01"}),
    ("saveAssignment", {"key": "a1", "classroomId": "7b", "title": "A", "conceptIds": ["c1"]}),
    ("saveCatalog", {"subjects": [{"key": "x", "name": "X"}]}),
    ("updateClassroomPolicy", {"classroomId": "7b", "minEvidence": 5}),
]
FOR_TEACHERS = {"saveAssignment", "updateClassroomPolicy"}


async def furnished(pool: Pool) -> Office:
    """An office in which everything of SENT would succeed for an admin."""
    office = await open_office(pool)
    await office.done(
        "saveCatalog",
        subjects=[{"key": "maths", "name": "Maths"}],
        concepts=[{"key": "c1", "name": "One", "subjectId": "maths"}],
    )
    await office.done("saveStudent", key="s1")
    await office.done("saveClassroom", key="7b", name="7b")
    await office.folded()
    return office


@pytest.mark.feature("003-17")
@pytest.mark.parametrize(("mutation", "sent"), SENT)
async def test_students_guardians_and_other_machines_are_denied_and_nothing_changes(
    pool: Pool, mutation: str, sent: dict[str, Any]
) -> None:
    office = await furnished(pool)
    before = await office.rows()
    outsiders = [
        office.viewer("s1", Role.STUDENT),
        office.viewer("g1", Role.GUARDIAN),
        office.viewer("m1", Role.INTEGRATOR, scopes=frozenset({Scope.INGEST, Scope.READ, Scope.WEBHOOKS})),
    ]

    bodies = [await office.send(mutation, "", by=outsider, **sent) for outsider in outsiders]

    assert [[error["extensions"]["code"] for error in body["errors"]] for body in bodies] == [["FORBIDDEN"]] * 3
    assert [body["data"] for body in bodies] == [None] * 3
    assert (await office.rows(), office.bell.marked) == (before, [])


@pytest.mark.feature("003-17")
@pytest.mark.parametrize(
    ("mutation", "sent"), [sent for sent in SENT if sent[0] not in {"saveAssignment", "updateClassroomPolicy"}]
)
async def test_teachers_keep_no_roster(pool: Pool, mutation: str, sent: dict[str, Any]) -> None:
    office = await furnished(pool)
    await office.done("saveEnrollment", classroomId="7b", personId="t1", role="TEACHER", startsOn="2026-09-01")
    before = await office.rows()

    body = await office.send(mutation, "", by=office.viewer("t1", Role.TEACHER), **sent)

    assert [error["extensions"]["code"] for error in body["errors"]] == ["FORBIDDEN"]
    assert await office.rows() == before


@pytest.mark.feature("003-17")
@pytest.mark.parametrize(("mutation", "sent"), [sent for sent in SENT if sent[0] != "updateClassroomPolicy"])
async def test_a_machine_with_the_scope_roster_saves_and_reads_only_what_it_may_read(
    pool: Pool, mutation: str, sent: dict[str, Any]
) -> None:
    office = await furnished(pool)

    payload = await office.done(mutation, by=office.viewer("sis", Role.INTEGRATOR, scopes=ROSTER), **sent)

    assert payload == {"seq": await office.head()}


@pytest.mark.feature("003-17")
async def test_one_tenants_roster_does_not_see_anothers(pool: Pool) -> None:
    office, other = await furnished(pool), await open_office(pool)
    before = await office.rows()

    codes = await other.codes("linkGuardian", guardianId="g1", studentId="s1", consentAt="2026-11-02T08:00:00Z")
    await other.done("saveStudent", key="s1", displayName="Somebody else")

    assert codes == [("NOT_FOUND", "studentId")]
    assert await office.rows() == before


@pytest.mark.feature("003-17")
async def test_many_saves_at_once_wait_for_each_other_and_all_take_effect(pool: Pool) -> None:
    office = await open_office(pool)

    await asyncio.gather(*(office.done("saveStudent", key=f"s{number % 10}") for number in range(40)))

    assert await office.all_of("select count(*) from student where tenant = $1") == [(10,)]
    assert len(await office.waiting()) == 10
    assert await office.head() == "10"
