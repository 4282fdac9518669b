"""Who may see and tell what: the one place where a right is decided."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from rules.kinds import Kind


class Role(StrEnum):
    """What a viewer is in the tenant; one person may hold several roles."""

    STUDENT = "student"
    GUARDIAN = "guardian"
    TEACHER = "teacher"
    ADMIN = "admin"
    INTEGRATOR = "integrator"


class Scope(StrEnum):
    """What an integrator's token was issued for."""

    INGEST = "ingest"
    ROSTER = "roster"
    READ = "read"
    WEBHOOKS = "webhooks"


@dataclass(frozen=True, slots=True)
class Viewer:
    """The bearer of a verified token: everything a rule may know about who is asking.

    `key` is the token's `sub`, the person's pseudonymous key in the tenant. `sources` limits the sources an
    integrator may record for; None means any.
    """

    tenant: int
    key: str
    roles: frozenset[Role]
    expires_at: datetime
    scopes: frozenset[Scope] = frozenset()
    sources: frozenset[str] | None = None

    def has(self, *roles: Role) -> bool:
        """Whether the viewer holds at least one of these roles."""
        return not self.roles.isdisjoint(roles)

    def is_integrator_for(self, scope: Scope) -> bool:
        """Whether the viewer is a machine whose token carries this scope."""
        return Role.INTEGRATOR in self.roles and scope in self.scopes


SELF_RECORDED = frozenset(
    {
        Kind.SUBMISSION_CREATED,
        Kind.CONCEPT_STARTED,
        Kind.CONCEPT_COMPLETED,
        Kind.CONTENT_VIEWED,
        Kind.EXERCISE_COMPLETED,
        Kind.PEER_HELP,
        Kind.STUDENT_LOGIN,
        Kind.STUDENT_LOGOUT,
        Kind.CLASSROOM_JOINED,
        Kind.CLASSROOM_LEFT,
        Kind.HELP_REQUESTED,
        Kind.APP_ERROR,
        Kind.OTHER,
    }
)
"""What a student may tell about themselves. Grades, claims of mastery and quality are others' to give, answers come
through submitAnswer, and assigning, correcting and running a quiz are a teacher's."""


def may_record(viewer: Viewer, kind: Kind, *, student: str, scored: bool, taught: bool, enrolled: bool) -> bool:
    """Whether the viewer may record an event of this kind about this student.

    `taught`: the event names a classroom that the viewer teaches on that date. `enrolled`: the event names no
    classroom, or one the student is enrolled in.
    """
    if viewer.has(Role.ADMIN) or viewer.is_integrator_for(Scope.INGEST):
        return True
    if taught and viewer.has(Role.TEACHER):
        return True
    is_own_activity = student == viewer.key and kind in SELF_RECORDED and not scored
    return is_own_activity and enrolled and viewer.has(Role.STUDENT)


def may_void(viewer: Viewer, *, taught: bool) -> bool:
    """Whether the viewer may take an event out of every calculation, or correct it otherwise; `taught`: it belongs to a
    class they teach."""
    return _is_staff(viewer, Scope.INGEST, taught=taught)


def may_read_student(viewer: Viewer, student: str, *, is_linked: bool, is_taught: bool) -> bool:
    """Whether the viewer may read this student's work.

    `is_linked`: guardian link with active consent. `is_taught`: they share a class that the viewer teaches.
    """
    if viewer.has(Role.STUDENT) and student == viewer.key:
        return True
    if is_linked and viewer.has(Role.GUARDIAN):
        return True
    return _is_staff(viewer, Scope.READ, taught=is_taught)


def may_read_classroom(viewer: Viewer, *, is_teacher: bool, is_enrolled: bool, field_for_staff: bool) -> bool:
    """Whether the viewer may read a field of this classroom; `field_for_staff`: it shows more than one's own work."""
    if is_enrolled and not field_for_staff and viewer.has(Role.STUDENT):
        return True
    return _is_staff(viewer, Scope.READ, taught=is_teacher)


def may_see_flags(viewer: Viewer, *, is_taught: bool) -> bool:
    """Whether the viewer may see who is at risk: staff only, a student or guardian never."""
    return _is_staff(viewer, Scope.READ, taught=is_taught)


