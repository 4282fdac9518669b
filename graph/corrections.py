"""Mending what was recorded about a piece of work: regrade it, excuse it, open it again."""

from typing import Annotated, Any
from uuid import uuid4

import strawberry

from db.evidence import Answer, Status
from graph.access import allow
from graph.receipts import (
    EFFECT,
    SEQ,
    CorrectionEffect,
    RecordedEvent,
    RecordError,
    RecordStatus,
    effect_of,
    errors_of,
    event_of,
)
from graph.recording import facts_of, stored
from graph.request import Context, Info
from graph.scalars import EventTime, Seq
from rules.access import Role, Scope
from rules.amendments import REUSED, ItemCorrection, Regrade, amendment_problems, item_correction_of, regrade_of
from rules.evidence import Kind, Problem, ProblemCode, Submission
from rules.fields import bad_id, is_id
from rules.intake import Facts, Wanted, is_trusted, may_correct_classroom, may_regrade_targets, not_found, targets_of

UNSET: Any = strawberry.UNSET
STUDENTS_MAX = 1_000
REASON = "Why, 1 to 1,000 characters; it is kept."
STUDENTS = "The keys of the students, 1 to 1,000; each once, however often named."
WORK_CLASSROOM = (
    "The key of the class in which the work is done; default the assignment's own. Teachers name it for work that the "
    "roster does not know; without a class it is the work wherever the student does it."
)
KEY = (
    "1 to 128 characters of your choice: the same key again changes nothing and answers DUPLICATE, with another "
    "content CONFLICT and IDEMPOTENCY_KEY_REUSED. Without one, each telling is a correction of its own."
)
RESULT_ERRORS = "What is wrong; empty when it was stored before or is stored now."


@strawberry.input(description="A score that replaces a recorded one. Name `submissionId` or `eventId`.")
class RegradeSubmissionInput:
    """A regrade told by its target's name."""

    source: str = strawberry.field(description="The source of the submission or event.")
    submission_id: strawberry.ID | None = strawberry.field(
        default=UNSET, description="The source's key of the submission: its one attempt, however often graded."
    )
    event_id: strawberry.ID | None = strawberry.field(
        default=UNSET, description="The `eventId` of a scored event within its source."
    )
    score: float = strawberry.field(description="The new score, from 0 to `maxScore`.")
    max_score: float | None = strawberry.field(
        default=UNSET, description="The score of full marks, above 0; 1 when left out, never guessed."
    )
    reason: str = strawberry.field(description=REASON)
    only_if_higher: bool | None = strawberry.field(
        default=UNSET,
        description="Whether a value that is as high or higher by then stays as it is; default false.",
    )
    idempotency_key: str | None = strawberry.field(default=UNSET, description=KEY)


@strawberry.input(description="Work that shall not count for some students.")
class ExcuseAssignmentInput:
    """An excuse of one piece of work."""

    assignment_id: strawberry.ID = strawberry.field(description="The key of the assigned work.")
    classroom_id: strawberry.ID | None = strawberry.field(default=UNSET, description=WORK_CLASSROOM)
    student_ids: list[strawberry.ID] = strawberry.field(description=STUDENTS)
    reason: str = strawberry.field(description=REASON)
    idempotency_key: str | None = strawberry.field(default=UNSET, description=KEY)


@strawberry.input(description="Work that some students do again.")
class ReopenAssignmentInput:
    """A reopening of one piece of work."""

    assignment_id: strawberry.ID = strawberry.field(description="The key of the assigned work.")
    classroom_id: strawberry.ID | None = strawberry.field(default=UNSET, description=WORK_CLASSROOM)
    student_ids: list[strawberry.ID] = strawberry.field(description=STUDENTS)
    due_at: EventTime | None = strawberry.field(
        default=UNSET, description="When it is due now; as before when left out."
    )
    reason: str = strawberry.field(description=REASON)
    idempotency_key: str | None = strawberry.field(default=UNSET, description=KEY)


@strawberry.type(description="What became of a regrade.")
class RegradeSubmissionPayload:
    """The answer to a regrade."""

    status: RecordStatus = strawberry.field(description="What became of the regrade.")
    event: RecordedEvent | None = strawberry.field(
        default=None, description="The SUBMISSION_REGRADED event that says so; null when REJECTED."
    )
    effect: CorrectionEffect | None = strawberry.field(default=None, description=EFFECT)
    seq: Seq | None = strawberry.field(default=None, description=SEQ)
    errors: list[RecordError] = strawberry.field(default_factory=list, description=RESULT_ERRORS)


