"""A change of policy: the dry run says what it will move, the applied one moves exactly that, whoever does it."""

from datetime import timedelta
from typing import Any

import pytest

from db import background
from db.background import Job, JobKind, JobScope, JobState
from db.live import Live
from db.outbox import touch
from db.policies import TENANT_DEFAULT, digest_of, dry_run_of, policy_of, save_policy
from db.pool import Pool, tenant_transaction
from jobs import policy_change, recompute, shadow
from jobs.background import STALE_AFTER
from jobs.replay import difference, stored
from rules.policy import DEFAULT_POLICY, Model, Policy, with_parts
from tests.jobs.test_recompute import NOW, STAMPS, School, school_of
from tests.support.events import graded

MILD = {"recent_percent": 10, "mastery_threshold": 300_000, "min_evidence": 1}
RATIO = {"model": "SUCCESS_RATIO"}
TAUGHT = "select classroom, version, created_by from classroom_policy where tenant = $1 order by 1, 2"

pytestmark = pytest.mark.feature("X-23")


async def shown(school: School, *, classroom: str = "7b", **parts: Any) -> Job:
    scope = JobScope.CLASSROOM if classroom else JobScope.TENANT
    return await school.done(
        JobKind.POLICY, scope, classroom=classroom, is_dry_run=True, change={"parts": parts or MILD}
    )


def applied(dry: Job) -> dict[str, Any]:
    """What an order with the digest of this dry run asks for."""
    assert dry.result is not None
    assert dry.change is not None
    names = ("digest", "base", "as_of", "counts")
    return {"scope": dry.scope, "classroom": dry.classroom} | {
        "change": {**dry.change, **{name: dry.result[name] for name in names}}
    }


async def policy(school: School, classroom: str = "7b") -> Policy:
    async with tenant_transaction(school.pool, school.tenant, read_only=True) as connection:
        return await policy_of(connection, school.tenant, classroom)


async def another(school: School, **parts: Any) -> None:
    """Somebody changes the policy by hand."""
    async with tenant_transaction(school.pool, school.tenant) as connection:
        after = with_parts(DEFAULT_POLICY, parts)
        change = await save_policy(connection, school.tenant, "7b", after, created_by="t1", now=NOW)
        await touch(connection, school.tenant, change.touches, now=NOW)
    await school.mill.fold()


def test_a_digest_names_its_dry_run_and_what_was_shown() -> None:
    one, other = digest_of("job-1", {"a": 1, "b": 2}), digest_of("job-1", {"a": 1, "b": 3})

    assert one == digest_of("job-1", {"b": 2, "a": 1})
    assert one != other
    assert (dry_run_of(one), dry_run_of("nonsense"), dry_run_of("")) == ("job-1", "", "")


async def test_a_dry_run_of_a_policy_moves_nothing_and_its_digest_makes_exactly_what_it_showed(
    pool: Pool, live: Live
) -> None:
    school = await school_of(pool, live)
    before, stamps = await stored(pool, school.tenant), await school.mill.rows(STAMPS)

    dry = await shown(school)
    untouched = difference(await stored(pool, school.tenant), before)
    made = await school.done(JobKind.POLICY, **applied(dry))
    after = await stored(pool, school.tenant)

    assert untouched == []
    assert dry.result is not None
    gained = [key for key, one in after.standings.items() if one.mastered_at and not before.standings[key].mastered_at]
    moved = [key for key, one in after.standings.items() if one.score != before.standings[key].score]
    assert dry.result["counts"]["mastery_gained"] == len(gained) > 0
    assert dry.result["counts"]["scores_moved"] == len(moved) > 0
    assert {key[1] for key in moved} == {"7b"}
    raised, stood = after.flags.keys(), before.flags.keys()
    assert dry.result["counts"]["flags_raised"] == len(raised - stood)
    assert dry.result["counts"]["flags_cleared"] == len(stood - raised)
    told = {tuple(one["key"]): one["rebuilt"] for one in dry.result["differences"] if one["table"] == "STANDING"}
    assert told.keys() >= set(moved)
    assert all(f'"score":{after.standings[key].score},' in told[key] for key in moved)

    assert made.result is not None
    assert made.result["counts"] == dry.result["counts"]
    assert made.result["since"] == {"events": 0} | dict.fromkeys(recompute.COUNTS, 0)
    assert (made.done, made.total) == (7, 7)  # five students, the class, the change
    assert await policy(school) == Policy(2, recent_percent=10, mastery_threshold=300_000, min_evidence=1)
    assert await school.mill.rows(TAUGHT) == [("7b", 2, "head")]
    assert await school.is_right()
    assert await school.mill.rows(STAMPS) != stamps  # pushed as any change


