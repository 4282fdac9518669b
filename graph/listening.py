"""One subscriber: how its messages are made, and with whom they are shared."""

from collections.abc import AsyncGenerator, Awaitable, Hashable
from contextlib import aclosing
from typing import Any, Protocol

import msgspec
from graphql import FieldNode, Node, OperationType, VariableNode

from graph.answers import Answer
from graph.audience import Seat
from graph.documents import Documents, Plan, Voice
from graph.gate import Gate
from graph.hearing import Outlet
from graph.refusal import ErrorCode, Refused
from graph.request import Context, Engine, begin
from graph.telling import Operation
from graph.wire import Ask
from rules.access import Role, Viewer

BLOCKED_SECONDS_MAX = 30  # a peer that reads nothing for so long is gone, or is holding our memory

_encode = msgspec.json.Encoder(order="deterministic").encode


class House(Protocol):
    """What an operation on a live connection needs of the endpoint that accepted it."""

    documents: Documents
    engine: Engine
    gate: Gate


async def perform(
    house: House, ask: Ask, operation: Operation, outlet: Outlet, *, resumes_after: str | None = None
) -> AsyncGenerator[tuple[Answer, str | None]]:
    """The answers of one operation, with the resume token of each that has one. Raises Refused or Malformed."""
    viewer = operation.viewer
    assert viewer is not None, "a live connection operates for the viewer it was opened by"
    async with house.gate.passing():
        operation.plan = plan = house.gate.planned(house.documents, ask, viewer)
        if plan.kind is OperationType.MUTATION:
            # A mutation is retried by its sender when no answer comes. Here the answer may be lost in a queue behind
            # live events, and size limits, statuses and Retry-After of HTTP do not exist.
            raise Refused(ErrorCode.BAD_INPUT, "Mutations are not run on live connections; send them by HTTP POST.")
        operation.cost = house.gate.charge(plan, ask.variables, viewer)
        context = begin(house.engine, viewer, operation.correlation_id)
        if plan.kind is OperationType.QUERY:
            answer = (await house.documents.execute(plan, ask.variables, context)).costing(operation.cost)
    # Outside the gate: a subscription lives for hours, and the next reader of an answer may be slow.
    if plan.kind is OperationType.QUERY:
        yield answer, None
        return
    context.resumes_after = resumes_after
    async with aclosing(listen(house.documents, plan, ask.variables, context, outlet)) as answers:
        async for answer in answers:
            yield answer, context.told.token if context.told and answer.is_executed else None


def sent_at_once(sending: Awaitable[None]) -> bool:
    """Take a send of ASGI as far as it goes without waiting; False where it had to wait, and is called off unsent.

    The server waits for room first and writes then, so nothing has left of a send that waits.
    """
    steps = sending.__await__()
    try:
        next(steps)
    except StopIteration:
        return True
    except (OSError, RuntimeError):  # the peer is gone, or the last frame is out
        return False
    steps.close()
    return False


async def listen(
    documents: Documents, plan: Plan, variables: dict[str, Any], context: Context, outlet: Outlet
) -> AsyncGenerator[Answer]:
    """Answer each event of a subscription, one at a time; what is shared with others goes to `outlet` instead.

    The span of each is closed when it was handed on, or its reader left.
    """
    engine, viewer, correlation = context.engine, context.viewer, context.correlation_id

    def lead() -> tuple[Context, Voice]:
        leading = begin(engine, viewer, correlation)
        return leading, documents.voice(plan, variables, leading)

    likeness = likeness_of(plan, variables, viewer)
    context.seat = Seat(engine.audiences, viewer, outlet, likeness=likeness, lead=lead)
    async with aclosing(documents.subscribe(plan, variables, context)) as answers:
        async for answer in answers:
            try:
                yield answer
            finally:
                if context.push is not None:
                    context.push.rename(f"push {plan.root.removeprefix('subscription ')}")
                    context.push.end()
                    context.push = None


def likeness_of(plan: Plan, variables: dict[str, Any], viewer: Viewer) -> Hashable:
    """Subscribers of one stream with equal likeness are told the same, letter for letter.

    A compiled shape reads plain attributes, so what it writes of a message depends on nobody. Any other document may
    ask for what each viewer sees differently, or use its variables below the root.
    """
    if plan.subscription is not None:
        return id(plan)
    place = _place_variable(plan)
    return id(plan), scope_of(viewer), _encode({name: value for name, value in variables.items() if name != place})


def scope_of(viewer: Viewer) -> Hashable:
    """What a resolver may know of who asks: of those who see all of a tenant, only what they are."""
    sees_all = viewer.roles <= {Role.ADMIN, Role.INTEGRATOR}
    return (None if sees_all else viewer.key), viewer.roles, viewer.scopes


def _place_variable(plan: Plan) -> str | None:
    """The variable that says where the client comes in, if it says nothing else: it is behind those who sit."""
    (root,) = plan.operation.selection_set.selections
    arguments = (root.arguments or ()) if isinstance(root, FieldNode) else ()
    for argument in arguments:
        if argument.name.value == "after" and isinstance(argument.value, VariableNode):
            name = argument.value.name.value
            # Its definition, and this use.
            return name if _mentions(plan.document, name) == 2 else None
    return None


def _mentions(node: Node, variable: str) -> int:
    found, waiting = 0, [node]
    while waiting:
        item = waiting.pop()
        if isinstance(item, VariableNode) and item.name.value == variable:
            found += 1
        for key in item.keys:
            child = getattr(item, key)
            if isinstance(child, Node):
                waiting.append(child)
            elif isinstance(child, tuple | list):
                waiting.extend(one for one in child if isinstance(one, Node))
    return found
