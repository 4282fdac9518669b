"""A student's own work as clients read it: what is open and when it is due, what is late, what it scored."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum

import strawberry

from db.pool import tenant_transaction
from db.work import BEFORE_ALL, WorkAsk, WorkRow, work_of_students
from graph.classwork import Assignment, assignment_of
from graph.connections import Connection, Keyset, limit_of, page_of
from graph.loaders import batched
from graph.request import Context
from rules.classroom import WorkStatus

WORK_ORDER = Keyset("student-work", (datetime, str, str))


@strawberry.enum(description="Where a piece of work stands for a student: the first that holds, from top to bottom.")
class AssignmentStatus(Enum):
    """Definition D."""

    EXCUSED = strawberry.enum_value(WorkStatus.EXCUSED, description="It counts nowhere for this student.")
    GRADED = strawberry.enum_value(WorkStatus.GRADED, description="A score counts.")
    SUBMITTED = strawberry.enum_value(WorkStatus.SUBMITTED, description="Handed in, without a score yet.")
    OVERDUE = strawberry.enum_value(WorkStatus.OVERDUE, description="Past its due date with nothing handed in.")
    ASSIGNED = strawberry.enum_value(WorkStatus.ASSIGNED, description="To be done.")


@strawberry.type(description="One piece of work as one student stands with it.")
class StudentAssignment:
    """Definition D, as of the moment of the answer."""

    assignment_id: strawberry.ID = strawberry.field(description="The key of the work.")
    classroom_id: strawberry.ID = strawberry.field(description="The key of the class.")
    assignment: Assignment | None = strawberry.field(
        description="The work itself; null when events name it and the roster does not know it."
    )
    status: AssignmentStatus = strawberry.field(description="Where it stands.")
    due_at: datetime | None = strawberry.field(
        description="When it is due for this student, which may differ from the class's date; null: no due date."
    )
    submitted_at: datetime | None = strawberry.field(
        description="When it was first handed in, taken or graded; null while it was not."
    )
    is_late: bool = strawberry.field(description="Whether it was first handed in after it was due.")
    score: float | None = strawberry.field(
        description="The score that counts, a fraction of full marks with 6 decimals; null while none does."
    )


async def student_work(
    context: Context,
    student: str,
    *,
    classroom: str | None,
    statuses: Sequence[AssignmentStatus] | None,
    first: int,
    after: str | None,
) -> Connection[StudentAssignment]:
    """A page of one student's work, loaded together with the same page of the answer's other students."""
    tenant = context.viewer.tenant
    ask = WorkAsk(
        now=context.now,
        classroom=classroom,
        statuses=None if statuses is None else tuple(sorted({status.name for status in statuses})),
        after=WORK_ORDER.read(after) or (BEFORE_ALL, "", ""),
        limit=limit_of(first),
    )

    async def load(students: list[str]) -> dict[str, list[WorkRow]]:
        async with tenant_transaction(context.pool, tenant, read_only=True) as connection:
            return await work_of_students(connection, tenant, students, ask)

    rows = await batched(context, ("work", ask), load).load(student) or []
    return page_of(rows, first=first, after=after, cursor_of=lambda row: WORK_ORDER.write(*row.place), node_of=_shown)


def _shown(row: WorkRow) -> StudentAssignment:
    return StudentAssignment(
        assignment_id=strawberry.ID(row.item),
        classroom_id=strawberry.ID(row.classroom),
        assignment=None if row.assignment is None else assignment_of(row.assignment),
        status=AssignmentStatus(row.status),
        due_at=row.due_at,
        submitted_at=row.submitted_at,
        is_late=row.is_late,
        score=None if row.counted is None else row.counted / 1_000_000,
    )
