"""What telemetry and budgets cost an untraced operation: the hooks alone, no server around them, microseconds each.

`python -m tests.bench.hooks` prints the best of several rounds; the machine's noise is not the hooks'.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from time import perf_counter
from typing import Any

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from db.tally import Tally
from graph.budgets import Budgets
from graph.gate import Gate
from graph.telling import Operation, nobody
from graph.wire import Ask
from rules.access import Role, Viewer
from server.logs import Pseudonyms, RequestLog, Sink
from server.metrics import Operations
from server.telemetry import Sampling
from tests.graph.test_documents import documents

ROUNDS, TURNS = 7, 20_000
VIEWER = Viewer(1, "lms", frozenset({Role.TEACHER}), datetime(2099, 1, 1, tzinfo=UTC))
MACHINE = Viewer(1, "lms", frozenset({Role.INTEGRATOR}), datetime(2099, 1, 1, tzinfo=UTC))
VARIABLES = {"input": {"eventId": "e1", "studentId": "s1"}}


def microseconds(work: Callable[[], Any]) -> float:
    """The best of several rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = perf_counter()
        for _ in range(TURNS):
            work()
        best = min(best, perf_counter() - began)
    return round(best / TURNS * 1e6, 2)


def costs() -> dict[str, float]:
    """Each hook of one HTTP operation without a span."""
    make: Any = documents
    plan = make.__wrapped__().plan("query Echo { echo }", None)
    sampling = Sampling(SimpleSpanProcessor(InMemorySpanExporter()), service="bench", version="", ratio=0.0)
    operations, tally = Operations(), Tally()
    written = RequestLog(Sink(BytesIO()), Pseudonyms("a secret of more than thirty-two bytes"))

    def operation(tell: Any) -> None:
        one = Operation("0123456789abcdef", sampling.begin(None))
        one.plan, one.viewer, one.variables, one.status = plan, VIEWER, VARIABLES, 200
        one.finish(tell)

    def both(one: Operation) -> None:
        operations(one)
        written(one)

    unmeasured, measured = Gate(), Gate(budgets=Budgets())
    ask = Ask("query Echo { echo }", None, VARIABLES)
    known = make.__wrapped__()
    known.asked(ask)

    return {
        "plan a known document": microseconds(lambda: unmeasured.planned(known, ask, VIEWER)),
        "plan it and charge it to a budget": microseconds(
            lambda: measured.charge(measured.planned(known, ask, MACHINE), {}, MACHINE)
        ),
        "decide, time, close": microseconds(lambda: operation(nobody)),
        "and count": microseconds(lambda: operation(operations)),
        "and write the log line": microseconds(lambda: operation(both)),
        "one transaction counted": microseconds(lambda: tally.add(0.004)),
    }


async def _printed() -> None:
    for name, cost in costs().items():  # inside a loop, as in service: the log's lines share a write
        print(f"{name:28} {cost:6.2f} us")


if __name__ == "__main__":
    asyncio.run(_printed())
