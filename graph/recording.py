"""Recording: an event is told, judged, and answered once it is stored."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, cast
from uuid import uuid4

import strawberry

from db import intake
from db.evidence import Answer
from db.pool import COLLIDED, tenant_transaction
from db.recorder import Behind, Overloaded
from graph.access import allow
from graph.compiled import Begun, straight
from graph.event_inputs import RecordEventInput, RecordEventsInput, VoidEventInput, event_of
from graph.receipts import (
    RecordEventPayload,
    RecordEventsPayload,
    RecordStatus,
    VoidEventPayload,
    answered,
    effect_of,
    errors_of,
    rejected,
    status_of,
)
from graph.receipts import event_of as stored_event_of
from graph.refusal import ErrorCode, Refused
from graph.request import Context, Info
from graph.scalars import Seq
from rules.access import Role, Scope
from rules.evidence import EventInput, Problem, ProblemCode, Submission
from rules.fields import is_id
from rules.intake import NO_FACTS, Facts, Wanted, may_void_target, not_found, refusals_of, settings_for, wanted_of
from rules.routine import Routine
from rules.validation import validate
from rules.voids import void_of

EVENTS_MAX = 1_000  # 003-59


async def _told_one(context: Context, input: RecordEventInput) -> RecordEventPayload:
    """One event; `input` may be any object with the attributes of the class."""
    (result,) = await _recorded(context, [event_of(input)])
    return result


def _begun_one(context: Context, input: RecordEventInput) -> Begun | None:
    """One event, where the roster has no say in it."""
    given = event_of(input)
    made: Submission | list[Problem] | None = Routine(context.viewer, context.now).of(given)
    if made is None:
        if not wanted_of((given,), context.viewer).is_nothing:
            return None
        made = _judged(context, given, NO_FACTS)
    return (
        Begun((made,), partial(_receipt, made)) if isinstance(made, Submission) else Begun((), lambda _: rejected(made))
    )


def _receipt(made: Submission, outcome: Sequence[Answer] | Exception) -> RecordEventPayload:
    if isinstance(outcome, Exception):
        raise worded(outcome)
    return answered(made, outcome[0])


async def _told_many(context: Context, input: RecordEventsInput) -> RecordEventsPayload:
    """A batch; `input` likewise."""
    problem = _misfit(len(input.events))
    if problem:
        return RecordEventsPayload(results=[], seq=None, errors=errors_of([problem]))
    results = await _recorded(context, [event_of(event, input.lane) for event in input.events])
    seqs = [result.seq for result in results]
    seq = max((seq for seq in seqs if seq is not None), default=None)
    return RecordEventsPayload(results=results, seq=seq, errors=[])


async def _told_void(context: Context, input: VoidEventInput) -> VoidEventPayload:
    """A void; `input` likewise."""
    made = await _void(context, input)
    if not isinstance(made, Submission):
        return VoidEventPayload(status=RecordStatus.REJECTED, errors=errors_of(made))
    (answer,) = await stored(context, [made])
    return VoidEventPayload(
        status=status_of(answer),
        event=stored_event_of(made, answer),
        effect=effect_of(answer),
        seq=Seq(answer.seq),
    )


@strawberry.type
class RecordingMutation:
    """What happened, told once. The answer means stored, not yet counted."""

    @strawberry.field(
        description="Record one learning event. Once answered it is stored for good, and takes effect within moments; "
        "sending the same event again is harmless."
    )
    @allow(Role.STUDENT, Role.TEACHER, Role.ADMIN, scope=Scope.INGEST)
    @straight(_told_one, _begun_one)
    async def record_event(
        self,
        info: Info,
        input: Annotated[RecordEventInput, strawberry.argument(description="The event.")],
    ) -> RecordEventPayload:
        """Students tell about themselves, teachers about their classes, machines and admins about anyone."""
        return await _told_one(info.context, input)

    @strawberry.field(
        description="Record up to 1,000 learning events. Each has its own result: one that is wrong or in conflict "
        "never turns the others away."
    )
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.INGEST)
    @straight(_told_many)
    async def record_events(
        self,
        info: Info,
        input: Annotated[RecordEventsInput, strawberry.argument(description="The events, and how urgent they are.")],
    ) -> RecordEventsPayload:
        """All events of a batch share one commit, with whatever else arrives for the tenant."""
        return await _told_many(info.context, input)

    @strawberry.field(
        description="Take a recorded event out of every calculation, for good; it stays in the log. The same event may "
        "be told again under a new `eventId`. Teachers void what belongs to a class they teach."
    )
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.INGEST)
    @straight(_told_void)
    async def void_event(
        self,
        info: Info,
        input: Annotated[VoidEventInput, strawberry.argument(description="The event, and why.")],
    ) -> VoidEventPayload:
        """Writes an EVENT_VOIDED event under an id made of the target's, so that voiding twice is one void."""
        return await _told_void(info.context, input)


