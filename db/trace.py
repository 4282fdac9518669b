"""Spans: the narrow way in which the rooms tell where the time of one traced operation went.

Whether an operation is traced is decided once, at the street door, before any span exists; below it a trace is there
(a Span, a `traceparent` on a row or a message) or it is not, and then nothing is made. Nothing that is handed to a span
may name a person: names are words of the code, attributes are counts.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Span(Protocol):
    """A stretch of work of one trace."""

    @property
    def traceparent(self) -> str:
        """The W3C trace context to hand on: what follows becomes a child of this span."""

    def rename(self, name: str) -> None:
        """Say what it turned out to be."""

    def end(self, **counts: int | str) -> None:
        """Close it, with what it counted. Further calls do nothing."""


class Tracer(Protocol):
    """Makes spans, or None where nothing is to be traced."""

    def begin(self, traceparent: str | None) -> Span | None:
        """A request from outside: goes on with the caller's trace or begins one, as the sampling says."""

    def join(self, name: str, traceparents: Iterable[str | None], *, seconds_ago: float = 0.0) -> Span | None:
        """Work for operations that may be traced: a child of the first that is, linked to the others."""


class Untraced:
    """The tracer of a process that traces nothing."""

    def begin(self, traceparent: str | None) -> Span | None:
        """Nothing."""
        return None

    def join(self, name: str, traceparents: Iterable[str | None], *, seconds_ago: float = 0.0) -> Span | None:
        """Nothing."""
        return None


UNTRACED = Untraced()
_current: ContextVar[tuple[Tracer, Span] | None] = ContextVar("sightline_span", default=None)


@contextmanager
def within(tracer: Tracer, span: Span | None) -> Iterator[None]:
    """Let the transactions of this block become children of the span; with None, of nobody's."""
    token = _current.set(None if span is None else (tracer, span))
    try:
        yield
    finally:
        _current.reset(token)


def inner(name: str) -> Span | None:
    """A child of the span that this code runs within, if it runs within one."""
    found = _current.get()
    if found is None:
        return None
    tracer, span = found
    return tracer.join(name, (span.traceparent,))
