"""Who is asking, with the classes and children that are theirs; and the service they ask."""

from datetime import date, timedelta
from typing import Any

import pytest

from db.pool import Pool
from graph.service import version
from rules.access import Role, Scope
from tests.rows.district import NOW, District, open_district
from tests.rows.staffroom import machine, of

VIEWER = "{ viewer { key roles tenant { key name zone } lagMs asOf { seq withheld } } }"
CLASSROOMS = """query ($first: Int! = 20, $after: String) { viewer { classrooms(first: $first, after: $after) {
  nodes { key name } pageInfo { hasNextPage endCursor }
} } }"""
CHILDREN = """query ($first: Int! = 20, $after: String) { viewer { children(first: $first, after: $after) {
  nodes { key } pageInfo { hasNextPage endCursor }
} } }"""
SERVICE = "{ service { status version uptimeSeconds } }"


@pytest.fixture
async def district(pool: Pool) -> District:
    """A tenant in Berlin with the classes 7b and 8a."""
    opened = await open_district(pool, zone="Europe/Berlin")
    for key in ("7b", "8a"):
        await opened.classroom(key)
    return opened


def keys_of(data: Any, field: str) -> list[str]:
    return [node["key"] for node in data["viewer"][field]["nodes"]]


@pytest.mark.feature("003-17", "X-22")
async def test_everyone_learns_who_they_are_and_how_fresh_the_answers_are(district: District) -> None:
    tenant = {"key": str(district.tenant), "name": "North District", "zone": "Europe/Berlin"}
    fresh = {"lagMs": 0, "asOf": {"seq": "0", "withheld": 0}}

    for asker, key, roles in (
        (of(district, "tea", Role.TEACHER, Role.ADMIN), "tea", ["ADMIN", "TEACHER"]),
        (of(district, "ada", Role.GUARDIAN), "ada", ["GUARDIAN"]),
        (machine(district), "sis", ["INTEGRATOR"]),
    ):
        expected = {"viewer": {"key": key, "roles": roles, "tenant": tenant, **fresh}}
        if key == "sis":  # a machine without any scope may do nothing at all
            assert await asker.refusals(VIEWER) == ({"viewer": None}, [("viewer", "FORBIDDEN")])
            asker = machine(district, Scope.WEBHOOKS)
        assert await asker.data(VIEWER) == expected


@pytest.mark.feature("003-17")
async def test_a_teacher_has_the_classes_taught_today_and_a_student_those_enrolled_in_today(
    district: District,
) -> None:
    await district.classroom("9c")
    await district.teach("tea", "7b")
    await district.teach("tea", "8a", ended=date(2026, 3, 11))
    await district.enroll("tea", "9c")
    await district.teach("co", "7b", started=date(2026, 3, 11))
    await district.teach("new", "7b", started=date(2026, 3, 12))

    async def classes(key: str, *roles: Role) -> list[str]:
        return keys_of(await of(district, key, *roles).data(CLASSROOMS), "classrooms")

    assert await classes("tea", Role.TEACHER) == ["7b"]
    assert await classes("tea", Role.STUDENT) == ["9c"]
    assert await classes("tea", Role.TEACHER, Role.STUDENT) == ["7b", "9c"]
    assert await classes("co", Role.TEACHER) == ["7b"]
    assert await classes("new", Role.TEACHER) == []


@pytest.mark.feature("003-17")
async def test_a_class_that_one_teaches_and_learns_in_is_listed_once(district: District) -> None:
    await district.teach("tea", "7b")
    await district.enroll("tea", "7b")

    data = await of(district, "tea", Role.TEACHER, Role.STUDENT).data(CLASSROOMS)

    assert data["viewer"]["classrooms"]["nodes"] == [{"key": "7b", "name": "Class 7b"}]


@pytest.mark.feature("003-17")
async def test_pages_of_ones_classes_miss_none_while_one_joins_another(district: District) -> None:
    await district.teach("tea", "7b")
    await district.teach("tea", "8a")
    tea = of(district, "tea", Role.TEACHER)

    first = await tea.data(CLASSROOMS, first=1)
    await district.classroom("6a")
    await district.teach("tea", "6a")
    second = await tea.data(CLASSROOMS, first=1, after=first["viewer"]["classrooms"]["pageInfo"]["endCursor"])

    assert (keys_of(first, "classrooms"), keys_of(second, "classrooms")) == (["7b"], ["8a"])
    assert second["viewer"]["classrooms"]["pageInfo"]["hasNextPage"] is False
    assert tea.statements == 3  # freshness, the page, the ties


