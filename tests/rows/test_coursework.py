"""A student's own work as it is read (Definition D), and what a whole class can do."""

from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from db.pool import Pool
from rules.access import Role, Scope
from rules.classroom import Work, is_late, status_of_work
from tests.rows.district import NOW, District, open_district
from tests.rows.staffroom import machine, of
from tests.rows.test_students import put_policy, put_standing

WORK = """query ($classroomId: ID, $statuses: [AssignmentStatus!], $first: Int! = 20, $after: String) {
  student(id: "ann") {
    assignments(classroomId: $classroomId, statuses: $statuses, first: $first, after: $after) {
      nodes { assignmentId classroomId status dueAt submittedAt isLate score assignment { title kind dueAt } }
      pageInfo { hasNextPage endCursor }
    }
  }
}"""
HEAT_MAP = """query ($first: Int! = 20, $after: String) { classroom(id: "7b") {
  concepts { nodes { key name inCatalog } }
  mastery(first: $first, after: $after) {
    nodes { studentId displayName mastery { concept { key } classroomId score state evidenceCount } }
    pageInfo { hasNextPage endCursor }
  }
} }"""
DAY = timedelta(days=1)


@pytest.fixture
async def district(pool: Pool) -> District:
    """Class 7b of the teacher Tom, with Ann and Bob."""
    opened = await open_district(pool)
    await opened.classroom("7b")
    await opened.teach("tom")
    for student in ("ann", "bob"):
        await opened.enroll(student)
    return opened


async def put_work(district: District, item: str, *, classroom: str = "7b", **columns: Any) -> None:
    """Assigned and untouched, unless said otherwise."""
    defaults = {"is_assigned": True, "is_excused": False}
    await district.put("work", student="ann", classroom=classroom, item=item, **{**defaults, **columns})


def work_of(data: Any) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = data["student"]["assignments"]["nodes"]
    return nodes


@pytest.mark.feature("003-17")
async def test_a_students_work_stands_as_the_rules_say_the_soonest_due_first(district: District) -> None:
    await district.assignment("essay", title="An essay", due_at=NOW + DAY)
    await put_work(district, "essay", due_at=NOW - 2 * DAY, submitted_at=NOW - DAY)
    await put_work(district, "essay", classroom="")  # the view over all classes is no work of its own
    await district.assignment("sums", kind="EXERCISE", due_at=NOW + DAY)
    await put_work(district, "sums")
    await put_work(district, "reading", counted=850_000, counted_occurred_at=NOW, submitted_at=NOW)
    await put_work(district, "told", is_assigned=False)  # named by an event, never assigned, nothing handed in

    data = await of(district, "tom", Role.TEACHER).data(WORK)

    assert work_of(data) == [
        {
            "assignmentId": "essay", "classroomId": "7b", "status": "SUBMITTED", "dueAt": "2026-03-09T09:30:00Z",
            "submittedAt": "2026-03-10T09:30:00Z", "isLate": True, "score": None,
            "assignment": {"title": "An essay", "kind": "ASSIGNMENT", "dueAt": "2026-03-12T09:30:00Z"},
        },
        {
            "assignmentId": "sums", "classroomId": "7b", "status": "ASSIGNED", "dueAt": "2026-03-12T09:30:00Z",
            "submittedAt": None, "isLate": False, "score": None,
            "assignment": {"title": "Work sums", "kind": "EXERCISE", "dueAt": "2026-03-12T09:30:00Z"},
        },
        {
            "assignmentId": "reading", "classroomId": "7b", "status": "GRADED", "dueAt": None,
            "submittedAt": "2026-03-11T09:30:00Z", "isLate": False, "score": 0.85, "assignment": None,
        },
    ]  # fmt: skip


