"""Paced 1,000 events a second: how long from the accepted answer to the frame on a `masteryChanged` socket.

50 `recordEvents` requests a second of 20 events each, at fixed moments whether or not the earlier ones are answered,
over 40 classes of 30 students; every event is evidence, so every event changes a standing. One process sends, another
holds one socket a class with its teacher's token and reads frames; both use the machine's monotonic clock. An event's
wait begins when its sender has read the answer and ends when the watcher has read the first frame whose `evidenceCount`
covers it; a stream of state may tell several events of one standing in one frame, and each of them is counted. A frame
that overtakes its answer counts as 0. Warm-up events (the first second) are sent and not counted.
"""

from collections import defaultdict
from collections.abc import Sequence

from rules.access import Role
from tests.bench.driver import Load
from tests.bench.figures import Figures, claim, milliseconds
from tests.bench.load import Job, Seen
from tests.bench.school import SPREAD, settle, teacher_of, token_of
from tests.bench.service import Service, spent

TENANT = 1
REQUESTS_PER_SECOND = 50
BATCH = 20
SECONDS = {"small": 5, "full": 25}
WARM_UP_SECONDS = 1.0
RECENT = 25_000_000
LIMIT_MS = 250.0


async def run(size: str) -> Figures:
    """Measure."""
    async with Service() as service:
        await settle(service.connection, TENANT, SPREAD)
        shape = (SPREAD.classes, SPREAD.students)
        teachers = {c: token_of(TENANT, Role.TEACHER, teacher_of(c)) for c in SPREAD.classrooms}
        watcher = await Load.start(
            service.folder, Job(kind="watch", out="", port=service.port, shape=shape, tokens=teachers)
        )
        sender = await Load.start(
            service.folder,
            Job(
                kind="pace",
                out="",
                port=service.port,
                shape=shape,
                tokens={"": token_of(TENANT, Role.INTEGRATOR, "lms")},
                name="push",
                first=RECENT,
                batch=BATCH,
                requests=REQUESTS_PER_SECOND * SECONDS[size],
                per_second=REQUESTS_PER_SECOND,
                is_evidence_only=True,
            ),
        )
        before = service.cpu_seconds()
        await watcher.tell()
        await sender.tell()
        sent = await sender.seen()
        cpu = spent(before, service.cpu_seconds())
        await service.until_folded(TENANT)
        await watcher.tell()
        watched = await watcher.seen()
        service.check()
        version = await service.postgres_version()
    count = REQUESTS_PER_SECOND * SECONDS[size] * BATCH
    assert sent.accepted == count, f"expected {count} accepted events, got {sent.accepted}"
    waits, missing = _waits(sent, watched)
    assert not missing, f"{missing} of {count} events were never pushed"
    pushed, answered = milliseconds(waits), milliseconds(sent.seconds)
    return {
        "postgres": version,
        "claims": [
            claim("p95 from accepted to pushed at 1,000 events/s", pushed["p95"], unit="ms", limit=LIMIT_MS),
            claim("p50", pushed["p50"], unit="ms"),
            claim("p99", pushed["p99"], unit="ms"),
            claim("p95 from request to answer", answered["p95"], unit="ms"),
            claim("events accepted a second", round(count / (sent.ended - sent.started))),
        ],
        "events": count,
        "frames": len(watched.frames),
        "pushed_milliseconds": pushed,
        "answered_milliseconds": answered,
        "late_start_milliseconds": milliseconds(sent.late_seconds),  # how far the sender itself was behind
        "cpu_share_of_a_core": {part: round(used / (sent.ended - sent.started), 3) for part, used in cpu.items()},
    }


def _waits(sent: Seen, watched: Seen) -> tuple[list[float], int]:
    """Each counted event's wait, and how many were never pushed."""
    frames: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for student, concept, evidence, at in watched.frames:
        frames[student, concept].append((evidence, at))
    waits, missing = [], 0
    for student, concept, evidence, at in sent.answered:
        pushed = _first(frames[student, concept], evidence)
        if pushed is None:
            missing += 1
        elif at - sent.started >= WARM_UP_SECONDS:
            waits.append(max(0.0, pushed - at))
    return waits, missing


def _first(frames: Sequence[tuple[int, float]], evidence: int) -> float | None:
    return next((at for told, at in frames if told >= evidence), None)
