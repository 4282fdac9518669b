"""Work that takes long, as clients follow it: jobs with their progress and outcome, and how one is stopped."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Annotated, Any

import strawberry

from db import background
from db.background import Job as JobRow
from db.freshness import Freshness
from db.live import Moved
from db.pool import tenant_transaction
from graph.access import ANY_SCOPE, PEOPLE, allow
from graph.classwork import ClassroomPolicy, policy_shown
from graph.connections import Connection, Keyset, limit_of, page_of
from graph.nodes import Node, global_id, register
from graph.request import Context, Info
from graph.scalars import Seq
from rules.access import may_follow_job, may_see_all_jobs, may_see_flags
from rules.policy import DEFAULT_POLICY, with_parts

JOB_ORDER = Keyset("jobs", (datetime, str))
COUNTS = ("scores_moved", "levels_changed", "mastery_gained", "mastery_lost", "flags_raised", "flags_cleared")
ERRORS = "What is wrong; then nothing was done. Empty otherwise."


@strawberry.enum(description="What a job does.")
class JobKind(Enum):
    """The kinds of `db.background.JobKind`, described."""

    RECOMPUTE = strawberry.enum_value("RECOMPUTE", description="Makes numbers again from the log.")
    VERIFY = strawberry.enum_value("VERIFY", description="Holds the numbers of a class against the log.")
    POLICY = strawberry.enum_value("POLICY", description="Shows what a change of policy would move, or makes it.")


@strawberry.enum(description="For whom a job is done.")
class JobScope(Enum):
    """The scopes of `db.background.JobScope`, described."""

    STUDENT = strawberry.enum_value("STUDENT", description="One student, in every class.")
    CLASSROOM = strawberry.enum_value("CLASSROOM", description="One class and its students.")
    TENANT = strawberry.enum_value("TENANT", description="Everybody.")


@strawberry.enum(description="How far a job is.")
class JobState(Enum):
    """The states of `db.background.JobState`, described."""

    QUEUED = strawberry.enum_value("QUEUED", description="Nobody works on it yet.")
    RUNNING = strawberry.enum_value(
        "RUNNING", description="A worker has it; if that one dies, another goes on with it."
    )
    DONE = strawberry.enum_value("DONE", description="Finished.")
    FAILED = strawberry.enum_value("FAILED", description="Ended by an error; what it had done holds.")
    CANCELLED = strawberry.enum_value("CANCELLED", description="Stopped by somebody; what it had done holds.")


@strawberry.enum(description="Which kind of row differs.")
class ProjectionTable(Enum):
    """The tables of `jobs.shadow`, described, causes before what follows from them."""

    WORK = strawberry.enum_value("WORK", description="One item as one student did it in one class.")
    STANDING = strawberry.enum_value("STANDING", description="A student's mastery of, and progress on, one concept.")
    VIEW = strawberry.enum_value("VIEW", description="A student's counters in one class, or over all classes.")
    RISK_FLAG = strawberry.enum_value("RISK_FLAG", description="A raised risk flag.")
    DAILY_INDEX = strawberry.enum_value(
        "DAILY_INDEX", description="A student's mastery index at the end of one day of the tenant."
    )
    CLASSROOM = strawberry.enum_value("CLASSROOM", description="The rates of a class.")


@strawberry.type(description="One stored row that is not what the log says.")
class ProjectionDifference:
    """Both values."""

    table: ProjectionTable = strawberry.field(description="The kind of row.")
    student_id: strawberry.ID | None = strawberry.field(description="The key of its student; null for a class's rates.")
    classroom_id: strawberry.ID | None = strawberry.field(
        description="The key of its class; null for the view over all classes."
    )
    name: str | None = strawberry.field(
        description="The concept, the item of work or the reason of the flag; null where there is none."
    )
    stored: str | None = strawberry.field(description="What is stored, as JSON; null where there is no row.")
    rebuilt: str | None = strawberry.field(description="What the log says, as JSON; null where no row should be.")


@strawberry.type(
    description="How a change of policy, as it was made, differs from what its dry run showed: what later events did. "
    "Each number is the one made minus the one shown."
)
class SinceDryRun:
    """Differences of counts."""

    events: int = strawberry.field(description="Events recorded since the dry run, 10,000 at most are counted.")
    scores_moved: int = strawberry.field(description="Standings whose score moved.")
    levels_changed: int = strawberry.field(description="Daily snapshots whose level changed.")
    mastery_gained: int = strawberry.field(description="Standings that became mastered.")
    mastery_lost: int = strawberry.field(description="Standings that are no longer mastered.")
    flags_raised: int = strawberry.field(description="Risk flags raised.")
    flags_cleared: int = strawberry.field(description="Risk flags cleared.")


@strawberry.type(description="What a comparison found: what saving the recomputed numbers would move, or has to mend.")
class JobOutcome:
    """Counted, with examples."""

    compared: int = strawberry.field(description="Rows compared.")
    different: int = strawberry.field(description="Rows that are not what the log says.")
    skipped: int = strawberry.field(
        description="Students and classes left out because something of theirs waited to be folded all the while."
    )
    scores_moved: int = strawberry.field(description="Standings whose score differs.")
    levels_changed: int = strawberry.field(description="Daily snapshots of the mastery index whose level differs.")
    mastery_gained: int = strawberry.field(description="Standings that are mastered by the log only.")
    mastery_lost: int = strawberry.field(description="Standings that are mastered by what is stored only.")
    flags_raised: int = strawberry.field(description="Risk flags that the log raises and are not stored.")
    flags_cleared: int = strawberry.field(description="Risk flags that are stored and the log does not raise.")
    policy: ClassroomPolicy | None = strawberry.field(
        description="The policy that was compared with, or made, under the version it gets; null without a change of "
        "policy."
    )
    as_of: Seq | None = strawberry.field(
        description="The position of the log that the comparison began at: what came later may be in it or not. Of a "
        "change that was made, the position of the change. Null without a change of policy."
    )
    digest: str | None = strawberry.field(
        description="The name of what a dry run of a policy change showed; `recompute` with it makes that change, "
        "within an hour of the job's end. Null for any other job."
    )
    since: SinceDryRun | None = strawberry.field(
        description="Of a change that was made: what later events changed since its dry run. Null for any other job."
    )
    details: strawberry.Private[Sequence[dict[str, Any]]]

    @strawberry.field(
        description="The largest differences, 50 of each kind of row at most; causes before what follows from them, "
        "the widest of a kind first. Null for a machine that may not read."
    )
    def differences(self, info: Info) -> list[ProjectionDifference] | None:
        """They hold students' numbers: who may only order the work does not see them."""
        if not may_see_flags(info.context.viewer, is_taught=True):
            return None
        return [difference_of(one) for one in self.details]


