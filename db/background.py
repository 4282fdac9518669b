"""Work that takes long, as Postgres keeps it: queued, done by one worker at a time, resumed where it was left."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import asyncpg
import msgspec

from db.pool import Connection, Pool, lent
from rules.kinds import FOLD_LEVEL

QUEUED_MAX = 100  # unfinished jobs of one tenant


class JobKind(StrEnum):
    """What is done."""

    RECOMPUTE = "RECOMPUTE"
    VERIFY = "VERIFY"
    POLICY = "POLICY"  # of its own kind, so that a worker of an older release leaves it alone


class JobState(StrEnum):
    """How far it is."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class JobScope(StrEnum):
    """For whom it is done."""

    STUDENT = "STUDENT"
    CLASSROOM = "CLASSROOM"
    TENANT = "TENANT"


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the table."""

    key: str
    kind: JobKind
    scope: JobScope
    student: str
    classroom: str
    is_dry_run: bool
    change: dict[str, Any] | None
    state: JobState
    done: int
    total: int | None  # not known before it starts
    checkpoint: dict[str, Any]
    result: dict[str, Any] | None
    error: str | None  # the kind of error, never its text
    requested_by: str
    change_no: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked for."""

    kind: JobKind
    scope: JobScope
    student: str = ""
    classroom: str = ""
    is_dry_run: bool = False
    change: dict[str, Any] | None = (
        None  # of a policy: its new `parts`, or the `digest` of the dry run that showed them
    )
    idempotency: str | None = None

    def is_of(self, job: Job) -> bool:
        """Whether the job was made by this very order."""
        asked = (self.kind, self.scope, self.student, self.classroom, self.is_dry_run, _sent(self.change))
        return asked == (job.kind, job.scope, job.student, job.classroom, job.is_dry_run, _sent(job.change))


def _sent(change: dict[str, Any] | None) -> Any:
    """What a client said of a change; the rest was found out."""
    return change and (change.get("digest") or change["parts"])


class Abandoned(Exception):
    """The job is another worker's by now, or over."""


_COLUMNS = """job as key, kind, scope, student, classroom, is_dry_run, change, state, done, total, checkpoint, result,
    error, requested_by, change_no, created_at, started_at, finished_at"""

UNFINISHED = "select count(*) from job where tenant = $1 and state in ('QUEUED', 'RUNNING')"

ENQUEUE = f"""
insert into job (
    tenant, job, kind, scope, student, classroom, is_dry_run, change, state, requested_by, idempotency, created_at)
values ($1, uuidv7()::text, $2, $3, $4, $5, $6, $7, 'QUEUED', $8, $9, $10)
on conflict (tenant, requested_by, idempotency) do nothing
returning {_COLUMNS}
"""  # noqa: S608 - constants of ours

ASKED_BEFORE = f"""
select {_COLUMNS} from job where tenant = $1 and requested_by = $2 and idempotency = $3
"""  # noqa: S608 - constants of ours

OF_KEYS = f"select {_COLUMNS} from job where tenant = $1 and job = any($2::text[]) and kind = any($3::text[])"  # noqa: S608 - constants of ours

# Row by row behind the cursor, the newest first.
PAGE = f"""
select {_COLUMNS} from job
where tenant = $1 and ($2::text is null or requested_by = $2) and kind = any($6::text[])
    and (created_at, job) < (coalesce($3, 'infinity'::timestamptz), $4::text)
order by created_at desc, job desc limit $5
"""  # noqa: S608 - constants of ours

CLAIM = f"""
update job set state = 'RUNNING', runner = $3, beat_at = $4, started_at = coalesce(started_at, $4),
    change_no = change_no + 1
where tenant = $1 and job = (
    select j.job from job j
    where j.tenant = $1 and j.job = $2
        and (j.state = 'QUEUED' or (j.state = 'RUNNING' and j.beat_at < $5))
        and j.kind = any($6::text[])
        and (select t.fold_level from tenant t where t.tenant = $1) <= $7
    for update skip locked
)
returning {_COLUMNS}
"""  # noqa: S608 - constants of ours

ADVANCE = """
update job set done = $4, total = $5, checkpoint = $6, beat_at = $7, change_no = change_no + 1
where tenant = $1 and job = $2 and runner = $3 and state = 'RUNNING'
returning is_cancelled
"""

BEAT = """
update job set beat_at = $4 where tenant = $1 and job = $2 and runner = $3 and state = 'RUNNING'
returning is_cancelled
"""

FINISH = """
update job set state = $4, result = $5, error = $6, finished_at = $7, runner = null, beat_at = null,
    done = case when $4 = 'DONE' then coalesce(total, done) else done end, change_no = change_no + 1
where tenant = $1 and job = $2 and runner = $3 and state = 'RUNNING'
returning job
"""

GIVE_BACK = """
update job set state = 'QUEUED', runner = null, beat_at = null, change_no = change_no + 1
where tenant = $1 and job = $2 and runner = $3 and state = 'RUNNING'
"""

CANCEL = f"""
update job set is_cancelled = true, change_no = change_no + 1,
    state = case state when 'QUEUED' then 'CANCELLED' else state end,
    finished_at = case state when 'QUEUED' then $3 else finished_at end
where tenant = $1 and job = $2 and state in ('QUEUED', 'RUNNING')
returning {_COLUMNS}
"""  # noqa: S608 - constants of ours


_KNOWN = [kind.value for kind in JobKind]


