"""What was set aside, put right by a person: dead letters replayed or discarded, conflicts resolved."""

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Annotated

import strawberry

from db import conflicts, dead_letters, intake, roster
from db.conflicts import REPLACEMENTS_MAX, KeptConflict
from db.evidence import Answer, record
from db.live import Moved
from db.outbox import Touch, Waiting, shard_of, touch
from db.pool import Connection, tenant_transaction
from graph.access import allow
from graph.changes import given
from graph.receipts import RecordedEvent, event_of
from graph.request import Context, Info
from graph.scalars import Seq
from rules.access import Role, Scope, Viewer
from rules.evidence import Submission
from rules.fields import ID_LENGTH_MAX, REASON_LENGTH_MAX, is_id
from rules.intake import Wanted
from rules.voids import void_of

EVENTS_MAX = 1_000
ERRORS = "What is wrong; then nothing was done. Empty otherwise."
SEQ = "The log position that holds what was done, to be read with `minSeq`; null when there are errors."

Key = tuple[str, str]


@strawberry.enum(description="Why something that was set aside was not put right.")
class RepairErrorCode(Enum):
    """What may be wrong."""

    NOT_FOUND = strawberry.enum_value("NOT_FOUND", description="There is no such event, or conflict, of yours.")
    TOO_MANY = strawberry.enum_value("TOO_MANY", description="More than 1,000 events, none, or too many replacements.")
    REQUIRED = strawberry.enum_value("REQUIRED", description="A reason is blank.")
    TOO_LONG = strawberry.enum_value("TOO_LONG", description="A reason, or the new event's id, would be too long.")
    CONTENT_UNKNOWN = strawberry.enum_value(
        "CONTENT_UNKNOWN", description="What was sent was not kept: send it again, or record it under another id."
    )
    OVER = strawberry.enum_value("OVER", description="The conflict was resolved otherwise before.")


@strawberry.type(description="One thing that is wrong with a repair; nothing was done.")
class RepairError:
    """An expected refusal, as data."""

    code: RepairErrorCode = strawberry.field(description="What is wrong, for programs.")
    field: list[str] | None = strawberry.field(description="The path of the input field at fault.")
    message: str = strawberry.field(description="What was expected and what came, for people.")


def _fault(code: RepairErrorCode, field: str, message: str) -> RepairError:
    return RepairError(code=code, field=field.split("."), message=message)


@strawberry.input(description="An event by the name that its producer gave it.")
class EventKeyInput:
    """The key of 000-02."""

    source: str = strawberry.field(description="The source of the event.")
    event_id: strawberry.ID = strawberry.field(description="The event's id within its source.")


@strawberry.input(description="Which dead letters to try again.")
class ReplayDeadLettersInput:
    """Some events."""

    events: list[EventKeyInput] = strawberry.field(
        description="1 to 1,000 events; one that is not dead stays as it is."
    )


@strawberry.type(description="What came of trying dead letters again.")
class ReplayDeadLettersPayload:
    """Those that fail again come back to the dead letters."""

    errors: list[RepairError] = strawberry.field(description=ERRORS)
    seq: Seq | None = strawberry.field(description=SEQ)
    count: int = strawberry.field(description="How many dead letters are tried again.")


@strawberry.input(description="Which dead letters to give up for good.")
class DiscardDeadLettersInput:
    """Some events, and why."""

    events: list[EventKeyInput] = strawberry.field(
        description="1 to 1,000 events; one that is not dead stays as it is."
    )
    reason: str = strawberry.field(description="Why, 1 to 1,000 characters; kept in the log.")


@strawberry.type(description="What came of giving dead letters up.")
class DiscardDeadLettersPayload:
    """Each is voided in the log."""

    errors: list[RepairError] = strawberry.field(description=ERRORS)
    seq: Seq | None = strawberry.field(description=SEQ)
    count: int = strawberry.field(description="How many dead letters are discarded.")


@strawberry.enum(description="Which of two contents under one key holds.")
class ConflictChoice(Enum):
    """Both stay on record."""

    KEEP_FIRST = strawberry.enum_value("KEEP_FIRST", description="The content that was stored first.")
    REPLACE = strawberry.enum_value(
        "REPLACE",
        description="The content that came later: the stored event is voided, and the later one recorded under "
        "`{eventId}~2` (`~3` the next time).",
    )


@strawberry.input(description="How to end a conflict.")
class ResolveConflictInput:
    """One key and one choice."""

    source: str = strawberry.field(description="The source of the event.")
    event_id: strawberry.ID = strawberry.field(description="The event's id within its source.")
    choice: ConflictChoice = strawberry.field(description="Which content holds.")
    sent_hash: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="With REPLACE: the `sentHash` of the content that is to hold; left out, the one that came last.",
    )


