"""The commands of `python -m server`: what each takes, and what it runs."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.embedded import EmbeddedRefused
from server.settings import TABLE, Settings, WrongSetting, table_markdown

if TYPE_CHECKING:
    from db.background import Order

OK, FAILED, WRONG = 0, 1, 2
HOURS_MAX = 30 * 24  # identity refuses tokens that live longer
EPILOG = "Settings come from the environment: `python -m server settings` lists them. Every command ends on Ctrl-C."
Run = Callable[[argparse.Namespace, Settings], int]


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command and return its exit status; what a person can mend is one line on stderr."""
    given = os.environ if environ is None else environ
    asked = parser().parse_args(arguments)
    run: Run = asked.run
    # Late: only commands that run pay for what they import.
    from db.pool import APP_ROLE
    from server.processes import Stopped
    from server.replay import WrongData
    from server.sender import Refusal, Unreachable

    try:
        settings = Settings.read(given)
        log_for(asked.command, settings, given)
        return run(asked, settings)
    except WrongSetting as wrong:
        return _say(f"wrong setting: {wrong}", WRONG)
    except (WrongData, ValueError) as wrong:
        return _say(str(wrong), WRONG)
    except (EmbeddedRefused, Stopped, Refusal, Unreachable, OSError) as why:
        return _say(f"{asked.command}: {str(why) or type(why).__name__}", FAILED)
    except ExceptionGroup as group:
        known = group.subgroup((EmbeddedRefused, Stopped, Refusal, Unreachable, OSError))
        if known is None:
            raise
        return _say(f"{asked.command}: {_first(known)}", FAILED)
    except KeyboardInterrupt:
        return FAILED
    except Exception as error:
        if not type(error).__module__.startswith("asyncpg"):
            raise
        hint = ": run `python -m server migrate` first" if APP_ROLE in str(error) else ""
        return _say(f"{asked.command}: the database said {type(error).__name__}: {error}{hint}", FAILED)