def _job_of(row: asyncpg.Record) -> Job:
    columns = dict(row)
    return Job(
        **{
            **columns,
            "kind": JobKind(columns["kind"]),
            "scope": JobScope(columns["scope"]),
            "state": JobState(columns["state"]),
            "change": _value(columns["change"]),
            "checkpoint": msgspec.json.decode(columns["checkpoint"]),
            "result": _value(columns["result"]),
        }
    )


def _value(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


async def unfinished(connection: Connection, tenant: int) -> int:
    """How many jobs of the tenant are queued or running."""
    count: int = await connection.fetchval(UNFINISHED, tenant)
    return count


async def enqueue(connection: Connection, tenant: int, order: Order, *, requested_by: str, now: datetime) -> Job:
    """Queue a job; the same person's earlier job of the same idempotency key is returned instead, whatever it does."""
    row = await connection.fetchrow(
        ENQUEUE,
        tenant,
        order.kind.value,
        order.scope.value,
        order.student,
        order.classroom,
        order.is_dry_run,
        _json(order.change),
        requested_by,
        order.idempotency,
        now,
    )
    job = _job_of(row) if row else await asked_before(connection, tenant, order, requested_by=requested_by)
    assert job is not None, "expected a new job, or the one that was asked for before"
    return job


async def asked_before(connection: Connection, tenant: int, order: Order, *, requested_by: str) -> Job | None:
    """The job that this person made under the order's idempotency key, whatever it does; None without such a key."""
    if order.idempotency is None:
        return None
    row = await connection.fetchrow(ASKED_BEFORE, tenant, requested_by, order.idempotency)
    return _job_of(row) if row else None


async def of_keys(connection: Connection, tenant: int, keys: Sequence[str]) -> dict[str, Job]:
    """Those of these jobs that there are."""
    return {row["key"]: _job_of(row) for row in await connection.fetch(OF_KEYS, tenant, list(keys), _KNOWN)}


async def page(
    connection: Connection, tenant: int, *, requested_by: str | None, after: tuple[datetime, str] | None, limit: int
) -> list[Job]:
    """The jobs of the tenant, or of one person, the newest first."""
    return [
        _job_of(row)
        for row in await connection.fetch(PAGE, tenant, requested_by, *(after or (None, "")), limit, _KNOWN)
    ]


async def claim(
    connection: Connection, tenant: int, key: str, *, runner: str, now: datetime, stale_before: datetime
) -> Job | None:
    """Take a job that is queued, or whose worker has not shown itself since; None when it is somebody else's.

    A job that our release does not know, or of a tenant that a newer one folds, is a newer worker's (X-38).
    """
    row = await connection.fetchrow(CLAIM, tenant, key, runner, now, stale_before, _KNOWN, FOLD_LEVEL)
    return _job_of(row) if row else None


async def advance(
    connection: Connection,
    tenant: int,
    key: str,
    *,
    runner: str,
    done: int,
    total: int,
    checkpoint: dict[str, Any],
    now: datetime,
) -> bool:
    """Store how far the job is, in the transaction of what was done; returns whether to stop. Raises Abandoned."""
    row = await connection.fetchrow(ADVANCE, tenant, key, runner, done, total, _json(checkpoint), now)
    return _is_cancelled(row)


async def beat(connection: Connection, tenant: int, key: str, *, runner: str, now: datetime) -> bool:
    """Show that the job is being worked on; returns whether to stop. Raises Abandoned."""
    return _is_cancelled(await connection.fetchrow(BEAT, tenant, key, runner, now))


def _is_cancelled(row: asyncpg.Record | None) -> bool:
    if row is None:
        raise Abandoned
    is_cancelled: bool = row["is_cancelled"]
    return is_cancelled


async def finish(
    connection: Connection,
    tenant: int,
    key: str,
    *,
    runner: str,
    state: JobState,
    now: datetime,
    result: dict[str, Any] | None = None,
    error: str | None = None,
) -> None:
    """End the job. Raises Abandoned."""
    if await connection.fetchval(FINISH, tenant, key, runner, state.value, _json(result), error, now) is None:
        raise Abandoned


async def give_back(connection: Connection, tenant: int, key: str, *, runner: str) -> None:
    """Put the job back as it stands, for another worker: this one is told to stop."""
    await connection.execute(GIVE_BACK, tenant, key, runner)


async def cancel(connection: Connection, tenant: int, key: str, *, now: datetime) -> Job | None:
    """Ask an unfinished job to stop; one that is queued is over at once. None for one that is over or unknown."""
    row = await connection.fetchrow(CANCEL, tenant, key, now)
    return _job_of(row) if row else None


# ---------------------------------------------------------------- across tenants

WAITING = "select tenant, job from waiting_jobs($1, $2)"
UNSAMPLED = "select tenant, classroom from unsampled_tenants($1, $2)"


async def waiting(pool: Pool, *, stale_before: datetime, at_most: int) -> list[tuple[int, str]]:
    """Every (tenant, job) that nobody works on, the oldest first."""
    async with lent(pool) as connection:
        return [(row["tenant"], row["job"]) for row in await connection.fetch(WAITING, stale_before, at_most)]


async def unsampled(pool: Pool, *, night: str, at_most: int) -> list[tuple[int, str]]:
    """One (tenant, class) for each tenant that was not checked this night: the day and the class's name decide."""
    async with lent(pool) as connection:
        return [(row["tenant"], row["classroom"]) for row in await connection.fetch(UNSAMPLED, night, at_most)]
