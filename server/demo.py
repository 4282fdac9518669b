"""The demo: everything on one machine, from an empty folder to a school at work, and gone again when told to stop."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import httpx

from db.migrate import migrate
from db.pool import LOST, Pool, open_pool
from rules.access import Role, Scope
from rules.evidence import EventInput
from server import demo_load, demo_school
from server.children import Child
from server.clock import clock_with
from server.demo_load import OTHER_TENANT, TENANT, Loader, Present
from server.demo_school import DemoSchool, student_key, work_key
from server.embedded import Addresses
from server.identity import mint
from server.processes import Stopped, servers_for, write_private
from server.sender import Refusal, Service, Unreachable
from server.serving import listen
from server.settings import EMBEDDED_POOL_SIZE_MAX, Settings, WrongSetting

FILE = "demo.json"
TOKEN_LIFE = timedelta(hours=24)
STREAM_TOKEN_LIFE = timedelta(days=7)  # the streams ask for a new one when theirs has ended
READY_SECONDS_MAX = 60.0
FOLD_SECONDS_MAX = 300.0
POLL_SECONDS = 0.1
SCHOOL_EVENTS_PER_SECOND = 5.0
COURSE_ROWS_PER_MINUTE = 12.0
PAUSE_SECONDS = 2.0  # after the service could not be reached
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - what a browser on this machine must say instead
ALL_SCOPES = (Scope.INGEST, Scope.ROSTER, Scope.READ)

DASHBOARD = (
    '{ classroom(id: "%s") { name dashboard { completionRate averageScore activeStudents '
    "atRisk(first: 5) { nodes { studentId severity flags { reason } } } } } }"
)
MASTERY = '{ student(id: "%s") { key mastery(first: 10) { nodes { concept { name } score state } } } }'


@dataclass(slots=True)
class Progress:
    """A line for each step, with the time since the start and what the step took."""

    started: float
    last: float

    @classmethod
    def begin(cls) -> Progress:
        now = monotonic()
        return cls(now, now)

    def step(self, what: str) -> None:
        now = monotonic()
        print(f"[{now - self.started:5.1f} s] {what} ({now - self.last:.1f} s)", flush=True)
        self.last = now


async def run_demo(settings: Settings, *, stop: asyncio.Event) -> int:
    """Run the demo until `stop`. Raises WrongSetting, Stopped or EmbeddedRefused, with all that was started stopped."""
    if settings.is_production:
        raise WrongSetting(
            "ENVIRONMENT", "development: the demo has tokens that anyone on this machine may read", "production"
        )
    check_port(settings)
    progress = Progress.begin()
    with one_demo(settings.data_dir):
        (settings.data_dir / FILE).unlink(missing_ok=True)  # it is written when everything answers
        async with AsyncExitStack() as stack:
            addresses = await stack.enter_async_context(servers_for(settings, stop))
            progress.step("PostgreSQL and Valkey answer")
            try:
                await _until_stopped(_run(settings, addresses, progress), stop)
            finally:
                print("stopping", flush=True)
    print("stopped: the data stays, start again to go on", flush=True)
    return 0


async def _until_stopped(work: Any, stop: asyncio.Event) -> None:
    """Await work, and cancel it when `stop` is set."""
    task, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
    finally:
        for left in (task, stopping):
            left.cancel()
        await asyncio.wait({task, stopping})
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error


async def _run(settings: Settings, addresses: Addresses, progress: Progress) -> None:
    await migrate(addresses.database_url)
    progress.step("database migrated")
    async with running(children_of(settings, addresses), settings) as watch:
        pool = await open_pool(addresses.database_url, size_max=6, size_idle=1)
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(watch())
                present = await prepare(pool, settings, progress)
                await _until(lambda: answers(settings), "the api", READY_SECONDS_MAX)
                progress.step("api and worker answer")
                publish(settings, progress)
                for stream in (school_stream(settings, present), course_stream(settings, present)):
                    group.create_task(stream)
                await watching
        except* Stopped as stopped:
            raise stopped.exceptions[0] from None
        except* LOST as lost:
            raise Stopped("the database went away while the demo was loading: start again to go on") from lost
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(pool.close(), PAUSE_SECONDS)


# ---------------------------------------------------------------- before anything is started


def check_port(settings: Settings) -> None:
    """Raises WrongSetting when somebody listens on the port already."""
    try:
        listen(settings.host, settings.port).close()
    except OSError as why:
        expected = (
            f"a free port: {settings.port} is taken, try PORT={settings.port + 1 if settings.port < 65535 else 8081}"
        )
        raise WrongSetting("PORT", expected, f"{settings.host}:{settings.port}, {why.strerror}") from None


@contextmanager
def one_demo(data_dir: Path) -> Iterator[None]:
    """Hold the folder for one demo. Raises WrongSetting when another has it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "demo.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WrongSetting(
                "DATA_DIR", "a folder of its own for each demo", f"{data_dir}, in which another demo runs"
            ) from None
        yield


