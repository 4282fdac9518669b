"""The commands that recompute and verify: progress, outcome, and an exit status that scripts can use."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count

import pytest

from db.background import Job, JobKind, JobScope, JobState, Order
from db.live import Live
from db.pool import Pool, tenant_transaction
from server.embedded import Addresses, EmbeddedServers
from server.errand import UnknownKey, bar, run_errand, told
from server.settings import Settings
from tests.rows.district import District
from tests.support.events import Mill, graded
from tests.support.tenants import fresh_tenant

NOW = datetime(2026, 3, 3, 9, 0, tzinfo=UTC)
HALF = Job(
    key="j", kind=JobKind.RECOMPUTE, scope=JobScope.TENANT, student="", classroom="", is_dry_run=False, change=None,
    state=JobState.RUNNING, done=5, total=10, checkpoint={}, result=None, error=None, requested_by="operator",
    change_no=3, created_at=NOW, started_at=NOW, finished_at=None,
)  # fmt: skip


def test_the_bar_tells_how_far_a_job_is() -> None:
    assert bar(HALF).startswith("[###############...............] 5 of 10 ")
    assert bar(replace(HALF, total=None, done=0)).startswith("[..............................] 0 of 0 ")
    assert bar(replace(HALF, state=JobState.DONE)).startswith("[##############################]")


def test_a_job_that_failed_says_with_what() -> None:
    assert told(replace(HALF, state=JobState.FAILED, error="ZeroDivisionError")) == (
        "the job ended FAILED with ZeroDivisionError"
    )


@pytest.mark.feature("002-08", "X-24")
async def test_a_check_finds_what_recompute_mends_without_any_worker(
    pool: Pool, live: Live, database_url: str, servers: EmbeddedServers, capsys: pytest.CaptureFixture[str]
) -> None:
    tenant = await fresh_tenant(pool)
    district = District(pool, tenant, count(1))
    await district.classroom("7b")
    await district.enroll("s1")
    await Mill.of(pool, tenant, live, now=NOW).recorded_and_folded([graded("e1", "s1", 0.5)])
    async with tenant_transaction(pool, tenant) as connection:
        await connection.execute("update standing set score = 7 where tenant = $1 and classroom = '7b'", tenant)
    settings, addresses = Settings.read({}), Addresses(database_url, servers.addresses.redis_url)
    check = Order(kind=JobKind.VERIFY, scope=JobScope.CLASSROOM, classroom="7b")

    async def done(order: Order) -> Job:
        job = await run_errand(settings, addresses, tenant=tenant, order=order, stop=asyncio.Event())
        assert job is not None
        return job

    found, mended, again = [
        await done(order) for order in (check, Order(kind=JobKind.RECOMPUTE, scope=JobScope.TENANT), check)
    ]

    assert "1 differ" in told(found)
    assert "STANDING s1 / 7b / fractions" in told(found)
    assert told(mended).startswith("2 students and classes recomputed")
    assert ", 0 differ, " in told(again)
    assert "2 of 2 students and classes, DONE" in capsys.readouterr().err
    with pytest.raises(UnknownKey, match="no class 'none'"):
        await done(replace(check, classroom="none"))
