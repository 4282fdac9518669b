"""What the demo puts into its database: two tenants, their rosters and the past, loaded once and never twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from db import catalog, enrollments, loading, policies, roster, shards
from db.catalog import ConceptEntry, SubjectEntry
from db.evidence import Status, record_all
from db.pool import LOST, Connection, Pool, tenant_transaction
from db.roster import Change
from db.tenants import TenantEntry, make_tenant
from rules.access import Role, Scope, Viewer
from rules.calendar import local_date
from rules.evidence import EventInput, IntakeSettings, Lane, Submission
from rules.policy import Policy
from rules.roster import Assignment, Classroom, Enrollment, EnrollmentRole, School, Student
from rules.validation import validate
from server import demo_school
from server.demo_school import DemoSchool, live_number
from server.processes import Stopped
from server.replay import MARKING, SCHOOL, SOURCE, Replay, Row, read_courses, shift_to_week

TENANT, TENANT_NAME = 1, "Demo District"
OTHER_TENANT, OTHER_NAME = 2, "Other District"
ZONE = "Europe/Berlin"
COURSE, COURSE_WEEK = "BBB-2013J", 12
INACTIVITY_DAYS = 30  # a distance course is quieter than a school
BATCH_EVENTS = 2_000  # one transaction, as db.recorder has it
RECORDED_BY = "demo"
OTHER_TEACHER, OTHER_CLASSROOM, OTHER_STUDENT = "teacher-9", "9x", "9x-01"

Step = Callable[[Connection], Awaitable[Change]]


@dataclass(frozen=True, slots=True)
class Present:
    """Where the demo stands: its school, its course, and what of the course is still to come."""

    school: DemoSchool
    course: Replay
    next_live: int  # number of the next live event of the school
    to_come: list[Row]  # of the course, in order of time, not recorded yet


@dataclass(frozen=True, slots=True)
class Loader:
    """Writes one tenant; each step is one transaction that tells the fold what it changed."""

    pool: Pool
    tenant: int
    now: datetime

    async def make(self, name: str) -> TenantEntry:
        """The tenant, made at the first start. Raises Stopped where the number belongs to somebody else."""
        async with tenant_transaction(self.pool, self.tenant) as connection:
            kept = await make_tenant(connection, self.tenant, name=name, zone=ZONE, now=self.now)
        if kept.name != name:
            raise Stopped(
                f"tenant {self.tenant} of this database is {kept.name!r}, not the demo's: set another DATA_DIR"
            )
        return kept

    async def keep(self, *steps: Step) -> None:
        """Run steps in one transaction, in which nobody else changes the roster."""
        async with tenant_transaction(self.pool, self.tenant) as connection:
            await roster.lock(connection, self.tenant)
            changes = [await step(connection) for step in steps]
            faults = [fault for change in changes for fault in change.faults]
            assert not faults, f"the demo's own roster was refused: {faults[0]}"
            change = Change(
                touches=tuple(touch for change in changes for touch in change.touches),
                submissions=tuple(sent for change in changes for sent in change.submissions),
            )
            await roster.settle(connection, self.tenant, change, recorded_by=RECORDED_BY, now=self.now)

    async def knows(self, classroom: str) -> bool:
        """Whether this class was kept before, and with it all that was kept in the same transaction.

        To keep the work of a class again would assign it again, now that the class has students.
        """
        async with tenant_transaction(self.pool, self.tenant, read_only=True) as connection:
            return await roster.classroom_of(connection, self.tenant, classroom) is not None

    def school(self, school: School) -> Step:
        return lambda connection: roster.save_school(connection, self.tenant, school)

    def classroom(self, classroom: Classroom) -> Step:
        return lambda connection: roster.save_classroom(connection, self.tenant, classroom, now=self.now)

    def assignment(self, assignment: Assignment) -> Step:
        return lambda connection: enrollments.save_assignment(connection, self.tenant, assignment, now=self.now)

    def students(self, students: Sequence[Student]) -> Step:
        return lambda connection: loading.add_students(connection, self.tenant, students, now=self.now)

    def enrollments(self, entries: Sequence[Enrollment]) -> Step:
        return lambda connection: loading.add_enrollments(connection, self.tenant, entries)

    def catalog(self, subject: tuple[str, str], concepts: Sequence[ConceptEntry]) -> Step:
        subjects = [SubjectEntry(*subject)]
        return lambda connection: catalog.save_catalog(connection, self.tenant, subjects, concepts)

    def names(self, *names: tuple[str, str]) -> Step:
        async def step(connection: Connection) -> Change:
            await loading.add_names(connection, self.tenant, names)
            return roster.UNCHANGED

        return step

    async def record(self, events: Sequence[EventInput]) -> int:
        """Record the past, folded after whatever is live; returns how many events were new.

        Nothing is sent again once the last event is in the log: batches commit in order, so all are there.
        """
        if not events or await self._has(events[-1]):
            return 0
        new = 0
        for start in range(0, len(events), BATCH_EVENTS):
            sent = [self._checked(event) for event in events[start : start + BATCH_EVENTS]]
            async with tenant_transaction(self.pool, self.tenant) as connection:
                answers = await record_all(
                    connection, self.tenant, sent, recorded_by=[RECORDED_BY] * len(sent), now=self.now
                )
            new += sum(answer.status is Status.ACCEPTED for answer in answers)
        return new

    async def _has(self, event: EventInput) -> bool:
        assert event.source and event.event_id  # noqa: PT018 - ours, both set
        async with tenant_transaction(self.pool, self.tenant, read_only=True) as connection:
            return bool(await loading.recorded_ids(connection, self.tenant, event.source, [event.event_id]))

    def _checked(self, event: EventInput) -> Submission:
        """The event through the same gate as a client's."""
        viewer = Viewer(
            self.tenant,
            RECORDED_BY,
            frozenset({Role.INTEGRATOR}),
            expires_at=self.now + timedelta(hours=1),
            scopes=frozenset({Scope.INGEST}),
        )
        found = validate(event, viewer=viewer, now=self.now, settings=IntakeSettings(), fresh_id="")
        if not isinstance(found, Submission):
            raise AssertionError(f"the demo's own event was refused: {found[0]}")
        return found


