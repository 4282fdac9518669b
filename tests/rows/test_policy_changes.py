"""A change of policy as clients show and make it: the digest holds an hour, for one dry run, for who may change it."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from db.live import Live
from db.pool import Pool
from rules.access import Role, Scope
from rules.evidence import Kind
from tests.rows.office import NOW, Office
from tests.rows.test_recompute import codes, open_school, order, worked
from tests.support.events import Mill, graded

pytestmark = pytest.mark.feature("X-23")

OUTCOMES = """{ tenant { jobs(first: 1) { nodes { key kind dryRun state error outcome {
    compared skipped scoresMoved levelsChanged masteryGained masteryLost flagsRaised flagsCleared asOf digest
    policy { version minEvidence masteryThreshold recentPercent }
    since { events scoresMoved levelsChanged masteryGained masteryLost flagsRaised flagsCleared }
    differences { table studentId name stored rebuilt } } } } } }"""
MILD: dict[str, Any] = {"masteryThreshold": 0.4, "minEvidence": 1}
COUNTS = ("scoresMoved", "levelsChanged", "masteryGained", "masteryLost", "flagsRaised", "flagsCleared")
OF_7B = {"scope": "CLASSROOM", "classroomId": "7b"}


async def graded_school(pool: Pool, live: Live) -> Office:
    office = await open_school(pool)
    mill = Mill.of(pool, office.tenant, live, now=NOW)
    for event_id, student, ratio in (("e1", "s1", 0.5), ("e2", "s2", 0.3)):
        await mill.record(
            graded(event_id, student, ratio, occurred_at=NOW, concepts=("c1",), kind=Kind.SUBMISSION_GRADED)
        )
    await mill.fold()
    return office


async def newest(office: Office) -> dict[str, Any]:
    """The job that was ordered last."""
    (job,) = (await office.ask(OUTCOMES, {}))["data"]["tenant"]["jobs"]["nodes"]
    found: dict[str, Any] = job
    return found


async def shown(office: Office, live: Live, **sent: Any) -> dict[str, Any]:
    """The outcome of a dry run that is done."""
    sent = {**OF_7B, "policyChange": MILD} | sent
    payload = await order(office, "recompute", dryRun=True, **sent)
    assert (payload["errors"], payload["job"]["kind"], payload["job"]["dryRun"]) == ([], "POLICY", True)
    await worked(office, live)
    outcome: dict[str, Any] = (await newest(office))["outcome"]
    return outcome


async def test_a_change_is_shown_and_made_with_its_digest(pool: Pool, live: Live) -> None:
    office = await graded_school(pool, live)

    dry = await shown(office, live)
    before = await office.all_of("select count(*) from classroom_policy where tenant = $1")
    office.now += timedelta(minutes=60)
    asked = await order(office, "recompute", **OF_7B, digest=dry["digest"])
    await worked(office, live)
    made = await newest(office)

    assert before == [(0,)]
    assert {name: dry[name] for name in COUNTS} == dict.fromkeys(COUNTS, 0) | {"masteryGained": 1}
    (found,) = [one for one in dry["differences"] if one["table"] == "STANDING"]
    assert (found["studentId"], found["name"]) == ("s1", "c1")
    policy = {"version": 2, "minEvidence": 1, "masteryThreshold": 0.4, "recentPercent": 65}
    assert (dry["policy"], dry["since"], dry["skipped"]) == (policy, None, 0)
    assert int(dry["asOf"]) == int(await office.head()) - 1  # the change itself is the last
    assert asked["errors"] == []
    assert (made["kind"], made["dryRun"], made["state"]) == ("POLICY", False, "DONE")
    outcome = made["outcome"]
    assert {name: outcome[name] for name in COUNTS} == {name: dry[name] for name in COUNTS}
    assert (outcome["policy"], outcome["digest"]) == (policy, None)
    assert outcome["since"] == {"events": 0} | dict.fromkeys(COUNTS, 0)
    assert outcome["asOf"] == await office.head()
    stored = await office.all_of("select version, min_evidence, created_by from classroom_policy where tenant = $1")
    assert stored == [(2, 1, "admin")]
    mastered = "select student from standing where tenant = $1 and classroom = '7b' and mastered_at is not null"
    assert await office.all_of(mastered) == [("s1",)]


async def test_a_digest_holds_for_an_hour_for_its_scope_and_for_its_own(pool: Pool, live: Live) -> None:
    office = await graded_school(pool, live)
    teacher = office.viewer("t1", Role.TEACHER)
    await office.done("saveEnrollment", classroomId="8c", personId="t1", role="TEACHER", startsOn="2026-09-01")
    digest = (await shown(office, live))["digest"]
    unknown = [("UNKNOWN_DIGEST", "digest")]

    for scope in ({"scope": "CLASSROOM", "classroomId": "8c"}, {"scope": "TENANT"}):
        assert await codes(office, "recompute", **scope, digest=digest) == unknown
    assert await codes(office, "recompute", by=teacher, **OF_7B, digest=digest) == unknown  # an admin's dry run
    for wrong in ("", "x", digest[:-1], digest + "0", digest.upper(), "a\u0000.b", "\ud83d." * 3000, f".{digest}"):
        assert await codes(office, "recompute", **OF_7B, digest=wrong) == unknown
    office.now += timedelta(minutes=60, seconds=1)
    assert await codes(office, "recompute", **OF_7B, digest=digest) == unknown


async def test_a_policy_that_was_changed_since_must_be_shown_again(pool: Pool, live: Live) -> None:
    office = await graded_school(pool, live)
    digest = (await shown(office, live))["digest"]
    await office.done("updateClassroomPolicy", classroomId="7b", inactivityDays=30)
    await worked(office, live)

    refused = await codes(office, "recompute", **OF_7B, digest=digest)
    again = await shown(office, live)

    assert refused == [("POLICY_MOVED", "digest")]
    assert (again["policy"]["version"], again["masteryGained"]) == (3, 1)


async def test_the_same_order_with_a_digest_is_one_job_also_when_the_digest_is_over(pool: Pool, live: Live) -> None:
    office = await graded_school(pool, live)
    dry = {**OF_7B, "dryRun": True, "policyChange": MILD, "idempotencyKey": "show"}
    first = await order(office, "recompute", **dry)
    assert await order(office, "recompute", **dry) == first
    await worked(office, live)
    digest = (await newest(office))["outcome"]["digest"]

    made = await order(office, "recompute", **OF_7B, digest=digest, idempotencyKey="make")
    await worked(office, live)
    office.now += timedelta(hours=2)
    again = await order(office, "recompute", **OF_7B, digest=digest, idempotencyKey="make")

    assert (again["job"]["key"], again["job"]["state"]) == (made["job"]["key"], "DONE")
    reused = [("KEY_REUSED", "idempotencyKey")]
    assert await codes(office, "recompute", **OF_7B, digest=digest + "0", idempotencyKey="make") == reused
    assert await codes(office, "recompute", **OF_7B, idempotencyKey="make") == reused
    other = {**dry, "policyChange": {"minEvidence": 2}}
    assert await codes(office, "recompute", **other) == reused
    assert await office.all_of("select count(*) from classroom_policy where tenant = $1") == [(1,)]


async def test_who_may_not_change_a_policy_may_neither_show_nor_make_it(pool: Pool, live: Live) -> None:
    office = await graded_school(pool, live)
    teacher = office.viewer("t1", Role.TEACHER)
    machine = office.viewer("sis", Role.INTEGRATOR, scopes=frozenset({Scope.ROSTER, Scope.READ}))
    dry = {"dryRun": True, "policyChange": MILD}

    assert (await order(office, "recompute", by=teacher, **OF_7B, **dry))["errors"] == []
    assert (await order(office, "recompute", by=machine, **OF_7B, dryRun=True))["errors"] == []
    of_8c = {"scope": "CLASSROOM", "classroomId": "8c"}
    assert await codes(office, "recompute", by=teacher, **of_8c, **dry) == [("FORBIDDEN", "classroomId")]
    assert await codes(office, "recompute", by=teacher, scope="TENANT", **dry) == [("FORBIDDEN", "scope")]
    assert await codes(office, "recompute", by=machine, **OF_7B, **dry) == [("FORBIDDEN", "policyChange")]
    assert await codes(office, "recompute", by=machine, **OF_7B, digest="x.y") == [("FORBIDDEN", "digest")]


@pytest.mark.parametrize(
    ("sent", "refused"),
    [
        ({**OF_7B, "policyChange": MILD}, [("NOT_ALLOWED", "policyChange")]),
        ({**OF_7B, "dryRun": True, "digest": "x.y"}, [("NOT_ALLOWED", "digest")]),
        ({**OF_7B, "policyChange": MILD, "digest": "x.y"}, [("NOT_ALLOWED", "digest")]),
        ({**OF_7B, "dryRun": True, "policyChange": {}}, [("REQUIRED", "policyChange")]),
        ({**OF_7B, "dryRun": True, "policyChange": {"minEvidence": None}}, [("REQUIRED", "policyChange")]),
        (
            {"scope": "STUDENT", "studentId": "s1", "dryRun": True, "policyChange": MILD},
            [("NOT_ALLOWED", "policyChange")],
        ),
        ({"scope": "STUDENT", "studentId": "s1", "digest": "x.y"}, [("NOT_ALLOWED", "digest")]),
        (
            {**OF_7B, "dryRun": True, "policyChange": {"minEvidence": 101, "inactivityDays": 8}},
            [("OUT_OF_RANGE", "policyChange.minEvidence"), ("OUT_OF_RANGE", "policyChange.inactivityDays")],
        ),
        (
            {**OF_7B, "dryRun": True, "policyChange": {"masteryThreshold": 1e300}},
            [("OUT_OF_RANGE", "policyChange.masteryThreshold")],
        ),
    ],
)
async def test_a_change_that_says_nothing_clear_is_refused(
    pool: Pool, sent: dict[str, Any], refused: list[tuple[str, str]]
) -> None:
    office = await open_school(pool)

    assert await codes(office, "recompute", **sent) == refused


@pytest.mark.feature("X-38")
@pytest.mark.parametrize(
    ("counts", "beside"),
    [
        ({"scores_moved": 3, "unheard_of": 9}, {"levels_changed": 2, "others": 1}),  # a newer release's
        ({"scores_moved": 3, "levels_changed": 2}, {}),
    ],
)
async def test_an_outcome_of_a_neighbouring_release_is_shown_as_far_as_it_is_known(
    pool: Pool, counts: dict[str, int], beside: dict[str, int]
) -> None:
    office = await open_school(pool)
    await order(office, "recompute", **OF_7B, dryRun=True)
    result = {"compared": 1, "different": 1, "skipped": 0, "counts": counts, "differences": [], **beside}
    async with office.writing() as connection:
        done = "update job set state = 'DONE', result = $2 where tenant = $1"
        await connection.execute(done, office.tenant, msgspec.json.encode(result).decode())

    outcome = (await newest(office))["outcome"]

    assert {name: outcome[name] for name in COUNTS} == dict.fromkeys(COUNTS, 0) | {"scoresMoved": 3, "levelsChanged": 2}
