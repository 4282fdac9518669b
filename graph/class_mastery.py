"""What a whole class can do, student by student and concept by concept: the rows of a heat map."""

from datetime import date

import strawberry

from db import standings
from db.catalog_reads import concepts_of_classroom
from db.classrooms import students_of_classroom
from db.pool import tenant_transaction
from db.standings import MasteryAsk
from graph.catalog_reads import Concept, concept_of
from graph.connections import Connection, Keyset, limit_of, page_of
from graph.request import Context
from graph.standings import ConceptMastery, mastery_shown

CONCEPTS_MAX = 200  # of one student in one class; the longest page of `student { mastery }`
STUDENT_ORDER = Keyset("class-mastery", (str,))
CONCEPT_ORDER = Keyset("class-concepts", (str,))


@strawberry.type(description="One student of the class, with the mastery of each concept met there.")
class StudentMastery:
    """One row of a heat map."""

    student_id: strawberry.ID = strawberry.field(description="The key of the student.")
    display_name: str | None = strawberry.field(
        description="The student's name, for the class's teachers and admins; null for machines, or when none is kept."
    )
    mastery: list[ConceptMastery] = strawberry.field(
        description="The student's mastery of each concept met in the class, by concept key; the first "
        f"{CONCEPTS_MAX} at most."
    )


async def class_mastery(
    context: Context, classroom: str, *, on: date, shows_names: bool, first: int, after: str | None
) -> Connection[StudentMastery]:
    """A page of the students enrolled on a local day, by key: two statements, whatever the size of the page."""
    (start,) = STUDENT_ORDER.read(after) or ("",)
    limit, tenant = limit_of(first), context.viewer.tenant
    ask = MasteryAsk(classroom=classroom, limit=CONCEPTS_MAX)
    async with tenant_transaction(context.pool, tenant, read_only=True) as connection:
        rows = await students_of_classroom(connection, tenant, classroom, on=on, after=start, limit=limit)
        shown = [row.person for row in rows[:first]]
        found = await standings.of_students(connection, tenant, shown, ask)
    return page_of(
        rows,
        first=first,
        after=after,
        cursor_of=lambda row: STUDENT_ORDER.write(row.person),
        node_of=lambda row: StudentMastery(
            student_id=strawberry.ID(row.person),
            display_name=row.display_name if shows_names else None,
            mastery=[mastery_shown(each, classroom) for each in found.get(row.person, ())],
        ),
    )


async def class_concepts(context: Context, classroom: str, *, first: int, after: str | None) -> Connection[Concept]:
    """A page of the concepts that the class's work is about or its students gave evidence of, by key."""
    (start,) = CONCEPT_ORDER.read(after) or ("",)
    limit, tenant = limit_of(first), context.viewer.tenant
    async with tenant_transaction(context.pool, tenant, read_only=True) as connection:
        rows = await concepts_of_classroom(connection, tenant, classroom, after=start, limit=limit)
    return page_of(
        rows, first=first, after=after, cursor_of=lambda row: CONCEPT_ORDER.write(row.key), node_of=concept_of
    )
