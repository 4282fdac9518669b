"""What a fold reads after its locks: events, the roster's answers, policies and corrections."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import asyncpg

from db.outbox import Claimed
from db.parcels import unpacked
from db.pool import Connection
from rules.classroom import SCORING_KINDS
from rules.corrections import ITEM_KINDS, attempt_of
from rules.evidence import CORRECTION_KINDS, SCORED_KINDS, Kind, LearningEvent
from rules.policy import DEFAULT_POLICY, Model, Policy
from rules.value import Value

# In the order of LearningEvent's fields: see event_of.
_EVENT_COLUMNS = """e.source, e.event_id, e.kind, e.occurred_at, e.student, e.classroom, e.revision, e.assignment,
    e.quiz, e.concepts, e.ratio, e.submission, e.due_at, e.time_spent_ms, e.target_source, e.target_event_id,
    e.kind = 'SUBMISSION_REGRADED' and coalesce((e.payload ->> 'onlyIfHigher')::boolean, false) as only_if_higher"""

FEW_EVENTS = 50  # fewer are asked one by one what is said of them, in one round trip

_KIND, _CONCEPTS = map(LearningEvent.__struct_fields__.index, ("kind", "concepts"))
_KINDS = {kind.value: kind for kind in Kind}


def _words(kinds: Iterable[Kind]) -> str:
    return ", ".join(f"'{kind}'" for kind in sorted(kinds))


_CORRECTIONS = f"({_words(CORRECTION_KINDS)})"

# `offset 0`: else every correction of the tenant is read and hashed for each batch, however few events it holds.
# A correction is never voided.
_IS_OUT = f"""(
    e.kind not in {_CORRECTIONS}
    and exists (select from correction x
                where x.tenant = $1 and x.target_source = e.source and x.target_event_id = e.event_id
                  and x.kind = 'EVENT_VOIDED' offset 0)
    or exists (select from dead_letter d
               where d.tenant = $1 and d.source = e.source and d.event_id = e.event_id offset 0)
)"""  # noqa: S608 - composed of constants above

# Another grade of the same attempt (`rules.corrections.attempt_of`), come when it may.
_GRADED_AGAIN = """exists (
    select from event o
    where o.tenant = $1 and o.student = e.student and o.source = e.source and o.submission = e.submission
      and o.ratio is not null and o.event_id <> e.event_id offset 0
)"""
_IS_GRADED_AGAIN = f"""(
    e.submission is not null and e.ratio is not null and e.kind in ({_words(SCORING_KINDS)})
    and {_GRADED_AGAIN}
)"""

# A regrade, an excuse or a reopening that speaks of the event, come when it may: one look for each way to name it.
_IS_CORRECTED = f"""(
    (e.kind in ({_words(ITEM_KINDS)}) and coalesce(e.assignment, e.quiz) is not null
     or e.ratio is not null and e.kind in ({_words(SCORED_KINDS)}))
    and (
        exists (select from correction x
                where x.tenant = $1 and x.student = e.student and x.assignment = coalesce(e.assignment, e.quiz)
                  and x.classroom in ('', e.classroom) offset 0)
        or exists (select from correction x
                   where x.tenant = $1 and x.target_source = e.source and x.target_event_id = e.event_id
                     and x.kind = 'SUBMISSION_REGRADED' offset 0)
        or exists (select from correction x
                   where x.tenant = $1 and x.target_source = e.source and x.target_submission = e.submission
                     and x.student in ('', e.student) offset 0)
    )
)"""  # noqa: S608 - composed of constants above

CLAIMED_EVENTS = f"""
select {_EVENT_COLUMNS}, e.seq, e.received_at, {_IS_OUT} as is_out,
    {_IS_GRADED_AGAIN} or {_IS_CORRECTED} as is_revised
from unnest($2::bigint[], $3::timestamptz[]) as c (seq, received_at)
cross join lateral (  -- one look for each row, and `offset 0` so that it stays so: see db.projection
    select * from event l
    where l.tenant = $1 and l.seq = c.seq and l.received_at = c.received_at and l.received_at between $4 and $5
    offset 0
) e
"""  # noqa: S608 - composed of constants above

# The same of events whose other columns are at hand.
MARKS = f"""
select m.place, m.is_out, m.is_revised
from (
    select e.place, {_IS_OUT} as is_out, {_IS_GRADED_AGAIN} or {_IS_CORRECTED} as is_revised
    from unnest(
        $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::int[], $10::text[]
    ) with ordinality as e (
        source, event_id, kind, student, classroom, assignment, quiz, ratio, submission, place
    )
    offset 0
) m
where m.is_out or m.is_revised
"""  # noqa: S608 - composed of constants above

# Most tenants have no correction and no dead letter at all, and most grades are the first of their submission: then two
# looks and one for each attempt answer for all events of a batch. What is true of every row leads to the primary key.
OUTLOOK = f"""
select
    exists (select from (
        select from correction x where x.tenant = $1 and x.target_source >= '' order by x.target_source limit 1
    ) x) or exists (select from (
        select from dead_letter d where d.tenant = $1 and d.source >= '' order by d.source limit 1
    ) d) as is_spoken_of,
    array(
        select e.place
        from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
            as e (source, event_id, student, submission, place)
        where {_GRADED_AGAIN}
    ) as graded_again
