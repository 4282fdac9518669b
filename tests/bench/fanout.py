"""One change to thousands of sockets: this service beside a bare `websockets.broadcast` of the same bytes, in turns.

Both servers get a Redis message and hand frames to a crowd of raw sockets, held by one process each. The bare server
has its text ready; the service reads the change from Postgres, judges each subscriber, executes, writes and sends. What
is compared is CPU time of the two server processes for one delivered frame, all of it: reading, idle checks, pings.
`ratio` is bare / ours. Waits begin before the Redis message is sent (the change is committed by then, as after a fold)
and end when the client process has the frame. Changes are written straight into the tables, so that no worker is in the
way: a flag transition for "one topic", a standing of each of 100 classes for "1,000 classes".

One topic: `riskFlagChanged` of one class, half teachers, half admins. 1,000 classes: five sockets a class on
`masteryChanged`, three documents (a badge, a table, a score), teachers and admins mixed. All are of plain
attributes; one that asks for `student { ... }` is executed, and reads the students, once for each scope instead.
"""

import asyncio
import os
import socket
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
from redis.asyncio import Redis

from db.live import CHANNEL, Moved
from rules.access import Role
from tests.bench.crowd import Crowd, Heard, Listener, Listening
from tests.bench.figures import PROJECT, Figures, claim, median, milliseconds
from tests.bench.school import BEGAN, ENROLLMENTS, Shape, settle, token_of
from tests.bench.service import Service

TENANT = 1
BARE_CHANNEL = "bench.bare"
SOCKETS_PER_VIEWER = 8
SETTLE_SECONDS = 3.0  # whoever subscribed last has found its audience
PAUSE_SECONDS = 0.5  # after the last change of a turn, its frames are in

RISK = """subscription ($key: ID!) { riskFlagChanged(classroomId: $key) {
  kind resumeToken asOf { seq } transition { change studentId reason severity overall notify at clearsWhen } } }"""
BADGE = """subscription ($key: ID!) { masteryChanged(classroomId: $key) {
  kind resumeToken studentId mastery { concept { key } state } } }"""
TABLE = """subscription ($key: ID!) { masteryChanged(classroomId: $key) {
  kind resumeToken studentId mastery { concept { key name } score state evidenceCount } } }"""
SCORE = """subscription ($key: ID!) { masteryChanged(classroomId: $key) {
  kind resumeToken asOf { seq } studentId mastery { concept { key } classroomId score } } }"""

TRANSITION = """
with moved as (
    update classroom_state set risk_no = risk_no + 1 where tenant = $1 and classroom = $2 returning risk_no
)
insert into risk_change (
    tenant, classroom, no, student, reason, change, severity, overall, notify, evidence, clears_when, at
)
select $1, $2, m.risk_no, $3, 'MISSING_SUBMISSIONS', 'RAISED', 2, 2, true, '{}', 'At most one is missing.', $4
from moved m
"""
STANDING = """
with moved as (
    update classroom_state set change_no = change_no + 1, stamped_to = change_no + 1
    where tenant = $1 and classroom = any($2::text[])
    returning classroom, change_no
), stamped as (
    update view_state v set class_change = m.change_no
    from moved m
    where v.tenant = $1 and v.classroom = m.classroom and v.student = m.classroom || '-s0000'
)
update standing s set class_change = m.change_no, count = s.count + 1
from moved m
where s.tenant = $1 and s.classroom = m.classroom and s.student = m.classroom || '-s0000' and s.concept = $3
"""
FIRST_STATES = """
insert into classroom_state (tenant, classroom) select $1, c from unnest($2::text[]) c on conflict do nothing
"""
STANDINGS = """
insert into standing (
    tenant, student, classroom, concept, count, earlier_sum, newest, successes, quiz_attempts, score, rank, best,
    latest, time_spent_ms, policy_version, class_change, student_change
)
select $1, c.classroom || '-s0000', c.classroom, 'concept-00', 3, 1500000, 500000, 0, 0, 500, 2, 500, 500, 0, 1, 0, 0
from classroom c where c.tenant = $1 on conflict do nothing
"""

