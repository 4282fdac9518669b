"""One way to fetch any durable object again: its opaque global id."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, TypeAlias

import strawberry

from db.freshness import Freshness
from graph.access import PEOPLE, allow
from graph.freshness import fresh
from graph.refusal import ErrorCode, Refused
from graph.request import Context, Info
from rules.access import Scope

IDS_MAX = 100
ID_CHARACTERS_MAX = 4_096  # a type and three keys of 128 characters, in the longest encoding


@strawberry.interface(description="An object that can be fetched again by its global id.")
class Node:
    """Give `id` the value of `global_id`."""

    id: strawberry.ID = strawberry.field(
        description="Opaque global id, the same for ever; accepted by `node` and `nodes` only. Other arguments take "
        "the tenant's own key."
    )


Loader: TypeAlias = Callable[[Context, Sequence[str], Freshness], Awaitable[Mapping[str, Node]]]
"""Loads those of the keys that exist for the viewer: who may not see an object must not find it in the answer."""

_loaders: dict[str, Loader] = {}


def register(type_name: str, loader: Loader) -> None:
    """Let `node` find objects of this GraphQL type; called once, by the module that defines the type."""
    assert type_name not in _loaders, f"{type_name} is registered twice"
    _loaders[type_name] = loader


def global_id(type_name: str, key: str) -> strawberry.ID:
    """The global id of the object of this type with this key."""
    return strawberry.ID(urlsafe_b64encode(f"{type_name}:{key}".encode()).rstrip(b"=").decode())


def read_global_id(id: str) -> tuple[str, str] | None:
    """The type and key that a global id names; None for anything that `global_id` never wrote."""
    if len(id) > ID_CHARACTERS_MAX:
        return None
    try:
        type_name, colon, key = urlsafe_b64decode(id + "=" * (-len(id) % 4)).decode().partition(":")
    except (NotBase64, ValueError):  # ValueError: letters outside ASCII, bytes outside UTF-8
        return None
    is_whole = bool(colon and key) and "\0" not in key and global_id(type_name, key) == id
    return (type_name, key) if is_whole else None


async def nodes_of(context: Context, ids: Sequence[str]) -> list[Node | None]:
    """The objects of these ids in their order, None where the viewer may not see one or there is none.

    One load a type, whatever the order of the ids.
    """
    point = await fresh(context)
    names = [read_global_id(id) for id in ids]
    keys_by_type: dict[str, dict[str, None]] = defaultdict(dict)
    for name in names:
        if name is not None and name[0] in _loaders:
            keys_by_type[name[0]][name[1]] = None
    found = {
        type_name: await _loaders[type_name](context, list(keys), point) for type_name, keys in keys_by_type.items()
    }
    return [None if name is None else found.get(name[0], {}).get(name[1]) for name in names]


@strawberry.type
class NodeQuery:
    """The root fields that take global ids."""

    @strawberry.field(description="The object with this global id; null when there is none that you may see.")
    @allow(*PEOPLE, scope=Scope.READ)
    async def node(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The `id` of an object, as it was answered.")],
    ) -> Node | None:
        """Any registered type; authorized by its loader."""
        return (await nodes_of(info.context, [id]))[0]

    @strawberry.field(
        description="The objects with these global ids, in the order of the ids; null in the place of each one that "
        "does not exist or that you may not see."
    )
    @allow(*PEOPLE, scope=Scope.READ)
    async def nodes(
        self,
        info: Info,
        ids: Annotated[
            list[strawberry.ID], strawberry.argument(description="At most 100 values of `id`, as they were answered.")
        ],
    ) -> list[Node | None] | None:
        """Any mixture of registered types."""
        if len(ids) > IDS_MAX:
            raise Refused(ErrorCode.BAD_INPUT, f"'ids' holds more than {IDS_MAX} ids.", field=("ids",))
        return await nodes_of(info.context, ids)
