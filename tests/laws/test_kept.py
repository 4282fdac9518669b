"""Law: whatever happens in between, a page whose lists were kept is the page read afresh, for everyone who asks."""

from dataclasses import replace
from datetime import date
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.live import Live
from db.pool import Pool
from graph.answers import Answer
from graph.kept import KEPT_CHARACTERS_MAX, KEPT_MAX, KEPT_SECONDS_MAX, Kept
from graph.request import begin
from rules.access import Role, Viewer
from tests.laws.test_live import STUDENTS, World, batches
from tests.rows.district import NOW, TERM_START
from tests.rows.reading import decoded
from tests.support.listening import DOCUMENTS, Desk, open_desk

PAGE = """query ($id: ID!, $n: Int!) { classroom(id: $id) {
  key asOf { seq } lagMs rollup { completionRate averageScore }
  riskFlags(first: $n) { nodes { id studentId reason severity raisedAt clearsWhen } pageInfo { endCursor } }
  dashboard {
    averageScore activeStudents
    atRisk(first: $n) { nodes { studentId severity flags { reason severity clearsWhen } } pageInfo { hasNextPage } }
    recentActivity { nodes { studentId event { eventId effect } } }
  }
} }"""
# Recording, folding and the passing of days; people come and go; the class decides otherwise; a class is closed.
steps = st.one_of(
    st.tuples(st.just("teach"), st.lists(batches, min_size=1, max_size=2), st.booleans(), st.integers(0, 9)),
    st.tuples(st.just("fold")),
    st.tuples(st.just("leave"), st.sampled_from((*STUDENTS, "teacher"))),
    st.tuples(st.just("return"), st.sampled_from((*STUDENTS, "teacher"))),
    st.tuples(st.just("policy"), st.sampled_from((7, 14))),
    st.tuples(st.just("assess")),
)


@pytest.mark.feature("000-21", "C12")
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(script=st.lists(steps, min_size=2, max_size=8))
async def test_a_page_whose_lists_are_kept_is_the_page_read_afresh(pool: Pool, live: Live, script: list[Any]) -> None:
    desk = await open_desk(pool, live, students=STUDENTS)
    world, versions = World(desk), iter(range(2, 100))
    await same_for_everyone(desk)

    for step in script:
        await happen(world, step, versions)
        await same_for_everyone(desk)
        await same_for_everyone(desk)  # now by what the first reading kept


async def happen(world: World, step: tuple[Any, ...], versions: Any) -> None:
    """Let one thing happen."""
    desk = world.desk
    match step:
        case ("teach", taught, is_folded, days):
            await world.teach(taught, is_folded=is_folded, days=days)
        case ("fold",):
            await desk.mill.fold()
        case ("leave", person):
            await desk.district.run(
                "update enrollment set ended = $3 where tenant = $1 and person = $2", person, date(2026, 3, 11)
            )
        case ("return", person):
            await desk.district.run("update enrollment set ended = null where tenant = $1 and person = $2", person)
        case ("policy", inactivity_days):
            await desk.district.put(
                "classroom_policy", classroom="7b", version=next(versions), model="DECAYING_AVERAGE", recent_percent=65,
                min_evidence=2, success_threshold=600_000, mastery_threshold=800_000, extra_credit=False,
                inactivity_days=inactivity_days, created_at=NOW, created_by="tom",
            )  # fmt: skip
        case ("assess",):
            await desk.mill.drain.classroom(desk.mill.tenant, "7b")


async def same_for_everyone(desk: Desk) -> None:
    """Both paths answer alike, whoever asks."""
    plan = DOCUMENTS.plan(PAGE, None)
    assert plan.query is not None
    for viewer in (desk.viewer("teacher", Role.TEACHER), desk.viewer("admin", Role.ADMIN), desk.viewer("s1")):
        for number in (1, 20):
            ours = await asked(desk, viewer, number)
            theirs = await asked(desk, viewer, number, plan=replace(plan, query=None))
            assert msgspec.json.encode(ours.body, order="sorted") == msgspec.json.encode(theirs.body, order="sorted")


