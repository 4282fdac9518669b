"""The classes: their locks, what an assessment reads, and the rollups, flags and transitions it saves."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import msgspec

from db.pool import Connection
from db.projection import VIEW_VALUES, view_of
from rules.calendar import day_start, local_date
from rules.classroom import EMPTY_VIEW, ClassFacts, Member
from rules.outcome import Assessment
from rules.risk import FlagMemory, Reason, Severity, Transition
from rules.value import Value

FlagKey = tuple[str, Reason]
CLOSE_AFTER = timedelta(minutes=1)  # a burst of a student's first or late events closes their days once

# What is new is added before anything is locked: the other way round, two folds deadlock where one of them sees a row
# as new that the other already finds there.
NEW_CLASSROOMS = """
select w.classroom from unnest($2::text[]) as w (classroom)
where not exists (select from classroom_state c where c.tenant = $1 and c.classroom = w.classroom offset 0)
"""

NEW_STUDENTS = """
select w.student from unnest($2::text[]) as w (student)
where not exists (select from student_state s where s.tenant = $1 and s.student = w.student offset 0)
"""

LOCK_CLASSROOMS = """
select classroom, change_no, risk_no, assessed_at from classroom_state
where tenant = $1 and classroom = any($2::text[])
order by classroom for update
"""

ADD_CLASSROOMS = """
insert into classroom_state (tenant, classroom)
select $1, c from unnest($2::text[]) as c order by c
on conflict (tenant, classroom) do nothing
"""

LOCK_STUDENTS = """
select student, change_no, closed_until from student_state
where tenant = $1 and student = any($2::text[])
order by student for update
"""

ADD_STUDENTS = """
insert into student_state (tenant, student, close_at)
select $1, s, $3 from unnest($2::text[]) as s order by s
on conflict (tenant, student) do nothing
"""

COUNT_CLASSROOMS_UP = """
update classroom_state set change_no = change_no + 1 where tenant = $1 and classroom = any($2::text[])
"""

COUNT_STUDENTS_UP = """
update student_state set change_no = change_no + 1 where tenant = $1 and student = any($2::text[])
"""

# Every row is there, locked: it is the way by which each is looked up by its key. An UPDATE joined with the rows, each
# named twice so that the planner looks at no other, compares all with all (measured: 3 ms for 300 students, now 1).
SAVE_STUDENTS = """
insert into student_state (tenant, student, change_no)
select $1, w.* from unnest($2::text[], $3::bigint[]) as w
on conflict (tenant, student) do update set change_no = excluded.change_no
"""

# Overlapping enrolments of one person are refused when they are saved, so each student comes once.
MEMBERS = f"""
select n.classroom, n.person as student, n.started, s.zone as own_zone, {VIEW_VALUES}
from unnest($2::text[], $3::date[]) as w (classroom, today)
cross join lateral (  -- one look for each class, and `offset 0` so that it stays so: see db.projection
    select * from enrollment m
    where m.tenant = $1 and m.classroom = w.classroom and m.role = 'STUDENT'
        and m.started <= w.today and (m.ended is null or m.ended > w.today)
    offset 0
) n
join student s on s.tenant = $1 and s.student = n.person
left join view_state v on v.tenant = $1 and v.classroom = n.classroom and v.student = n.person
where s.tenant = $1
order by n.classroom, n.person
"""  # noqa: S608 - constants of ours

DUE_DATES = """
select a.classroom, a.assignment, a.due_at from assignment a
where a.tenant = $1 and a.classroom = any($2::text[]) and a.due_at is not null
"""

# When an enrolment begins or ends by itself: the class's next assessment, if nothing comes before.
NEXT_ROSTER_DAY = """
select w.classroom, min(d.day) as day
from unnest($2::text[], $3::date[]) as w (classroom, today)
cross join lateral (  -- one look for each class, and `offset 0` so that it stays so: see db.projection
    select * from enrollment m
    where m.tenant = $1 and m.classroom = w.classroom and m.role = 'STUDENT'
    offset 0
) n
cross join lateral (values (n.started), (n.ended)) as d (day)
where d.day > w.today
group by w.classroom
"""

FLAGS = """
select f.classroom, f.student, f.reason, f.severity, f.overall, f.raised_at, f.cleared_at, f.cleared_severity,
    f.notified_at, f.notified_severity, f.is_armed, f.evidence, f.clears_when