# ---------------------------------------------------------------- the processes


def children_of(settings: Settings, addresses: Addresses) -> list[Child]:
    """The api and the worker, told which servers to use and whom to end with."""
    environment = dict(os.environ) | {
        "DATABASE_URL": addresses.database_url,
        "REDIS_URL": addresses.redis_url,
        "DATA_DIR": str(settings.data_dir.resolve()),
        "PYTHONUNBUFFERED": "1",
    }
    if settings.database_url is None:  # the embedded server has few connections, and the child cannot know it is one
        environment["POOL_SIZE_MAX"] = os.environ.get("POOL_SIZE_MAX") or str(EMBEDDED_POOL_SIZE_MAX)
    arguments = ("--end-with", str(os.getpid()))
    logs = settings.data_dir.resolve()
    logins = ("--logins", str(logs / FILE))  # GraphiQL offers them once they are written
    return [
        Child("api", ("api", *arguments, *logins), environment, logs / "api.log"),
        Child("worker", ("worker", *arguments), environment, logs / "worker.log"),
    ]


@asynccontextmanager
async def running(
    children: Sequence[Child], settings: Settings
) -> AsyncIterator[Callable[[], Coroutine[Any, Any, None]]]:
    """Keep the children running inside the block; the function given waits for one that is given up (Stopped)."""
    keepers = [asyncio.create_task(child.keep()) for child in children]

    async def watch() -> None:
        done, _ = await asyncio.wait(keepers, return_when=asyncio.FIRST_COMPLETED)
        for keeper in done:
            await keeper

    try:
        yield watch
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.wait(keepers)
        # 000-10: they finish what is in flight; a little longer than they take to give up by themselves.
        await asyncio.gather(*(child.end(seconds=settings.shutdown_seconds + 4) for child in children))


# ---------------------------------------------------------------- the data


async def prepare(pool: Pool, settings: Settings, progress: Progress) -> Present:
    """Load what is not loaded yet and wait until all of it is folded."""
    now = clock_with(settings.now_offset)()
    loader = Loader(pool, TENANT, now)
    anchor = (await loader.make(demo_load.TENANT_NAME)).created_at
    school, course = DemoSchool(anchor), demo_load.course_at(anchor)
    new = await demo_load.load_school(loader, school)
    progress.step(f"school of {len(school.students)} students in {len(school.classrooms)} classes, {new} new events")
    new = await demo_load.load_course(loader, course, anchor)
    progress.step(f"OULAD class {course.course.key} with {len(course.students)} students, {new} new events")
    other = Loader(pool, OTHER_TENANT, now)
    await other.make(demo_load.OTHER_NAME)
    await demo_load.load_other(other)
    await _until(lambda: demo_load.is_folded(pool), "the worker", FOLD_SECONDS_MAX)
    progress.step("everything folded")
    return await demo_load.find_present(pool, school, course)


async def _until(is_reached: Callable[[], Awaitable[bool]], what: str, seconds_max: float) -> None:
    try:
        async with asyncio.timeout(seconds_max):
            while not await is_reached():  # noqa: ASYNC110 - another process gets there, and tells nobody
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise Stopped(f"{what} was not ready within {seconds_max:.0f} s: see its log in DATA_DIR") from None


async def answers(settings: Settings) -> bool:
    """Whether the api is ready."""
    async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:
        try:
            return (await client.get(f"http://{place_of(settings)}/ready")).status_code == 200
        except httpx.TransportError:
            return False


# ---------------------------------------------------------------- what it tells


def place_of(settings: Settings) -> str:
    """Host and port as a client on this machine says them."""
    return f"{WILDCARDS.get(settings.host, settings.host)}:{settings.port}"


def tokens_of(settings: Settings, now: datetime) -> dict[str, str]:
    """One token per role, for 24 hours."""
    secret = settings.signing_secret()

    def token(role: Role, sub: str, tenant: int = TENANT, scopes: Sequence[Scope] = ()) -> str:
        return mint(secret, tenant=tenant, sub=sub, roles=[role], now=now, life=TOKEN_LIFE, scopes=scopes)

    return {
        "student": token(Role.STUDENT, student_key(demo_school.SHOWN_CLASSROOM, 1)),
        "guardian": token(Role.GUARDIAN, demo_school.GUARDIAN),
        "teacher": token(Role.TEACHER, demo_school.TEACHER),
        "admin": token(Role.ADMIN, demo_school.ADMIN),
        "integrator": token(Role.INTEGRATOR, demo_school.INTEGRATOR, scopes=ALL_SCOPES),
        "otherTenantTeacher": token(Role.TEACHER, demo_load.OTHER_TEACHER, OTHER_TENANT),
    }


