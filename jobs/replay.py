"""Verification: every projection of a tenant recomputed from the log, beside what is stored, and where they differ."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

import msgspec

from db import assessment, facts, inventory, projection
from db.inventory import AssessedClass
from db.pool import Connection, Pool, tenant_transaction
from db.projection import ViewKey
from rules.classroom import EMPTY_VIEW, ClassFacts, Rollup, View, Work
from rules.corrections import by_view
from rules.outcome import ViewState, assess_classroom, replay_view
from rules.policy import Policy
from rules.skill import Standing

ALL_CLASSES = ""
DIFFERENCES_MAX = 10
# Both sides of a verification see one moment of the tenant.
SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
NOTHING_TO_SAY = Rollup()


@dataclass(frozen=True, slots=True)
class ShownFlag:
    """A raised flag as it is shown; since when, and who was told of it, is history and no function of the log."""

    severity: int
    overall: int | None
    evidence: str  # JSON text with sorted keys
    clears_when: str


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


async def rebuilt(pool: Pool, tenant: int, *, now: datetime) -> Projections:
    """Recompute everything from log, roster, assignments and policies through the rules, in memory.

    Each class is assessed at the moment of its last assessment; one that never had any at `now`.
    """
    async with tenant_transaction(pool, tenant, read_only=True, settings=SNAPSHOT) as connection:
        return await _rebuilt(connection, tenant, now=now)


async def stored(pool: Pool, tenant: int) -> Projections:
    """Read everything as it is stored."""
    async with tenant_transaction(pool, tenant, read_only=True, settings=SNAPSHOT) as connection:
        return await _stored(connection, tenant)


async def drift(pool: Pool, tenant: int, *, now: datetime) -> list[str]:
    """Where what is stored differs from what the log says, both read at one moment; empty for a healthy tenant.

    Meaningful only while nothing waits in the tenant's outbox.
    """
    async with tenant_transaction(pool, tenant, read_only=True, settings=SNAPSHOT) as connection:
        return difference(await _stored(connection, tenant), await _rebuilt(connection, tenant, now=now))


def difference(a: Projections, b: Projections) -> list[str]:
    """The first differing keys of two sets of projections, each with both values; empty when they are equal."""
    found: list[str] = []
    for field in fields(Projections):
        ours: dict[Any, Any] = getattr(a, field.name)
        theirs: dict[Any, Any] = getattr(b, field.name)
        found += [
            f"{field.name}[{key!r}]: {ours.get(key)!r} != {theirs.get(key)!r}"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]
    return found[:DIFFERENCES_MAX]


async def _rebuilt(connection: Connection, tenant: int, *, now: datetime) -> Projections:
    students = await inventory.students(connection, tenant)
    classrooms = await inventory.classrooms(connection, tenant)
    policies = await facts.policies(connection, tenant, classrooms | {ALL_CLASSES})
    zones = await facts.rostered_classrooms(connection, tenant, classrooms)
    assessed = await inventory.assessed_classes(connection, tenant)
    states: dict[ViewKey, ViewState] = {}
    log = await facts.log_of_students(connection, tenant, students)
    for key, events in by_view(log, classrooms=classrooms).items():
        states[key] = replay_view(events, policy=policies[key[1]], is_class=key[1] != ALL_CLASSES)
    found = projections_of(states)
    for classroom in sorted(classrooms):
        moment = assessed[classroom].assessed_at if classroom in assessed else now
        zone = {classroom: zones[classroom]}
        given = (await assessment.class_facts(connection, tenant, zone, now=moment))[classroom]
        roster_moments = await assessment.next_roster_moments(connection, tenant, zone, now=moment)
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
    """The class's facts with the rebuilt views in place of the stored ones."""
    nothing = ViewState(EMPTY_VIEW, {}, {})
    members = (replace(one, view=states.get((one.student, classroom), nothing).view) for one in given.members)
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
            int(flag.severity), assessed.overall.get(student), evidence, flag.clears_when
        )
    moments = [moment for moment in (assessed.reassess_at, roster_moment) if moment is not None]
    add_class(found, classroom, assessed.rollup, policy.version, min(moments, default=None))


def add_class(
    found: Projections, classroom: str, rollup: Rollup, policy_version: int, reassess_at: datetime | None
) -> None:
    """Add a class's numbers; one without students that waits for nothing has none."""
    if rollup != NOTHING_TO_SAY or reassess_at is not None:
        found.classes[classroom] = ClassNumbers(rollup, policy_version, reassess_at)


async def _stored(connection: Connection, tenant: int) -> Projections:
    keys = await inventory.view_keys(connection, tenant)
    everything = dict.fromkeys(keys)
    views = await projection.views(connection, tenant, keys)
    works = await projection.works(connection, tenant, everything)
    standings = await projection.standings(connection, tenant, everything)
    found = projections_of({key: ViewState(views[key], works[key], standings[key]) for key in keys})
    classes: dict[str, AssessedClass] = await inventory.assessed_classes(connection, tenant)
    for classroom, one in classes.items():
        add_class(found, classroom, one.rollup, one.policy_version, one.reassess_at)
    for classroom, flags in (await assessment.stored_flags(connection, tenant, classes)).items():
        for (student, reason), flag in flags.items():
            if flag.memory.severity is not None:
                found.flags[classroom, student, reason.value] = ShownFlag(
                    int(flag.memory.severity), flag.overall, flag.evidence, flag.clears_when
                )
    return found
