"""The log: events are recorded once, in one transaction with their outbox rows, and never changed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from secrets import token_bytes
from struct import Struct
from typing import Any

import msgspec
from asyncpg.pgproto.pgproto import UUID  # what asyncpg's rows hold: a uuid.UUID, made by C

from db import corrections
from db.corrections import Effect, Told
from db.outbox import BACKFILL_LANE, LIVE_LANE, shard_of
from db.parcels import packed
from db.pool import Connection, UnknownTenant
from rules.evidence import CORRECTION_KINDS, Lane, Submission
from rules.value import Value

CONCEPT_SEPARATOR = "\x1f"  # ids hold no control characters, so concepts travel as one string per event
_CORRECTIONS = sorted(CORRECTION_KINDS)
_CORRECTION_IDS = frozenset(map(id, CORRECTION_KINDS))  # a member's own hash is Python's, and is asked of every event
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_halves = Struct(">QQ").pack  # of a UUID


class Status(StrEnum):
    """What became of one recorded event."""

    ACCEPTED = "ACCEPTED"
    DUPLICATE = "DUPLICATE"
    CONFLICT = "CONFLICT"


class Answer(Value, frozen=True):
    """The log's answer to one submission; `id`, `seq` and `received_at` are those of the event stored under its key."""

    status: Status
    id: UUID
    seq: int
    received_at: datetime
    stored_hash: bytes
    effect: Effect | None = None
    shards: tuple[int, ...] = ()  # where a correction waits: beside its targets; empty where the event's own holds


RECORD = """
with head as (
    update tenant_head set seq = seq + $2 where tenant = $1 returning seq - $2 as base
), sent as (
    select * from unnest(
        $4::uuid[], $5::text[], $6::text[], $7::bytea[], $8::bigint[], $9::text[], $10::text[], $11::timestamptz[],
        $12::int[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::int[], $19::text[],
        $20::timestamptz[], $21::int[], $22::text[], $23::text[], $24::bool[], $25::text[], $26::text[],
        $27::smallint[], $28::smallint[], $31::bytea[]
    ) as s (
        id, source, event_id, fingerprint, place, kind, source_type, occurred_at, revision, student, classroom,
        assignment, quiz, concepts, ratio, submission, due_at, time_spent_ms, target_source, target_event_id,
        is_late, payload, recorded_by, shard, lane, packed
    )
), keyed as (
    insert into event_key (tenant, source, event_id, id, seq, fingerprint, received_at)
    select $1, s.source, s.event_id, s.id, head.base + s.place, s.fingerprint, $3 from sent s, head
    on conflict (tenant, source, event_id) do nothing
    returning id, seq
), logged as (
    insert into event (
        tenant, seq, received_at, id, source, event_id, kind, source_type, occurred_at, revision, student, classroom,
        assignment, quiz, concepts, ratio, submission, due_at, time_spent_ms, target_source, target_event_id, is_late,
        payload, recorded_by)
    select $1, k.seq, $3, k.id, s.source, s.event_id, s.kind, s.source_type, s.occurred_at, s.revision, s.student,
        s.classroom, s.assignment, s.quiz,
        case when s.concepts = '' then '{}' else string_to_array(s.concepts, E'\\x1f') end,
        s.ratio, s.submission, s.due_at, s.time_spent_ms, s.target_source, s.target_event_id, s.is_late,
        s.payload::json, s.recorded_by
    from keyed k join sent s on s.id = k.id
), queued as (
    insert into outbox (
        tenant, shard, lane, occurred_at, seq, kind, student, classroom, received_at, traceparent, packed)
    select $1, s.shard, s.lane, s.occurred_at, k.seq, 'EVENT', s.student, s.classroom, $3, $29, s.packed
    from keyed k join sent s on s.id = k.id
    where s.kind <> all($30::text[])  -- a correction waits beside its targets: see CORRECT
)
select k.seq, k.seq - head.base as place from keyed k, head
"""

STORED = """
select k.source, k.event_id, k.id, k.seq, k.received_at, k.fingerprint
from unnest($2::text[], $3::text[]) as s (source, event_id)
join event_key k on k.tenant = $1 and k.source = s.source and k.event_id = s.event_id
where k.tenant = $1
"""

