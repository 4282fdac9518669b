"""The dashboard of a class: its rates, who is at risk, what happened lately, and who may look at it."""

from datetime import date, timedelta
from typing import Any

import pytest

from db.pool import Pool
from rules.access import Role, Scope
from tests.rows.district import NOW, District, open_district
from tests.rows.staffroom import machine, of

DASHBOARD = """query ($id: ID! = "7b") {
  classroom(id: $id) {
    key
    dashboard {
      completionRate averageScore submissionRate activeStudents
      atRisk { nodes { studentId severity student { key } flags { reason severity raisedAt clearsWhen } } }
      recentActivity { nodes { studentId student { key } event { source eventId type occurredAt score effect } } }
    }
  }
}"""
AT_RISK = """query ($first: Int! = 20, $after: String) {
  classroom(id: "7b") { dashboard { atRisk(first: $first, after: $after) {
    nodes { studentId severity flags { reason } } pageInfo { hasNextPage endCursor }
  } } }
}"""
RECENT = """query ($first: Int! = 20, $after: String) {
  classroom(id: "7b") { dashboard { recentActivity(first: $first, after: $after) {
    nodes { event { eventId } } pageInfo { hasNextPage endCursor }
  } } }
}"""
WHAT_STAFF_SEE = '{ classroom(id: "7b") { key dashboard { completionRate } } }'

Refusal = tuple[Any, list[tuple[str, str]]]


@pytest.fixture
async def district(pool: Pool) -> District:
    """Class 7b of the teacher Tom, with Ann and Bob."""
    opened = await open_district(pool)
    await opened.classroom("7b")
    await opened.teach("tom")
    for student in ("ann", "bob"):
        await opened.enroll(student)
    return opened


def at_risk_of(data: Any) -> list[tuple[str, str, int]]:
    nodes = data["classroom"]["dashboard"]["atRisk"]["nodes"]
    return [(node["studentId"], node["severity"], len(node["flags"])) for node in nodes]


def recent_of(data: Any) -> list[str]:
    return [node["event"]["eventId"] for node in data["classroom"]["dashboard"]["recentActivity"]["nodes"]]


@pytest.mark.feature("000-17")
async def test_a_teacher_sees_rates_who_is_at_risk_and_what_happened(district: District) -> None:
    await district.rates(completion_rate=875, average_score=850, submission_rate=1000, active_students=2)
    await district.flag("ann", "INACTIVE", 2, overall=3)
    await district.flag("ann", "SCORE_TREND_DOWN", 1, overall=3)
    await district.event("e1", "bob", kind="QUIZ_ATTEMPT", ratio=712_500, assignment="hw1", concepts=["fractions"])

    data = await of(district, "tom", Role.TEACHER).data(DASHBOARD)

    raised = {"raisedAt": "2026-03-11T09:30:00Z", "clearsWhen": "Clears when ann is back."}
    assert data == {
        "classroom": {
            "key": "7b",
            "dashboard": {
                "completionRate": 0.875,
                "averageScore": 0.85,
                "submissionRate": 1.0,
                "activeStudents": 2,
                "atRisk": {
                    "nodes": [
                        {
                            "studentId": "ann",
                            "severity": "HIGH",
                            "student": {"key": "ann"},
                            "flags": [
                                {"reason": "INACTIVE", "severity": "MEDIUM", **raised},
                                {"reason": "SCORE_TREND_DOWN", "severity": "LOW", **raised},
                            ],
                        }
                    ]
                },
                "recentActivity": {
                    "nodes": [
                        {
                            "studentId": "bob",
                            "student": {"key": "bob"},
                            "event": {
                                "source": "lms",
                                "eventId": "e1",
                                "type": "QUIZ_ATTEMPT",
                                "occurredAt": "2026-03-11T09:30:00Z",
                                "score": 0.7125,
                                "effect": "EFFECTIVE",
                            },
                        }
                    ]
                },
            },
        }
    }


@pytest.mark.feature("000-17", "X-11")
async def test_a_class_that_was_never_assessed_has_no_rates_rather_than_zeros(district: District) -> None:
    data = await of(district, "tom", Role.TEACHER).data(DASHBOARD)

    assert data["classroom"]["dashboard"] == {
        "completionRate": None,
        "averageScore": None,
        "submissionRate": None,
        "activeStudents": 0,
        "atRisk": {"nodes": []},
        "recentActivity": {"nodes": []},
    }


