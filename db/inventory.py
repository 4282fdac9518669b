"""All that a tenant has, key by key: what a verification compares whole."""

from dataclasses import dataclass
from datetime import datetime

from db.pool import Connection
from db.projection import ViewKey
from rules.classroom import Rollup

STUDENTS = "select student from student where tenant = $1"

CLASSROOMS = "select classroom from classroom where tenant = $1"

VIEW_KEYS = """
select student, classroom from view_state where tenant = $1
union
select student, classroom from work where tenant = $1
union
select student, classroom from standing where tenant = $1
"""

CLASSES = """
select classroom, completion_rate, average_score, submission_rate, active_students, policy_version, assessed_at,
    reassess_at
from classroom_state
where tenant = $1 and assessed_at is not null
"""


@dataclass(frozen=True, slots=True)
class AssessedClass:
    """What the last assessment of a class said, and when it was."""

    rollup: Rollup
    policy_version: int
    assessed_at: datetime
    reassess_at: datetime | None


async def students(connection: Connection, tenant: int) -> set[str]:
    """Everybody the roster knows as a student."""
    return {row["student"] for row in await connection.fetch(STUDENTS, tenant)}


async def classrooms(connection: Connection, tenant: int) -> set[str]:
    """Every class the roster knows."""
    return {row["classroom"] for row in await connection.fetch(CLASSROOMS, tenant)}


async def view_keys(connection: Connection, tenant: int) -> list[ViewKey]:
    """Every (student, classroom) with anything stored."""
    return sorted((row["student"], row["classroom"]) for row in await connection.fetch(VIEW_KEYS, tenant))


async def assessed_classes(connection: Connection, tenant: int) -> dict[str, AssessedClass]:
    """The last assessment of every class that had one."""
    return {
        row["classroom"]: AssessedClass(
            Rollup(row["completion_rate"], row["average_score"], row["submission_rate"], row["active_students"]),
            row["policy_version"],
            row["assessed_at"],
            row["reassess_at"],
        )
        for row in await connection.fetch(CLASSES, tenant)
    }
