"""What must be true after the faults: every promise, asked of the database and of the witnesses."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from db.pool import open_pool
from jobs.replay import drift
from tests.chaos.witness import Key, Ledger, Subscriber

SHOWN_MAX = 5

TRANSITIONS = """
select classroom, student, reason, change, severity, no from risk_change where tenant = $1 order by classroom, no
"""
STANDINGS = """
select classroom, student, concept, score, count from standing
where tenant = $1 and classroom <> '' order by classroom, student, concept
"""
SEVERITIES = {None: None, 1: "LOW", 2: "MEDIUM", 3: "HIGH"}
Told = tuple[str, str, str, str | None]  # (student, reason, change, severity)


def _some(what: str, keys: Iterable[Any]) -> list[str]:
    found = sorted(keys, key=repr)
    return [f"{len(found)} {what}: {found[:SHOWN_MAX]}"] if found else []


async def lost_or_doubled(connection: asyncpg.Connection, tenant: int, ledger: Ledger) -> list[str]:
    """Acknowledged events that are not in the log exactly once, and keys that were accepted twice."""
    logged = Counter(await _keys(connection, "event", tenant))
    keyed = Counter(await _keys(connection, "event_key", tenant))
    accepted_twice = [key for key, statuses in ledger.answers.items() if statuses["ACCEPTED"] > 1]
    return [
        *_some("acknowledged events lost", ledger.answers.keys() - logged.keys()),
        *_some("events doubled", (key for key, times in logged.items() if times > 1)),
        *_some("keys without their event or events without their key", logged.keys() ^ keyed.keys()),
        *_some("keys accepted twice", accepted_twice),
    ]


async def _keys(connection: asyncpg.Connection, table: str, tenant: int) -> list[Key]:
    statement = f"select source, event_id from {table} where tenant = $1"  # noqa: S608 - a table of ours
    return [(row["source"], row["event_id"]) for row in await connection.fetch(statement, tenant)]


async def not_a_rebuild(database_url: str, tenant: int, *, now: datetime) -> list[str]:
    """Where the projections differ from those rebuilt from the log."""
    pool = await open_pool(database_url, size_max=2)
    try:
        return [f"differs from a rebuild: {line}" for line in await drift(pool, tenant, now=now)]
    finally:
        await pool.close()


async def transitions(connection: asyncpg.Connection, tenant: int) -> dict[str, list[Told]]:
    """The stored transitions of every class, in order; numbered 1 to N or an AssertionError."""
    found: dict[str, list[Told]] = {}
    for row in await connection.fetch(TRANSITIONS, tenant):
        told = found.setdefault(row["classroom"], [])
        told.append((row["student"], row["reason"], row["change"], SEVERITIES[row["severity"]]))
        assert row["no"] == len(told), f"transition {row['no']} of {row['classroom']} stands at place {len(told)}"
    return found


def heard(subscriber: Subscriber) -> list[Told]:
    """The transitions that a subscriber got, in order."""
    return [
        (change["studentId"], change["reason"], change["change"], change["severity"])
        for message in subscriber.messages
        if (change := message["transition"]) is not None
    ]


def missed_or_repeated(subscribers: Sequence[Subscriber], stored: dict[str, list[Told]]) -> list[str]:
    """Subscribers who did not get exactly the transitions 1 to N of their class."""
    found = []
    for subscriber in subscribers:
        got, wanted = heard(subscriber), stored.get(subscriber.stream.classroom, [])
        if subscriber.error is not None:
            found.append(f"the stream of {subscriber.stream.classroom} ended with {subscriber.error}")
        elif got != wanted:
            place = next((n for n, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), None)
            place = min(len(got), len(wanted)) if place is None else place
            found.append(
                f"{subscriber.stream.classroom}: {len(got)} of {len(wanted)} transitions, apart from number "
                f"{place + 1} on: got {got[place : place + 2]}, stored {wanted[place : place + 2]}"
            )
    return found


State = dict[tuple[str, str], tuple[float | None, int]]  # (student, concept) -> (score, evidence)


async def standings(connection: asyncpg.Connection, tenant: int) -> dict[str, State]:
    """The standings of every class as they are stored."""
    found: dict[str, State] = {}
    for row in await connection.fetch(STANDINGS, tenant):
        score = None if row["score"] is None else row["score"] / 1000
        if row["count"]:
            found.setdefault(row["classroom"], {})[row["student"], row["concept"]] = (score, row["count"])
    return found


def newest(subscriber: Subscriber) -> State:
    """The latest state per student and concept that a subscriber was told."""
    found: State = {}
    for message in subscriber.messages:
        mastery = message["mastery"]
        if mastery is not None and mastery["evidenceCount"]:
            key = (message["studentId"], mastery["concept"]["key"])
            found[key] = (mastery["score"], mastery["evidenceCount"])
    return found


def out_of_date(subscribers: Sequence[Subscriber], stored: dict[str, State]) -> list[str]:
    """Subscribers to mastery whose latest state is not what is stored."""
    found = []
    for subscriber in subscribers:
        got, wanted = newest(subscriber), stored.get(subscriber.stream.classroom, {})
        if subscriber.error is not None:
            found.append(f"the mastery of {subscriber.stream.classroom} ended with {subscriber.error}")
        elif got != wanted:
            apart = sorted(key for key in got.keys() | wanted.keys() if got.get(key) != wanted.get(key))
            shown = [(key, got.get(key), wanted.get(key)) for key in apart[:SHOWN_MAX]]
            found.append(f"mastery of {subscriber.stream.classroom}: {len(apart)} apart (told, stored): {shown}")
    return found
