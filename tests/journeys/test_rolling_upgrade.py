"""A rolling upgrade from the release before, as it happens: its own processes, ours beside them, then ours alone."""

import asyncio
import itertools
import os
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from db.migrate import make_partitions, migrate
from rules.access import Role
from server.embedded import EmbeddedServers
from tests.chaos import verdict
from tests.chaos.cluster import PROJECT, SECRET, bounded, free_ports, slowness, tail
from tests.chaos.run import FLAGS
from tests.chaos.script import Request, class_of, plan_of
from tests.chaos.witness import Ledger, Producer, Stream, Subscriber, cancelled
from tests.chaos.world import TENANT, WAITING, settle, token_of
from tests.journeys.premises import BOOT_SECONDS_MAX, POLL_SECONDS, stopped, until
from tests.support.folders import reachable_folder
from tests.support.releases import unpacked

PLAN = plan_of(seed=38, faults=4)  # nothing is broken here: only its school and its traffic are used
OLDER, OURS = 0, 1  # places in every list of two
SETTLE_SECONDS_MAX = 20.0  # each stream reconnects for each of its messages, on a machine that is also the servers'

EVENTS = """subscription Events($classroomId: ID!, $after: String) {
  eventRecorded(classroomId: $classroomId, after: $after) { kind resumeToken activity { event { seq } } }
}"""
SEQS = "select classroom, seq from event where tenant = $1 order by seq"
OLDER_REVISION = "0004"
REVISION = "select version_num from alembic_version"


class Wanderer(Subscriber):
    """Goes to the other api, with the token of the last message, after every message."""

    def __init__(self, urls: Sequence[str], stream: Stream) -> None:
        super().__init__(urls, token_of(Role.ADMIN, f"admin-{stream.name}-{stream.classroom}"), stream)
        self.places: list[int] = []  # which api each message came from

    @property
    def moves(self) -> list[tuple[int, int]]:
        """From which api to which a token was carried, each time that the stream went on there."""
        return [pair for pair in itertools.pairwise(self.places) if pair[0] != pair[1]]

    @property
    def seqs(self) -> list[int]:
        """Of the events that were told, in order."""
        told = (message.get("activity") for message in self.messages)
        return [int(activity["event"]["seq"]) for activity in told if activity is not None]

    def _take(self, message: dict[str, Any]) -> bool:
        count = len(self.messages)
        goes_on = super()._take(message)
        if len(self.messages) > count:
            self.places.append(self._place % len(self._urls))
            raise EOFError  # as if the connection had been lost: asked again with the token, elsewhere
        return goes_on


@dataclass(slots=True)
class Fleet:
    """An api and a worker of each release on one database and one Valkey."""

    servers: EmbeddedServers
    folder: Path
    trees: tuple[Path, Path]
    ports: list[int]  # of the apis, of the workers' metrics
    apis: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)
    workers: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports[:2]]

    async def start(self, release: int) -> None:
        """A worker and an api, and wait until both are at work."""
        self.workers[release] = await self.run("worker", release)
        self.apis[release] = await self.run("api", release)

        async def is_at_work() -> bool:
            for process in (self.apis[release], self.workers[release]):
                assert process.returncode is None, tail(self.log(release))
            async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
                ready = await client.get(f"{self.urls[release]}/ready")
            return ready.status_code == 200 and await self.folded(release) >= 0

        await until(is_at_work, seconds=BOOT_SECONDS_MAX * slowness())

    async def run(self, command: str, release: int) -> asyncio.subprocess.Process:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        with self.log(release).open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "server", command),
                *(("--end-with", str(os.getpid())) if command != "migrate" else ()),
                cwd=self.trees[release],
                env={
                    **kept,
                    "DATABASE_URL": self.servers.addresses.database_url,
                    "REDIS_URL": self.servers.addresses.redis_url,
                    "DATA_DIR": str(self.folder / f"data-{release}-{command}"),
                    "JWT_SECRET": SECRET,
                    "PORT": str(self.ports[release]),
                    "POOL_SIZE_MAX": "10",
                    "POOL_SIZE_IDLE": "3",
                    **({"METRICS_PORT": str(self.ports[2 + release] - 1)} if command == "worker" else {}),
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def log(self, release: int) -> Path:
        return self.folder / f"release-{release}.log"

    async def folded(self, release: int) -> int:
        """How many rows a worker has folded since it started."""
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            page = (await client.get(f"http://127.0.0.1:{self.ports[2 + release]}/metrics")).text
        [count] = re.findall(r"^\w*worker_rows_folded_total ([0-9.e+]+)$", page, re.MULTILINE)
        return int(float(count))

    async def stop(self, release: int) -> None:
        """SIGTERM; both end well."""
        await stopped(self.apis[release], self.workers[release])  # what does not end is killed by `aclose`
        del self.apis[release], self.workers[release]

    async def aclose(self) -> None:
        """Kill what is left."""
        for process in (*self.apis.values(), *self.workers.values()):
            if process.returncode is None:
                process.kill()
                await process.wait()


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Fleet, asyncpg.Connection]]:
    """The fleet, with no process in it, on a database that the older release has migrated, and the operator."""
    with reachable_folder() as folder:
        (folder / "data").mkdir(mode=0o755)
        async with EmbeddedServers(folder / "data", durable=False) as servers:
            fleet = Fleet(servers, folder, (unpacked(folder), PROJECT), free_ports(4))
            assert await (await fleet.run("migrate", OLDER)).wait() == 0, tail(fleet.log(OLDER))
            now, url = datetime.now(UTC), servers.addresses.database_url
            await make_partitions(url, first_day=(now - timedelta(days=31)).date(), months=4)
            operator = await asyncpg.connect(url)
            try:
                await settle(operator, PLAN, now)
                yield fleet, operator
            finally:
                operator.terminate()
                await fleet.aclose()


