"""Numbers made again from the log, or held against it: `recompute` and `verifyProjection`."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

import strawberry

from db import background
from db.background import Order
from db.policies import DIGEST_LIVES, dry_run_of, policy_of
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
    fault,
    job_of,
)
from graph.changes import given
from graph.policies import PolicyChangeInput, parts_of
from graph.request import Context, Info
from rules.access import Role, Scope, may_follow_job, may_recompute, may_update_policy, may_verify
from rules.fields import is_id
from rules.policy import DEFAULT_POLICY, with_parts
from rules.roster import check_policy

IDEMPOTENCY = "A name for this order, 1 to 128 characters: sent again, it answers the job that it made the first time."
KEY_REUSED = fault(JobErrorCode.KEY_REUSED, "idempotencyKey", "expected the order that this key was first sent with")
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
    policy_change: PolicyChangeInput | None = strawberry.field(
        default=strawberry.UNSET,
        description="With `dryRun`: compare with what the log says under this change of the policy, of the class, or "
        "of work over all classes for scope TENANT. For those who may change that policy.",
    )
    digest: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Without `dryRun`: make the change of policy that a dry run of the same scope showed, named by the "
        "`digest` of its outcome, which holds for an hour.",
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


@strawberry.type
class RecomputeMutation:
    """Orders of checks and repairs."""

    @strawberry.field(
        description="Make numbers again from the log, in the background: what differs is saved as an ordinary change "
        "and pushed, everything else stays as it is. Live events go on meanwhile. Teachers for the classes and "
        "students they teach today; the whole tenant is for admins and machines. Follow it with `jobProgressed`. "
        "A change of policy is shown by a dry run first, and then made with the digest of what was shown."
    )
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.ROSTER)
    async def recompute(
        self,
        info: Info,
        input: Annotated[RecomputeInput, strawberry.argument(description="Whose numbers.")],
    ) -> RecomputePayload:
        """Queues a job."""
        order = Order(
            kind=background.JobKind.RECOMPUTE if _change_of(input) is None else background.JobKind.POLICY,
            scope=background.JobScope[input.scope.name],
            student=str(given(input.student_id) or ""),
            classroom=str(given(input.classroom_id) or ""),
            is_dry_run=input.dry_run,
            change=_change_of(input),
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


def _change_of(input: RecomputeInput) -> dict[str, Any] | None:
    """What is to become of a policy; a digest decides, as it is refused beside other parts."""
    parts, digest = given(input.policy_change), given(input.digest)
    change: dict[str, Any] = {} if parts is None else {"parts": parts_of(parts)}
    return (change if digest is None else change | {"digest": digest}) or None


def _misfits_of_change(order: Order, change: dict[str, Any]) -> Iterator[JobError]:
    parts, digest = change.get("parts"), change.get("digest")
    if order.scope is background.JobScope.STUDENT:
        field = "policyChange" if digest is None else "digest"
        yield fault(JobErrorCode.NOT_ALLOWED, field, "expected scope CLASSROOM or TENANT: students have no policy")
    if digest is not None and (order.is_dry_run or parts is not None):
        message = "expected without dryRun and policyChange: it names what a dry run showed"
        yield fault(JobErrorCode.NOT_ALLOWED, "digest", message)
    elif digest is None and not order.is_dry_run:
        message = "expected with dryRun; send the digest of its outcome to make the change"
        yield fault(JobErrorCode.NOT_ALLOWED, "policyChange", message)
    elif parts is not None and not parts:
        yield fault(JobErrorCode.REQUIRED, "policyChange", "expected at least one part to change")
    for one in check_policy(with_parts(DEFAULT_POLICY, parts or {})):
        yield JobError(code=JobErrorCode.OUT_OF_RANGE, field=["policyChange", *one.field], message=one.message)


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
    if order.change is not None:
        found += _misfits_of_change(order, order.change)
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
        row = await background.asked_before(connection, tenant, order, requested_by=context.viewer.key)
        if row is not None:
            return ([], job_of(row)) if order.is_of(row) else ([KEY_REUSED], None)
        if order.change and "digest" in order.change:
            found = await _as_shown(context, connection, order)
            if isinstance(found, JobError):
                return [found], None
            order = found
        if await background.unfinished(connection, tenant) >= background.QUEUED_MAX:
            message = f"expected fewer than {background.QUEUED_MAX} unfinished jobs; try again once some have ended"
            return [fault(JobErrorCode.TOO_MANY, "scope", message)], None
        row = await background.enqueue(connection, tenant, order, requested_by=context.viewer.key, now=context.now)
    return ([], job_of(row)) if order.is_of(row) else ([KEY_REUSED], None)


async def _as_shown(context: Context, connection: Postgres, order: Order) -> Order | JobError:
    """The order with all that its digest stands for, or why it does not hold."""
    assert order.change is not None, "expected an order with a digest"
    tenant, digest = context.viewer.tenant, order.change["digest"]
    key = dry_run_of(digest)
    job = (await background.of_keys(connection, tenant, [key])).get(key) if is_id(key) else None
    result = job and job.result
    if (
        job is None
        or not result
        or result.get("digest") != digest
        or not may_follow_job(context.viewer, job.requested_by)
        or (job.scope, job.classroom) != (order.scope, order.classroom)
        or job.finished_at is None
        or context.now - job.finished_at > DIGEST_LIVES
    ):
        message = "expected the digest of a dry run of yours, of this scope and key, that ended within the hour"
        return fault(JobErrorCode.UNKNOWN_DIGEST, "digest", message)
    assert job.change is not None, "expected a dry run of a change of policy"
    if (await policy_of(connection, tenant, order.classroom)).version != result["base"]:
        message = "expected the policy to be as it was at the dry run; show the change again"
        return fault(JobErrorCode.POLICY_MOVED, "digest", message)
    shown = {name: result[name] for name in ("base", "as_of", "counts")}
    return replace(order, change={"digest": digest, "parts": job.change["parts"], **shown})


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
    if not all(key in ties and may(viewer, is_taught=ties[key]) for key in keys):
        return fault(JobErrorCode.FORBIDDEN, field, "expected one that you teach today, or the rights of an admin")
    if order.change is not None and not may_update_policy(viewer, is_taught=ties[keys[0]]):
        field = "digest" if "digest" in order.change else "policyChange"
        return fault(JobErrorCode.FORBIDDEN, field, "expected one who may change this policy")
    return None