from risk_flag f
where f.tenant = $1 and f.classroom = any($2::text[])
"""

SAVE_FLAGS = """
insert into risk_flag (
    tenant, classroom, student, reason, severity, overall, raised_at, cleared_at, cleared_severity, notified_at,
    notified_severity, is_armed, evidence, clears_when)
select $1, w.* from unnest(
    $2::text[], $3::text[], $4::text[], $5::smallint[], $6::smallint[], $7::timestamptz[], $8::timestamptz[],
    $9::smallint[], $10::timestamptz[], $11::smallint[], $12::bool[], $13::json[], $14::text[]) as w
on conflict (tenant, classroom, student, reason) do update set
    severity = excluded.severity, overall = excluded.overall, raised_at = excluded.raised_at,
    cleared_at = excluded.cleared_at, cleared_severity = excluded.cleared_severity,
    notified_at = excluded.notified_at, notified_severity = excluded.notified_severity,
    is_armed = excluded.is_armed, evidence = excluded.evidence, clears_when = excluded.clears_when
"""

SAVE_CHANGES = """
insert into risk_change (
    tenant, classroom, no, student, reason, change, severity, earlier, overall, notify, evidence, clears_when, at,
    traceparent)
select $1, w.*, $13, $14 from unnest(
    $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::smallint[], $9::smallint[],
    $10::bool[], $11::json[], $12::text[]) as w
"""

# Where somebody has counted the class up without stamping its views, what came until then is not stamped.
SAVE_CLASSROOMS = """
update classroom_state c set
    change_no = w.change_no, risk_no = w.risk_no, completion_rate = w.completion_rate,
    average_score = w.average_score, submission_rate = w.submission_rate, active_students = w.active_students,
    policy_version = w.policy_version, assessed_at = $12, reassess_at = w.reassess_at,
    stamped_to = w.change_no, stamped_from = case
        when not w.is_stamped then w.change_no
        when c.stamped_to = c.change_no then c.stamped_from
        else c.change_no
    end
from unnest(
    $2::text[], $3::bigint[], $4::bigint[], $5::int[], $6::int[], $7::int[], $8::int[], $9::int[], $10::timestamptz[],
    $11::bool[]
) as w (
    classroom, change_no, risk_no, completion_rate, average_score, submission_rate, active_students, policy_version,
    reassess_at, is_stamped)
where c.tenant = $1 and c.classroom = w.classroom
"""


@dataclass(frozen=True, slots=True)
class Counters:
    """The numbers of a locked class: its last change and its last flag transition, and when it was assessed."""

    change_no: int
    risk_no: int
    assessed_at: datetime | None = None


class StudentLock(Value, frozen=True):
    """A locked student's last change, and the moment up to which their days are closed."""

    change_no: int
    closed_until: datetime | None = None


class StoredFlag(Value, frozen=True):
    """A flag as it stands: its memory, and the texts that change without a transition."""

    memory: FlagMemory
    overall: int | None
    evidence: str
    clears_when: str


@dataclass(frozen=True, slots=True)
class ClassOutcome:
    """All that one assessment changes in one class."""

    classroom: str
    counters: Counters  # the new ones
    assessment: Assessment
    transitions: Sequence[Transition]
    memories: Mapping[FlagKey, FlagMemory]  # those that differ
    policy_version: int
    reassess_at: datetime | None
    is_stamped: bool = True  # whether each view of which a standing moved says so: see db.changes


async def lock_classrooms(
    connection: Connection, tenant: int, classrooms: Iterable[str], *, unseen: Iterable[str] | None = None
) -> dict[str, Counters]:
    """Lock these classes' state rows in key order, making those that are new; the first of the two kinds of locks.

    `unseen` are those that may be new, all by default; any other that is gone, by a restore, is made all the same.
    """
    wanted = sorted(classrooms)
    perhaps = wanted if unseen is None else sorted(unseen)
    if perhaps and (new := await connection.fetch(NEW_CLASSROOMS, tenant, perhaps)):
        await connection.execute(ADD_CLASSROOMS, tenant, [row["classroom"] for row in new])
    rows = await connection.fetch(LOCK_CLASSROOMS, tenant, wanted)
    if len(rows) < len(wanted):
        await connection.execute(ADD_CLASSROOMS, tenant, wanted)
        rows = await connection.fetch(LOCK_CLASSROOMS, tenant, wanted)
    return {row["classroom"]: Counters(row["change_no"], row["risk_no"], row["assessed_at"]) for row in rows}


