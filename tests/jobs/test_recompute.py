"""Recompute and check: what is stored is held against the log, repaired by the fold, and stays as it is when right."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

import asyncpg
import pytest

from db import background, drift, facts
from db.background import Job, JobKind, JobScope, JobState, Order
from db.live import Live
from db.outbox import touch
from db.policies import save_policy
from db.pool import Connection, Pool, tenant_transaction
from db.wake import Waker
from jobs import recompute, shadow, worker
from jobs.background import STALE_AFTER, Background
from jobs.replay import difference, stored
from jobs.replay import drift as drift_of
from jobs.worker import Workplace
from rules.evidence import LearningEvent
from rules.policy import DEFAULT_POLICY, Model
from tests.rows.district import District
from tests.support.events import Mill, graded
from tests.support.tenants import fresh_tenant

NOW = datetime(2026, 3, 3, 9, 0, tzinfo=UTC)  # the day after the events of tests.support.events
CORRUPT = "update standing set score = 999 where tenant = $1 and student = 's1' and classroom = '7b'"
STAMPS = """
select classroom, student, concept, class_change, student_change from standing where tenant = $1 order by 1, 2, 3
"""
FLAG_CHANGES = "select classroom, no from risk_change where tenant = $1 order by 1, 2"


class School:
    """One tenant with students s1 to s5 in classes 7b and 8c, and a worker's background lane."""

    def __init__(self, pool: Pool, mill: Mill) -> None:
        self.pool, self.mill, self.tenant = pool, mill, mill.tenant
        self.stop = asyncio.Event()

    async def drain_shard(self, tenant: int, shard: int) -> None:
        await self.mill.drain.shard(tenant, shard)

    def worker(self, drain_shard: Callable[[int, int], Awaitable[None]] | None = None) -> Background:
        return Background(
            pool=self.pool,
            clock=self.mill.clock,
            drain_shard=drain_shard or self.drain_shard,
            stop=self.stop,
            announce=self.mill.drain.live.announce,
            failures=self.mill.drain.folded.failures,
        )

    async def ask(self, kind: JobKind = JobKind.RECOMPUTE, scope: JobScope = JobScope.TENANT, **more: Any) -> str:
        async with tenant_transaction(self.pool, self.tenant) as connection:
            order = Order(kind=kind, scope=scope, **more)
            job = await background.enqueue(connection, self.tenant, order, requested_by="head", now=self.mill.clock())
        return job.key

    async def job(self, key: str) -> Job:
        async with tenant_transaction(self.pool, self.tenant, read_only=True) as connection:
            return (await background.of_keys(connection, self.tenant, [key]))[key]

    async def done(self, *given: Any, **more: Any) -> Job:
        """A job asked for and done by one worker."""
        key = await self.ask(*given, **more)
        await self.worker().do(self.tenant, key)
        job = await self.job(key)
        assert job.state is JobState.DONE
        return job

    async def run(self, statement: str, *arguments: Any) -> None:
        async with tenant_transaction(self.pool, self.tenant) as connection:
            await connection.execute(statement, self.tenant, *arguments)

    async def is_right(self) -> bool:
        return await drift_of(self.pool, self.tenant, now=NOW) == []

    async def reports(self) -> list[drift.ReportRow]:
        async with tenant_transaction(self.pool, self.tenant, read_only=True) as connection:
            return await drift.page(connection, self.tenant, after=None, limit=10)


def history() -> list[LearningEvent]:
    return [graded(f"e{n}", f"s{1 + n % 5}", (n % 10) / 10, at=n, classroom="7b" if n % 3 else "8c") for n in range(40)]


async def school_of(pool: Pool, live: Live) -> School:
    tenant = await fresh_tenant(pool)
    district = District(pool, tenant, count(1))
    for classroom in ("7b", "8c"):
        await district.classroom(classroom)
        for number in range(1, 6):
            await district.enroll(f"s{number}", classroom, started=date(2026, 1, 7))
    mill = Mill.of(pool, tenant, live, now=NOW)
    await mill.recorded_and_folded(history())
    return School(pool, mill)


