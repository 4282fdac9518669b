"""A process that loads or watches the service, so that the client costs the measured processes nothing but a core.

`python -m tests.bench.load JOB` prepares all it will send, says "ready", waits for a line, does the job and writes what
it saw. All moments are of the machine's monotonic clock, which every process on it shares.
"""

import asyncio
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.bench.orders import READS, RECORD_EVENT, RECORD_EVENTS, SUBSCRIPTIONS, Job, Seen
from tests.bench.school import Shape, events
from tests.bench.wire import Lane, request_of

ACCEPTED = b'"ACCEPTED"'
FAILED = b'"errors":[{'
EVIDENCE = frozenset({"SUBMISSION_GRADED", "QUIZ_ATTEMPT"})
PACE_LANES = 64  # below what the service answers at once; from 20 a second on, each is used before it is closed as idle
QUIET_SECONDS = 2.5  # longer than the slow check of a socket: whoever was silent for so long has told all


def main(path: str) -> None:
    """Do one job."""
    job = msgspec.json.decode(Path(path).read_bytes(), type=Job)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen = runner.run({"send": _send, "pace": _pace, "mix": _mix, "watch": _watch}[job.kind](job))
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
    prepared = [_request(job, batch) for batch in batches]
    evidence: Counter[tuple[str, str]] = Counter()
    seen = Seen(started=0.0, ended=0.0)

    def answered(place: int, body: bytes, moment: float, now: float) -> None:
        seen.accepted += body.count(ACCEPTED)
        seen.waits.append((moment - seen.started, now - moment))
        for event in batches[place]:
            key = (event["studentId"], event["conceptIds"][0])
            evidence[key] += 1
            seen.answered.append((*key, evidence[key], now))
            seen.sent[event["eventId"]] = now

    await _at_their_moments(job, prepared, seen, answered)
    return seen


async def _mix(job: Job) -> Seen:
    """The same with single events and reads in turns."""
    everyone, dice = Shape(*job.shape).everyone, random.Random(job.first)
    recorded = _batches(job, 0)
    kinds, prepared = [], []
    for place in range(job.requests):
        kind = job.mix[place % len(job.mix)]
        kinds.append(kind)
        if kind == "recordEvent":
            prepared.append(_request(job, next(recorded)))
            continue
        classroom, student = dice.choice(everyone)
        variables = {"id": classroom} if kind == "dashboard" else {"id": student, "classroom": classroom}
        prepared.append(request_of(job.tokens[classroom], READS[kind], variables))
    seen = Seen(started=0.0, ended=0.0)
    waits: dict[str, list[float]] = defaultdict(list)

    def answered(place: int, body: bytes, moment: float, now: float) -> None:
        assert FAILED not in body, f"{kinds[place]} failed: {body[:500]!r}"
        waits[kinds[place]].append(now - moment)

    await _at_their_moments(job, prepared, seen, answered)
    seen.by_kind = dict(waits)
    return seen


async def _at_their_moments(
    job: Job, prepared: list[bytes], seen: Seen, answered: Callable[[int, bytes, float, float], None]
) -> None:
    """Send each request at its moment; `answered` is told its place, the answer, that moment and when it was read.

    A wait is counted from the moment at which the request was due, so that a sender that falls behind hides nothing.
    """
    free: asyncio.Queue[Lane] = asyncio.Queue()
    for _ in range(PACE_LANES):
        free.put_nowait(await Lane.open(job.port))
    _say("ready")
    await _told()
    seen.started = monotonic()

    async def drive(place: int, lane: Lane, moment: float) -> None:
        at = monotonic()
        body = await lane.send(prepared[place])
        now = monotonic()
        free.put_nowait(lane)
        seen.seconds.append(now - at)
        answered(place, body, moment, now)

    async with asyncio.TaskGroup() as group:
        for place in range(len(prepared)):
            moment = seen.started + place / job.per_second
            await asyncio.sleep(max(0.0, moment - monotonic()))
            lane = await free.get()
            seen.late_seconds.append(max(0.0, monotonic() - moment))
            group.create_task(drive(place, lane, moment))
    seen.ended = monotonic()


async def _watch(job: Job) -> Seen:
    """One socket a class, each with its teacher's token, until told to end."""
    frames: list[tuple[float, float, str | bytes]] = []  # monotonic, wall clock, message
    watched = Shape(*job.shape).classrooms[: job.watched or None]
    sockets = [await _subscribed(job, classroom) for classroom in watched]

    async def read(socket: ClientConnection) -> None:
        while True:
            text = await socket.recv()
            frames.append((monotonic(), time.time(), text))

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
    for at, wall, text in frames:
        message = msgspec.json.decode(text)
        assert message["type"] == "next", message
        _see(seen, message["payload"]["data"][job.field], at, wall)
    return seen


def _see(seen: Seen, told: dict[str, Any], at: float, wall: float) -> None:
    """Keep what one message says; READY says nothing."""
    if mastery := told.get("mastery"):
        seen.frames.append((told["studentId"], mastery["concept"]["key"], mastery["evidenceCount"], at))
    elif activity := told.get("activity"):
        seen.recorded[activity["event"]["eventId"]] = at
    elif transition := told.get("transition"):
        seen.flag_seconds.append(wall - datetime.fromisoformat(transition["at"]).timestamp())


async def _subscribed(job: Job, classroom: str) -> ClientConnection:
    """An open subscription that has had its READY."""
    url, protocol = f"ws://127.0.0.1:{job.port}/graphql", Subprotocol("graphql-transport-ws")
    socket = await connect(url, subprotocols=[protocol], compression=None, proxy=None)
    payload = {"authorization": f"Bearer {job.tokens[classroom]}"}
    await socket.send(msgspec.json.encode({"type": "connection_init", "payload": payload}).decode())
    assert msgspec.json.decode(await socket.recv())["type"] == "connection_ack"
    ask = {"query": SUBSCRIPTIONS[job.field], "variables": {"classroom": classroom}}
    await socket.send(msgspec.json.encode({"id": classroom, "type": "subscribe", "payload": ask}).decode())
    message = msgspec.json.decode(await socket.recv())
    assert message["type"] == "next", message
    assert message["payload"]["data"][job.field]["kind"] == "READY", message
    return socket


if __name__ == "__main__":
    main(sys.argv[1])