async def lock_students(
    connection: Connection, tenant: int, students: Iterable[str], *, now: datetime, unseen: Iterable[str] | None = None
) -> dict[str, StudentLock]:
    """Lock these students' state rows in key order, after the classes; those that are new are closed soon.

    `unseen` are those that may be new, all by default; any other that is gone, by a restore, is made all the same.
    """
    wanted = sorted(students)
    perhaps = wanted if unseen is None else sorted(unseen)
    if perhaps and (new := await connection.fetch(NEW_STUDENTS, tenant, perhaps)):
        await connection.execute(ADD_STUDENTS, tenant, [row["student"] for row in new], now + CLOSE_AFTER)
    rows = await connection.fetch(LOCK_STUDENTS, tenant, wanted)
    if len(rows) < len(wanted):
        await connection.execute(ADD_STUDENTS, tenant, wanted, now + CLOSE_AFTER)
        rows = await connection.fetch(LOCK_STUDENTS, tenant, wanted)
    return {row["student"]: StudentLock(row["change_no"], row["closed_until"]) for row in rows}


async def count_up(connection: Connection, tenant: int, classrooms: Iterable[str], students: Iterable[str]) -> None:
    """Count the change numbers of classes and students up: what any worker knows of them holds no longer.

    Locks both, as `lock_classrooms` and `lock_students` do; what has no row is known to nobody.
    """
    classes, those = sorted(classrooms), sorted(students)
    await connection.execute(LOCK_CLASSROOMS, tenant, classes)
    await connection.execute(LOCK_STUDENTS, tenant, those)
    await connection.execute(COUNT_CLASSROOMS_UP, tenant, classes)
    await connection.execute(COUNT_STUDENTS_UP, tenant, those)


async def save_students(connection: Connection, tenant: int, change_numbers: Mapping[str, int]) -> None:
    """Store the new change numbers of locked students."""
    if change_numbers:
        students = sorted(change_numbers)
        await connection.execute(SAVE_STUDENTS, tenant, students, [change_numbers[s] for s in students])


async def class_facts(
    connection: Connection, tenant: int, zones: Mapping[str, str], *, now: datetime
) -> dict[str, ClassFacts]:
    """Everything an assessment reads of these classes (given with their zones), beside flags and the clock."""
    classrooms = sorted(zones)
    today = [local_date(now, zones[classroom]) for classroom in classrooms]
    members: dict[str, list[Member]] = {classroom: [] for classroom in classrooms}
    for row in await connection.fetch(MEMBERS, tenant, classrooms, today):
        classroom, student, started, own_zone, *values = row
        zone = own_zone or zones[classroom]
        view = EMPTY_VIEW if row["assigned"] is None else view_of(values)
        members[classroom].append(Member(student, _day_start_ms(started, zone), zone, view))
    due: dict[str, dict[str, datetime | None]] = {classroom: {} for classroom in classrooms}
    for row in await connection.fetch(DUE_DATES, tenant, classrooms):
        due[row["classroom"]][row["assignment"]] = row["due_at"]
    return {c: ClassFacts(tuple(members[c]), zones[c], due[c]) for c in classrooms}


def _day_start_ms(day: date, zone: str) -> int:
    return int(day_start(day, zone).timestamp()) * 1000


async def next_roster_moments(
    connection: Connection, tenant: int, zones: Mapping[str, str], *, now: datetime
) -> dict[str, datetime]:
    """When each class's set of active enrolments next changes by itself: the start of that local day."""
    classrooms = sorted(zones)
    today = [local_date(now, zones[classroom]) for classroom in classrooms]
    rows = await connection.fetch(NEXT_ROSTER_DAY, tenant, classrooms, today)
    return {row["classroom"]: day_start(row["day"], zones[row["classroom"]]) for row in rows}