def told(settings: Settings, now: datetime) -> dict[str, Any]:
    """What demo.json says; ids are keys as arguments take them."""
    classroom = demo_school.SHOWN_CLASSROOM
    place = place_of(settings)
    return {
        "graphqlUrl": f"http://{place}/graphql",
        "wsUrl": f"ws://{place}/graphql",
        "tokens": tokens_of(settings, now),
        "ids": {
            "tenant": str(TENANT),
            "school": demo_school.SCHOOL.key,
            "classroom": classroom,
            "student": student_key(classroom, 1),
            "assignment": work_key(classroom, 1),
            "concept": demo_school.CONCEPTS[1],
        },
    }


def publish(settings: Settings, progress: Progress) -> None:
    """Print what to try, and write demo.json as the very last step of getting ready."""
    said = told(settings, clock_with(settings.now_offset)())
    print(shown(said), flush=True)
    write_private(settings.data_dir / FILE, said)
    progress.step(f"ready: {settings.data_dir / FILE}; Ctrl-C stops everything")


def shown(said: Mapping[str, Any]) -> str:
    """The URLs, the tokens and two queries, as a person reads them."""
    ids, url = said["ids"], said["graphqlUrl"]
    root = url.removesuffix("/graphql")
    lines = ["", f"Live page  {root}/#/class/{ids['classroom']}  (as its teacher)"]
    lines += [f"GraphQL    {url}", f"WebSocket  {said['wsUrl']}  (graphql-transport-ws)"]
    lines += [f"GraphiQL   {root}/graphiql  (a tab for each use, a token for each role)"]
    lines += [f"Health     {root}/health", "", "Tokens, for 24 hours:"]
    lines += [f"  {role:19}{token}" for role, token in said["tokens"].items()]
    lines += ["", "Try a class's dashboard, and a student's mastery:"]
    for role, query in (("teacher", DASHBOARD % ids["classroom"]), ("student", MASTERY % ids["student"])):
        sent = f"-H 'content-type: application/json' -H 'authorization: Bearer {said['tokens'][role]}'"
        lines.append(f"  curl -s {url} {sent} -d '{json.dumps({'query': query})}'")
    lines += ["", f'The real class is classroom(id: "{demo_load.COURSE}"), with the same teacher.', ""]
    return "\n".join(lines)


# ---------------------------------------------------------------- what keeps happening


async def school_stream(settings: Settings, present: Present) -> None:
    """The school's live events for ever; the same number is the same event, so an unsure one is sent again."""
    clock = clock_with(settings.now_offset)
    number = present.next_live
    async with Stream(settings) as stream:
        while True:
            await stream.send([present.school.live_event(number, at=clock())])
            number += 1
            await asyncio.sleep(1 / SCHOOL_EVENTS_PER_SECOND)


async def course_stream(settings: Settings, present: Present) -> None:
    """The course's later work, handed in now, some a minute, until all of it is there."""
    clock = clock_with(settings.now_offset)
    dice = random.Random()  # noqa: S311 - when people hand in work is nobody's to foretell
    async with Stream(settings) as stream:
        for row in present.to_come:
            await asyncio.sleep(dice.uniform(0.5, 1.5) * 60 / COURSE_ROWS_PER_MINUTE)
            await stream.send(present.course.events_of(row, at=clock()))


class Stream:
    """Sends events until each is answered, whatever happens to the service meanwhile. An async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._service = self._opened()
        self._complaint = ""

    async def send(self, events: Sequence[EventInput]) -> None:
        """Record these; while the service is away, the same ones again and again."""
        while True:
            try:
                await self._service.record(events)
            except Unreachable:
                await asyncio.sleep(PAUSE_SECONDS)
            except Refusal as why:
                self._complain(str(why))
                await asyncio.sleep(PAUSE_SECONDS)
                await self._service.__aexit__(None, None, None)
                self._service = self._opened()  # its token may have ended
            else:
                return

    def _complain(self, why: str) -> None:
        if why != self._complaint:  # once per reason, not every two seconds
            print(f"live events were refused, trying again: {why}", flush=True)
        self._complaint = why

    def _opened(self) -> Service:
        now = clock_with(self._settings.now_offset)()
        token = mint(
            self._settings.signing_secret(),
            tenant=TENANT,
            sub=demo_school.INTEGRATOR,
            roles=[Role.INTEGRATOR],
            now=now,
            life=STREAM_TOKEN_LIFE,
            scopes=[Scope.INGEST],
        )
        return Service(f"http://{place_of(self._settings)}/graphql", token)

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._service.__aexit__(None, None, None)
