"""Wake-ups: a hint to the workers that a shard has waiting rows; losing one costs time, never an event.

By generations: the job id holds the shard's generation, and the job increments it
before its first read, so an enqueue that collides with a job of the same generation is never needed.
"""

import asyncio
from contextlib import suppress
from time import monotonic
from typing import Any

import msgspec
from arq.connections import ArqRedis
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

FLUSH_SECONDS = 0.01  # marks of one burst share one enqueue per shard
REDIS_SECONDS = 0.25  # a frozen Redis costs a wake-up, never a request
QUEUE = "mastery.requests"  # 004-10
FUNCTION = "drain"
WOKEN_MAX = 100_000
WOKEN_SECONDS = 1.0  # how long an enqueued job is taken to wait still: a flushed Redis has forgotten it
Shard = tuple[int, int]  # (tenant, shard)

encoded = msgspec.json.encode  # never arq's pickle: whoever writes to Redis must not run code here
decoded = msgspec.json.decode


def open_arq(redis_url: str, *, seconds: float = REDIS_SECONDS) -> ArqRedis:
    """Open a connection pool to arq's queue; every command is given up after `seconds`."""
    connections: Any = ConnectionPool.from_url(redis_url, socket_timeout=seconds, socket_connect_timeout=seconds)
    return ArqRedis(connections, job_serializer=encoded, job_deserializer=decoded, default_queue_name=QUEUE)


def _generation_key(tenant: int, shard: int) -> str:
    return f"generation:{tenant}:{shard}"


class Waker:
    """Speaks to arq: wakes shards, and clears a shard's mark when its job begins."""

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self._redis = open_arq(redis_url)
        self._woken: dict[Shard, tuple[str, float]] = {}  # generation and moment of the job that we enqueued last

    async def wake(self, shards: set[Shard]) -> None:
        """Enqueue one job per shard, unless one of the same generation waits already: it has not read yet."""
        wanted, now = sorted(shards), monotonic()
        generations = await self._redis.mget([_generation_key(*shard) for shard in wanted])
        for shard, found in zip(wanted, generations, strict=True):
            generation = (found or b"0").decode()
            woken, at = self._woken.get(shard, ("", 0.0))
            if woken == generation and now - at < WOKEN_SECONDS:
                continue
            tenant, number = shard
            await self._redis.enqueue_job(
                FUNCTION, tenant, number, _job_id=f"{FUNCTION}:{tenant}:{number}:{generation}"
            )
            if len(self._woken) >= WOKEN_MAX:
                self._woken.clear()
            self._woken[shard] = (generation, now)

    async def clear(self, tenant: int, shard: int) -> None:
        """Begin a new generation: call it before the first read. Rows committed from now on wake another job."""
        with suppress(RedisError, OSError, TimeoutError):
            await self._redis.incr(_generation_key(tenant, shard))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose(close_connection_pool=True)


class Wake:
    """The shards to wake, gathered in memory and told to the workers beside the requests, never inside them."""

    def __init__(self, waker: Waker) -> None:
        self._waker = waker
        self._marked: set[Shard] = set()
        self._flusher: asyncio.Task[None] | None = None
        self.failures = 0  # wake-ups lost to Redis; the sweep repairs each within about a second

    def mark(self, tenant: int, shard: int) -> None:
        """Remember to wake a shard; call it after the commit."""
        self._marked.add((tenant, shard))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())

    async def aclose(self) -> None:
        """Send what is marked, as far as Redis answers."""
        if self._flusher is not None:
            with suppress(Exception):
                await self._flusher

    async def _flush(self) -> None:
        try:
            while self._marked:
                await asyncio.sleep(FLUSH_SECONDS)
                marked, self._marked = self._marked, set()
                try:
                    await self._waker.wake(marked)
                except (RedisError, OSError, TimeoutError):
                    self.failures += 1
        finally:
            self._flusher = None
