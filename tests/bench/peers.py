"""The service against others that do the same: mercurius, a bare NDJSON endpoint, Strawberry as it comes, and itself.

All stand on one durable Postgres, write the same rows into the same tables (key, log, outbox in one transaction), and
are loaded by `wrk` at 32 connections (4 for batches), one leg of each after the other, over and over; a ratio is the
median of those of the rounds. No worker folds, for the peers have none, and the outbox is emptied between legs. The
peers ask for no token and judge next to nothing (`tests/bench/peer/`), the service does all that it does. Mercurius,
with graphql-jit, inserts in two ways: a transaction for each request, with positions from a sequence, and by the
service's own statement with the service's own group commit. What a request needs of CPU is that of the answering
process alone.

The dashboard is 30 students with 30 concepts each, the same JSON from both; the peer reads it by loaders, as it comes
and compiled by graphql-jit. Telemetry on is a log line for each request, 1 in 100 traced, and metrics.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec

from db.evidence import RECORD
from rules.access import Role
from tests.bench import wrk
from tests.bench.figures import Figures, claim, median
from tests.bench.orders import RECORD_EVENT, RECORD_EVENTS
from tests.bench.school import BEGAN, SOURCE, SPREAD, events, settle, teacher_of, token_of
from tests.bench.service import Service, free_port, spent
from tests.bench.wrk import Told

TENANT = 1
CONNECTIONS = 32
BATCH = 500
IMPORTERS = 4  # connections that send batches, as importers do: 32 would hold 16,000 events in every queue
ROUNDS = {"small": 1, "full": 5}
SECONDS = {"small": 2, "full": 4}  # of a leg
WARM_UP_SECONDS = {"small": 2, "full": 3}
BODIES = 500  # prepared single events, sent in turns under ever new ids
BATCHES = 20
RECENT = 25_000_000
PEER = Path(__file__).parent / "peer"
SQUARE = 30  # students, and concepts of each
CLASSROOM = SPREAD.classrooms[0]
BOARD = """
query Board($id: ID!) {
  classroom(id: $id) {
    key name
    roster(first: 30) {
      nodes {
        personId role
        student {
          key displayName
          mastery(classroomId: $id, first: 30) { nodes { concept { key name } score state evidenceCount } }
        }
      }
    }
  }
}
"""
NAMES = "insert into person (tenant, person, display_name) select $1, p, 'Name of ' || p from unnest($2::text[]) as p"
CONCEPTS = """
insert into concept (tenant, concept, subject, name)
select $1, 'square-' || to_char(n, 'FM00'), 'math', 'Square ' || n from generate_series(1, $2::int) as n
"""
STANDINGS = """
insert into standing (
    tenant, student, classroom, concept, count, earlier_sum, newest, successes, quiz_attempts, score, last_evidence_at,
    rank, best, latest, time_spent_ms, last_accessed_at, policy_version, class_change, student_change)
select $1, s.student, $2, 'square-' || to_char(n, 'FM00'), 1 + (n + s.place) % 5, 400000, 900000, 0, 0,
    (n * 37 + s.place * 61) % 1001, $4, 1, 900000, 900000, 1000, $4, 1, 1, 1
