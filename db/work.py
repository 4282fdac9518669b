"""What each student did with each piece of work: where it stands, when it is due, and the score that counts."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from db.classrooms import AssignmentRow
from db.pool import Connection
from rules.classroom import WorkStatus

BEFORE_ALL = datetime(1, 1, 1, tzinfo=UTC)
UNDATED = datetime(9999, 12, 31, tzinfo=UTC)  # where work without a due date stands in the list: behind all other

# The cases are those of `rules.classroom.status_of_work`: a page can be filtered here only. A test holds them together.
OF_STUDENTS = """
select asked.student, k.* from unnest($2::text[]) as asked (student)
cross join lateral (
    select * from (
        select w.classroom, w.item, w.submitted_at, w.counted, coalesce(w.due_at, a.due_at) as due_at,
            coalesce(w.due_at, a.due_at, $9) as place,
            a.assignment as known, a.title, a.kind, a.difficulty, a.concepts, a.due_at as set_due_at,
            case
                when w.is_excused then 'EXCUSED'
                when w.counted is not null then 'GRADED'
                when w.submitted_at is not null then 'SUBMITTED'
                when not w.is_assigned then null
                when coalesce(w.due_at, a.due_at) < $4 then 'OVERDUE'
                else 'ASSIGNED'
            end as status
        from work w
        left join assignment a on a.tenant = $1 and a.assignment = w.item and a.classroom = w.classroom
        where w.tenant = $1 and w.student = asked.student and w.classroom <> ''
            and ($3::text is null or w.classroom = $3)
    ) one
    where one.status is not null and ($5::text[] is null or one.status = any($5))
        and (one.place, one.classroom, one.item) > ($6::timestamptz, $7::text, $8::text)
    order by one.place, one.classroom, one.item
    limit $10
) k
"""


@dataclass(frozen=True, slots=True)
class WorkRow:
    """One piece of work as one student stands with it."""

    classroom: str
    item: str
    status: WorkStatus
    due_at: datetime | None  # for this student
    submitted_at: datetime | None
    counted: int | None  # the counted score in millionths
    assignment: AssignmentRow | None  # None where the roster knows no such work

    @property
    def is_late(self) -> bool:
        """Whether it was handed in after it was due."""
        return self.submitted_at is not None and self.due_at is not None and self.submitted_at > self.due_at

    @property
    def place(self) -> tuple[datetime, str, str]:
        """Where it stands in the list: the soonest due first."""
        return (self.due_at or UNDATED, self.classroom, self.item)


@dataclass(frozen=True, slots=True)
class WorkAsk:
    """Which work is wanted, as of when."""

    now: datetime
    classroom: str | None = None
    statuses: tuple[str, ...] | None = None
    after: tuple[datetime, str, str] = (BEFORE_ALL, "", "")
    limit: int = 21


async def work_of_students(
    connection: Connection, tenant: int, students: Iterable[str], ask: WorkAsk
) -> dict[str, list[WorkRow]]:
    """For each student the work asked for, the soonest due first, at most `ask.limit` of each student."""
    statuses = None if ask.statuses is None else list(ask.statuses)
    rows = await connection.fetch(
        OF_STUDENTS, tenant, list(students), ask.classroom, ask.now, statuses, *ask.after, UNDATED, ask.limit
    )
    found: dict[str, list[WorkRow]] = defaultdict(list)
    for row in rows:
        found[row["student"]].append(_work(row))
    return found


def _work(row: asyncpg.Record) -> WorkRow:
    return WorkRow(
        classroom=row["classroom"],
        item=row["item"],
        status=WorkStatus(row["status"]),
        due_at=row["due_at"],
        submitted_at=row["submitted_at"],
        counted=row["counted"],
        assignment=None if row["known"] is None else _assignment(row),
    )


def _assignment(row: asyncpg.Record) -> AssignmentRow:
    return AssignmentRow(
        key=row["known"],
        classroom=row["classroom"],
        title=row["title"],
        kind=row["kind"],
        due_at=row["set_due_at"],
        difficulty=row["difficulty"],
        concepts=tuple(row["concepts"]),
    )
