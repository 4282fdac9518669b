"""A process that loads or watches the service, so that the client costs the measured processes nothing but a core.

`python -m tests.bench.load JOB` prepares all it will send, says "ready", waits for a line, does the job and writes what
it saw. All moments are of the machine's monotonic clock, which every process on it shares.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.bench.school import Shape, events
from tests.bench.wire import Lane, request_of

RECORD_EVENTS = """
mutation Record($input: RecordEventsInput!) {
  recordEvents(input: $input) {
    results { status errors { code field message } }
    errors { code field message }
  }
}
"""
RECORD_EVENT = """
mutation Record($input: RecordEventInput!) {
  recordEvent(input: $input) { status event { id seq } errors { code field message } }
}
"""
MASTERY_CHANGED = """
subscription Watch($classroom: ID!) {
  masteryChanged(classroomId: $classroom) {
    kind resumeToken studentId mastery { concept { key name } score state evidenceCount }
  }
}
"""
ACCEPTED = b'"ACCEPTED"'
EVIDENCE = frozenset({"SUBMISSION_GRADED", "QUIZ_ATTEMPT"})
PACE_LANES = 16
QUIET_SECONDS = 2.5  # longer than the slow check of a socket: whoever was silent for so long has told all


class Job(msgspec.Struct, kw_only=True):
    """What to do. `kind` is send (each lane as fast as it is answered), pace (at fixed moments) or watch."""

    kind: str
    out: str  # where what was seen is written
    port: int
    shape: tuple[int, int]  # classes, students in each
    tokens: dict[str, str]  # "" for senders; by class for watchers
    name: str = ""  # begins every event id
    first: int = 0  # number of the first event
    lanes: int = 1
    batch: int = 1  # events a request; 1 is recordEvent
    requests: int = 0  # of each lane; of all together when paced
    per_second: float = 0.0  # requests, when paced
    is_evidence_only: bool = False  # only events that move mastery


class Seen(msgspec.Struct, kw_only=True):
    """What became of a job."""

    started: float
    ended: float
    accepted: int = 0
    seconds: list[float] = []  # from request to answer, in the order of answers
    late_seconds: list[float] = []  # a paced request's start after its moment
    answered: list[tuple[str, str, int, float]] = []  # (student, concept, how much evidence so far, when)
    frames: list[tuple[str, str, int, float]] = []  # the same as pushed


def main(path: str) -> None:
    """Do one job."""
    job = msgspec.json.decode(Path(path).read_bytes(), type=Job)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen = runner.run({"send": _send, "pace": _pace, "watch": _watch}[job.kind](job))
    Path(job.out).write_bytes(msgspec.json.encode(seen))


async def _told() -> None:
    """Wait for the next line of whoever started us."""
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    assert line, "whoever started this load is gone"


def _say(word: str) -> None:
    print(word, flush=True)


def _batches(job: Job, lane: int) -> Iterator[list[dict[str, Any]]]:
    found = events(Shape(*job.shape).lanes(job.lanes)[lane], name=f"{job.name}-{lane}", first=job.first)
    if job.is_evidence_only:
        found = (event for event in found if event["type"] in EVIDENCE)
    while True:
        yield list(islice(found, job.batch))


def _request(job: Job, batch: list[dict[str, Any]]) -> bytes:
    token = job.tokens[""]
    if job.batch == 1:
        return request_of(token, RECORD_EVENT, {"input": batch[0]})
    return request_of(token, RECORD_EVENTS, {"input": {"events": batch}})


async def _send(job: Job) -> Seen:
    """Closed loop: each lane sends its next request once the last is answered."""
    prepared = [[_request(job, b) for b in islice(_batches(job, lane), job.requests)] for lane in range(job.lanes)]
    lanes = [await Lane.open(job.port) for _ in prepared]
    _say("ready")
    await _told()
    seen = Seen(started=monotonic(), ended=0.0)

    async def drive(lane: Lane, requests: list[bytes]) -> None:
        for request in requests:
            at = monotonic()
            body = await lane.send(request)
            seen.seconds.append(monotonic() - at)
            seen.accepted += body.count(ACCEPTED)

    await asyncio.gather(*(drive(lane, requests) for lane, requests in zip(lanes, prepared, strict=True)))
    seen.ended = monotonic()
    return seen


async def _pace(job: Job) -> Seen:
    """Open loop: request after request at its moment, whether or not the earlier ones are answered."""
    batches = list(islice(_batches(job, 0), job.requests))
    prepared = [(_request(job, batch), batch) for batch in batches]
    free: asyncio.Queue[Lane] = asyncio.Queue()
    for _ in range(PACE_LANES):
        free.put_nowait(await Lane.open(job.port))
    evidence: Counter[tuple[str, str]] = Counter()
    _say("ready")
    await _told()
    seen = Seen(started=monotonic(), ended=0.0)

    async def drive(lane: Lane, request: bytes, batch: list[dict[str, Any]]) -> None:
        at = monotonic()
        body = await lane.send(request)
        now = monotonic()
        free.put_nowait(lane)
        seen.seconds.append(now - at)
        seen.accepted += body.count(ACCEPTED)
        for event in batch:
            key = (event["studentId"], event["conceptIds"][0])
            evidence[key] += 1
            seen.answered.append((*key, evidence[key], now))

    async with asyncio.TaskGroup() as group:
        for place, (request, batch) in enumerate(prepared):
            moment = seen.started + place / job.per_second
            await asyncio.sleep(max(0.0, moment - monotonic()))
            lane = await free.get()
            seen.late_seconds.append(max(0.0, monotonic() - moment))
            group.create_task(drive(lane, request, batch))
    seen.ended = monotonic()
    return seen


async def _watch(job: Job) -> Seen:
    """One socket a class, each with its teacher's token, until told to end."""
    frames: list[tuple[float, str | bytes]] = []
    sockets = [await _subscribed(job, classroom) for classroom in Shape(*job.shape).classrooms]

    async def read(socket: ClientConnection) -> None:
        while True:
            text = await socket.recv()
            frames.append((monotonic(), text))

    readers = [asyncio.create_task(read(socket)) for socket in sockets]
    _say("ready")
    await _told()
    started = monotonic()
    await _told()
    last = monotonic()
    while monotonic() - max(last, frames[-1][0] if frames else last) < QUIET_SECONDS:  # noqa: ASYNC110 - time is what it waits for
        await asyncio.sleep(0.1)
    for reader in readers:
        assert not reader.done(), f"a socket ended: {reader.exception()!r}"
        reader.cancel()
    seen = Seen(started=started, ended=monotonic())
    for at, text in frames:
        message = msgspec.json.decode(text)
        assert message["type"] == "next", message
        told = message["payload"]["data"]["masteryChanged"]
        if told["mastery"] is not None:
            seen.frames.append((told["studentId"], told["mastery"]["concept"]["key"],
                                told["mastery"]["evidenceCount"], at))  # fmt: skip
    return seen


async def _subscribed(job: Job, classroom: str) -> ClientConnection:
    """An open subscription that has had its READY."""
    url, protocol = f"ws://127.0.0.1:{job.port}/graphql", Subprotocol("graphql-transport-ws")
    socket = await connect(url, subprotocols=[protocol], compression=None, proxy=None)
    payload = {"authorization": f"Bearer {job.tokens[classroom]}"}
    await socket.send(msgspec.json.encode({"type": "connection_init", "payload": payload}).decode())
    assert msgspec.json.decode(await socket.recv())["type"] == "connection_ack"
    ask = {"query": MASTERY_CHANGED, "variables": {"classroom": classroom}}
    await socket.send(msgspec.json.encode({"id": classroom, "type": "subscribe", "payload": ask}).decode())
    message = msgspec.json.decode(await socket.recv())
    assert message["type"] == "next", message
    assert message["payload"]["data"]["masteryChanged"]["kind"] == "READY", message
    return socket


if __name__ == "__main__":
    main(sys.argv[1])
