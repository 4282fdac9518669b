"""Policies: bounded, versioned, and every change named to the fold."""

import asyncio
from typing import Any

import pytest

from db.pool import Pool
from rules.access import Role, Scope
from tests.rows.office import Office, open_office

POLICY = (
    "policy { version model recentPercent successThreshold masteryThreshold minEvidence inactivityDays extraCredit }"
)
DEFAULTS = {
    "version": 1,
    "model": "DECAYING_AVERAGE",
    "recentPercent": 65,
    "successThreshold": 0.6,
    "masteryThreshold": 0.8,
    "minEvidence": 3,
    "inactivityDays": 7,
    "extraCredit": False,
}
STORED = "select classroom, version, created_by from classroom_policy where tenant = $1 order by classroom, version"


async def open_class(pool: Pool) -> Office:
    """An office with class 7b, taught by t1, and class 8c, and nothing waiting."""
    office = await open_office(pool)
    for key in ("7b", "8c"):
        await office.done("saveClassroom", key=key, name=key)
    await office.done("saveEnrollment", classroomId="7b", personId="t1", role="TEACHER", startsOn="2026-09-01")
    await office.folded()
    return office


@pytest.mark.feature("X-07")
async def test_each_change_is_a_new_version_and_folds_the_class_again(pool: Pool) -> None:
    office = await open_class(pool)

    first = await office.done("updateClassroomPolicy", POLICY, classroomId="7b", masteryThreshold=0.85)
    second = await office.done(
        "updateClassroomPolicy", POLICY, classroomId="7b", model="SUCCESS_RATIO", minEvidence=5, extraCredit=True
    )

    assert first["policy"] == {**DEFAULTS, "version": 2, "masteryThreshold": 0.85}
    assert second == {
        "seq": await office.head(),
        "policy": {
            **DEFAULTS,
            "version": 3,
            "masteryThreshold": 0.85,
            "model": "SUCCESS_RATIO",
            "minEvidence": 5,
            "extraCredit": True,
        },
    }
    assert await office.waiting() == [("REFOLD_CLASSROOM", "", "7b")] * 2
    assert await office.all_of(STORED) == [("7b", 2, "admin"), ("7b", 3, "admin")]


@pytest.mark.feature("X-07")
async def test_what_already_holds_makes_no_version(pool: Pool) -> None:
    office = await open_class(pool)
    before = await office.rows()

    nothing = await office.done("updateClassroomPolicy", POLICY, classroomId="7b")
    same = await office.done(
        "updateClassroomPolicy", POLICY, classroomId="7b", recentPercent=65, successThreshold=0.6, model=None
    )

    assert nothing["policy"] == same["policy"] == DEFAULTS
    assert (await office.rows(), office.bell.marked) == (before, [])


@pytest.mark.feature("X-07")
async def test_days_of_inactivity_alone_fold_the_class_again_for_its_numbers_name_their_version(pool: Pool) -> None:
    office = await open_class(pool)

    payload = await office.done("updateClassroomPolicy", POLICY, classroomId="7b", inactivityDays=30)

    assert payload["policy"] == {**DEFAULTS, "version": 2, "inactivityDays": 30}
    assert await office.waiting() == [("REFOLD_CLASSROOM", "", "7b")]


@pytest.mark.feature("X-07")
async def test_the_policy_of_work_over_all_classes_is_the_tenants_and_only_admins_change_it(pool: Pool) -> None:
    office = await open_class(pool)

    payload = await office.done("updateClassroomPolicy", POLICY, recentPercent=50)
    teacher = await office.codes("updateClassroomPolicy", by=office.viewer("t1", Role.TEACHER), recentPercent=40)
    of_class = await office.done("updateClassroomPolicy", POLICY, classroomId="7b")

    assert payload["policy"] == {**DEFAULTS, "version": 2, "recentPercent": 50}
    assert teacher == [("FORBIDDEN", "classroomId")]
    assert of_class["policy"] == DEFAULTS
    assert await office.waiting() == [("REFOLD_CLASSROOM", "", "")]


