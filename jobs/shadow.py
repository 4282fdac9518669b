"""A part of a tenant recomputed beside what is stored: where the two differ, and what saving the recomputed would move.

Live traffic goes on meanwhile: whoever has something waiting in the outbox is left out, for their stored numbers are
not yet those of the log.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec

from db import assessment, drift, facts, projection
from db.outbox import Waiting
from db.pool import Connection, Pool, tenant_transaction
from db.projection import ViewKey
from jobs.replay import (
    ALL_CLASSES,
    SNAPSHOT,
    Projections,
    ShownFlag,
    add_assessment,
    add_class,
    projections_of,
)
from rules.classroom import ClassFacts
from rules.corrections import by_view
from rules.outcome import ViewState, replay_view
from rules.skill import Standing

LOG_STUDENTS_MAX = 100  # one read of the log: their years must come within a statement's time
TABLES = ("works", "standings", "views", "flags", "classes")
"""The projections in the order in which they are made from one another: the first difference is the cause of others."""
NAMES = {"works": "WORK", "standings": "STANDING", "views": "VIEW", "flags": "RISK_FLAG", "classes": "CLASSROOM"}


@dataclass(frozen=True, slots=True)
class Part:
    """What is compared: the views of these students (in these classes, None: in all), and the classes' own numbers.

    A class is assessed with the recomputed views of those of its students who are in the part, and the stored views
    of the others.
    """

    students: Sequence[str]
    views_of: frozenset[str] | None = None  # "" is the view over all classes
    assessed: Sequence[str] = ()
    tables: Sequence[str] = TABLES


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


async def compared(pool: Pool, tenant: int, part: Part, *, now: datetime) -> Comparison:
    """Compare a part with its log, at one moment of the tenant; what waits for the fold is skipped and counted."""
    async with tenant_transaction(pool, tenant, read_only=True, settings=SNAPSHOT) as connection:
        settled = await _settled(connection, tenant, part)
        stored = await _stored(connection, tenant, settled)
        rebuilt = await _rebuilt(connection, tenant, settled, now=now)
    skipped = len(part.students) - len(settled.students) + len(part.assessed) - len(settled.assessed)
    keys = sum(len(getattr(stored, table).keys() | getattr(rebuilt, table).keys()) for table in part.tables)
    return Comparison(keys, tuple(_differences(stored, rebuilt, part.tables)), skipped)


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


async def _stored(connection: Connection, tenant: int, part: Part) -> Projections:
    keys = [key for key in await drift.view_keys(connection, tenant, part.students) if _is_in(part, key)]
    views = await projection.views(connection, tenant, keys)
    works = await projection.works(connection, tenant, dict.fromkeys(keys))
    standings = await projection.standings(connection, tenant, dict.fromkeys(keys))
    found = projections_of({key: ViewState(views[key], works[key], standings[key]) for key in keys})
    for classroom, one in (await drift.assessed(connection, tenant, part.assessed)).items():
        add_class(found, classroom, one.rollup, one.policy_version, one.reassess_at)
    for classroom, flags in (await assessment.stored_flags(connection, tenant, part.assessed)).items():
        for (student, reason), flag in flags.items():
            if flag.memory.severity is not None:
                found.flags[classroom, student, reason.value] = ShownFlag(
                    int(flag.memory.severity), flag.overall, flag.evidence, flag.clears_when
                )
    return found


async def _rebuilt(connection: Connection, tenant: int, part: Part, *, now: datetime) -> Projections:
    states: dict[ViewKey, ViewState] = {}
    for start in range(0, len(part.students), LOG_STUDENTS_MAX):
        students = part.students[start : start + LOG_STUDENTS_MAX]
        log = await facts.log_of_students(connection, tenant, students)
        classes = await facts.rostered_classrooms(connection, tenant, {event.classroom for event in log})
        views = {key: events for key, events in by_view(log, classrooms=set(classes)).items() if _is_in(part, key)}
        policies = await facts.policies(connection, tenant, {key[1] for key in views})
        for key, events in views.items():
            states[key] = replay_view(events, policy=policies[key[1]], is_class=key[1] != ALL_CLASSES)
    found = projections_of(states)
    assessed = await drift.assessed(connection, tenant, part.assessed)
    zones = await facts.rostered_classrooms(connection, tenant, part.assessed)
    policies = await facts.policies(connection, tenant, zones)
    for classroom, zone in sorted(zones.items()):
        moment = assessed[classroom].assessed_at if classroom in assessed else now
        only = {classroom: zone}
        given = (await assessment.class_facts(connection, tenant, only, now=moment))[classroom]
        roster_moments = await assessment.next_roster_moments(connection, tenant, only, now=moment)
        add_assessment(
            found,
            classroom,
            _with_views(given, classroom, states),
            policies[classroom],
            roster_moment=roster_moments.get(classroom),
            now=moment,
        )
    return found


def _with_views(given: ClassFacts, classroom: str, states: Mapping[ViewKey, ViewState]) -> ClassFacts:
    """The class's facts with the recomputed views where there are any."""
    members = (
        replace(one, view=states[one.student, classroom].view) if (one.student, classroom) in states else one
        for one in given.members
    )
    return replace(given, members=tuple(members))


def _is_in(part: Part, key: ViewKey) -> bool:
    return part.views_of is None or key[1] in part.views_of


# ---------------------------------------------------------------- what saving would move


def moved(difference: Difference) -> dict[str, int]:
    """What one difference means to a teacher, counted."""
    stored, rebuilt = difference.stored, difference.rebuilt
    if difference.table == "flags":
        return {"flags_raised": int(stored is None), "flags_cleared": int(rebuilt is None)}
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


def size(difference: Difference) -> int:
    """How far a score would move, in thousandths; 0 for everything else."""
    if difference.table != "standings":
        return 0
    return abs((_standing(difference.rebuilt).score or 0) - (_standing(difference.stored).score or 0))


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
