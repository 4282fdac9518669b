"""The patrol: once a second, in a few statements for all streams of the process, what moved without a message."""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from db import changes
from db.live import SLOW_CHECK_SECONDS, Topic, Watch
from db.pool import LOST, tenant_transaction

if TYPE_CHECKING:
    from graph.request import Engine

log = logging.getLogger("sightline.graph")

KEYS_MAX = 1_000  # of one statement
NUMBERED = frozenset({"classroom", "student", "recorded"})
NEVER = (-1, -1)  # the numbers of a class before the first round


class Patrol:
    """Rings for topics whose numbers changed since its last round; whoever heard the message is woken once more."""

    def __init__(self) -> None:
        self._followed: Counter[Topic] = Counter()
        self._known: dict[Topic, Any] = {}
        self._epochs: dict[int, int] = {}
        self._rounds: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watching(self, engine: "Engine", topic: Topic) -> AsyncIterator[Watch]:
        """Be woken by a topic from now on, whether or not its messages arrive; register first, then read."""
        self._followed[topic] += 1
        if self._rounds is None:
            self._rounds = asyncio.create_task(self._walk(engine))
        try:
            async with engine.live.watching([topic]) as watch:
                yield watch
        finally:
            self._leave(topic)

    def _leave(self, topic: Topic) -> None:
        self._followed[topic] -= 1
        if not self._followed[topic]:
            del self._followed[topic]
            self._known.pop(topic, None)
        if not self._followed and self._rounds is not None:
            self._rounds.cancel()
            self._rounds = None

    async def _walk(self, engine: "Engine") -> None:
        while True:
            await asyncio.sleep(SLOW_CHECK_SECONDS)
            tenants: dict[int, list[Topic]] = defaultdict(list)
            for topic in self._followed:
                tenants[topic[0]].append(topic)
            for tenant, topics in tenants.items():
                try:
                    moved, is_new_life = await self._moved(engine, tenant, topics)
                    self._tell(engine, tenant, topics, moved=moved, is_new_life=is_new_life)
                except Exception as error:  # the next round finds it: what moves meanwhile has another number
                    if not isinstance(error, LOST):
                        name = type(error).__name__
                        log.error("numbers_unread type=%s", name, extra={"error_type": name})

    def _tell(
        self, engine: "Engine", tenant: int, topics: Sequence[Topic], *, moved: dict[Topic, Hashable], is_new_life: bool
    ) -> None:
        try:
            engine.live.remind(moved)
            engine.live.ring(topics if is_new_life else (topic for topic in topics if topic[1] not in NUMBERED))
        except Exception:
            del self._epochs[tenant]  # nobody knows how far this came: the next round rings for all
            raise

    async def _moved(
        self, engine: "Engine", tenant: int, topics: Sequence[Topic]
    ) -> tuple[dict[Topic, Hashable], bool]:
        """What those of these have come to that came further since the last round; whether their tenant was restored.

        Topics that keep no number always have.
        """
        keys: dict[str, list[str]] = defaultdict(list)
        for _, kind, key in topics:
            keys[kind].append(key)
        found: dict[Topic, Hashable] = {}
        async with tenant_transaction(engine.pool, tenant, read_only=True) as connection:
            epoch, seq = await changes.numbers_of_tenant(connection, tenant)
            is_new_life = self._epochs.get(tenant) != epoch  # restored: every number means something else
            before = {} if is_new_life else self._known
            for some in _parts(keys["classroom"]):
                known = {key: before.get((tenant, "classroom", key), NEVER) for key in some}
                classes = await changes.numbers_of_classrooms(connection, tenant, known)
                found |= {(tenant, "classroom", key): numbers for key, numbers in classes.items()}
            for some in _parts(keys["student"]):
                students = await changes.numbers_of_students(connection, tenant, some)
                found |= {(tenant, "student", key): number for key, number in students.items()}
        found |= {(tenant, "recorded", key): seq for key in keys["recorded"]}
        moved = {topic: numbers for topic, numbers in found.items() if before.get(topic) != numbers}
        # Only now that all is read: a round that failed halfway must find the restore again.
        if is_new_life:
            self._epochs[tenant] = epoch
            self._known = {topic: number for topic, number in self._known.items() if topic[0] != tenant}
        # Whoever left meanwhile is not remembered.
        self._known.update({topic: numbers for topic, numbers in moved.items() if topic in self._followed})
        return moved, is_new_life


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), KEYS_MAX):
        yield keys[start : start + KEYS_MAX]
