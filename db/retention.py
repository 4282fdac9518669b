"""What is kept for a time only: finished jobs, drift reports and flag transitions, some at once."""

from datetime import datetime

from db.pool import Connection, Pool, lent

TENANTS = "select tenant from tenants_after($1, $2)"

# A job that ended before the moment was asked for before it: the index by time leads to all of them.
JOBS = """
delete from job where tenant = $1 and job = any(array(
    select j.job from job j
    where j.tenant = $1 and j.created_at < $2 and j.finished_at < $2
    order by j.created_at, j.job limit $3
))
"""

DRIFT_REPORTS = """
delete from drift_report where tenant = $1 and report = any(array(
    select d.report from drift_report d where d.tenant = $1 and d.at < $2 order by d.at, d.report limit $3
))
"""

# Numbers and moments of a class grow together, so its oldest transitions are its first: no index by time is needed.
RISK_CHANGES = """
delete from risk_change where tenant = $1 and ctid = any(array(
    select f.place
    from (select s.classroom from classroom_state s where s.tenant = $1 and s.classroom > $4
          order by s.classroom limit $5) c
    cross join lateral (
        select r.ctid as place, r.at from risk_change r
        where r.tenant = $1 and r.classroom = c.classroom order by r.no limit $3
    ) f
    where f.at < $2
))
"""

LAST_CLASSROOM = """
select max(c.classroom) from (
    select s.classroom from classroom_state s where s.tenant = $1 and s.classroom > $2 order by s.classroom limit $3
) c
"""


async def tenants(pool: Pool, *, after: int, at_most: int) -> list[int]:
    """The next tenants by number."""
    async with lent(pool) as connection:
        return [row["tenant"] for row in await connection.fetch(TENANTS, after, at_most)]


async def forget_jobs(connection: Connection, tenant: int, *, before: datetime, at_most: int) -> int:
    """Delete the oldest jobs that ended before the moment; returns how many."""
    return _count(await connection.execute(JOBS, tenant, before, at_most))


async def forget_drift_reports(connection: Connection, tenant: int, *, before: datetime, at_most: int) -> int:
    """Delete the oldest reports of before the moment; returns how many."""
    return _count(await connection.execute(DRIFT_REPORTS, tenant, before, at_most))


async def forget_risk_changes(
    connection: Connection, tenant: int, *, before: datetime, at_most: int, after: str, classrooms: int
) -> tuple[int, str | None]:
    """Delete the first transitions of the next classes by key, at most so many of each; returns how many, and the
    last class looked at, None after the last of the tenant."""
    last = await connection.fetchval(LAST_CLASSROOM, tenant, after, classrooms)
    if last is None:
        return 0, None
    return _count(await connection.execute(RISK_CHANGES, tenant, before, at_most, after, classrooms)), last


def _count(status: str) -> int:
    return int(status.rsplit(" ", 1)[1])