@strawberry.type(description="What came of ending a conflict; every open conflict of the key is closed with it.")
class ResolveConflictPayload:
    """The event that holds."""

    errors: list[RepairError] = strawberry.field(description=ERRORS)
    seq: Seq | None = strawberry.field(description=SEQ)
    event: RecordedEvent | None = strawberry.field(
        description="The new event, with REPLACE; null otherwise, and when there are errors."
    )


@strawberry.type
class RepairMutation:
    """Decisions about what was set aside."""

    @strawberry.field(
        description="Try events again that no rule could take, after the cause is mended. Their students are folded "
        "anew. For admins, and machines for their own sources."
    )
    @allow(Role.ADMIN, scope=Scope.INGEST)
    async def replay_dead_letters(
        self,
        info: Info,
        input: Annotated[ReplayDeadLettersInput, strawberry.argument(description="The events.")],
    ) -> ReplayDeadLettersPayload:
        """Takes the marks away and touches the students."""
        context, keys = info.context, _keys(input.events)
        async with tenant_transaction(context.pool, context.viewer.tenant) as connection:
            errors = await _misfits(connection, context.viewer, keys)
            if errors:
                return ReplayDeadLettersPayload(errors=errors, seq=None, count=0)
            found = await dead_letters.dig_up(connection, context.viewer.tenant, keys, is_tried=True)
            seq = await _touched(context, connection, set(found.values()))
        _wake(context, {shard_of(classroom="", student=student) for student in found.values() if student})
        return ReplayDeadLettersPayload(errors=[], seq=seq, count=len(found))

    @strawberry.field(
        description="Give up events that no rule could take, for good: each is voided in the log with your reason."
    )
    @allow(Role.ADMIN)
    async def discard_dead_letters(
        self,
        info: Info,
        input: Annotated[DiscardDeadLettersInput, strawberry.argument(description="The events, and why.")],
    ) -> DiscardDeadLettersPayload:
        """A void instead of a mark: every rebuild leaves the event out."""
        context, keys, tenant = info.context, _keys(input.events), info.context.viewer.tenant
        errors = _reason_misfits(input.reason)
        async with tenant_transaction(context.pool, tenant) as connection:
            errors = errors or await _misfits(connection, context.viewer, keys)
            if errors:
                return DiscardDeadLettersPayload(errors=errors, seq=None, count=0)
            found = await dead_letters.dig_up(connection, tenant, keys, is_tried=False)
            voids = [await _void(context, connection, key, input.reason) for key in found]
            answers = (
                await record(connection, tenant, voids, recorded_by=context.viewer.key, now=context.now)
                if voids
                else []
            )
            seq = Seq(await roster.position(connection, tenant))
        _tell(context, voids, answers)
        return DiscardDeadLettersPayload(errors=[], seq=seq, count=len(found))

    @strawberry.field(description="Decide which content of an event id holds that was sent with several. For admins.")
    @allow(Role.ADMIN)
    async def resolve_conflict(
        self,
        info: Info,
        input: Annotated[ResolveConflictInput, strawberry.argument(description="The event and the choice.")],
    ) -> ResolveConflictPayload:
        """One transaction: void, new event, conflict closed."""
        context, source, event_id = info.context, input.source, str(input.event_id)
        tenant, choice = context.viewer.tenant, input.choice
        made: list[Submission] = []
        answers: list[Answer] = []
        async with tenant_transaction(context.pool, tenant) as connection:
            known = await conflicts.of_event(connection, tenant, source, event_id) if is_id(event_id) else []
            error = _conflict_misfit(known, choice)
            is_open = any(one.resolution is None for one in known)
            if error is None and is_open and choice is ConflictChoice.REPLACE:
                replaced = await _replacement(context, connection, (source, event_id), known, given(input.sent_hash))
                if isinstance(replaced, RepairError):
                    error = replaced
                else:
                    made = replaced
                    answers = await record(connection, tenant, made, recorded_by=context.viewer.key, now=context.now)
            if error is not None:
                return ResolveConflictPayload(errors=[error], seq=None, event=None)
            await conflicts.resolve(
                connection, tenant, source, event_id, choice=choice.name, by=context.viewer.key, now=context.now
            )
            seq = Seq(await roster.position(connection, tenant))
        _tell(context, made, answers)
        event = event_of(made[-1], answers[-1]) if made else None
        return ResolveConflictPayload(errors=[], seq=seq, event=event)


def _keys(events: Sequence[EventKeyInput]) -> list[Key]:
    return list(dict.fromkeys((event.source, str(event.event_id)) for event in events))