@pytest.mark.feature("000-17")
async def test_the_most_urgent_student_comes_first_then_the_one_with_more_flags_then_by_key(
    district: District,
) -> None:
    for student, severities in {
        "cid": [3],
        "dee": [2, 1],
        "eve": [2, 2],
        "abe": [1],
        "fay": [1],
        "gil": [1, 1],
    }.items():
        await district.enroll(student)
        for reason, severity in zip(("INACTIVE", "MISSING_SUBMISSIONS"), severities, strict=False):
            overall = min(3, max(severities) + (len(severities) > 1))
            await district.flag(student, reason, severity, overall=overall)
    await district.flag("bob", "INACTIVE", None)  # cleared: only remembered

    data = await of(district, "tom", Role.TEACHER).data(AT_RISK)

    assert at_risk_of(data) == [
        ("dee", "HIGH", 2), ("eve", "HIGH", 2), ("cid", "HIGH", 1),
        ("gil", "MEDIUM", 2), ("abe", "LOW", 1), ("fay", "LOW", 1),
    ]  # fmt: skip


@pytest.mark.feature("000-17")
async def test_a_page_of_students_at_risk_stays_right_while_flags_are_raised_before_it(district: District) -> None:
    for number in range(30):
        await district.enroll(f"s{number:02}")
        await district.flag(f"s{number:02}", "INACTIVE", 1)
    tom = of(district, "tom", Role.TEACHER)

    first = await tom.data(AT_RISK, first=25)
    await district.flag("ann", "INACTIVE", 3)
    cursor = first["classroom"]["dashboard"]["atRisk"]["pageInfo"]["endCursor"]
    second = await tom.data(AT_RISK, first=25, after=cursor)

    assert [line[0] for line in at_risk_of(first) + at_risk_of(second)] == [f"s{number:02}" for number in range(30)]
    assert second["classroom"]["dashboard"]["atRisk"]["pageInfo"]["hasNextPage"] is False


@pytest.mark.feature("000-17")
async def test_recent_activity_is_the_last_seven_days_newest_first_twenty_a_page(district: District) -> None:
    await district.event("too-old", "ann", occurred_at=NOW - timedelta(days=7, seconds=1))
    for number in range(25):
        await district.event(f"e{number:02}", "ann", occurred_at=NOW - timedelta(hours=number))
    tom = of(district, "tom", Role.TEACHER)

    first = await tom.data(RECENT)
    await district.event("newer", "bob", occurred_at=NOW + timedelta(minutes=1))
    page = first["classroom"]["dashboard"]["recentActivity"]["pageInfo"]
    second = await tom.data(RECENT, after=page["endCursor"])

    assert page["hasNextPage"] is True
    assert recent_of(first) == [f"e{number:02}" for number in range(20)]
    assert recent_of(second) == [f"e{number:02}" for number in range(20, 25)]


@pytest.mark.feature("000-17", "X-09", "X-10")
async def test_recent_activity_is_of_students_enrolled_today_only(district: District) -> None:
    await district.enroll("gone", ended=date(2026, 3, 11))  # the first day on which she is no longer in the class
    await district.enroll("soon", started=date(2026, 3, 12))
    await district.classroom("8a")
    await district.enroll("elsewhere", "8a")
    for student in ("ann", "gone", "soon", "elsewhere", "unrostered"):
        await district.event(f"of-{student}", student)

    data = await of(district, "tom", Role.TEACHER).data(RECENT)

    assert recent_of(data) == ["of-ann"]


@pytest.mark.feature("000-17", "X-01")
async def test_a_voided_event_stays_in_recent_activity_and_is_marked(district: District) -> None:
    await district.event("e1", "ann")
    await district.void("e1")

    data = await of(district, "tom", Role.TEACHER).data(DASHBOARD)

    (line,) = data["classroom"]["dashboard"]["recentActivity"]["nodes"]
    assert (line["event"]["eventId"], line["event"]["effect"]) == ("e1", "VOIDED")


