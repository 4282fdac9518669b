"""Recompute and check as clients order and follow them: who may, what is refused, what is told."""

import asyncio
from typing import Any

import pytest

from db.live import Live, Moved
from db.pool import Pool, tenant_transaction
from graph import patrol
from jobs.background import Background
from rules.access import Role, Scope
from rules.evidence import Kind
from tests.rows.office import NOW, Office, enrolment, open_class
from tests.support.events import Mill, graded
from tests.support.listening import open_desk

JOB = "errors { code field } job { key kind scope studentId classroomId dryRun state done total outcome { different } }"
JOBS = "{ tenant { jobs { nodes { key kind requestedBy state done total outcome { compared different } } } } }"
REPORTS = """{ tenant { driftReports { nodes {
    classroomId compared different skipped firstCause differences {
        table studentId classroomId name stored rebuilt } } } } }"""
PROGRESS = """subscription ($key: ID!, $after: String) { jobProgressed(jobId: $key, after: $after) {
    kind resumeToken job { key state done total } } }"""


async def order(office: Office, mutation: str, *, by: Any = None, **sent: Any) -> dict[str, Any]:
    """The payload of an order that was let in."""
    kind = mutation[0].upper() + mutation[1:] + "Input"
    text = f"mutation Go($input: {kind}!) {{ {mutation}(input: $input) {{ {JOB} }} }}"
    body = await office.ask(text, {"input": sent}, by=by)
    assert "errors" not in body, body
    payload: dict[str, Any] = body["data"][mutation]
    return payload


async def codes(office: Office, mutation: str, *, by: Any = None, **sent: Any) -> list[tuple[str, str]]:
    """Why an order was refused, having changed nothing."""
    before = await office.rows()
    payload = await order(office, mutation, by=by, **sent)
    assert (payload["job"], await office.rows()) == (None, before)
    return [(error["code"], ".".join(error["field"])) for error in payload["errors"]]


async def open_school(pool: Pool) -> Office:
    office = await open_class(pool, "s1", "s2")
    await office.done("saveClassroom", key="8c", name="8c")
    await office.done("saveEnrollment", **enrolment("t1", role="TEACHER"))
    for student in ("s1", "s2"):
        await office.done("saveEnrollment", **enrolment(student))
    return office


async def worked(office: Office, live: Live) -> None:
    """What a worker does: fold what waits, then the jobs."""
    mill = Mill.of(office.pool, office.tenant, live, now=office.now)

    async def drain_shard(tenant: int, shard: int) -> None:
        await mill.drain.shard(tenant, shard)

    await mill.fold()
    lane = Background(
        pool=office.pool,
        clock=lambda: office.now,
        drain_shard=drain_shard,
        stop=asyncio.Event(),
        announce=live.announce,
        failures=mill.drain.folded.failures,
    )
    for (key,) in await office.all_of("select job from job where tenant = $1 and state = 'QUEUED' order by created_at"):
        await lane.do(office.tenant, key)


@pytest.mark.feature("X-24")
async def test_a_check_tells_an_admin_which_row_is_wrong_and_recompute_mends_it(pool: Pool, live: Live) -> None:
    office = await open_school(pool)
    mill = Mill.of(pool, office.tenant, live, now=NOW)
    await mill.record(graded("e1", "s1", 0.5, occurred_at=NOW, concepts=("c1",), kind=Kind.SUBMISSION_GRADED))
    await mill.fold()
    async with office.writing() as connection:
        await connection.execute("update standing set score = 7 where tenant = $1 and classroom = '7b'", office.tenant)

    asked = await order(office, "verifyProjection", classroomId="7b")
    await worked(office, live)
    (report,) = (await office.ask(REPORTS, {}))["data"]["tenant"]["driftReports"]["nodes"]
    await order(office, "recompute", scope="CLASSROOM", classroomId="7b")
    await order(office, "verifyProjection", classroomId="7b")
    await worked(office, live)
    again, _ = (await office.ask(REPORTS, {}))["data"]["tenant"]["driftReports"]["nodes"]

    assert asked["errors"] == []
    assert (asked["job"]["kind"], asked["job"]["state"], asked["job"]["total"]) == ("VERIFY", "QUEUED", None)
    (found,) = report.pop("differences")
    stored, rebuilt = found.pop("stored"), found.pop("rebuilt")
    assert found == {"table": "STANDING", "studentId": "s1", "classroomId": "7b", "name": "c1"}
    assert ('"score":7,' in stored, '"score":500,' in rebuilt) == (True, True)
    assert (report["different"], report["firstCause"]) == (1, "STANDING s1 / 7b / c1")
    assert (again["different"], again["firstCause"], again["differences"]) == (0, None, [])
    jobs = (await office.ask(JOBS, {}))["data"]["tenant"]["jobs"]["nodes"]
    assert [(job["kind"], job["state"]) for job in jobs] == [
        ("VERIFY", "DONE"),
        ("RECOMPUTE", "DONE"),
        ("VERIFY", "DONE"),
    ]
    assert [job["outcome"] and job["outcome"]["different"] for job in jobs] == [0, None, 1]


