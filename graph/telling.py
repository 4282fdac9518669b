"""One operation as it is told to metrics, log and trace: its name, its end and its cost, never what was asked."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from db.trace import Span
from graph.answers import Answer
from graph.documents import Plan
from graph.refusal import ErrorCode
from rules.access import Viewer

FAILED = frozenset({ErrorCode.INTERNAL, ErrorCode.UNAVAILABLE, ErrorCode.OVERLOADED})  # ours; the rest are the caller's
GONE = 499  # the client left before its answer


@dataclass(slots=True)
class Operation:
    """One operation under way; `finish` it however it ends.

    `variables` are kept for the log's keyed hash of a student's key alone; nothing else of them may be told.
    """

    correlation_id: str
    span: Span | None
    is_http: bool = True
    plan: Plan | None = None  # None: refused before its document was understood
    viewer: Viewer | None = None
    variables: dict[str, Any] | None = None
    cost: dict[str, Any] | None = None  # what the answer says in `extensions`, where the viewer has a budget
    status: int = 500  # what an exception that nobody caught is answered with
    codes: set[str] = field(default_factory=set)
    error_ids: tuple[str, ...] = ()
    seconds: float = 0.0
    _began: float = field(default_factory=perf_counter)

    @property
    def traceparent(self) -> str | None:
        """What the operation's work hands on, where it is traced."""
        return None if self.span is None else self.span.traceparent

    def answered(self, answer: Answer) -> None:
        """Note what went wrong, by code."""
        if answer.errors:
            self.codes |= answer.codes
            ids = (error["extensions"].get("errorId") for error in answer.errors)
            self.error_ids += tuple(one for one in ids if one is not None)

    def finish(self, tell: "Tell") -> None:
        """Close the operation and hand it to whoever counts and logs."""
        self.seconds = perf_counter() - self._began
        if self.span is not None:
            if self.plan is not None:
                self.span.rename(self.plan.title)
            self.span.end(status=self.status, outcome=self.outcome)
        tell(self)

    @property
    def outcome(self) -> str:
        """ok, refused (the caller's to mend), failed (ours), or left: the client went, as watchers do at their end."""
        if self.codes:
            return "refused" if FAILED.isdisjoint(self.codes) else "failed"
        if self.status == GONE:
            return "left"
        return "failed" if self.status >= 500 else "refused" if self.status >= 400 else "ok"


Tell = Callable[[Operation], None]


def nobody(_operation: Operation) -> None:
    """Tells no one: tests, and tools that need no numbers."""
