"""A change of policy: what it would move is shown first, and then it is made exactly as it was shown (X-23)."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from db import policies, roster
from db.background import Job
from db.pool import Connection
from rules.policy import Policy, with_parts


class PolicyMoved(Exception):
    """Somebody changed the policy after the dry run: what was shown is not what would come."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The policy that holds, as it will be, and where the log was when that was settled."""

    base: int  # the version that the change is made to
    policy: dict[str, Any]
    as_of: int

    @property
    def assumed(self) -> Policy:
        """The policy to compare with: its version is no difference."""
        return with_parts(Policy(), self.policy | {"version": self.base})


async def planned(connection: Connection, tenant: int, job: Job) -> Plan:
    """Settle what a job is about, in its first transaction. Raises PolicyMoved when it is to make what was shown."""
    assert job.change is not None, "expected a job with a change of policy"
    before = await policies.policy_of(connection, tenant, job.classroom)
    if job.change.get("base", before.version) != before.version:
        raise PolicyMoved
    policy = with_parts(before, job.change["parts"])
    return Plan(before.version, asdict(policy), await roster.position(connection, tenant))


async def made(connection: Connection, tenant: int, job: Job, plan: Plan, *, now: datetime) -> tuple[int, set[int]]:
    """Save the policy and name it to the fold, in the transaction of the checkpoint.

    Returns the position of the change and the shards where the fold has work: none, when nothing had to be changed.
    Raises PolicyMoved.
    """
    await roster.lock(connection, tenant)
    before = await policies.policy_of(connection, tenant, job.classroom)
    if before.version != plan.base:
        raise PolicyMoved
    change = await policies.save_policy(
        connection, tenant, job.classroom, plan.assumed, created_by=job.requested_by, now=now
    )
    if change.faults:  # the class is gone
        raise PolicyMoved
    return await roster.settle(connection, tenant, change, recorded_by=job.requested_by, now=now), change.shards


async def told(connection: Connection, tenant: int, job: Job, plan: Plan, result: dict[str, Any]) -> dict[str, Any]:
    """What the outcome says of the change: its digest, or how what was made differs from what was shown."""
    assert job.change is not None, "expected a job with a change of policy"
    said = {"as_of": plan.as_of, "base": plan.base, "policy": plan.policy}
    if job.is_dry_run:
        return said | {"digest": policies.digest_of(job.key, result | said | {"scope": job.scope, "of": job.classroom})}
    shown = job.change["counts"]
    events = await policies.events_since(connection, tenant, job.classroom, after=job.change["as_of"])
    return said | {
        "since": {"events": events, **{name: was - shown.get(name, 0) for name, was in result["counts"].items()}}
    }
