"""Who may see and tell what: every right is asked for in both directions."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest

from rules.access import (
    FIELD_ROLES,
    INTEGRATOR_SCOPES,
    SELF_RECORDED,
    Role,
    Scope,
    Viewer,
    may_manage_roster,
    may_read_classroom,
    may_read_student,
    may_record,
    may_save_assignment,
    may_see_flags,
    may_see_ingestion,
    may_subscribe_class_mastery,
    may_subscribe_dashboard,
    may_subscribe_events,
    may_subscribe_mastery,
    may_subscribe_risk,
    may_update_policy,
    may_use,
    may_void,
)
from rules.kinds import Kind


def viewer(*roles: Role, scopes: frozenset[Scope] = frozenset()) -> Viewer:
    return Viewer(
        tenant=1, key="me", roles=frozenset(roles), expires_at=datetime(2026, 3, 1, tzinfo=UTC), scopes=scopes
    )


STUDENT, GUARDIAN, TEACHER, ADMIN = (viewer(role) for role in (Role.STUDENT, Role.GUARDIAN, Role.TEACHER, Role.ADMIN))
NOBODY = viewer()
INGEST, ROSTER, READ, WEBHOOKS = (
    viewer(Role.INTEGRATOR, scopes=frozenset({scope}))
    for scope in (Scope.INGEST, Scope.ROSTER, Scope.READ, Scope.WEBHOOKS)
)
EVERYONE = {
    "nobody": NOBODY,
    "student": STUDENT,
    "guardian": GUARDIAN,
    "teacher": TEACHER,
    "admin": ADMIN,
    "ingest": INGEST,
    "roster": ROSTER,
    "read": READ,
    "webhooks": WEBHOOKS,
}
BOTH = (False, True)


def allowed(decisions: dict[str, bool]) -> set[str]:
    return {name for name, is_allowed in decisions.items() if is_allowed}


@pytest.mark.feature("000-03")
@pytest.mark.parametrize("kind", Kind)
def test_admins_and_ingesting_machines_record_anything_about_anyone(kind: Kind) -> None:
    for scored in BOTH:
        decisions = {
            name: may_record(who, kind, student="other", scored=scored, taught=False, enrolled=False)
            for name, who in EVERYONE.items()
        }
        assert allowed(decisions) == {"admin", "ingest"}


@pytest.mark.feature("000-03")
@pytest.mark.parametrize("kind", Kind)
def test_a_teacher_records_for_a_classroom_they_teach(kind: Kind) -> None:
    for scored, enrolled in product(BOTH, BOTH):
        assert may_record(TEACHER, kind, student="other", scored=scored, taught=True, enrolled=enrolled)
        assert not may_record(TEACHER, kind, student="other", scored=scored, taught=False, enrolled=enrolled)
        assert not may_record(TEACHER, kind, student="me", scored=scored, taught=False, enrolled=enrolled)


@pytest.mark.feature("000-03")
@pytest.mark.parametrize("kind", Kind)
def test_a_student_records_own_unscored_activity_where_they_are_enrolled(kind: Kind) -> None:
    is_own = kind in SELF_RECORDED

    assert may_record(STUDENT, kind, student="me", scored=False, taught=False, enrolled=True) is is_own
    assert not may_record(STUDENT, kind, student="me", scored=True, taught=False, enrolled=True)
    assert not may_record(STUDENT, kind, student="me", scored=False, taught=False, enrolled=False)
    assert not may_record(STUDENT, kind, student="other", scored=False, taught=False, enrolled=True)
    assert not may_record(STUDENT, kind, student="me", scored=True, taught=True, enrolled=True)


@pytest.mark.feature("000-03")
def test_a_student_never_grades_claims_assigns_corrects_answers_or_runs_a_quiz() -> None:
    assert {kind.value for kind in set(Kind) - SELF_RECORDED} == {
        "ASSIGNMENT_ASSIGNED",
        "SUBMISSION_GRADED",
        "CONCEPT_MASTERED",
        "QUIZ_ATTEMPT",
        "QUALITY_ASSESSED",
        "QUIZ_CREATED",
        "QUIZ_STARTED",
        "QUESTION_DISPLAYED",
        "QUIZ_ENDED",
        "ANSWER_SUBMITTED",
        "EVENT_VOIDED",
        "SUBMISSION_REGRADED",
        "ASSIGNMENT_EXCUSED",
        "ASSIGNMENT_REOPENED",
    }


@pytest.mark.feature("000-03")
def test_guardians_and_readers_record_nothing() -> None:
    for who, kind, scored, taught in product((NOBODY, GUARDIAN, READ, ROSTER, WEBHOOKS), Kind, BOTH, BOTH):
        assert not may_record(who, kind, student="me", scored=scored, taught=taught, enrolled=True)


@pytest.mark.feature("X-01")
def test_a_void_needs_the_classs_teacher_an_admin_or_an_ingesting_machine() -> None:
    assert allowed({name: may_void(who, taught=True) for name, who in EVERYONE.items()}) == {
        "teacher",
        "admin",
        "ingest",
    }
    assert allowed({name: may_void(who, taught=False) for name, who in EVERYONE.items()}) == {"admin", "ingest"}


@pytest.mark.feature("000-18")
@pytest.mark.parametrize(
    ("student", "is_linked", "is_taught", "readers"),
    [
        ("other", False, False, {"admin", "read"}),
        ("me", False, False, {"admin", "read", "student"}),
        ("other", True, False, {"admin", "read", "guardian"}),
        ("other", False, True, {"admin", "read", "teacher"}),
        ("me", True, True, {"admin", "read", "student", "guardian", "teacher"}),
    ],
)
def test_a_student_is_read_by_self_linked_guardian_teacher_admin_and_reader(
    student: str, is_linked: bool, is_taught: bool, readers: set[str]
) -> None:
    facts = {"is_linked": is_linked, "is_taught": is_taught}

    assert allowed({name: may_read_student(who, student, **facts) for name, who in EVERYONE.items()}) == readers
    assert allowed({name: may_subscribe_mastery(who, student, **facts) for name, who in EVERYONE.items()}) == readers


@pytest.mark.feature("000-17")
@pytest.mark.parametrize(
    ("is_teacher", "is_enrolled", "field_for_staff", "readers"),
    [
        (False, False, False, {"admin", "read"}),
        (False, True, False, {"admin", "read", "student"}),
        (False, True, True, {"admin", "read"}),
        (True, False, True, {"admin", "read", "teacher"}),
        (True, True, True, {"admin", "read", "teacher"}),
        (True, True, False, {"admin", "read", "teacher", "student"}),
    ],
)
def test_a_classroom_shows_its_staff_fields_to_staff_only(
    is_teacher: bool, is_enrolled: bool, field_for_staff: bool, readers: set[str]
) -> None:
    decisions = {
        name: may_read_classroom(who, is_teacher=is_teacher, is_enrolled=is_enrolled, field_for_staff=field_for_staff)
        for name, who in EVERYONE.items()
    }

    assert allowed(decisions) == readers


@pytest.mark.feature("000-14", "000-15", "000-16")
def test_risk_flags_are_never_shown_to_a_student_or_guardian() -> None:
    for decide in (may_see_flags, may_subscribe_risk, may_subscribe_class_mastery):
        taught = allowed({name: decide(who, is_taught=True) for name, who in EVERYONE.items()})
        foreign = allowed({name: decide(who, is_taught=False) for name, who in EVERYONE.items()})

        assert taught == {"teacher", "admin", "read"}
        assert foreign == {"admin", "read"}


@pytest.mark.feature("000-17")
def test_dashboard_events_and_policy_belong_to_the_classs_teachers_and_admins() -> None:
    for decide in (may_subscribe_dashboard, may_subscribe_events, may_update_policy):
        taught = allowed({name: decide(who, is_taught=True) for name, who in EVERYONE.items()})
        foreign = allowed({name: decide(who, is_taught=False) for name, who in EVERYONE.items()})

        assert taught == {"teacher", "admin"}
        assert foreign == {"admin"}


@pytest.mark.feature("003-17")
def test_the_roster_is_written_by_admins_and_roster_machines_and_work_by_teachers_too() -> None:
    assert allowed({name: may_manage_roster(who) for name, who in EVERYONE.items()}) == {"admin", "roster"}
    assert allowed({name: may_save_assignment(who, is_taught=False) for name, who in EVERYONE.items()}) == {
        "admin",
        "roster",
    }
    assert allowed({name: may_save_assignment(who, is_taught=True) for name, who in EVERYONE.items()}) == {
        "admin",
        "roster",
        "teacher",
    }


@pytest.mark.feature("000-07")
def test_ingestion_is_seen_by_admins_and_the_machines_that_send_or_read() -> None:
    assert allowed({name: may_see_ingestion(who) for name, who in EVERYONE.items()}) == {"admin", "ingest", "read"}


@pytest.mark.parametrize("name", [name for name, who in EVERYONE.items() if who.roles == {Role.INTEGRATOR}])
def test_a_scope_without_the_role_of_a_machine_opens_nothing(name: str) -> None:
    pretender = replace(EVERYONE[name], roles=frozenset({Role.STUDENT}))

    assert not may_record(pretender, Kind.SUBMISSION_GRADED, student="me", scored=True, taught=False, enrolled=True)
    assert not may_manage_roster(pretender)
    assert not may_see_ingestion(pretender)
    assert not may_use(pretender, "saveStudent")


@pytest.mark.parametrize("operation", ["dropTables", "", "Viewer", "student.points", "viewer "])
def test_an_operation_nobody_listed_is_closed_to_everyone(operation: str) -> None:
    assert allowed({name: may_use(who, operation) for name, who in EVERYONE.items()}) == set()


@pytest.mark.parametrize(
    ("operation", "users"),
    [
        ("viewer", {"student", "guardian", "teacher", "admin", "ingest", "roster", "read", "webhooks"}),
        ("viewer.children", {"guardian"}),
        ("viewer.classrooms", {"student", "teacher"}),
        ("student.mastery", {"student", "guardian", "teacher", "admin", "read"}),
        ("student.riskFlags", {"teacher", "admin", "read"}),
        ("classroom.dashboard", {"teacher", "admin"}),
        ("recordEvent", {"student", "teacher", "admin", "ingest"}),
        ("recordEvents", {"teacher", "admin", "ingest"}),
        ("voidEvent", {"teacher", "admin", "ingest"}),
        ("saveStudent", {"admin", "roster"}),
        ("saveAssignment", {"teacher", "admin", "roster"}),
        ("updateClassroomPolicy", {"teacher", "admin"}),
        ("ingestion.backlog", {"admin", "ingest", "read"}),
        ("riskFlagChanged", {"teacher", "admin", "read"}),
        ("masteryChanged", {"student", "guardian", "teacher", "admin", "read"}),
        ("dashboardChanged", {"teacher", "admin"}),
        ("eventRecorded", {"teacher", "admin"}),
    ],
)
def test_an_operation_is_open_to_the_roles_of_the_index(operation: str, users: set[str]) -> None:
    assert allowed({name: may_use(who, operation) for name, who in EVERYONE.items()}) == users


def test_every_listed_operation_names_its_roles_and_a_machines_scope() -> None:
    assert all(FIELD_ROLES.values())
    assert {name for name, roles in FIELD_ROLES.items() if Role.INTEGRATOR in roles} - set(INTEGRATOR_SCOPES) == {
        "viewer",
        "service",
        "cancelJob",
    }
    assert all(Role.INTEGRATOR in FIELD_ROLES[name] for name in INTEGRATOR_SCOPES)
