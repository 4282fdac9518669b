"""Verification: projections recomputed from the log, beside what is stored, and where they differ.

A part of a tenant or all of it, by the same steps: what is stored, and what the rules make of the log, as values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date, datetime
from typing import Any

import msgspec

from db import assessment, closing, facts, inventory, projection
from db import drift as checks
from db.closing import Zones
from db.pool import Connection, Pool, tenant_transaction
from db.projection import ViewKey
from jobs.closing import ended_days, indexes
from rules.classroom import EMPTY_VIEW, ClassFacts, Rollup, View, Work
from rules.corrections import ALL_CLASSES, by_view
from rules.evidence import LearningEvent
from rules.index import MasteryIndex
from rules.outcome import ViewState, assess_classroom, replay_view
from rules.policy import Policy
from rules.skill import Standing

DIFFERENCES_MAX = 10
LOG_STUDENTS_MAX = 100  # one read of the log: their years must come within a statement's time
TABLES = ("works", "standings", "views", "days", "flags", "classes")
"""The projections in the order in which they are made from one another: the first difference is the cause of others."""
# Both sides of a verification see one moment of the tenant.
SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
NOTHING_TO_SAY = Rollup()
NOTHING_ASSUMED: dict[str, Policy] = {}


@dataclass(frozen=True, slots=True)
class ShownFlag:
    """A raised flag as it is shown; since when, and who was told of it, is history and no function of the log.

    Nor is its sentence: that is the evidence in the words of the release that assessed the class last.
    """

    severity: int
    overall: int | None
    evidence: str  # JSON text with sorted keys


@dataclass(frozen=True, slots=True)
class ClassNumbers:
    """A class's rollup and the next moment at which time alone changes an answer."""

    rollup: Rollup
    policy_version: int
    reassess_at: datetime | None


@dataclass(frozen=True, slots=True)
class Projections:
    """All numbers of a tenant as comparable values, by key: no log position, change number, stamp or computation time.

    A standing names the policy version it was last moved under; a version that changed only the limit of inactivity
    moves none, so that is a stamp too and left out.
    """

    views: dict[ViewKey, View]
    works: dict[tuple[str, str, str], Work]
    standings: dict[tuple[str, str, str], Standing]
    flags: dict[tuple[str, str, str], ShownFlag]  # by (classroom, student, reason)
    classes: dict[str, ClassNumbers]
    # by (student, day); not of those of whom an earlier day has changed and was not closed again yet
    days: dict[tuple[str, str], MasteryIndex] = field(default_factory=dict)


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

    def has(self, key: ViewKey) -> bool:
        """Whether the view over these classes is in the part, given that its student is."""
        return self.views_of is None or key[1] in self.views_of


async def rebuilt(pool: Pool, tenant: int, *, now: datetime) -> Projections:
    """Recompute everything from log, roster, assignments and policies through the rules, in memory.

    Each class is assessed at the moment of its last assessment; one that never had any at `now`.
    """
    async with tenant_transaction(pool, tenant, read_only=True, settings=SNAPSHOT) as connection:
        return await rebuilt_part(connection, tenant, await _whole(connection, tenant), now=now)


async def stored(pool: Pool, tenant: int) -> Projections:
    """Read everything as it is stored."""
    async with tenant_transaction(pool, tenant, read_only=True, settings=SNAPSHOT) as connection:
        return await stored_part(connection, tenant, await _whole(connection, tenant))


async def drift(pool: Pool, tenant: int, *, now: datetime) -> list[str]:
    """Where what is stored differs from what the log says, both read at one moment; empty for a healthy tenant.

    Meaningful only while nothing waits in the tenant's outbox.
    """
    async with tenant_transaction(pool, tenant, read_only=True, settings=SNAPSHOT) as connection:
        whole = await _whole(connection, tenant)
        return difference(
            await stored_part(connection, tenant, whole), await rebuilt_part(connection, tenant, whole, now=now)
        )


async def _whole(connection: Connection, tenant: int) -> Part:
    """All that the roster knows or anything is stored of."""
    students = await inventory.students(connection, tenant)
    students |= {key[0] for key in await inventory.view_keys(connection, tenant)}
    classrooms = await inventory.classrooms(connection, tenant)
    classrooms |= (await inventory.assessed_classes(connection, tenant)).keys()
    return Part(sorted(students), assessed=sorted(classrooms))


def difference(a: Projections, b: Projections) -> list[str]:
    """The first differing keys of two sets of projections, each with both values; empty when they are equal."""
    found: list[str] = []
    for table in fields(Projections):
        ours: dict[Any, Any] = getattr(a, table.name)
        theirs: dict[Any, Any] = getattr(b, table.name)
        found += [
            f"{table.name}[{key!r}]: {ours.get(key)!r} != {theirs.get(key)!r}"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]
    return found[:DIFFERENCES_MAX]


