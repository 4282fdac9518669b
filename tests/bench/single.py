"""Single `recordEvent` at 64 keep-alive connections: how many a second, and how long each waits.

Each request is one new event of one student (spread over 40 classes of 30) in its own HTTP request, sent by an
integrator; its answer means committed on a durable Postgres. A worker folds meanwhile, as in service. The loop is
closed (a connection sends its next event once the last is answered), so the rate is what one api process gives at that
concurrency. The client is a process of its own that sends prepared bytes, and its CPU is not the service's.
"""

from rules.access import Role
from tests.bench.driver import Load
from tests.bench.figures import Figures, claim, milliseconds
from tests.bench.orders import Job
from tests.bench.school import SPREAD, settle, token_of
from tests.bench.service import Service, spent

TENANT = 1
CONNECTIONS = 64
REQUESTS = {"small": 80, "full": 1_200}  # of each connection
WARM_UP = 20
RECENT = 25_000_000  # the number of an event of about yesterday: see school.BEGAN
LIMIT_MS = 100.0


async def run(size: str) -> Figures:
    """Measure."""
    async with Service() as service:
        await settle(service.connection, TENANT, SPREAD)
        job = Job(
            kind="send",
            out="",
            port=service.port,
            shape=(SPREAD.classes, SPREAD.students),
            tokens={"": token_of(TENANT, Role.INTEGRATOR, "lms")},
            lanes=CONNECTIONS,
        )
        loads = []
        for name, requests in (("warm", WARM_UP), ("told", REQUESTS[size])):
            job.name, job.requests = name, requests
            job.first = RECENT if name == "warm" else RECENT + WARM_UP
            loads.append(await Load.start(service.folder, job))
        await loads[0].tell()
        await loads[0].seen()
        await service.until_folded(TENANT)
        before = service.cpu_seconds()
        await loads[1].tell()
        seen = await loads[1].seen()
        cpu = spent(before, service.cpu_seconds())
        await service.until_folded(TENANT)
        service.check()
        version = await service.postgres_version()
    count = CONNECTIONS * REQUESTS[size]
    assert seen.accepted == count, f"expected {count} accepted events, got {seen.accepted}"
    waits = milliseconds(seen.seconds)
    rate = round(count / (seen.ended - seen.started))
    return {
        "postgres": version,
        "claims": [
            claim("p95 of recordEvent at 64 connections", waits["p95"], unit="ms", limit=LIMIT_MS),
            claim("p50", waits["p50"], unit="ms"),
            claim("p99", waits["p99"], unit="ms"),
            claim("events recorded a second", rate),
        ],
        "events": count,
        "seconds": round(seen.ended - seen.started, 3),
        "milliseconds": waits,
        "cpu_microseconds_per_event": {part: round(used / count * 1e6, 1) for part, used in cpu.items()},
    }