def log_for(command: str, settings: Settings, environ: Mapping[str, str]) -> None:
    """The service's own processes log JSON to stdout; commands that talk to a person log what is unusual to stderr."""
    if command in ("api", "worker"):
        from server.logs import Sink, log_to

        log_to(Sink(sys.stdout.buffer, settings.log_file), settings.log_level)
        return
    is_process = command == "migrate"
    level = settings.log_level if is_process or environ.get("LOG_LEVEL") else "WARNING"
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for chatty in ("httpx", "alembic.runtime.plugins", "alembic.ext"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _first(group: BaseExceptionGroup[Exception]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _say(sentence: str, status: int) -> int:
    print(f"sightline: {sentence}", file=sys.stderr)
    return status


# ---------------------------------------------------------------- the words


def parser() -> argparse.ArgumentParser:
    """All commands with their help."""
    root = argparse.ArgumentParser(
        prog="python -m server",
        description="Sightline records each learning event once and turns the log into mastery, class numbers and "
        "risk flags, served over GraphQL.",
        epilog=EPILOG,
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, run: Run, about: str, *, more: str = "") -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=about, description=f"{about} {more}".strip(), epilog=EPILOG)
        found.set_defaults(run=run)
        return found

    embedded = (
        "Without DATABASE_URL and REDIS_URL it uses the embedded PostgreSQL and Valkey of DATA_DIR: the first process "
        "starts them, others on the same folder join, and they stop with the first."
    )
    api = command("api", run_api, "Serve GraphQL over HTTP and WebSocket.", more=embedded)
    worker = command("worker", run_worker, "Fold recorded events into what is read.", more=embedded)
    api.add_argument(
        "--logins",
        type=Path,
        metavar="FILE",
        help="tokens whose people the pages sign in on this machine: the demo's demo.json",
    )
    api.add_argument(
        "--login-seconds", type=int, default=300, metavar="N", help="how long the pages stay signed in; they renew it"
    )
    worker.add_argument("--check", action="store_true", help="ask whether a worker is alive, and end: 0 yes, 1 no")
    for process in (api, worker):
        process.add_argument(
            "--end-with", type=int, metavar="PID", help="end when this parent process is gone, as the demo's own do"
        )
    command("migrate", run_migrate, "Bring the database to the newest schema; safe to run again.", more=embedded)
    command(
        "demo", run_demo, "Run everything on this machine, with a real class and a school that keeps sending events."
    )
    _add_simulate(command("simulate", run_simulate, "Send the events of a made-up school, decided by a seed.",
                          more="The same seed and shares send the same events, however often."))  # fmt: skip
    _add_replay(command("replay-oulad", run_replay, "Send real classes (OULAD, CC BY 4.0) to a running service.",
                        more="Makes their roster first; running it again changes nothing."))  # fmt: skip
    _add_token(command("token", run_token, "Print a bearer token for development.",
                       more="Refused in production, where tokens come from the school's own issuer."))  # fmt: skip
    recompute = command("recompute", run_recompute, "Make numbers again from the log, or count what that would change.",
                        more="Live events go on meanwhile; running it twice changes nothing.")  # fmt: skip
    recompute.add_argument("--student", help="only this student, in every class")
    recompute.add_argument("--classroom", help="only this class and its students")
    recompute.add_argument("--dry-run", action="store_true", help="only compare, and show the largest changes")
    verify = command("verify", run_verify, "Hold the numbers of a class against the log; 1 where any differs.")
    verify.add_argument("--classroom", required=True, help="the key of the class")
    for errand in (recompute, verify):
        errand.add_argument("--tenant", type=_count, default=1, help="the number of the tenant (default 1)")
    command("schema", run_schema, "Print the GraphQL schema.")
    documents = command("documents", run_documents, "Check the trusted documents and print the id of each.",
                        more="They are those of the service's pages and of TRUSTED_DOCUMENTS.")  # fmt: skip
    documents.add_argument("--json", action="store_true", help="as an object from id to file, for builds")
    settings = command("settings", run_settings, "List every setting: its default, what it expects, what it is for.")
    settings.add_argument("--markdown", action="store_true", help="as the table of README")
    return root


def _share(value: str) -> float:
    share = float(value)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1, got {value}")
    return share


def _above_zero(value: str) -> float:
    number = float(value)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {value}")
    return number


def _count(value: str) -> int:
    number = int(value)
    if not 1 <= number <= 10_000_000:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {value}")
    return number


def _add_target(found: argparse.ArgumentParser) -> None:
    found.add_argument("--url", help="the service's GraphQL address; default: that of DATA_DIR/demo.json")
    found.add_argument("--token", help="an integrator's token with ingest and roster; default: that of demo.json")


def _add_simulate(found: argparse.ArgumentParser) -> None:
    found.add_argument("--seed", type=int, default=1, help="decides the events (default 1)")
    found.add_argument("--students", type=_count, default=60, help="how many, thirty to a class (default 60)")
    found.add_argument("--rate", type=_above_zero, default=20.0, help="events per second (default 20)")
    found.add_argument("--duplicates", type=_share, default=0.02, help="share that is sent twice (default 0.02)")
    found.add_argument("--reorder", type=_share, default=0.05, help="share that is held back (default 0.05)")
    found.add_argument("--late", type=_share, default=0.02, help="share that happened days before (default 0.02)")
    found.add_argument("--events", type=_count, help="end after so many events")
    found.add_argument("--seconds", type=_above_zero, help="end after so many seconds")
    found.add_argument("--no-roster", action="store_true", help="do not make the school first")
    _add_target(found)


def _add_replay(found: argparse.ArgumentParser) -> None:
    found.add_argument("--class", dest="classes", default="BBB-2013J", help="one of the 9 classes, or all")
    found.add_argument(
        "--speed",
        type=float,
        default=0.0,
        help="days of the class per second, with what lies ahead stamped when sent; 0 (default): what has happened, as "
        "fast as it is taken",
    )
    found.add_argument("--shift-to-today", action="store_true", help="move the dates so that --week is this week")
    found.add_argument("--week", type=_count, default=12, help="the week of the class that today is in (default 12)")
    found.add_argument("--data", type=Path, help="folder of the OULAD files (default docs/data)")
    _add_target(found)


def _add_token(found: argparse.ArgumentParser) -> None:
    from rules.access import Role, Scope

    roles, scopes = [role.value for role in Role], [scope.value for scope in Scope]
    found.add_argument("--role", action="append", required=True, choices=roles, help="what they are; may be repeated")
    found.add_argument("--sub", required=True, help="whose token: the person's key, e.g. t1")
    found.add_argument("--tenant", type=_count, default=1, help="the number of the tenant (default 1)")
    found.add_argument(
        "--hours", type=_above_zero, default=24.0, help=f"how long it holds, to {HOURS_MAX} (default 24)"
    )
    found.add_argument("--scope", action="append", default=[], choices=scopes, help="of integrators; may be repeated")
    found.add_argument("--source", action="append", help="the only sources an integrator may use; may be repeated")


# ---------------------------------------------------------------- what they run


def _until_stopped(work: Callable[[asyncio.Event], Coroutine[Any, Any, int]], parent: int | None = None) -> int:
    from server.processes import run_until_stopped

    return run_until_stopped(work, parent=parent)


def run_api(asked: argparse.Namespace, settings: Settings) -> int:
    """Serve until told to stop."""
    from server.app import serve_api
    from server.documents import checked
    from server.pages.sign_in import Logins
    from server.processes import serve

    if asked.logins is not None and settings.is_production:
        raise WrongSetting("ENVIRONMENT", "development where --logins are offered", "production")
    checked(settings)  # before any server is started or joined
    logins = None if asked.logins is None else Logins(asked.logins, timedelta(seconds=asked.login_seconds))
    work = partial(serve_api, logins=logins)
    return _until_stopped(lambda stop: serve(settings, work, stop), asked.end_with)


def run_worker(asked: argparse.Namespace, settings: Settings) -> int:
    """Fold until told to stop, or only look whether somebody does."""
    from server.processes import beat_path, is_beating, serve
    from server.worker import serve_worker

    beat = beat_path(settings)
    if asked.check:
        is_alive = is_beating(beat)
        print("a worker is alive" if is_alive else f"no worker has shown itself at {beat}")
        return OK if is_alive else FAILED
    return _until_stopped(lambda stop: serve(settings, serve_worker, stop, beat=beat), asked.end_with)


def run_migrate(asked: argparse.Namespace, settings: Settings) -> int:
    """Migrate once."""
    from db.migrate import migrate, newest_revision
    from server.processes import bounded, servers_for

    async def work(stop: asyncio.Event) -> int:
        async with servers_for(settings, stop) as addresses:
            await bounded(migrate(addresses.database_url), stop, seconds=settings.shutdown_seconds)
        print(f"the database stands at revision {newest_revision()}")
        return OK

    return _until_stopped(work)


def run_recompute(asked: argparse.Namespace, settings: Settings) -> int:
    """Recompute, or only compare."""
    from db.background import JobKind, JobScope, Order

    if asked.student and asked.classroom:
        raise ValueError("--student and --classroom exclude each other")
    scope = JobScope.STUDENT if asked.student else JobScope.CLASSROOM if asked.classroom else JobScope.TENANT
    order = Order(
        kind=JobKind.RECOMPUTE,
        scope=scope,
        student=asked.student or "",
        classroom=asked.classroom or "",
        is_dry_run=asked.dry_run,
    )
    return _errand(asked.tenant, order, settings, is_check=False)


def run_verify(asked: argparse.Namespace, settings: Settings) -> int:
    """Compare a class with its log."""
    from db.background import JobKind, JobScope, Order

    order = Order(kind=JobKind.VERIFY, scope=JobScope.CLASSROOM, classroom=asked.classroom)
    return _errand(asked.tenant, order, settings, is_check=True)


def _errand(tenant: int, order: Order, settings: Settings, *, is_check: bool) -> int:
    from db.background import JobState
    from server.errand import run_errand, told
    from server.processes import servers_for

    async def work(stop: asyncio.Event) -> int:
        async with servers_for(settings, stop) as addresses:
            job = await run_errand(settings, addresses, tenant=tenant, order=order, stop=stop)
        if job is None:
            return _say("stopped; the job waits for a worker to go on with it", FAILED)
        print(told(job))
        is_right = not is_check or (job.result is not None and job.result["different"] == 0)
        return OK if job.state is JobState.DONE and is_right else FAILED

    return _until_stopped(work)


def run_demo(asked: argparse.Namespace, settings: Settings) -> int:
    """The demo, until it is told to stop or `make`, which runs it, is gone."""
    from server import demo

    # Only make is watched: a shell that started us in the background may end on purpose.
    parent = os.getppid() if "MAKELEVEL" in os.environ else None
    return _until_stopped(lambda stop: demo.run_demo(settings, stop=stop), parent)


def run_simulate(asked: argparse.Namespace, settings: Settings) -> int:
    """Send a seed's events."""
    from server.sender import Service
    from server.simulate import STUDENTS_MAX, Mix, Pace, enroll, events, send

    if asked.students > STUDENTS_MAX:
        raise ValueError(f"--students expects at most {STUDENTS_MAX}, got {asked.students}")
    mix = Mix(asked.seed, asked.students, asked.duplicates, asked.reorder, asked.late)
    url, token = _target(asked, settings)

    async def work(stop: asyncio.Event) -> int:
        async with Service(url, token) as service:
            if not asked.no_roster:
                print(f"making the school of {mix.students} students", flush=True)
                await enroll(service, mix)
            await send(service, events(mix), Pace(asked.rate, asked.events, asked.seconds), stop=stop)
            return OK

    return _until_stopped(work)


def run_replay(asked: argparse.Namespace, settings: Settings) -> int:
    """Send real classes."""
    from server.clock import clock_with
    from server.feed import feed, moment, save_roster
    from server.replay import DATA, Replay, read_courses, shift_to_week
    from server.sender import Service

    if not 0 <= asked.speed < 1e6:
        raise ValueError(f"--speed expects 0 or more days per second, got {asked.speed}")
    courses = read_courses(asked.data or DATA)
    if asked.classes != "all" and asked.classes not in courses:
        raise ValueError(f"--class expects all or one of {', '.join(courses)}; got {asked.classes}")
    clock = clock_with(settings.now_offset)
    chosen = list(courses.values()) if asked.classes == "all" else [courses[asked.classes]]
    replays = [
        Replay(course, shift_to_week(course, clock().date(), asked.week)) if asked.shift_to_today else Replay(course)
        for course in chosen
    ]
    url, token = _target(asked, settings)

    async def work(stop: asyncio.Event) -> int:
        async with Service(url, token) as service:
            saved = await save_roster(service, replays, stop=stop)
            print(f"{saved} entries of the roster saved", flush=True)
            found = sorted((e for r in replays for e in r.events()), key=lambda e: (moment(e), str(e.event_id)))
            await feed(service, found, days_per_second=asked.speed, stop=stop, clock=clock)
            return OK

    return _until_stopped(work)


def _target(asked: argparse.Namespace, settings: Settings) -> tuple[str, str]:
    """The service to send to: as asked, else the demo of DATA_DIR."""
    if asked.url and asked.token:
        return asked.url, asked.token
    path = settings.data_dir / "demo.json"
    try:
        known = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"--url and --token are needed: no demo has run here, {path} is missing") from None
    return asked.url or known["graphqlUrl"], asked.token or known["tokens"]["integrator"]


