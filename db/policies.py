"""The policies of classes as they are changed: each change is one more version, none is ever rewritten."""

from dataclasses import replace
from datetime import datetime

from db.facts import policies
from db.outbox import Touch, Waiting
from db.pool import Connection
from db.roster import UNCHANGED, Change, classroom_of, unknown
from rules.policy import Policy

TENANT_DEFAULT = ""  # the policy of a student's work over all classes

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
