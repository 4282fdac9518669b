"""One subscriber: how its messages are made, and with whom they are shared."""

from collections.abc import AsyncGenerator, Hashable
from contextlib import aclosing
from typing import Any

import msgspec
from graphql import FieldNode, Node, VariableNode

from graph.answers import Answer
from graph.audience import Outlet, Seat
from graph.documents import Documents, Plan
from graph.request import Context, begin
from graph.tokens import Place
from rules.access import Role, Viewer

_encode = msgspec.json.Encoder(order="deterministic").encode


async def listen(
    documents: Documents, plan: Plan, variables: dict[str, Any], context: Context, outlet: Outlet
) -> AsyncGenerator[Answer]:
    """Answer each event of a subscription, one at a time; what is shared with others goes to `outlet` instead."""
    engine, viewer = context.engine, context.viewer

    def lead(place: Place) -> tuple[Context, AsyncGenerator[Answer]]:
        leading = begin(engine, viewer, context.correlation_id)
        leading.enters_at = place
        return leading, _pushed(documents, plan, variables, leading)

    likeness = likeness_of(plan, variables, viewer)
    context.seat = seat = Seat(engine.audiences, viewer, outlet, likeness=likeness, lead=lead)
    try:
        async with aclosing(_pushed(documents, plan, variables, context)) as answers:
            async for answer in answers:
                yield answer
    finally:
        seat.give_up()


async def _pushed(
    documents: Documents, plan: Plan, variables: dict[str, Any], context: Context
) -> AsyncGenerator[Answer]:
    """The answers, and the span of each closed when it was handed on, or its reader left."""
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
