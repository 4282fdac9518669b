"""What a teacher looks at each morning: the rates of a class, who is at risk, and what happened lately."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import asyncpg
import msgspec

from db.pool import Connection
from db.timelines import LoggedRow
from rules.classroom import Rollup

RECENT_DAYS = 7
AHEAD_MINUTES_MAX = 15  # a clock may run ahead by this much (C6), so an event is received at most so much earlier
PAGE = 20  # the rows of each list that a dashboard brings along: one page of the default size


@dataclass(frozen=True, slots=True)
class Flag:
    """One raised flag of one student in the class."""

    student: str
    reason: str
    severity: int  # 1 LOW to 3 HIGH
    raised_at: datetime
    evidence: dict[str, Any]
    clears_when: str


@dataclass(frozen=True, slots=True)
class AtRisk:
    """One student with at least one raised flag; the most severe flag first."""

    student: str
    overall: int  # 1 LOW to 3 HIGH
    flags: list[Flag]

    @property
    def place(self) -> tuple[int, int, str]:
        """Where the student stands in the list: the most urgent has the smallest place."""
        return (-self.overall, -len(self.flags), self.student)


@dataclass(frozen=True, slots=True)
class Activity:
    """One event of one of the class's students."""

    student: str
    event: LoggedRow

    @property
    def place(self) -> tuple[datetime, int]:
        """Where the event stands in the list: the newest has the greatest place."""
        return (self.event.occurred_at, self.event.seq)


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One snapshot of one class; the lists hold what was asked for, and one row more when there is more."""

    completion_rate: int | None  # rates in thousandths, None where nothing can be said
    average_score: int | None
    submission_rate: int | None
    active_students: int
    change_no: int  # of the class's stored state that the rates belong to
    policy_version: int
    assessed_at: datetime | None
    at_risk: list[AtRisk] = field(default_factory=list)
    recent: list[Activity] = field(default_factory=list)

    @property
    def rollup(self) -> Rollup:
        """The rates alone, as Definition C words them."""
        return Rollup(self.completion_rate, self.average_score, self.submission_rate, self.active_students)


# One statement for the whole dashboard and for a further page of either list (the other's limit is then 0, and
# Postgres does not start it): rates and lists of one answer belong to one moment. Rows, not columns, are compared
# with the cursor, so that the index of the log answers where a page begins. The bounds of `received_at` leave out the
# months of the log that cannot hold such an event, past and made ahead: 33 partitions were 1.8 ms of planning.
READ = """
select json_build_object(
    'completion_rate', s.completion_rate,
    'average_score', s.average_score,
    'submission_rate', s.submission_rate,
    'active_students', coalesce(s.active_students, 0),
    'change_no', coalesce(s.change_no, 0),
    'policy_version', coalesce(s.policy_version, 1),
    'assessed_at', s.assessed_at,
    'at_risk', coalesce((
        select json_agg(a) from (
            select g.student, g.overall, g.flags from (
                select f.student, max(f.overall) as overall, count(*)::int as count,
                    json_agg(json_build_object(
                        'student', f.student, 'reason', f.reason, 'severity', f.severity, 'raised_at', f.raised_at,
                        'evidence', f.evidence, 'clears_when', f.clears_when
                    ) order by f.severity desc, f.reason) as flags
                from risk_flag f
                where f.tenant = $1 and f.classroom = $2 and f.severity is not null
                group by f.student
            ) g
            where (-g.overall, -g.count, g.student) > ($3::bigint, $4::bigint, $5::text)
            order by -g.overall, -g.count, g.student
            limit $6
        ) a
    ), '[]'),
    'recent', coalesce((
        select json_agg(json_build_object('student', r.student, 'event', r)) from (
            select e.id, e.seq, e.source, e.event_id, e.kind, e.source_type, e.occurred_at, e.received_at, e.student,
                e.classroom, e.assignment, e.quiz, e.concepts, e.ratio, e.submission, e.due_at, e.time_spent_ms,
                e.is_late,
                case
                    when exists (
                        select from dead_letter d
                        where d.tenant = $1 and d.source = e.source and d.event_id = e.event_id
                    ) then 'DEAD'
                    when e.kind in (
                        'EVENT_VOIDED', 'SUBMISSION_REGRADED', 'ASSIGNMENT_EXCUSED', 'ASSIGNMENT_REOPENED'
                    ) then 'EFFECTIVE'
                    when exists (
                        select from correction v
                        where v.tenant = $1 and v.target_source = e.source and v.target_event_id = e.event_id
                            and v.kind = 'EVENT_VOIDED'
                    ) then 'VOIDED'
                    when exists (
                        select from correction v
                        where v.tenant = $1 and v.target_source = e.source and v.target_event_id = e.event_id
                            and v.kind = 'SUBMISSION_REGRADED'
                    ) or e.ratio is not null and exists (
                        select from correction v
                        where v.tenant = $1 and v.target_source = e.source and v.target_submission = e.submission
                            and v.student in ('', e.student)
                    ) then 'SUPERSEDED'
                    else 'EFFECTIVE'
                end as effect
            from event e
            where e.tenant = $1 and e.classroom = $2
                and e.occurred_at >= $7 and e.received_at between $8 and $13
                and (e.occurred_at, e.seq) < (coalesce($9, 'infinity'::timestamptz), $10::bigint)
                and e.student in (
                    select m.person from enrollment m
                    where m.tenant = $1 and m.classroom = $2 and m.role = 'STUDENT'
                        and m.started <= $11 and (m.ended is null or m.ended > $11)
                )
            order by e.occurred_at desc, e.seq desc
            limit $12
        ) r
    ), '[]')
)
from (select 1) one left join classroom_state s on s.tenant = $1 and s.classroom = $2
"""

FIRST_AT_RISK = (-100, 0, "")  # before every student
FIRST_RECENT = (None, 2**63 - 1)  # after every event

_decode = msgspec.json.Decoder(Dashboard).decode


async def read_dashboard(
    connection: Connection,
    tenant: int,
    classroom: str,
    *,
    now: datetime,
    today: date,
    at_risk_after: tuple[int, int, str] | None = None,
    at_risk_limit: int = PAGE + 1,
    recent_after: tuple[datetime, int] | None = None,
    recent_limit: int = PAGE + 1,
) -> Dashboard:
    """Read a class's dashboard in one statement, however many students it has.

    `today` is the class's local date: events of students who are not enrolled on it are left out. The cursors are
    places of `AtRisk` and `Activity`; a limit of 0 leaves the list out. A class that was never assessed has no rates.
    """
    since = now - timedelta(days=RECENT_DAYS)
    text: str = await connection.fetchval(
        READ,
        tenant,
        classroom,
        *(at_risk_after or FIRST_AT_RISK),
        at_risk_limit,
        since,
        since - timedelta(minutes=AHEAD_MINUTES_MAX),
        *(recent_after or FIRST_RECENT),
        today,
        recent_limit,
        now + timedelta(days=1),
    )
    return _decode(text)


FLAGS = """
select f.student, f.reason, f.severity, f.raised_at, f.evidence, f.clears_when
from risk_flag f
where f.tenant = $1 and f.classroom = $2 and f.severity >= $3
    and ($4::text is null or f.student = $4) and ($5::text[] is null or f.reason = any($5))
    and (-f.severity, f.student, f.reason) > ($6::bigint, $7::text, $8::text)
