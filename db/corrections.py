"""Corrections as they are recorded: what they speak of is looked up, noted beside the log, and queued to be folded."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from db.outbox import Waiting, shard_of
from db.pool import Connection
from rules.classroom import SCORING_KINDS
from rules.corrections import ITEM_KINDS
from rules.evidence import CORRECTION_KINDS, SCORED_KINDS, Kind, LearningEvent

MICROSECOND = timedelta(microseconds=1)
_ITEM_KINDS = sorted(ITEM_KINDS)
_SCORING_KINDS = sorted(SCORING_KINDS)

View = tuple[str, str]
"""(student, classroom)."""


class Effect(StrEnum):
    """What a correction did (X-05)."""

    APPLIED = "APPLIED"
    WAITING = "WAITING"  # its target is not recorded yet
    NONE = "NONE"  # it names a correction, or regrades what never had a score


@dataclass(frozen=True, slots=True)
class Told:
    """A correction that was just recorded; `payload` is JSON text with its reason."""

    event: LearningEvent
    seq: int
    payload: str


@dataclass(frozen=True, slots=True)
class Noted:
    """What became of it, and the shards in which its targets are to be folded again."""

    effect: Effect
    shards: tuple[int, ...]


EVENT_TARGETS = """
select v.seq, e.kind, e.student, e.classroom, e.ratio
from unnest($2::bigint[], $3::text[], $4::text[]) as v (seq, target_source, target_event_id)
cross join lateral (
    select k.seq, k.received_at from event_key k
    where k.tenant = $1 and k.source = v.target_source and k.event_id = v.target_event_id
    offset 0
) k
cross join lateral (
    select e.kind, e.student, e.classroom, e.ratio from event e
    where e.tenant = $1 and e.seq = k.seq and e.received_at = k.received_at
    offset 0
) e
"""

SUBMISSION_TARGETS = """
select distinct v.seq, e.student, e.classroom
from unnest($2::bigint[], $3::text[], $4::text[], $5::text[]) as v (seq, target_source, submission, student)
cross join lateral (
    select e.student, e.classroom, e.ratio, e.kind from event e
    where e.tenant = $1 and e.source = v.target_source and e.submission = v.submission
    offset 0
) e
where e.ratio is not null and e.kind = any($6::text[]) and v.student in ('', e.student)
"""

# The folded item answers at once; only what is not folded yet is looked for in the student's log.
ITEM_TARGETS = """
select v.seq, v.student, t.classroom
from unnest($2::bigint[], $3::text[], $4::text[], $5::text[]) as v (seq, student, classroom, item)
cross join lateral (
    select v.classroom
    where v.classroom <> '' and case
        when exists (
            select from work w
            where w.tenant = $1 and w.student = v.student and w.classroom = v.classroom and w.item = v.item
        ) then true
        else exists (
            select from event e
            where e.tenant = $1 and e.student = v.student and e.classroom = v.classroom
                and coalesce(e.assignment, e.quiz) = v.item and e.kind = any($6::text[])
        )
    end
    union all
    select distinct f.classroom
    from (
        select e.classroom from event e
        where v.classroom = '' and e.tenant = $1 and e.student = v.student
            and coalesce(e.assignment, e.quiz) = v.item and e.kind = any($6::text[])
        offset 0  -- or else `distinct` would be had from an index of all classes
    ) f
) t
"""

CORRECT = """
with noted as (
    insert into correction (tenant, target_source, target_event_id, source, event_id, kind, seq, reason, at,
        target_submission, student, classroom, assignment)
    select $1, v.target_source, v.target_event_id, v.source, v.event_id, v.kind, v.seq,
        coalesce(v.payload::json ->> 'reason', ''), $2, v.target_submission, v.student, v.classroom, v.assignment
    from unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::text[], $10::text[],
            $11::text[], $12::text[], $13::text[])
        as v (target_source, target_event_id, source, event_id, kind, seq, payload, target_submission, student,
            classroom, assignment)
)
insert into outbox (tenant, shard, lane, occurred_at, seq, kind, student, classroom, received_at, traceparent)
select $1, q.shard, 0, q.occurred_at, q.seq, q.kind, q.student, q.classroom, $2, $20
from unnest($14::smallint[], $15::timestamptz[], $16::bigint[], $17::text[], $18::text[], $19::text[])
    as q (shard, occurred_at, seq, kind, student, classroom)
