"""CPU of one operation in the api process, between its decoded JSON and its answer, compiled and by graphql-core.

No HTTP, no store and no sockets: a recorder that answers at once stands behind the mutations, and one message repeated
behind the subscription. What is left is what `graph/compiled.py` can save. Both paths run in turns on the same
documents; the median of the turns is told. Judging an event (`rules.validation`) is part of both.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from time import process_time
from typing import Any
from uuid import UUID

import strawberry
from strawberry.schema.config import StrawberryConfig

from db.evidence import Answer, Status
from db.freshness import Freshness
from graph.access import PEOPLE, allow
from graph.catalog_reads import Concept, ConceptKind
from graph.documents import Documents, Plan
from graph.live import MasteryMessage
from graph.recording import RecordingMutation
from graph.request import Context, Engine, Info, begin
from graph.scalars import SCALARS
from graph.service import ServiceQuery
from graph.standings import ConceptMastery, MasteryModel, MasteryState
from graph.streams import LiveMessageKind
from rules.access import Role, Scope, Viewer
from rules.evidence import Submission
from tests.bench.figures import Figures, claim, median
from tests.bench.orders import RECORD_EVENT, RECORD_EVENTS
from tests.bench.school import SPREAD, events

BATCH = 1_000
TURNS = {"small": 3, "full": 9}
SINGLES, BATCHES, MESSAGES = 500, 1, 500  # of each turn
NOW = datetime.now(UTC)
ID = UUID(int=1)
WATCH = """
subscription Watch {
  masteryChanged { kind resumeToken studentId mastery { concept { key name } score state evidenceCount } }
}
"""
MESSAGE = MasteryMessage(
    freshness=Freshness(seq=5, time=NOW, withheld=0, lag_ms=3),
    kind=LiveMessageKind.CHANGE,
    resume_token="a token of some forty characters, as usual",
    student_id=strawberry.ID("s1"),
    mastery=ConceptMastery(
        concept=Concept(
            id=strawberry.ID("Q29uY2VwdDprMQ"),
            key="k1",
            name="Fractions",
            kind=ConceptKind.CONCEPT,
            is_active=True,
            in_catalog=True,
            subject_key=None,
        ),
        classroom_id=strawberry.ID("7b"),
        score=0.821,
        percent=82.1,
        state=MasteryState.OK,
        evidence_count=3,
        last_evidence_at=NOW,
        model=MasteryModel.DECAYING_AVERAGE,
        model_version=1,
        mastered_at=None,
    ),
)


class Store:
    """A recorder that has stored everything already."""

    async def record(self, _tenant: int, submissions: Sequence[Submission], **_: Any) -> list[Answer]:
        """Accepted, all of them."""
        return [Answer(Status.ACCEPTED, ID, place, NOW, b"") for place, _ in enumerate(submissions, 1)]


@strawberry.type
class Feed:
    """The real message, over and over."""

    @strawberry.subscription
    @allow(*PEOPLE)
    async def mastery_changed(self, _info: Info) -> AsyncGenerator[MasteryMessage, None]:
        """As many as a turn has."""
        for _ in range(MESSAGES):
            yield MESSAGE


def _context() -> Context:
    engine = Engine(clock=lambda: NOW, pool=None, recorder=Store(), wake=None, live=None)  # type: ignore[arg-type]
    expires_at = NOW + timedelta(hours=1)
    roles, scopes = frozenset({Role.INTEGRATOR, Role.TEACHER}), frozenset({Scope.INGEST})
    return begin(engine, Viewer(tenant=1, key="lms", roles=roles, scopes=scopes, expires_at=expires_at), "bench")


async def run(size: str) -> Figures:
    """Measure."""
    schema = strawberry.Schema(ServiceQuery, RecordingMutation, Feed, config=StrawberryConfig(scalar_map=SCALARS))
    documents = Documents(schema)
    batch = list(islice(events(SPREAD.everyone, name="bench"), BATCH))

    async def told(plan: Plan, variables: dict[str, Any]) -> None:
        answer = await documents.execute(plan, variables, _context())
        assert not answer.errors, answer.errors

    async def heard(plan: Plan) -> None:
        async for answer in documents.subscribe(plan, {}, _context()):
            assert not answer.errors, answer.errors

    single, bulk, watch = (documents.plan(text, None) for text in (RECORD_EVENT, RECORD_EVENTS, WATCH))
    works: dict[str, tuple[Plan, Callable[[Plan], Awaitable[None]], int, int]] = {
        "a single recordEvent": (single, lambda plan: told(plan, {"input": batch[0]}), SINGLES, 1),
        f"an event of a batch of {BATCH:,}": (
            bulk,
            lambda plan: told(plan, {"input": {"events": batch}}),
            BATCHES,
            BATCH,
        ),
        "a pushed masteryChanged message": (watch, heard, 1, MESSAGES),
    }
    figures: Figures = {"postgres": "none", "claims": []}
    for name, (plan, work, times, parts) in works.items():
        walked = replace(plan, mutation=None, subscription=None)
        found: dict[str, list[float]] = {"compiled": [], "by graphql-core": []}
        for turn in range(TURNS[size] + 1):
            for path, chosen in zip(found, (plan, walked), strict=True):
                used = await _measured(work, chosen, times)
                if turn:  # the first turn warms up
                    found[path].append(used / times / parts * 1e6)
        figures["claims"] += [claim(f"{name}, {path}", median(all_of), unit="us") for path, all_of in found.items()]
    assert documents.tally.compiled > 0
    return figures


async def _measured(work: Callable[[Plan], Awaitable[None]], plan: Plan, times: int) -> float:
    started = process_time()
    for _ in range(times):
        await work(plan)
    return process_time() - started


if __name__ == "__main__":
    print(*asyncio.run(run("small"))["claims"], sep="\n")