def may_manage_roster(viewer: Viewer) -> bool:
    """Whether the viewer may write schools, classes, students, enrolments, links and the catalog."""
    return viewer.has(Role.ADMIN) or viewer.is_integrator_for(Scope.ROSTER)


def may_save_assignment(viewer: Viewer, *, is_taught: bool) -> bool:
    """Whether the viewer may assign work to this classroom."""
    return _is_staff(viewer, Scope.ROSTER, taught=is_taught)


def may_update_policy(viewer: Viewer, *, is_taught: bool) -> bool:
    """Whether the viewer may change how this classroom's numbers are made."""
    return viewer.has(Role.ADMIN) or (is_taught and viewer.has(Role.TEACHER))


def may_see_ingestion(viewer: Viewer) -> bool:
    """Whether the viewer may see what came in and what became of it."""
    return viewer.has(Role.ADMIN) or viewer.is_integrator_for(Scope.INGEST) or viewer.is_integrator_for(Scope.READ)


def may_recompute(viewer: Viewer, *, is_taught: bool) -> bool:
    """Whether the viewer may have these numbers made again; `is_taught`: of a class or student they teach."""
    return _is_staff(viewer, Scope.ROSTER, taught=is_taught)


def may_verify(viewer: Viewer, *, is_taught: bool) -> bool:
    """Whether the viewer may have a class's numbers held against the log."""
    return viewer.has(Role.ADMIN) or (is_taught and viewer.has(Role.TEACHER))


def may_see_all_jobs(viewer: Viewer) -> bool:
    """Whether the viewer sees the work that others asked for."""
    return viewer.has(Role.ADMIN)


def may_follow_job(viewer: Viewer, requested_by: str) -> bool:
    """Whether the viewer may see and stop this work."""
    return may_see_all_jobs(viewer) or requested_by == viewer.key


def may_subscribe_risk(viewer: Viewer, *, is_taught: bool) -> bool:
    """Whether riskFlagChanged of this classroom may be pushed to the viewer."""
    return may_see_flags(viewer, is_taught=is_taught)


def may_subscribe_mastery(viewer: Viewer, student: str, *, is_linked: bool, is_taught: bool) -> bool:
    """Whether masteryChanged of this student may be pushed to the viewer."""
    return may_read_student(viewer, student, is_linked=is_linked, is_taught=is_taught)


def may_subscribe_class_mastery(viewer: Viewer, *, is_taught: bool) -> bool:
    """Whether masteryChanged of a whole classroom may be pushed to the viewer: it shows other people's children."""
    return _is_staff(viewer, Scope.READ, taught=is_taught)


def may_subscribe_dashboard(viewer: Viewer, *, is_taught: bool) -> bool:
    """Whether dashboardChanged of this classroom may be pushed to the viewer: its teachers and admins only."""
    return viewer.has(Role.ADMIN) or (is_taught and viewer.has(Role.TEACHER))


def may_subscribe_events(viewer: Viewer, *, is_taught: bool) -> bool:
    """Whether eventRecorded of this classroom may be pushed to the viewer: its teachers and admins only."""
    return may_subscribe_dashboard(viewer, is_taught=is_taught)


def _is_staff(viewer: Viewer, scope: Scope, *, taught: bool) -> bool:
    """An admin of the tenant, a teacher of the class in question, or a machine with this scope."""
    return viewer.has(Role.ADMIN) or (taught and viewer.has(Role.TEACHER)) or viewer.is_integrator_for(scope)


def may_use(viewer: Viewer, operation: str) -> bool:
    """Whether the viewer's roles and scopes open this operation at all; whose data it shows is decided beside it."""
    roles = FIELD_ROLES.get(operation, frozenset())
    if viewer.has(*(roles - {Role.INTEGRATOR})):
        return True
    if Role.INTEGRATOR not in roles or not viewer.has(Role.INTEGRATOR):
        return False
    scopes = INTEGRATOR_SCOPES.get(operation)
    return scopes is None or not scopes.isdisjoint(viewer.scopes)


