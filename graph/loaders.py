"""One statement instead of many: what the fields of one operation ask for at the same moment is loaded together."""

from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import TypeVar

from strawberry.dataloader import DataLoader

from graph.request import Context

BATCH_MAX = 200  # the longest page

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def batched(
    context: Context, name: Hashable, load: Callable[[list[Key]], Awaitable[Mapping[Key, Value]]]
) -> DataLoader[Key, Value | None]:
    """The operation's loader of this name, made on first use: each key is loaded once; missing ones are None.

    `name` must say everything that the rows depend on beside the key: the arguments of the field.
    """
    known: DataLoader[Key, Value | None] | None = context.loaders.get(name)
    if known is None:

        async def in_order(keys: list[Key]) -> list[Value | None]:
            found = await load(keys)
            return [found.get(key) for key in keys]

        known = context.loaders[name] = DataLoader(load_fn=in_order, max_batch_size=BATCH_MAX)
    return known
