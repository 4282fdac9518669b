"""Schools as they are read: by everyone who is in one of their classes, with the classes that are theirs to see."""

from typing import Any

import pytest

from db.pool import Pool
from rules.access import Role, Scope
from tests.rows.district import District, open_district
from tests.rows.staffroom import machine, of

SCHOOL = """query ($first: Int! = 20, $after: String) { school(id: "north") {
  key name zone classrooms(first: $first, after: $after) { nodes { key } pageInfo { endCursor } }
} }"""


@pytest.fixture
async def district(pool: Pool) -> District:
    """Class 7b of the school north in Berlin, of the teacher Tom, with Ann and Bob."""
    opened = await open_district(pool)
    await opened.school("north", zone="Europe/Berlin")
    await opened.classroom("7b", school="north")
    await opened.teach("tom")
    for student in ("ann", "bob"):
        await opened.enroll(student)
    return opened


@pytest.mark.feature("003-17")
async def test_a_school_shows_all_its_classes_to_admins_and_a_teachers_own_to_the_teacher(district: District) -> None:
    await district.classroom("8a", school="north")
    await district.classroom("elsewhere")
    whole = {"key": "north", "name": "School north", "zone": "Europe/Berlin"}

    async def classes(asker: Any) -> Any:
        shown = (await asker.data(SCHOOL))["school"]
        assert {name: shown[name] for name in whole} == whole
        return [node["key"] for node in shown["classrooms"]["nodes"]]

    assert await classes(of(district, "head", Role.ADMIN)) == ["7b", "8a"]
    assert await classes(machine(district, Scope.READ)) == ["7b", "8a"]
    assert await classes(of(district, "tom", Role.TEACHER)) == ["7b"]


@pytest.mark.feature("003-17")
async def test_a_student_sees_the_school_of_their_class_but_not_its_classes(district: District, pool: Pool) -> None:
    stranger = await open_district(pool)

    ann = await of(district, "ann", Role.STUDENT).refusals(
        '{ school(id: "north") { key classrooms { nodes { key } } } }'
    )

    assert ann == ({"school": {"key": "north", "classrooms": None}}, [("school.classrooms", "FORBIDDEN")])
    for asker in (of(district, "cid", Role.STUDENT), of(district, "ann", Role.TEACHER), of(stranger, "x", Role.ADMIN)):
        assert await asker.refusals('{ school(id: "north") { key } }') == ({"school": None}, [])
    assert await of(district, "ada", Role.GUARDIAN).refusals('{ school(id: "north") { key } }') == (
        {"school": None},
        [("school", "FORBIDDEN")],
    )


@pytest.mark.feature("003-17")
async def test_pages_of_a_schools_classes_miss_none_while_classes_are_added(district: District) -> None:
    for key in ("7a", "7c"):
        await district.classroom(key, school="north")
    head = of(district, "head", Role.ADMIN)

    first = await head.data(SCHOOL, first=2)
    await district.classroom("6a", school="north")
    second = await head.data(SCHOOL, after=first["school"]["classrooms"]["pageInfo"]["endCursor"])

    keys = [[node["key"] for node in page["school"]["classrooms"]["nodes"]] for page in (first, second)]
    assert keys == [["7a", "7b"], ["7c"]]