"""


async def note(
    connection: Connection, tenant: int, told: Sequence[Told], *, now: datetime, traceparent: str | None
) -> list[Noted]:
    """Note what new corrections speak of, and let each wait in the outbox beside its targets.

    The tenant's head row is locked by now, so no target can slip in between looking for it and noting the correction.
    """
    targets, without_effect = await _targets(connection, tenant, told)
    queued = [row for one in told for row in _queued(one, targets[one.seq])]
    events = [one.event for one in told]
    await connection.execute(
        CORRECT,
        tenant,
        now,
        [e.target_source or "" for e in events],
        [e.target_event_id or "" for e in events],
        [e.source for e in events],
        [e.event_id for e in events],
        [e.kind.value for e in events],
        [one.seq for one in told],
        [one.payload for one in told],
        [e.submission if e.kind is Kind.SUBMISSION_REGRADED else None for e in events],
        [e.student if e.kind is not Kind.EVENT_VOIDED else "" for e in events],
        [e.classroom if _is_of_item(e) else "" for e in events],
        [e.item if _is_of_item(e) else None for e in events],
        *(list(column) for column in zip(*queued, strict=True)),
        traceparent,
    )
    shards: dict[int, set[int]] = defaultdict(set)
    for shard, _, seq, *_ in queued:
        shards[seq].add(shard)
    return [
        Noted(
            Effect.NONE if one.seq in without_effect else Effect.APPLIED if targets[one.seq] else Effect.WAITING,
            tuple(sorted(shards[one.seq])),
        )
        for one in told
    ]


def _is_of_item(event: LearningEvent) -> bool:
    return event.kind in (Kind.ASSIGNMENT_EXCUSED, Kind.ASSIGNMENT_REOPENED)


def _queued(one: Told, targets: set[View]) -> list[tuple[int, datetime, int, str, str, str]]:
    """The outbox rows of a correction: its own beside its first target, a touch at each other one."""
    first, *others = sorted(targets) or [("", "")]
    views = [(Waiting.EVENT, first), *((Waiting.TOUCH_STUDENT, view) for view in others)]
    return [
        (
            shard_of(classroom=classroom, student=student),
            one.event.occurred_at + place * MICROSECOND,  # rows of one seq need places of their own
            one.seq,
            kind.value,
            student,
            classroom,
        )
        for place, (kind, (student, classroom)) in enumerate(views)
    ]


async def _targets(
    connection: Connection, tenant: int, told: Sequence[Told]
) -> tuple[dict[int, set[View]], frozenset[int]]:
    """The views that each correction changes, by its place in the log; and the places of those that change nothing."""
    of_event = [one for one in told if one.event.target_event_id is not None and not _is_of_item(one.event)]
    of_submission = [
        one for one in told if one.event.kind is Kind.SUBMISSION_REGRADED and one.event.target_event_id is None
    ]
    of_item = [one for one in told if _is_of_item(one.event)]
    found: dict[int, set[View]] = defaultdict(set)
    nothing: set[int] = set()
    regrades = {one.seq for one in told if one.event.kind is Kind.SUBMISSION_REGRADED}
    if of_event:
        events = [one.event for one in of_event]
        names = [[e.target_source for e in events], [e.target_event_id for e in events]]
        for row in await connection.fetch(EVENT_TARGETS, tenant, [one.seq for one in of_event], *names):
            found[row["seq"]].add((row["student"], row["classroom"]))
            is_scored = row["kind"] in SCORED_KINDS and row["ratio"] is not None
            if row["kind"] in CORRECTION_KINDS or (row["seq"] in regrades and not is_scored):
                nothing.add(row["seq"])
    if of_submission:
        events = [one.event for one in of_submission]
        names = [[e.target_source for e in events], [e.submission for e in events], [e.student for e in events]]
        seqs = [one.seq for one in of_submission]
        for row in await connection.fetch(SUBMISSION_TARGETS, tenant, seqs, *names, _SCORING_KINDS):
            found[row["seq"]].add((row["student"], row["classroom"]))
    if of_item:
        events = [one.event for one in of_item]
        names = [[e.student for e in events], [e.classroom for e in events], [e.item for e in events]]
        for row in await connection.fetch(ITEM_TARGETS, tenant, [one.seq for one in of_item], *names, _ITEM_KINDS):
            found[row["seq"]].add((row["student"], row["classroom"]))
    return found, frozenset(nothing)
