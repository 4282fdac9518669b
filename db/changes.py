"""What changed past a position: the statements that live streams read, each over one tenant's rows.

A reader that has seen position `n` never later meets a change at or below `n`: class and student numbers are counted
under the lock of the fold that writes the change, and `seq` under the lock of the tenant's head.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from db.freshness import FRESHNESS, Freshness, freshness_of
from db.pool import Connection
from db.standings import CONCEPT_COLUMNS, POLICY_COLUMNS, STANDING_COLUMNS, MasteryRow, mastery_row
from db.timelines import Effect, LoggedRow
from rules.kinds import Kind
from rules.skill import Standing

PAGE = 200  # rows held in memory for one reader, however much they have missed; of a large class, one a student


@dataclass(frozen=True, slots=True)
class Position:
    """How far a stream has come. A reader may resume from any number from `floor` to `no` of the same epoch."""

    epoch: int  # grows when the tenant is restored
    no: int  # of the newest change
    point: Freshness  # how far the folds had come at the same moment
    floor: int = 0  # everything after it is still kept


CLASSROOM_POSITION = f"""
select p.epoch, p.no, p.floor, f.* from (
    select t.epoch, coalesce(c.change_no, 0) as no, 0 as floor
    from tenant t left join classroom_state c on c.tenant = $1 and c.classroom = $2
    where t.tenant = $1
) p cross join ({FRESHNESS}) f
"""  # noqa: S608 - constants of ours

STUDENT_POSITION = f"""
select p.epoch, p.no, p.floor, f.* from (
    select t.epoch, coalesce(s.change_no, 0) as no, 0 as floor
    from tenant t left join student_state s on s.tenant = $1 and s.student = $2
    where t.tenant = $1
) p cross join ({FRESHNESS}) f
"""  # noqa: S608 - constants of ours

RISK_POSITION = f"""
select p.epoch, p.no, p.floor, f.* from (
    select t.epoch, coalesce(c.risk_no, 0) as no, coalesce(
        (select min(r.no) - 1 from risk_change r where r.tenant = $1 and r.classroom = $2), c.risk_no, 0
    ) as floor
    from tenant t left join classroom_state c on c.tenant = $1 and c.classroom = $2
    where t.tenant = $1
) p cross join ({FRESHNESS}) f
"""  # noqa: S608 - constants of ours

LOG_POSITION = f"""
select p.epoch, p.no, p.floor, f.* from (
    select t.epoch, h.seq as no, 0 as floor from tenant t join tenant_head h on h.tenant = $1
    where t.tenant = $1 and $2::text is not null
) p cross join ({FRESHNESS}) f
"""  # noqa: S608 - constants of ours


JOB_POSITION = f"""
select p.epoch, p.no, p.floor, f.* from (
    select t.epoch, coalesce(j.change_no, 0) as no, 0 as floor
    from tenant t left join job j on j.tenant = $1 and j.job = $2
    where t.tenant = $1
) p cross join ({FRESHNESS}) f
"""  # noqa: S608 - constants of ours


# The same for many classes at once, in the order they are named.
CLASSROOM_POSITIONS = f"""
with f as materialized ({FRESHNESS})
select k.classroom, t.epoch, coalesce(c.change_no, 0) as no, 0 as floor, f.*
from unnest($2::text[]) with ordinality as k (classroom, place)
cross join f
join tenant t on t.tenant = $1
left join classroom_state c on c.tenant = $1 and c.classroom = k.classroom
order by k.place
"""  # noqa: S608 - constants of ours


async def classroom_positions(
    connection: Connection, tenant: int, classrooms: Sequence[str], now: datetime
) -> list[Position]:
    """How far the state of each class has come."""
    rows = await connection.fetch(CLASSROOM_POSITIONS, tenant, classrooms)
    if not rows:
        return []
    point = freshness_of(rows[0], now=now)  # one tenant's at one moment
    return [Position(row["epoch"], row["no"], point, row["floor"]) for row in rows]


async def classroom_position(connection: Connection, tenant: int, classroom: str, now: datetime) -> Position:
    """How far the state of a class has come."""
    return await _position(connection, CLASSROOM_POSITION, tenant, classroom, now)


async def student_position(connection: Connection, tenant: int, student: str, now: datetime) -> Position:
    """How far the state of a student has come."""
    return await _position(connection, STUDENT_POSITION, tenant, student, now)


async def risk_position(connection: Connection, tenant: int, classroom: str, now: datetime) -> Position:
    """How far the flag transitions of a class have come, and from where on they are kept."""
    return await _position(connection, RISK_POSITION, tenant, classroom, now)


async def log_position(connection: Connection, tenant: int, classroom: str, now: datetime) -> Position:
    """How far the tenant's log has come; it is kept for ever."""
    return await _position(connection, LOG_POSITION, tenant, classroom, now)


