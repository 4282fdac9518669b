"""The school of a bench: its shape, its roster written a table at a time, and its events in the order of time."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import asyncpg

from rules.access import Role, Scope
from server.identity import mint

SECRET = "benches sign their tokens with this, and nobody else does"  # at least 32 bytes
CONCEPTS = tuple(f"concept-{number:02d}" for number in range(20))
ITEMS = 40  # pieces of work a class
SOURCE = "lms"
BEGAN = datetime.now(UTC).replace(microsecond=0) - timedelta(days=30)
STEP = timedelta(milliseconds=100)  # from one event of a sender to the next
# In percent: what a learning platform sends. Grades and attempts move mastery, the others move views and work.
KINDS = (("SUBMISSION_GRADED", 40), ("QUIZ_ATTEMPT", 20), ("SUBMISSION_CREATED", 20), ("CONTENT_VIEWED", 20))

CLASSROOMS = """
insert into classroom (tenant, classroom, name, created_at)
select $1, c, 'Class ' || c, $3 from unnest($2::text[]) as c
"""
STUDENTS = "insert into student (tenant, student, created_at) select $1, s, $3 from unnest($2::text[]) as s"
ENROLLMENTS = """
insert into enrollment (tenant, classroom, person, role, started)
select $1, e.classroom, e.person, $5, $4 from unnest($2::text[], $3::text[]) as e (classroom, person)
"""
CATALOG = """
with s as (insert into subject (tenant, subject, name) values ($1, 'math', 'Mathematics'))
insert into concept (tenant, concept, subject, name) select $1, c, 'math', c from unnest($2::text[]) as c
"""
WORK = """
insert into assignment (tenant, assignment, classroom, title, concepts, created_at)
select $1, a.key, a.classroom, a.key, array[a.concept], $5
from unnest($2::text[], $3::text[], $4::text[]) as a (key, classroom, concept)
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """How many classes, and how many students in each."""

    classes: int
    students: int

    @property
    def classrooms(self) -> list[str]:
        """The keys of all classes."""
        return [f"class-{number:03d}" for number in range(self.classes)]

    def students_of(self, classroom: str) -> list[str]:
        """The keys of a class's students."""
        return [f"{classroom}-s{number:04d}" for number in range(self.students)]

    @property
    def everyone(self) -> list[tuple[str, str]]:
        """(classroom, student) of all."""
        return [(classroom, student) for classroom in self.classrooms for student in self.students_of(classroom)]

    def lanes(self, number: int) -> list[list[tuple[str, str]]]:
        """Everyone, dealt to so many senders; each student is told about by one sender alone, in order of time.

        A sender keeps whole classes where there are enough of them, as an importer does.
        """
        if self.classes >= number:
            owner = {classroom: place % number for place, classroom in enumerate(self.classrooms)}
            return [[pair for pair in self.everyone if owner[pair[0]] == lane] for lane in range(number)]
        return [self.everyone[lane::number] for lane in range(number)]


SPREAD = Shape(classes=40, students=30)
ONE_CLASS = Shape(classes=1, students=1_255)


def teacher_of(classroom: str) -> str:
    """The key of a class's teacher."""
    return f"teacher-{classroom}"


async def settle(connection: asyncpg.Connection, tenant: int, shape: Shape) -> None:
    """Write a tenant with its roster; everyone has been enrolled for longer than the events go back."""
    everyone, began = shape.everyone, BEGAN - timedelta(days=30)
    work = [(f"{c}-w{item:02d}", c, CONCEPTS[item % len(CONCEPTS)]) for c in shape.classrooms for item in range(ITEMS)]
    teachers = [teacher_of(classroom) for classroom in shape.classrooms]
    classes = [classroom for classroom, _ in everyone]
    async with connection.transaction():
        await connection.execute(
            "insert into tenant (tenant, name, zone, created_at) values ($1, 'Bench', 'UTC', $2)", tenant, began
        )
        await connection.execute("insert into tenant_head (tenant) values ($1)", tenant)
        await connection.execute(CLASSROOMS, tenant, shape.classrooms, began)
        await connection.execute(STUDENTS, tenant, [student for _, student in everyone], began)
        await connection.execute(
            ENROLLMENTS, tenant, classes, [student for _, student in everyone], began.date(), "STUDENT"
        )
        await connection.execute(ENROLLMENTS, tenant, shape.classrooms, teachers, began.date(), "TEACHER")
        await connection.execute(CATALOG, tenant, list(CONCEPTS))
        await connection.execute(WORK, tenant, [w[0] for w in work], [w[1] for w in work], [w[2] for w in work], began)


def events(lane: list[tuple[str, str]], *, name: str, first: int = 0, seed: int = 1) -> Iterator[dict[str, Any]]:
    """The endless stream of one sender, as `RecordEventInput`s, from event number `first` on.

    `name` begins every event id, and the same arguments give the same events. Times go on from one run to the next.
    """
    dice = random.Random(f"{seed}:{name}:{first}")
    kinds, weights = [kind for kind, _ in KINDS], [weight for _, weight in KINDS]
    for number in count(first):
        classroom, student = dice.choice(lane)
        item = dice.randrange(ITEMS)
        kind = dice.choices(kinds, weights)[0]
        event: dict[str, Any] = {
            "eventId": f"{name}-{number:08d}",
            "source": SOURCE,
            "occurredAt": (BEGAN + number * STEP).isoformat(),
            "studentId": student,
            "classroomId": classroom,
            "type": kind,
            "conceptIds": [CONCEPTS[item % len(CONCEPTS)]],
        }
        if kind == "CONTENT_VIEWED":
            event["contentId"] = f"video-{item}"
        else:
            event["assignmentId"] = f"{classroom}-w{item:02d}"
        if kind in ("SUBMISSION_GRADED", "QUIZ_ATTEMPT"):
            event |= {"score": dice.randrange(101), "maxScore": 100}
        if kind == "SUBMISSION_GRADED":
            event["submissionId"] = event["eventId"]  # each submission is graded once: no replay but a real one
        yield event


def token_of(tenant: int, role: Role, key: str) -> str:
    """A token that outlives the run."""
    scopes = {Scope.INGEST} if role is Role.INTEGRATOR else set()
    return mint(SECRET, tenant=tenant, sub=key, roles={role}, scopes=scopes, now=datetime.now(UTC),
                life=timedelta(hours=12))  # fmt: skip
