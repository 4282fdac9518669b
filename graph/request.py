"""What one operation carries to its resolvers: who asks, when, and with what means."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import strawberry

from db.live import Live
from db.pool import Pool
from db.recorder import Recorder
from db.trace import UNTRACED, Span, Tracer
from db.wake import Wake
from graph.audience import Audiences, Seat
from graph.fanout import Fanout
from graph.patrol import Patrol
from graph.together import Together
from rules.access import Viewer

if TYPE_CHECKING:
    from graph.streams import Told


@dataclass(frozen=True, slots=True)
class Engine:
    """The means that live as long as the process, handed in by the server; resolvers reach no globals."""

    clock: Callable[[], datetime]
    pool: Pool
    recorder: Recorder
    wake: Wake
    live: Live
    fanout: Fanout = field(default_factory=Fanout)
    audiences: Audiences = field(default_factory=Audiences)
    patrol: Patrol = field(default_factory=Patrol)
    together: Together = field(default_factory=Together)
    tracer: Tracer = UNTRACED


@dataclass(slots=True, kw_only=True)
class Context:
    """The `info.context` of one operation; a subscription renews it before each event it delivers."""

    engine: Engine
    viewer: Viewer
    correlation_id: str
    traceparent: str | None = None  # W3C trace context, kept with what the operation records
    push: Span | None = None  # of the message that a subscription is delivering, where its change is traced
    now: datetime  # read once, so that every field of an answer is about the same moment
    seat: Seat | None = None  # of a subscriber whose messages may be shared
    resumes_after: str | None = None  # the token of a client whose transport keeps it (Last-Event-ID)
    told: "Told[Any] | None" = None  # what a subscription is delivering
    loaders: dict[Any, Any] = field(default_factory=dict)  # one operation's caches, by loader

    @property
    def pool(self) -> Pool:
        """The connection pool: resolvers run concurrently, so none may hold "the" connection."""
        return self.engine.pool

    def renew(self) -> None:
        """Forget what was loaded and read the clock again: an old loader would answer with yesterday's rows."""
        self.now = self.engine.clock()
        self.loaders.clear()


Info = strawberry.Info[Context, None]


def begin(engine: Engine, viewer: Viewer, correlation_id: str, traceparent: str | None = None) -> Context:
    """Open the context of one operation."""
    return Context(
        engine=engine, viewer=viewer, correlation_id=correlation_id, traceparent=traceparent, now=engine.clock()
    )