async def job_position(connection: Connection, tenant: int, job: str, now: datetime) -> Position:
    """How far a job has come."""
    return await _position(connection, JOB_POSITION, tenant, job, now)


async def _position(connection: Connection, statement: str, tenant: int, key: str, now: datetime) -> Position:
    row = await connection.fetchrow(statement, tenant, key)
    assert row is not None, f"tenant {tenant} has no head row"
    return Position(row["epoch"], row["no"], freshness_of(row, now=now), row["floor"])


@dataclass(frozen=True, slots=True)
class RiskTransition:
    """One stored transition of one flag; severities 1 LOW to 3 HIGH, None while the flag is down."""

    no: int
    student: str
    reason: str
    change: str
    severity: int | None
    earlier: int | None
    overall: int | None
    notify: bool
    evidence: dict[str, Any]
    clears_when: str
    at: datetime
    traceparent: str | None = None


RISK_CHANGES = """
select r.no, r.student, r.reason, r.change, r.severity, r.earlier, r.overall, r.notify, r.evidence, r.clears_when, r.at,
    r.traceparent
from risk_change r
where r.tenant = $1 and r.classroom = $2 and r.no > $3
order by r.no limit $4
"""


async def risk_changes(
    connection: Connection, tenant: int, classroom: str, *, after: int, limit: int = PAGE
) -> list[RiskTransition]:
    """The transitions of a class's flags past a number, in order."""
    rows = await connection.fetch(RISK_CHANGES, tenant, classroom, after, limit)
    return [RiskTransition(**{**row, "evidence": msgspec.json.decode(row["evidence"])}) for row in rows]


Bound = tuple[int, str, str]
"""(change number, two keys): standings are read strictly after it."""


@dataclass(frozen=True, slots=True)
class ChangedStanding:
    """One standing with the numbers of the changes that wrote it."""

    student: str
    classroom: str
    mastery: MasteryRow
    class_change: int
    student_change: int

    @property
    def has_trace(self) -> bool:
        """Whether any event is behind it; a row without is left where a correction took all evidence away."""
        standing: Standing = self.mastery.standing
        return standing.count > 0 or standing.rank > 0 or standing.last_accessed_at is not None


_CHANGED = f"""s.student, s.classroom, s.concept, s.class_change, s.student_change, {STANDING_COLUMNS},
    {CONCEPT_COLUMNS}, {POLICY_COLUMNS}"""
_BESIDE = """
left join concept c on c.tenant = $1 and c.concept = s.concept
left join classroom_policy p on p.tenant = $1 and p.classroom = s.classroom and p.version = s.policy_version
"""

# No index knows change numbers: it would cost every fold an entry for each row. What has changed in a class stands in
# the views that say so, and, where not every change since then was stamped on its views (an older worker was there, a
# view was dropped, a snapshot goes back further), among all rows of the class. All of a student's standings lie side by
# side in the key. `offset 0`: each look by itself, and only where the one before leads there.
_FOUND = """
select r.* from classroom_state c
cross join lateral (
    select v.student from view_state v
    where v.tenant = $1 and v.classroom = c.classroom and v.class_change >= <first> offset 0
) m
cross join lateral (
    select * from standing s
    where s.tenant = $1 and s.student = m.student and s.classroom = c.classroom and s.class_change >= <first> offset 0
) r
where c.tenant = $1 and c.classroom = <classroom> and c.stamped_to = c.change_no and c.stamped_from < <first>
union all
select r.* from classroom_state c
cross join lateral (
    select * from standing s where s.tenant = $1 and s.classroom = c.classroom and s.class_change >= <first> offset 0
) r
where c.tenant = $1 and c.classroom = <classroom> and not (c.stamped_to = c.change_no and c.stamped_from < <first>)
"""