order by -f.severity, f.student, f.reason
limit $9
"""

FLAGS_BY_KEYS = """
select f.classroom, f.student, f.reason, f.severity, f.raised_at, f.evidence, f.clears_when
from unnest($2::text[], $3::text[], $4::text[]) as w (classroom, student, reason)
cross join lateral (  -- one look for each key, and `offset 0` so that it stays so: see db.projection
    select * from risk_flag k
    where k.tenant = $1 and k.classroom = w.classroom and k.student = w.student and k.reason = w.reason
    offset 0
) f
where f.severity is not null
"""

FIRST_FLAG = (-100, "", "")


async def flags_of_classroom(
    connection: Connection,
    tenant: int,
    classroom: str,
    *,
    student: str | None = None,
    reasons: Sequence[str] | None = None,
    severity_min: int = 1,
    after: tuple[int, str, str] | None = None,
    limit: int,
) -> list[Flag]:
    """The raised flags of a class, the most severe first, then by student and reason."""
    rows = await connection.fetch(
        FLAGS, tenant, classroom, severity_min, student, reasons, *(after or FIRST_FLAG), limit
    )
    return [_flag_of(row) for row in rows]


FlagKey = tuple[str, str, str]
"""(classroom, student, reason)."""


async def flags_of_keys(connection: Connection, tenant: int, keys: Sequence[FlagKey]) -> dict[FlagKey, Flag]:
    """Those of these flags that are raised now; who may see them is decided elsewhere."""
    columns = [[key[place] for key in keys] for place in range(3)]
    rows = await connection.fetch(FLAGS_BY_KEYS, tenant, *columns)
    return {(row["classroom"], row["student"], row["reason"]): _flag_of(row) for row in rows}


def _flag_of(row: asyncpg.Record) -> Flag:
    return Flag(
        student=row["student"],
        reason=row["reason"],
        severity=row["severity"],
        raised_at=row["raised_at"],
        evidence=msgspec.json.decode(row["evidence"]),
        clears_when=row["clears_when"],
    )
