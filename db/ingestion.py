"""How the intake is doing: what waits, what was set aside, and what became of one event."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.pool import Connection
from rules.corrections import ITEM_KINDS

SEQ_MAX = 2**63 - 1
LAST_MOMENT = None  # stands for 'infinity' in a cursor: newest first begins there


@dataclass(frozen=True, slots=True)
class LaneBacklog:
    """What waits in one lane of the outbox."""

    lane: int
    depth: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True)
class ConflictRow:
    """A key that came again with another content."""

    source: str
    event_id: str
    stored_hash: bytes
    sent_hash: bytes
    seq: int
    times: int
    first_at: datetime
    last_at: datetime

    @property
    def place(self) -> tuple[datetime, str, str, str]:
        """Where the conflict stands, newest first."""
        return (self.first_at, self.source, self.event_id, self.sent_hash.hex())


@dataclass(frozen=True, slots=True)
class UnrosteredRow:
    """An event whose student or class the roster did not know when it was folded."""

    seq: int
    source: str
    event_id: str
    student: str
    classroom: str
    received_at: datetime
    knows_student: bool  # now
    knows_classroom: bool  # now; true where the event names no class


@dataclass(frozen=True, slots=True)
class DeadLetterRow:
    """An event that no fold could take."""

    source: str
    event_id: str
    seq: int
    student: str
    classroom: str
    error: str
    at: datetime

    @property
    def place(self) -> tuple[datetime, str, str]:
        """Where the letter stands, newest first."""
        return (self.at, self.source, self.event_id)


@dataclass(frozen=True, slots=True)
class WaitingCorrectionRow:
    """A correction whose target (an event, a submission, a student's piece of work) has not been recorded yet."""

    source: str
    event_id: str
    kind: str
    target_source: str
    target_event_id: str
    reason: str
    seq: int
    at: datetime
    target_submission: str | None
    student: str
    assignment: str | None


@dataclass(frozen=True, slots=True)
class EventRow:
    """One recorded event and the marks that stand beside the log."""

    id: UUID
    seq: int
    source: str
    event_id: str
    kind: str
    source_type: str | None
    occurred_at: datetime
    received_at: datetime
    revision: int
    student: str
    classroom: str
    recorded_by: str
    is_late: bool
    is_waiting: bool
    is_dead: bool
    is_voided: bool
    is_unrostered: bool


BACKLOG = """
select o.lane, count(*)::int as depth, min(o.received_at) as oldest_at
from outbox o where o.tenant = $1 group by o.lane order by o.lane
"""


async def backlog_of(connection: Connection, tenant: int) -> list[LaneBacklog]:
    """What waits to be folded, by lane; lanes with nothing in them are left out."""
    return [LaneBacklog(**row) for row in await connection.fetch(BACKLOG, tenant)]


CONFLICTS = """
select c.source, c.event_id, c.stored_hash, c.sent_hash, c.seq, c.times, c.first_at, c.last_at
from conflict c
where c.tenant = $1 and c.resolution is null and ($2::text[] is null or c.source = any($2))
    and (c.first_at, c.source, c.event_id, encode(c.sent_hash, 'hex'))
        < (coalesce($3, 'infinity'::timestamptz), $4::text, $5::text, $6::text)
order by c.first_at desc, c.source desc, c.event_id desc, encode(c.sent_hash, 'hex') desc
limit $7
"""


async def conflicts_of(
    connection: Connection,
    tenant: int,
    *,
    sources: Sequence[str] | None,
    after: tuple[datetime, str, str, str] | None = None,
    limit: int,
) -> list[ConflictRow]:
    """Open conflicts, the newest first; `sources` None means all."""
    rows = await connection.fetch(CONFLICTS, tenant, sources, *(after or (LAST_MOMENT, "", "", "")), limit)
    return [ConflictRow(**row) for row in rows]


# `offset 0`: else the whole roster of the tenant is read and hashed for one page.
UNROSTERED = """
select u.seq, u.source, u.event_id, u.student, u.classroom, u.received_at,
    exists (select from student s where s.tenant = $1 and s.student = u.student offset 0) as knows_student,
    u.classroom = '' or exists (
        select from classroom c where c.tenant = $1 and c.classroom = u.classroom offset 0
    ) as knows_classroom
from unrostered u
where u.tenant = $1 and ($2::text[] is null or u.source = any($2)) and u.seq > $3
order by u.seq
limit $4
"""


async def unrostered_of(
    connection: Connection, tenant: int, *, sources: Sequence[str] | None, after: int = 0, limit: int
) -> list[UnrosteredRow]:
    """Events that wait for the roster, in the order they were recorded."""
    return [UnrosteredRow(**row) for row in await connection.fetch(UNROSTERED, tenant, sources, after, limit)]


DEAD_LETTERS = """
select d.source, d.event_id, d.seq, d.student, d.classroom, d.error, d.at
from dead_letter d
where d.tenant = $1 and ($2::text[] is null or d.source = any($2))
    and (d.at, d.source, d.event_id) < (coalesce($3, 'infinity'::timestamptz), $4::text, $5::text)
order by d.at desc, d.source desc, d.event_id desc
limit $6
"""


async def dead_letters_of(
    connection: Connection,
    tenant: int,
    *,
    sources: Sequence[str] | None,
    after: tuple[datetime, str, str] | None = None,
    limit: int,
) -> list[DeadLetterRow]:
    """Events that left the fold, the newest first."""
    rows = await connection.fetch(DEAD_LETTERS, tenant, sources, *(after or (LAST_MOMENT, "", "")), limit)
    return [DeadLetterRow(**row) for row in rows]


# A correction bound to a list of sources shows by its own source or by its target's: either producer may wonder.
WAITING_CORRECTIONS = """
select c.source, c.event_id, c.kind, c.target_source, c.target_event_id, c.reason, c.seq, c.at, c.target_submission,
    c.student, c.assignment
from correction c
where c.tenant = $1 and ($2::text[] is null or c.source = any($2)) and c.seq > $3
    and case
        when c.assignment is not null then not exists (
            select from work w
            where w.tenant = $1 and w.student = c.student and w.item = c.assignment
                and c.classroom in ('', w.classroom)
        ) and not exists (
            select from event e
            where e.tenant = $1 and e.student = c.student and coalesce(e.assignment, e.quiz) = c.assignment
                and c.classroom in ('', e.classroom) and e.kind = any($5::text[])
        )
        when c.target_submission is not null then not exists (
            select from event e
            where e.tenant = $1 and e.source = c.target_source and e.submission = c.target_submission
                and e.ratio is not null and c.student in ('', e.student) and e.kind <> 'SUBMISSION_REGRADED'
        )
        else not exists (
            select from event_key k
            where k.tenant = $1 and k.source = c.target_source and k.event_id = c.target_event_id offset 0
        )
    end
order by c.seq
limit $4
"""


async def waiting_corrections_of(
    connection: Connection, tenant: int, *, sources: Sequence[str] | None, after: int = 0, limit: int
) -> list[WaitingCorrectionRow]:
    """Corrections that came before their targets, in the order they were recorded."""
    rows = await connection.fetch(WAITING_CORRECTIONS, tenant, sources, after, limit, sorted(ITEM_KINDS))
    return [WaitingCorrectionRow(**row) for row in rows]


# The key row says in which month of the log the event lies: without `received_at` every partition would be asked.
EVENT = """
select k.id, k.seq, k.source, k.event_id, e.kind, e.source_type, e.occurred_at, k.received_at, e.revision, e.student,
    e.classroom, e.recorded_by, e.is_late,
    exists (
        select from outbox o where o.tenant = $1 and o.seq = k.seq and o.kind = 'EVENT'
    ) as is_waiting,
    exists (
        select from dead_letter d where d.tenant = $1 and d.source = k.source and d.event_id = k.event_id
    ) as is_dead,
    exists (
        select from correction v
        where v.tenant = $1 and v.target_source = k.source and v.target_event_id = k.event_id
            and v.kind = 'EVENT_VOIDED'
            and e.kind not in ('EVENT_VOIDED', 'SUBMISSION_REGRADED', 'ASSIGNMENT_EXCUSED', 'ASSIGNMENT_REOPENED')
    ) as is_voided,
    exists (select from unrostered u where u.tenant = $1 and u.seq = k.seq) as is_unrostered
from event_key k
join event e on e.tenant = $1 and e.seq = k.seq and e.received_at = k.received_at
where k.tenant = $1 and k.source = $2 and k.event_id = $3
"""


async def event_of(connection: Connection, tenant: int, source: str, event_id: str) -> EventRow | None:
    """One recorded event by the key its producer gave it. A correction cannot itself be voided (X-05)."""
    row = await connection.fetchrow(EVENT, tenant, source, event_id)
    return EventRow(**row) if row else None
