"""What an audience is between: a stream that is read for it, a document that answers, and outlets that send."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from db.live import Topic
from db.trace import Span
from graph.answers import Answer
from graph.rights import Right
from graph.tokens import Place, StreamName

FRAMED_MAX = 4  # frames kept while a message is handed out: ids that nobody else uses are not worth the memory


@dataclass(frozen=True, slots=True)
class Message:
    """One answer for many, written once as JSON; `token` is that of its place."""

    answer: Answer
    text: bytes
    token: str
    framed: dict[bytes, bytes] = field(default_factory=dict)

    def frame(self, head: bytes, make: Callable[["Message", bytes], bytes]) -> bytes:
        """What goes to the wire, made once for all in front of whose text the same stands."""
        known = self.framed.get(head)
        if known is None:
            known = make(self, head)
            if len(self.framed) < FRAMED_MAX:
                self.framed[head] = known
        return known


class Outlet(Protocol):
    """Where the messages of one subscriber leave the process."""

    def offer(self, message: Message) -> bool:
        """Send one message if there is room for it at once; False sends nothing."""


class Voice(Protocol):
    """What one document answers to what a stream tells."""

    @property
    def is_plain(self) -> bool:
        """Whether its answers load nothing."""

    def trace(self, traceparent: str) -> Span | None:
        """The span of one message that is pushed."""

    def at_once(self, shown: Any) -> Answer | None:
        """The answer, where it is of plain attributes."""

    async def answer(self, shown: Any) -> Answer:
        """The answer, whatever it takes."""


class Utterance(Protocol):
    """One message of a stream, before any document has asked for parts of it."""

    @property
    def place(self) -> Place:
        """Where who has heard it stands."""

    @property
    def token(self) -> str:
        """The same, for clients."""

    @property
    def shown(self) -> Any:
        """The root value."""


class Feed(Protocol):
    """A stream from where an audience stands. It remembers the place."""

    @property
    def name(self) -> StreamName:
        """Which stream."""

    @property
    def topic(self) -> Topic:
        """What rings when it moved."""

    @property
    def right(self) -> Right:
        """Who may hear it."""

    def pause_seconds(self, took: float) -> float:
        """From the begin of a round that took so long to that of the next: the newest may change further meanwhile."""

    @property
    def place(self) -> Place:
        """All before it is read."""

    @property
    def spot(self) -> Hashable:
        """Feeds of one kind and spot read the same."""

    @property
    def kind(self) -> Hashable | None:
        """Feeds of one kind are read together; None where this one must be read alone."""

    def has_reached(self, numbers: Any) -> bool:
        """Whether all up to these numbers of its topic is read."""

    async def read(self, feeds: Sequence[Any]) -> Sequence[Any]:
        """A page for each of these feeds of one kind; the only one may be of no kind."""

    def tell(self, page: Any, told: dict[Hashable, Any]) -> tuple[Sequence[Utterance], bool] | None:
        """What a page brings, and whether more is to be read at once; None where each must find for itself.

        `told` shares what is made of a page between the feeds that stand at one place.
        """

    def trace(self, one: Any, rung: str | None) -> str | None:
        """The trace that a message belongs to."""
