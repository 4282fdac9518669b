"""Voids told by name: the event that takes another one out of every calculation, the same one however often asked."""

from dataclasses import replace
from datetime import datetime
from hashlib import blake2b

from rules.access import Role, Viewer
from rules.evidence import EventInput, IntakeSettings, Kind, Problem, ProblemCode, Submission
from rules.fields import ID_LENGTH_MAX, REASON_LENGTH_MAX, forbidden, is_id
from rules.fingerprint import fingerprint_of
from rules.intake import Target
from rules.validation import RESERVED_SOURCE, validate

_FIELDS = {"targetSource": "source", "targetEventId": "eventId"}  # as voidEvent names them


def void_id(source: str, event_id: str) -> str:
    """The event id of the void of this event: the same for ever, and for no other event."""
    plain = f"void:{source}:{event_id}"
    # With a colon in the source two events could spell one id; a long pair has no room in an id.
    if ":" not in source and len(plain) <= ID_LENGTH_MAX:
        return plain
    return f"void#{blake2b(ascii((source, event_id)).encode(), digest_size=24).hexdigest()}"


def void_of(
    source: str, event_id: str, reason: str, *, viewer: Viewer, target: Target | None, now: datetime
) -> Submission | list[Problem]:
    """The void of an event, or all that is wrong with it; whether the viewer may void it is for the caller to ask.

    A person's void carries the source `user:{sub}`, a machine's the service's own: the target's source need not be
    one that machine could write under. It lies beside its target, if that is known, so that the class sees it.
    """
    given = EventInput(
        type=Kind.EVENT_VOIDED,
        event_id=void_id(source, event_id) if is_id(source) and is_id(event_id) else None,
        target_source=source,
        target_event_id=event_id,
        reason=reason,
    )
    teller = replace(viewer, roles=frozenset({Role.ADMIN}))
    made = validate(given, viewer=teller, now=now, settings=IntakeSettings(), fresh_id="unnamed")
    problems = [] if isinstance(made, Submission) else [_renamed(problem) for problem in made]
    is_machine = viewer.has(Role.INTEGRATOR)
    if is_machine and viewer.sources is not None and source not in viewer.sources:
        problems.append(forbidden("source", "expected a source that this token was issued for"))
    if problems or not isinstance(made, Submission):
        return problems
    event = replace(
        made.event,
        source=RESERVED_SOURCE if is_machine else made.event.source,
        student=target.student if target else "",
        classroom=target.classroom if target else "",
    )
    # A void is final: telling it again, with whatever reason, is the same void.
    return replace(made, event=event, fingerprint=fingerprint_of(replace(given, reason=None)))


def _renamed(problem: Problem) -> Problem:
    first, *rest = problem.field
    message = problem.message
    if problem.code is ProblemCode.TOO_LONG and first == "reason":
        message = f"expected at most {REASON_LENGTH_MAX} characters"
    return Problem(problem.code, (_FIELDS.get(first, first), *rest), message)