VIEWS = """
insert into view_state (tenant, classroom, student)
select $1, c.classroom, c.classroom || '-s0000' from classroom c where c.tenant = $1 on conflict do nothing
"""


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    crowds: Sequence[int]
    classes: int
    sockets: int
    turns: int
    changes: int  # of each turn
    classes_at_once: int


SIZES = {
    "small": Size(crowds=(100, 300), classes=40, sockets=200, turns=2, changes=5, classes_at_once=10),
    "full": Size(crowds=(1_000, 5_000), classes=1_000, sockets=5_000, turns=6, changes=20, classes_at_once=100),
}


@dataclass
class Turn:
    """What one server did in one turn."""

    seconds: float  # of CPU
    frames: int


async def run(size: str) -> Figures:
    """Measure."""
    asked, claims, more = SIZES[size], [], {}
    async with Service() as service:
        shape = Shape(classes=asked.classes, students=2)
        await settle(service.connection, TENANT, shape)
        await _prepare(service, shape)
        for number in asked.crowds:
            found = await _one_topic(service, number, asked)
            limit = 50.0 if number == 1_000 else None
            claims += _claims(f"one topic to {number:,} sockets", found, wait_limit=limit, times_limit=1 / 0.7)
            more[f"one_topic_{number}"] = found
        found = await _classes(service, shape, asked)
        claims += _claims(f"{asked.sockets:,} sockets over {asked.classes:,} classes", found, 50.0, times_limit=2.0)
        more["classes"] = found
        service.check()
        version = await service.postgres_version()
    return {"postgres": version, "claims": claims, **more}


def _claims(name: str, found: Figures, wait_limit: float | None, *, times_limit: float) -> list[Figures]:
    return [
        claim(f"{name}: CPU of a delivery, times a bare broadcast", found["times_bare"], limit=round(times_limit, 2)),
        claim(f"{name}: ratio to a bare broadcast", round(1 / found["times_bare"], 2)),
        claim(f"{name}: p95 from announcement to frame", found["ours_waits"]["p95"], unit="ms", limit=wait_limit),
        claim(f"{name}: the same of the bare server", found["bare_waits"]["p95"], unit="ms"),
        claim(f"{name}: CPU of a delivery", found["ours_us"], unit="µs"),
        claim(f"{name}: memory of a connection", found["kilobytes_a_socket"], unit="kB"),
        claim(f"{name}: CPU while nothing happens", found["idle_percent"], unit="% of a core"),
    ]


async def _prepare(service: Service, shape: Shape) -> None:
    """State rows for every class, one view and one standing each: what folds would have left."""
    db = service.connection
    await service.until_folded(TENANT)
    await db.execute(FIRST_STATES, TENANT, shape.classrooms)
    await db.execute(STANDINGS, TENANT)
    await db.execute(VIEWS, TENANT)