@strawberry.type(description="Work that takes long, done in the background by one worker at a time.")
class Job(Node):
    """One row; who may not follow it never gets it."""

    key: strawberry.ID = strawberry.field(description="The job's key, as arguments take it.")
    kind: JobKind = strawberry.field(description="What it does.")
    scope: JobScope = strawberry.field(description="For whom.")
    student_id: strawberry.ID | None = strawberry.field(description="The key of the student, for scope STUDENT.")
    classroom_id: strawberry.ID | None = strawberry.field(description="The key of the class, for scope CLASSROOM.")
    dry_run: bool = strawberry.field(description="Whether it only compares and saves nothing.")
    state: JobState = strawberry.field(description="How far it is.")
    done: int = strawberry.field(description="How many students and classes are done.")
    total: int | None = strawberry.field(description="How many there are to do; null before it starts.")
    error: str | None = strawberry.field(description="The kind of error it failed with; null otherwise.")
    requested_by: str = strawberry.field(
        description="The key of whoever asked for it; `sightline` for the nightly samples."
    )
    created_at: datetime = strawberry.field(description="When it was asked for.")
    started_at: datetime | None = strawberry.field(description="When a worker first took it; null before.")
    finished_at: datetime | None = strawberry.field(description="When it ended; null before.")
    outcome: JobOutcome | None = strawberry.field(
        description="What a dry run or a check found, or what a change of policy moved; null before its end, and for a "
        "job that makes numbers again."
    )