def _reason_misfits(reason: str) -> list[RepairError]:
    if not reason.strip():
        return [_fault(RepairErrorCode.REQUIRED, "reason", "expected a reason, got none")]
    if len(reason) > REASON_LENGTH_MAX:
        message = f"expected at most {REASON_LENGTH_MAX} characters"
        return [_fault(RepairErrorCode.TOO_LONG, "reason", message)]
    return []


async def _misfits(connection: Connection, viewer: Viewer, keys: Sequence[Key]) -> list[RepairError]:
    """Every key must be an event of the viewer's; others' events are as unknown as none."""
    if not 1 <= len(keys) <= EVENTS_MAX:
        return [_fault(RepairErrorCode.TOO_MANY, "events", f"expected 1 to {EVENTS_MAX} events, got {len(keys)}")]
    is_bound = not viewer.has(Role.ADMIN) and viewer.sources is not None
    mine = [key for key in keys if is_id(key[0]) and is_id(key[1])]
    if is_bound:
        mine = [key for key in mine if key[0] in (viewer.sources or ())]
    known = await dead_letters.logged(connection, viewer.tenant, mine) if mine else set()
    return [
        _fault(RepairErrorCode.NOT_FOUND, f"events.{place}", "expected an event of a source of yours")
        for place, key in enumerate(keys)
        if key not in known
    ][:100]


async def _touched(context: Context, connection: Connection, students: set[str]) -> Seq:
    touches = [Touch(Waiting.TOUCH_STUDENT, student=student) for student in sorted(students) if student]
    if touches:
        return Seq(await touch(connection, context.viewer.tenant, touches, now=context.now))
    return Seq(await roster.position(connection, context.viewer.tenant))


async def _void(context: Context, connection: Connection, key: Key, reason: str) -> Submission:
    """The void of an event that the log has."""
    viewer = context.viewer
    facts = await intake.facts_of(connection, viewer.tenant, Wanted(targets=frozenset({key})), viewer=viewer.key)
    made = void_of(*key, reason, viewer=viewer, target=facts.targets.get(key), now=context.now)
    assert isinstance(made, Submission), f"expected a void, got {made}"
    return made


def _conflict_misfit(known: Sequence[KeptConflict], choice: ConflictChoice) -> RepairError | None:
    if not known:
        return _fault(RepairErrorCode.NOT_FOUND, "eventId", "expected an event with a conflict")
    is_settled = all(one.resolution is not None for one in known)
    if is_settled and choice.name not in {one.resolution for one in known}:
        return _fault(RepairErrorCode.OVER, "choice", "expected the choice that was made before")
    return None


async def _replacement(
    context: Context, connection: Connection, key: Key, known: Sequence[KeptConflict], sent_hash: str | None
) -> list[Submission] | RepairError:
    """The void of what holds now, and the later content under the next free name; or why not."""
    source, event_id = key
    chosen = next((one for one in known if one.resolution is None and sent_hash in (None, one.sent_hash.hex())), None)
    if chosen is None:
        return _fault(RepairErrorCode.NOT_FOUND, "sentHash", "expected the hash of an open conflict of this event")
    if chosen.content is None:
        return _fault(RepairErrorCode.CONTENT_UNKNOWN, "eventId", "expected a conflict whose content was kept")
    names = [event_id, *(f"{event_id}~{number}" for number in range(2, REPLACEMENTS_MAX + 1))]
    taken = await conflicts.taken(connection, context.viewer.tenant, source, names)
    free = next((place for place, name in enumerate(names) if name not in taken), None)
    if not free:
        return _fault(RepairErrorCode.TOO_MANY, "eventId", f"expected fewer than {REPLACEMENTS_MAX} replacements")
    if len(names[free]) > ID_LENGTH_MAX:
        return _fault(RepairErrorCode.TOO_LONG, "eventId", f"expected an id with room for '~2' in {ID_LENGTH_MAX}")
    void = await _void(context, connection, (source, names[free - 1]), f"Replaced by {names[free]}")
    return [void, replace(chosen.content, event=replace(chosen.content.event, event_id=names[free]))]


def _tell(context: Context, made: Sequence[Submission], answers: Sequence[Answer]) -> None:
    """Wake the fold, and whoever watches the log, after the commit."""
    shards, classrooms = set(), set()
    for sent, answer in zip(made, answers, strict=True):
        own = shard_of(classroom=sent.event.classroom, student=sent.event.student)
        shards |= set(answer.shards) or {own}
        classrooms |= {sent.event.classroom} - {""}
    _wake(context, shards)
    if classrooms:
        context.engine.live.announce(Moved(tenant=context.viewer.tenant, recorded=frozenset(classrooms)))


def _wake(context: Context, shards: set[int]) -> None:
    for shard in sorted(shards):
        context.engine.wake.mark(context.viewer.tenant, shard)
