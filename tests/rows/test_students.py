"""A student's mastery and progress, as numbers."""

from datetime import UTC, datetime
from typing import Any

import pytest

from db.pool import Pool
from graph.connections import Keyset
from graph.nodes import global_id
from rules.access import Role
from tests.rows.district import NOW, District, open_district
from tests.rows.reading import Reader

MARCH_2 = datetime(2026, 3, 2, 10, tzinfo=UTC)
MARCH_9 = datetime(2026, 3, 9, 10, tzinfo=UTC)

MASTERY = """query ($conceptIds: [ID!], $subjectId: ID, $classroomId: ID, $first: Int! = 20, $after: String) {
  student(id: "ada") {
    mastery(conceptIds: $conceptIds, subjectId: $subjectId, classroomId: $classroomId, first: $first, after: $after) {
      nodes {
        concept { key name } classroomId score percent state evidenceCount lastEvidenceAt model modelVersion masteredAt
      }
      pageInfo { hasNextPage endCursor }
    }
  }
}"""


async def with_ada(pool: Pool) -> District:
    """Ada attends 7b."""
    district = await open_district(pool, zone="Europe/Berlin")
    await district.classroom("7b")
    await district.enroll("ada")
    await district.person("ada", "Ada Lovelace")
    return district


async def put_standing(district: District, concept: str, *, student: str = "ada", **columns: Any) -> None:
    """A standing over all classes; every number that is not named is that of one score of 0.821."""
    defaults = {
        "classroom": "",
        "count": 1,
        "earlier_sum": 0,
        "newest": 821_000,
        "successes": 0,
        "quiz_attempts": 0,
        "score": 821,
        "last_evidence_at": MARCH_2,
        "rank": 1,
        "time_spent_ms": 0,
        "last_accessed_at": MARCH_2,
        "policy_version": 1,
        "class_change": 1,
        "student_change": 1,
    }
    await district.put("standing", student=student, concept=concept, **{**defaults, **columns})


async def put_policy(district: District, classroom: str, version: int, **columns: Any) -> None:
    defaults = {
        "model": "DECAYING_AVERAGE",
        "recent_percent": 65,
        "success_threshold": 600_000,
        "mastery_threshold": 800_000,
        "min_evidence": 3,
        "inactivity_days": 7,
        "extra_credit": False,
        "created_at": NOW,
        "created_by": "head",
    }
    await district.put("classroom_policy", classroom=classroom, version=version, **{**defaults, **columns})


def mastery(key: str, **changes: Any) -> dict[str, Any]:
    """What `put_standing` answers."""
    return {
        "concept": {"key": key, "name": key},
        "classroomId": None,
        "score": 0.821,
        "percent": 82.1,
        "state": "LOW_EVIDENCE",
        "evidenceCount": 1,
        "lastEvidenceAt": "2026-03-02T10:00:00Z",
        "model": "DECAYING_AVERAGE",
        "modelVersion": 1,
        "masteredAt": None,
        **changes,
    }


def unseen(key: str, **changes: Any) -> dict[str, Any]:
    """What a concept without evidence answers."""
    return mastery(
        key,
        **{"score": None, "percent": None, "state": "NO_DATA", "evidenceCount": 0, "lastEvidenceAt": None, **changes},
    )


async def mastery_nodes(reader: Reader, **variables: Any) -> Any:
    return (await reader.data(MASTERY, **variables))["student"]["mastery"]["nodes"]


@pytest.mark.feature("000-12", "000-18", "X-11")
async def test_mastery_tells_score_state_and_the_policy_that_made_them_by_concept_key(pool: Pool) -> None:
    district = await with_ada(pool)
    await district.put("subject", subject="maths", name="Maths")
    await district.put("concept", concept="fractions", subject="maths", name="Fractions")
    await put_standing(district, "fractions", count=3, mastered_at=MARCH_9, last_evidence_at=MARCH_9)
    await put_standing(district, "angles", count=2)
    await put_standing(district, "ratios", count=0, score=None, newest=None, last_evidence_at=None)

    nodes = await mastery_nodes(Reader(pool, district.tenant))

    assert nodes == [
        mastery("angles", evidenceCount=2),
        mastery(
            "fractions",
            concept={"key": "fractions", "name": "Fractions"},
            state="OK",
            evidenceCount=3,
            lastEvidenceAt="2026-03-09T10:00:00Z",
            masteredAt="2026-03-09T10:00:00Z",
        ),
        unseen("ratios"),
    ]


