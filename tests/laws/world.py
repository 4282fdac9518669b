"""Worlds for the laws: whole tenants made from dice that aim at the traps, and their projections.

The traps: students in two classes, equal instants, one submission graded again (also in the other class), events with
several concepts, work assigned with and without a due date, voids before their target, strangers, days of many zones.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from db import outbox, projection
from db.enrollments import save_enrollment
from db.live import Live
from db.outbox import SHARDS, Touch, Waiting, touch
from db.policies import save_policy
from db.pool import Connection, Pool, tenant_transaction
from db.roster import Change, save_classroom, save_student, settle
from jobs.replay import Projections, difference, drift, stored
from rules.evidence import Kind, LearningEvent
from rules.policy import DEFAULT_POLICY, Model, Policy
from rules.roster import Classroom, Enrollment, EnrollmentRole, Student
from tests.support.events import Mill, void
from tests.support.tenants import fresh_tenant

EXAMPLES = 14  # of one law in `make test`, always the same ones: a red build must be red again
DEEP = "LAWS_EXAMPLES"  # set it to a number for that many examples of each law, new ones every time
HASTY = "LAWS_HASTY"  # set it to be told only that a law is broken, without the smallest example
NOW = datetime(2026, 3, 29, 22, 30, tzinfo=UTC)  # Sunday in London and New York, Monday in Berlin: clocks moved today
START = datetime(2026, 3, 28, 23, 0, tzinfo=UTC)
# What a roster assigns is dated to the day it is saved: before all events, or every one of them would come late.
OPENING = datetime(2026, 3, 1, tzinfo=UTC)
TERM_START = date(2026, 3, 20)
CLASSES = ("7b", "8c")
STRANGER, STRANGE_CLASS = "ghost", "9x"
CONCEPTS = ("fractions", "decimals", "ratios")
ZONES = (None, "Europe/Berlin", "America/New_York", "Pacific/Auckland")


def law(*, examples: int = EXAMPLES) -> Callable[[Any], Any]:
    """How often a law is tried, and whether the dice are new."""
    deep = os.environ.get(DEEP)
    return settings(
        max_examples=int(deep) if deep else examples,
        derandomize=not deep,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        print_blob=True,
        phases=[Phase.generate] if os.environ.get(HASTY) else list(Phase),
    )


# ---------------------------------------------------------------- dice


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is in a world: classes with their zones, students with theirs and their classes."""

    tenant_zone: str
    class_zones: tuple[str | None, ...]
    students: tuple[tuple[str, str | None, tuple[str, ...]], ...]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Three to six students in two classes; the first is always in both."""
    count = draw(st.integers(2, 5))
    zones = st.sampled_from(ZONES)
    memberships = st.sampled_from([("7b",), ("8c",), ("7b", "8c")])
    others = [(f"s{n}", draw(zones), draw(memberships)) for n in range(2, count + 2)]
    return Plan(
        draw(st.sampled_from(["UTC", "Europe/Berlin"])),
        (draw(zones), draw(zones)),
        (("s1", draw(zones), ("7b", "8c")), *others),
    )


KINDS = (
    *[Kind.SUBMISSION_GRADED] * 5,
    *[Kind.ASSIGNMENT_ASSIGNED] * 3,
    *[Kind.QUIZ_ATTEMPT] * 2,
    Kind.SUBMISSION_CREATED,
    Kind.CONCEPT_STARTED,
    Kind.CONCEPT_COMPLETED,
    Kind.CONCEPT_MASTERED,
    Kind.CONTENT_VIEWED,
    Kind.STUDENT_LOGIN,
)
RATIOS = (0, 300_000, 550_000, 600_000, 800_000, 900_000, 1_000_000)
INSTANTS = tuple(START + timedelta(minutes=m) for m in (0, 0, 0, 1, 2, 3, 59, 60, 61, 120, 121, 1380))
DUE = (None, START + timedelta(minutes=30), NOW, NOW + timedelta(hours=2))


@st.composite
def _event(draw: st.DrawFn, name: str, *, strangers: bool) -> LearningEvent:
    kind = draw(st.sampled_from(KINDS))
    is_scored = kind in (Kind.SUBMISSION_GRADED, Kind.QUIZ_ATTEMPT)
    is_work = is_scored or kind in (Kind.ASSIGNMENT_ASSIGNED, Kind.SUBMISSION_CREATED)
    is_free = kind in (Kind.QUIZ_ATTEMPT, Kind.CONTENT_VIEWED, Kind.CONCEPT_STARTED, Kind.CONCEPT_MASTERED)
    is_quiz = kind is Kind.QUIZ_ATTEMPT and draw(st.booleans())
    is_one_concept = kind in (Kind.CONCEPT_STARTED, Kind.CONCEPT_COMPLETED, Kind.CONCEPT_MASTERED)
    has_ratio = is_scored or (is_one_concept and draw(st.booleans()))
    count = 1 if is_one_concept else draw(st.sampled_from([1, 1, 2, 3])) if is_work else 0
    return LearningEvent(
        source=draw(st.sampled_from(["lms", "lms", "app"])),
        event_id=name,
        kind=kind,
        occurred_at=draw(st.sampled_from(INSTANTS)),
        student=draw(st.sampled_from(["s1", "s1", "s2", "s3", *([STRANGER] if strangers else [])])),
        classroom=draw(
            st.sampled_from([*CLASSES, *([STRANGE_CLASS] if strangers else []), *([""] if is_free else [])])
        ),
        revision=draw(st.sampled_from([0, 0, 0, 1])),
        assignment=draw(st.sampled_from(["hw1", "hw2", "hw3"])) if is_work and not is_quiz else None,
        quiz=draw(st.sampled_from(["q1", "hw1"])) if is_quiz else None,
        concepts=tuple(sorted(draw(st.permutations(CONCEPTS))[:count])),
        ratio=draw(st.sampled_from(RATIOS)) if has_ratio else None,
        submission=draw(st.sampled_from([None, "sub1", "sub2"])) if is_scored else None,
        due_at=draw(st.sampled_from(DUE)) if kind is Kind.ASSIGNMENT_ASSIGNED else None,
        time_spent_ms=draw(st.sampled_from([None, 1_000])),
    )


@st.composite
def histories(draw: st.DrawFn, *, at_least: int = 4, at_most: int = 12, strangers: bool = True) -> list[LearningEvent]:
    """Events with keys of their own, in the order of the dice; some grade the submission of another again."""
    names = [f"e{n}" for n in range(draw(st.integers(at_least, at_most)))]  # e10 sorts before e9, as text does
    events = [draw(_event(name, strangers=strangers)) for name in names]
    for place, event in enumerate(list(events)):
        if event.kind is Kind.SUBMISSION_GRADED and draw(st.booleans()):
            submission = event.submission or f"of-{event.event_id}"
            events[place] = replace(event, submission=submission)
            again = replace(
                events[place],
                event_id=f"{event.event_id}-again",
                # Mostly after all else: then only the re-grade itself keeps the fold from its shortcut.
                occurred_at=draw(st.sampled_from([*INSTANTS[::4], *[START + timedelta(minutes=1390 + place)] * 4])),
                ratio=draw(st.sampled_from(RATIOS)),
                classroom=draw(st.sampled_from([event.classroom, event.classroom, *CLASSES])),
            )
            events.append(again)
    return events


@st.composite
def batches(draw: st.DrawFn, events: Sequence[LearningEvent]) -> list[list[LearningEvent]]:
    """The events in any order, cut anywhere."""
    mixed = draw(st.permutations(list(events)))
    cuts = sorted(draw(st.lists(st.integers(1, len(mixed)), min_size=2, max_size=5)))
    pieces = [mixed[a:b] for a, b in zip([0, *cuts], [*cuts, len(mixed)], strict=True)]
    return [list(piece) for piece in pieces if piece]


claim_limits = st.sampled_from([5_000, 5_000, 1, 2, 3])
often = st.sampled_from([True, True, True, False])  # a trap needs a fold between what sets it and what springs it

POLICIES = (
    replace(DEFAULT_POLICY, model=Model.SUCCESS_RATIO, min_evidence=1),
    replace(DEFAULT_POLICY, recent_percent=20, mastery_threshold=500_000, min_evidence=2),
    replace(DEFAULT_POLICY, model=Model.SUCCESS_RATIO, success_threshold=550_000),
    replace(DEFAULT_POLICY, inactivity_days=30),
)

Input = tuple[str, ...]
INPUTS: tuple[Input, ...] = (
    *[("policy", classroom, str(n)) for classroom in ("", *CLASSES) for n in range(len(POLICIES))],
    ("student", STRANGER, ""),
    ("student", "s1", "Asia/Tokyo"),
    ("classroom", STRANGE_CLASS, "Asia/Tokyo"),
    ("classroom", "7b", "Pacific/Auckland"),
    ("join", "7b", STRANGER),
    ("join", STRANGE_CLASS, "s1"),
    ("leave", "7b", "s2"),
    ("due", "hw1", "5"),
    ("due", "hw1", "3000"),
)
"""What a roster office or a teacher may change beside events: an input of the fold each."""


# ---------------------------------------------------------------- worlds


@dataclass(slots=True)
class World:
    """One fresh tenant under a clock of its own."""

    mill: Mill

    @classmethod
    async def of(cls, pool: Pool, live: Live, plan: Plan, *, inputs: Iterable[tuple[Input, datetime]] = ()) -> "World":
        """Make a tenant with the roster of a plan, change inputs at their moments, and fold what all that says."""
        world = cls(Mill.of(pool, await fresh_tenant(pool, zone=plan.tenant_zone), live, now=OPENING))
        async with tenant_transaction(pool, world.tenant) as connection:
            for classroom, zone in zip(CLASSES, plan.class_zones, strict=True):
                await world._settle(connection, await save_classroom(
                    connection, world.tenant, Classroom(classroom, classroom, None, zone), now=OPENING
                ))  # fmt: skip
                await connection.execute(
                    "insert into assignment (tenant, assignment, classroom, title, due_at, created_at) "
                    "values ($1, $2, $3, '', $4, $4)",
                    world.tenant, f"hw{1 + CLASSES.index(classroom)}", classroom, NOW - timedelta(minutes=1),
                )  # fmt: skip
            for student, zone, classrooms in plan.students:
                await world._settle(connection, await save_student(
                    connection, world.tenant, Student(student, zone, None), now=OPENING
                ))  # fmt: skip
                for classroom in classrooms:
                    await world._settle(connection, await save_enrollment(
                        connection, world.tenant,
                        Enrollment(classroom, student, EnrollmentRole.STUDENT, TERM_START, None), now=OPENING,
                    ))  # fmt: skip
        await world.quiesce()
        for one, moment in inputs:
            world.mill.clock.now = moment
            await world.change(one)
        await world.quiesce()
        world.mill.clock.now = max(NOW, world.mill.clock.now)
        await world.assess()
        return world

    @property
    def pool(self) -> Pool:
        return self.mill.pool

    @property
    def tenant(self) -> int:
        return self.mill.tenant

    async def _settle(self, connection: Connection, change: Change) -> None:
        await settle(connection, self.tenant, change, recorded_by="office", now=self.mill.clock())

    async def change(self, given: Input) -> None:
        """Let the roster office or a teacher change one input."""
        what, key, value = given
        tenant, now = self.tenant, self.mill.clock()
        async with tenant_transaction(self.pool, tenant) as connection:
            change = Change()
            if what == "policy":
                policy: Policy = POLICIES[int(value)]
                change = await save_policy(connection, tenant, key, policy, created_by="t", now=now)
            elif what == "student":
                change = await save_student(connection, tenant, Student(key, value or None, None), now=now)
            elif what == "classroom":
                change = await save_classroom(connection, tenant, Classroom(key, key, None, value or None), now=now)
            elif what in ("join", "leave"):
                ended = date(2026, 3, 29) if what == "leave" else None
                enrollment = Enrollment(key, value, EnrollmentRole.STUDENT, TERM_START, ended)
                change = await save_enrollment(connection, tenant, enrollment, now=now)  # refused if not rostered
            elif what == "due":
                due_at = START + timedelta(minutes=int(value))
                statement = "update assignment set due_at = $3 where tenant = $1 and assignment = $2"
                await connection.execute(statement, tenant, key, due_at)
                await touch(connection, tenant, [Touch(Waiting.TOUCH_CLASSROOM, classroom="7b")], now=now)
            await self._settle(connection, change)

    async def record(self, events: Sequence[LearningEvent]) -> None:
        """Store one batch."""
        if events:
            await self.mill.record(*events)

    async def waiting(self) -> list[int]:
        """The shards with rows."""
        return [
            row[0] for row in await self.mill.rows("select distinct shard from outbox where tenant = $1 order by 1")
        ]

    async def fold_some(self, limit: int) -> None:
        """One transaction of so many rows on each shard with any."""
        for shard in await self.waiting():
            await self.mill.drain._once(self.tenant, shard, limit)

    async def quiesce(self, *, limit: int = 5_000) -> None:
        """Fold until nothing waits."""
        if limit < 5_000:
            await self.fold_some(limit)
        for _ in range(SHARDS):
            shards = await self.waiting()
            if not shards:
                return
            for shard in shards:
                await self.mill.drain.shard(self.tenant, shard)
        raise AssertionError("expected the outbox to be empty at last")

    async def told(self, *pieces: Sequence[LearningEvent], limit: int = 5_000) -> "World":
        """Record and fold piece after piece."""
        for piece in pieces:
            await self.record(piece)
            await self.quiesce(limit=limit)
        return self

    async def assess(self) -> None:
        """Assess every class at the clock's moment, as the sweep would if all were due."""
        rows = await self.mill.rows(
            "select classroom from classroom_state where tenant = $1 and assessed_at is not null"
        )
        for (classroom,) in rows:
            await self.mill.drain.classroom(self.tenant, classroom)

    async def numbers(self) -> Projections:
        """Everything stored."""
        return await stored(self.pool, self.tenant)

    async def is_as_rebuilt(self) -> None:
        """Fail unless what is stored is what the log says."""
        assert await drift(self.pool, self.tenant, now=self.mill.clock()) == []

    async def is_as(self, other: "World") -> None:
        """Fail unless both worlds show the same, and each what its log says."""
        assert difference(await self.numbers(), await other.numbers()) == []
        await self.is_as_rebuilt()
        await other.is_as_rebuilt()
        assert await self.dead_letters() == []

    async def dead_letters(self) -> list[tuple[Any, ...]]:
        """What no fold could take: in a law, nothing."""
        return await self.mill.rows("select event_id, error from dead_letter where tenant = $1")


def voids_of(events: Iterable[LearningEvent], *, suffix: str = "") -> list[LearningEvent]:
    """A void of each."""
    return [void(f"void-{event.event_id}{suffix}", event, at=60) for event in events]


class Broken(OSError):
    """The connection that a test breaks."""


@asynccontextmanager
async def broken(module: Any, step: str) -> AsyncIterator[None]:
    """Let a step of the fold die of a lost connection, in the middle of its transaction."""

    async def die(*_: Any, **__: Any) -> None:
        raise Broken

    working: Callable[..., Awaitable[Any]] = getattr(module, step)
    setattr(module, step, die)
    try:
        yield
    finally:
        setattr(module, step, working)


FAULTS = ((projection, "save"), (outbox, "delete"))
