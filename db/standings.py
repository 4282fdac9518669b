"""Reading what students can do: their standings by concept, with the policy version that made each number."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import asyncpg

from db.catalog_reads import ConceptRow
from db.pool import Connection
from rules.policy import DEFAULT_POLICY, Model, Policy
from rules.skill import Progress, Standing, Status, fresh_standing, progress_of

STANDING_COLUMNS = """s.count, s.earlier_sum, s.newest, s.successes, s.quiz_attempts, s.score, s.last_evidence_at,
    s.mastered_at, s.rank, s.claimed_at, s.best, s.latest, s.time_spent_ms, s.last_accessed_at, s.policy_version"""
CONCEPT_COLUMNS = "c.concept as known, c.name, c.kind, c.subject, c.is_active"
# The version that made the number; where there is no number, the newest one.
_POLICY = """
left join lateral (
    select p.version, p.model, p.recent_percent, p.success_threshold, p.mastery_threshold, p.min_evidence,
        p.inactivity_days, p.extra_credit
    from classroom_policy p
    where p.tenant = $1 and p.classroom = $3 and (s.policy_version is null or p.version = s.policy_version)
    order by p.version desc limit 1
) p on true
"""
POLICY_COLUMNS = """p.version, p.model, p.recent_percent, p.success_threshold, p.mastery_threshold, p.min_evidence,
    p.inactivity_days, p.extra_credit"""
# A correction may leave a row with nothing in it: the student is then as if the concept had never been met.
_HAS_TRACE = "(s.count > 0 or s.rank > 0 or s.last_accessed_at is not null)"

OF_STUDENTS = f"""
select asked.student, k.* from unnest($2::text[]) as asked (student)
cross join lateral (
    select s.concept, {STANDING_COLUMNS}, {CONCEPT_COLUMNS}, {POLICY_COLUMNS}
    from standing s
    left join concept c on c.tenant = $1 and c.concept = s.concept
    {_POLICY}
    where s.tenant = $1 and s.student = asked.student and s.classroom = $3 and s.concept > $4
      and ($5::text is null or c.subject = $5) and {_HAS_TRACE}
    order by s.concept limit $6
) k
"""  # noqa: S608 - composed of constants above
OF_STUDENTS_AND_CONCEPTS = f"""
select asked.student, k.* from unnest($2::text[]) as asked (student)
cross join lateral (
    select w.concept, {STANDING_COLUMNS}, {CONCEPT_COLUMNS}, {POLICY_COLUMNS}
    from unnest($7::text[]) as w (concept)
    left join standing s on s.tenant = $1 and s.student = asked.student and s.classroom = $3 and s.concept = w.concept
    left join concept c on c.tenant = $1 and c.concept = w.concept
    {_POLICY}
    where w.concept collate "C" > $4 and ($5::text is null or c.subject = $5)
    order by w.concept collate "C" limit $6
) k
"""  # noqa: S608 - composed of constants above
ALL_OF_STUDENTS = f"""
select s.student, s.concept, {STANDING_COLUMNS} from standing s
where s.tenant = $1 and s.student = any($2::text[]) and s.classroom = $3 and {_HAS_TRACE}
"""  # noqa: S608 - composed of constants above
# What a student could have begun: the whole catalog, or what the class has set work on.
UNMET = f"""
select asked.student, (
    select count(*) from concept c
    where c.tenant = $1 and c.is_active
      and ($3 = '' or exists (
          select from assignment a where a.tenant = $1 and a.classroom = $3 and c.concept = any(a.concepts)
      ))
      and not exists (
          select from standing s
          where s.tenant = $1 and s.student = asked.student and s.classroom = $3 and s.concept = c.concept
            and {_HAS_TRACE}
      )
) as unmet
from unnest($2::text[]) as asked (student)
"""  # noqa: S608 - composed of constants above


@dataclass(frozen=True, slots=True)
class MasteryRow:
    """One concept of one view: the standing (empty without evidence), its concept and the policy that made it."""

    concept: ConceptRow
    standing: Standing
    policy: Policy


@dataclass(frozen=True, slots=True)
class MasteryAsk:
    """Which standings are wanted; `classroom` "" means all of a student's evidence together."""

    classroom: str = ""
    subject: str | None = None
    concepts: tuple[str, ...] | None = None  # None: every concept the student has met
    after: str = ""
    limit: int = 21


async def of_students(
    connection: Connection, tenant: int, students: Iterable[str], ask: MasteryAsk
) -> dict[str, list[MasteryRow]]:
    """For each student the standings asked for, by concept key, at most `ask.limit` of each student.

    Concepts asked for by key are answered also where there is no evidence.
    """
    wanted = (tenant, list(students), ask.classroom, ask.after, ask.subject, ask.limit)
    if ask.concepts is None:
        rows = await connection.fetch(OF_STUDENTS, *wanted)
    else:
        rows = await connection.fetch(OF_STUDENTS_AND_CONCEPTS, *wanted, list(ask.concepts))
    found: dict[str, list[MasteryRow]] = defaultdict(list)
    for row in rows:
        found[row["student"]].append(mastery_row(row))
    return found


async def progress_of_students(
    connection: Connection, tenant: int, students: Sequence[str], *, classroom: str
) -> dict[str, Progress]:
    """All concepts of each student together, over one class or ("") over everything.

    NOT_STARTED counts the active concepts of the catalog (of the class's assignments) that the student never met.
    """
    met: dict[str, list[Standing]] = defaultdict(list)
    for row in await connection.fetch(ALL_OF_STUDENTS, tenant, list(students), classroom):
        met[row["student"]].append(_standing(row))
    unmet = {row["student"]: row["unmet"] for row in await connection.fetch(UNMET, tenant, list(students), classroom)}
    found = {student: progress_of(met[student]) for student in students}
    for student, progress in found.items():
        progress.by_status[Status.NOT_STARTED] += unmet[student]
    return found


def mastery_row(row: asyncpg.Record) -> MasteryRow:
    """Read one row of the columns above: a standing with its concept and its policy."""
    key, is_known = row["concept"], row["known"] is not None
    return MasteryRow(
        concept=ConceptRow(key, row["name"], row["kind"], row["subject"], row["is_active"])
        if is_known
        else ConceptRow(key, name=key),
        standing=fresh_standing(key) if row["count"] is None else _standing(row),
        policy=_policy(row),
    )


def _standing(row: asyncpg.Record) -> Standing:
    return Standing(
        concept=row["concept"],
        count=row["count"],
        earlier_sum=row["earlier_sum"],
        newest=row["newest"],
        successes=row["successes"],
        quiz_attempts=row["quiz_attempts"],
        score=row["score"],
        last_evidence_at=row["last_evidence_at"],
        mastered_at=row["mastered_at"],
        rank=row["rank"],
        claimed_at=row["claimed_at"],
        best=row["best"],
        latest=row["latest"],
        time_spent_ms=row["time_spent_ms"],
        last_accessed_at=row["last_accessed_at"],
        policy_version=row["policy_version"],
    )


def _policy(row: asyncpg.Record) -> Policy:
    if row["version"] is None:
        return DEFAULT_POLICY
    return Policy(
        version=row["version"],
        model=Model(row["model"]),
        recent_percent=row["recent_percent"],
        success_threshold=row["success_threshold"],
        mastery_threshold=row["mastery_threshold"],
        min_evidence=row["min_evidence"],
        inactivity_days=row["inactivity_days"],
        extra_credit=row["extra_credit"],
    )
