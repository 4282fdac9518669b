"""What may enter the log: an event as sent becomes a Submission, or the list of all that is wrong with it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

from rules import metadata as metadata_rules
from rules.access import Role, Scope, Viewer, may_record
from rules.evidence import EventInput, IntakeSettings, Lane, LearningEvent, Problem, ProblemCode, Submission
from rules.fields import (
    CONCEPTS_MAX,
    EXERCISES_MAX,
    FIELD_BY_NAME,
    RATIO_MAX,
    SCORE_MAX,
    are_plain_ids,
    bad_id,
    check_details,
    forbidden,
    has_details,
    is_id,
    is_number,
    ratio_of,
    required,
    shown,
    utc,
)
from rules.fingerprint import fingerprint_of
from rules.kinds import (
    ALIASES,
    CONCEPT_KINDS,
    KIND_BY_NAME,
    QUIZ_SESSION_KINDS,
    SPECS,
    Concepts,
    Kind,
    Scores,
    Spec,
)
from rules.payload import payload_of
from rules.policy import MILLION

FUTURE_MAX = timedelta(minutes=15)  # how far a client's clock may run ahead (C6)
LATE_AFTER = timedelta(hours=24)  # an event older than this on arrival is marked late
RESERVED_SOURCE = "sightline"
"""The source of the events that the service writes itself."""
PERSON_PREFIX = "user:"
"""A person's events carry the source `user:{sub}`; no machine may write under it."""


def _alone(name: str) -> Callable[[EventInput], tuple[Any, ...]]:
    """One field, as `attrgetter` gives several."""
    read = attrgetter(name)
    return lambda given: (read(given),)


_NOT_ABOUT_A_STUDENT = QUIZ_SESSION_KINDS | {Kind.EVENT_VOIDED, Kind.APP_ERROR, Kind.OTHER}
_ID_NAMES = (
    "event_id", "student_id", "classroom_id", "assignment_id", "quiz_id", "question_id", "content_id",
    "submission_id", "helper_id", "helped_id", "target_source", "target_event_id",
)  # fmt: skip
_ids: Callable[[EventInput], tuple[Any, ...]] = attrgetter(*_ID_NAMES)
_NEEDED: dict[tuple[str, ...], Callable[[EventInput], tuple[Any, ...]]] = {
    needs: attrgetter(*needs) if len(needs) > 1 else _alone(*needs)
    for needs in {spec.needs for spec in SPECS.values()} - {()}
}


def validate(
    given: EventInput, *, viewer: Viewer, now: datetime, settings: IntakeSettings, fresh_id: str
) -> Submission | list[Problem]:
    """The event as the log stores it, or every problem at once; `fresh_id` is used where a person sent no event id.

    Decides all that the token and the event say. Whether the viewer teaches the classroom, whether the student is
    enrolled and whether both exist is for the caller to ask, with `may_record`.
    """
    problems: list[Problem] = []
    kind, is_inferred = _kind_of(given, problems)
    spec = SPECS[kind or Kind.OTHER]
    _check_ids(given, problems)
    source = source_of(given, viewer, problems)
    occurred_at = _moment_of(given, viewer, now, problems)
    student = _student_of(given, viewer, kind, problems)
    if kind is not None:
        _check_needs(given, kind, spec, viewer, problems)
        _check_right(given, kind, student, viewer, problems)
    concepts = _concepts_of(given, spec, settings, problems)
    max_score, ratio = _score_of(given, kind, spec, source, settings, problems)
    lane = _lane_of(given, problems)
    difficulty, extra = None, None
    if has_details(given):
        difficulty = check_details(given, problems)
        extra = _metadata_of(given, kind or Kind.OTHER, problems)
        _check_app(given, settings, problems)
    if problems or kind is None or occurred_at is None:
        return problems
    event = _event_of(
        given,
        identity=(source, given.event_id or fresh_id),
        kind=kind,
        occurred_at=occurred_at,
        student=student,
        concepts=concepts,
        ratio=ratio if spec.keeps_ratio else None,
    )
    return Submission(
        event=event,
        fingerprint=fingerprint_of(given),
        source_type=given.type if given.type in ALIASES else None,
        payload=payload_of(given, max_score, difficulty, extra),
        lane=lane,
        is_late=now - occurred_at > LATE_AFTER,
        type_inferred=is_inferred,
        is_idempotent=given.event_id is not None,
        dropped=extra.dropped if extra else 0,
    )