@pytest.mark.feature("003-17")
async def test_the_statement_and_the_rules_agree_on_every_combination(district: District) -> None:
    moments = (None, NOW - DAY, NOW, NOW + DAY)
    expected = {}
    for number, (assigned, excused, own_due, set_due, submitted, counted) in enumerate(
        product((True, False), (True, False), moments, moments, (None, NOW - DAY, NOW + DAY), (None, 0))
    ):
        item = f"w{number:03}"
        if set_due is not None:
            await district.assignment(item, due_at=set_due)
        await put_work(
            district, item, is_assigned=assigned, is_excused=excused, due_at=own_due, submitted_at=submitted,
            counted=counted,
        )  # fmt: skip
        work = Work(item, assigned, excused, own_due, ("lms", item), submitted, counted)
        status = status_of_work(work, due_at=set_due, now=NOW)
        if status is not None:
            expected[item] = (status.name, is_late(work, due_at=set_due))
    tom = of(district, "tom", Role.TEACHER)

    found: dict[str, tuple[str, bool]] = {}
    after = None
    for _page in range(len(expected) // 50 + 1):
        page = (await tom.data(WORK, first=50, after=after))["student"]["assignments"]
        found |= {each["assignmentId"]: (each["status"], each["isLate"]) for each in page["nodes"]}
        after = page["pageInfo"]["endCursor"]

    assert found == expected
    assert page["pageInfo"]["hasNextPage"] is False


@pytest.mark.feature("003-17")
async def test_work_is_filtered_by_class_and_status_and_paged(district: District) -> None:
    items: dict[str, dict[str, Any]] = {
        "late": {"due_at": NOW - DAY}, "soon": {"due_at": NOW + DAY}, "later": {"due_at": NOW + 2 * DAY}, "any": {},
    }  # fmt: skip
    for item, columns in items.items():
        await put_work(district, item, **columns)
    await put_work(district, "other", classroom="8a")
    tom = of(district, "tom", Role.TEACHER)

    open_work = await tom.data(WORK, classroomId="7b", statuses=["ASSIGNED", "OVERDUE"], first=2)
    page = open_work["student"]["assignments"]["pageInfo"]
    rest = await tom.data(WORK, classroomId="7b", statuses=["ASSIGNED"], first=2, after=page["endCursor"])
    elsewhere = await tom.data(WORK, classroomId="8a")
    refused = await tom.refusals(WORK, after="nonsense")

    assert [each["assignmentId"] for each in work_of(open_work)] == ["late", "soon"]
    assert [each["assignmentId"] for each in work_of(rest)] == ["later", "any"]
    assert [each["assignmentId"] for each in work_of(elsewhere)] == ["other"]
    assert refused == ({"student": {"assignments": None}}, [("student.assignments", "BAD_INPUT")])


@pytest.mark.feature("000-12", "X-11")
async def test_a_heat_map_holds_each_student_of_today_and_each_concept_met(district: District) -> None:
    await district.person("ann", "Ann Abel")
    await district.enroll("gone", ended=NOW.date())
    await district.put("subject", subject="maths", name="Maths")
    await district.put("concept", concept="fractions", name="Fractions", kind="CONCEPT", subject="maths")
    await district.assignment("hw1", concepts=["fractions", "sets"])
    await put_policy(district, "7b", 2, min_evidence=1)
    await put_standing(district, "fractions", student="ann", classroom="7b", policy_version=2)
    await put_standing(district, "primes", student="ann", classroom="7b", policy_version=2)
    await put_standing(district, "primes", student="ann", classroom="8a")
    tom = of(district, "tom", Role.TEACHER)

    data = (await tom.data(HEAT_MAP))["classroom"]

    def cell(key: str) -> dict[str, Any]:
        return {"concept": {"key": key}, "classroomId": "7b", "score": 0.821, "state": "OK", "evidenceCount": 1}

    assert data["mastery"]["nodes"] == [
        {"studentId": "ann", "displayName": "Ann Abel", "mastery": [cell("fractions"), cell("primes")]},
        {"studentId": "bob", "displayName": None, "mastery": []},
    ]
    assert data["concepts"]["nodes"] == [
        {"key": "fractions", "name": "Fractions", "inCatalog": True},
        {"key": "primes", "name": "primes", "inCatalog": False},
        {"key": "sets", "name": "sets", "inCatalog": False},
    ]
    assert tom.statements == 6  # freshness, ties, class; concepts, students, standings


@pytest.mark.feature("000-12")
async def test_a_heat_map_is_paged_by_student_and_shows_machines_no_names(district: District) -> None:
    await district.person("ann", "Ann Abel")
    sis = machine(district, Scope.READ)

    first = (await sis.data(HEAT_MAP, first=1))["classroom"]["mastery"]
    second = (await sis.data(HEAT_MAP, first=1, after=first["pageInfo"]["endCursor"]))["classroom"]["mastery"]

    assert first["nodes"] == [{"studentId": "ann", "displayName": None, "mastery": []}]
    assert [each["studentId"] for each in second["nodes"]] == ["bob"]
    assert (first["pageInfo"]["hasNextPage"], second["pageInfo"]["hasNextPage"]) == (True, False)


@pytest.mark.feature("000-12", "003-29")
async def test_students_see_the_columns_of_a_heat_map_and_not_its_rows(district: District) -> None:
    await district.assignment("hw1")

    data, errors = await of(district, "ann", Role.STUDENT).refusals(HEAT_MAP)

    assert data == {"classroom": {
        "concepts": {"nodes": [{"key": "fractions", "name": "fractions", "inCatalog": False}]}, "mastery": None,
    }}  # fmt: skip
    assert errors == [("classroom.mastery", "FORBIDDEN")]