"""  # noqa: S608 - composed of constants above

# The regrades of an event or of its submission, by their places in the log; they may name no student of their own.
_REGRADED_BY = """case when e.ratio is not null then array(
    select x.seq from correction x
    where x.tenant = $1 and x.target_source = e.source and x.target_event_id = e.event_id
      and x.kind = 'SUBMISSION_REGRADED'
    union all
    select x.seq from correction x
    where x.tenant = $1 and x.target_source = e.source and x.target_submission = e.submission
      and x.student in ('', e.student)
) end"""

LOG_OF_STUDENTS = f"""
select {_EVENT_COLUMNS}, {_REGRADED_BY} as regraded_by
from event e
where e.tenant = $1 and e.student = any($2::text[]) and not {_IS_OUT}
"""  # noqa: S608 - composed of constants above

REGRADES = f"""
select {_EVENT_COLUMNS}, e.seq
from event e
where e.tenant = $1 and e.seq = any($2::bigint[]) and not {_IS_OUT}
"""  # noqa: S608 - composed of constants above

CLASSES_OF_STUDENTS = """
select e.student, e.classroom from event e where e.tenant = $1 and e.student = any($2::text[])
union
select v.student, v.classroom from view_state v where v.tenant = $1 and v.student = any($2::text[])
union
select n.person, n.classroom from enrollment n
where n.tenant = $1 and n.role = 'STUDENT' and n.person = any($2::text[])
"""

ROSTERED_STUDENTS = "select student from student where tenant = $1 and student = any($2::text[])"

ROSTERED_CLASSROOMS = """
select c.classroom, coalesce(c.zone, s.zone, t.zone) as zone
from tenant t
join classroom c on c.tenant = $1
left join school s on s.tenant = $1 and s.school = c.school
where t.tenant = $1 and c.classroom = any($2::text[])
"""

# What waits for no class, or for all of them, is about a student or the tenant: it may be about each of these.
ROSTERED_AND_TOUCHED = """
select c.classroom, coalesce(c.zone, s.zone, t.zone) as zone,
    exists (
        select from outbox o where o.tenant = $1 and o.classroom = c.classroom and o.kind <> 'EVENT' offset 0
    ) or exists (
        select from outbox o where o.tenant = $1 and o.classroom = '' and o.kind <> 'EVENT' offset 0
    ) as is_touched
from tenant t
join classroom c on c.tenant = $1
left join school s on s.tenant = $1 and s.school = c.school
where t.tenant = $1 and c.classroom = any($2::text[])
"""

POLICIES = """
select distinct on (p.classroom) p.classroom, p.version, p.model, p.recent_percent, p.success_threshold,
    p.mastery_threshold, p.min_evidence, p.inactivity_days, p.extra_credit
from classroom_policy p
where p.tenant = $1 and p.classroom = any($2::text[])
order by p.classroom, p.version desc
"""


class LoggedEvent(Value, frozen=True):
    """A claimed event with its place in the log.

    `is_out`: it is voided or dead and so has no effect. `is_revised`: it grades a recorded submission again, or a
    correction speaks of it; its views are to be rebuilt.
    """

    event: LearningEvent
    seq: int
    received_at: datetime
    is_out: bool
    is_revised: bool


def event_of(row: asyncpg.Record) -> LearningEvent:
    """Read one log row, which begins with _EVENT_COLUMNS, as the event the fold takes."""
    values = list(row[: len(LearningEvent.__struct_fields__)])
    word = values[_KIND]
    values[_KIND] = _KINDS.get(word) or Kind(word)  # a newer release's word raises NewerWord
    values[_CONCEPTS] = tuple(values[_CONCEPTS])
    return LearningEvent(*values)


async def claimed_events(connection: Connection, tenant: int, rows: Sequence[Claimed]) -> list[LoggedEvent]:
    """The events of these claimed rows, in no order: what rides in its row is not read from the log again.

    What is said of them is asked in any case, and after the rows of their classes and students were locked: else a void
    that another fold has just taken into account would be missed.
    """
    found: list[LoggedEvent] = []
    logged: list[Claimed] = []
    for row in rows:
        event = unpacked(row)
        if event is None:
            logged.append(row)
        else:
            found.append(LoggedEvent(event, row.seq, row.received_at, False, False))
    if found:
        for place, is_out, is_revised in await _marks(connection, tenant, [entry.event for entry in found]):
            entry = found[place]
            found[place] = LoggedEvent(entry.event, entry.seq, entry.received_at, is_out, is_revised)
    return found + await _from_log(connection, tenant, logged) if logged else found


async def _from_log(connection: Connection, tenant: int, rows: Sequence[Claimed]) -> list[LoggedEvent]:
    """The log's rows of these events."""
    received = [row.received_at for row in rows]
    records = await connection.fetch(
        CLAIMED_EVENTS, tenant, [row.seq for row in rows], received, min(received), max(received)
    )
    beside = len(LearningEvent.__struct_fields__)
    return [LoggedEvent(event_of(record), *record[beside:]) for record in records]