async def rebuilt_part(
    connection: Connection,
    tenant: int,
    part: Part,
    *,
    now: datetime,
    assumed: dict[str, Policy] = NOTHING_ASSUMED,
    at_once: int = LOG_STUDENTS_MAX,
    seconds: float | None = None,
) -> Projections:
    """What the log says of a part; a class that was never assessed is assessed at `now`.

    `assumed` policies stand in for those that hold, by class. `at_once` students' logs are read by one statement, which
    may take `seconds`.
    """
    states: dict[ViewKey, ViewState] = {}
    days: dict[tuple[str, str], MasteryIndex] = {}
    rostered = sorted(await facts.rostered_students(connection, tenant, part.students))
    for start in range(0, len(rostered), at_once):
        students = rostered[start : start + at_once]
        log = await facts.log_of_students(connection, tenant, students, seconds=seconds)
        classes = await facts.rostered_classrooms(connection, tenant, {event.classroom for event in log})
        views = by_view(log, classrooms=classes)
        policies = await facts.policies(connection, tenant, {key[1] for key in views}) | assumed
        for key, events in views.items():
            if part.has(key):
                states[key] = replay_view(events, policy=policies[key[1]], is_class=key[1] != ALL_CLASSES)
        if "days" in part.tables:
            days |= await _days(connection, tenant, students, views)
    found = replace(projections_of(states), days=days)
    assessed = await checks.assessed(connection, tenant, part.assessed)
    zones = await facts.rostered_classrooms(connection, tenant, part.assessed)
    policies = await facts.policies(connection, tenant, zones) | assumed
    for classroom, zone in sorted(zones.items()):
        moment = assessed[classroom].assessed_at if classroom in assessed else now
        only = {classroom: zone}
        given = (await assessment.class_facts(connection, tenant, only, now=moment))[classroom]
        roster_moments = await assessment.next_roster_moments(connection, tenant, only, now=moment)
        add_assessment(
            found,
            classroom,
            _with_views(given, classroom, part, states),
            policies[classroom],
            roster_moment=roster_moments.get(classroom),
            now=moment,
        )
    return found


async def _days(
    connection: Connection, tenant: int, students: Sequence[str], views: Mapping[ViewKey, Sequence[LearningEvent]]
) -> dict[tuple[str, str], MasteryIndex]:
    """The closed days of these students, made again."""
    zones = await closing.zones(connection, tenant, students)
    closed = await _closed_days(connection, tenant, students, zones)
    made = await indexes(connection, tenant, closed, zones, views)
    return {(student, day.isoformat()): index for (student, day), index in made.items()}


async def _closed_days(
    connection: Connection, tenant: int, students: Sequence[str], zones: Zones
) -> dict[str, list[date]]:
    closed = await closing.closed(connection, tenant, students)
    return {student: ended_days(until, zones.tenant) for student, until in closed.items()}


def _with_views(given: ClassFacts, classroom: str, part: Part, states: Mapping[ViewKey, ViewState]) -> ClassFacts:
    """The class's facts with the rebuilt views of the students of the part in place of the stored ones."""
    students = set(part.students) if part.has(("", classroom)) else set()
    nothing = ViewState(EMPTY_VIEW, {}, {})
    members = (
        replace(one, view=states.get((one.student, classroom), nothing).view) if one.student in students else one
        for one in given.members
    )
    return replace(given, members=tuple(members))


def projections_of(states: Mapping[ViewKey, ViewState]) -> Projections:
    """The views' share of the projections, without what is empty."""
    return Projections(
        views={key: state.view for key, state in states.items() if state.view != EMPTY_VIEW},
        works={(*key, item): work for key, state in states.items() for item, work in state.works.items()},
        standings={
            (*key, concept): standing
            for key, state in states.items()
            for concept, standing in state.standings.items()
            if replace(standing, policy_version=1) != Standing(concept)
        },
        flags={},
        classes={},
    )


def add_assessment(
    found: Projections,
    classroom: str,
    given: ClassFacts,
    policy: Policy,
    *,
    roster_moment: datetime | None,
    now: datetime,
) -> None:
    """Add one class's flags and rollup."""
    assessed = assess_classroom(given, policy=policy, now=now)
    for (student, reason), flag in assessed.flags.items():
        evidence = msgspec.json.encode(flag.evidence, order="deterministic").decode()
        found.flags[classroom, student, reason.value] = ShownFlag(
            int(flag.severity), assessed.overall.get(student), evidence
        )
    moments = [moment for moment in (assessed.reassess_at, roster_moment) if moment is not None]
    add_class(found, classroom, assessed.rollup, policy.version, min(moments, default=None))


def add_class(
    found: Projections, classroom: str, rollup: Rollup, policy_version: int, reassess_at: datetime | None
) -> None:
    """Add a class's numbers; one without students that waits for nothing has none."""
    if rollup != NOTHING_TO_SAY or reassess_at is not None:
        found.classes[classroom] = ClassNumbers(rollup, policy_version, reassess_at)


async def stored_part(connection: Connection, tenant: int, part: Part) -> Projections:
    """What is stored of a part."""
    keys = [key for key in await checks.view_keys(connection, tenant, part.students) if part.has(key)]
    views = await projection.views(connection, tenant, keys)
    works = await projection.works(connection, tenant, dict.fromkeys(keys))
    standings = await projection.standings(connection, tenant, dict.fromkeys(keys))
    found = projections_of({key: ViewState(views[key], works[key], standings[key]) for key in keys})
    if "days" in part.tables:
        zones = await closing.zones(connection, tenant, part.students)
        closed = await _closed_days(connection, tenant, part.students, zones)
        for (student, day), index in (await closing.stored(connection, tenant, closed)).items():
            if day in closed[student]:
                found.days[student, day.isoformat()] = index
    for classroom, one in (await checks.assessed(connection, tenant, part.assessed)).items():
        add_class(found, classroom, one.rollup, one.policy_version, one.reassess_at)
    for classroom, flags in (await assessment.stored_flags(connection, tenant, part.assessed)).items():
        for (student, reason), flag in flags.items():
            if flag.memory.severity is not None:
                found.flags[classroom, student, reason.value] = ShownFlag(
                    int(flag.memory.severity), flag.overall, flag.evidence
                )
    return found
