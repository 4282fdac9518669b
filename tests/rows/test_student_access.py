"""Who may read a student, and who may know that they are at risk."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from db.pool import Pool, tenant_transaction
from db.visibility import ClassroomTies, of_classrooms
from graph.nodes import global_id
from rules.access import Role, Scope
from tests.rows.district import NOW, TODAY, open_district
from tests.rows.reading import Reader
from tests.rows.test_students import with_ada

DAY = timedelta(days=1)
WHO = 'query ($id: ID! = "ada") { student(id: $id) { id key displayName zone } }'
FLAGS = """query ($first: Int! = 20, $after: String) {
  student(id: "ada") {
    key
    riskFlags(first: $first, after: $after) {
      nodes { studentId classroomId reason severity raisedAt clearsWhen student { key } }
      pageInfo { hasNextPage endCursor }
    }
  }
}"""
SEEN = {"id": global_id("Student", "ada"), "key": "ada", "displayName": "Ada Lovelace", "zone": "Europe/Berlin"}


@pytest.mark.feature("000-18", "000-24")
async def test_a_student_is_seen_by_themselves_guardians_their_teachers_admins_and_readers(pool: Pool) -> None:
    district = await with_ada(pool)
    await district.classroom("8a")
    await district.enroll("bob", "8a")
    await district.teach("miller")
    await district.teach("smith", "8a")
    await district.teach("gone", ended=TODAY)
    await district.teach("coming", started=TODAY + DAY)
    await district.guard("eve", "ada")
    await district.guard("mallory", "ada", revoked_at=NOW)
    other = await open_district(pool)
    other_ada = await open_district(pool)
    await other_ada.enroll("ada")
    tenant = district.tenant
    nameless = {**SEEN, "displayName": None}

    seen = {
        "self": (Reader(pool, tenant, "ada", {Role.STUDENT}), SEEN),
        "guardian": (Reader(pool, tenant, "eve", {Role.GUARDIAN}), SEEN),
        "own teacher": (Reader(pool, tenant, "miller", {Role.TEACHER}), SEEN),
        "admin": (Reader(pool, tenant), SEEN),
        "machine with read": (Reader(pool, tenant, "sis", {Role.INTEGRATOR}, {Scope.READ}), nameless),
        "the same key in another tenant": (Reader(pool, other_ada.tenant), {**nameless, "zone": "UTC"}),
        "another student": (Reader(pool, tenant, "bob", {Role.STUDENT}), None),
        "revoked guardian": (Reader(pool, tenant, "mallory", {Role.GUARDIAN}), None),
        "linked, but not as a guardian": (Reader(pool, tenant, "eve", {Role.STUDENT, Role.TEACHER}), None),
        "teacher of another class": (Reader(pool, tenant, "smith", {Role.TEACHER}), None),
        "teacher until yesterday": (Reader(pool, tenant, "gone", {Role.TEACHER}), None),
        "teacher from tomorrow": (Reader(pool, tenant, "coming", {Role.TEACHER}), None),
        "self, without the role": (Reader(pool, tenant, "ada", {Role.GUARDIAN}), None),
        "admin of another tenant": (Reader(pool, other.tenant), None),
    }

    for name, (reader, expected) in seen.items():
        assert (name, await reader.data(WHO)) == (name, {"student": expected})


@pytest.mark.feature("000-18")
async def test_a_student_out_of_scope_answers_exactly_like_an_unknown_one(pool: Pool) -> None:
    district = await with_ada(pool)
    reader = Reader(pool, district.tenant, "bob", {Role.STUDENT})

    foreign, unknown = await reader.ask(WHO), await reader.ask(WHO, id="nobody")

    assert foreign == unknown
    assert foreign.body == {"data": {"student": None}}


async def test_a_machine_without_read_is_refused_before_anything_is_read(pool: Pool) -> None:
    district = await with_ada(pool)
    reader = Reader(pool, district.tenant, "sis", {Role.INTEGRATOR}, {Scope.INGEST})

    answer = await reader.ask(WHO)

    assert (answer.data, answer.codes, reader.statements) == ({"student": None}, {"FORBIDDEN"}, 0)


@pytest.mark.feature("X-09")
async def test_a_teacher_loses_sight_of_a_student_on_the_local_day_on_which_they_leave(pool: Pool) -> None:
    district = await open_district(pool, zone="Pacific/Auckland")
    await district.classroom("7b")
    await district.enroll("ada", ended=date(2026, 3, 12))
    await district.teach("miller")
    midnight_in_auckland = datetime(2026, 3, 11, 11, tzinfo=UTC)

    before = Reader(
        pool, district.tenant, "miller", {Role.TEACHER}, clock=lambda: midnight_in_auckland - timedelta(seconds=1)
    )
    after = Reader(pool, district.tenant, "miller", {Role.TEACHER}, clock=lambda: midnight_in_auckland)

    assert (await before.data(WHO))["student"]["key"] == "ada"
    assert (await after.data(WHO)) == {"student": None}


@pytest.mark.feature("000-14", "000-18")
async def test_risk_flags_are_the_staffs_and_a_teacher_sees_those_of_own_classes(pool: Pool) -> None:
    district = await with_ada(pool)
    await district.classroom("8a")
    await district.enroll("ada", "8a")
    await district.teach("miller")
    await district.guard("eve", "ada")
    await district.guard("miller", "ada")
    await district.flag("ada", "INACTIVE", 1)
    await district.flag("ada", "SCORE_TREND_DOWN", None)
    await district.flag("ada", "INACTIVE", 3, classroom="8a")
    tenant = district.tenant

    def flag(classroom: str, severity: str) -> dict[str, Any]:
        return {
            "studentId": "ada",
            "classroomId": classroom,
            "reason": "INACTIVE",
            "severity": severity,
            "raisedAt": "2026-03-11T09:30:00Z",
            "clearsWhen": "Clears when ada is back.",
            "student": {"key": "ada"},
        }

    for reader in (Reader(pool, tenant), Reader(pool, tenant, "sis", {Role.INTEGRATOR}, {Scope.READ})):
        nodes = (await reader.data(FLAGS))["student"]["riskFlags"]["nodes"]
        assert nodes == [flag("8a", "HIGH"), flag("7b", "LOW")]
    teacher = Reader(pool, tenant, "miller", {Role.TEACHER})
    assert (await teacher.data(FLAGS))["student"]["riskFlags"]["nodes"] == [flag("7b", "LOW")]
    for reader in (
        Reader(pool, tenant, "ada", {Role.STUDENT}),
        Reader(pool, tenant, "eve", {Role.GUARDIAN, Role.TEACHER}),
    ):
        answer = await reader.ask(FLAGS)
        assert answer.data == {"student": {"key": "ada", "riskFlags": None}}
        assert answer.codes == {"FORBIDDEN"}


@pytest.mark.feature("000-14")
async def test_pages_of_flags_follow_each_other(pool: Pool) -> None:
    district = await with_ada(pool)
    await district.flag("ada", "INACTIVE", 1)
    await district.flag("ada", "SCORE_TREND_DOWN", 2)
    reader = Reader(pool, district.tenant)

    one = (await reader.data(FLAGS, first=1))["student"]["riskFlags"]
    two = (await reader.data(FLAGS, first=1, after=one["pageInfo"]["endCursor"]))["student"]["riskFlags"]

    assert [flag["reason"] for flag in one["nodes"] + two["nodes"]] == ["SCORE_TREND_DOWN", "INACTIVE"]
    assert (one["pageInfo"]["hasNextPage"], two["pageInfo"]["hasNextPage"]) == (True, False)


@pytest.mark.feature("003-17")
async def test_ties_to_classes_hold_from_the_first_local_day_to_the_last(pool: Pool) -> None:
    district = await open_district(pool, zone="Pacific/Auckland")  # where it is 22:30 on the 11th
    await district.school("north", zone="Asia/Tokyo")
    await district.classroom("7b", school="north")
    await district.classroom("8a", zone="Europe/Berlin")
    await district.classroom("9c")
    await district.teach("miller", "7b", started=TODAY)
    await district.teach("miller", "8a", ended=TODAY)
    await district.enroll("miller", "9c")

    async with tenant_transaction(pool, district.tenant, read_only=True) as connection:
        ties = await of_classrooms(connection, district.tenant, ["7b", "8a", "9c", "nope"], viewer="miller", now=NOW)

    assert ties == {
        "7b": ClassroomTies("7b", "Asia/Tokyo", is_teacher=True, is_enrolled=False),
        "8a": ClassroomTies("8a", "Europe/Berlin", is_teacher=False, is_enrolled=False),
        "9c": ClassroomTies("9c", "Pacific/Auckland", is_teacher=False, is_enrolled=True),
    }
