"""The mover: what moved, read once for all audiences that hear of it, and those that are alike read together.

One task works for each kind of stream while anything of that kind has moved. It takes what has moved by then, asks
Postgres in one transaction for all of it, and lets each audience hear its page. A stream that cannot be read with
others, and a document whose answers load more, has a task of its own, so that nobody waits for it.
"""

import asyncio
from collections.abc import Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from db.pool import LOST
from graph.fanout import TOGETHER_MAX, UNKNOWN
from graph.patience import patiently
from graph.rights import renew

if TYPE_CHECKING:
    from graph.audience import Audience


class Mover:
    """Reads for audiences. An audience is read for once at a time, so it hears one page after the other."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, dict[Audience, None]] = {}
        self._workers: dict[Hashable, asyncio.Task[None]] = {}

    def ring(self, audience: "Audience") -> None:
        """Read for an audience soon; news that comes while it hears the news before is read after that."""
        if audience.is_moving:
            audience.is_rung = True
            return
        loop = asyncio.get_running_loop()
        wait = audience.due - loop.time()
        if wait <= 0:
            self._wait_for(audience)
        elif audience.timer is None:
            audience.timer = loop.call_later(wait, self._wait_for, audience)

    def forget(self, audience: "Audience") -> None:
        """Nobody listens any more."""
        if audience.timer is not None:
            audience.timer.cancel()
            audience.timer = None
        # What is read or executed for it at this moment comes to its end, unheard: graphql-core, cancelled, leaves
        # coroutines behind that were never awaited.

    async def settle(self) -> None:
        """Wait until all that is read at this moment has come to its end: then nobody uses the pool for an audience.

        Bounded by the limits of statements; what waits for Postgres with nobody listening gives up at its next try.
        """
        while self._workers:
            await asyncio.wait(list(self._workers.values()))

    def _wait_for(self, audience: "Audience") -> None:
        audience.timer = None
        kind = _kind_of(audience)
        self._waiting.setdefault(kind, {})[audience] = None
        if kind not in self._workers:
            self._workers[kind] = asyncio.create_task(self._work(kind))

    async def _work(self, kind: Hashable) -> None:
        waiting = self._waiting[kind]
        try:
            while waiting:
                batch = _taken(waiting)
                try:
                    if batch:
                        await self._move(batch)
                except LOST:
                    # Who waits behind a Postgres that is away has waited as long, and would wait as long again.
                    _send_on_alone(waiting)
        finally:
            del self._waiting[kind], self._workers[kind]
            _send_on_alone(waiting)  # an end from below: nobody reads for these any more

    async def _move(self, batch: "Sequence[Audience]") -> None:
        """Let each of a batch hear its page; who has not when this ends goes on alone. Raises LOST."""
        try:
            await self._let_hear(batch, await _read(batch))
        except LOST:
            raise
        except Exception as error:
            if len(batch) == 1:
                batch[0].close(error)
                return
            # What is wrong with one class, or slow for many at once, must not end the streams of the others.
            for audience in batch:
                if audience.is_moving:
                    await self._move([audience])
        finally:
            for audience in batch:
                if audience.is_moving:  # it would hear nothing any more
                    audience.close()

    async def _let_hear(self, batch: "Sequence[Audience]", pages: Sequence[Any]) -> None:
        told: dict[Hashable, Any] = {}
        loop = asyncio.get_running_loop()
        for audience, page in zip(batch, pages, strict=True):
            is_more = False
            try:
                is_more = await audience.hear(page, told)
            except LOST:
                raise
            except Exception as error:
                audience.close(error)
            audience.is_moving = False
            audience.due = audience.began + audience.feed.pause_seconds(loop.time() - audience.began)
            if audience.is_open and (is_more or audience.is_rung):
                self.ring(audience)


async def _read(batch: "Sequence[Audience]") -> Sequence[Any]:
    """A page for each of a batch; the ties that are too old to judge who hears it are read for all of them too."""
    is_wanted = partial(_is_wanted, batch)
    feeds = [audience.feed for audience in batch]
    pages: Sequence[Any] = await patiently(partial(feeds[0].read, feeds), while_=is_wanted)
    stale = {audience.circle for audience in batch if audience.circle.known is UNKNOWN}
    if len(stale) > 1:  # one by one, each audience would wait for those before it
        await patiently(partial(renew, stale), while_=is_wanted)
    return pages


def _send_on_alone(waiting: "dict[Audience, None]") -> None:
    """Let each go on as patiently as without an audience."""
    for audience in tuple(waiting):
        audience.close()
    waiting.clear()


def _kind_of(audience: "Audience") -> Hashable:
    """Those of one kind are read together; an audience that cannot be is a kind of its own."""
    kind = audience.feed.kind if audience.voice.is_plain else None
    return audience if kind is None else kind


def _taken(waiting: "dict[Audience, None]") -> "list[Audience]":
    """As many as may be read together."""
    batch: list[Audience] = []
    spots: set[Hashable] = set()
    now = asyncio.get_running_loop().time()
    while waiting and len(spots) < TOGETHER_MAX:
        audience = next(iter(waiting))
        del waiting[audience]
        if audience.is_open:
            audience.is_moving, audience.is_rung, audience.began = True, False, now
            spots.add(audience.feed.spot)
            batch.append(audience)
    return batch


def _is_wanted(batch: "Sequence[Audience]") -> bool:
    return any(audience.is_open for audience in batch)