async def sent(url: str, ledger: Ledger, lanes: Sequence[Sequence[Request]], day: datetime) -> None:
    """Send all requests of all lanes to one api, lanes side by side."""
    producers = [Producer([url], token_of(Role.INTEGRATOR, "lms"), day, ledger) for _ in lanes]

    async def send(producer: Producer, lane: Sequence[Request]) -> None:
        for request in lane:
            await producer.send(request)

    try:
        await asyncio.gather(*map(send, producers, lanes))
    finally:
        for producer in producers:
            await producer.aclose()


def turned(lane: Sequence[Request]) -> list[Request]:
    """The second half first: of two senders of the same keys each is the first with about half of them."""
    return [*lane[len(lane) // 2 :], *lane[: len(lane) // 2]]


async def unsettled(operator: asyncpg.Connection, flags: Sequence[Wanderer], events: Sequence[Wanderer]) -> list[str]:
    """What waits to be folded, or is not yet heard by its subscriber exactly as it is stored, 1 to N."""
    if waiting := await operator.fetchval(WAITING, [TENANT]):
        return [f"{waiting} rows wait"]
    found = verdict.missed_or_repeated(flags, await verdict.transitions(operator, TENANT))
    logged: dict[str, list[int]] = {}
    for row in await operator.fetch(SEQS, TENANT):
        logged.setdefault(row["classroom"], []).append(row["seq"])
    for one in events:
        if one.error is not None or one.seqs != logged.get(one.stream.classroom, []):
            stored = logged.get(one.stream.classroom)
            found.append(f"{one.stream.classroom}: told {one.seqs}, stored {stored}; {one.error}")
    return found


async def left(operator: asyncpg.Connection, flags: Sequence[Wanderer], events: Sequence[Wanderer]) -> list[str]:
    """What is still `unsettled` after the time that settling may take."""
    give_up_at = time.monotonic() + SETTLE_SECONDS_MAX * slowness()
    while True:
        found = await unsettled(operator, flags, events)
        if not found or time.monotonic() > give_up_at:
            return found
        await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def followed(urls: Sequence[str]) -> AsyncIterator[tuple[list[Wanderer], list[Wanderer]]]:
    """Who follows the flags and the events of each class, all with a token before anything happens."""
    classes = [class_of(step.no, place) for step in PLAN.steps for place in range(len(step.lanes))]
    flags = [Wanderer(urls, Stream("riskFlagChanged", FLAGS, one)) for one in classes]
    events = [Wanderer(urls, Stream("eventRecorded", EVENTS, one)) for one in classes]
    watching = [asyncio.create_task(one.run()) for one in (*flags, *events)]
    try:
        async with bounded(BOOT_SECONDS_MAX * slowness(), "the first message of every subscriber"):
            for one in (*flags, *events):
                while not one.messages:
                    await one.moved.wait()
                    one.moved.clear()
                    assert one.error is None, one.error
        yield flags, events
    finally:
        await cancelled(watching)


@pytest.mark.feature("X-38", "X-29", "000-01")
@pytest.mark.timeout(180)
async def test_a_rolling_upgrade_under_load_loses_and_doubles_nothing_and_streams_go_on() -> None:
    """The older release alone; migrated under load; both, told the same events; ours alone. Then all is asked."""
    day = (datetime.now(UTC) - timedelta(days=1)).replace(hour=6, minute=0, second=0, microsecond=0)
    lanes = [lane for step in PLAN.steps for lane in step.lanes]
    first, both, last = ([lane[n * len(lane) // 3 : (n + 1) * len(lane) // 3] for lane in lanes] for n in range(3))
    older, ours = Ledger(), Ledger()
    async with opened() as (fleet, operator):
        url = fleet.servers.addresses.database_url
        await fleet.start(OLDER)
        async with followed(fleet.urls) as (flags, events):
            sending = asyncio.create_task(sent(fleet.urls[OLDER], older, first, day))
            assert await operator.fetchval(REVISION) == OLDER_REVISION
            await migrate(url)
            await sending
            await fleet.start(OURS)
            folded = [await fleet.folded(release) for release in (OLDER, OURS)]

            await asyncio.gather(
                sent(fleet.urls[OLDER], older, both, day),
                sent(fleet.urls[OURS], ours, [turned(lane) for lane in both], day),
            )
            failures = await left(operator, flags, events)
            folded = [await fleet.folded(release) - folded[release] for release in (OLDER, OURS)]
            moves = Counter(pair for one in (*flags, *events) for pair in one.moves)

            sending = asyncio.create_task(sent(fleet.urls[OURS], ours, last, day))
            await fleet.stop(OLDER)
            await sending
            failures += await left(operator, flags, events)
            await fleet.stop(OURS)
        answers = Ledger()
        for key, statuses in (*older.answers.items(), *ours.answers.items()):
            answers.answers[key] += statuses
        failures += await verdict.lost_or_doubled(operator, TENANT, answers)
        failures += await verdict.not_a_rebuild(url, TENANT, now=datetime.now(UTC))

    assert failures == []
    assert {message["kind"] for one in (*flags, *events) for message in one.messages} == {"READY", "CHANGE"}
    # It was a mixture: each worker folded, each api was the first with some of the keys that both were told, and each
    # resumed streams of the other.
    assert min(folded) > 0
    for one, other in ((older, ours), (ours, older)):
        assert any(statuses["ACCEPTED"] and key in other.answers for key, statuses in one.answers.items())
    assert min(moves[OLDER, OURS], moves[OURS, OLDER]) > len(events)
