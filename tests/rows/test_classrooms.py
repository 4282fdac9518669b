"""Classes and schools as they are read: rates, people, work, risks and policy, each for whom it is meant."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from graphql import GraphQLEnumType, GraphQLSchema

from db.pool import Pool
from graph.access import core_of, undeclared_fields
from graph.nodes import global_id
from rules.access import Role, Scope
from tests.rows.district import NOW, District, open_district
from tests.rows.staffroom import SCHEMA, machine, of

CLASSROOM = """{ classroom(id: "7b") {
  id key name zone lagMs asOf { seq withheld } school { key name zone }
  rollup { completionRate averageScore submissionRate activeStudents }
  roster { nodes { personId displayName role startsOn endsOn } }
  assignments { nodes { key classroomId title kind dueAt difficulty conceptIds } }
  policy {
    version model recentPercent successThreshold masteryThreshold minEvidence inactivityDays extraCredit
  }
} }"""
STAFF_FIELDS = """{ classroom(id: "7b") {
  key rollup { activeStudents } roster { nodes { personId } } riskFlags { nodes { studentId } } policy { version }
  assignments { nodes { key } }
} }"""
GRID = """{ classroom(id: "7b") { roster(first: 50) { nodes { personId student {
  key displayName mastery(classroomId: "7b", conceptIds: ["c1"]) { nodes { score state } }
} } } } }"""
ROSTER = """query ($on: Date, $first: Int! = 20, $after: String) { classroom(id: "7b") {
  roster(on: $on, first: $first, after: $after) { nodes { personId } pageInfo { hasNextPage endCursor } }
} }"""
FLAGS = """query ($student: ID, $reasons: [RiskReason!], $min: RiskSeverity! = LOW, $first: Int! = 20, $after: String) {
  classroom(id: "7b") {
    riskFlags(studentId: $student, reasons: $reasons, minSeverity: $min, first: $first, after: $after) {
      nodes { studentId reason severity } pageInfo { endCursor }
    }
  }
}"""
EVIDENCE = """{ classroom(id: "7b") { riskFlags { nodes {
  reason clearsWhen raisedAt
  evidence {
    events { source eventId } items { key state dueAt score event { eventId } } numbers { name value }
    lastActiveOn enrolledOn
  }
} } } }"""


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


def people_of(data: Any) -> list[str]:
    return [entry["personId"] for entry in data["classroom"]["roster"]["nodes"]]


def flags_of(data: Any) -> list[tuple[str, str, str]]:
    flags = data["classroom"]["riskFlags"]["nodes"]
    return [(flag["studentId"], flag["reason"], flag["severity"]) for flag in flags]


@pytest.mark.feature("003-17")
async def test_a_roster_leads_to_what_its_students_can_do_in_as_many_statements_for_thirty_as_for_one(
    district: District,
) -> None:
    await district.person("ann", "Ann Abel")
    tom = of(district, "tom", Role.TEACHER)

    data = await tom.data(GRID)
    few = tom.statements
    for number in range(28):
        await district.enroll(f"s{number:02d}")
    many = await tom.data(GRID)

    entries = data["classroom"]["roster"]["nodes"]
    no_data = {"nodes": [{"score": None, "state": "NO_DATA"}]}
    assert entries == [
        {"personId": "ann", "student": {"key": "ann", "displayName": "Ann Abel", "mastery": no_data}},
        {"personId": "bob", "student": {"key": "bob", "displayName": None, "mastery": no_data}},
        {"personId": "tom", "student": None},
    ]
    assert len(many["classroom"]["roster"]["nodes"]) == 31
    assert tom.statements == few


@pytest.mark.feature("003-17", "000-13", "X-07", "X-22")
async def test_a_teacher_reads_the_class_its_people_its_work_and_its_policy(district: District) -> None:
    await district.person("ann", "Ann Abel")
    await district.assignment(
        "hw1", kind="QUIZ", due_at=datetime(2026, 3, 20, 22, tzinfo=UTC), difficulty="advanced", title="Fractions I"
    )
    await district.rates(completion_rate=333, average_score=None, submission_rate=667, active_students=2)
    tom = of(district, "tom", Role.TEACHER)

    data = await tom.data(CLASSROOM)

    def entry(person: str, role: str, name: str | None = None) -> dict[str, Any]:
        return {"personId": person, "displayName": name, "role": role, "startsOn": "2026-01-07", "endsOn": None}

    assert data["classroom"] == {
        "id": global_id("Classroom", "7b"),
        "key": "7b",
        "name": "Class 7b",
        "zone": "Europe/Berlin",
        "lagMs": 0,
        "asOf": {"seq": "0", "withheld": 0},
        "school": {"key": "north", "name": "School north", "zone": "Europe/Berlin"},
        "rollup": {"completionRate": 0.333, "averageScore": None, "submissionRate": 0.667, "activeStudents": 2},
        "roster": {"nodes": [entry("ann", "STUDENT", "Ann Abel"), entry("bob", "STUDENT"), entry("tom", "TEACHER")]},
        "assignments": {
            "nodes": [
                {
                    "key": "hw1",
                    "classroomId": "7b",
                    "title": "Fractions I",
                    "kind": "QUIZ",
                    "dueAt": "2026-03-20T22:00:00Z",
                    "difficulty": "ADVANCED",
                    "conceptIds": ["fractions"],
                }
            ]
        },
        "policy": {
            "version": 1,
            "model": "DECAYING_AVERAGE",
            "recentPercent": 65,
            "successThreshold": 0.6,
            "masteryThreshold": 0.8,
            "minEvidence": 3,
            "inactivityDays": 7,
            "extraCredit": False,
        },
    }
    assert tom.statements == 7  # freshness, ties, class; rates, roster, work, policy


@pytest.mark.feature("X-07")
async def test_the_newest_version_of_the_policy_is_shown(district: District) -> None:
    for version, days in ((2, 14), (10, 30)):
        await district.put(
            "classroom_policy", classroom="7b", version=version, model="SUCCESS_RATIO", recent_percent=65,
            success_threshold=600_000, mastery_threshold=850_000, min_evidence=3, inactivity_days=days,
            created_at=NOW, created_by="tom",
        )  # fmt: skip

    data = await of(district, "tom", Role.TEACHER).data(
        '{ classroom(id: "7b") { policy { version model masteryThreshold inactivityDays } } }'
    )

    assert data["classroom"]["policy"] == {
        "version": 10, "model": "SUCCESS_RATIO", "masteryThreshold": 0.85, "inactivityDays": 30,
    }  # fmt: skip


@pytest.mark.feature("003-17")
async def test_a_student_sees_the_class_and_its_work_and_is_refused_what_shows_others(district: District) -> None:
    await district.assignment("hw1")
    only_work = {
        "classroom": {
            "key": "7b", "rollup": None, "roster": None, "riskFlags": None, "policy": None,
            "assignments": {"nodes": [{"key": "hw1"}]},
        }
    }  # fmt: skip
    refused = [(f"classroom.{name}", "FORBIDDEN") for name in ("policy", "riskFlags", "rollup", "roster")]

    for ann in (of(district, "ann", Role.STUDENT), of(district, "ann", Role.STUDENT, Role.TEACHER)):
        data, errors = await ann.refusals(STAFF_FIELDS)

        assert (data, sorted(errors)) == (only_work, refused)


@pytest.mark.feature("003-17")
async def test_a_machine_that_may_read_sees_everything_but_names_and_the_dashboard(district: District) -> None:
    await district.person("ann", "Ann Abel")
    sis = machine(district, Scope.READ)

    data = await sis.data('{ classroom(id: "7b") { roster(first: 1) { nodes { personId displayName } } } }')
    everything, refusals = await sis.refusals(STAFF_FIELDS)

    assert data["classroom"]["roster"]["nodes"] == [{"personId": "ann", "displayName": None}]
    assert (everything["classroom"]["policy"], refusals) == ({"version": 1}, [])
    assert await machine(district, Scope.INGEST, Scope.ROSTER).refusals(STAFF_FIELDS) == (
        {"classroom": None},
        [("classroom", "FORBIDDEN")],
    )


@pytest.mark.feature("003-17")
async def test_a_class_out_of_scope_answers_exactly_like_one_that_does_not_exist(
    district: District, pool: Pool
) -> None:
    await district.teach("former", ended=date(2026, 3, 11))
    await district.enroll("dropped", ended=date(2026, 3, 11))
    await district.teach("later", started=date(2026, 3, 12))
    stranger = await open_district(pool)
    askers = [
        of(district, "former", Role.TEACHER),
        of(district, "later", Role.TEACHER),
        of(district, "dropped", Role.STUDENT),
        of(district, "tom", Role.STUDENT),  # teaches it, but this token does not say so
        of(district, "ann", Role.TEACHER),  # learns in it, but this token does not say so
        of(stranger, "head", Role.ADMIN),
        of(stranger, "tom", Role.TEACHER),
        machine(stranger, Scope.READ),
    ]

    unknown = await of(district, "head", Role.ADMIN).ask('{ classroom(id: "nowhere") { key } }')
    answers = [await asker.ask('{ classroom(id: "7b") { key } }') for asker in askers]

    assert (unknown.data, unknown.errors) == ({"classroom": None}, ())
    assert answers == [unknown] * len(askers)


@pytest.mark.feature("X-09")
async def test_a_roster_is_that_of_a_day_with_each_interval_from_its_first_day_to_the_day_before_its_end(
    district: District,
) -> None:
    await district.enroll("gone", ended=date(2026, 2, 10))
    await district.enroll("back", ended=date(2026, 2, 10))
    await district.enroll("back", started=date(2026, 3, 2))
    tom = of(district, "tom", Role.TEACHER)

    async def people(on: str | None) -> list[str]:
        return people_of(await tom.data(ROSTER, on=on))

    assert await people("2026-01-06") == []
    assert await people("2026-02-09") == ["ann", "back", "bob", "gone", "tom"]
    assert await people("2026-02-10") == ["ann", "bob", "tom"]
    assert await people(None) == ["ann", "back", "bob", "tom"]


@pytest.mark.feature("003-17")
async def test_pages_of_a_roster_miss_nobody_while_people_join_before_and_after(district: District) -> None:
    await district.enroll("cid")
    await district.teach("aya")
    tom = of(district, "tom", Role.TEACHER)

    first = await tom.data(ROSTER, first=2)
    await district.enroll("abe")
    await district.enroll("dee")
    second = await tom.data(ROSTER, first=4, after=first["classroom"]["roster"]["pageInfo"]["endCursor"])

    assert (people_of(first), people_of(second)) == (["ann", "aya"], ["bob", "cid", "dee", "tom"])
    assert second["classroom"]["roster"]["pageInfo"]["hasNextPage"] is False


@pytest.mark.feature("003-17")
@pytest.mark.parametrize("first", [0, -1, 201])
async def test_a_page_that_is_too_long_or_too_short_is_refused(district: District, first: int) -> None:
    data, errors = await of(district, "tom", Role.TEACHER).refusals(ROSTER, first=first)

    assert (data, errors) == ({"classroom": {"roster": None}}, [("classroom.roster", "BAD_INPUT")])


@pytest.mark.feature("003-17")
async def test_a_cursor_of_another_list_is_refused(district: District) -> None:
    await district.flag("ann", "INACTIVE", 1)
    tom = of(district, "tom", Role.TEACHER)
    flags = await tom.data(FLAGS)

    answer = await tom.refusals(ROSTER, after=flags["classroom"]["riskFlags"]["pageInfo"]["endCursor"])

    assert answer == ({"classroom": {"roster": None}}, [("classroom.roster", "BAD_INPUT")])


@pytest.mark.feature("000-14", "000-15", "000-16")
async def test_risk_flags_come_most_severe_first_and_can_be_narrowed(district: District) -> None:
    await district.flag("ann", "INACTIVE", 1, overall=3)
    await district.flag("ann", "SCORE_TREND_DOWN", 3, overall=3)
    await district.flag("bob", "INACTIVE", 2)
    await district.flag("bob", "MISSING_SUBMISSIONS", None)
    tom = of(district, "tom", Role.TEACHER)
    trend, idle, low = ("ann", "SCORE_TREND_DOWN", "HIGH"), ("bob", "INACTIVE", "MEDIUM"), ("ann", "INACTIVE", "LOW")

    first = await tom.data(FLAGS, first=1)
    rest = await tom.data(FLAGS, after=first["classroom"]["riskFlags"]["pageInfo"]["endCursor"])

    assert flags_of(await tom.data(FLAGS)) == flags_of(first) + flags_of(rest) == [trend, idle, low]
    assert flags_of(await tom.data(FLAGS, student="ann")) == [trend, low]
    assert flags_of(await tom.data(FLAGS, reasons=["INACTIVE"])) == [idle, low]
    assert flags_of(await tom.data(FLAGS, min="MEDIUM")) == [trend, idle]
    assert flags_of(await tom.data(FLAGS, reasons=[])) == []


@pytest.mark.feature("000-14", "000-15", "000-16")
async def test_a_flag_says_on_what_events_items_and_numbers_it_rests(district: District) -> None:
    assigned = {"source": "sis", "eventId": "a1"}
    missing = {"item": "hw1", "dueAt": "2026-03-01T22:00:00+00:00", "assignedBy": assigned}
    scores = [
        {"item": "hw1", "score": 0.82, "event": {"source": "lms", "eventId": "g1"}},
        {"item": "hw2", "score": 0.7, "event": {"source": "lms", "eventId": "g2"}},
    ]
    await district.flag(
        "ann", "MISSING_SUBMISSIONS", 3,
        evidence={"missing": [missing], "missingCount": 1, "awaitingGrade": [], "awaitingGradeCount": 0},
    )  # fmt: skip
    await district.flag("ann", "SCORE_TREND_DOWN", 2, evidence={"scores": scores, "drop": 0.12, "falls": 1})
    await district.flag(
        "bob", "INACTIVE", 1,
        evidence={"lastActiveOn": None, "enrolledOn": "2026-01-07", "limitDays": 7, "reachedDays": 7},
    )  # fmt: skip

    data = await of(district, "tom", Role.TEACHER).data(EVIDENCE)

    def flag(reason: str, student: str, **evidence: Any) -> dict[str, Any]:
        empty: dict[str, Any] = {"events": [], "items": [], "lastActiveOn": None, "enrolledOn": None}
        return {
            "reason": reason,
            "clearsWhen": f"Clears when {student} is back.",
            "raisedAt": "2026-03-11T09:30:00Z",
            "evidence": {**empty, **evidence},
        }

    def item(key: str, state: str, event: str, *, due: str | None = None, score: float | None = None) -> dict[str, Any]:
        return {"key": key, "state": state, "dueAt": due, "score": score, "event": {"eventId": event}}

    assert data["classroom"]["riskFlags"]["nodes"] == [
        flag(
            "MISSING_SUBMISSIONS", "ann",
            events=[assigned],
            items=[item("hw1", "NEVER_SUBMITTED", "a1", due="2026-03-01T22:00:00Z")],
            numbers=[{"name": "NEVER_SUBMITTED", "value": 1}, {"name": "AWAITING_GRADE", "value": 0}],
        ),
        flag(
            "SCORE_TREND_DOWN", "ann",
            events=[{"source": "lms", "eventId": "g1"}, {"source": "lms", "eventId": "g2"}],
            items=[item("hw1", "SCORED", "g1", score=0.82), item("hw2", "SCORED", "g2", score=0.7)],
            numbers=[{"name": "SCORE_DROP", "value": 0.12}, {"name": "FALLS_IN_A_ROW", "value": 1}],
        ),
        flag(
            "INACTIVE", "bob",
            enrolledOn="2026-01-07",
            numbers=[{"name": "INACTIVITY_LIMIT_DAYS", "value": 7}, {"name": "INACTIVITY_REACHED_DAYS", "value": 7}],
        ),
    ]  # fmt: skip


@pytest.mark.feature("003-17")
async def test_classes_schools_work_and_flags_are_found_again_by_their_global_ids(district: District) -> None:
    await district.assignment("hw1")
    await district.flag("ann", "INACTIVE", 1)
    tom = of(district, "tom", Role.TEACHER)
    told = await tom.data(
        '{ classroom(id: "7b") { id school { id } assignments { nodes { id } } riskFlags { nodes { id } } } }'
    )
    seen = told["classroom"]
    ids = [seen["id"], seen["school"]["id"], seen["assignments"]["nodes"][0]["id"], seen["riskFlags"]["nodes"][0]["id"]]
    again = "query ($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }"

    async def kinds(*roles: Role, key: str) -> list[str | None]:
        answer = await of(district, key, *roles).data(again, ids=ids)
        return [node and node["__typename"] for node in answer["nodes"]]

    assert await kinds(Role.TEACHER, key="tom") == ["Classroom", "School", "Assignment", "RiskFlag"]
    assert await kinds(Role.STUDENT, key="ann") == ["Classroom", "School", "Assignment", None]
    assert await kinds(Role.TEACHER, key="tim") == [None, None, None, None]


@pytest.mark.feature("X-22")
async def test_a_class_says_how_long_its_oldest_waiting_event_waits(district: District) -> None:
    folded = await district.event("e1", "ann")
    waiting = await district.event("e2", "ann", is_waiting=True)
    head = of(district, "head", Role.ADMIN)
    head.clock = lambda: NOW + timedelta(seconds=3)

    data = await head.data('{ classroom(id: "7b") { asOf { seq } lagMs } }')
    stale = await head.ask(f'{{ classroom(id: "7b", minSeq: "{waiting}") {{ key }} }}')

    assert data["classroom"] == {"asOf": {"seq": str(folded)}, "lagMs": 3000}
    assert (stale.data, stale.codes) == ({"classroom": None}, {"STALE"})


@pytest.mark.feature("003-17")
def test_no_root_field_is_without_a_rule() -> None:
    assert undeclared_fields(SCHEMA) == []


@pytest.mark.feature("003-17")
def test_every_type_field_argument_and_value_says_what_it_is() -> None:
    silent = [
        ".".join(path) for path, described in _described(core_of(SCHEMA)) if not (described.description or "").strip()
    ]

    assert silent == []


def _described(schema: GraphQLSchema) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, kind in schema.type_map.items():
        if name.startswith("__") or name in {"Query", "ID", "Int", "Float", "String", "Boolean"}:
            continue
        yield (name,), kind
        if isinstance(kind, GraphQLEnumType):
            yield from (((name, value), kind.values[value]) for value in kind.values)
        for field_name, field in getattr(kind, "fields", {}).items():
            yield (name, field_name), field
            yield from (((name, field_name, key), given) for key, given in getattr(field, "args", {}).items())