def _roles(letters: str) -> frozenset[Role]:
    return frozenset(_ROLE_BY_LETTER[letter] for letter in letters)


_ROLE_BY_LETTER = {
    "S": Role.STUDENT,
    "G": Role.GUARDIAN,
    "T": Role.TEACHER,
    "A": Role.ADMIN,
    "I": Role.INTEGRATOR,
}
_QUERIES = {
    "viewer": "SGTAI",
    "viewer.children": "G",
    "viewer.classrooms": "ST",
    "node": "SGTAI",
    "nodes": "SGTAI",
    "student": "SGTAI",
    "student.mastery": "SGTAI",
    "student.assignments": "SGTAI",
    "student.progress": "SGTAI",
    "student.conceptProgress": "SGTAI",
    "student.timeline": "SGTAI",
    "student.trends": "SGTAI",
    "student.riskFlags": "TAI",
    "classroom": "STAI",
    "classroom.dashboard": "TA",
    "classroom.rollup": "TAI",
    "classroom.roster": "TAI",
    "classroom.assignments": "STAI",
    "classroom.mastery": "TAI",
    "classroom.concepts": "STAI",
    "classroom.riskFlags": "TAI",
    "classroom.policy": "TAI",
    "school": "STAI",
    "school.classrooms": "TAI",
    "concept": "SGTAI",
    "catalog": "SGTAI",
    "service": "SGTAI",
    "tenant.jobs": "TAI",
    "tenant.driftReports": "A",
    "ingestion": "AI",
    "ingestion.backlog": "AI",
    "ingestion.conflicts": "AI",
    "ingestion.unrostered": "AI",
    "ingestion.event": "AI",
}
_MUTATIONS = {
    "recordEvent": "STAI",
    "recordEvents": "TAI",
    "voidEvent": "TAI",
    "regradeSubmission": "TAI",
    "excuseAssignment": "TAI",
    "reopenAssignment": "TAI",
    "saveCatalog": "AI",
    "saveSchool": "AI",
    "saveStudent": "AI",
    "saveClassroom": "AI",
    "saveAssignment": "TAI",
    "saveEnrollment": "AI",
    "linkGuardian": "AI",
    "updateClassroomPolicy": "TA",
    "recompute": "TAI",
    "verifyProjection": "TA",
    "cancelJob": "SGTAI",
    "replayDeadLetters": "AI",
    "discardDeadLetters": "A",
    "resolveConflict": "A",
}
_SUBSCRIPTIONS = {
    "eventRecorded": "TA",
    "dashboardChanged": "TA",
    "masteryChanged": "SGTAI",
    "riskFlagChanged": "TAI",
    "jobProgressed": "SGTAI",
}
FIELD_ROLES: Mapping[str, frozenset[Role]] = MappingProxyType(
    {name: _roles(letters) for name, letters in {**_QUERIES, **_MUTATIONS, **_SUBSCRIPTIONS}.items()}
)
"""Who may use which operation (003-29); a field of a type is written `type.field`."""

_INGEST = frozenset({Scope.INGEST})
_ROSTER = frozenset({Scope.ROSTER})
_READ = frozenset({Scope.READ})
_NO_SCOPE_NEEDED = frozenset({"viewer", "service", "cancelJob"})
_RECORDING = frozenset(
    {
        "recordEvent",
        "recordEvents",
        "voidEvent",
        "regradeSubmission",
        "excuseAssignment",
        "reopenAssignment",
        "replayDeadLetters",
    }
)


def _scopes_of(operation: str) -> frozenset[Scope]:
    if operation in _RECORDING:
        return _INGEST
    if operation in _MUTATIONS:
        return _ROSTER
    # Whoever sends must be able to see what became of it.
    return _INGEST | _READ if operation.startswith("ingestion") else _READ


INTEGRATOR_SCOPES: Mapping[str, frozenset[Scope]] = MappingProxyType(
    {
        name: _scopes_of(name)
        for name, roles in FIELD_ROLES.items()
        if Role.INTEGRATOR in roles and name not in _NO_SCOPE_NEEDED
    }
)
"""Any one of these scopes opens the operation to a machine; an operation that is not listed needs none."""
