"""The peers in Python: lines of NDJSON behind one route with the service's own statement, and Strawberry as it comes.

`python -m tests.bench.peer.bare` serves both. Neither asks for a token, judges an event or folds anything: the first is
the least that a bulk endpoint can be, the second what its documentation shows. Their rows are the service's.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import strawberry
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from strawberry.asgi import GraphQL

from db.evidence import CONCEPT_SEPARATOR, RECORD, fresh_ids
from db.outbox import shard_of
from rules.kinds import CORRECTION_KINDS
from server.serving import UVICORN

GRADED = frozenset({"SUBMISSION_GRADED", "QUIZ_ATTEMPT"})
FINGERPRINT_BYTES = 16
INSERT = (Path(__file__).parent / "insert.sql").read_text()  # the one that the peer in Node has


class Line(msgspec.Struct, rename="camel", gc=False):
    """One event of an NDJSON body."""

    event_id: str
    source: str
    occurred_at: datetime
    student_id: str
    type: str
    classroom_id: str = ""
    assignment_id: str | None = None
    content_id: str | None = None
    submission_id: str | None = None
    concept_ids: list[str] = []
    score: float | None = None
    max_score: float | None = None


_lines = msgspec.json.Decoder(Line).decode_lines
_encode = msgspec.json.Encoder().encode


def _ratio(kind: str, score: float | None, max_score: float | None) -> int | None:
    return round(score / max_score * 1_000_000) if kind in GRADED and score is not None and max_score else None


def _payload(score: float | None, max_score: float | None, content: str | None) -> str:
    return _encode({"score": score, "maxScore": max_score, "contentId": content}).decode()


def _columns(raw: bytes, lines: list[Line], ids: list[Any]) -> list[list[Any]]:
    """$4 to $28 of RECORD, sorted by key."""
    order = sorted(range(len(lines)), key=lambda place: (lines[place].source, lines[place].event_id))
    texts = raw.split(b"\n")
    sent = [lines[place] for place in order]
    none = [None] * len(sent)
    return [
        [ids[place] for place in order],
        [e.source for e in sent],
        [e.event_id for e in sent],
        [blake2b(texts[place], digest_size=FINGERPRINT_BYTES).digest() for place in order],
        [place + 1 for place in order],
        [e.type for e in sent],
        none,
        [e.occurred_at for e in sent],
        [0] * len(sent),
        [e.student_id for e in sent],
        [e.classroom_id for e in sent],
        [e.assignment_id for e in sent],
        none,
        [CONCEPT_SEPARATOR.join(e.concept_ids) for e in sent],
        [_ratio(e.type, e.score, e.max_score) for e in sent],
        [e.submission_id for e in sent],
        none,
        none,
        none,
        none,
        [False] * len(sent),
        [_payload(e.score, e.max_score, e.content_id) for e in sent],
        ["peer"] * len(sent),
        [shard_of(classroom=e.classroom_id, student=e.student_id) for e in sent],
        [0] * len(sent),
    ]


async def record_lines(request: Request) -> Response:
    """One statement for the whole body; a line of answer for each line, in order."""
    pool, tenant = request.app.state.pool, request.app.state.tenant
    raw = (await request.body()).rstrip()
    lines = _lines(raw)
    now = datetime.now(UTC)
    ids = fresh_ids(len(lines), now)
    async with pool.acquire() as connection:
        rows = await connection.fetch(
            RECORD, tenant, len(lines), now, *_columns(raw, lines, ids), None, sorted(CORRECTION_KINDS)
        )
    stored = {place - 1: seq for seq, place in rows}
    answers = [
        {"status": "ACCEPTED", "id": str(ids[place]), "seq": stored[place]}
        if place in stored
        else {"status": "DUPLICATE"}
        for place in range(len(lines))
    ]
    return Response(msgspec.json.Encoder().encode_lines(answers), media_type="application/x-ndjson")


@strawberry.input
class RecordEventInput:
    """An event."""

    event_id: strawberry.ID
    source: str
    occurred_at: datetime
    student_id: strawberry.ID
    type: str
    classroom_id: strawberry.ID = strawberry.ID("")
    assignment_id: strawberry.ID | None = None
    content_id: strawberry.ID | None = None
    submission_id: strawberry.ID | None = None
    concept_ids: list[strawberry.ID] | None = None
    score: float | None = None
    max_score: float | None = None


@strawberry.type
class RecordedEvent:
    """Its receipt."""

    id: strawberry.ID
    seq: str


@strawberry.type
class RecordError:
    """What is wrong with it."""

    code: str
    field: list[str] | None
    message: str


@strawberry.type
class RecordEventPayload:
    """What became of it."""

    status: str
    event: RecordedEvent | None
    errors: list[RecordError]


@strawberry.type
class Query:
    """A schema must have one."""

    ready: bool = True


@strawberry.type
class Mutation:
    """The one mutation."""

    @strawberry.mutation
    async def record_event(self, info: strawberry.Info, input: RecordEventInput) -> RecordEventPayload:
        """Insert per request: the statement is the transaction."""
        state = info.context["request"].app.state
        row = await state.pool.fetchrow(INSERT, *_values(state.tenant, input))
        if row is None:
            return RecordEventPayload(status="DUPLICATE", event=None, errors=[])
        event = RecordedEvent(id=strawberry.ID(str(row["id"])), seq=str(row["seq"]))
        return RecordEventPayload(status="ACCEPTED", event=event, errors=[])


def _values(tenant: int, sent: RecordEventInput) -> list[Any]:
    fingerprint = blake2b(repr(sent).encode(), digest_size=FINGERPRINT_BYTES).digest()
    return [
        tenant,
        sent.source,
        sent.event_id,
        fingerprint,
        datetime.now(UTC),
        sent.type,
        sent.occurred_at,
        sent.student_id,
        sent.classroom_id,
        sent.assignment_id,
        sent.concept_ids or [],
        _ratio(sent.type, sent.score, sent.max_score),
        sent.submission_id,
        _payload(sent.score, sent.max_score, sent.content_id),
        shard_of(classroom=sent.classroom_id, student=sent.student_id),
    ]


async def ready(_request: Request) -> Response:
    """It answers."""
    return JSONResponse({"ready": True})


@asynccontextmanager
async def _opened(app: Starlette) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=2, max_size=16) as pool:
        app.state.pool, app.state.tenant = pool, int(os.environ["PEER_TENANT"])
        yield


def main() -> None:
    """Serve until told to stop, with the settings of the service's own uvicorn."""
    schema = strawberry.Schema(Query, Mutation)
    app = Starlette(
        routes=[
            Route("/events", record_lines, methods=["POST"]),
            Route("/graphql", GraphQL(schema), methods=["POST"]),
            Route("/ready", ready),
        ],
        lifespan=_opened,
    )
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", **UVICORN)


if __name__ == "__main__":
    main()
