"""Who may tell what: the walls of recording, over real HTTP into real Postgres."""

from datetime import date
from typing import Any
from uuid import UUID

import pytest

from rules.access import Role, Scope
from tests.support.intake import VOID, Intake, by_teacher, graded


@pytest.mark.feature("000-03", "C5")
async def test_a_students_event_takes_source_student_and_time_from_the_token(intake: Intake) -> None:
    token = intake.token(Role.STUDENT, sub="s1")

    payload = await intake.record(token=token, type="CONTENT_VIEWED", contentId="clip", classroomId="7b")

    assert (payload["status"], payload["idempotent"]) == ("ACCEPTED", False)
    assert str(UUID(payload["event"]["eventId"])) == payload["event"]["eventId"]
    ((source, _, kind, student, classroom),) = await intake.log()
    assert (source, kind, student, classroom) == ("user:s1", "CONTENT_VIEWED", "s1", "7b")


async def test_a_student_tells_no_score_and_nothing_about_others(intake: Intake) -> None:
    token = intake.token(Role.STUDENT, sub="s1")

    assert await intake.refusals(token=token, **by_teacher()) == [("FORBIDDEN", "score")]
    viewed = {"type": "CONTENT_VIEWED", "contentId": "clip"}
    assert await intake.refusals(token=token, studentId="s2", **viewed) == [("FORBIDDEN", "studentId")]
    assert await intake.refusals(token=token, type="QUIZ_CREATED", quizId="q") == [("FORBIDDEN", "type")]
    assert await intake.refusals(token=token, source="lms", **viewed) == [("FORBIDDEN", "source")]


@pytest.mark.feature("C7")
async def test_people_get_one_refusal_for_foreign_and_unknown_alike(intake: Intake) -> None:
    await intake.district.classroom("8a")
    await intake.district.enroll("s8", "8a")
    await intake.district.assignment("hw8", "8a", concepts=["primes"])
    teacher, student = intake.token(Role.TEACHER, sub="t1"), intake.token(Role.STUDENT, sub="s1")

    async def answers(token: str, **given: Any) -> dict[str, Any]:
        before = await intake.log()
        payload = await intake.record(token=token, **given)
        assert (payload["status"], await intake.log()) == ("REJECTED", before)
        return payload

    foreign_class = await answers(teacher, **by_teacher(classroomId="8a", studentId="s8"))
    unknown_class = await answers(teacher, **by_teacher(classroomId="no", studentId="s8"))
    foreign_student = await answers(teacher, **by_teacher(studentId="s8"))
    unknown_student = await answers(teacher, **by_teacher(studentId="no"))
    own = {"type": "CONTENT_VIEWED", "contentId": "clip"}
    students_foreign = await answers(student, classroomId="8a", **own)
    students_unknown = await answers(student, classroomId="no", **own)
    filled_foreign = await answers(teacher, **by_teacher(classroomId="8a", assignmentId="hw8", conceptIds=None))
    filled_unknown = await answers(teacher, **by_teacher(classroomId="no", assignmentId="hw8", conceptIds=None))

    assert foreign_class == unknown_class
    assert (foreign_class["errors"][0]["code"], foreign_class["errors"][0]["field"]) == ("NOT_FOUND", ["classroomId"])
    assert foreign_student == unknown_student
    assert foreign_student["errors"][0]["field"] == ["studentId"]
    assert students_foreign == students_unknown
    assert filled_foreign == filled_unknown


@pytest.mark.feature("C7")
async def test_machines_and_admins_tell_about_whom_no_roster_names_yet(intake: Intake) -> None:
    admin = intake.token(Role.ADMIN, sub="head")

    by_machine = await intake.record(**graded(studentId="nobody", classroomId="nowhere"))
    by_admin = await intake.record(token=admin, **by_teacher(studentId="nobody", classroomId="nowhere"))

    assert [by_machine["status"], by_admin["status"]] == ["ACCEPTED", "ACCEPTED"]


async def test_a_teacher_tells_about_the_classes_they_teach_today(intake: Intake) -> None:
    await intake.district.classroom("8a")
    await intake.district.enroll("s8", "8a")
    await intake.district.teach("t1", "8a", ended=date(2026, 3, 11))
    token = intake.token(Role.TEACHER, sub="t1")

    own = await intake.record(token=token, **by_teacher())
    quiz = await intake.record(token=token, type="QUIZ_CREATED", quizId="q", classroomId="7b")

    assert [own["status"], quiz["status"]] == ["ACCEPTED", "ACCEPTED"]
    left = by_teacher(classroomId="8a", studentId="s8", occurredAt="2026-02-02T09:00:00Z")
    assert await intake.refusals(token=token, **left) == [("NOT_FOUND", "classroomId")]
    assert await intake.refusals(token=token, **by_teacher(classroomId=None)) == [("REQUIRED", "classroomId")]


async def test_a_student_may_still_send_what_they_did_before_they_left(intake: Intake) -> None:
    await intake.district.classroom("8a")
    await intake.district.enroll("s1", "8a", ended=date(2026, 3, 1))
    token = intake.token(Role.STUDENT, sub="s1")
    viewed = {"type": "CONTENT_VIEWED", "contentId": "clip", "classroomId": "8a"}

    payload = await intake.record(token=token, occurredAt="2026-02-28T12:00:00Z", **viewed)

    assert payload["status"] == "ACCEPTED"
    assert await intake.refusals(token=token, **viewed) == [("NOT_FOUND", "classroomId")]


async def test_a_student_whom_no_roster_names_tells_nothing(intake: Intake) -> None:
    token = intake.token(Role.STUDENT, sub="ghost")

    assert await intake.refusals(token=token, type="STUDENT_LOGIN") == [("NOT_FOUND", "studentId")]


async def test_a_token_bound_to_sources_tells_and_voids_under_those_only(intake: Intake) -> None:
    await intake.record(**graded())
    bound = intake.token(sources=["sis"])

    assert await intake.refusals(token=bound, **graded("e2")) == [("FORBIDDEN", "source")]
    voided = await intake.told(VOID, {"source": "lms", "eventId": "e1", "reason": "mine?"}, token=bound)

    assert [(error["code"], error["field"]) for error in voided["errors"]] == [("FORBIDDEN", ["source"])]
    assert await intake.rows("select 1 from correction where tenant = $1") == []


@pytest.mark.parametrize(
    ("roles", "scopes", "mutation"),
    [
        ((Role.GUARDIAN,), (), "recordEvent"),
        ((Role.INTEGRATOR,), (Scope.READ, Scope.ROSTER, Scope.WEBHOOKS), "recordEvent"),
        ((Role.STUDENT,), (), "recordEvents"),
        ((Role.GUARDIAN,), (), "recordEvents"),
        ((Role.STUDENT,), (), "voidEvent"),
    ],
)
async def test_a_role_that_may_not_record_is_refused(
    intake: Intake, roles: tuple[Role, ...], scopes: tuple[Scope, ...], mutation: str
) -> None:
    inputs = {
        "recordEvent": "{}",
        "recordEvents": '{ events: [{ type: "STUDENT_LOGIN" }] }',
        "voidEvent": '{ source: "a", eventId: "b", reason: "c" }',
    }
    token = intake.token(*roles, sub="s1", scopes=scopes)

    response = await intake.post(
        f"mutation {{ {mutation}(input: {inputs[mutation]}) {{ status: __typename }} }}", token=token
    )

    (error,) = response.json()["errors"]
    assert (response.json()["data"], error["extensions"]) == (None, {"code": "FORBIDDEN"})
    assert await intake.log() == []