def difference_of(kept: dict[str, Any]) -> ProjectionDifference:
    """A kept difference, its key taken apart."""
    table = ProjectionTable(kept["table"])
    key: list[str | None] = [*kept["key"], None, None]
    student, classroom, name = key[:3]
    if table is ProjectionTable.RISK_FLAG:
        classroom, student = student, classroom
    elif table is ProjectionTable.CLASSROOM:
        student, classroom = None, student
    elif table is ProjectionTable.DAILY_INDEX:
        classroom, name = None, classroom
    return ProjectionDifference(
        table=table,
        student_id=_id(student),
        classroom_id=_id(classroom),
        name=name,
        stored=kept["stored"],
        rebuilt=kept["rebuilt"],
    )


def _id(key: str | None) -> strawberry.ID | None:
    return strawberry.ID(key) if key else None


def job_of(row: JobRow) -> Job:
    """A job as clients read it."""
    return Job(
        id=global_id("Job", row.key),
        key=strawberry.ID(row.key),
        kind=JobKind(row.kind.value),
        scope=JobScope(row.scope.value),
        student_id=_id(row.student),
        classroom_id=_id(row.classroom),
        dry_run=row.is_dry_run,
        state=JobState(row.state.value),
        done=row.done,
        total=row.total,
        error=row.error,
        requested_by=row.requested_by,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        outcome=_outcome_of(row.result),
    )


def _outcome_of(result: dict[str, Any] | None) -> JobOutcome | None:
    if result is None or "counts" not in result:
        return None
    sums = {name: result[name] for name in ("compared", "different", "skipped")}
    # Words of a newer release are left out, those that an earlier one did not know are 0.
    counts = {name: result["counts"].get(name, result.get(name, 0)) for name in COUNTS}
    since, policy = result.get("since"), result.get("policy")
    return JobOutcome(
        **sums,
        **counts,
        policy=policy and policy_shown(with_parts(DEFAULT_POLICY, policy | {"version": result["base"] + 1})),
        as_of=result.get("as_of"),
        digest=result.get("digest"),
        since=SinceDryRun(**{name: since.get(name, 0) for name in ("events", *COUNTS)}) if since else None,
        details=result["differences"],
    )


async def job_page(context: Context, *, first: int, after: str | None) -> Connection[Job]:
    """The jobs of the tenant for admins, one's own for others; the newest first."""
    viewer, limit, place = context.viewer, limit_of(first), JOB_ORDER.read(after)
    own = None if may_see_all_jobs(viewer) else viewer.key
    async with tenant_transaction(context.pool, viewer.tenant, read_only=True) as connection:
        rows = await background.page(connection, viewer.tenant, requested_by=own, after=_place(place), limit=limit)
    return page_of(
        rows,
        first=first,
        after=after,
        cursor_of=lambda row: JOB_ORDER.write(row.created_at, row.key),
        node_of=job_of,
    )


def _place(place: tuple[Any, ...] | None) -> tuple[datetime, str] | None:
    return None if place is None else (place[0], place[1])


async def jobs_of(context: Context, keys: Sequence[str]) -> dict[str, JobRow]:
    """Those of these jobs that the viewer may follow."""
    viewer = context.viewer
    async with tenant_transaction(context.pool, viewer.tenant, read_only=True) as connection:
        found = await background.of_keys(connection, viewer.tenant, keys)
    return {key: row for key, row in found.items() if may_follow_job(viewer, row.requested_by)}