KEEP_CONFLICTS = """
insert into conflict (tenant, source, event_id, sent_hash, stored_hash, seq, times, first_at, last_at, content)
select $1, c.source, c.event_id, c.sent, c.stored, c.seq, 1, $8, $8, c.content
from unnest($2::text[], $3::text[], $4::bytea[], $5::bytea[], $6::bigint[], $7::jsonb[])
    as c (source, event_id, sent, stored, seq, content)
on conflict (tenant, source, event_id, sent_hash) do update set times = conflict.times + 1, last_at = excluded.last_at
"""

Key = tuple[str, str]


async def record(
    connection: Connection,
    tenant: int,
    submissions: Sequence[Submission],
    *,
    recorded_by: str,
    now: datetime,
    traceparent: str | None = None,
) -> list[Answer]:
    """Record one person's submissions; see `record_all`."""
    return await record_all(
        connection, tenant, submissions, recorded_by=[recorded_by] * len(submissions), now=now, traceparent=traceparent
    )


async def record_all(
    connection: Connection,
    tenant: int,
    submissions: Sequence[Submission],
    *,
    recorded_by: Sequence[str],
    now: datetime,
    traceparent: str | None = None,
) -> list[Answer]:
    """Record each submission once and say what became of it, in the order given.

    One statement advances the tenant's position (whose row stays locked until the caller commits, so positions become
    visible in ascending order), inserts keys, log rows and outbox rows. A key that is there already changes nothing:
    DUPLICATE with the same fingerprint, else CONFLICT, noted once per content in `conflict`.
    """
    first_of: dict[Key, int] = {}
    for place, sent in enumerate(submissions):
        first_of.setdefault((sent.event.source, sent.event.event_id), place)
    # Sorted by key: overlapping unsorted batches deadlock on the unique index.
    new = [first_of[key] for key in sorted(first_of)]
    ids = fresh_ids(len(submissions), now)
    rows = await connection.fetch(
        RECORD,
        tenant,
        len(submissions),
        now,
        *_columns(submissions, new, ids, recorded_by),
        traceparent,
        _CORRECTIONS,
        [packed(submissions[place].event) for place in new],
    )
    found: list[Answer | None] = [None] * len(submissions)
    for seq, counted in rows:
        place = counted - 1
        found[place] = Answer(Status.ACCEPTED, ids[place], seq, now, submissions[place].fingerprint)
    if len(rows) < len(submissions):
        known = await _known(connection, tenant, submissions, first_of, found)
        answers = [
            answer or _again(sent, known[sent.event.source, sent.event.event_id])
            for sent, answer in zip(submissions, found, strict=True)
        ]
        await _keep_conflicts(connection, tenant, submissions, answers, now=now)
    else:
        answers = [answer for answer in found if answer is not None]
    return await _correct(connection, tenant, submissions, answers, now=now, traceparent=traceparent)


def fresh_ids(count: int, now: datetime) -> list[UUID]:
    """New UUIDs of version 7, ascending within a millisecond's first 4,096.

    Made here: Postgres would ask the system for the random bits of each by itself, a sixth of what recording costs it.
    """
    since = (now - _EPOCH) // _MILLISECOND
    dice = memoryview(token_bytes(8 * count)).cast("Q")
    high = since << 16 | 7 << 12
    return [UUID(_halves(high | number & 0xFFF, 1 << 63 | chance >> 2)) for number, chance in enumerate(dice)]


def _again(sent: Submission, stored: Answer) -> Answer:
    """The answer to what was not new: the event that has its key."""
    status = Status.DUPLICATE if sent.fingerprint == stored.stored_hash else Status.CONFLICT
    return replace(stored, status=status)


async def _known(
    connection: Connection,
    tenant: int,
    submissions: Sequence[Submission],
    first_of: Mapping[Key, int],
    found: Sequence[Answer | None],
) -> dict[Key, Answer]:
    """The event stored under each key: told just now, or before."""
    known = {key: answer for key, place in first_of.items() if (answer := found[place]) is not None}
    if len(known) < len(first_of):
        known |= await _already_stored(connection, tenant, [key for key in first_of if key not in known])
    return known