async def asked(desk: Desk, viewer: Viewer, number: int = 20, *, plan: Any = None) -> Answer:
    """The page as one viewer reads it."""
    context = begin(desk.engine, viewer, "test")
    variables = {"id": "7b", "n": number}
    return decoded(await DOCUMENTS.execute(plan or DOCUMENTS.plan(PAGE, None), variables, context))


@pytest.mark.feature("000-21", "C12")
async def test_a_list_is_written_again_when_its_class_has_moved_and_not_before(pool: Pool, live: Live) -> None:
    desk = await open_desk(pool, live, students=STUDENTS)
    await desk.district.flag("s1", "INACTIVE", 1)
    await desk.district.rates("7b", change_no=1)
    teacher = desk.viewer("teacher", Role.TEACHER)
    asks = []
    for statement in (
        "update risk_flag set severity = 2 where tenant = $1",  # without the class's number, as no fold would
        "update classroom_state set change_no = 2 where tenant = $1",
        "update risk_flag set severity = 3 where tenant = $1",
        "update classroom_state set assessed_at = now() where tenant = $1",  # a restored database, at the same number
    ):
        asks.append(await asked(desk, teacher))
        await desk.district.run(statement)
    asks.append(await asked(desk, teacher))

    flags = [answer.data and answer.data["classroom"]["riskFlags"]["nodes"][0]["severity"] for answer in asks]

    assert flags == ["LOW", "LOW", "MEDIUM", "MEDIUM", "HIGH"]


@pytest.mark.feature("000-21")
async def test_what_is_kept_is_shown_to_nobody_who_may_not_see_it_now(pool: Pool, live: Live) -> None:
    desk = await open_desk(pool, live, students=STUDENTS)
    await desk.district.flag("s1", "INACTIVE", 1)
    await desk.district.rates("7b", change_no=1)
    teacher, admin = desk.viewer("teacher", Role.TEACHER), desk.viewer("admin", Role.ADMIN)
    before = await asked(desk, teacher)

    await desk.district.run("update enrollment set ended = $2 where tenant = $1 and person = 'teacher'", TERM_START)
    after, of_admin, of_student = [await asked(desk, who) for who in (teacher, admin, desk.viewer("s1", Role.STUDENT))]

    assert before.data == of_admin.data != {"classroom": None}
    assert after.data == {"classroom": None}
    assert of_student.data is not None
    assert of_student.data["classroom"]["riskFlags"] is None


@pytest.mark.feature("000-21")
async def test_a_list_that_shows_students_by_name_is_read_each_time(pool: Pool, live: Live) -> None:
    desk = await open_desk(pool, live, students=STUDENTS)
    await desk.district.flag("s1", "INACTIVE", 1)
    await desk.district.rates("7b", change_no=1)
    await desk.district.person("s1", "Ada")
    plan = DOCUMENTS.plan(
        "query ($id: ID!) { classroom(id: $id) { riskFlags { nodes { reason student { displayName } } } } }", None
    )
    admin, names = desk.viewer("admin", Role.ADMIN), []

    for name in ("Ada", "Ada Lovelace"):
        await desk.district.run("update person set display_name = $2 where tenant = $1", name)
        answer = await asked(desk, admin, plan=plan)
        names.append(answer.data and answer.data["classroom"]["riskFlags"]["nodes"][0]["student"]["displayName"])

    assert names == ["Ada", "Ada Lovelace"]


@pytest.mark.feature("000-21", "C12")
def test_lists_are_kept_for_thirty_seconds_within_bounds_of_number_and_size() -> None:
    now = [0.0]
    kept = Kept(lambda: now[0])

    for number in range(KEPT_MAX + 5):
        kept.keep(number, "1@", ("x",))
    assert (len(kept), kept.of(4), kept.of(5) is not None) == (KEPT_MAX, None, True)

    now[0] = KEPT_SECONDS_MAX - 1
    kept.keep(7, "2@", ("y" * KEPT_CHARACTERS_MAX,))
    assert (len(kept), kept.of(8)) == (1, None)  # all others had to go

    now[0] += KEPT_SECONDS_MAX + 1
    assert (kept.of(7), len(kept)) == (None, 0)
