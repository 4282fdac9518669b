"""Reading the catalog: subjects, their concepts, and which concept comes before which (001-06)."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import asyncpg

from db.pool import Connection

SUBJECTS = """
select s.subject, s.name from subject s
where s.tenant = $1 and s.subject > $2 order by s.subject limit $3
"""
SUBJECTS_OF_KEYS = "select s.subject, s.name from subject s where s.tenant = $1 and s.subject = any($2::text[])"
CONCEPTS_OF_KEYS = """
select c.concept, c.subject, c.name, c.kind, c.is_active from concept c
where c.tenant = $1 and c.concept = any($2::text[])
"""
CONCEPTS_OF_SUBJECTS = """
select k.* from unnest($2::text[]) as asked (subject)
cross join lateral (
    select c.concept, c.subject, c.name, c.kind, c.is_active from concept c
    where c.tenant = $1 and c.subject = asked.subject and c.concept > $3 order by c.concept limit $4
) k
"""
# What the class's work is about, and what its students gave evidence of without it.
CONCEPTS_OF_CLASSROOM = """
select k.concept, c.subject, coalesce(c.name, k.concept) as name, coalesce(c.kind, 'CONCEPT') as kind,
    coalesce(c.is_active, true) as is_active
from (
    select s.concept from standing s where s.tenant = $1 and s.classroom = $2 and s.count > 0
    union
    select named.concept collate "C" from assignment a, unnest(a.concepts) as named (concept)
    where a.tenant = $1 and a.classroom = $2
) k
left join concept c on c.tenant = $1 and c.concept = k.concept
where k.concept > $3
order by k.concept
limit $4
"""
PREREQUISITES = """
select p.concept as after, c.concept, c.subject, c.name, c.kind, c.is_active
from concept_prerequisite p
join concept c on c.tenant = $1 and c.concept = p.prerequisite
where p.tenant = $1 and p.concept = any($2::text[])
order by p.concept, c.concept
"""


@dataclass(frozen=True, slots=True)
class SubjectRow:
    """A subject of the catalog."""

    key: str
    name: str


@dataclass(frozen=True, slots=True)
class ConceptRow:
    """A concept: of the catalog, or (`subject` None) one that only events have named."""

    key: str
    name: str
    kind: str = "CONCEPT"
    subject: str | None = None
    is_active: bool = True


async def subjects(connection: Connection, tenant: int, *, after: str, limit: int) -> list[SubjectRow]:
    """The subjects whose keys follow `after`, by key."""
    return [_subject(row) for row in await connection.fetch(SUBJECTS, tenant, after, limit)]


async def subjects_of_keys(connection: Connection, tenant: int, keys: Iterable[str]) -> dict[str, SubjectRow]:
    """The known ones of these subjects."""
    rows = await connection.fetch(SUBJECTS_OF_KEYS, tenant, list(keys))
    return {row["subject"]: _subject(row) for row in rows}


async def concepts_of_keys(connection: Connection, tenant: int, keys: Iterable[str]) -> dict[str, ConceptRow]:
    """The known ones of these concepts."""
    rows = await connection.fetch(CONCEPTS_OF_KEYS, tenant, list(keys))
    return {row["concept"]: _concept(row) for row in rows}


async def concepts_of_subjects(
    connection: Connection, tenant: int, subjects: Iterable[str], *, after: str, limit: int
) -> dict[str, list[ConceptRow]]:
    """For each subject its concepts whose keys follow `after`, by key, at most `limit` of each."""
    found: dict[str, list[ConceptRow]] = defaultdict(list)
    for row in await connection.fetch(CONCEPTS_OF_SUBJECTS, tenant, list(subjects), after, limit):
        found[row["subject"]].append(_concept(row))
    return found


async def concepts_of_classroom(
    connection: Connection, tenant: int, classroom: str, *, after: str, limit: int
) -> list[ConceptRow]:
    """The concepts of a class's work and evidence whose keys follow `after`, by key."""
    return [_concept(row) for row in await connection.fetch(CONCEPTS_OF_CLASSROOM, tenant, classroom, after, limit)]


async def prerequisites(connection: Connection, tenant: int, concepts: Iterable[str]) -> dict[str, list[ConceptRow]]:
    """For each concept what should be learned before it, by key."""
    found: dict[str, list[ConceptRow]] = defaultdict(list)
    for row in await connection.fetch(PREREQUISITES, tenant, list(concepts)):
        found[row["after"]].append(_concept(row))
    return found


def _subject(row: asyncpg.Record) -> SubjectRow:
    return SubjectRow(key=row["subject"], name=row["name"])


def _concept(row: asyncpg.Record) -> ConceptRow:
    return ConceptRow(
        key=row["concept"], name=row["name"], kind=row["kind"], subject=row["subject"], is_active=row["is_active"]
    )