async def _one_topic(service: Service, number: int, asked: Size) -> Figures:
    viewers = -(-number // SOCKETS_PER_VIEWER)
    teachers = [f"crowd-{number}-{place}" for place in range(0, viewers, 2)]
    classroom = "class-000"
    await service.connection.execute(
        ENROLLMENTS, TENANT, [classroom] * len(teachers), teachers, BEGAN.date(), "TEACHER"
    )
    listeners = []
    for place in range(number):
        viewer = place // SOCKETS_PER_VIEWER
        role, key = (Role.ADMIN, f"admin-{viewer}") if viewer % 2 else (Role.TEACHER, f"crowd-{number}-{viewer}")
        listeners.append(_subscriber("one", role, key, RISK, classroom))

    async def change() -> list[str]:
        now = datetime.now(UTC)
        await service.connection.execute(TRANSITION, TENANT, classroom, f"{classroom}-s0000", now)
        return [classroom]

    return await _measure(service, asked, listeners, change, names_of=lambda _: ["one"])


async def _classes(service: Service, shape: Shape, asked: Size) -> Figures:
    documents = {"badge": BADGE, "table": TABLE, "score": SCORE}
    kinds = list(documents)
    each = asked.sockets // asked.classes
    listeners = []
    for place, classroom in enumerate(shape.classrooms):
        for seat in range(each):
            kind = kinds[(place + seat) % len(kinds)]
            is_teacher = seat % 2 == 0
            admin = (place * each + seat) // SOCKETS_PER_VIEWER
            role, key = (Role.TEACHER, f"teacher-{classroom}") if is_teacher else (Role.ADMIN, f"admin-{admin}")
            listeners.append(_subscriber(f"{classroom}/{kind}", role, key, documents[kind], classroom))
    step = count()

    async def change() -> list[str]:
        first = next(step) * asked.classes_at_once
        moved = [shape.classrooms[(first + n) % asked.classes] for n in range(asked.classes_at_once)]
        await service.connection.execute(STANDING, TENANT, moved, "concept-00")
        return moved

    groups: dict[str, set[str]] = defaultdict(set)
    for listener in listeners:
        groups[listener.name.partition("/")[0]].add(listener.name)
    return await _measure(service, asked, listeners, change, names_of=lambda c: sorted(groups[c]))


def _subscriber(name: str, role: Role, key: str, document: str, classroom: str) -> Listener:
    init = {"type": "connection_init", "payload": {"authorization": f"Bearer {token_of(TENANT, role, key)}"}}
    ask = {"id": "1", "type": "subscribe", "payload": {"query": document, "variables": {"key": classroom}}}
    headers = ["Sec-WebSocket-Protocol: graphql-transport-ws"]
    return Listener(name, [msgspec.json.encode(init).decode(), msgspec.json.encode(ask).decode()], headers)


async def _measure(service: Service, asked: Size, listeners: list[Listener], change: Any, *, names_of: Any) -> Figures:
    """Turn by turn, the service and the bare server, both with their crowds."""
    api, redis_url = service.pid("api"), service.redis_url
    redis = Redis.from_url(redis_url)
    memory = _kilobytes(api)
    ours = await Listening.start(service.folder, "ours", Crowd(service.port, "/graphql", listeners))
    memory = _kilobytes(api) - memory
    await asyncio.sleep(SETTLE_SECONDS)
    idle, began = _cpu(api), monotonic()
    await asyncio.sleep(SETTLE_SECONDS)
    idle_share = (_cpu(api) - idle) / (monotonic() - began)
    texts = await _texts(service, redis, change, listeners, names_of)
    async with _bare(redis_url) as (bare_pid, port):
        same = [Listener(listener.name, [listener.name]) for listener in listeners]
        bare = await Listening.start(service.folder, "bare", Crowd(port, "/", same))
        sizes: dict[str, int] = defaultdict(int)
        for listener in listeners:
            sizes[listener.name] += 1
        sent: dict[str, dict[str, list[float]]] = {"ours": defaultdict(list), "bare": defaultdict(list)}
        turns: dict[str, list[Turn]] = {"ours": [], "bare": []}
        for turn in range(asked.turns):
            for who in ("ours", "bare") if turn % 2 else ("bare", "ours"):
                pid = api if who == "ours" else bare_pid
                before, frames = _cpu(pid), 0
                for _ in range(asked.changes):
                    started = monotonic()
                    moved = await change() if who == "ours" else _next(asked, names_of, texts)
                    names = [name for key in moved for name in names_of(key)]
                    at = monotonic()
                    if who == "ours":
                        message = [Moved(tenant=TENANT, classrooms=frozenset(moved))]
                        await redis.publish(CHANNEL, msgspec.msgpack.encode(message))
                    else:
                        await redis.publish(BARE_CHANNEL, msgspec.msgpack.encode([(n, texts[n]) for n in names]))
                    for name in names:
                        sent[who][name].append(at)
                        frames += sizes[name]
                    await asyncio.sleep(max(0.0, started + _pace(len(listeners)) - monotonic()))
                await asyncio.sleep(PAUSE_SECONDS)
                turns[who].append(Turn(_cpu(pid) - before, frames))
        heard = {"ours": await ours.heard(), "bare": await bare.heard()}
    await redis.aclose()
    waits = {who: _waits(heard[who], sent[who], first=1 if who == "ours" else 0) for who in heard}
    each = {who: [turn.seconds / turn.frames * 1e6 for turn in turns[who]] for who in turns}
    return {
        "ours_us": median(each["ours"]),
        "bare_us": median(each["bare"]),
        "times_bare": round(median([a / b for a, b in zip(each["ours"], each["bare"], strict=True)]), 2),
        "ours_waits": milliseconds(waits["ours"]),
        "bare_waits": milliseconds(waits["bare"]),
        "kilobytes_a_socket": round(memory / len(listeners), 1),
        "idle_percent": round(idle_share * 100, 1),
        "deliveries": {who: sum(turn.frames for turn in turns[who]) for who in turns},
        "bytes_a_frame": len(next(iter(texts.values()))),
    }


def _pace(sockets: int) -> float:
    """Seconds from one change to the next: neither server is busy all the time, so that waits are no queues."""
    return 0.1 if sockets <= 1_000 else 0.25


_places = count()


def _next(asked: Size, names_of: Any, texts: dict[str, str]) -> list[str]:
    """The classes that the bare server is told of: as many as the service is."""
    keys = sorted({name.partition("/")[0] for name in texts})
    if keys == ["one"]:
        return keys
    first = next(_places) * asked.classes_at_once
    return [keys[(first + n) % len(keys)] for n in range(asked.classes_at_once)]


async def _texts(
    service: Service, redis: Redis, change: Any, listeners: list[Listener], names_of: Any
) -> dict[str, str]:
    """One frame of each document as the service sends it, for each group: what the bare server will send."""
    kinds: dict[str, Listener] = {}
    for listener in listeners:
        kinds.setdefault(listener.name.partition("/")[2], listener)
    probe = await Listening.start(
        service.folder, "probe", Crowd(service.port, "/graphql", [_as_spare(listener) for listener in kinds.values()])
    )
    seen: set[str] = set()
    wanted = {listener.name for listener in kinds.values()}
    while not wanted <= seen:
        moved = await change()
        await redis.publish(CHANNEL, msgspec.msgpack.encode([Moved(tenant=TENANT, classrooms=frozenset(moved))]))
        seen |= {name for key in moved for name in names_of(key)}
        await asyncio.sleep(0.2)
    await asyncio.sleep(PAUSE_SECONDS)
    samples = {heard.name.partition("/")[2]: heard.sample for heard in await probe.heard()}
    return {listener.name: samples[listener.name.partition("/")[2]] for listener in listeners}


def _as_spare(listener: Listener) -> Listener:
    """The same subscription by an admin who holds no other socket."""
    init = {"type": "connection_init", "payload": {"authorization": f"Bearer {token_of(TENANT, Role.ADMIN, 'spare')}"}}
    return Listener(listener.name, [msgspec.json.encode(init).decode(), listener.opening[1]], listener.headers)


def _waits(heard: list[Heard], sent: dict[str, list[float]], *, first: int) -> list[float]:
    """Of every frame; `first`: it has heard the probe's changes too. Raises AssertionError for a missing one."""
    waits = []
    for one in heard:
        assert not one.is_lost, f"a socket of {one.name} was ended: {one.sample}"
        moments = sent[one.name]
        arrivals = one.arrivals[len(one.arrivals) - len(moments) :] if first else one.arrivals
        assert len(arrivals) == len(moments), f"expected {len(moments)} frames of {one.name}, {len(arrivals)} came"
        waits += [came - went for came, went in zip(arrivals, moments, strict=True)]
    assert min(waits) > 0, "a frame came before it was sent: frames were merged"
    return waits


@asynccontextmanager
async def _bare(redis_url: str) -> AsyncIterator[tuple[int, int]]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.bare", str(port), redis_url, BARE_CHANNEL),
        cwd=PROJECT,
        env=os.environ,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield process.pid, port
    finally:
        process.kill()
        await process.wait()


def _cpu(pid: int) -> float:
    """Seconds of CPU of a process, to the microsecond: ticks of 10 ms are too coarse for a turn."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def _kilobytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0
