"""Regrades, excuses and reopenings told by name: the events that mend what was recorded about a piece of work."""

from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b

from rules.access import Role, Viewer
from rules.evidence import EventInput, IntakeSettings, Kind, Problem, ProblemCode, Submission
from rules.fields import bad_id, forbidden, is_id
from rules.fingerprint import fingerprint_of
from rules.intake import Target
from rules.validation import RESERVED_SOURCE, validate

_FIELDS = {"targetSource": "source", "targetEventId": "eventId"}  # as regradeSubmission names them


@dataclass(frozen=True, slots=True)
class Regrade:
    """A regrade as it was told: of an event or of a submission of `source`; nothing is checked."""

    source: str
    event_id: str | None
    submission_id: str | None
    score: float
    max_score: float | None
    reason: str
    only_if_higher: bool
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class ItemCorrection:
    """An excuse or a reopening of one piece of work as it was told, for each of its students; nothing is checked.

    `classroom` "" means the work in whatever class the student does it.
    """

    kind: Kind
    assignment: str
    classroom: str
    reason: str
    due_at: datetime | None
    idempotency_key: str | None


def keyed_id(kind: Kind, viewer: Viewer, *parts: str) -> str:
    """The event id that an idempotency key stands for: the same for ever, for one sender and one kind."""
    return f"{kind.value.lower()}#{blake2b(ascii((viewer.key, *parts)).encode(), digest_size=24).hexdigest()}"


def regrade_of(
    told: Regrade, *, viewer: Viewer, targets: tuple[Target, ...], extra_credit: bool, now: datetime, fresh_id: str
) -> Submission | list[Problem]:
    """The regrade of what is known by that name, or all that is wrong; whether it may be is for the caller to ask.

    It lies beside its target where there is just one, so that the class sees it. Without an idempotency key each
    telling is a regrade of its own: going back to an earlier value is one.
    """
    given = EventInput(
        type=Kind.SUBMISSION_REGRADED,
        target_source=told.source,
        target_event_id=told.event_id,
        submission_id=told.submission_id,
        score=told.score,
        max_score=told.max_score,
        reason=told.reason,
        only_if_higher=told.only_if_higher or None,
    )
    found = {(target.student, target.classroom) for target in targets}
    students = {student for student, _ in found}
    made = _made(
        given,
        viewer=viewer,
        student=students.pop() if len(students) == 1 else "",
        classroom=next(iter(found))[1] if len(found) == 1 else "",
        settings=IntakeSettings(extra_credit=extra_credit),
        event_id=told.idempotency_key and keyed_id(Kind.SUBMISSION_REGRADED, viewer, told.idempotency_key),
        now=now,
        fresh_id=fresh_id,
    )
    problems = [] if isinstance(made, Submission) else made
    problems += _key_problems(told.idempotency_key)
    is_bound = viewer.has(Role.INTEGRATOR) and viewer.sources is not None and told.source not in viewer.sources
    if is_bound:
        problems.append(forbidden("source", "expected a source that this token was issued for"))
    return problems or made


def item_correction_of(
    told: ItemCorrection, student: str, *, viewer: Viewer, now: datetime, fresh_id: str
) -> Submission | list[Problem]:
    """One student's excuse or reopening, or all that is wrong; whether it may be told is for the caller to ask."""
    given = EventInput(
        type=told.kind,
        student_id=student,
        classroom_id=told.classroom or None,
        assignment_id=told.assignment,
        reason=told.reason,
        due_at=told.due_at,
    )
    key = told.idempotency_key
    return _made(
        given,
        viewer=viewer,
        student=student,
        classroom=told.classroom,
        settings=IntakeSettings(),
        event_id=key and keyed_id(told.kind, viewer, key, student),
        now=now,
        fresh_id=fresh_id,
    )


def amendment_problems(viewer: Viewer, idempotency_key: str | None) -> list[Problem]:
    """What keeps a viewer from excusing or reopening anything under this key."""
    problems = _key_problems(idempotency_key)
    if viewer.has(Role.INTEGRATOR) and viewer.sources is not None:
        message = "a token bound to sources tells this as an event of one of them: recordEvent"
        problems.append(forbidden("assignment_id", message))
    return problems


def _key_problems(key: str | None) -> list[Problem]:
    return [] if key is None or is_id(key) else [bad_id(("idempotencyKey",), key)]


def _made(
    given: EventInput,
    *,
    viewer: Viewer,
    student: str,
    classroom: str,
    settings: IntakeSettings,
    event_id: str | None,
    now: datetime,
    fresh_id: str,
) -> Submission | list[Problem]:
    """The event under a person's own source, or under the service's for a machine, as voids are."""
    teller = replace(viewer, roles=frozenset({Role.ADMIN}))
    # A regrade names no student and an item may be in any class; validation wants both named.
    whole = replace(given, student_id=given.student_id or viewer.key, classroom_id=given.classroom_id or "anywhere")
    made = validate(replace(whole, event_id=event_id), viewer=teller, now=now, settings=settings, fresh_id=fresh_id)
    if not isinstance(made, Submission):
        return [_renamed(problem) for problem in made]
    source = RESERVED_SOURCE if viewer.has(Role.INTEGRATOR) else made.event.source
    event = replace(made.event, source=source, student=student, classroom=classroom)
    return replace(made, event=event, fingerprint=fingerprint_of(given))


def _renamed(problem: Problem) -> Problem:
    first, *rest = problem.field
    message = problem.message.replace("targetEventId", "eventId")
    return Problem(problem.code, (_FIELDS.get(first, first), *rest), message)


REUSED = Problem(
    ProblemCode.IDEMPOTENCY_KEY_REUSED, ("idempotencyKey",), "expected a key of its own for another content"
)
