"""The catalog as it is told: subjects, their concepts, and what comes before what."""

from collections.abc import Sequence
from typing import Annotated

import strawberry

from db.catalog import ConceptEntry, SubjectEntry, save_catalog
from db.pool import Connection
from db.roster import Change
from graph.access import allow
from graph.catalog_reads import ConceptKind
from graph.changes import RosterError, given, write
from graph.request import Info
from graph.roster import ERRORS, SEQ
from graph.scalars import Seq
from rules.access import Role, Scope
from rules.roster import (
    CATALOG_ITEMS_MAX,
    PREREQUISITES_MAX,
    Fault,
    check_count,
    check_distinct,
    check_key,
    check_name,
)


@strawberry.input(description="A subject of the catalog, under the tenant's own key.")
class CatalogSubjectInput:
    """One subject."""

    key: strawberry.ID = strawberry.field(description="The tenant's own key of the subject, 1 to 128 characters.")
    name: str = strawberry.field(description="The subject's name, 1 to 200 characters.")


@strawberry.input(description="A concept of the catalog, under the tenant's own key.")
class CatalogConceptInput:
    """One concept."""

    key: strawberry.ID = strawberry.field(description="The tenant's own key of the concept, 1 to 128 characters.")
    name: str = strawberry.field(description="The concept's name, 1 to 200 characters.")
    subject_id: strawberry.ID = strawberry.field(description="The key of its subject, in the catalog or in this input.")
    kind: ConceptKind | None = strawberry.field(
        description="What it is called; left out or null keeps what is stored, at first CONCEPT.",
        default=strawberry.UNSET,
    )
    is_active: bool | None = strawberry.field(
        description="Whether it is still taught; left out or null keeps what is stored, at first true.",
        default=strawberry.UNSET,
    )
    prerequisite_ids: list[strawberry.ID] | None = strawberry.field(
        description="The keys of all concepts that come right before it, at most 50, in the catalog or in this input; "
        "left out or null keeps what is stored.",
        default=strawberry.UNSET,
    )


@strawberry.input(description="Entries of the catalog, saved all together or not at all; entries not named here stay.")
class SaveCatalogInput:
    """A part of the catalog."""

    subjects: list[CatalogSubjectInput] | None = strawberry.field(
        description="The subjects to save, at most 2,000.", default=strawberry.UNSET
    )
    concepts: list[CatalogConceptInput] | None = strawberry.field(
        description="The concepts to save, at most 2,000.", default=strawberry.UNSET
    )


@strawberry.type(description="What came of saving entries of the catalog.")
class SaveCatalogPayload:
    """How much is saved, or why nothing is; the entries themselves are read with `catalog` and `concept`."""

    errors: list[RosterError] = strawberry.field(description=ERRORS)
    seq: Seq | None = strawberry.field(description=SEQ)
    subject_count: int = strawberry.field(description="How many subjects of the input are saved; 0 with errors.")
    concept_count: int = strawberry.field(description="How many concepts of the input are saved; 0 with errors.")


@strawberry.type
class CatalogMutation:
    """What is taught; it is for admins and for machines with the scope `roster`."""

    @strawberry.field(
        description="Save subjects and concepts under their keys, all or none. Prerequisites must be known and must "
        "not form a cycle. Saving the same again changes nothing."
    )
    @allow(Role.ADMIN, scope=Scope.ROSTER)
    async def save_catalog(
        self,
        info: Info,
        input: Annotated[SaveCatalogInput, strawberry.argument(description="The entries.")],
    ) -> SaveCatalogPayload:
        """A cycle is refused with its concepts named."""
        subjects, concepts = given(input.subjects) or [], given(input.concepts) or []

        async def step(connection: Connection, tenant: int) -> Change:
            entries = [SubjectEntry(subject.key, subject.name) for subject in subjects]
            return await save_catalog(connection, tenant, entries, [_entry(concept) for concept in concepts])

        written = await write(info.context, _faults(subjects, concepts), step)
        is_saved = not written.errors
        return SaveCatalogPayload(
            errors=written.errors,
            seq=written.seq,
            subject_count=len(subjects) if is_saved else 0,
            concept_count=len(concepts) if is_saved else 0,
        )


def _entry(concept: CatalogConceptInput) -> ConceptEntry:
    kind, before = given(concept.kind), given(concept.prerequisite_ids)
    return ConceptEntry(
        key=concept.key,
        name=concept.name,
        subject=concept.subject_id,
        kind=kind and str(kind.value),
        is_active=given(concept.is_active),
        prerequisites=None if before is None else tuple(before),
    )


def _faults(subjects: Sequence[CatalogSubjectInput], concepts: Sequence[CatalogConceptInput]) -> list[Fault]:
    """What is wrong with the entries themselves; the catalog is not asked before they are right."""
    faults = [
        *check_count(subjects, 0, CATALOG_ITEMS_MAX, "subjects"),
        *check_count(concepts, 0, CATALOG_ITEMS_MAX, "concepts"),
    ]
    if faults:
        return faults
    for place, subject in enumerate(subjects):
        path = ("subjects", str(place))
        faults += [*check_key(subject.key, *path, "key"), *check_name(subject.name, *path, "name")]
    for place, concept in enumerate(concepts):
        faults += _concept_faults(concept, ("concepts", str(place)))
    faults += check_distinct([subject.key for subject in subjects], "subjects")
    return faults + check_distinct([concept.key for concept in concepts], "concepts")


def _concept_faults(concept: CatalogConceptInput, path: tuple[str, ...]) -> list[Fault]:
    before = given(concept.prerequisite_ids) or []
    return [
        *check_key(concept.key, *path, "key"),
        *check_name(concept.name, *path, "name"),
        *check_key(concept.subject_id, *path, "subjectId"),
        *check_count(before, 0, PREREQUISITES_MAX, *path, "prerequisiteIds"),
        *check_distinct(before, *path, "prerequisiteIds"),
    ]
