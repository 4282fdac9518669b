"""What is kept for seven days goes afterwards, and nothing before."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import changes
from db.live import Live
from db.pool import Pool, tenant_transaction
from jobs import retention
from jobs.retention import KEPT_FOR, Retention
from tests.jobs.test_drain import mill_of
from tests.support.events import Mill

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
OLD, KEPT = NOW - KEPT_FOR - timedelta(seconds=1), NOW - KEPT_FOR

JOBS = """
insert into job (tenant, job, kind, scope, state, requested_by, created_at, finished_at)
select $1, 'j' || n, 'VERIFY', 'TENANT', 'DONE', 'u', $2, $3 from generate_series($4::int, $5::int) n
"""
REPORTS = """
insert into drift_report (tenant, report, job, classroom, compared, different, at)
select $1, 'r' || n, 'j', '7b', 1, 0, $2 from generate_series($3::int, $4::int) n
"""
TRANSITIONS = """
insert into risk_change (tenant, classroom, no, student, reason, change, at)
select $1, $2, n, 's1', 'INACTIVE', 'RAISED', $3 from generate_series($4::int, $5::int) n
"""


async def put(mill: Mill, statement: str, *given: Any) -> None:
    async with tenant_transaction(mill.pool, mill.tenant) as connection:
        await connection.execute(statement, mill.tenant, *given)


async def kept(mill: Mill, table: str, key: str) -> list[Any]:
    return [row[0] for row in await mill.rows(f"select {key} from {table} where tenant = $1 order by 1")]  # noqa: S608 - ours


@pytest.mark.feature("X-29")
async def test_jobs_reports_and_transitions_go_after_seven_days(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of each than go at once; an unfinished job is kept, however old."""
    monkeypatch.setattr(retention, "ROWS_MAX", 2)
    monkeypatch.setattr(retention, "CLASSROOMS_AT_ONCE", 1)
    mill = await mill_of(pool, live, classrooms=("7b", "8c"))
    await put(mill, "insert into classroom_state (tenant, classroom, risk_no) values ($1, '7b', 7), ($1, '8c', 3)")
    await put(mill, JOBS, OLD, OLD, 1, 5)
    await put(mill, JOBS, OLD, KEPT, 6, 6)
    await put(mill, JOBS, OLD, None, 7, 7)
    await put(mill, REPORTS, OLD, 1, 5)
    await put(mill, REPORTS, KEPT, 6, 6)
    await put(mill, TRANSITIONS, "7b", OLD, 1, 5)
    await put(mill, TRANSITIONS, "7b", KEPT, 6, 7)
    await put(mill, TRANSITIONS, "8c", OLD, 1, 3)

    gone = await Retention(pool, lambda: NOW).once()

    assert gone["jobs"] >= 5  # of all tenants
    assert gone["drift_reports"] >= 5
    assert gone["risk_changes"] >= 8
    assert (await kept(mill, "job", "job"), await kept(mill, "drift_report", "report")) == (["j6", "j7"], ["r6"])
    assert await mill.rows("select classroom, no from risk_change where tenant = $1 order by 2") == [
        ("7b", 6),
        ("7b", 7),
    ]
    async with tenant_transaction(pool, mill.tenant, read_only=True) as connection:
        positions = [await changes.risk_position(connection, mill.tenant, key, NOW) for key in ("7b", "8c")]
    assert [(one.floor, one.no) for one in positions] == [(5, 7), (3, 3)]


@pytest.mark.feature("X-29")
async def test_a_worker_looks_once_an_hour(pool: Pool, live: Live) -> None:
    mill = await mill_of(pool, live)
    mill.clock.now = NOW
    keeping = Retention(pool, mill.clock)
    await keeping.if_due()
    await put(mill, REPORTS, OLD, 1, 1)

    mill.clock.now = NOW + timedelta(minutes=59)
    await keeping.if_due()
    assert await kept(mill, "drift_report", "report") == ["r1"]
    mill.clock.now = NOW + timedelta(hours=1)
    await keeping.if_due()
    assert await kept(mill, "drift_report", "report") == []
