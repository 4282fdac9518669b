"""Live: "class X moved", told over Redis after the commit; one subscription per process wakes its waiters.

A message carries no state: whoever is woken reads the tables past its token. A lost message costs at most the slow
check of a second, never a change.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

CHANNEL = "mastery.events"  # 004-10
DEAD_CHANNEL = "mastery.dlq"  # 000-09
FLUSH_SECONDS = 0.005
SLOW_CHECK_SECONDS = 1.0  # how late a subscriber learns of a change whose message was lost
RECONNECT_SECONDS = 0.25
CANCELS_MAX = 8
CANCEL_SECONDS = 0.25


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What moved in one tenant: folded classes and students, classes whose log grew, and jobs."""

    tenant: int
    classrooms: frozenset[str] = frozenset()
    students: frozenset[str] = frozenset()
    recorded: frozenset[str] = frozenset()
    jobs: frozenset[str] = frozenset()
    traceparent: str | None = None  # of what moved it, where that is traced


class Dead(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One event that went to the dead letters, as it is announced: where to look for it, nothing of what it says."""

    tenant: int
    source: str
    event_id: str
    error: str  # the kind of error


class Rung(Protocol):
    """Whoever is to know that a topic moved."""

    def ring(self, traceparent: str | None) -> None:
        """It moved; perhaps by something that is traced. This must not wait, nor enlist or dismiss anybody."""

    def remind(self, numbers: Any) -> None:
        """It has come to these numbers, which is no news for whoever is there already. As `ring` otherwise."""


class Bell(asyncio.Event):
    """What a waiter is woken by; it remembers the last traced change that rang it."""

    traceparent: str | None = None

    def ring(self, traceparent: str | None) -> None:
        """Wake the waiter."""
        self.set()
        self.traceparent = traceparent or self.traceparent

    def remind(self, numbers: Any) -> None:
        """Wake the waiter, who knows best."""
        self.set()


Topic = tuple[int, str, str]  # (tenant, "classroom" | "student" | "recorded" | "job", key)


def topics_of(moved: Moved) -> Iterable[Topic]:
    """Every topic a message wakes."""
    yield from ((moved.tenant, "classroom", key) for key in moved.classrooms)
    yield from ((moved.tenant, "student", key) for key in moved.students)
    yield from ((moved.tenant, "recorded", key) for key in moved.recorded)
    yield from ((moved.tenant, "job", key) for key in moved.jobs)


class Live:
    """The publishing side and the process's one subscription."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._outgoing: list[Moved] = []
        self._dead: list[Dead] = []
        self._flusher: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._waiters: dict[Topic, set[Rung]] = {}
        self.failures = 0

    def announce(self, moved: Moved) -> None:
        """Publish soon, best effort; call it after the commit."""
        self._outgoing.append(moved)
        self._begin_flush()

    def announce_dead(self, dead: Dead) -> None:
        """Tell an operator's listener of a dead event, best effort; call it after the commit."""
        self._dead.append(dead)
        self._begin_flush()

    def _begin_flush(self) -> None:
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())

    def listen(self) -> None:
        """Start the process's one subscription; it reconnects for ever until aclose."""
        self._listener = asyncio.create_task(self._listen())

    async def pings(self) -> bool:
        """Whether Redis answers."""
        try:
            async with asyncio.timeout(0.5):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError):
            return False
        return True

    async def aclose(self) -> None:
        """Stop listening; what is announced is sent as far as Redis answers."""
        if self._flusher is not None:
            with suppress(Exception):
                await self._flusher
        if self._listener is not None:
            for _ in range(CANCELS_MAX):
                self._listener.cancel()  # again and again: a redis command that is just answered swallows one
                if (await asyncio.wait({self._listener}, timeout=CANCEL_SECONDS))[0]:
                    break
        with suppress(RedisError, OSError, TimeoutError):
            await self._redis.aclose()

    @asynccontextmanager
    async def watching(self, topics: Iterable[Topic]) -> AsyncIterator["Watch"]:
        """Be woken by these topics from now on; register first, then read the snapshot."""
        watch = Watch(self, tuple(topics))
        watch.resume()
        try:
            yield watch
        finally:
            watch.rest()

    def enlist(self, topic: Topic, rung: Rung) -> None:
        """Ring for this topic from now on."""
        self._waiters.setdefault(topic, set()).add(rung)

    def dismiss(self, topic: Topic, rung: Rung) -> None:
        """Ring no more."""
        waiters = self._waiters.get(topic)
        if waiters is not None:
            waiters.discard(rung)
            if not waiters:
                del self._waiters[topic]

    def ring(self, topics: Iterable[Topic]) -> None:
        """Wake the waiters of these topics, as a message would."""
        for topic in topics:
            for rung in self._waiters.get(topic, ()):
                rung.ring(None)

    def remind(self, numbers: Mapping[Topic, Any]) -> None:
        """Tell the waiters of these topics what they have come to."""
        for topic, reached in numbers.items():
            for rung in self._waiters.get(topic, ()):
                rung.remind(reached)

    async def _flush(self) -> None:
        try:
            while self._outgoing or self._dead:
                await asyncio.sleep(FLUSH_SECONDS)
                outgoing, self._outgoing = self._outgoing, []
                dead, self._dead = self._dead, []
                try:
                    async with asyncio.timeout(1.0):
                        if outgoing:
                            await self._redis.publish(CHANNEL, msgspec.msgpack.encode(_merged(outgoing)))
                        for one in dead:
                            await self._redis.publish(DEAD_CHANNEL, msgspec.json.encode(one))
                except (RedisError, OSError, TimeoutError):
                    self.failures += 1
        finally:
            self._flusher = None

    async def _listen(self) -> None:
        """Wake the waiters of each message; after a (re)connect wake everyone, for messages may have been lost."""
        decoder = msgspec.msgpack.Decoder(list[Moved])
        while True:
            pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
            try:
                await pubsub.subscribe(CHANNEL)
                self._wake_all()
                while True:
                    message = await pubsub.get_message(timeout=5.0)
                    if message is not None:
                        for moved in decoder.decode(message["data"]):
                            self._wake(moved)
            except (RedisError, OSError, TimeoutError, msgspec.DecodeError):
                self.failures += 1
                await asyncio.sleep(RECONNECT_SECONDS)
            finally:
                with suppress(RedisError, OSError, TimeoutError):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]

    def _wake(self, moved: Moved) -> None:
        for topic in topics_of(moved):
            for rung in self._waiters.get(topic, ()):
                rung.ring(moved.traceparent)

    def _wake_all(self) -> None:
        for waiters in self._waiters.values():
            for rung in waiters:
                rung.ring(None)