async def test_what_later_events_changed_is_told_and_what_was_shown_is_not_made_otherwise(
    pool: Pool, live: Live
) -> None:
    school = await school_of(pool, live)
    dry = await shown(school, **RATIO)
    await school.mill.recorded_and_folded(
        [graded(f"later{n}", "s1", 0.0, at=200 + n, concepts=(f"new{n}",)) for n in range(3)]
        + [graded("elsewhere", "s1", 0.0, at=210, classroom="8c")]
    )

    made = await school.done(JobKind.POLICY, **applied(dry))

    assert dry.result is not None
    assert made.result is not None
    since = made.result["since"]
    assert since["events"] == 3
    assert since["scores_moved"] == made.result["counts"]["scores_moved"] - dry.result["counts"]["scores_moved"]
    assert dry.result["as_of"] < made.result["as_of"]
    assert (await policy(school)).model is Model.SUCCESS_RATIO
    assert await school.is_right()


async def test_the_policy_of_work_over_all_classes_is_shown_and_made_for_the_tenant(pool: Pool, live: Live) -> None:
    school = await school_of(pool, live)
    before = await stored(pool, school.tenant)

    dry = await shown(school, classroom=TENANT_DEFAULT)
    made = await school.done(JobKind.POLICY, **applied(dry))
    after = await stored(pool, school.tenant)

    assert dry.result is not None
    moved = [key for key, one in after.standings.items() if one.score != before.standings[key].score]
    assert {key[1] for key in moved} == {""}
    assert dry.result["counts"]["scores_moved"] == len(moved) > 0
    assert made.result is not None
    assert made.result["since"]["events"] == 0
    assert (await policy(school)).version == 1
    assert (await policy(school, TENANT_DEFAULT)).version == 2
    assert await school.is_right()


@pytest.mark.parametrize("moment", ["before it begins", "while it compares"])
async def test_a_policy_that_was_changed_meanwhile_is_left_as_it_is(
    pool: Pool, live: Live, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    school = await school_of(pool, live)
    dry = await shown(school)
    key = await school.ask(JobKind.POLICY, **applied(dry))
    making = policy_change.made

    async def overtaken(*given: Any, **named: Any) -> Any:
        await another(school, min_evidence=9)
        return await making(*given, **named)

    if moment == "before it begins":
        await another(school, min_evidence=9)
    else:
        monkeypatch.setattr(policy_change, "made", overtaken)
    await school.worker().do(school.tenant, key)

    job = await school.job(key)
    assert (job.state, job.error) == (JobState.FAILED, "POLICY_MOVED")
    assert (await policy(school)).min_evidence == 9
    assert await school.mill.rows(TAUGHT) == [("7b", 2, "t1")]
    assert await school.is_right()


async def test_a_change_whose_worker_dies_is_made_once_by_the_next(pool: Pool, live: Live) -> None:
    school = await school_of(pool, live)
    dry = await shown(school)
    key = await school.ask(JobKind.POLICY, **applied(dry))

    async def dies(_tenant: int, _shard: int) -> None:
        raise ConnectionResetError  # the change is committed, nothing is folded

    with pytest.raises(ConnectionResetError):
        await school.worker(dies).do(school.tenant, key)
    half = await school.mill.rows(TAUGHT)
    school.mill.clock.now += STALE_AFTER + timedelta(seconds=1)
    await school.mill.fold()
    await school.worker().do(school.tenant, key)

    assert half == await school.mill.rows(TAUGHT) == [("7b", 2, "head")]
    assert (await school.job(key)).state is JobState.DONE
    assert await school.is_right()


async def test_a_change_cancelled_before_it_is_made_changes_nothing(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    school = await school_of(pool, live)
    dry = await shown(school)
    before = await stored(pool, school.tenant)
    key = await school.ask(JobKind.POLICY, **applied(dry))
    comparing = shadow.compared

    async def cancelled(*given: Any, **named: Any) -> Any:
        async with tenant_transaction(pool, school.tenant) as connection:
            await background.cancel(connection, school.tenant, key, now=NOW)
        return await comparing(*given, **named)

    monkeypatch.setattr(shadow, "compared", cancelled)
    await school.worker().do(school.tenant, key)

    assert (await school.job(key)).state is JobState.CANCELLED
    assert (await policy(school)).version == 1
    assert difference(await stored(pool, school.tenant), before) == []


async def test_each_kind_of_row_has_its_own_largest_differences(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recompute, "DIFFERENCES_MAX", 2)
    monkeypatch.setattr(recompute, "STEP_STUDENTS", 2)
    school = await school_of(pool, live)
    await school.run("update standing set score = 999 where tenant = $1 and student = 's5' and classroom = '7b'")
    await school.run("update standing set score = score + 7 where tenant = $1 and student < 's4' and classroom = '7b'")
    await school.run("update classroom_state set average_score = 1 where tenant = $1 and classroom = '7b'")
    await school.run("update view_state set score_sum = score_sum + 7 where tenant = $1 and classroom = '7b'")

    job = await school.done(scope=JobScope.CLASSROOM, classroom="7b", is_dry_run=True)

    assert job.result is not None
    assert [(one["table"], one["key"][0]) for one in job.result["differences"]] == [
        ("STANDING", "s5"),
        ("STANDING", "s1"),
        ("VIEW", "s1"),
        ("VIEW", "s2"),
        ("CLASSROOM", "7b"),
    ]
    assert job.result["counts"]["scores_moved"] == 4
    assert job.result["different"] == 10
    assert "digest" not in job.result