def _found(classroom: str, first: str) -> str:
    """Every standing of the class written by this change or a later one."""
    return _FOUND.replace("<classroom>", classroom).replace("<first>", first)


# Each page of a snapshot looks at all rows of the class: it is a page of as many as the class has students, so that the
# pages are no more than the concepts.
CLASSROOM_STANDINGS = f"""
select {_CHANGED}
from (
    select f.* from ({_found("$2", "$3")}) f
    where (f.class_change, f.student, f.concept) > ($3, $4::text, $5::text)
    order by f.class_change, f.student, f.concept
    limit greatest($6, (select a.active_students from classroom_state a where a.tenant = $1 and a.classroom = $2))
) s {_BESIDE}
order by s.class_change, s.student, s.concept
"""  # noqa: S608 - constants of ours

STUDENT_STANDINGS = f"""
select {_CHANGED}
from standing s {_BESIDE}
where s.tenant = $1 and s.student = $2 and s.student_change >= $3
    and (s.student_change, s.classroom, s.concept) > ($3, $4::text, $5::text)
order by s.student_change, s.classroom, s.concept limit $6
"""  # noqa: S608 - constants of ours


MANY_CLASSROOM_STANDINGS = f"""
select k.place, {_CHANGED}
from unnest($2::text[], $3::bigint[]) with ordinality as k (classroom, no, place)
cross join lateral (
    select f.* from ({_found("k.classroom", "(k.no + 1)")}) f
    order by f.class_change, f.student, f.concept limit $4
) s {_BESIDE}
order by k.place, s.class_change, s.student, s.concept
"""  # noqa: S608 - constants of ours


async def many_classroom_standings(
    connection: Connection, tenant: int, after: Sequence[tuple[str, int]], *, limit: int = PAGE
) -> list[list[ChangedStanding]]:
    """For each (class, change number) the newest state of the standings written past it, as `classroom_standings`."""
    classrooms, numbers = [key for key, _ in after], [no for _, no in after]
    found: list[list[ChangedStanding]] = [[] for _ in after]
    for row in await connection.fetch(MANY_CLASSROOM_STANDINGS, tenant, classrooms, numbers, limit):
        found[row["place"] - 1].append(_changed_standing(row))
    return found


async def classroom_standings(
    connection: Connection, tenant: int, classroom: str, *, after: Bound, limit: int = PAGE
) -> list[ChangedStanding]:
    """The newest state of the class's standings written past a bound, by (class_change, student, concept)."""
    return await _standings(connection, CLASSROOM_STANDINGS, tenant, classroom, after, limit)


async def student_standings(
    connection: Connection, tenant: int, student: str, *, after: Bound, limit: int = PAGE
) -> list[ChangedStanding]:
    """The newest state of the student's standings written past a bound, by (student_change, classroom, concept)."""
    return await _standings(connection, STUDENT_STANDINGS, tenant, student, after, limit)


async def _standings(
    connection: Connection, statement: str, tenant: int, key: str, after: Bound, limit: int
) -> list[ChangedStanding]:
    return [_changed_standing(row) for row in await connection.fetch(statement, tenant, key, *after, limit)]


def _changed_standing(row: asyncpg.Record) -> ChangedStanding:
    return ChangedStanding(
        student=row["student"],
        classroom=row["classroom"],
        mastery=mastery_row(row),
        class_change=row["class_change"],
        student_change=row["student_change"],
    )