async def stored_flags(
    connection: Connection, tenant: int, classrooms: Iterable[str]
) -> dict[str, dict[FlagKey, StoredFlag]]:
    """Every flag and memory of these classes."""
    wanted = sorted(classrooms)
    found: dict[str, dict[FlagKey, StoredFlag]] = {classroom: {} for classroom in wanted}
    for row in await connection.fetch(FLAGS, tenant, wanted):
        memory = FlagMemory(
            severity=_severity(row["severity"]),
            raised_at=row["raised_at"],
            cleared_at=row["cleared_at"],
            cleared_severity=_severity(row["cleared_severity"]),
            notified_at=row["notified_at"],
            notified_severity=_severity(row["notified_severity"]),
            is_armed=row["is_armed"],
        )
        found[row["classroom"]][row["student"], Reason(row["reason"])] = StoredFlag(
            memory, row["overall"], row["evidence"], row["clears_when"]
        )
    return found


def _severity(number: int | None) -> Severity | None:
    return None if number is None else Severity(number)


def _json(value: Mapping[str, Any]) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


async def save_classes(
    connection: Connection,
    tenant: int,
    outcomes: Sequence[ClassOutcome],
    flags: Mapping[str, dict[FlagKey, StoredFlag]],
    *,
    now: datetime,
    traceparent: str | None,
) -> None:
    """Save what the assessments changed: flags, transitions (numbered without gaps), rollups and counters.

    `flags` are those stored so far, by class; afterwards they are what is stored now.
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.classroom)
    flag_rows = []
    for outcome in ordered:
        stored = flags[outcome.classroom]
        for key, flag in _changed_flags(outcome, stored):
            flag_rows.append(_flag_row(outcome.classroom, key, flag))
            stored[key] = flag
    if flag_rows:
        await connection.execute(SAVE_FLAGS, tenant, *_columns(flag_rows))
    change_rows = [row for outcome in ordered for row in _change_rows(outcome)]
    if change_rows:
        await connection.execute(SAVE_CHANGES, tenant, *_columns(change_rows), now, traceparent)
    await connection.execute(SAVE_CLASSROOMS, tenant, *_columns([_classroom_row(o) for o in ordered]), now)


def _changed_flags(outcome: ClassOutcome, stored: Mapping[FlagKey, StoredFlag]) -> list[tuple[FlagKey, StoredFlag]]:
    """The flags whose memory, overall severity, evidence or wording differs from what is stored, in key order."""
    found = []
    assessed = outcome.assessment
    for key in sorted(outcome.memories.keys() | assessed.flags.keys() | stored.keys()):
        before, flag = stored.get(key), assessed.flags.get(key)
        memory = outcome.memories.get(key) or stored[key].memory
        after = (
            StoredFlag(memory, None, "{}", "")
            if flag is None
            else StoredFlag(memory, assessed.overall.get(key[0]), _json(flag.evidence), flag.clears_when)
        )
        if after != before:
            found.append((key, after))
    return found


def _flag_row(classroom: str, key: FlagKey, flag: StoredFlag) -> tuple[Any, ...]:
    memory = flag.memory
    return (
        classroom,
        key[0],
        key[1].value,
        memory.severity,
        flag.overall,
        memory.raised_at,
        memory.cleared_at,
        memory.cleared_severity,
        memory.notified_at,
        memory.notified_severity,
        memory.is_armed,
        flag.evidence,
        flag.clears_when,
    )


def _change_rows(outcome: ClassOutcome) -> list[tuple[Any, ...]]:
    first = outcome.counters.risk_no - len(outcome.transitions) + 1
    return [
        (
            outcome.classroom,
            first + place,
            t.student,
            t.reason.value,
            t.change.value,
            t.severity,
            t.earlier,
            t.overall,
            t.notify,
            _json(t.evidence),
            t.clears_when,
        )
        for place, t in enumerate(outcome.transitions)
    ]


def _classroom_row(outcome: ClassOutcome) -> tuple[Any, ...]:
    rollup = outcome.assessment.rollup
    return (
        outcome.classroom,
        outcome.counters.change_no,
        outcome.counters.risk_no,
        rollup.completion_rate,
        rollup.average_score,
        rollup.submission_rate,
        rollup.active_students,
        outcome.policy_version,
        outcome.reassess_at,
        outcome.is_stamped,
    )


def _columns(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
