"""Reading a student's history from the log, event by event, in the order in which it happened."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

import asyncpg

from db.pool import Connection
from rules.kinds import CORRECTION_KINDS, Kind

BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
END = datetime(9999, 12, 31, tzinfo=UTC)
Place = tuple[datetime, int]
"""(occurred_at, seq): where an event stands in a history."""
BEFORE_ALL: Place = (BEGINNING, -1)
AFTER_ALL: Place = (END, 2**63 - 1)

_CORRECTIONS = "(" + ", ".join(f"'{kind}'" for kind in sorted(CORRECTION_KINDS)) + ")"
# Corrections and what they took out of every number are the staff's business (000-19); a correction of a correction
# has no effect. Unrostered events are shown elsewhere, to admins and integrators only. The marks are
# scalar subqueries behind a fence: as EXISTS the planner would hash every correction of the tenant for one page.
_PAGE = f"""
select e.id, e.seq, e.source, e.event_id, e.kind, e.source_type, e.occurred_at, e.received_at, e.classroom,
    e.assignment, e.quiz, e.concepts, e.ratio, e.submission, e.due_at, e.time_spent_ms, e.is_late,
    mark.dead_at, mark.corrected_by
from event e
cross join lateral (
    select
        (select d.at from dead_letter d
         where d.tenant = $1 and d.source = e.source and d.event_id = e.event_id) as dead_at,
        (select u.received_at from unrostered u where u.tenant = $1 and u.seq = e.seq) as unrostered_at,
        array(select x.kind from correction x
              where x.tenant = $1 and x.target_source = e.source and x.target_event_id = e.event_id
              union all
              select x.kind from correction x
              where x.tenant = $1 and x.target_source = e.source and x.target_submission = e.submission
                and x.student in ('', e.student) and e.ratio is not null) as corrected_by
    offset 0
) mark
where e.tenant = $1 and e.student = $2
  and e.occurred_at >= $3 and e.occurred_at < $4
  and ($5::text is null or e.classroom = $5)
  and e.kind = any($6::text[])
  and mark.unrostered_at is null
  and ($7::boolean or (
      e.kind not in {_CORRECTIONS} and mark.dead_at is null
      and not mark.corrected_by && array['EVENT_VOIDED', 'SUBMISSION_REGRADED']
  ))
"""  # noqa: S608 - composed of constants above
OLDEST_FIRST = _PAGE + "and (e.occurred_at, e.seq) > ($8, $9) order by e.occurred_at, e.seq limit $10"
NEWEST_FIRST = _PAGE + "and (e.occurred_at, e.seq) < ($8, $9) order by e.occurred_at desc, e.seq desc limit $10"


class Effect(StrEnum):
    """Whether an event of the log counts."""

    EFFECTIVE = "EFFECTIVE"
    VOIDED = "VOIDED"
    SUPERSEDED = "SUPERSEDED"
    DEAD = "DEAD"


@dataclass(frozen=True, slots=True)
class TimelineAsk:
    """Which part of a history is wanted: instants [since, until), and what the viewer may see of it."""

    student: str
    is_for_staff: bool
    since: datetime = BEGINNING
    until: datetime = END
    classroom: str | None = None
    kinds: tuple[Kind, ...] | None = None
    is_newest_first: bool = False
    after: Place | None = None
    limit: int = 21


@dataclass(frozen=True, slots=True)
class LoggedRow:
    """One event as a reader of the log meets it; `ratio` is in millionths, `classroom` "" where there is none."""

    id: UUID
    seq: int
    source: str
    event_id: str
    kind: Kind
    source_type: str | None
    occurred_at: datetime
    received_at: datetime
    classroom: str
    assignment: str | None
    quiz: str | None
    concepts: tuple[str, ...]
    ratio: int | None
    submission: str | None
    due_at: datetime | None
    time_spent_ms: int | None
    is_late: bool
    effect: Effect


async def of_student(connection: Connection, tenant: int, ask: TimelineAsk) -> list[LoggedRow]:
    """A page of one student's history, by (occurred_at, seq); at most `ask.limit` events."""
    start = ask.after or (AFTER_ALL if ask.is_newest_first else BEFORE_ALL)
    rows = await connection.fetch(
        NEWEST_FIRST if ask.is_newest_first else OLDEST_FIRST,
        tenant,
        ask.student,
        ask.since,
        ask.until,
        ask.classroom,
        # A kind of a newer release waits until ours can show it.
        [kind.value for kind in (Kind if ask.kinds is None else ask.kinds)],
        ask.is_for_staff,
        *start,
        ask.limit,
    )
    return [_logged(row) for row in rows]


def _logged(row: asyncpg.Record) -> LoggedRow:
    return LoggedRow(
        id=row["id"],
        seq=row["seq"],
        source=row["source"],
        event_id=row["event_id"],
        kind=Kind(row["kind"]),
        source_type=row["source_type"],
        occurred_at=row["occurred_at"],
        received_at=row["received_at"],
        classroom=row["classroom"],
        assignment=row["assignment"],
        quiz=row["quiz"],
        concepts=tuple(row["concepts"]),
        ratio=row["ratio"],
        submission=row["submission"],
        due_at=row["due_at"],
        time_spent_ms=row["time_spent_ms"],
        is_late=row["is_late"],
        effect=_effect_of(row),
    )


def _effect_of(row: asyncpg.Record) -> Effect:
    if row["dead_at"] is not None:
        return Effect.DEAD
    if row["kind"] in CORRECTION_KINDS:
        return Effect.EFFECTIVE
    if Kind.EVENT_VOIDED in row["corrected_by"]:
        return Effect.VOIDED
    return Effect.SUPERSEDED if Kind.SUBMISSION_REGRADED in row["corrected_by"] else Effect.EFFECTIVE