def recorded_of(classroom: str, after: str) -> str:
    """The statement for the events of a class past a position of the log; $1 tenant, $4 how many, $5 kinds shown."""
    # Events of students whom the roster does not know are shown elsewhere, to admins and integrators only.
    # `offset 0`: else all corrections, dead letters and students of the tenant are read and hashed for one page.
    return f"""
select e.student, e.id, e.seq, e.source, e.event_id, e.kind, e.source_type, e.occurred_at, e.received_at, e.classroom,
    e.assignment, e.quiz, e.concepts, e.ratio, e.submission, e.due_at, e.time_spent_ms, e.is_late,
    case
        when exists (
            select from dead_letter d where d.tenant = $1 and d.source = e.source and d.event_id = e.event_id offset 0
        ) then 'DEAD'
        when e.kind in (
            'EVENT_VOIDED', 'SUBMISSION_REGRADED', 'ASSIGNMENT_EXCUSED', 'ASSIGNMENT_REOPENED'
        ) then 'EFFECTIVE'
        when exists (
            select from correction v
            where v.tenant = $1 and v.target_source = e.source and v.target_event_id = e.event_id
                and v.kind = 'EVENT_VOIDED' offset 0
        ) then 'VOIDED'
        when exists (
            select from correction v
            where v.tenant = $1 and v.target_source = e.source and v.target_event_id = e.event_id
                and v.kind = 'SUBMISSION_REGRADED' offset 0
        ) or e.ratio is not null and exists (
            select from correction v
            where v.tenant = $1 and v.target_source = e.source and v.target_submission = e.submission
                and v.student in ('', e.student) offset 0
        ) then 'SUPERSEDED'
        else 'EFFECTIVE'
    end as effect
from event e
where e.tenant = $1 and e.classroom = {classroom} and e.seq > {after} and e.kind = any($5::text[])
    and (e.student = '' or exists (select from student s where s.tenant = $1 and s.student = e.student offset 0))
order by e.seq limit $4
"""  # noqa: S608 - names of ours


RECORDED = recorded_of("$2", "$3")


SHOWN_KINDS = [kind.value for kind in Kind]  # a kind of a newer release is one that ours cannot show


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One event of a class's log, and whom it is about."""

    student: str
    event: LoggedRow


async def recorded_events(
    connection: Connection, tenant: int, classroom: str, *, after: int, limit: int = PAGE
) -> list[RecordedEvent]:
    """The events of a class past a position of the log, in its order."""
    rows = await connection.fetch(RECORDED, tenant, classroom, after, limit, SHOWN_KINDS)
    return [recorded_event(dict(row)) for row in rows]


def recorded_event(columns: dict[str, Any]) -> RecordedEvent:
    """One row of the log and whom it is about."""
    student = columns.pop("student")
    marks = {
        "kind": Kind(columns["kind"]),
        "concepts": tuple(columns["concepts"]),
        "effect": Effect(columns["effect"]),
    }
    return RecordedEvent(student, LoggedRow(**{**columns, **marks}))


# What a process asks once a second of all that its streams follow, for whatever message was lost.
CLASSROOM_NUMBERS = """
select k.key, c.change_no, c.risk_no
from unnest($2::text[], $3::bigint[], $4::bigint[]) as k (key, change_no, risk_no)
join classroom_state c on c.tenant = $1 and c.classroom = k.key
where c.change_no <> k.change_no or c.risk_no <> k.risk_no
"""
STUDENT_NUMBERS = """
select s.student as key, s.change_no from student_state s where s.tenant = $1 and s.student = any($2::text[])
"""
TENANT_NUMBERS = """
select t.epoch, h.seq from tenant t join tenant_head h on h.tenant = $1 where t.tenant = $1
"""


async def numbers_of_classrooms(
    connection: Connection, tenant: int, known: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    """The numbers of the newest change of state and of flags of each class where they are not those that are known."""
    states, flags = [numbers[0] for numbers in known.values()], [numbers[1] for numbers in known.values()]
    rows = await connection.fetch(CLASSROOM_NUMBERS, tenant, list(known), states, flags)
    return {row["key"]: (row["change_no"], row["risk_no"]) for row in rows}


async def numbers_of_students(connection: Connection, tenant: int, students: Sequence[str]) -> dict[str, int]:
    """The number of the newest change of each student who has any."""
    return {row["key"]: row["change_no"] for row in await connection.fetch(STUDENT_NUMBERS, tenant, students)}


async def numbers_of_tenant(connection: Connection, tenant: int) -> tuple[int, int]:
    """The tenant's epoch, and the newest position of its log."""
    row = await connection.fetchrow(TENANT_NUMBERS, tenant)
    assert row is not None, f"tenant {tenant} has no head row"
    return row["epoch"], row["seq"]
