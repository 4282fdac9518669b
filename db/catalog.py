"""The catalog as it is written: subjects, concepts and what comes before what, never in a circle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from db.pool import Connection
from db.roster import UNCHANGED, Change
from rules.roster import CATALOG_CONCEPTS_MAX, Fault, RosterCode, cycle_among


@dataclass(frozen=True, slots=True)
class SubjectEntry:
    """A subject as it is sent."""

    key: str
    name: str


@dataclass(frozen=True, slots=True)
class ConceptEntry:
    """A concept as it is sent; None leaves kept what is kept."""

    key: str
    name: str
    subject: str
    kind: str | None = None
    is_active: bool | None = None
    prerequisites: tuple[str, ...] | None = None


SUBJECT_KEYS = "select subject as key from subject where tenant = $1"
CONCEPT_KEYS = "select concept as key from concept where tenant = $1"
PREREQUISITES = "select concept, prerequisite from concept_prerequisite where tenant = $1"

SAVE_SUBJECTS = """
insert into subject (tenant, subject, name)
select $1, s.subject, s.name from unnest($2::text[], $3::text[]) as s (subject, name)
on conflict (tenant, subject) do update set name = excluded.name where subject.name <> excluded.name
"""

SAVE_CONCEPTS = """
insert into concept (tenant, concept, subject, name, kind, is_active)
select $1, c.concept, c.subject, c.name, coalesce(c.kind, k.kind, 'CONCEPT'), coalesce(c.is_active, k.is_active, true)
from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bool[]) as c (concept, subject, name, kind, is_active)
left join concept k on k.tenant = $1 and k.concept = c.concept
on conflict (tenant, concept) do update set
    subject = excluded.subject, name = excluded.name, kind = excluded.kind, is_active = excluded.is_active
where (concept.subject, concept.name, concept.kind, concept.is_active)
    is distinct from (excluded.subject, excluded.name, excluded.kind, excluded.is_active)
"""

DROP_PREREQUISITES = """
delete from concept_prerequisite p
where p.tenant = $1 and p.concept = any($2::text[]) and not exists (
    select from unnest($3::text[], $4::text[]) as s (concept, prerequisite)
    where s.concept = p.concept and s.prerequisite = p.prerequisite
)
"""

SAVE_PREREQUISITES = """
insert into concept_prerequisite (tenant, concept, prerequisite)
select $1, s.concept, s.prerequisite from unnest($2::text[], $3::text[]) as s (concept, prerequisite)
on conflict (tenant, concept, prerequisite) do nothing
"""


async def save_catalog(
    connection: Connection, tenant: int, subjects: Sequence[SubjectEntry], concepts: Sequence[ConceptEntry]
) -> Change:
    """Keep all entries or none. A sent list of prerequisites replaces the kept one. No number depends on a catalog."""
    known_subjects = await _keys(connection, SUBJECT_KEYS, tenant) | {subject.key for subject in subjects}
    known_concepts = await _keys(connection, CONCEPT_KEYS, tenant) | {concept.key for concept in concepts}
    faults = _strangers(concepts, known_subjects, known_concepts)
    if len(known_concepts) > CATALOG_CONCEPTS_MAX:
        message = f"expected at most {CATALOG_CONCEPTS_MAX} concepts in the catalog, got {len(known_concepts)}"
        faults.append(Fault(RosterCode.TOO_MANY, ("concepts",), message))
    sent = {c.key: c.prerequisites for c in concepts if c.prerequisites is not None}
    cycle = cycle_among({**await _prerequisites(connection, tenant), **sent}) if sent and not faults else None
    if cycle:
        message = f"expected no cycle of prerequisites, got {' -> '.join(cycle)} (each comes before the next)"
        faults.append(Fault(RosterCode.CYCLE, _place_in(cycle, concepts), message))
    if faults:
        return Change(faults=tuple(faults))
    await _write(connection, tenant, subjects, concepts, sent)
    return UNCHANGED


def _strangers(concepts: Sequence[ConceptEntry], subjects: set[str], known: set[str]) -> list[Fault]:
    """The subjects and prerequisites that are neither kept nor sent along."""
    faults: list[Fault] = []
    for place, concept in enumerate(concepts):
        path = ("concepts", str(place))
        if concept.subject not in subjects:
            faults.append(Fault(RosterCode.NOT_FOUND, (*path, "subjectId"), "expected a subject of the catalog"))
        for nth, prerequisite in enumerate(concept.prerequisites or ()):
            if prerequisite not in known:
                field = (*path, "prerequisiteIds", str(nth))
                faults.append(Fault(RosterCode.NOT_FOUND, field, "expected a concept of the catalog"))
    return faults


def _place_in(cycle: Sequence[str], concepts: Sequence[ConceptEntry]) -> tuple[str, ...]:
    """The first sent concept that the cycle goes through: there is one, for what is kept has no cycle."""
    place = next(place for place, c in enumerate(concepts) if c.key in cycle and c.prerequisites is not None)
    return ("concepts", str(place), "prerequisiteIds")


async def _keys(connection: Connection, statement: str, tenant: int) -> set[str]:
    return {row["key"] for row in await connection.fetch(statement, tenant)}


async def _prerequisites(connection: Connection, tenant: int) -> dict[str, list[str]]:
    before: dict[str, list[str]] = {}
    for row in await connection.fetch(PREREQUISITES, tenant):
        before.setdefault(row["concept"], []).append(row["prerequisite"])
    return before


async def _write(
    connection: Connection,
    tenant: int,
    subjects: Sequence[SubjectEntry],
    concepts: Sequence[ConceptEntry],
    prerequisites: Mapping[str, Sequence[str]],
) -> None:
    ordered = sorted(concepts, key=lambda concept: concept.key)
    by_key = sorted((subject.key, subject.name) for subject in subjects)
    await connection.execute(SAVE_SUBJECTS, tenant, [key for key, _ in by_key], [name for _, name in by_key])
    await connection.execute(
        SAVE_CONCEPTS,
        tenant,
        [concept.key for concept in ordered],
        [concept.subject for concept in ordered],
        [concept.name for concept in ordered],
        [concept.kind for concept in ordered],
        [concept.is_active for concept in ordered],
    )
    edges = [
        (concept, before) for concept, all_before in sorted(prerequisites.items()) for before in sorted(all_before)
    ]
    columns = ([concept for concept, _ in edges], [before for _, before in edges])
    await connection.execute(DROP_PREREQUISITES, tenant, sorted(prerequisites), *columns)
    await connection.execute(SAVE_PREREQUISITES, tenant, *columns)