@pytest.mark.feature("003-17")
async def test_a_guardian_has_the_children_with_active_consent(district: District) -> None:
    for child in ("ann", "bob", "cid", "dee", "eve"):
        await district.student(child)
    await district.guard("ada", "ann")
    await district.guard("ada", "bob", revoked_at=NOW)
    await district.guard("ada", "cid")
    await district.guard("ada", "eve")
    await district.guard("ada", "unrostered")
    await district.guard("ben", "dee")
    await district.run("update guardian_link set consent_at = $2 where tenant = $1 and student = 'dee'", NOW)
    ada, ben = of(district, "ada", Role.GUARDIAN), of(district, "ben", Role.GUARDIAN)
    ben.clock = lambda: NOW - timedelta(seconds=1)  # a second before the consent

    first = await ada.data(CHILDREN, first=2)
    await district.student("abe")
    await district.guard("ada", "abe")
    second = await ada.data(CHILDREN, after=first["viewer"]["children"]["pageInfo"]["endCursor"])

    assert (keys_of(first, "children"), keys_of(second, "children")) == (["ann", "cid"], ["eve"])
    assert first["viewer"]["children"]["pageInfo"]["hasNextPage"] is True
    assert keys_of(await ada.data(CHILDREN), "children") == ["abe", "ann", "cid", "eve"]
    assert keys_of(await ben.data(CHILDREN), "children") == []


@pytest.mark.feature("003-17")
async def test_classes_are_for_teachers_and_students_and_children_for_guardians(district: District) -> None:
    both = "{ viewer { key classrooms { nodes { key } } children { nodes { key } } } }"
    none: dict[str, Any] = {"nodes": []}
    classes, children = [("viewer.classrooms", "FORBIDDEN")], [("viewer.children", "FORBIDDEN")]

    async def answer(*roles: Role, scopes: set[Scope] | None = None) -> Any:
        data, errors = await of(district, "x", *roles, scopes=scopes).refusals(both)
        return data["viewer"]["classrooms"], data["viewer"]["children"], sorted(errors)

    assert await answer(Role.TEACHER) == (none, None, children)
    assert await answer(Role.STUDENT) == (none, None, children)
    assert await answer(Role.GUARDIAN) == (None, none, classes)
    assert await answer(Role.ADMIN) == (None, None, children + classes)
    assert await answer(Role.INTEGRATOR, scopes=set(Scope)) == (None, None, children + classes)


@pytest.mark.feature("003-17")
async def test_nobody_has_the_classes_or_children_of_their_namesake_in_another_tenant(
    district: District, pool: Pool
) -> None:
    stranger = await open_district(pool)
    await stranger.classroom("7b")
    await stranger.teach("tea", "7b")
    await stranger.student("ann")
    await stranger.guard("tea", "ann")
    tea = of(district, "tea", Role.TEACHER, Role.GUARDIAN)

    assert keys_of(await tea.data(CLASSROOMS), "classrooms") == []
    assert keys_of(await tea.data(CHILDREN), "children") == []
    tenant = (await tea.data("{ tenant { key } }"))["tenant"]
    assert tenant == {"key": str(district.tenant)}


@pytest.mark.feature("003-70")
async def test_the_service_says_that_it_works_and_which_version_it_is(district: District) -> None:
    told = (await of(district, "x", Role.STUDENT).data(SERVICE))["service"]

    assert told == {"status": "OK", "version": version(), "uptimeSeconds": told["uptimeSeconds"]}
    assert told["uptimeSeconds"] >= 0


@pytest.mark.feature("003-70", "000-23")
async def test_the_service_answers_also_when_its_database_does_not(database_url: str, district: District) -> None:
    from db.pool import open_pool

    gone = await open_pool(database_url)
    await gone.close()
    asker = of(district, "x", Role.ADMIN)
    asker.pool = gone

    assert (await asker.data("{ service { status } }"))["service"] == {"status": "DEGRADED"}
