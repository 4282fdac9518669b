"""The crash points: a process is cut off from Postgres at every message of one conversation, and another goes on.

Deterministic: each point starts from a copy of one tenant at a fixed moment, so no dice and no timing decide what is
found. The cut is either the death of the process (nothing it does later reaches anybody; a fresh one takes over) or
the loss of its connections alone (it lives on and tries again). Needs no hook in the product.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import count
from time import monotonic
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from db.evidence import Answer
from db.facts import LOG_OF_STUDENTS
from db.live import Live, open_live
from db.migrate import make_partitions, migrate
from db.outbox import shard_of
from db.pool import LOST, Pool, open_pool
from db.recorder import Recorder
from db.tables import TENANT_TABLES
from db.wake import Wake, Waker
from jobs.drain import Drain
from jobs.replay import Projections, difference, drift, stored
from rules.evidence import LearningEvent, Submission
from server.embedded import EmbeddedServers
from tests.chaos.wiretap import Cut, Side, tapped
from tests.laws.world import NOW, Plan, World
from tests.support.events import Clock, graded, submission, void
from tests.support.folders import reachable_folder

RECOVERY_SECONDS_MAX = 5.0
LATER = NOW + timedelta(seconds=3)  # rows that have waited longer than a second are claimed with a note
FAILURES_SHOWN = 5
DATABASE = "crashpoints"
AT = 1_000  # minutes after START of tests.support.events: after all that the world opened with

PLAN = Plan("UTC", (None, None), (("s1", None, ("7b", "8c")), ("s2", None, ("7b",)), ("s3", None, ("7b",))))
TOLD = [
    graded("old-1", "s1", 0.9, submission="sub-1", at=1),
    graded("old-2", "s2", 0.9, submission="sub-2", at=2),
    graded("old-3", "s3", 0.9, submission="sub-3", at=3),
]
"""What is folded when the conversation begins."""
ARRIVED = [
    graded("new-1", "s1", 0.7, at=AT),  # continues the views of s1 from their saved rows
    graded("new-2", "s2", 0.4, submission="sub-2", at=AT + 1),  # graded again: those of s2 are replayed from the log
    *(graded(f"new-3-{n}", "s3", 0.05, at=AT + 2 + n) for n in range(4)),  # s3 falls behind: a flag is raised
    void("gone-3", TOLD[2], at=AT + 9),
]
"""One batch of one shard that waits."""
SENT = [
    [graded("sent-1", "s1", 0.8, at=AT + 20), graded("sent-2", "s2", 0.3, at=AT + 21)],
    [TOLD[0], graded("old-2", "s2", 0.1, at=2)],  # a duplicate and a conflict
    [void("gone-1", TOLD[0], at=AT + 22), graded("sent-3", "s3", 0.6, at=AT + 23)],
]
"""Three requests that share one commit."""

KEYS = """
select 'event' as place, source, event_id from event where tenant = $1
union all
select 'key', source, event_id from event_key where tenant = $1
"""
WAITING = "select distinct shard from outbox where tenant = $1 order by shard"
DEAD = "select event_id from dead_letter where tenant = $1"
TRANSITIONS = """
select classroom, student, reason, severity, no from risk_change where tenant = $1 order by classroom, no
"""
RAISED = """
select classroom, student, reason, severity from risk_flag where tenant = $1 and severity is not null
"""
Key = tuple[str, str]


@dataclass(slots=True)
class Site:
    """A database with the tenant that every point begins with, and everything that goes on where a process ended."""

    url: str
    owner: asyncpg.Connection
    pool: Pool
    live: Live
    wake: Wake
    columns: dict[str, str]
    templates: dict[bool, int] = field(default_factory=dict)  # whether a batch waits -> its tenant
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    async def tenant(self, *, waiting: bool) -> int:
        """A fresh copy of the tenant."""
        made, template = next(self._numbers), self.templates[waiting]
        await self.owner.execute(
            ";".join(
                f"insert into {table} (tenant, {names}) select {made}, {names} from {table} where tenant = {template}"  # noqa: S608 - names from the catalog
                for table, names in self.columns.items()
            )
        )
        return made

    async def rows(self, statement: str, tenant: int) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.owner.fetch(statement, tenant)]

    async def recovered(self, tenant: int) -> list[str]:
        """Let fresh workers go on; what still waits after that."""
        drain = Drain(self.pool, Clock(LATER), self.live)
        until = monotonic() + RECOVERY_SECONDS_MAX
        while shards := [int(row[0]) for row in await self.rows(WAITING, tenant)]:
            if monotonic() > until:
                return [f"shards {shards} still wait {RECOVERY_SECONDS_MAX:.0f} s after the cut"]
            for shard in shards:
                await drain.shard(tenant, shard)  # passes over rows that the dead session still holds
        return []


@asynccontextmanager
async def site(servers: EmbeddedServers) -> AsyncIterator[Site]:
    """A database of its own on these servers."""
    operator = await asyncpg.connect(servers.addresses.database_url)
    await operator.execute(f"drop database if exists {DATABASE}")
    await operator.execute(f"create database {DATABASE}")
    await operator.close()
    url = urlunsplit(urlsplit(servers.addresses.database_url)._replace(path=f"/{DATABASE}"))
    await migrate(url)
    await make_partitions(url, first_day=date(2026, 3, 1), months=2)
    owner, pool = await asyncpg.connect(url), await open_pool(url, size_max=3)
    live, waker = open_live(servers.addresses.redis_url), Waker(servers.addresses.redis_url)
    wake = Wake(waker)
    try:
        made = Site(url, owner, pool, live, wake, await _columns(owner))
        for waiting in (False, True):
            world = await World.of(pool, live, PLAN)
            await world.told(TOLD)
            if waiting:
                await world.record(ARRIVED)
            made.templates[waiting] = world.tenant
        yield made
    finally:
        await wake.aclose()
        await waker.aclose()
        await live.aclose()
        await pool.close()
        await owner.close()


async def _columns(owner: asyncpg.Connection) -> dict[str, str]:
    rows = await owner.fetch(
        "select table_name, string_agg(column_name, ', ' order by ordinal_position) as names "
        "from information_schema.columns where table_schema = 'public' and column_name <> 'tenant' "
        "and table_name = any($1::text[]) group by table_name",
        list(TENANT_TABLES),
    )
    return {row["table_name"]: row["names"] for row in rows}


# ---------------------------------------------------------------- conversations


@dataclass(slots=True)
class Process:
    """The one that is cut: its pool leads through the wiretap."""

    site: Site
    tenant: int
    url: str
    acknowledged: set[Key] = field(default_factory=set)

    async def lives(self, conversation: "Conversation") -> None:
        """Hold the conversation, its connections opened as they are needed: so their order is always the same."""
        pool = await open_pool(self.url, size_max=3, size_idle=0)
        try:
            await conversation.run(self, pool)
        finally:
            pool.terminate()

    async def drains(self, pool: Pool, *, now: datetime) -> None:
        """Fold what waits, as a woken worker does."""
        shard = shard_of(classroom="7b", student="")
        await Drain(pool, Clock(now), self.site.live).shard(self.tenant, shard)

    async def records(self, pool: Pool, *, again_max: int = 1) -> None:
        """Send three requests at once through an api's recorder; whoever gets no answer sends the same again."""
        recorder = Recorder(pool, clock=Clock(NOW), wake=self.site.wake, live=self.site.live)

        async def send(events: Sequence[LearningEvent]) -> None:
            sent: list[Submission] = [submission(event) for event in events]
            for tries_left in reversed(range(again_max + 1)):
                try:
                    answers: list[Answer] = await recorder.record(self.tenant, sent, recorded_by="lms")
                except LOST:
                    if not tries_left:
                        raise
                else:
                    assert len(answers) == len(events)
                    self.acknowledged |= {(event.source, event.event_id) for event in events}
                    return

        try:
            await asyncio.gather(*(send(events) for events in SENT))
        finally:
            await recorder.aclose()


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a process says to Postgres, from its first connection on."""

    name: str
    waiting: bool  # whether it begins with a batch in the outbox
    sends: bool
    run: Callable[[Process, Pool], Awaitable[None]]


CONVERSATIONS = (
    Conversation("record", False, True, lambda process, pool: process.records(pool)),
    Conversation("drain", True, False, lambda process, pool: process.drains(pool, now=NOW)),
    Conversation("drain noted", True, False, lambda process, pool: process.drains(pool, now=LATER)),
)


@dataclass(frozen=True, slots=True)
class Whole:
    """An uncut conversation: its messages, and what it left."""

    requests: list[bool]
    answers: int
    numbers: Projections
    keys: Counter[tuple[str, ...]]

    def cuts(self, *, every: bool) -> list[Cut]:
        """A cut before each message of the client (or only the first of each turn), and after each answer."""
        before = [n for n, begins in enumerate(self.requests, start=1) if every or begins]
        return [Cut(Side.REQUEST, n) for n in before] + [Cut(Side.ANSWER, n) for n in range(1, self.answers + 1)]


async def whole(place: Site, conversation: Conversation) -> Whole:
    """Listen to a conversation without cutting it."""
    tenant = await place.tenant(waiting=conversation.waiting)
    async with tapped(place.url) as tap:
        await Process(place, tenant, tap.url).lives(conversation)
    before = len(await place.rows(TRANSITIONS, place.templates[conversation.waiting]))
    still = await place.recovered(tenant)
    told = len(await place.rows(TRANSITIONS, tenant)) - before
    found = Whole(
        tap.requests,
        tap.answers,
        await stored(place.pool, tenant),
        Counter(await place.rows(KEYS, tenant)),
    )
    assert not still, still
    replays = any(LOG_OF_STUDENTS.encode() in message for message in tap.prepared)
    assert conversation.sends or told, "expected a flag to be raised by the batch"
    assert conversation.sends or replays, "expected a view to be replayed from the log"
    assert await drift(place.pool, tenant, now=LATER) == []
    return found


async def struck(place: Site, conversation: Conversation, reference: Whole, cut: Cut, *, is_fatal: bool) -> list[str]:
    """One crash point, and all that is wrong after it."""
    tenant = await place.tenant(waiting=conversation.waiting)
    acknowledged: set[Key] = set()
    async with tapped(place.url, cut, is_fatal=is_fatal) as tap:
        process = Process(place, tenant, tap.url)
        tap.on_cut = lambda: acknowledged.update(process.acknowledged)
        running = asyncio.create_task(process.lives(conversation))
        if is_fatal:
            dead = asyncio.create_task(tap.has_cut.wait())
            await asyncio.wait({running, dead}, return_when=asyncio.FIRST_COMPLETED)
            running.cancel()
            dead.cancel()
        await asyncio.gather(running, return_exceptions=True)  # its last words reach nobody
        if not is_fatal:
            acknowledged |= process.acknowledged
    wrong = [] if tap.has_cut.is_set() else ["the conversation ended before the cut"]
    return wrong + await _broken_promises(place, conversation, reference, tenant, acknowledged)


async def _broken_promises(
    place: Site, conversation: Conversation, reference: Whole, tenant: int, acknowledged: set[Key]
) -> list[str]:
    logged = {row[1:] for row in await place.rows(KEYS, tenant)}
    wrong = [f"acknowledged and lost: {key}" for key in sorted(acknowledged - logged)]
    if conversation.sends:  # who has no answer sends the same again, to another api
        await Process(place, tenant, place.url).records(place.pool)
    wrong += await place.recovered(tenant)
    keys = Counter(await place.rows(KEYS, tenant))
    apart = sorted(key for key in keys | reference.keys if keys[key] != reference.keys[key])
    wrong += [f"{keys[key]} times instead of {reference.keys[key]}: {key}" for key in apart]
    wrong += [f"differs from a rebuild: {line}" for line in await drift(place.pool, tenant, now=LATER)]
    numbers = await stored(place.pool, tenant)
    wrong += [f"differs from what no cut leaves: {line}" for line in difference(numbers, reference.numbers)]
    wrong += [f"dead: {row}" for row in await place.rows(DEAD, tenant)]
    return wrong + await _mistold(place, tenant)


async def _mistold(place: Site, tenant: int) -> list[str]:
    """Transitions that are not numbered 1 to N, say nothing new, or do not end at the flags that stand.

    How many there are may differ: after a crash the rows are folded in smaller batches, each with its own answer.
    """
    wrong: list[str] = []
    numbers: Counter[str] = Counter()
    now: dict[tuple[str, ...], int | None] = {}
    for *key, severity, no in await place.rows(TRANSITIONS, tenant):
        numbers[key[0]] += 1
        if int(no) != numbers[key[0]] or now.get(tuple(key)) == severity:
            wrong.append(f"transition {no} of {key}, {severity}, at place {numbers[key[0]]}")
        now[tuple(key)] = severity
    standing = {tuple(key): severity for *key, severity in await place.rows(RAISED, tenant)}
    told = {key: severity for key, severity in now.items() if severity is not None}
    return wrong if told == standing else [*wrong, f"flags told {told}, standing {standing}"]


# ---------------------------------------------------------------- the run


@dataclass(slots=True)
class Report:
    """How many points, and which of them broke a promise."""

    points: Counter[str] = field(default_factory=Counter)
    failed: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def summary(self) -> str:
        parts = ", ".join(f"{name} {n}" for name, n in self.points.items())
        return f"{self.points.total()} crash points ({parts}), {len(self.failed)} broke a promise, {self.seconds:.1f} s"

    @property
    def text(self) -> str:
        shown = [f"{point}: {'; '.join(wrong[:3])}" for point, wrong in list(self.failed.items())[:FAILURES_SHOWN]]
        return "\n".join([*shown, self.summary])


async def crash_points(
    servers: EmbeddedServers,
    *,
    every: bool = True,
    only: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Cut each conversation at each of its points: by death of the process, and by loss of its connections."""
    report, began = Report(), monotonic()
    async with site(servers) as place, dead_tell_no_tales():
        for conversation in CONVERSATIONS:
            reference = await whole(place, conversation)
            for is_fatal in (True, False):
                name = f"{conversation.name} {'killed' if is_fatal else 'disconnected'}"
                if name not in (only or (name,)):
                    continue
                for cut in reference.cuts(every=every):
                    wrong = await struck(place, conversation, reference, cut, is_fatal=is_fatal)
                    report.points[name] += 1
                    if wrong:
                        report.failed[f"{name}, cut {cut}"] = wrong
                failed = sum(point.startswith(name) for point in report.failed)
                say(f"{name}: {report.points[name]} points, {failed} broke a promise, {monotonic() - began:.1f} s")
    report.seconds = monotonic() - began
    return report


@asynccontextmanager
async def dead_tell_no_tales() -> AsyncIterator[None]:
    """Nobody is left to be told of the errors of a dead process: the loop does not print them either."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda *_: None)
    try:
        yield
        gc.collect()
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(before)


async def run(*, say: Callable[[str], None]) -> int:
    """All points on servers of its own; 1 when a promise was broken."""
    with reachable_folder() as folder:
        async with EmbeddedServers(folder, durable=False) as servers:
            report = await crash_points(servers, say=say)
    say(report.text)
    return 1 if report.failed else 0