@pytest.mark.feature("002-06")
async def test_the_success_ratio_of_a_class_rests_on_quiz_attempts_alone(pool: Pool) -> None:
    district = await with_ada(pool)
    await put_policy(district, "7b", 2, model="SUCCESS_RATIO", min_evidence=2)
    await put_policy(district, "7b", 3, min_evidence=9)
    await put_standing(
        district, "angles", classroom="7b", count=5, quiz_attempts=3, successes=2, score=667, policy_version=2
    )
    await put_standing(district, "fractions", classroom="7b", count=5, score=None, policy_version=2)

    nodes = await mastery_nodes(Reader(pool, district.tenant), classroomId="7b")

    by_ratio = {"classroomId": "7b", "model": "SUCCESS_RATIO", "modelVersion": 2}
    assert nodes == [
        mastery("angles", score=0.667, percent=66.7, state="OK", evidenceCount=3, **by_ratio),
        unseen("fractions", lastEvidenceAt="2026-03-02T10:00:00Z", **by_ratio),
    ]


@pytest.mark.feature("002-07", "X-11")
async def test_a_concept_asked_for_by_key_is_answered_also_without_evidence(pool: Pool) -> None:
    district = await with_ada(pool)
    await put_policy(district, "", 2, min_evidence=1)
    await put_standing(district, "fractions")
    await put_standing(district, "other")

    nodes = await mastery_nodes(Reader(pool, district.tenant), conceptIds=["nobody", "fractions", "angles", "nobody"])

    assert nodes == [unseen("angles", modelVersion=2), mastery("fractions"), unseen("nobody", modelVersion=2)]


@pytest.mark.feature("000-18")
async def test_mastery_can_be_narrowed_to_the_concepts_of_a_subject(pool: Pool) -> None:
    district = await with_ada(pool)
    for key, subject in (("angles", "maths"), ("draw", "art"), ("fractions", "maths")):
        await district.put("concept", concept=key, subject=subject, name=key)
    await put_standing(district, "angles")
    await put_standing(district, "draw")
    reader = Reader(pool, district.tenant)

    met = await mastery_nodes(reader, subjectId="maths")
    asked = await mastery_nodes(reader, subjectId="maths", conceptIds=["fractions", "draw"])

    assert met == [mastery("angles")]
    assert asked == [unseen("fractions")]


@pytest.mark.feature("000-18")
async def test_pages_of_mastery_hold_each_concept_once_while_others_are_added(pool: Pool) -> None:
    district = await with_ada(pool)
    await put_standing(district, "b")
    await put_standing(district, "d")
    reader = Reader(pool, district.tenant)

    one = (await reader.data(MASTERY, first=1))["student"]["mastery"]
    await put_standing(district, "a")
    await put_standing(district, "c")
    two = (await reader.data(MASTERY, first=2, after=one["pageInfo"]["endCursor"]))["student"]["mastery"]
    asked = await reader.data(MASTERY, first=1, after=one["pageInfo"]["endCursor"], conceptIds=["a", "b", "x"])

    assert one == {"nodes": [mastery("b")], "pageInfo": {"hasNextPage": True, "endCursor": cursor("b")}}
    assert two == {"nodes": [mastery("c"), mastery("d")], "pageInfo": {"hasNextPage": False, "endCursor": cursor("d")}}
    assert asked["student"]["mastery"]["nodes"] == [unseen("x")]


def cursor(key: str) -> str:
    return Keyset("mastery", (str,)).write(key)


@pytest.mark.parametrize("keys", [["a"] * 201, [""], ["a" * 129]])
async def test_keys_that_no_roster_could_hold_are_refused(pool: Pool, keys: list[str]) -> None:
    district = await with_ada(pool)

    answer = await Reader(pool, district.tenant).ask(MASTERY, conceptIds=keys)

    assert answer.data == {"student": {"mastery": None}}
    assert [error["extensions"] for error in answer.errors] == [{"code": "BAD_INPUT", "field": ["conceptIds"]}]