def _event_of(
    given: EventInput,
    *,
    identity: tuple[str, str],
    kind: Kind,
    occurred_at: datetime,
    student: str,
    concepts: tuple[str, ...],
    ratio: int | None,
) -> LearningEvent:
    """The event the fold reads: what was decided about it, and the rest as sent."""
    source, event_id = identity
    return LearningEvent(
        source=source,
        event_id=event_id,
        kind=kind,
        occurred_at=occurred_at,
        student=student,
        classroom=given.classroom_id or "",
        revision=given.revision or 0,
        assignment=given.assignment_id,
        quiz=given.quiz_id,
        concepts=concepts,
        ratio=ratio,
        submission=given.submission_id,
        due_at=given.due_at and given.due_at.astimezone(UTC),
        time_spent_ms=given.time_spent_ms,
        target_source=given.target_source,
        target_event_id=given.target_event_id,
        only_if_higher=bool(given.only_if_higher),
    )


def _kind_of(given: EventInput, problems: list[Problem]) -> tuple[Kind | None, bool]:
    """The kind and whether it was inferred (000-05); an unknown name is refused, never inferred again."""
    sent: object = given.type
    if sent is not None:
        kind = KIND_BY_NAME.get(sent) if isinstance(sent, str) else None
        if kind is None:
            message = f"expected a type of the list or one of its aliases, got {shown(sent)}"
            problems.append(Problem(ProblemCode.UNKNOWN_TYPE, ("type",), message))
        return kind, False
    if given.score is not None:
        return Kind.SUBMISSION_GRADED, True
    if given.assignment_id is not None and given.concept_ids:
        return Kind.SUBMISSION_CREATED, True
    message = "expected a type: only a score, or an assignment with concepts, says it without one"
    problems.append(Problem(ProblemCode.REQUIRED, ("type",), message))
    return None, False


def _check_ids(given: EventInput, problems: list[Problem]) -> None:
    ids = _ids(given)
    if are_plain_ids([value for value in ids if value is not None]):
        return
    for name, value in zip(_ID_NAMES, ids, strict=True):
        if value is not None and not is_id(value):
            problems.append(bad_id((FIELD_BY_NAME[name],), value))


def source_of(given: EventInput, viewer: Viewer, problems: list[Problem]) -> str:
    """A person's own source, or the one a machine names and may use."""
    source = given.source
    if not viewer.has(Role.INTEGRATOR):
        own = PERSON_PREFIX + viewer.key
        if source is not None and source != own:
            problems.append(forbidden("source", "a person's events carry the source user:{sub}; leave it out"))
        return own
    if source is None:
        problems.append(required("source", "of a machine"))
        return ""
    if not is_id(source):
        problems.append(bad_id(("source",), source))
        return ""
    is_bound_elsewhere = viewer.sources is not None and source not in viewer.sources
    if is_bound_elsewhere or source == RESERVED_SOURCE or source.startswith(PERSON_PREFIX):
        problems.append(forbidden("source", "expected a source that this token was issued for"))
    return source


def _moment_of(given: EventInput, viewer: Viewer, now: datetime, problems: list[Problem]) -> datetime | None:
    """When it happened, in UTC; a person who does not say means now."""
    if given.event_id is None and viewer.has(Role.INTEGRATOR):
        problems.append(required("event_id", "of a machine"))
    sent = given.occurred_at
    if sent is None:
        if viewer.has(Role.INTEGRATOR):
            problems.append(required("occurred_at", "of a machine"))
        return now
    moment = utc(sent, "occurredAt", problems)
    if moment is not None and moment - now > FUTURE_MAX:
        message = f"expected a time at most 15 minutes ahead of {now.isoformat()}, got {moment.isoformat()}"
        problems.append(Problem(ProblemCode.FUTURE_TIMESTAMP, ("occurredAt",), message))
    return moment