@pytest.mark.feature("002-08", "003-29")
async def test_teachers_order_for_what_they_teach_today_and_see_their_own_jobs(pool: Pool) -> None:
    office = await open_school(pool)
    teacher = office.viewer("t1", Role.TEACHER)
    machine = office.viewer("sis", Role.INTEGRATOR, scopes=frozenset({Scope.ROSTER, Scope.READ}))

    mine = await order(office, "recompute", by=teacher, scope="CLASSROOM", classroomId="7b", dryRun=True)
    child = await order(office, "recompute", by=teacher, scope="STUDENT", studentId="s1")
    await order(office, "recompute", by=machine, scope="TENANT")

    assert (mine["errors"], child["errors"]) == ([], [])
    for sent in ({"scope": "CLASSROOM", "classroomId": "8c"}, {"scope": "CLASSROOM", "classroomId": "none"}):
        assert await codes(office, "recompute", by=teacher, **sent) == [("FORBIDDEN", "classroomId")]
    assert await codes(office, "recompute", by=teacher, scope="TENANT") == [("FORBIDDEN", "scope")]
    assert await codes(office, "recompute", scope="STUDENT", studentId="none") == [("FORBIDDEN", "studentId")]
    assert await codes(office, "verifyProjection", by=teacher, classroomId="8c") == [("FORBIDDEN", "classroomId")]
    for viewer, owners in ((teacher, {"t1"}), (machine, {"sis"}), (None, {"t1", "sis"})):
        nodes = (await office.ask(JOBS, {}, by=viewer))["data"]["tenant"]["jobs"]["nodes"]
        assert {node["requestedBy"] for node in nodes} == owners


@pytest.mark.feature("002-08")
@pytest.mark.parametrize(
    ("sent", "refused"),
    [
        ({"scope": "STUDENT"}, [("REQUIRED", "studentId")]),
        ({"scope": "CLASSROOM", "studentId": "s1"}, [("NOT_ALLOWED", "studentId"), ("REQUIRED", "classroomId")]),
        ({"scope": "TENANT", "classroomId": "7b"}, [("NOT_ALLOWED", "classroomId")]),
        ({"scope": "STUDENT", "studentId": "a\u0000b"}, [("BAD_ID", "studentId")]),
        ({"scope": "TENANT", "idempotencyKey": ""}, [("BAD_ID", "idempotencyKey")]),
    ],
)
async def test_an_order_that_says_no_scope_clearly_is_refused(
    pool: Pool, sent: dict[str, Any], refused: list[tuple[str, str]]
) -> None:
    office = await open_school(pool)

    assert await codes(office, "recompute", **sent) == refused


@pytest.mark.feature("002-08")
async def test_the_same_order_under_the_same_key_is_one_job(pool: Pool) -> None:
    office = await open_school(pool)

    first = await order(office, "recompute", scope="TENANT", idempotencyKey="monday")
    again = await order(office, "recompute", scope="TENANT", idempotencyKey="monday")

    assert again == first
    assert await codes(office, "recompute", scope="TENANT", dryRun=True, idempotencyKey="monday") == [
        ("KEY_REUSED", "idempotencyKey")
    ]
    assert await office.all_of("select count(*) from job where tenant = $1") == [(1,)]


@pytest.mark.feature("002-08")
async def test_a_queued_job_is_cancelled_at_once_and_once_only(pool: Pool, live: Live) -> None:
    office = await open_school(pool)
    job = (await order(office, "recompute", scope="TENANT"))["job"]["key"]
    stranger = office.viewer("t1", Role.TEACHER)

    assert await codes(office, "cancelJob", by=stranger, jobId=job) == [("FORBIDDEN", "jobId")]
    stopped = await order(office, "cancelJob", jobId=job)
    assert (stopped["errors"], stopped["job"]["state"]) == ([], "CANCELLED")
    assert await codes(office, "cancelJob", jobId=job) == [("OVER", "jobId")]
    assert office.bell.announced[-1] == Moved(tenant=office.tenant, jobs=frozenset({job}))

    await worked(office, live)
    (found,) = (await office.ask(JOBS, {}))["data"]["tenant"]["jobs"]["nodes"]
    assert (found["state"], found["done"]) == ("CANCELLED", 0)


@pytest.mark.feature("002-08")
async def test_progress_is_pushed_from_the_present_state_to_the_end_and_resumed(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is announced: nothing of this waits for the slow check."""
    monkeypatch.setattr(patrol, "SLOW_CHECK_SECONDS", 3600.0)
    desk = await open_desk(pool, live)
    office = Office(pool, desk.mill.tenant, now=desk.mill.clock.now)
    key = (await order(office, "recompute", scope="TENANT"))["job"]["key"]
    admin = desk.viewer("head", Role.ADMIN)
    listener = desk.listen(PROGRESS, by=admin, key=key)

    first = await listener.message()
    await worked(office, live)
    last = await listener.message()
    while last["job"]["state"] != "DONE":
        last = await listener.message()
    await listener.close()
    resumed = desk.listen(PROGRESS, by=admin, key=key, after=first["resumeToken"])
    again = await resumed.message()
    await resumed.close()

    assert (first["kind"], first["job"]) == ("SNAPSHOT", {"key": key, "state": "QUEUED", "done": 0, "total": None})
    assert (last["kind"], last["job"]) == ("CHANGE", {"key": key, "state": "DONE", "done": 4, "total": 4})
    assert again["job"] == last["job"]
    async with tenant_transaction(pool, office.tenant, read_only=True) as connection:
        assert await connection.fetchval("select count(*) from outbox where tenant = $1", office.tenant) == 0
    assert await desk.listen(PROGRESS, by=desk.viewer("teacher", Role.TEACHER), key=key).refusal() == "FORBIDDEN"