def _columns(
    submissions: Sequence[Submission], order: Sequence[int], ids: Sequence[UUID], recorded_by: Sequence[str]
) -> list[list[Any]]:
    """The parameters $4 to $28 of RECORD: one list per column, in the order given; places count from 1."""
    sent = [submissions[place] for place in order]
    events = [s.event for s in sent]
    shards = {home: shard_of(classroom=home, student=home) for home in {e.classroom or e.student for e in events}}
    return [
        [ids[place] for place in order],
        [e.source for e in events],
        [e.event_id for e in events],
        [s.fingerprint for s in sent],
        [place + 1 for place in order],
        [e.kind.value for e in events],
        [s.source_type for s in sent],
        [e.occurred_at for e in events],
        [e.revision for e in events],
        [e.student for e in events],
        [e.classroom for e in events],
        [e.assignment for e in events],
        [e.quiz for e in events],
        [CONCEPT_SEPARATOR.join(e.concepts) for e in events],
        [e.ratio for e in events],
        [e.submission for e in events],
        [e.due_at for e in events],
        [e.time_spent_ms for e in events],
        [e.target_source for e in events],
        [e.target_event_id for e in events],
        [s.is_late for s in sent],
        [s.payload for s in sent],
        [recorded_by[place] for place in order],
        [shards[e.classroom or e.student] for e in events],
        [LIVE_LANE if s.lane is Lane.LIVE else BACKFILL_LANE for s in sent],
    ]


async def _already_stored(connection: Connection, tenant: int, keys: Sequence[Key]) -> dict[Key, Answer]:
    """Read the keys that RECORD left alone; they are committed, for it waited for whoever was inserting them."""
    rows = await connection.fetch(STORED, tenant, [key[0] for key in keys], [key[1] for key in keys])
    found = {
        (row["source"], row["event_id"]): Answer(
            Status.DUPLICATE, row["id"], row["seq"], row["received_at"], row["fingerprint"]
        )
        for row in rows
    }
    if len(found) < len(keys):
        raise UnknownTenant(tenant)  # RECORD inserts or meets every key, unless there is no head row to advance
    return found


async def _keep_conflicts(
    connection: Connection, tenant: int, submissions: Sequence[Submission], answers: Sequence[Answer], *, now: datetime
) -> None:
    by_content = {
        (sent.event.source, sent.event.event_id, sent.fingerprint): (answer, sent)
        for sent, answer in zip(submissions, answers, strict=True)
        if answer.status is Status.CONFLICT
    }
    if by_content:
        keys = sorted(by_content)
        found = [by_content[key] for key in keys]
        await connection.execute(
            KEEP_CONFLICTS,
            tenant,
            [key[0] for key in keys],
            [key[1] for key in keys],
            [key[2] for key in keys],
            [answer.stored_hash for answer, _ in found],
            [answer.seq for answer, _ in found],
            [msgspec.json.encode(sent).decode() for _, sent in found],  # so that it can replace the first
            now,
        )


async def _correct(
    connection: Connection,
    tenant: int,
    submissions: Sequence[Submission],
    answers: list[Answer],
    *,
    now: datetime,
    traceparent: str | None,
) -> list[Answer]:
    """Let the new corrections among the answers take effect, or wait."""
    if _CORRECTION_IDS.isdisjoint([id(sent.event.kind) for sent in submissions]):
        return answers
    told = {
        place: Told(sent.event, answer.seq, sent.payload)
        for place, (sent, answer) in enumerate(zip(submissions, answers, strict=True))
        if answer.status is Status.ACCEPTED and id(sent.event.kind) in _CORRECTION_IDS
    }
    if told:
        noted = await corrections.note(connection, tenant, list(told.values()), now=now, traceparent=traceparent)
        for place, one in zip(told, noted, strict=True):
            answers[place] = replace(answers[place], effect=one.effect, shards=one.shards)
    return answers