from unnest($3::text[]) with ordinality as s (student, place), generate_series(1, $5::int) as n
"""


STORED = """
select count(*) from event_key k where k.tenant = $1 and k.source = $2 and k.event_id >= $3 and k.event_id < $4
"""


@dataclass(slots=True)
class Rival:
    """One side of a comparison: where it answers, and what its legs gave."""

    name: str  # of its process
    address: str
    bodies: Path
    token: str = ""
    batch: int = 1  # events a request; 0 for reads
    connections: int = CONNECTIONS
    told: list[Told] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)  # of the answering process, for each request

    def figures(self) -> Figures:
        """What is kept of it."""
        return {
            "requests_per_second": median([leg.per_second for leg in self.told]),
            "cpu_microseconds_per_request": median(self.cpu_us),
            "p50_ms": median([leg.p50_ms for leg in self.told]),
            "p95_ms": median([leg.p95_ms for leg in self.told]),
        }


def faster(ours: Rival, theirs: Rival) -> float:
    """How many requests we answer while they answer one: the median of the rounds."""
    return median([a.per_second / b.per_second for a, b in zip(ours.told, theirs.told, strict=True)])


def cpu_share(ours: Rival, theirs: Rival) -> float:
    """The CPU of our request in those of theirs."""
    return median([a / b for a, b in zip(ours.cpu_us, theirs.cpu_us, strict=True)])


class Ring:
    """A service with its rivals beside it."""

    def __init__(self, service: Service, size: str) -> None:
        self._service = service
        self._size = size
        self._legs = 0

    async def fight(self, *rivals: Rival) -> None:
        """Warm all up, then let each have a leg, round after round."""
        for rival in rivals:
            await self._leg(rival, WARM_UP_SECONDS[self._size])
            rival.told.clear()
            rival.cpu_us.clear()
        for _ in range(ROUNDS[self._size]):
            for rival in rivals:
                await self._leg(rival, SECONDS[self._size])

    async def _leg(self, rival: Rival, seconds: int) -> None:
        self._legs += 1
        bodies = self._service.folder / "leg.bodies"
        bodies.write_bytes(rival.bodies.read_bytes().replace(b"@", f"leg{self._legs}".encode()))
        connection = self._service.connection
        await connection.execute("truncate outbox")
        await connection.execute("checkpoint")
        before = self._service.cpu_seconds()
        told = await wrk.load(rival.address, bodies, token=rival.token, connections=rival.connections, seconds=seconds)
        cpu = spent(before, self._service.cpu_seconds())
        self._service.check()
        rival.told.append(told)
        assert told.requests, f"{rival.name} answered nothing in {seconds} s"
        rival.cpu_us.append(cpu[rival.name] / told.requests * 1e6)
        if rival.batch:
            # An answer means a row; a connection's last request may be stored with nobody left to hear of it.
            stored = await connection.fetchval(STORED, TENANT, SOURCE, f"leg{self._legs}-", f"leg{self._legs}.")
            least, most = told.requests * rival.batch, (told.requests + rival.connections) * rival.batch
            assert least <= stored <= most, f"{rival.name}: expected {least} to {most} events, got {stored}"


async def run(size: str) -> Figures:
    """Measure."""
    async with Service(kinds=("api",)) as service:
        await _furnish(service.connection)
        ports = await _rivals(service)
        ring = Ring(service, size)
        told = _bodies(service.folder)
        tokens = {"api": token_of(TENANT, Role.INTEGRATOR, "lms"), "teacher": _teacher()}
        found = [
            *await _singles(ring, ports, told, tokens),
            *await _bulk(ring, ports, told, tokens),
            *await _boards(ring, ports, told, tokens),
            *await _telemetry(ring, ports, told, tokens),
        ]
        version = await service.postgres_version()
    claims = [one for part in found for one in part["claims"]]
    return {"postgres": version, "load": "wrk", "claims": claims,
            "rivals": {name: kept for part in found for name, kept in part["rivals"].items()}}  # fmt: skip


def _teacher() -> str:
    return token_of(TENANT, Role.TEACHER, teacher_of(CLASSROOM))


async def _furnish(connection: asyncpg.Connection) -> None:
    """A school, a sequence for those who have no group commit, and a class whose every cell is filled."""
    await settle(connection, TENANT, SPREAD)
    await connection.execute("create sequence peer_seq start 1000000000 cache 100")
    students = SPREAD.students_of(CLASSROOM)
    await connection.execute(NAMES, TENANT, students)
    await connection.execute(CONCEPTS, TENANT, SQUARE)
    await connection.execute(STANDINGS, TENANT, CLASSROOM, students, BEGAN + timedelta(days=1), SQUARE)
    await connection.execute("analyze")


async def _rivals(service: Service) -> dict[str, int]:
    """Start everyone; the port of each, by name."""
    told: dict[str, Any] = {"PEER_TENANT": str(TENANT), "PEER_RECORD": RECORD, "NODE_ENV": "production"}
    node, ports = ("node", "server.js"), {"api": service.port}
    for name, commit, jit in (("per request", "request", "1"), ("grouped", "group", "1"), ("no jit", "request", "0")):
        ports[name] = await service.beside(name, node, cwd=PEER, PEER_COMMIT=commit, PEER_JIT=jit, **told)
    ports["bare"] = await service.beside("bare", (sys.executable, "-m", "tests.bench.peer.bare"), **told)
    service.talkative.add("watched")
    ports["watched"] = await service.beside(
        *("watched", (sys.executable, "-m", "server", "api", "--end-with", str(os.getpid()))),
        LOG_LEVEL="INFO",
        TRACE_ENABLED="true",
        METRICS_PORT=str(free_port()),
    )
    return ports


def _bodies(folder: Path) -> dict[str, Path]:
    """What is sent: `@` becomes the leg and `#` the number of the request, so that no event comes twice."""
    single = list(islice(events(SPREAD.everyone, name="@-#-", first=RECENT), BODIES))
    many = [list(islice(events(SPREAD.everyone, name="@-#-", first=RECENT + n * BATCH), BATCH)) for n in range(BATCHES)]
    kept = {
        "single": [_asked(RECORD_EVENT, {"input": event}) for event in single],
        "batch": [_asked(RECORD_EVENTS, {"input": {"events": batch}}) for batch in many],
        "lines": [b"\n".join(msgspec.json.encode(event) for event in batch) for batch in many],
        "board": [_asked(BOARD, {"id": CLASSROOM})],
    }
    paths = {name: folder / f"{name}.bodies" for name in kept}
    for name, bodies in kept.items():
        wrk.write_bodies(paths[name], bodies)
    return paths


def _asked(document: str, variables: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"query": document, "variables": variables})


def _graphql(port: int) -> str:
    return f"http://127.0.0.1:{port}/graphql"


def _part(claims: Sequence[Figures], **rivals: Rival) -> Figures:
    return {"claims": list(claims), "rivals": {name: rival.figures() for name, rival in rivals.items()}}


async def _singles(ring: Ring, ports: dict[str, int], told: dict[str, Path], tokens: dict[str, str]) -> list[Figures]:
    ours = Rival("api", _graphql(ports["api"]), told["single"], tokens["api"])
    each, plain, grouped, stock = (
        Rival(name, _graphql(ports[name]), told["single"]) for name in ("per request", "no jit", "grouped", "bare")
    )
    await ring.fight(ours, each, plain, grouped, stock)
    claims = [
        claim("single recordEvent / mercurius, a transaction for each request", faster(ours, each), least=1.5),
        claim("and its CPU in mercurius's", cpu_share(ours, each), limit=0.6),
        claim("the same, mercurius without graphql-jit", faster(ours, plain)),
        claim("and its CPU in that", cpu_share(ours, plain)),
        claim("single recordEvent / mercurius, with the same group commit", faster(ours, grouped), least=0.6),
        claim("and its CPU in mercurius's, grouped", cpu_share(ours, grouped)),
        claim("single recordEvent / stock Strawberry + asyncpg", faster(ours, stock), least=10),
    ]
    rivals = {"mercurius_per_request": each, "mercurius_no_jit": plain, "mercurius_grouped": grouped}
    return [_part(claims, record_event=ours, **rivals, strawberry=stock)]


async def _bulk(ring: Ring, ports: dict[str, int], told: dict[str, Path], tokens: dict[str, str]) -> list[Figures]:
    ours = Rival("api", _graphql(ports["api"]), told["batch"], tokens["api"], batch=BATCH, connections=IMPORTERS)
    bare = Rival("bare", f"http://127.0.0.1:{ports['bare']}/events", told["lines"], batch=BATCH, connections=IMPORTERS)
    await ring.fight(ours, bare)
    claims = [
        claim(f"recordEvents of {BATCH} / bare NDJSON with the same insert", faster(ours, bare), least=0.8),
        claim("and its CPU in the endpoint's", cpu_share(ours, bare)),
    ]
    return [_part(claims, record_events=ours, ndjson=bare)]


async def _boards(ring: Ring, ports: dict[str, int], told: dict[str, Path], tokens: dict[str, str]) -> list[Figures]:
    ours = Rival("api", _graphql(ports["api"]), told["board"], tokens["teacher"], batch=0)
    loaders, jit = (Rival(name, _graphql(ports[name]), told["board"], batch=0) for name in ("no jit", "per request"))
    await ring.fight(ours, loaders, jit)
    # Afterwards, for by then each has compiled what it compiles.
    assert len({await _answer(rival) for rival in (ours, loaders, jit)}) == 1, "the boards are not the same"
    claims = [
        claim(f"dashboard {SQUARE} x {SQUARE} / mercurius + loaders", faster(ours, loaders), least=2),
        claim(f"dashboard {SQUARE} x {SQUARE} / mercurius + loaders, compiled by graphql-jit", faster(ours, jit)),
    ]
    return [_part(claims, dashboard=ours, mercurius_loaders=loaders, mercurius_jit=jit)]


async def _answer(rival: Rival) -> bytes:
    """The one answer of a board, its keys sorted."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {rival.token or 'nobody'}"}
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(rival.address, content=rival.bodies.read_bytes(), headers=headers)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert len(body["data"]["classroom"]["roster"]["nodes"]) == SQUARE, body
    return msgspec.json.encode(body, order="deterministic")


async def _telemetry(ring: Ring, ports: dict[str, int], told: dict[str, Path], tokens: dict[str, str]) -> list[Figures]:
    off, on = (Rival(name, _graphql(ports[name]), told["single"], tokens["api"]) for name in ("api", "watched"))
    await ring.fight(off, on)
    percent = round((cpu_share(on, off) - 1) * 100, 1)
    claims = [
        claim("telemetry on: more CPU of the api for a single recordEvent", percent, unit="%", limit=10),
        claim("telemetry on / off, requests a second", faster(on, off)),
    ]
    return [_part(claims, telemetry_off=off, telemetry_on=on)]