async def load_school(loader: Loader, school: DemoSchool) -> int:
    """The made-up school with its past; returns how many events were new."""
    if not await loader.knows(school.classrooms[0].key):
        befores = [(), *((key,) for key in demo_school.CONCEPTS[:-1])]
        concepts = [
            ConceptEntry(key, key.capitalize(), demo_school.SUBJECT[0], prerequisites=before)
            for key, before in zip(demo_school.CONCEPTS, befores, strict=True)
        ]
        await loader.keep(
            loader.catalog(demo_school.SUBJECT, concepts),
            loader.school(demo_school.SCHOOL),
            loader.names((demo_school.TEACHER, "Ms Rivera"), (demo_school.GUARDIAN, "Mr Okafor")),
            *map(loader.classroom, school.classrooms),
            *map(loader.assignment, school.assignments),
            loader.students(school.students),
            loader.enrollments(school.enrollments),
            lambda connection: roster.save_guardian_link(connection, loader.tenant, school.guardian_link),
        )
    return await loader.record(backfilled(school.history()))


async def load_course(loader: Loader, course: Replay, anchor: datetime) -> int:
    """The real course with its past; returns how many events were new."""
    classroom = course.classroom
    if not await loader.knows(classroom.key):
        policy = Policy(inactivity_days=INACTIVITY_DAYS)
        started = course.course.day_zero + course.shift
        teacher = Enrollment(classroom.key, demo_school.TEACHER, EnrollmentRole.TEACHER, started)
        await loader.keep(
            loader.catalog(
                course.subject, [ConceptEntry(key, name, course.subject[0]) for key, name in course.concepts]
            ),
            loader.school(SCHOOL),
            loader.classroom(classroom),
            lambda connection: policies.save_policy(
                connection, loader.tenant, classroom.key, policy, created_by=RECORDED_BY, now=loader.now
            ),
            *map(loader.assignment, course.assignments),
            loader.students(course.students),
            loader.enrollments([teacher, *course.enrollments(today=local_date(anchor, ZONE))]),
        )
    return await loader.record(backfilled(past_of(course, anchor)))


async def load_other(loader: Loader) -> None:
    """The second tenant: one teacher, one class, one student; nobody of the first may see them, nor they the first."""
    started = local_date(loader.now, ZONE)
    if not await loader.knows(OTHER_CLASSROOM):
        await loader.keep(
            loader.school(School("other", "Other School")),
            loader.classroom(Classroom(OTHER_CLASSROOM, "Class 9x", "other")),
            loader.students([Student(OTHER_STUDENT, display_name="Sol 9x")]),
            loader.enrollments(
                [
                    Enrollment(OTHER_CLASSROOM, OTHER_TEACHER, EnrollmentRole.TEACHER, started),
                    Enrollment(OTHER_CLASSROOM, OTHER_STUDENT, EnrollmentRole.STUDENT, started),
                ]
            ),
        )


def course_at(anchor: datetime) -> Replay:
    """The demo's real course, moved so that it stood in its twelfth week at the anchor."""
    course = read_courses()[COURSE]
    return Replay(course, shift_to_week(course, local_date(anchor, ZONE), COURSE_WEEK))


def past_of(course: Replay, anchor: datetime) -> list[EventInput]:
    """What had happened in the course by then; a row is past when its mark is."""
    to_come = {event.event_id for row in coming_of(course, anchor) for event in course.events_of(row)}
    return [event for event in course.events() if event.event_id not in to_come]


def coming_of(course: Replay, anchor: datetime) -> list[Row]:
    """The rows whose work was not yet handed in and marked by then, in the order of time."""
    rows = [row for row in course.course.rows if course.moment_of(row) + MARKING > anchor]
    return sorted(rows, key=lambda row: (course.moment_of(row), row.key))


def backfilled(events: Sequence[EventInput]) -> list[EventInput]:
    """The same events, to be folded after whatever is live."""
    return [replace(event, lane=Lane.BACKFILL.value) for event in events]


async def find_present(pool: Pool, school: DemoSchool, course: Replay) -> Present:
    """Where the live streams go on: the log knows what was sent."""
    coming = coming_of(course, school.anchor)
    ids = [str(event.event_id) for row in coming for event in course.events_of(row)]
    async with tenant_transaction(pool, TENANT, read_only=True) as connection:
        newest = await loading.newest_id(connection, TENANT, demo_school.SOURCE, demo_school.LIVE_PREFIX)
        sent = await loading.recorded_ids(connection, TENANT, SOURCE, ids)
    to_come = [row for row in coming if not any(event.event_id in sent for event in course.events_of(row))]
    return Present(school, course, live_number(newest) + 1, to_come)


async def is_folded(pool: Pool) -> bool:
    """Whether nothing of the demo's tenants waits in the outbox."""
    try:
        return not [tenant for tenant, _ in await shards.waiting(pool) if tenant in (TENANT, OTHER_TENANT)]
    except LOST:
        return False  # Postgres is being restarted; it folds nothing meanwhile