def run_token(asked: argparse.Namespace, settings: Settings) -> int:
    """Print a token."""
    from rules.access import Role, Scope
    from server.clock import clock_with
    from server.identity import mint

    if settings.is_production:
        raise WrongSetting("ENVIRONMENT", "development: in production the school's issuer makes tokens", "production")
    if settings.jwt_algorithm != "HS256":
        raise WrongSetting("JWT_ALGORITHM", "HS256: with RS256 only the issuer has the key", settings.jwt_algorithm)
    if asked.hours > HOURS_MAX:
        raise ValueError(f"--hours expects at most {HOURS_MAX}, got {asked.hours}")
    token = mint(
        settings.signing_secret(),
        tenant=asked.tenant,
        sub=asked.sub,
        roles=[Role(role) for role in asked.role],
        now=clock_with(settings.now_offset)(),
        life=timedelta(hours=asked.hours),
        scopes=[Scope(scope) for scope in asked.scope],
        sources=asked.source,
    )
    print(token)
    return OK


def run_schema(asked: argparse.Namespace, settings: Settings) -> int:
    """Print the schema."""
    from graph.schema import sdl

    print(sdl(), end="")
    return OK


def run_documents(asked: argparse.Namespace, settings: Settings) -> int:
    """List what is registered; a document that is not valid ends it with the file and the reason."""
    from server.documents import checked, shown

    documents = checked(settings)
    if asked.json:
        print(json.dumps({one.id: shown(one) for one in documents}, indent=2))
        return OK
    for one in documents:
        print(f"{one.id}  {shown(one)}")
    return OK


def run_settings(asked: argparse.Namespace, settings: Settings) -> int:
    """List the settings."""
    if asked.markdown:
        print(table_markdown(), end="")
        return OK
    for row in TABLE:
        print(f"{row.name} (default: {row.default})\n    {row.about}\n    Expects {row.expects}.")
    return OK