async def corrupted(school: School) -> None:
    """Numbers of every kind as no log ever said them."""
    await school.run(CORRUPT)
    await school.run("update view_state set score_sum = score_sum + 7 where tenant = $1 and student = 's2'")
    await school.run("delete from work where tenant = $1 and student = 's3'")
    await school.run("update classroom_state set average_score = 1 where tenant = $1 and classroom = '8c'")
    await school.run("delete from standing where tenant = $1 and student = 's4' and classroom = ''")
    assert not await school.is_right()


@pytest.mark.feature("X-24")
async def test_a_check_of_a_sound_class_finds_nothing(pool: Pool, live: Live) -> None:
    school = await school_of(pool, live)

    await school.done(JobKind.VERIFY, JobScope.CLASSROOM, classroom="7b")

    [report] = await school.reports()
    assert (report.classroom, report.different, report.skipped, report.differences) == ("7b", 0, 0, [])
    assert report.first_cause is None
    assert report.compared > 20


@pytest.mark.feature("X-24", "004-13")
async def test_a_row_changed_by_hand_is_named_with_both_values_and_repairs_nothing(pool: Pool, live: Live) -> None:
    school = await school_of(pool, live)
    [(right,)] = await school.mill.rows(
        "select score from standing where tenant = $1 and student = 's1' and classroom = '7b'"
    )
    await school.run(CORRUPT)

    await school.done(JobKind.VERIFY, JobScope.CLASSROOM, classroom="7b")

    [report] = await school.reports()
    assert report.different == 1
    assert report.first_cause == "STANDING s1 / 7b / fractions"
    assert school.mill.drain.folded.failures["PROJECTION_DRIFT"] == 1  # what the alert rests on
    [found] = report.differences
    assert found["table"] == "STANDING"
    assert found["key"] == ["s1", "7b", "fractions"]
    assert '"score":999' in found["stored"]
    assert f'"score":{right}' in found["rebuilt"]
    assert not await school.is_right()


@pytest.mark.feature("X-24")
async def test_a_wrong_flag_and_a_wrong_rate_are_found_beside_what_caused_them(pool: Pool, live: Live) -> None:
    school = await school_of(pool, live)
    await school.run("delete from work where tenant = $1 and student = 's3' and classroom = '7b'")
    await school.run("update view_state set assigned = 9 where tenant = $1 and student = 's3' and classroom = '7b'")
    await school.run("update classroom_state set average_score = 1 where tenant = $1 and classroom = '7b'")

    await school.done(JobKind.VERIFY, JobScope.CLASSROOM, classroom="7b")

    [report] = await school.reports()
    assert report.first_cause is not None
    assert report.first_cause.startswith("WORK s3 / 7b / ")
    assert {found["table"] for found in report.differences} == {"WORK", "VIEW", "CLASSROOM"}


@pytest.mark.feature("X-24")
async def test_what_waits_for_the_fold_is_skipped_and_no_drift(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recompute, "SETTLE_SECONDS", 0.001)
    school = await school_of(pool, live)
    await school.mill.record(graded("late", "s1", 0.1, at=-10))

    await school.done(JobKind.VERIFY, JobScope.CLASSROOM, classroom="7b")

    [report] = await school.reports()
    assert (report.different, report.skipped) == (0, 3)  # s1, and once more with the class, and the class