def _student_of(given: EventInput, viewer: Viewer, kind: Kind | None, problems: list[Problem]) -> str:
    """Whom it is about; a student who does not say means themselves."""
    if given.student_id is not None:
        return given.student_id
    if not viewer.has(Role.INTEGRATOR) and (viewer.has(Role.STUDENT) or kind in _NOT_ABOUT_A_STUDENT):
        return viewer.key
    problems.append(required("student_id", "of everyone but students"))
    return ""


def _check_needs(given: EventInput, kind: Kind, spec: Spec, viewer: Viewer, problems: list[Problem]) -> None:
    """The fields that the kind cannot do without, and what they must be to each other."""
    if spec.needs and None in _NEEDED[spec.needs](given):
        problems.extend(required(name, f"of {kind.value}") for name in spec.needs if getattr(given, name) is None)
    if spec.any_of and all(getattr(given, name) is None for name in spec.any_of):
        fields = ", ".join(FIELD_BY_NAME[name] for name in spec.any_of)
        problems.append(required(spec.any_of[0], f"of {kind.value}: any of {fields}"))
    if kind is Kind.PEER_HELP and given.helper_id is not None and given.helper_id == given.helped_id:
        message = "expected someone else than the helper"
        problems.append(Problem(ProblemCode.OUT_OF_RANGE, ("helpedId",), message))
    if kind is Kind.EXERCISE_COMPLETED:
        _check_exercises(given, problems)
    if kind in (Kind.EVENT_VOIDED, Kind.SUBMISSION_REGRADED):
        _check_target(given, viewer, problems)
    if kind is Kind.SUBMISSION_REGRADED:
        _check_regrade(given, problems)


def _check_target(given: EventInput, viewer: Viewer, problems: list[Problem]) -> None:
    """A machine bound to sources voids and regrades nothing of another's."""
    if given.target_source is None or viewer.sources is None or not viewer.has(Role.INTEGRATOR):
        return
    if is_id(given.target_source) and given.target_source not in viewer.sources:
        problems.append(forbidden("target_source", "expected a source that this token was issued for"))


def _check_regrade(given: EventInput, problems: list[Problem]) -> None:
    if given.target_event_id is not None and given.submission_id is not None:
        message = "expected targetEventId or submissionId, got both"
        problems.append(Problem(ProblemCode.OUT_OF_RANGE, ("submissionId",), message))


def _check_exercises(given: EventInput, problems: list[Problem]) -> None:
    done, total = given.completed_exercises, given.total_exercises
    if type(done) is int and type(total) is int and 1 <= total < done <= EXERCISES_MAX:
        message = f"expected at most totalExercises = {total}, got {done}"
        problems.append(Problem(ProblemCode.OUT_OF_RANGE, ("completedExercises",), message))


def _check_right(given: EventInput, kind: Kind, student: str, viewer: Viewer, problems: list[Problem]) -> None:
    """What the token alone forbids; the caller asks again once it knows who teaches and learns where."""
    scored = given.score is not None
    classed = given.classroom_id is not None
    if not may_record(viewer, kind, student=student, scored=scored, taught=classed, enrolled=True):
        if viewer.has(Role.TEACHER):
            if "classroom_id" not in SPECS[kind].needs:
                problems.append(required("classroom_id", "of a teacher"))
            return
        if viewer.has(Role.INTEGRATOR):
            problems.append(forbidden("source", f"expected a token with the scope {Scope.INGEST.value}"))
            return
        field = "score" if scored else "student_id" if student != viewer.key else "type"
        message = "a student records own unscored activity only; scores, claims and answers come another way"
        problems.append(forbidden(field, message))
    elif (
        kind is Kind.PEER_HELP and viewer.roles == {Role.STUDENT} and student not in (given.helper_id, given.helped_id)
    ):
        problems.append(forbidden("helper_id", "a student records help given or received by themselves only"))