@pytest.mark.feature("X-07")
@pytest.mark.parametrize(
    ("sent", "codes"),
    [
        ({"recentPercent": 0}, [("OUT_OF_RANGE", "recentPercent")]),
        ({"recentPercent": 100}, [("OUT_OF_RANGE", "recentPercent")]),
        ({"recentPercent": -(2**31)}, [("OUT_OF_RANGE", "recentPercent")]),
        ({"successThreshold": 0}, [("OUT_OF_RANGE", "successThreshold")]),
        ({"successThreshold": 1.000001}, [("OUT_OF_RANGE", "successThreshold")]),
        ({"masteryThreshold": -0.5}, [("OUT_OF_RANGE", "masteryThreshold")]),
        ({"masteryThreshold": 1e308}, [("OUT_OF_RANGE", "masteryThreshold")]),
        ({"masteryThreshold": 5e-324}, [("OUT_OF_RANGE", "masteryThreshold")]),
        ({"minEvidence": 0}, [("OUT_OF_RANGE", "minEvidence")]),
        ({"minEvidence": 101}, [("OUT_OF_RANGE", "minEvidence")]),
        ({"inactivityDays": 8}, [("OUT_OF_RANGE", "inactivityDays")]),
        ({"classroomId": "9d"}, [("NOT_FOUND", "classroomId")]),
        ({"classroomId": ""}, [("BAD_ID", "classroomId")]),
        (
            {"recentPercent": 0, "minEvidence": 0, "inactivityDays": 0},
            [("OUT_OF_RANGE", "recentPercent"), ("OUT_OF_RANGE", "minEvidence"), ("OUT_OF_RANGE", "inactivityDays")],
        ),
    ],
)
async def test_a_number_out_of_bounds_is_refused(
    pool: Pool, sent: dict[str, Any], codes: list[tuple[str, str]]
) -> None:
    office = await open_class(pool)

    assert await office.codes("updateClassroomPolicy", **{"classroomId": "7b", **sent}) == codes


@pytest.mark.feature("X-07")
async def test_the_bounds_themselves_are_allowed(pool: Pool) -> None:
    office = await open_class(pool)
    lowest: dict[str, Any] = {
        "recentPercent": 1,
        "successThreshold": 0.001,
        "masteryThreshold": 0.001,
        "minEvidence": 1,
    }
    highest: dict[str, Any] = {"recentPercent": 99, "successThreshold": 1, "masteryThreshold": 1, "minEvidence": 100}

    low = await office.done("updateClassroomPolicy", POLICY, classroomId="7b", **lowest)
    high = await office.done("updateClassroomPolicy", POLICY, classroomId="7b", **highest)

    assert low["policy"] == {**DEFAULTS, **lowest, "version": 2}
    assert high["policy"] == {**DEFAULTS, **highest, "version": 3}


@pytest.mark.feature("X-07", "C7")
async def test_a_teacher_changes_own_classes_only_and_is_refused_alike_for_the_rest(pool: Pool) -> None:
    office = await open_class(pool)
    teacher = office.viewer("t1", Role.TEACHER)

    own = await office.done("updateClassroomPolicy", POLICY, by=teacher, classroomId="7b", minEvidence=5)
    foreign = await office.tell("updateClassroomPolicy", by=teacher, classroomId="8c", minEvidence=5)
    unknown = await office.tell("updateClassroomPolicy", by=teacher, classroomId="9d", minEvidence=5)

    assert own["policy"] == {**DEFAULTS, "version": 2, "minEvidence": 5}
    assert foreign == unknown
    assert [error["code"] for error in foreign["errors"]] == ["FORBIDDEN"]
    assert await office.all_of(STORED) == [("7b", 2, "t1")]


@pytest.mark.feature("X-07")
async def test_no_machine_changes_a_policy(pool: Pool) -> None:
    office = await open_class(pool)
    machine = office.viewer("sis", Role.INTEGRATOR, scopes=frozenset(Scope))
    before = await office.rows()

    body = await office.send("updateClassroomPolicy", "", by=machine, classroomId="7b", minEvidence=5)

    assert [error["extensions"]["code"] for error in body["errors"]] == ["FORBIDDEN"]
    assert await office.rows() == before


@pytest.mark.feature("X-07")
async def test_changes_at_once_make_versions_one_after_another(pool: Pool) -> None:
    office = await open_class(pool)

    await asyncio.gather(
        *(office.done("updateClassroomPolicy", classroomId="7b", minEvidence=number) for number in range(10, 20))
    )

    assert [version for _, version, _ in await office.all_of(STORED)] == list(range(2, 12))