def _misfit(count: int) -> Problem | None:
    """Why a batch of this many events is not taken."""
    if count == 0:
        return Problem(ProblemCode.REQUIRED, ("events",), "expected at least one event, got none")
    if count > EVENTS_MAX:
        return Problem(ProblemCode.TOO_MANY, ("events",), f"expected at most {EVENTS_MAX} events, got {count}")
    return None


async def _recorded(context: Context, sent: Sequence[EventInput]) -> list[RecordEventPayload]:
    """Judge each event by itself, store the good ones in one commit, and answer all in the order sent."""
    judged = await _all_judged(context, sent)
    good = [made for made in judged if isinstance(made, Submission)]
    answers = iter(await stored(context, good))
    return [answered(made, next(answers)) if isinstance(made, Submission) else rejected(made) for made in judged]


async def _all_judged(context: Context, sent: Sequence[EventInput]) -> list[Submission | list[Problem]]:
    """Routine events at a glance, since they want no facts; all others by what roster and log say."""
    at_a_glance = Routine(context.viewer, context.now).of
    found = [at_a_glance(given) for given in sent]
    others = [given for given, made in zip(sent, found, strict=True) if made is None]
    if not others:
        return cast(list[Submission | list[Problem]], found)
    facts = await facts_of(context, wanted_of(others, context.viewer))
    return [_judged(context, given, facts) if made is None else made for given, made in zip(sent, found, strict=True)]


def _judged(context: Context, given: EventInput, facts: Facts) -> Submission | list[Problem]:
    """The event as the log stores it, or all that is wrong with it or with the viewer's telling it."""
    viewer, now = context.viewer, context.now
    settings = settings_for(given, viewer, facts, now=now)
    fresh_id = "" if given.event_id is not None else str(uuid4())
    made = validate(given, viewer=viewer, now=now, settings=settings, fresh_id=fresh_id)
    if not isinstance(made, Submission):
        return made
    return refusals_of(made, given, viewer, facts, now=now) or made


async def _void(context: Context, input: VoidEventInput) -> Submission | list[Problem]:
    """The void of the named event, beside its target; or why there is none."""
    viewer, key = context.viewer, (input.source, str(input.event_id))
    is_named = is_id(key[0]) and is_id(key[1])
    facts = await facts_of(context, Wanted(targets=frozenset([key] if is_named else [])))
    made = void_of(*key, input.reason, viewer=viewer, target=facts.targets.get(key), now=context.now)
    if isinstance(made, Submission) and not may_void_target(key, viewer, facts, now=context.now):
        return [not_found("eventId", "expected an event of a class that you teach today")]
    return made


async def facts_of(context: Context, wanted: Wanted) -> Facts:
    """What roster and log say, in one statement; no statement where nothing is wanted, as for most of a machine's."""
    if wanted.is_nothing:
        return NO_FACTS
    tenant = context.viewer.tenant
    async with tenant_transaction(context.pool, tenant, read_only=True) as connection:
        return await intake.facts_of(connection, tenant, wanted, viewer=context.viewer.key)


async def stored(context: Context, submissions: Sequence[Submission]) -> list[Answer]:
    """The log's answers, after the commit; a store that is away is told where all such errors are, at the edge."""
    if not submissions:
        return []
    viewer = context.viewer
    try:
        return await context.engine.recorder.record(
            viewer.tenant, submissions, recorded_by=viewer.key, traceparent=context.traceparent
        )
    except (Overloaded, *COLLIDED) as error:
        raise worded(error) from error


def worded(error: Exception) -> Exception:
    """What a caller is told where the log did not take an event: a refusal, or else the error itself."""
    if isinstance(error, Behind):
        message = "Earlier events wait too long to take effect; nothing of this was stored. Send it again later."
        return Refused(ErrorCode.OVERLOADED, message)
    if isinstance(error, Overloaded):
        message = "Too many events wait to be stored; nothing of this request was. Send it again in a second."
        return Refused(ErrorCode.OVERLOADED, message)
    if isinstance(error, COLLIDED):
        message = "Others kept writing to the same place; nothing of this request was stored. Send it again."
        return Refused(ErrorCode.UNAVAILABLE, message)
    return error