def open_live(redis_url: str) -> Live:
    """Open the process's connection for live messages; a frozen Redis is given up after a quarter of a second."""
    return Live(Redis.from_url(redis_url, socket_timeout=0.25, socket_connect_timeout=0.25))


class Watch:
    """One waiter: `moved` returns when its topics moved, or after the slow check."""

    def __init__(self, live: Live, topics: tuple[Topic, ...]) -> None:
        self._live = live
        self._topics = topics
        self._event = Bell()

    @property
    def is_rung(self) -> bool:
        """Whether there was news since `moved` told of some."""
        return self._event.is_set()

    def rest(self) -> None:
        """Hear nothing until `resume`; then read, for what came meanwhile rings no more."""
        for topic in self._topics:
            self._live.dismiss(topic, self._event)

    def resume(self) -> None:
        """Be woken again."""
        for topic in self._topics:
            self._live.enlist(topic, self._event)

    def take_traceparent(self) -> str | None:
        """The trace of what rang last, once."""
        taken, self._event.traceparent = self._event.traceparent, None
        return taken

    async def moved(self, *, seconds_max: float = SLOW_CHECK_SECONDS) -> bool:
        """Wait for news; False when the slow check came first. News since the last call counts."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                await self._event.wait()
        is_news = self._event.is_set()
        self._event.clear()
        return is_news


def _merged(outgoing: list[Moved]) -> list[Moved]:
    """One message per tenant, and one more per trace: what moved twice is told once."""
    merged: dict[tuple[int, str | None], Moved] = {}
    for moved in outgoing:
        key = (moved.tenant, moved.traceparent)
        earlier = merged.get(key)
        merged[key] = (
            moved
            if earlier is None
            else Moved(
                tenant=moved.tenant,
                classrooms=earlier.classrooms | moved.classrooms,
                students=earlier.students | moved.students,
                recorded=earlier.recorded | moved.recorded,
                jobs=earlier.jobs | moved.jobs,
                traceparent=moved.traceparent,
            )
        )
    return list(merged.values())
