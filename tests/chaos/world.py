"""The school of a crash run: written straight into the roster tables, a whole table at a time."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg

from rules.access import Role, Scope
from server.identity import mint
from tests.chaos.cluster import SECRET
from tests.chaos.script import CLASSES_PER_STEP, CONCEPTS, Plan, class_of, members_of

TENANT = 7_001  # where the bursts go
BYSTANDER = 7_002  # whose steady traffic tells how long recording paused, and heals no shard of TENANT
STEADY_CLASS, STEADY_STUDENTS = "steady", 8
SOURCE = "lms"

WAITING = "select count(*) from outbox where tenant = any($1::bigint[])"

CLASSROOMS = """
insert into classroom (tenant, classroom, name, created_at)
select $1, c, 'Class ' || c, $3 from unnest($2::text[]) as c
"""
STUDENTS = "insert into student (tenant, student, created_at) select $1, s, $3 from unnest($2::text[]) as s"
ENROLLMENTS = """
insert into enrollment (tenant, classroom, person, role, started)
select $1, e.classroom, e.student, 'STUDENT', $4 from unnest($2::text[], $3::text[]) as e (classroom, student)
"""
CATALOG = """
with s as (insert into subject (tenant, subject, name) values ($1, 'math', 'Mathematics'))
insert into concept (tenant, concept, subject, name) select $1, c, 'math', c from unnest($2::text[]) as c
"""
WORK = """
insert into assignment (tenant, assignment, classroom, title, concepts, created_at)
select $1, a.key, a.classroom, a.key, $4::text[], $5 from unnest($2::text[], $3::text[]) as a (key, classroom)
"""


async def settle(connection: asyncpg.Connection, plan: Plan, now: datetime) -> None:
    """Write both tenants."""
    places = [(step.no, place) for step in plan.steps for place in range(CLASSES_PER_STEP)]
    roster = {class_of(*place): members_of(*place) for place in places}
    await _tenant(connection, TENANT, roster, now)
    steady = [f"steady-{number}" for number in range(STEADY_STUDENTS)]
    await _tenant(connection, BYSTANDER, {STEADY_CLASS: steady}, now)


async def _tenant(
    connection: asyncpg.Connection, tenant: int, roster: Mapping[str, Sequence[str]], now: datetime
) -> None:
    pairs = [(classroom, student) for classroom, students in roster.items() for student in students]
    work = [(f"{classroom}-w{number}", classroom) for classroom in roster for number in range(3)]
    async with connection.transaction():
        await connection.execute(
            "insert into tenant (tenant, name, zone, created_at) values ($1, 'Crash', 'UTC', $2)", tenant, now
        )
        await connection.execute("insert into tenant_head (tenant) values ($1)", tenant)
        await connection.execute(CLASSROOMS, tenant, list(roster), now)
        await connection.execute(STUDENTS, tenant, sorted({student for _, student in pairs}), now)
        started = (now - timedelta(days=3)).date()
        await connection.execute(ENROLLMENTS, tenant, [c for c, _ in pairs], [s for _, s in pairs], started)
        await connection.execute(CATALOG, tenant, list(CONCEPTS))
        await connection.execute(WORK, tenant, [a for a, _ in work], [c for _, c in work], list(CONCEPTS), now)


def token_of(role: Role, key: str, *, tenant: int = TENANT) -> str:
    """A token for the whole run."""
    return mint(
        SECRET,
        tenant=tenant,
        sub=key,
        roles={role},
        scopes={Scope.INGEST} if role is Role.INTEGRATOR else set(),
        now=datetime.now(UTC),
        life=timedelta(hours=12),
    )