@strawberry.type(description="What became of the correction for one student.")
class StudentCorrection:
    """One student's share of an excuse or a reopening."""

    student_id: strawberry.ID = strawberry.field(description="The key of the student.")
    status: RecordStatus = strawberry.field(description="What became of it.")
    event: RecordedEvent | None = strawberry.field(
        default=None, description="The event that says so; null when REJECTED."
    )
    effect: CorrectionEffect | None = strawberry.field(default=None, description=EFFECT)
    seq: Seq | None = strawberry.field(default=None, description=SEQ)
    errors: list[RecordError] = strawberry.field(default_factory=list, description=RESULT_ERRORS)


ALL_RESULTS = "One result for each student, in the order first named; one refusal turns no other student away."
LAST_SEQ = "The highest log position of the stored events, to be read with `minSeq`; null when none is stored."
WHOLE_ERRORS = "What is wrong with the request as a whole; then nothing was stored and `results` is empty."


@strawberry.type(description="What became of an excuse.")
class ExcuseAssignmentPayload:
    """The answers to an excuse."""

    results: list[StudentCorrection] = strawberry.field(default_factory=list, description=ALL_RESULTS)
    seq: Seq | None = strawberry.field(default=None, description=LAST_SEQ)
    errors: list[RecordError] = strawberry.field(default_factory=list, description=WHOLE_ERRORS)


@strawberry.type(description="What became of a reopening.")
class ReopenAssignmentPayload:
    """The answers to a reopening."""

    results: list[StudentCorrection] = strawberry.field(default_factory=list, description=ALL_RESULTS)
    seq: Seq | None = strawberry.field(default=None, description=LAST_SEQ)
    errors: list[RecordError] = strawberry.field(default_factory=list, description=WHOLE_ERRORS)


@strawberry.type
class CorrectionMutation:
    """Corrections of work; a correction is an event, and itself never corrected."""

    @strawberry.field(
        description="Replace the score of a recorded grade or quiz attempt; it keeps its place in time. The last "
        "regrade wins, and a submission graded again after it has that grade. Teachers regrade work of their classes."
    )
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.INGEST)
    async def regrade_submission(
        self,
        info: Info,
        input: Annotated[RegradeSubmissionInput, strawberry.argument(description="The work, its score, and why.")],
    ) -> RegradeSubmissionPayload:
        """Writes a SUBMISSION_REGRADED event."""
        made = await _regrade(info.context, input)
        if not isinstance(made, Submission):
            return RegradeSubmissionPayload(status=RecordStatus.REJECTED, errors=errors_of(made))
        (answer,) = await stored(info.context, [made])
        return RegradeSubmissionPayload(
            status=RecordStatus[answer.status.name],
            event=event_of(made, answer),
            effect=effect_of(answer),
            seq=Seq(answer.seq),
            errors=_errors_after(answer),
        )

    @strawberry.field(
        description="Excuse students from a piece of work: it is not missing, is in no rate and no average, and is no "
        "evidence of mastery, whatever was or will be handed in. Teachers excuse students of their classes."
    )
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.INGEST)
    async def excuse_assignment(
        self,
        info: Info,
        input: Annotated[ExcuseAssignmentInput, strawberry.argument(description="The work, for whom, and why.")],
    ) -> ExcuseAssignmentPayload:
        """Writes one ASSIGNMENT_EXCUSED event for each student."""
        results, problems = await _corrected(info.context, input, Kind.ASSIGNMENT_EXCUSED)
        return ExcuseAssignmentPayload(results=results, seq=_last_of(results), errors=errors_of(problems))

    @strawberry.field(
        description="Let students do a piece of work again: what they handed in before, its grades and excuses count "
        "no more, and it is assigned anew. Of an excuse and a reopening the later one wins."
    )
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.INGEST)
    async def reopen_assignment(
        self,
        info: Info,
        input: Annotated[ReopenAssignmentInput, strawberry.argument(description="The work, for whom, and why.")],
    ) -> ReopenAssignmentPayload:
        """Writes one ASSIGNMENT_REOPENED event for each student."""
        results, problems = await _corrected(info.context, input, Kind.ASSIGNMENT_REOPENED)
        return ReopenAssignmentPayload(results=results, seq=_last_of(results), errors=errors_of(problems))


def _sent(value: Any) -> Any:
    """The value, or None where none was sent."""
    return None if value is UNSET else value


def _last_of(results: list[StudentCorrection]) -> Seq | None:
    return max((result.seq for result in results if result.seq is not None), default=None)


def _errors_after(answer: Answer) -> list[RecordError]:
    """A key that was used before for another content is told as such; these events have no other key to clash."""
    return errors_of([REUSED] if answer.status is Status.CONFLICT else [])