def _concepts_of(given: EventInput, spec: Spec, settings: IntakeSettings, problems: list[Problem]) -> tuple[str, ...]:
    """The concepts without repeats, in the order sent; those of the known assignment where the kind allows it."""
    sent: object = given.concept_ids
    if sent is None or sent == [] or sent == ():
        if spec.concepts is Concepts.SOME_OR_KNOWN and settings.assignment_concepts:
            return settings.assignment_concepts
        if spec.concepts is not Concepts.ANY:
            problems.append(required("concept_ids", "here: exactly one" if spec.concepts is Concepts.ONE else "here"))
        return ()
    if not isinstance(sent, list | tuple):
        problems.append(bad_id(("conceptIds",), sent))
        return ()
    bad = [] if are_plain_ids(sent) else [(str(place), v) for place, v in enumerate(sent) if not is_id(v)]
    problems.extend(bad_id(("conceptIds", place), value) for place, value in bad[:CONCEPTS_MAX])
    if bad:
        return ()
    concepts = tuple(dict.fromkeys(sent))
    most = 1 if spec.concepts is Concepts.ONE else CONCEPTS_MAX
    if len(concepts) > most:
        message = f"expected at most {most} different concepts, got {len(concepts)}"
        problems.append(Problem(ProblemCode.TOO_MANY, ("conceptIds",), message))
    return concepts


def _score_of(
    given: EventInput, kind: Kind | None, spec: Spec, source: str, settings: IntakeSettings, problems: list[Problem]
) -> tuple[float | None, int | None]:
    """(the scale, the ratio in millionths); the scale is the event's, the source's or 1, never guessed (C2)."""
    score, max_score = given.score, given.max_score
    if max_score is None:
        max_score = settings.scales.get(source, 1)
    elif not is_number(max_score) or not 0 < max_score <= SCORE_MAX:
        message = f"expected a number above 0 and at most {SCORE_MAX}, got {shown(max_score)}"
        problems.append(Problem(ProblemCode.OUT_OF_RANGE, ("maxScore",), message))
        return None, None
    if score is None:
        if spec.scores is Scores.REQUIRED:
            message = "expected a score, got none"
            problems.append(Problem(ProblemCode.SCORE_REQUIRED, ("score",), message))
        return given.max_score, None
    if spec.scores is Scores.FORBIDDEN:
        message = "expected no score for this type, got one"
        problems.append(Problem(ProblemCode.SCORE_NOT_ALLOWED, ("score",), message))
        return None, None
    if is_number(score) and 0 <= score <= SCORE_MAX and (score <= max_score or max_score * 10 >= score):
        ratio = ratio_of(score, max_score)
        most = RATIO_MAX if settings.extra_credit and kind not in CONCEPT_KINDS else MILLION
        if ratio <= most:
            return max_score, ratio
    message = f"expected a score from 0 to {shown(max_score)}, got {shown(score)}"
    problems.append(Problem(ProblemCode.SCORE_OUT_OF_RANGE, ("score",), message))
    return None, None


def _lane_of(given: EventInput, problems: list[Problem]) -> Lane:
    if given.lane is None:
        return Lane.LIVE
    if given.lane in ("LIVE", "BACKFILL"):
        return Lane(given.lane)
    problems.append(Problem(ProblemCode.OUT_OF_RANGE, ("lane",), "expected LIVE or BACKFILL"))
    return Lane.LIVE


def _metadata_of(given: EventInput, kind: Kind, problems: list[Problem]) -> metadata_rules.Kept | None:
    if given.metadata is None:
        return None
    found = metadata_rules.kept(given.metadata, kind)
    if isinstance(found, metadata_rules.Kept):
        return found
    problems.append(Problem(ProblemCode.BAD_METADATA, ("metadata", *found.path), found.message))
    return None


def _check_app(given: EventInput, settings: IntakeSettings, problems: list[Problem]) -> None:
    app: object = given.app
    if app is None or settings.apps is None or any(problem.field == ("app",) for problem in problems):
        return
    if app not in settings.apps:
        message = f"expected an app that the tenant registered, got {shown(app)}"
        problems.append(Problem(ProblemCode.UNKNOWN_APP, ("app",), message))