async def _job_nodes(context: Context, keys: Sequence[str], point: Freshness) -> Mapping[str, Node]:
    return {key: job_of(row) for key, row in (await jobs_of(context, keys)).items()}


register("Job", _job_nodes)


@strawberry.enum(description="Why a job was not queued or not stopped.")
class JobErrorCode(Enum):
    """What may be wrong with an order."""

    REQUIRED = strawberry.enum_value("REQUIRED", description="The scope needs a key that was not sent.")
    NOT_ALLOWED = strawberry.enum_value("NOT_ALLOWED", description="A key was sent that the scope does not take.")
    FORBIDDEN = strawberry.enum_value(
        "FORBIDDEN", description="There is no such student, class or job that you may do this with."
    )
    KEY_REUSED = strawberry.enum_value("KEY_REUSED", description="The `idempotencyKey` was sent with another order.")
    BAD_ID = strawberry.enum_value("BAD_ID", description="A key is empty, too long, or holds a control character.")
    TOO_MANY = strawberry.enum_value("TOO_MANY", description="100 jobs of the tenant are not finished yet.")
    OUT_OF_RANGE = strawberry.enum_value("OUT_OF_RANGE", description="A part of the policy is outside its bounds.")
    UNKNOWN_DIGEST = strawberry.enum_value(
        "UNKNOWN_DIGEST",
        description="There is no dry run of yours, of this scope and key, with this digest that ended within the hour.",
    )
    POLICY_MOVED = strawberry.enum_value(
        "POLICY_MOVED", description="The policy was changed after the dry run; show the change again."
    )
    OVER = strawberry.enum_value("OVER", description="The job has ended already.")


@strawberry.type(description="One thing that is wrong with an order; nothing was done.")
class JobError:
    """An expected refusal, as data."""

    code: JobErrorCode = strawberry.field(description="What is wrong, for programs.")
    field: list[str] | None = strawberry.field(description="The path of the input field at fault.")
    message: str = strawberry.field(description="What was expected and what came, for people.")


def fault(code: JobErrorCode, field: str, message: str) -> JobError:
    """One error at one field."""
    return JobError(code=code, field=[field], message=message)


@strawberry.input(description="Which job to stop.")
class CancelJobInput:
    """One key."""

    job_id: strawberry.ID = strawberry.field(description="The key of the job.")


@strawberry.type(description="What came of stopping a job.")
class CancelJobPayload:
    """The job, which ends within moments."""

    errors: list[JobError] = strawberry.field(description=ERRORS)
    job: Job | None = strawberry.field(description="The job as it stands now; null when there are errors.")


@strawberry.type
class BackgroundMutation:
    """What is told to jobs."""

    @strawberry.field(
        description="Stop a job that is queued or running, your own, or any as an admin. What it has done so far holds."
    )
    @allow(*PEOPLE, scope=ANY_SCOPE)
    async def cancel_job(
        self,
        info: Info,
        input: Annotated[CancelJobInput, strawberry.argument(description="The job.")],
    ) -> CancelJobPayload:
        """A running one sees it at its next step."""
        context, key = info.context, str(input.job_id)
        is_key = bool(key) and "\0" not in key
        if not is_key or key not in await jobs_of(context, [key]):
            message = "expected a job that you asked for"
            return CancelJobPayload(errors=[fault(JobErrorCode.FORBIDDEN, "jobId", message)], job=None)
        async with tenant_transaction(context.pool, context.viewer.tenant) as connection:
            row = await background.cancel(connection, context.viewer.tenant, key, now=context.now)
        if row is None:
            message = "expected a job that is queued or running"
            return CancelJobPayload(errors=[fault(JobErrorCode.OVER, "jobId", message)], job=None)
        context.engine.live.announce(Moved(tenant=context.viewer.tenant, jobs=frozenset({key})))
        return CancelJobPayload(errors=[], job=job_of(row))