async def _marks(connection: Connection, tenant: int, events: Sequence[LearningEvent]) -> list[tuple[int, bool, bool]]:
    """(place, is_out, is_revised) of those of these events, no corrections, of which either holds."""
    if len(events) > FEW_EVENTS:
        again = [(e, place) for place, e in enumerate(events) if attempt_of(e) is not None]
        outlook = await connection.fetchrow(
            OUTLOOK,
            tenant,
            [e.source for e, _ in again],
            [e.event_id for e, _ in again],
            [e.student for e, _ in again],
            [e.submission for e, _ in again],
            [place for _, place in again],
        )
        assert outlook is not None
        if not outlook["is_spoken_of"]:
            return [(place, False, True) for place in outlook["graded_again"]]
    rows = await connection.fetch(
        MARKS,
        tenant,
        [e.source for e in events],
        [e.event_id for e in events],
        [e.kind for e in events],
        [e.student for e in events],
        [e.classroom for e in events],
        [e.assignment for e in events],
        [e.quiz for e in events],
        [e.ratio for e in events],
        [e.submission for e in events],
    )
    return [(place - 1, is_out, is_revised) for place, is_out, is_revised in rows]


async def log_of_students(
    connection: Connection, tenant: int, students: Iterable[str], *, seconds: float | None = None
) -> list[LearningEvent]:
    """Read every effective event of these students and the corrections that speak of them, in no order.

    A regrade is theirs whose work it regrades, whatever student it names itself. `seconds` is how long the answer may
    take where that is not the pool's own limit.
    """
    wanted = sorted(students)
    if not wanted:
        return []
    rows = await connection.fetch(LOG_OF_STUDENTS, tenant, wanted, timeout=seconds)
    found = [event_of(row) for row in rows if row["kind"] != Kind.SUBMISSION_REGRADED]
    named = {(row["student"], seq) for row in rows for seq in row["regraded_by"] or ()}
    if named:
        regrades = await connection.fetch(REGRADES, tenant, sorted({seq for _, seq in named}))
        by_seq = {row["seq"]: event_of(row) for row in regrades}
        found += [replace(by_seq[seq], student=student) for student, seq in sorted(named) if seq in by_seq]
    return found


async def classes_of_students(connection: Connection, tenant: int, students: Iterable[str]) -> set[tuple[str, str]]:
    """Every (student, classroom) these students have events or a view in, or are enrolled in: without any event a
    student may still be inactive there, counted in days of their own zone."""
    rows = await connection.fetch(CLASSES_OF_STUDENTS, tenant, sorted(students))
    return {(row["student"], row["classroom"]) for row in rows}


async def rostered_students(connection: Connection, tenant: int, students: Iterable[str]) -> set[str]:
    """Those of these keys that the roster knows as students."""
    return {row["student"] for row in await connection.fetch(ROSTERED_STUDENTS, tenant, sorted(students))}


async def rostered_classrooms(connection: Connection, tenant: int, classrooms: Iterable[str]) -> dict[str, str]:
    """Those of these keys that the roster knows as classes, each with its IANA zone."""
    rows = await connection.fetch(ROSTERED_CLASSROOMS, tenant, sorted(classrooms))
    return {row["classroom"]: row["zone"] for row in rows}


async def rostered_and_touched(
    connection: Connection, tenant: int, classrooms: Iterable[str]
) -> tuple[dict[str, str], set[str]]:
    """The same, and those of them for which a touch waits: roster or assignments have changed, and no fold knows."""
    rows = await connection.fetch(ROSTERED_AND_TOUCHED, tenant, sorted(classrooms))
    return {row["classroom"]: row["zone"] for row in rows}, {row["classroom"] for row in rows if row["is_touched"]}


async def policies(connection: Connection, tenant: int, classrooms: Iterable[str]) -> dict[str, Policy]:
    """The newest policy of each class ("" = the tenant's default); a class without one has version 1, the defaults."""
    wanted = sorted(classrooms)
    found = dict.fromkeys(wanted, DEFAULT_POLICY)
    for row in await connection.fetch(POLICIES, tenant, wanted):
        found[row["classroom"]] = Policy(
            version=row["version"],
            model=Model(row["model"]),
            recent_percent=row["recent_percent"],
            success_threshold=row["success_threshold"],
            mastery_threshold=row["mastery_threshold"],
            min_evidence=row["min_evidence"],
            inactivity_days=row["inactivity_days"],
            extra_credit=row["extra_credit"],
        )
    return found
