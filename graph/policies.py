"""How a class's numbers are made, as its teachers choose it: bounded, versioned, never rewritten."""

from typing import Annotated, Any

import strawberry

from db.policies import TENANT_DEFAULT, policy_of, save_policy
from db.pool import Connection
from db.roster import Change
from graph.access import allow
from graph.changes import FORBIDDEN, RosterError, given, is_taught, write
from graph.classwork import ClassroomPolicy, policy_shown
from graph.request import Info
from graph.roster import ERRORS, SEQ
from graph.scalars import Seq
from graph.standings import MasteryModel
from rules.access import Role, may_update_policy
from rules.policy import MILLION, Model, Policy, with_parts
from rules.roster import check_key, check_policy

FRACTION_FAR_OUT = 1_000.0  # far outside every bound, and still a number of millionths


@strawberry.input(description="The parts of a policy to change; a part that is left out or null stays as it is.")
class PolicyChangeInput:
    """Some of one policy."""

    model: MasteryModel | None = strawberry.field(description="How evidence becomes a score.", default=strawberry.UNSET)
    recent_percent: int | None = strawberry.field(
        description="How much the newest evidence weighs in DECAYING_AVERAGE, 1 to 99 percent; 65 at first.",
        default=strawberry.UNSET,
    )
    success_threshold: float | None = strawberry.field(
        description="The ratio from which an attempt is a success, 0.001 to 1; 0.6 at first.", default=strawberry.UNSET
    )
    mastery_threshold: float | None = strawberry.field(
        description="The score from which a concept is mastered, 0.001 to 1; 0.8 at first.", default=strawberry.UNSET
    )
    min_evidence: int | None = strawberry.field(
        description="The pieces of evidence below which a score is not yet sure, 1 to 100; 3 at first.",
        default=strawberry.UNSET,
    )
    inactivity_days: int | None = strawberry.field(
        description="The days without activity after which a student is at risk: 7, 14, 30 or 90; 7 at first.",
        default=strawberry.UNSET,
    )
    extra_credit: bool | None = strawberry.field(
        description="Whether scores above the maximum are accepted; not at first.", default=strawberry.UNSET
    )


@strawberry.input(description="The parts of a policy to change; a part that is left out or null stays as it is.")
class UpdateClassroomPolicyInput(PolicyChangeInput):
    """Some of one policy, and whose it is."""

    classroom_id: strawberry.ID | None = strawberry.field(
        description="The key of the class; left out or null for the tenant's policy of work over all classes, which "
        "only admins change.",
        default=strawberry.UNSET,
    )


@strawberry.type(description="What came of changing a policy.")
class UpdateClassroomPolicyPayload:
    """The policy that holds now, or why it was not changed."""

    errors: list[RosterError] = strawberry.field(description=ERRORS)
    seq: Seq | None = strawberry.field(description=SEQ)
    policy: ClassroomPolicy | None = strawberry.field(
        description="The newest version of the policy; null when there are errors."
    )


@strawberry.type
class PolicyMutation:
    """The choices of a class."""

    @strawberry.field(
        description="Change how the numbers of a class are made; each change is a new version, and all numbers of the "
        "class follow it. Sending what already holds makes no version."
    )
    @allow(Role.TEACHER, Role.ADMIN)
    async def update_classroom_policy(
        self,
        info: Info,
        input: Annotated[UpdateClassroomPolicyInput, strawberry.argument(description="The changes.")],
    ) -> UpdateClassroomPolicyPayload:
        """Teachers for the classes they teach today, admins for all."""
        context = info.context
        classroom = given(input.classroom_id)
        key = TENANT_DEFAULT if classroom is None else classroom
        now_holds: list[Policy] = []

        async def step(connection: Connection, tenant: int) -> Change:
            taught = key != TENANT_DEFAULT and await is_taught(context, connection, key)
            if not may_update_policy(context.viewer, is_taught=taught):
                return FORBIDDEN
            policy = with_parts(await policy_of(connection, tenant, key), parts_of(input))
            faults = check_policy(policy)
            if faults:
                return Change(faults=tuple(faults))
            change = await save_policy(connection, tenant, key, policy, created_by=context.viewer.key, now=context.now)
            now_holds.append(await policy_of(connection, tenant, key))
            return change

        written = await write(context, () if classroom is None else check_key(classroom, "classroomId"), step)
        policy = None if written.errors else policy_shown(now_holds[-1])
        return UpdateClassroomPolicyPayload(errors=written.errors, seq=written.seq, policy=policy)


def parts_of(input: PolicyChangeInput) -> dict[str, Any]:
    """What was sent, by the names that a policy has for it."""
    model = given(input.model)
    sent = {
        "model": None if model is None else Model[model.name],
        "recent_percent": given(input.recent_percent),
        "success_threshold": _millionths(given(input.success_threshold)),
        "mastery_threshold": _millionths(given(input.mastery_threshold)),
        "min_evidence": given(input.min_evidence),
        "inactivity_days": given(input.inactivity_days),
        "extra_credit": given(input.extra_credit),
    }
    return {name: value for name, value in sent.items() if value is not None}


def _millionths(fraction: float | None) -> int | None:
    """A fraction as rules hold it; one that is far out stays far out, without an overflow."""
    if fraction is None:
        return None
    return round(max(-FRACTION_FAR_OUT, min(fraction, FRACTION_FAR_OUT)) * MILLION)
