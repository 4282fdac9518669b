"""The catalog as clients read it: subjects, concepts, and what should be learned before what (001-06)."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated

import strawberry
from strawberry.dataloader import DataLoader

from db import catalog_reads
from db.catalog_reads import ConceptRow, SubjectRow
from db.freshness import Freshness
from db.pool import tenant_transaction
from graph.access import PEOPLE, allow
from graph.connections import FIRST_DEFAULT, After, Connection, First, Keyset, limit_of, page_of
from graph.loaders import batched
from graph.nodes import Node, global_id, register
from graph.request import Context, Info
from rules.access import Scope

SUBJECT_ORDER = Keyset("subjects", (str,))
CONCEPT_ORDER = Keyset("concepts", (str,))


@strawberry.enum(description="What a tenant calls an entry of its catalog.")
class ConceptKind(Enum):
    """The words of the catalog (001-06)."""

    STANDARD = strawberry.enum_value("STANDARD", description="A standard of a curriculum.")
    TOPIC = strawberry.enum_value("TOPIC", description="A topic that is taught.")
    CONCEPT = strawberry.enum_value("CONCEPT", description="A single idea or skill.")


@strawberry.type(description="A concept: a standard, topic or concept that students come to master.")
class Concept(Node):
    """One concept; without a subject it is one that only events have named."""

    key: str = strawberry.field(description="The tenant's own key of the concept, as arguments take it.")
    name: str = strawberry.field(description="Its name; the key itself while the catalog does not know the concept.")
    kind: ConceptKind = strawberry.field(description="What the tenant calls it.")
    is_active: bool = strawberry.field(description="Whether it is still taught.")
    in_catalog: bool = strawberry.field(description="Whether the catalog knows it; events may name others too.")
    subject_key: strawberry.Private[str | None]

    @strawberry.field(description="The subject it belongs to; null while the catalog does not know the concept.")
    async def subject(self, info: Info) -> "Subject | None":
        """Loaded together with those of the other concepts of the answer."""
        if self.subject_key is None:
            return None
        return await _subjects_by_key(info.context).load(self.subject_key)

    @strawberry.field(description="The concepts that should be learned directly before this one, by key.")
    async def prerequisites(self, info: Info) -> list["Concept"]:
        """Loaded together with those of the other concepts of the answer."""
        context = info.context

        async def load(keys: list[str]) -> dict[str, list[ConceptRow]]:
            async with tenant_transaction(context.pool, context.viewer.tenant, read_only=True) as connection:
                return await catalog_reads.prerequisites(connection, context.viewer.tenant, keys)

        rows = await batched(context, "prerequisites", load).load(self.key)
        return [concept_of(row) for row in rows or ()]


@strawberry.type(description="A subject of the catalog, such as mathematics.")
class Subject(Node):
    """A subject and its concepts."""

    key: str = strawberry.field(description="The tenant's own key of the subject, as arguments take it.")
    name: str = strawberry.field(description="Its name.")

    @strawberry.field(description="The concepts of the subject, by key.")
    async def concepts(self, info: Info, first: First = FIRST_DEFAULT, after: After = None) -> Connection[Concept]:
        """Loaded together with the same page of the other subjects of the answer."""
        context, limit = info.context, limit_of(first)
        (start,) = CONCEPT_ORDER.read(after) or ("",)

        async def load(keys: list[str]) -> dict[str, list[ConceptRow]]:
            async with tenant_transaction(context.pool, context.viewer.tenant, read_only=True) as connection:
                return await catalog_reads.concepts_of_subjects(
                    connection, context.viewer.tenant, keys, after=start, limit=limit
                )

        rows = await batched(context, ("concepts", start, limit), load).load(self.key)
        return page_of(
            rows or [], first=first, after=after, cursor_of=lambda row: CONCEPT_ORDER.write(row.key), node_of=concept_of
        )


def concept_of(row: ConceptRow) -> Concept:
    """A concept as clients read it."""
    return Concept(
        id=global_id("Concept", row.key),
        key=row.key,
        name=row.name,
        kind=ConceptKind(row.kind),
        is_active=row.is_active,
        in_catalog=row.subject is not None,
        subject_key=row.subject,
    )


def _subject_of(row: SubjectRow) -> Subject:
    return Subject(id=global_id("Subject", row.key), key=row.key, name=row.name)


async def concepts_of_keys(context: Context, keys: Sequence[str]) -> dict[str, Concept]:
    """The concepts of the catalog with these keys: everyone of the tenant may read it."""
    async with tenant_transaction(context.pool, context.viewer.tenant, read_only=True) as connection:
        found = await catalog_reads.concepts_of_keys(connection, context.viewer.tenant, keys)
    return {key: concept_of(row) for key, row in found.items()}


async def subjects_of_keys(context: Context, keys: Sequence[str]) -> dict[str, Subject]:
    """The subjects of the catalog with these keys."""
    async with tenant_transaction(context.pool, context.viewer.tenant, read_only=True) as connection:
        found = await catalog_reads.subjects_of_keys(connection, context.viewer.tenant, keys)
    return {key: _subject_of(row) for key, row in found.items()}


def _subjects_by_key(context: Context) -> DataLoader[str, Subject | None]:
    return batched(context, "subjects", lambda keys: subjects_of_keys(context, keys))


async def _concept_nodes(context: Context, keys: Sequence[str], _point: Freshness) -> Mapping[str, Node]:
    return await concepts_of_keys(context, keys)


async def _subject_nodes(context: Context, keys: Sequence[str], _point: Freshness) -> Mapping[str, Node]:
    return await subjects_of_keys(context, keys)


register("Concept", _concept_nodes)
register("Subject", _subject_nodes)


@strawberry.type
class CatalogQuery:
    """The root fields of the catalog."""

    @strawberry.field(description="One concept of the catalog; null when the catalog does not know it.")
    @allow(*PEOPLE, scope=Scope.READ)
    async def concept(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The key of the concept.")],
    ) -> Concept | None:
        """By the tenant's own key."""
        return await batched(info.context, "concept", lambda keys: concepts_of_keys(info.context, keys)).load(str(id))

    @strawberry.field(description="The subjects that the tenant teaches, by key, each with its concepts.")
    @allow(*PEOPLE, scope=Scope.READ)
    async def catalog(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[Subject] | None:
        """A page of subjects."""
        limit = limit_of(first)
        (start,) = SUBJECT_ORDER.read(after) or ("",)
        tenant = info.context.viewer.tenant
        async with tenant_transaction(info.context.pool, tenant, read_only=True) as connection:
            rows = await catalog_reads.subjects(connection, tenant, after=start, limit=limit)
        return page_of(
            rows, first=first, after=after, cursor_of=lambda row: SUBJECT_ORDER.write(row.key), node_of=_subject_of
        )
