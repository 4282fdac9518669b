"""How the roster is changed by a mutation: checked, decided, written in one transaction, then told to the fold."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import TypeVar

import strawberry

from db import roster
from db.live import Moved
from db.pool import Connection, tenant_transaction
from db.roster import Change
from db.visibility import of_classrooms
from graph.nodes import Node, global_id, nodes_of
from graph.request import Context
from graph.scalars import Seq
from rules.roster import Fault, RosterCode

ERRORS_MAX = 100  # a client mends the first ones; a catalog of 2,000 wrong entries is one mistake

Value = TypeVar("Value")
Saved = TypeVar("Saved", bound=Node)
Step = Callable[[Connection, int], Awaitable[Change]]
"""Checks against what is stored, then writes, for one tenant; writes nothing when it finds a fault."""


@strawberry.enum(description="Why an entry of the roster, the catalog or a policy was not saved.")
class RosterErrorCode(Enum):
    """The codes of `rules.roster.RosterCode`, described."""

    BAD_ID = strawberry.enum_value(
        "BAD_ID",
        description="A key is empty, over 128 characters, or holds a control character or a blank at an end.",
    )
    BAD_TEXT = strawberry.enum_value("BAD_TEXT", description="A name is blank or holds a control character.")
    BAD_ZONE = strawberry.enum_value("BAD_ZONE", description="A zone is not the name of an IANA time zone.")
    CYCLE = strawberry.enum_value("CYCLE", description="A concept would come before itself.")
    FORBIDDEN = strawberry.enum_value("FORBIDDEN", description="You do not teach this class today, or there is none.")
    NOT_FOUND = strawberry.enum_value("NOT_FOUND", description="A key names nothing that the tenant has.")
    NOT_MOVABLE = strawberry.enum_value("NOT_MOVABLE", description="The key belongs to work of another class.")
    OUT_OF_RANGE = strawberry.enum_value("OUT_OF_RANGE", description="A number, day or time is outside its bounds.")
    OVERLAP = strawberry.enum_value("OVERLAP", description="The person is in the class on some of the days already.")
    REPEATED = strawberry.enum_value("REPEATED", description="A list names the same key twice.")
    REVOKED = strawberry.enum_value("REVOKED", description="The link was revoked after this consent was given.")
    TOO_LONG = strawberry.enum_value("TOO_LONG", description="A name has over 200 characters.")
    TOO_MANY = strawberry.enum_value("TOO_MANY", description="A list, a class or the catalog would hold too much.")


@strawberry.type(description="One thing that is wrong with what was to be saved; nothing of it was saved.")
class RosterError:
    """An expected refusal, as data."""

    code: RosterErrorCode = strawberry.field(description="What is wrong, for programs.")
    field: list[str] | None = strawberry.field(
        description="The path of the input field at fault; null when it is the input as a whole."
    )
    message: str = strawberry.field(description="What was expected and what came, for people.")


@dataclass(frozen=True, slots=True)
class Written:
    """What came of a mutation: the errors, or the log position that holds what is stored now."""

    errors: list[RosterError]
    seq: Seq | None = None


async def write(context: Context, faults: Iterable[Fault], step: Step) -> Written:
    """Run one step of the roster in a transaction of its own; nothing when there are faults already."""
    known = list(faults)
    if known:
        return Written(_told(known))
    tenant = context.viewer.tenant
    async with tenant_transaction(context.pool, tenant) as connection:
        await roster.lock(connection, tenant)
        change = await step(connection, tenant)
        if change.faults:
            return Written(_told(change.faults))
        seq = await roster.settle(connection, tenant, change, recorded_by=context.viewer.key, now=context.now)
    woken(context, change)
    context.loaders.clear()  # a second mutation of the same document must not be answered from before this one
    return Written([], Seq(seq))


async def node_of(context: Context, written: Written, kind: type[Saved], key: str) -> Saved | None:
    """The saved object as the viewer may read it; None where there are errors or the viewer may only write."""
    if written.errors:
        return None
    (node,) = await nodes_of(context, [global_id(kind.__name__, key)])
    assert node is None or isinstance(node, kind), f"expected a {kind.__name__}, got a {type(node).__name__}"
    return node


def woken(context: Context, change: Change) -> None:
    """Tell the fold, after the commit, where it has work, and those who watch the log of a class."""
    tenant = context.viewer.tenant
    for shard in sorted(change.shards):
        context.engine.wake.mark(tenant, shard)
    if change.submissions:
        recorded = frozenset(submission.event.classroom for submission in change.submissions)
        context.engine.live.announce(Moved(tenant=tenant, recorded=recorded))


async def is_taught(context: Context, connection: Connection, classroom: str) -> bool:
    """Whether the viewer teaches this class on its local date; an unknown class is taught by nobody."""
    viewer = context.viewer
    ties = await of_classrooms(connection, viewer.tenant, [classroom], viewer=viewer.key, now=context.now)
    return classroom in ties and ties[classroom].is_teacher


FORBIDDEN = roster.refused(RosterCode.FORBIDDEN, "classroomId", "expected a class that you teach today")
"""The one answer for a class that is another's and for one that is not there."""


def kept(sent: Value, stored: Value) -> Value:
    """What holds after a save: a field that was left out keeps what is stored, null clears it."""
    return stored if sent is strawberry.UNSET else sent


def given(sent: Value | None) -> Value | None:
    """What was sent, or None where it was left out."""
    return None if sent is strawberry.UNSET else sent


def _told(faults: Iterable[Fault]) -> list[RosterError]:
    return [
        RosterError(code=RosterErrorCode(fault.code.value), field=list(fault.field) or None, message=fault.message)
        for fault in islice(faults, ERRORS_MAX)
    ]
