"""Paced 1,000 and 5,000 events a second: how long from the accepted answer to the frame on a `masteryChanged` socket.

`recordEvents` requests at fixed moments whether or not the earlier ones are answered (50 of 20 events, or 100 of 50,
each second), over 40 classes of 30 students; every event is evidence, so every event changes a standing. One process
sends, others hold sockets, each with its class's teacher's token, and read frames; all use the machine's monotonic
clock. An event's wait begins when its sender has read the answer and ends when the watcher has read the first frame
whose `evidenceCount` covers it; a stream of state may tell several events of one standing in one frame, and each of
them is counted. A frame that overtakes its answer counts as 0. Events of the first second are sent and not counted.

`masteryChanged` is a stream of state, told at most every 20 to 100 ms for each socket, the longer the more there is to
do: at 5,000 events a second every class moves all the time, so that this pause is part of many waits. Beside it stand
the two streams that tell each change at once: `eventRecorded` (4 classes), from the answer to the frame, and
`riskFlagChanged` (all classes), from `at`, the wall-clock moment inside the fold, before its commit, to the frame: more
than 003-40 asks about, never less.
At 1,000 events a second all 40 classes have a `masteryChanged` socket, at 5,000 every fourth: the reader of the frames
shares the two cores, and 5,000 frames a second would measure it instead of the service.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rules.access import Role
from tests.bench.driver import Load
from tests.bench.figures import Figures, claim, milliseconds
from tests.bench.orders import Job, Seen
from tests.bench.school import SPREAD, settle, teacher_of, token_of
from tests.bench.service import Service, free_port, spent

TENANT = 1
SECONDS = {"small": 5, "full": 25}
WARM_UP_SECONDS = 1.0
RECENT = 25_000_000


@dataclass(frozen=True, slots=True)
class Pace:
    """One run: how much is sent, who watches, and what p95 may be."""

    requests_per_second: int
    batch: int
    watched: dict[str, int]  # by subscription, how many classes; 0 is all
    limit_ms: float

    @property
    def name(self) -> str:
        """As it stands in the claims."""
        return f"{self.requests_per_second * self.batch:,} events/s"


PACES = (
    Pace(50, 20, {"masteryChanged": 0}, limit_ms=250.0),
    Pace(100, 50, {"masteryChanged": 10, "eventRecorded": 4, "riskFlagChanged": 0}, limit_ms=100.0),
)


async def run(size: str) -> Figures:
    """Measure each pace on a service of its own."""
    figures: Figures = {"claims": []}
    for pace in PACES:
        found = await _paced(pace, SECONDS[size])
        figures["postgres"] = found.pop("postgres")
        figures["claims"] += found.pop("claims")
        figures[pace.name] = found
    return figures


async def _paced(pace: Pace, seconds: int) -> dict[str, Any]:
    async with Service(settings={"METRICS_PORT": str(free_port())}) as service:
        await settle(service.connection, TENANT, SPREAD)
        shape = (SPREAD.classes, SPREAD.students)
        teachers = {c: token_of(TENANT, Role.TEACHER, teacher_of(c)) for c in SPREAD.classrooms}
        watchers = {
            field: await Load.start(
                service.folder,
                Job(
                    kind="watch",
                    out="",
                    port=service.port,
                    shape=shape,
                    tokens=teachers,
                    field=field,
                    watched=classes,
                ),
            )
            for field, classes in pace.watched.items()
        }
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
                batch=pace.batch,
                requests=pace.requests_per_second * seconds,
                per_second=pace.requests_per_second,
                is_evidence_only=True,
            ),
        )
        before = service.cpu_seconds()
        for watcher in watchers.values():
            await watcher.tell()
        await sender.tell()
        sent = await sender.seen()
        cpu = spent(before, service.cpu_seconds())
        await service.until_folded(TENANT)
        for watcher in watchers.values():
            await watcher.tell()
        seen = {field: await watcher.seen() for field, watcher in watchers.items()}
        folds = _folds(await service.worker_numbers())
        service.check()
        version = await service.postgres_version()
    count = pace.requests_per_second * seconds * pace.batch
    assert sent.accepted == count, f"expected {count} accepted events, got {sent.accepted}"
    found = _told(pace, sent, seen)
    visible = claim(f"{pace.name}: from stored to visible, mean of each batch's oldest", folds["visible_ms"], unit="ms")
    fold = claim(f"{pace.name}: a fold, from claim to commit, mean", folds["fold_ms"], unit="ms")
    found["claims"] += [visible, fold]
    return {"postgres": version, **found, "folds": folds, "cpu_share_of_a_core": _shares(cpu, sent)}


def _told(pace: Pace, sent: Seen, seen: dict[str, Seen]) -> dict[str, Any]:
    """The claims of one pace, and the distributions behind them."""
    waits = {"masteryChanged": _mastery_waits(sent, seen["masteryChanged"], pace.watched["masteryChanged"])}
    if "eventRecorded" in seen:
        waits["eventRecorded"] = _event_waits(sent, seen["eventRecorded"])
        waits["riskFlagChanged"] = seen["riskFlagChanged"].flag_seconds
    pushed = {field: milliseconds(found) for field, found in waits.items()}
    answered, mastery = milliseconds(sent.seconds), pushed["masteryChanged"]
    claims = [
        claim(f"p95 from accepted to pushed at {pace.name}", mastery["p95"], unit="ms", limit=pace.limit_ms),
        claim(f"{pace.name}: p50", mastery["p50"], unit="ms"),
        claim(f"{pace.name}: p99", mastery["p99"], unit="ms"),
        claim(f"{pace.name}: p95 from request to answer", answered["p95"], unit="ms"),
        claim(f"{pace.name}: events accepted a second", round(sent.accepted / (sent.ended - sent.started))),
    ]
    if pushed.get("eventRecorded"):
        claims.append(claim(f"{pace.name}: p95 of `eventRecorded`", pushed["eventRecorded"]["p95"], unit="ms"))
    if pushed.get("riskFlagChanged"):
        claims.append(claim(f"{pace.name}: p95 of `riskFlagChanged`", pushed["riskFlagChanged"]["p95"], unit="ms"))
    return {
        "claims": claims,
        "events": sent.accepted,
        "frames": {field: len(found) for field, found in waits.items()},
        "pushed_milliseconds": pushed,
        "answered_milliseconds": answered,
        "late_start_milliseconds": milliseconds(sent.late_seconds),  # how far the sender itself was behind
    }


def _folds(counted: dict[str, float]) -> dict[str, float]:
    """Where the time before the push goes: how long rows wait for their fold, how long it takes, how much it takes in.

    What is left of a wait is the push: the message over Redis, the stream's pause, its read, its frame.
    """
    batches = counted["worker_batch_seconds_count"]
    return {
        "batches": batches,
        "rows_per_batch": round(counted["worker_rows_folded_total"] / batches, 1),
        "fold_ms": round(counted["worker_batch_seconds_sum"] / batches * 1_000, 1),
        "visible_ms": round(counted["worker_latency_seconds_sum"] / counted["worker_latency_seconds_count"] * 1_000, 1),
    }


def _shares(cpu: dict[str, float], sent: Seen) -> dict[str, float]:
    return {part: round(used / (sent.ended - sent.started), 3) for part, used in cpu.items()}


def _mastery_waits(sent: Seen, watched: Seen, classes: int) -> list[float]:
    """Each counted event's wait, of the watched classes. Raises AssertionError for one that was never pushed."""
    frames: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for student, concept, evidence, at in watched.frames:
        frames[student, concept].append((evidence, at))
    followed = {s for c in SPREAD.classrooms[: classes or None] for s in SPREAD.students_of(c)}
    waits, missing = [], 0
    for student, concept, evidence, at in sent.answered:
        if student not in followed:
            continue
        pushed = _first(frames[student, concept], evidence)
        if pushed is None:
            missing += 1
        elif at - sent.started >= WARM_UP_SECONDS:
            waits.append(max(0.0, pushed - at))
    assert not missing, f"{missing} events were never pushed"
    return waits


def _event_waits(sent: Seen, watched: Seen) -> list[float]:
    """The wait of each event that was pushed as such; the watched classes are few, so most were not."""
    assert watched.recorded, "expected events on `eventRecorded`"
    waits = [(sent.sent[event], at) for event, at in watched.recorded.items()]
    return [max(0.0, at - answered) for answered, at in waits if answered - sent.started >= WARM_UP_SECONDS]


def _first(frames: Sequence[tuple[int, float]], evidence: int) -> float | None:
    return next((at for told, at in frames if told >= evidence), None)