@pytest.mark.feature("001-03")
async def test_progress_counts_concepts_where_they_stand(pool: Pool) -> None:
    district = await with_ada(pool)
    for key in ("angles", "draw", "fractions"):
        await district.put("concept", concept=key, subject="maths", name=key)
    await district.put("concept", concept="old", subject="maths", name="old", is_active=False)
    await put_standing(district, "angles", time_spent_ms=3_000_000_000)
    await put_standing(district, "c", rank=2, score=None, last_accessed_at=MARCH_9)
    await put_standing(district, "d", mastered_at=MARCH_2, score=900, time_spent_ms=5)
    await put_standing(district, "e", rank=3, score=None)
    await put_standing(district, "e", classroom="7b", score=100, time_spent_ms=7)
    await district.assignment("quiz-1", concepts=["fractions", "e", "elsewhere"])
    fields = "concepts { notStarted inProgress completed mastered } averageScore totalTimeSpentMs lastActivityAt"

    data = await Reader(pool, district.tenant).data(
        f'{{ student(id: "ada") {{ all: progress {{ {fields} }} in7b: progress(classroomId: "7b") {{ {fields} }} '
        f'nowhere: progress(classroomId: "nope") {{ {fields} }} }} }}'
    )

    assert data["student"] == {
        "all": {
            "concepts": {"notStarted": 2, "inProgress": 1, "completed": 1, "mastered": 2},
            "averageScore": 0.86,  # (821 + 900) / 2 = 860.5, half-even
            "totalTimeSpentMs": 3_000_000_005,
            "lastActivityAt": "2026-03-09T10:00:00Z",
        },
        "in7b": {
            "concepts": {"notStarted": 1, "inProgress": 1, "completed": 0, "mastered": 0},
            "averageScore": 0.1,
            "totalTimeSpentMs": 7,
            "lastActivityAt": "2026-03-02T10:00:00Z",
        },
        "nowhere": {
            "concepts": {"notStarted": 0, "inProgress": 0, "completed": 0, "mastered": 0},
            "averageScore": None,
            "totalTimeSpentMs": 0,
            "lastActivityAt": None,
        },
    }


@pytest.mark.feature("001-04", "001-05")
async def test_concept_progress_tells_the_highest_status_and_who_says_so(pool: Pool) -> None:
    district = await with_ada(pool)
    await put_standing(
        district, "claimed", rank=3, count=2, best=900_000, latest=550_000, time_spent_ms=60_000,
        claimed_at=MARCH_2, mastered_at=MARCH_9,
    )  # fmt: skip
    await put_standing(district, "computed", mastered_at=MARCH_2, claimed_at=MARCH_9, last_accessed_at=None)
    fields = (
        "concept { key } status attempts bestScore latestScore totalTimeSpentMs lastAccessedAt masteredAt masterySource"
    )

    data = await Reader(pool, district.tenant, "ada", {Role.STUDENT}).data(
        f'{{ student(id: "ada") {{ a: conceptProgress(conceptId: "claimed") {{ {fields} }} '
        f'b: conceptProgress(conceptId: "computed") {{ status masteredAt masterySource lastAccessedAt }} '
        f'c: conceptProgress(conceptId: "never") {{ {fields} }} }} }}'
    )

    assert data["student"] == {
        "a": {
            "concept": {"key": "claimed"},
            "status": "MASTERED",
            "attempts": 2,
            "bestScore": 0.9,
            "latestScore": 0.55,
            "totalTimeSpentMs": 60_000,
            "lastAccessedAt": "2026-03-02T10:00:00Z",
            "masteredAt": "2026-03-02T10:00:00Z",
            "masterySource": "CLAIMED",
        },
        "b": {
            "status": "MASTERED",
            "masteredAt": "2026-03-02T10:00:00Z",
            "masterySource": "COMPUTED",
            "lastAccessedAt": None,
        },
        "c": {
            "concept": {"key": "never"},
            "status": "NOT_STARTED",
            "attempts": 0,
            "bestScore": None,
            "latestScore": None,
            "totalTimeSpentMs": 0,
            "lastAccessedAt": None,
            "masteredAt": None,
            "masterySource": None,
        },
    }


@pytest.mark.feature("000-18")
async def test_many_students_are_read_with_one_statement_a_field(pool: Pool) -> None:
    district = await with_ada(pool)
    await district.teach("miller")
    keys = [f"s{number}" for number in range(5)]
    for key in keys:
        await district.enroll(key)
        await put_standing(district, f"of-{key}", student=key)
    reader = Reader(pool, district.tenant, "miller", {Role.TEACHER})

    data = await reader.data(
        "query ($ids: [ID!]!) { nodes(ids: $ids) { ... on Student { key asOf { seq } "
        "mastery { nodes { concept { key } } } "
        'progress { concepts { inProgress } } riskFlags { nodes { reason } } conceptProgress(conceptId: "of-s1") '
        "{ status } } } }",
        ids=[global_id("Student", key) for key in keys],
    )

    assert data["nodes"] == [
        {
            "key": key,
            "asOf": {"seq": "0"},
            "mastery": {"nodes": [{"concept": {"key": f"of-{key}"}}]},
            "progress": {"concepts": {"inProgress": 1}},
            "riskFlags": {"nodes": []},
            "conceptProgress": {"status": "IN_PROGRESS" if key == "s1" else "NOT_STARTED"},
        }
        for key in keys
    ]
    assert reader.statements == 7  # freshness, ties, mastery, progress (two), flags, concept progress
