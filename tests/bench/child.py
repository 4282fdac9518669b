"""The api or the worker with timers inside: how often each step of an event's way runs, and how long it takes.

`python -m tests.bench.child api|worker` serves like `python -m server`, and writes BENCH_FOLDER/<kind>.timers.json when
it is stopped. Steps that never wait are CPU time; statements are awaited time, in which other work of the process runs.
With BENCH_PROFILE=1 it runs under cProfile instead, and writes BENCH_FOLDER/<kind>.profile.txt.
"""

import asyncio
import cProfile
import importlib
import io
import json
import os
import pkgutil
import pstats
import sys
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

from asyncpg.pool import PoolConnectionProxy

import db
from server.embedded import Addresses
from server.processes import run_until_stopped
from server.settings import Settings

# The steps that never wait, by kind of process. A name that is not there any more is told as missing, never guessed.
STEPS = {
    "api": (
        ("read JSON", "graph.http", "decode"),
        ("variables to structs", "graph.compiled", "Mutation.given"),
        ("variables to inputs", "graph.documents", "Documents._executor"),
        ("inputs to classes", "strawberry.schema.schema_converter", "convert_arguments"),
        ("classes to events", "graph.recording", "event_of"),
        ("judge at a glance", "rules.routine", "Routine.of"),
        ("judge and validate", "graph.recording", "_judged"),
        ("columns of the record statement", "db.evidence", "_columns"),
        ("results to payloads", "graph.recording", "answered"),
        ("payloads to answers", "graph.compiled", "Mutation.shown"),
        ("write JSON", "graph.http", "response_of"),
    ),
    "worker": (
        ("rows to events", "db.facts", "unpacked"),
        ("log rows to events", "db.facts", "event_of"),
        ("view rows to views", "db.projection", "view_of"),
        ("continue views", "jobs.fold", "continue_view"),
        ("replay views", "jobs.fold", "replay_view"),
        ("compare", "db.projection", "Moves.compare"),
        ("columns of views, work, standings", "db.projection", "_columns"),
        ("assess classes", "jobs.fold", "assess_classroom"),
        ("find transitions", "jobs.fold", "transitions"),
    ),
}
PROFILE_LINES = 45
SHOWN_CHARACTERS = 60


class Timers:
    """Calls and seconds, by name."""

    def __init__(self) -> None:
        self.steps: dict[str, list[float]] = {}
        self.statements: dict[str, list[float]] = {}
        self.missing: list[str] = []

    def step(self, label: str, module: str, path: str) -> None:
        """Put a timer around a function that never waits."""
        owner: Any = importlib.import_module(module)
        *outer, name = path.split(".")
        for part in outer:
            owner = getattr(owner, part, None)
        function = getattr(owner, name, None)
        if function is None:
            self.missing.append(f"{module}.{path}")
            return
        kept = self.steps.setdefault(label, [0, 0.0])

        @wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                kept[0] += 1
                kept[1] += time.thread_time() - started

        setattr(owner, name, timed)

    def all_statements(self) -> None:
        """Put a timer around every statement of the pool."""
        names = _names_of_statements()
        for method in ("fetch", "fetchval", "fetchrow", "execute"):
            setattr(PoolConnectionProxy, method, self._statement(getattr(PoolConnectionProxy, method), names))

    def _statement(self, function: Callable[..., Awaitable[Any]], names: dict[str, str]) -> Callable[..., Any]:
        async def timed(proxy: Any, statement: str, *arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return await function(proxy, statement, *arguments, **named)
            finally:
                name = names.get(statement) or statement.split()[0][:SHOWN_CHARACTERS]
                kept = self.statements.setdefault(name, [0, 0.0])
                kept[0] += 1
                kept[1] += time.perf_counter() - started

        return timed


def _names_of_statements() -> dict[str, str]:
    """The name of each SQL text of db, such as evidence.RECORD."""
    found = {}
    for module in pkgutil.iter_modules(db.__path__):
        if module.name == "migrations":
            continue
        for name, value in vars(importlib.import_module(f"db.{module.name}")).items():
            if name.isupper() and isinstance(value, str):
                found[value] = f"{module.name}.{name}"
    return found


def serve(kind: str) -> int:
    """Serve until told to stop."""
    settings = Settings.read(os.environ)
    assert settings.database_url is not None
    assert settings.redis_url is not None
    addresses = Addresses(settings.database_url, settings.redis_url)

    async def work(stop: asyncio.Event) -> int:
        if kind == "api":
            from server.app import serve_api

            await serve_api(settings, addresses, stop=stop)
        else:
            from server.worker import serve_worker

            await serve_worker(settings, addresses, stop=stop)
        return 0

    return run_until_stopped(work)


def main(kind: str) -> int:
    """Serve with timers, or under cProfile."""
    folder = Path(os.environ["BENCH_FOLDER"])
    if os.environ.get("BENCH_PROFILE"):
        profile = cProfile.Profile()
        status = profile.runcall(serve, kind)
        text = io.StringIO()
        pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(PROFILE_LINES)
        (folder / f"{kind}.profile.txt").write_text(text.getvalue())
        return status
    timers = Timers()
    for step in STEPS[kind]:
        timers.step(*step)
    timers.all_statements()
    status = serve(kind)
    found = {"steps": timers.steps, "statements": timers.statements, "missing": timers.missing}
    (folder / f"{kind}.timers.json").write_text(json.dumps(found))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