@pytest.mark.feature("000-17")
@pytest.mark.parametrize("size", [2, 30])
async def test_a_dashboard_takes_as_many_statements_for_thirty_students_as_for_two(pool: Pool, size: int) -> None:
    district = await open_district(pool)
    await district.classroom("7b")
    await district.teach("tom")
    for number in range(size):
        await district.enroll(f"s{number:02}")
        for reason in ("INACTIVE", "MISSING_SUBMISSIONS", "SCORE_TREND_DOWN", "COMPLETION_BELOW_MEDIAN"):
            await district.flag(f"s{number:02}", reason, 2, overall=3)
    tom = of(district, "tom", Role.TEACHER)

    data = await tom.data(DASHBOARD)

    assert len(at_risk_of(data)) == min(size, 20)
    assert tom.statements == 5  # freshness, ties, the class, the dashboard, its students


@pytest.mark.feature("000-17")
async def test_admins_and_co_teachers_see_the_dashboard_as_the_teacher_does(district: District) -> None:
    await district.teach("tea")
    await district.rates(completion_rate=500)
    seen = {"classroom": {"key": "7b", "dashboard": {"completionRate": 0.5}}}

    assert await of(district, "tea", Role.TEACHER).data(WHAT_STAFF_SEE) == seen
    assert await of(district, "head", Role.ADMIN).data(WHAT_STAFF_SEE) == seen


@pytest.mark.feature("000-17")
async def test_whoever_is_not_staff_of_the_class_is_refused_its_dashboard_or_does_not_find_it(
    district: District, pool: Pool
) -> None:
    await district.rates(completion_rate=500)
    await district.teach("former", ended=date(2026, 3, 11))
    await district.guard("ada", "ann")
    await district.classroom("8a")
    await district.teach("tim", "8a")
    await district.teach("ann", "8a")  # ann teaches one class and learns in the other
    stranger = await open_district(pool)

    forbidden_field: Refusal = ({"classroom": {"key": "7b", "dashboard": None}}, [("classroom.dashboard", "FORBIDDEN")])
    unknown: Refusal = ({"classroom": None}, [])
    forbidden: Refusal = ({"classroom": None}, [("classroom", "FORBIDDEN")])
    asked = {
        "a student of the class": (of(district, "ann", Role.STUDENT), forbidden_field),
        "a student who teaches elsewhere": (of(district, "ann", Role.STUDENT, Role.TEACHER), forbidden_field),
        "a machine that may read": (machine(district, Scope.READ), forbidden_field),
        "a machine that may only send": (machine(district, Scope.INGEST), forbidden),
        "a guardian": (of(district, "ada", Role.GUARDIAN), forbidden),
        "a former teacher": (of(district, "former", Role.TEACHER), unknown),
        "a teacher of another class": (of(district, "tim", Role.TEACHER), unknown),
        "a teacher's key without the role": (of(district, "tom", Role.STUDENT), unknown),
        "an admin of another tenant": (of(stranger, "head", Role.ADMIN), unknown),
    }
    answers = {who: await asker.refusals(WHAT_STAFF_SEE) for who, (asker, _) in asked.items()}

    assert answers == {who: expected for who, (_, expected) in asked.items()}


@pytest.mark.feature("000-17")
async def test_today_is_the_local_date_of_the_class(pool: Pool) -> None:
    district = await open_district(pool, zone="UTC")
    await district.classroom("7b", zone="Pacific/Auckland")  # 22:30 on the 11th there: the same day
    await district.classroom("8a", zone="Pacific/Kiritimati")  # 23:30 on the 11th
    for classroom in ("7b", "8a"):
        await district.teach("tom", classroom, ended=date(2026, 3, 12))
    tom = of(district, "tom", Role.TEACHER)
    tom.clock = lambda: NOW + timedelta(hours=1)  # 23:30 in Auckland, 00:30 on the 12th in Kiritimati

    both = await tom.data('{ seen: classroom(id: "7b") { key } unseen: classroom(id: "8a") { key } }')

    assert both == {"seen": {"key": "7b"}, "unseen": None}


@pytest.mark.feature("000-17")
async def test_a_list_that_is_asked_for_wrongly_does_not_blank_the_rates(district: District) -> None:
    await district.rates(completion_rate=500)
    asked = '{ classroom(id: "7b") { dashboard { completionRate atRisk(first: 0) { nodes { studentId } } } } }'

    answer = await of(district, "tom", Role.TEACHER).refusals(asked)

    assert answer == (
        {"classroom": {"dashboard": {"completionRate": 0.5, "atRisk": None}}},
        [("classroom.dashboard.atRisk", "BAD_INPUT")],
    )
