"""The policies of classes as they are changed: each change is one more version, none is ever rewritten."""

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec

from db.facts import policies
from db.outbox import Touch, Waiting
from db.pool import Connection
from db.roster import UNCHANGED, Change, classroom_of, unknown
from rules.policy import Policy

TENANT_DEFAULT = ""  # the policy of a student's work over all classes
DIGEST_LIVES = timedelta(hours=1)
COUNTED_MAX = 10_000  # events since a dry run: more of them say no more

SAVE_POLICY = """
insert into classroom_policy (
    tenant, classroom, version, model, recent_percent, success_threshold, mastery_threshold, min_evidence,
    inactivity_days, extra_credit, created_at, created_by)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""


async def policy_of(connection: Connection, tenant: int, classroom: str) -> Policy:
    """The newest policy of a class, or of work over all classes when `classroom` is ""."""
    return (await policies(connection, tenant, [classroom]))[classroom]


async def save_policy(
    connection: Connection, tenant: int, classroom: str, policy: Policy, *, created_by: str, now: datetime
) -> Change:
    """Keep a policy as the next version, whatever version it names; one that changes nothing is none."""
    if classroom != TENANT_DEFAULT and await classroom_of(connection, tenant, classroom) is None:
        return unknown("classroomId")
    before = await policy_of(connection, tenant, classroom)
    after = replace(policy, version=before.version)
    if after == before:
        return UNCHANGED
    await connection.execute(
        SAVE_POLICY,
        tenant,
        classroom,
        before.version + 1,
        policy.model.value,
        policy.recent_percent,
        policy.success_threshold,
        policy.mastery_threshold,
        policy.min_evidence,
        policy.inactivity_days,
        policy.extra_credit,
        now,
        created_by,
    )
    # Inactivity alone moves no score, yet each number names the version that produced it: all are folded again.
    return Change(touches=(Touch(Waiting.REFOLD_CLASSROOM, classroom=classroom),))


# ---------------------------------------------------------------- a change that was shown first


def digest_of(job: str, shown: dict[str, Any]) -> str:
    """The name of what a dry run showed: it begins with the job, and is another one for any other content."""
    content = msgspec.json.encode(shown, order="deterministic")
    return f"{job}.{hashlib.sha256(job.encode() + content).hexdigest()[:32]}"


def dry_run_of(digest: str) -> str:
    """The job that a digest names, if it is one."""
    return digest.rpartition(".")[0]


EVENTS_SINCE = """
select count(*) from (select from event e where e.tenant = $1 and e.seq > $2 limit $3) s
"""
EVENTS_OF_CLASSROOM_SINCE = """
select count(*) from (
    select from event e where e.tenant = $1 and e.classroom = $4 and e.seq > $2 limit $3
) s
"""


async def events_since(connection: Connection, tenant: int, classroom: str, *, after: int) -> int:
    """How many events the log of a class, or of the tenant, has behind a position; counted up to 10,000."""
    if classroom == TENANT_DEFAULT:
        count: int = await connection.fetchval(EVENTS_SINCE, tenant, after, COUNTED_MAX)
    else:
        count = await connection.fetchval(EVENTS_OF_CLASSROOM_SINCE, tenant, after, COUNTED_MAX, classroom)
    return count