@pytest.mark.feature("X-24", "X-23")
async def test_a_new_policy_that_is_not_folded_yet_is_no_drift(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class waits as a whole, by one row that names no student."""
    monkeypatch.setattr(recompute, "SETTLE_SECONDS", 0.001)
    school = await school_of(pool, live)
    async with tenant_transaction(pool, school.tenant) as connection:
        policy = replace(DEFAULT_POLICY, model=Model.SUCCESS_RATIO, success_threshold=100_000)
        change = await save_policy(connection, school.tenant, "7b", policy, created_by="head", now=NOW)
        await touch(connection, school.tenant, change.touches, now=NOW)

    dry = await school.done(is_dry_run=True)
    of_other = await school.done(JobKind.VERIFY, JobScope.CLASSROOM, classroom="8c")
    await school.mill.fold()
    after = await school.done(is_dry_run=True)

    assert dry.result is not None
    assert (dry.result["different"], dry.result["skipped"] > 0) == (0, True)
    assert of_other.result is not None
    assert (of_other.result["different"], of_other.result["skipped"]) == (0, 0)
    assert after.result is not None
    assert (after.result["different"], after.result["skipped"]) == (0, 0)


@pytest.mark.feature("002-01", "002-08")
@pytest.mark.parametrize("scope", ["tenant", "both classes", "every student"])
async def test_recompute_makes_every_number_from_the_log_again(pool: Pool, live: Live, scope: str) -> None:
    school = await school_of(pool, live)
    before = await stored(pool, school.tenant)
    await corrupted(school)

    if scope == "tenant":
        await school.done()
    elif scope == "both classes":
        for classroom in ("7b", "8c"):
            await school.done(scope=JobScope.CLASSROOM, classroom=classroom)
    else:
        for number in range(1, 6):
            await school.done(scope=JobScope.STUDENT, student=f"s{number}")

    assert difference(await stored(pool, school.tenant), before) == []
    assert await school.is_right()


@pytest.mark.feature("002-08")
async def test_what_recompute_repairs_is_an_ordinary_change_and_twice_changes_nothing(pool: Pool, live: Live) -> None:
    school = await school_of(pool, live)
    before, flag_changes = await school.mill.rows(STAMPS), await school.mill.rows(FLAG_CHANGES)
    await school.run(CORRUPT)

    await school.done()
    once = await school.mill.rows(STAMPS)
    moved = [(old[:3], old[3] < new[3]) for old, new in zip(before, once, strict=True) if old != new]
    await school.done()

    assert [(key, is_later) for key, is_later in moved if key[0] == "7b"] == [(("7b", "s1", "fractions"), True)]
    assert {key[1] for key, _ in moved} == {"s1"}
    assert await school.mill.rows(STAMPS) == once
    assert await school.mill.rows(FLAG_CHANGES) == flag_changes


@pytest.mark.feature("002-08")
async def test_a_repair_is_pushed_to_whoever_watches(pool: Pool, live: Live) -> None:
    school = await school_of(pool, live)
    await school.run(CORRUPT)

    async with live.watching([(school.tenant, "student", "s1")]) as watch:
        await school.done(scope=JobScope.STUDENT, student="s1")

        assert await watch.moved(seconds_max=5)


@pytest.mark.feature("002-08", "X-23")
async def test_a_dry_run_counts_what_would_move_and_moves_nothing(pool: Pool, live: Live) -> None:
    school = await school_of(pool, live)
    await school.run(CORRUPT)
    await school.run("update standing set mastered_at = now() where tenant = $1 and student = 's2' and classroom = ''")
    before = await stored(pool, school.tenant)

    job = await school.done(is_dry_run=True)

    assert job.result is not None
    counts = {"scores_moved": 1, "mastery_gained": 0, "mastery_lost": 1, "flags_raised": 0, "flags_cleared": 0}
    assert job.result["counts"] == counts  # these words alone: an api of the release before reads them
    assert job.result["levels_changed"] == 0
    assert [found["key"] for found in job.result["differences"]] == [["s1", "7b", "fractions"], ["s2", "", "fractions"]]
    assert difference(await stored(pool, school.tenant), before) == []
    assert await school.reports() == []


@pytest.mark.feature("002-08", "002-09")
async def test_a_job_whose_worker_dies_is_gone_on_with_by_another_behind_its_last_step(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recompute, "STEP_STUDENTS", 2)
    school = await school_of(pool, live)
    await corrupted(school)
    key = await school.ask()
    drained = count(1)

    async def dies(tenant: int, shard: int) -> None:
        if next(drained) == 3:
            raise ConnectionResetError  # as if the process were gone: nothing is handed back, the touches wait
        await school.drain_shard(tenant, shard)

    with pytest.raises(ConnectionResetError):
        await school.worker(dies).do(school.tenant, key)
    half = await school.job(key)
    await school.worker().do(school.tenant, key)
    too_early = await school.job(key)
    school.mill.clock.now += STALE_AFTER + timedelta(seconds=1)
    touched: list[str] = []
    touching = touch

    async def noted(*given: Any, **named: Any) -> int:
        touched.extend(one.student or one.classroom for one in given[2])
        return await touching(*given, **named)

    monkeypatch.setattr(recompute, "touch", noted)
    taking_over = school.worker()
    async with asyncio.timeout(10):
        folding = asyncio.create_task(school.mill.fold())
        await taking_over.do(school.tenant, key)
        await folding

    assert (half.state, half.done, half.total) == (JobState.RUNNING, 2, 7)
    assert too_early == half
    job = await school.job(key)
    assert (job.state, job.done, job.total) == (JobState.DONE, 7, 7)
    assert touched == ["s5", "7b", "8c"]
    assert await school.is_right()


@pytest.mark.feature("002-09")
async def test_a_step_replays_no_more_events_than_its_bound_and_who_has_more_goes_alone(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recompute, "STEP_EVENTS", 16)
    school = await school_of(pool, live)  # eight events a student
    await school.mill.recorded_and_folded([graded(f"more{n}", "s3", 0.5, at=100 + n) for n in range(20)])
    await corrupted(school)
    steps: list[list[str]] = []
    touching = touch

    async def noted(*given: Any, **named: Any) -> int:
        steps.append([one.student or one.classroom for one in given[2]])
        return await touching(*given, **named)

    monkeypatch.setattr(recompute, "touch", noted)
    await school.done()

    assert steps == [["s1", "s2"], ["s3"], ["s4", "s5"], ["7b", "8c"]]
    assert await school.is_right()


@pytest.mark.feature("X-38")
async def test_a_job_that_a_newer_release_has_begun_is_gone_on_with(pool: Pool, live: Live) -> None:
    school = await school_of(pool, live)
    await corrupted(school)
    key = await school.ask()
    begun = '{"phase": "students", "after": "s2", "done": 2, "total": 7, "plan": null, "unheard_of": [1]}'
    await school.run("update job set checkpoint = $2 where tenant = $1", begun)

    await school.worker().do(school.tenant, key)

    job = await school.job(key)
    assert (job.state, job.done, job.total) == (JobState.DONE, 7, 7)


@pytest.mark.feature("002-08")
async def test_a_worker_that_stops_gives_its_job_back_and_a_cancelled_one_ends(pool: Pool, live: Live) -> None:
    school = await school_of(pool, live)
    key = await school.ask()

    async def stops(tenant: int, shard: int) -> None:
        school.stop.set()
        await school.drain_shard(tenant, shard)

    await school.worker(stops).do(school.tenant, key)
    assert (await school.job(key)).state is JobState.QUEUED
    school.stop.clear()

    async def cancels(tenant: int, shard: int) -> None:
        async with tenant_transaction(pool, school.tenant) as connection:
            await background.cancel(connection, school.tenant, key, now=NOW)
        await school.drain_shard(tenant, shard)

    await school.worker(cancels).do(school.tenant, key)
    assert (await school.job(key)).state is JobState.CANCELLED
    await school.mill.fold()
    assert await school.is_right()


@pytest.mark.feature("002-08")
async def test_a_queued_job_is_found_and_done_without_anybody_being_woken_and_once_only(pool: Pool, live: Live) -> None:
    school = await school_of(pool, live)
    await school.run(CORRUPT)
    key = await school.ask()

    await asyncio.gather(*(school.worker().do(school.tenant, key) for _ in range(3)))
    await school.worker().once()

    job = await school.job(key)
    assert (job.state, job.done) == (JobState.DONE, 7)
    assert await school.is_right()


@pytest.mark.feature("002-08")
async def test_a_recompute_under_live_traffic_ends_with_every_event_counted(pool: Pool, live: Live) -> None:
    school = await school_of(pool, live)
    await corrupted(school)
    key = await school.ask()

    async def traffic() -> None:
        for n in range(40):
            await school.mill.record(graded(f"live{n}", f"s{1 + n % 5}", 0.7, at=20 - n, classroom="7b"))
            await school.mill.fold()

    await asyncio.gather(traffic(), school.worker().do(school.tenant, key))

    assert (await school.job(key)).state is JobState.DONE
    assert await school.mill.rows("select count(*) from event where tenant = $1") == [(80,)]
    assert await school.is_right()


@pytest.mark.feature("X-24")
async def test_each_night_one_class_of_the_tenant_is_checked_the_same_whoever_looks(pool: Pool, live: Live) -> None:
    school = await school_of(pool, live)
    asked = "select idempotency, classroom, state from job where tenant = $1 and requested_by = 'sightline' order by 1"

    for hours in (0, 1, 24):
        school.mill.clock.now = NOW + timedelta(hours=hours)
        await school.worker()._sample(school.mill.clock.now)
        await school.worker()._sample(school.mill.clock.now)

    nights = await school.mill.rows(asked)
    assert [night for night, _, _ in nights] == ["nightly:2026-03-03", "nightly:2026-03-04"]
    assert {classroom for _, classroom, _ in nights} <= {"7b", "8c"}


@pytest.mark.feature("002-08")
async def test_a_worker_process_does_the_jobs_it_finds_though_redis_is_gone(
    pool: Pool, live: Live, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: Workplace) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(worker, "_keep_arq", never)
    school = await school_of(pool, live)
    school.mill.clock.now = NOW.replace(hour=1)  # before the nightly samples, which would look at every test's tenant
    await school.run(CORRUPT)
    key = await school.ask()
    waker = Waker(redis_url)
    workplace = Workplace(pool, school.mill.clock, live, waker, 2)
    working = asyncio.create_task(worker.run_worker(workplace))
    try:
        async with asyncio.timeout(20):
            while (await school.job(key)).state is not JobState.DONE:  # noqa: ASYNC110 - Postgres tells nobody
                await asyncio.sleep(0.05)
    finally:
        workplace.stop.set()
        await working
        await waker.aclose()
    assert await school.is_right()


@pytest.mark.feature("X-24", "002-09")
@pytest.mark.parametrize("error", [TimeoutError, asyncpg.QueryCanceledError])
async def test_logs_too_long_for_one_statement_are_read_with_fewer_students_at_once(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """A class of years is checked as one of days is; without it the job was tried again for ever."""
    school = await school_of(pool, live)
    reading, read = facts.log_of_students, []

    async def slow(connection: Connection, tenant: int, students: list[str], *, seconds: float | None = None) -> Any:
        read.append((len(students), seconds))
        if len(students) > 1:
            raise error
        return await reading(connection, tenant, students, seconds=seconds)

    monkeypatch.setattr(facts, "log_of_students", slow)

    await school.done(JobKind.VERIFY, JobScope.CLASSROOM, classroom="7b")

    [report] = await school.reports()
    assert (report.different, report.skipped) == (0, 0)
    assert report.compared > 20
    assert read == [(5, None)] + [(1, shadow.ALONE_SECONDS)] * 10  # the five, then again for the class's own numbers


@pytest.mark.feature("X-24", "000-23")
async def test_a_comparison_while_postgres_is_away_is_left_to_whoever_comes_next(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    school = await school_of(pool, live)
    key = await school.ask(JobKind.VERIFY, JobScope.CLASSROOM, classroom="7b")

    async def away(*_: Any, **__: Any) -> Any:
        raise TimeoutError

    with monkeypatch.context() as broken:
        broken.setattr(facts, "log_of_students", away)
        with pytest.raises(TimeoutError):
            await school.worker().do(school.tenant, key)
    school.mill.clock.now += STALE_AFTER + timedelta(seconds=1)
    await school.worker().do(school.tenant, key)

    assert (await school.job(key)).state is JobState.DONE


@pytest.mark.feature("002-08")
async def test_a_step_that_takes_long_shows_that_its_worker_lives(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else another worker takes the job after ten seconds, and both do it for ever."""
    monkeypatch.setattr(recompute, "BEAT_SECONDS", 0.01)
    school = await school_of(pool, live)
    key = await school.ask(JobKind.VERIFY, JobScope.CLASSROOM, classroom="7b")
    comparing = shadow.compared

    async def lengthy(*given: Any, **named: Any) -> Any:
        school.mill.clock.now += STALE_AFTER - timedelta(seconds=1)
        beats = "select beat_at from job where tenant = $1"
        async with asyncio.timeout(10):
            while await school.mill.rows(beats) != [(school.mill.clock.now,)]:  # noqa: ASYNC110 - Postgres tells nobody
                await asyncio.sleep(0.01)
        return await comparing(*given, **named)

    monkeypatch.setattr(shadow, "compared", lengthy)

    await school.worker().do(school.tenant, key)

    assert (await school.job(key)).state is JobState.DONE
