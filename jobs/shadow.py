"""A part of a tenant recomputed beside what is stored: where the two differ, and what saving the recomputed would move.

Live traffic goes on meanwhile: whoever has something waiting in the outbox is left out, for their stored numbers are
not yet those of the log.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec

from db import drift
from db.outbox import Waiting
from db.pool import TOO_SLOW, Connection, Pool, tenant_transaction
from jobs.replay import (
    LOG_STUDENTS_MAX,
    NOTHING_ASSUMED,
    NOTHING_TO_SAY,
    SNAPSHOT,
    ClassNumbers,
    Part,
    Projections,
    rebuilt_part,
    stored_part,
)
from rules.index import MasteryIndex
from rules.policy import Policy
from rules.skill import Standing

SHRINK = 4
ALONE_SECONDS = 30  # for a log that no statement can read in its time
NAMES = {
    "works": "WORK",
    "standings": "STANDING",
    "views": "VIEW",
    "days": "DAILY_INDEX",
    "flags": "RISK_FLAG",
    "classes": "CLASSROOM",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that is not what the log says; None where there should be none, or is none."""

    table: str
    key: tuple[str, ...]
    stored: Any
    rebuilt: Any

    @property
    def name(self) -> str:
        """The row in words, as a report names it."""
        return f"{NAMES[self.table]} {' / '.join(self.key)}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many rows were compared, and those that differ, causes first."""

    compared: int
    differences: tuple[Difference, ...]
    skipped: int  # students and classes that had something waiting


async def compared(
    pool: Pool,
    tenant: int,
    part: Part,
    *,
    now: datetime,
    assumed: dict[str, Policy] = NOTHING_ASSUMED,
    at_once: int = LOG_STUDENTS_MAX,
) -> Comparison:
    """Compare a part with its log, at one moment of the tenant; what waits for the fold is skipped and counted.

    `assumed` policies, by class, stand in for those that hold: what differs is then what such a change would move.
    `at_once` students' logs are read by one statement; one who is read alone may take long.
    """
    seconds = ALONE_SECONDS if at_once == 1 else None
    limit_ms = None if seconds is None else seconds * 1_000
    async with tenant_transaction(pool, tenant, read_only=True, limit_ms=limit_ms, settings=SNAPSHOT) as connection:
        settled = await _settled(connection, tenant, part)
        stored = await stored_part(connection, tenant, settled)
        rebuilt = await rebuilt_part(
            connection, tenant, settled, now=now, assumed=assumed, at_once=at_once, seconds=seconds
        )
    skipped = len(part.students) - len(settled.students) + len(part.assessed) - len(settled.assessed)
    keys = sum(len(getattr(stored, table).keys() | getattr(rebuilt, table).keys()) for table in part.tables)
    return Comparison(keys, tuple(_differences(stored, rebuilt, part.tables)), skipped)


@dataclass(slots=True)
class Comparer:
    """Compares part after part of a tenant, with the logs of as many students at once as a statement has time for."""

    pool: Pool
    tenant: int
    assumed: dict[str, Policy]
    at_once: int = LOG_STUDENTS_MAX

    async def compared(self, part: Part, *, now: datetime) -> Comparison:
        """Compare at one moment. Raises TOO_SLOW where Postgres is away, or one log alone too long."""
        while True:
            try:
                return await compared(self.pool, self.tenant, part, now=now, assumed=self.assumed, at_once=self.at_once)
            except TOO_SLOW:
                # Away, or years of too many students: with fewer at once it tells which.
                if self.at_once == 1:
                    raise
                self.at_once = max(1, min(self.at_once, len(part.students)) // SHRINK)


def _differences(stored: Projections, rebuilt: Projections, tables: Sequence[str]) -> list[Difference]:
    found = []
    for table in tables:
        ours: dict[Any, Any] = getattr(stored, table)
        theirs: dict[Any, Any] = getattr(rebuilt, table)
        for key in sorted(ours.keys() | theirs.keys()):
            if ours.get(key) != theirs.get(key):
                names = key if isinstance(key, tuple) else (key,)
                found.append(Difference(table, names, ours.get(key), theirs.get(key)))
    return found


async def _settled(connection: Connection, tenant: int, part: Part) -> Part:
    """The part without those for whom something waits; a class is left out with any of its rows or students."""
    waiting = await drift.unsettled(connection, tenant, part.students, [*part.assessed, *(part.views_of or ())])
    if not waiting:
        return part
    restless = {student for student, _, _ in waiting if student}
    refolded = {classroom for _, classroom, kind in waiting if kind == Waiting.REFOLD_CLASSROOM}
    # A class whose model changed will be refolded whole; so will every view over all classes.
    is_whole = bool(refolded if part.views_of is None else refolded & part.views_of)
    students = () if is_whole else tuple(one for one in part.students if one not in restless)
    moving = {classroom for _, classroom, _ in waiting}
    quiet = () if restless.intersection(part.students) else part.assessed
    return replace(part, students=students, assessed=tuple(one for one in quiet if one not in moving))


# ---------------------------------------------------------------- what saving would move


def moved(difference: Difference) -> dict[str, int]:
    """What one difference means to a teacher, counted."""
    stored, rebuilt = difference.stored, difference.rebuilt
    if difference.table == "flags":
        return {"flags_raised": int(stored is None), "flags_cleared": int(rebuilt is None)}
    if difference.table == "days":
        return {"levels_changed": int(_level(stored) != _level(rebuilt))}
    if difference.table != "standings":
        return {}
    before, after = _standing(stored), _standing(rebuilt)
    return {
        "scores_moved": int(before.score != after.score),
        "mastery_gained": int(before.mastered_at is None and after.mastered_at is not None),
        "mastery_lost": int(before.mastered_at is not None and after.mastered_at is None),
    }


def _standing(found: Standing | None) -> Standing:
    return found or Standing("")


def _level(found: MasteryIndex | None) -> str | None:
    return found.level if found else None


def size(difference: Difference) -> int:
    """How far a score, a rate or an index would move, in thousandths; how severe a flag is; 0 for everything else."""
    stored, rebuilt = difference.stored, difference.rebuilt
    moved_by = 0
    if difference.table == "standings":
        moved_by = (_standing(rebuilt).score or 0) - (_standing(stored).score or 0)
    elif difference.table == "days":
        moved_by = (rebuilt.score if rebuilt else 0) - (stored.score if stored else 0)
    elif difference.table == "flags":
        moved_by = (rebuilt or stored).severity
    elif difference.table == "classes":
        moved_by = max(abs(one - other) for one, other in zip(_rates(rebuilt), _rates(stored), strict=True))
    return abs(moved_by)


def _rates(found: ClassNumbers | None) -> tuple[int, ...]:
    rollup = found.rollup if found else NOTHING_TO_SAY
    return (rollup.completion_rate or 0, rollup.average_score or 0, rollup.submission_rate or 0)


def shown(difference: Difference) -> dict[str, Any]:
    """A difference as a report keeps it: both values as JSON texts."""
    return {
        "table": NAMES[difference.table],
        "key": list(difference.key),
        "stored": _text(difference.stored),
        "rebuilt": _text(difference.rebuilt),
        "size": size(difference),
    }


def _text(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value, order="deterministic").decode()
