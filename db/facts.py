"""What a fold reads after its locks: events, the roster's answers, policies and corrections."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import asyncpg

from db.pool import Connection
from rules.classroom import SCORING_KINDS
from rules.corrections import ITEM_KINDS
from rules.evidence import CORRECTION_KINDS, SCORED_KINDS, Kind, LearningEvent
from rules.policy import DEFAULT_POLICY, Model, Policy
from rules.value import Value

# In the order of LearningEvent's fields: see event_of.
_EVENT_COLUMNS = """e.source, e.event_id, e.kind, e.occurred_at, e.student, e.classroom, e.revision, e.assignment,
    e.quiz, e.concepts, e.ratio, e.submission, e.due_at, e.time_spent_ms, e.target_source, e.target_event_id,
    e.kind = 'SUBMISSION_REGRADED' and coalesce((e.payload ->> 'onlyIfHigher')::boolean, false) as only_if_higher"""

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
_IS_GRADED_AGAIN = f"""(
    e.submission is not null and e.ratio is not null and e.kind in ({_words(SCORING_KINDS)})
    and exists (select from event o
                where o.tenant = $1 and o.student = e.student and o.source = e.source and o.submission = e.submission
                  and o.ratio is not null and o.event_id <> e.event_id offset 0)
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


async def claimed_events(
    connection: Connection, tenant: int, places: Sequence[tuple[int, datetime]]
) -> list[LoggedEvent]:
    """Read the log rows at these (seq, received_at) places."""
    if not places:
        return []
    received = [place[1] for place in places]
    rows = await connection.fetch(
        CLAIMED_EVENTS, tenant, [place[0] for place in places], received, min(received), max(received)
    )
    beside = len(LearningEvent.__struct_fields__)
    return [LoggedEvent(event_of(row), *row[beside:]) for row in rows]


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
