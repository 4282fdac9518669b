"""Numbers made again from the log, or held against it: `recompute`, `verifyProjection` and the drift reports."""

from datetime import datetime
from typing import Annotated, Any

import strawberry

from db import background, drift
from db.background import Order
from db.drift import ReportRow
from db.pool import Connection as Postgres
from db.pool import tenant_transaction
from db.visibility import of_classrooms, of_students
from graph.access import allow
from graph.background import (
    ERRORS,
    Job,
    JobError,
    JobErrorCode,
    JobScope,
    ProjectionDifference,
    difference_of,
    fault,
    job_of,
)
from graph.changes import given
from graph.connections import Connection, Keyset, limit_of, page_of
from graph.request import Context, Info
from rules.access import Role, Scope, may_recompute, may_verify
from rules.fields import is_id

REPORT_ORDER = Keyset("drift-reports", (datetime, str))
IDEMPOTENCY = "A name for this order, 1 to 128 characters: sent again, it answers the job that it made the first time."
JOB = "The job, queued or already begun; null when there are errors."


@strawberry.input(description="Whose numbers to make again.")
class RecomputeInput:
    """One scope and its key."""

    scope: JobScope = strawberry.field(description="How much to recompute.")
    student_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="The key of the student; required for STUDENT, and only there."
    )
    classroom_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="The key of the class; required for CLASSROOM, and only there."
    )
    dry_run: bool = strawberry.field(
        default=False, description="Only compare: count what would change, and show the largest changes."
    )
    idempotency_key: str | None = strawberry.field(default=strawberry.UNSET, description=IDEMPOTENCY)


@strawberry.type(description="What came of ordering a recompute.")
class RecomputePayload:
    """A job to follow."""

    errors: list[JobError] = strawberry.field(description=ERRORS)
    job: Job | None = strawberry.field(description=JOB)


@strawberry.input(description="Which class to check.")
class VerifyProjectionInput:
    """One class."""

    classroom_id: strawberry.ID = strawberry.field(description="The key of the class.")
    idempotency_key: str | None = strawberry.field(default=strawberry.UNSET, description=IDEMPOTENCY)


@strawberry.type(description="What came of ordering a check.")
class VerifyProjectionPayload:
    """A job to follow; its report appears in `tenant { driftReports }`."""

    errors: list[JobError] = strawberry.field(description=ERRORS)
    job: Job | None = strawberry.field(description=JOB)


@strawberry.type(
    description="What one check of one class found: its numbers recomputed from the log, beside the stored."
)
class DriftReport:
    """One finished check."""

    classroom_id: strawberry.ID = strawberry.field(description="The key of the class.")
    at: datetime = strawberry.field(description="When the check ended.")
    compared: int = strawberry.field(description="Rows compared.")
    different: int = strawberry.field(description="Rows that are not what the log says; 0 is as it should be.")
    skipped: int = strawberry.field(
        description="Students and classes left out because something of theirs waited to be folded all the while."
    )
    first_cause: str | None = strawberry.field(
        description="The first differing row, in the order in which numbers are made from one another: its kind and "
        "keys. Null when nothing differs."
    )
    differences: list[ProjectionDifference] = strawberry.field(
        description="The differing rows with both values, the largest 50 at most."
    )


def _report_of(row: ReportRow) -> DriftReport:
    return DriftReport(
        classroom_id=strawberry.ID(row.classroom),
        at=row.at,
        compared=row.compared,
        different=row.different,
        skipped=row.skipped,
        first_cause=row.first_cause,
        differences=[difference_of(one) for one in row.differences],
    )


async def report_page(context: Context, *, first: int, after: str | None) -> Connection[DriftReport]:
    """The tenant's reports, the newest first."""
    tenant, limit, place = context.viewer.tenant, limit_of(first), REPORT_ORDER.read(after)
    async with tenant_transaction(context.pool, tenant, read_only=True) as connection:
        rows = await drift.page(connection, tenant, after=None if place is None else (place[0], place[1]), limit=limit)
    return page_of(
        rows,
        first=first,
        after=after,
        cursor_of=lambda row: REPORT_ORDER.write(row.at, row.key),
        node_of=_report_of,
    )