async def _regrade(context: Context, input: RegradeSubmissionInput) -> Submission | list[Problem]:
    """The regrade beside what it names, or why there is none."""
    viewer, source = context.viewer, input.source
    event_id, submission_id = _sent(input.event_id), _sent(input.submission_id)
    wanted = Wanted(
        targets=frozenset([(source, event_id)] if is_id(source) and is_id(event_id) else []),
        submissions=frozenset([(source, submission_id)] if is_id(source) and is_id(submission_id) else []),
    )
    facts = await facts_of(context, wanted)
    targets = targets_of(source, event_id, submission_id, facts)
    told = Regrade(
        source=source,
        event_id=event_id,
        submission_id=submission_id,
        score=input.score,
        max_score=_sent(input.max_score),
        reason=input.reason,
        only_if_higher=bool(_sent(input.only_if_higher)),
        idempotency_key=_sent(input.idempotency_key),
    )
    rooms = [facts.classrooms.get(target.classroom) for target in targets]
    made = regrade_of(
        told,
        viewer=viewer,
        targets=targets,
        extra_credit=bool(rooms) and all(room is not None and room.extra_credit for room in rooms),
        now=context.now,
        fresh_id=str(uuid4()),
    )
    if isinstance(made, Submission) and not may_regrade_targets(targets, viewer, facts, now=context.now):
        field = "eventId" if event_id is not None else "submissionId"
        return [not_found(field, "expected graded work of a class that you teach today")]
    return made


async def _corrected(
    context: Context, input: ExcuseAssignmentInput | ReopenAssignmentInput, kind: Kind
) -> tuple[list[StudentCorrection], list[Problem]]:
    """Each student's result, or what is wrong with the whole."""
    students = list(dict.fromkeys(str(student) for student in input.student_ids))
    problems = [*_misfit(len(students)), *amendment_problems(context.viewer, _sent(input.idempotency_key))]
    assignment, named = str(input.assignment_id), _sent(input.classroom_id)
    problems += [] if is_id(assignment) else [bad_id(("assignmentId",), assignment)]
    problems += [] if named is None or is_id(named) else [bad_id(("classroomId",), named)]
    if problems:
        return [], problems
    facts = await facts_of(
        context, Wanted(homes=frozenset([assignment]), classrooms=frozenset([named] if named else []))
    )
    classroom = named or facts.homes.get(assignment, "")
    if not may_correct_classroom(classroom, context.viewer, facts, now=context.now):
        return [], [not_found("assignmentId", "expected work of a class that you teach today")]
    told = ItemCorrection(
        kind=kind,
        assignment=assignment,
        classroom=classroom,
        reason=input.reason,
        due_at=_sent(input.due_at) if isinstance(input, ReopenAssignmentInput) else None,
        idempotency_key=_sent(input.idempotency_key),
    )
    known = await _pupils(context, students, classroom)
    return await _told(context, told, students, known), []


async def _told(
    context: Context, told: ItemCorrection, students: list[str], known: frozenset[tuple[str, str]] | None
) -> list[StudentCorrection]:
    """Judge each student's correction by itself, store the good ones in one commit."""
    judged: list[Submission | list[Problem]] = []
    for student in students:
        made = item_correction_of(told, student, viewer=context.viewer, now=context.now, fresh_id=str(uuid4()))
        if isinstance(made, Submission) and known is not None and (student, told.classroom) not in known:
            made = [not_found("studentId", "expected a student of the class")]
        judged.append(made)
    answers = iter(await stored(context, [made for made in judged if isinstance(made, Submission)]))
    return [
        _result(student, made, next(answers) if isinstance(made, Submission) else None)
        for student, made in zip(students, judged, strict=True)
    ]


def _result(student: str, made: Submission | list[Problem], answer: Answer | None) -> StudentCorrection:
    if not isinstance(made, Submission) or answer is None:
        problems = [] if isinstance(made, Submission) else made
        return StudentCorrection(
            student_id=strawberry.ID(student), status=RecordStatus.REJECTED, errors=errors_of(problems)
        )
    return StudentCorrection(
        student_id=strawberry.ID(student),
        status=RecordStatus[answer.status.name],
        event=event_of(made, answer),
        effect=effect_of(answer),
        seq=Seq(answer.seq),
        errors=_errors_after(answer),
    )


async def _pupils(context: Context, students: list[str], classroom: str) -> frozenset[tuple[str, str]] | None:
    """Those of the students who are, were or will be in the class; None for whoever records for anyone (C7)."""
    if is_trusted(context.viewer):
        return None
    pairs = frozenset((student, classroom) for student in students if is_id(student))
    facts: Facts = await facts_of(context, Wanted(pupils=pairs))
    return facts.pupils


def _misfit(count: int) -> list[Problem]:
    """Why a correction of this many students is not taken."""
    if count == 0:
        return [Problem(ProblemCode.REQUIRED, ("studentIds",), "expected at least one student, got none")]
    if count > STUDENTS_MAX:
        message = f"expected at most {STUDENTS_MAX} students, got {count}"
        return [Problem(ProblemCode.TOO_MANY, ("studentIds",), message)]
    return []
