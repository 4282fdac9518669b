"""Patience: a stream that has lost nothing does not end because Postgres restarts."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from db.pool import LOST

PATIENCE_SECONDS = 30.0  # how long a stream outlives Postgres; then the client resumes elsewhere
RETRY_SECONDS = 0.25

Value = TypeVar("Value")


def _always() -> bool:
    return True


async def patiently(load: Callable[[], Awaitable[Value]], *, while_: Callable[[], bool] = _always) -> Value:
    """Try again while Postgres is away and somebody waits for it, up to PATIENCE_SECONDS."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_SECONDS
    while True:
        try:
            return await load()
        except LOST:
            if loop.time() >= deadline or not while_():
                raise
        await asyncio.sleep(RETRY_SECONDS)