@strawberry.type
class RecomputeMutation:
    """Orders of checks and repairs."""

    @strawberry.field(
        description="Make numbers again from the log, in the background: what differs is saved as an ordinary change "
        "and pushed, everything else stays as it is. Live events go on meanwhile. Teachers for the classes and "
        "students they teach today; the whole tenant is for admins and machines. Follow it with `jobProgressed`."
    )
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.ROSTER)
    async def recompute(
        self,
        info: Info,
        input: Annotated[RecomputeInput, strawberry.argument(description="Whose numbers.")],
    ) -> RecomputePayload:
        """Queues a job."""
        order = Order(
            kind=background.JobKind.RECOMPUTE,
            scope=background.JobScope[input.scope.name],
            student=str(given(input.student_id) or ""),
            classroom=str(given(input.classroom_id) or ""),
            is_dry_run=input.dry_run,
            idempotency=given(input.idempotency_key),
        )
        errors, job = await _queued(info.context, order)
        return RecomputePayload(errors=errors, job=job)

    @strawberry.field(
        description="Hold the numbers of a class, and of its students, against the log. Changes nothing; what differs "
        "is told in `tenant { driftReports }`, and `recompute` mends it. Each night one class is checked by itself."
    )
    @allow(Role.TEACHER, Role.ADMIN)
    async def verify_projection(
        self,
        info: Info,
        input: Annotated[VerifyProjectionInput, strawberry.argument(description="The class.")],
    ) -> VerifyProjectionPayload:
        """Queues a job."""
        order = Order(
            kind=background.JobKind.VERIFY,
            scope=background.JobScope.CLASSROOM,
            classroom=str(input.classroom_id),
            idempotency=given(input.idempotency_key),
        )
        errors, job = await _queued(info.context, order)
        return VerifyProjectionPayload(errors=errors, job=job)


def _misfits(order: Order) -> list[JobError]:
    """What is wrong with an order in itself."""
    scope = order.scope
    keys = (("studentId", order.student, "STUDENT"), ("classroomId", order.classroom, "CLASSROOM"))
    found = []
    for field, key, wanted in keys:
        if scope.value == wanted and not key:
            found.append(fault(JobErrorCode.REQUIRED, field, f"expected a key with scope {scope}"))
        elif key and scope.value != wanted:
            found.append(fault(JobErrorCode.NOT_ALLOWED, field, f"expected no key with scope {scope}"))
        elif key and not is_id(key):
            found.append(fault(JobErrorCode.BAD_ID, field, "expected 1 to 128 characters, none of them control"))
    if order.idempotency is not None and not is_id(order.idempotency):
        message = "expected 1 to 128 characters, none of them control"
        found.append(fault(JobErrorCode.BAD_ID, "idempotencyKey", message))
    return found


async def _queued(context: Context, order: Order) -> tuple[list[JobError], Job | None]:
    """Queue an order that the viewer may give; or why not."""
    errors = _misfits(order)
    if errors:
        return errors, None
    tenant = context.viewer.tenant
    async with tenant_transaction(context.pool, tenant) as connection:
        refused = await _refusal(context, connection, order)
        if refused is not None:
            return [refused], None
        if await background.unfinished(connection, tenant) >= background.QUEUED_MAX:
            message = f"expected fewer than {background.QUEUED_MAX} unfinished jobs; try again once some have ended"
            return [fault(JobErrorCode.TOO_MANY, "scope", message)], None
        row = await background.enqueue(connection, tenant, order, requested_by=context.viewer.key, now=context.now)
    if not order.is_of(row):
        message = "expected the order that this key was first sent with"
        return [fault(JobErrorCode.KEY_REUSED, "idempotencyKey", message)], None
    return [], job_of(row)


async def _refusal(context: Context, connection: Postgres, order: Order) -> JobError | None:
    """What is another's and what is not there are refused alike."""
    viewer, scope = context.viewer, order.scope
    ties: dict[str, Any] = {}
    if scope is background.JobScope.CLASSROOM:
        field, keys = "classroomId", [order.classroom]
        ties = {
            key: tie.is_teacher
            for key, tie in (
                await of_classrooms(connection, viewer.tenant, keys, viewer=viewer.key, now=context.now)
            ).items()
        }
    elif scope is background.JobScope.STUDENT:
        field, keys = "studentId", [order.student]
        ties = {
            key: tie.is_taught
            for key, tie in (
                await of_students(connection, viewer.tenant, keys, viewer=viewer.key, now=context.now)
            ).items()
        }
    else:
        field, keys, ties = "scope", [""], {"": False}
    may = may_verify if order.kind is background.JobKind.VERIFY else may_recompute
    if all(key in ties and may(viewer, is_taught=ties[key]) for key in keys):
        return None
    return fault(JobErrorCode.FORBIDDEN, field, "expected one that you teach today, or the rights of an admin")
