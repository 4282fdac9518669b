"""Class and student pages read at once: the same answers as the reference executor, and one statement for many."""

import asyncio
import random
from collections import Counter
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from db import class_pages, student_pages
from db.boards import CONCEPT_KINDS
from db.pages import ASKS_MAX
from db.pool import STATEMENTS_MAX, Pool, lent, open_pool
from graph.answers import Answer
from graph.catalog_reads import ConceptKind
from graph.documents import Documents, Plan
from graph.pages import LOGS_MAX, STATEMENT_BYTES_MAX, PageRead
from graph.request import Engine, begin
from graph.schema import schema
from rules.access import Role, Scope, Viewer
from tests.bench.orders import READS
from tests.graph.compiled_cases import Dice
from tests.graph.page_cases import KEYS, Case, open_school
from tests.rows.district import NOW, open_district
from tests.rows.reading import EXPIRY, CountingPool
from tests.rows.staffroom import _Means

PAGES = Path(__file__).parents[2] / "server/pages/documents"
DOCUMENTS = 50
ROOTS = {
    "classroom": ("Classroom", class_pages, ("7b", "8a", "no such class")),
    "student": ("Student", student_pages, (*KEYS, "nobody")),
}


def viewers(tenant: int, other: int) -> dict[str, Viewer]:
    """Everyone who may ask, and some who may not."""

    def of(key: str, *roles: Role, scope: Scope | None = None) -> Viewer:
        scopes = frozenset[Scope]() if scope is None else frozenset({scope})
        return Viewer(tenant=tenant, key=key, roles=frozenset(roles), scopes=scopes, expires_at=EXPIRY)

    return {
        "admin": of("head", Role.ADMIN),
        "admin that is a machine, too": of("head", Role.ADMIN, Role.INTEGRATOR, scope=Scope.READ),
        "teacher": of("tom", Role.TEACHER),
        "teacher that is a machine, too": of("tom", Role.TEACHER, Role.INTEGRATOR, scope=Scope.READ),
        "teacher of the other class": of("una", Role.TEACHER),
        "teacher until yesterday": of("old", Role.TEACHER),
        "student": of("s0", Role.STUDENT),
        "student with a teacher's token": of("s0", Role.STUDENT, Role.TEACHER),
        "student and teacher": of("una", Role.STUDENT, Role.TEACHER),
        "teacher with a student's token": of("tom", Role.STUDENT),
        "guardian": of("gus", Role.GUARDIAN),
        "guardian without consent": of("ria", Role.GUARDIAN),
        "machine that reads": of("sis", Role.INTEGRATOR, scope=Scope.READ),
        "teacher's machine that reads": of("tom", Role.INTEGRATOR, scope=Scope.READ),
        "machine that ingests": of("lms", Role.INTEGRATOR, scope=Scope.INGEST),
        "teacher of another tenant": Viewer(other, "tom", frozenset({Role.TEACHER}), EXPIRY),
        "nobody": of("tom"),
    }


def written(answer: Answer) -> bytes:
    """The answer as sent, after key order; an id of an error is never the same."""
    body = msgspec.json.decode(msgspec.json.encode(answer.body))
    for error in body.get("errors", ()):
        error["extensions"].pop("errorId", None)
    return msgspec.json.encode(body, order="sorted")


async def asked(documents: Documents, plan: Plan, variables: dict[str, Any], viewer: Viewer, pool: Any) -> Answer:
    return await documents.execute(plan, variables, begin(engine_on(pool), viewer, "c1"))


@cache
def engine_on(pool: Any) -> Engine:
    """The means of one process, so that its readers come together."""
    return cast(Engine, _Means(pool=pool, clock=lambda: NOW))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.feature("000-17", "000-18", "000-19", "003-17")
async def test_a_page_answers_the_same_on_both_paths_whoever_asks(pool: Pool, root: str) -> None:
    documents, district = Documents(schema), await open_school(pool)
    everyone = viewers(district.tenant, (await open_district(pool)).tenant)
    kind, module, keys = ROOTS[root]
    cases, compiled, taken, codes = 0, 0, Counter[str](), Counter[str]()
    for place in range(DOCUMENTS):
        dice = Dice(random.Random(f"{root}{place}"), flaw=0.05 if place % 3 == 0 else 0.0)
        case = Case(dice, module.FIELDS, module.BELOW, module.PAGES)
        text = case.document(root, kind)
        plan = documents.plan(text, None)
        if plan.query is None:
            continue
        for id in (keys[0], dice.of(keys[1:])):  # the first is the student, and the guardian's child, that may ask
            variables = {"id": id, **case.values()}
            before = documents.tally.compiled

            # All at once, as readers come: they share statements, and no answer may reach another one.
            ours = await asyncio.gather(
                *(asked(documents, plan, variables, viewer, pool) for viewer in everyone.values())
            )
            theirs = [
                await asked(documents, replace(plan, query=None), variables, viewer, pool)
                for viewer in everyone.values()
            ]

            compiled += documents.tally.compiled - before
            for name, one, other in zip(everyone, ours, theirs, strict=True):
                assert written(one) == written(other), (text, variables, name)
                cases += 1
                codes.update(one.codes)
                taken[name] += any(isinstance(value, msgspec.Raw) for value in (one.data or {}).values())

    assert cases >= 1_200
    assert compiled == taken.total() >= cases / 12
    assert codes["FORBIDDEN"] > 0
    staff = {"admin", "admin that is a machine, too", "teacher", "teacher of the other class"}
    people = {"student", "student with a teacher's token", "student and teacher", "guardian"}
    expected = staff | (people if root == "student" else {"student and teacher"})
    assert {who for who, count in taken.items() if count} == expected


DASHBOARD = """query ($id: ID!) { classroom(id: $id) {
  key dashboard { activeStudents recentActivity { nodes { studentId } } }
} }"""
PAGE = """query ($id: ID!, $c: ID!) { student(id: $id) {
  key mastery(classroomId: $c) { nodes { score } } progress { averageScore } timeline { nodes { id } }
} }"""


@pytest.mark.parametrize("name", ["at_risk", "check", "class", "freshness", "scores", "student", "timeline"])
def test_what_the_live_page_asks_of_a_class_and_a_student_is_read_at_once(name: str) -> None:
    text = (PAGES / f"{name}.graphql").read_text()

    query = Documents(schema).plan(text, None).query

    assert query is not None
    assert isinstance(query.read, PageRead)


@pytest.mark.parametrize("name", READS)
def test_what_the_bench_reads_is_read_at_once(name: str) -> None:
    query = Documents(schema).plan(READS[name], None).query

    assert query is not None
    assert isinstance(query.read, PageRead)


@pytest.mark.parametrize(("count", "is_compiled"), [(LOGS_MAX, True), (LOGS_MAX + 1, False)])
@pytest.mark.parametrize(
    "document",
    [
        "query ($id: ID!) {{ student(id: $id) {{ {} }} }}",
        "query ($id: ID!) {{ student(id: $id) {{ ...S }} }} fragment S on Student {{ {} }}",
    ],
)
def test_more_lists_of_events_than_a_plan_may_hold_are_the_reference_executors(
    document: str, count: int, is_compiled: bool
) -> None:
    many = " ".join(f"p{n}: timeline(first: {n + 1}) {{ nodes {{ id }} }}" for n in range(count))

    assert (Documents(schema).plan(document.format(many), None).query is not None) is is_compiled


def test_recent_activity_of_dashboards_is_counted_together() -> None:
    many = " ".join(
        f"p{n}: dashboard {{ recentActivity(first: {n + 1}) {{ nodes {{ studentId }} }} }}" for n in range(LOGS_MAX + 1)
    )

    assert Documents(schema).plan(f"query ($id: ID!) {{ classroom(id: $id) {{ {many} }} }}", None).query is None


def test_a_selection_whose_statement_is_longer_than_a_plan_may_be_is_the_reference_executors() -> None:
    def planned(count: int) -> Plan:
        many = " ".join(f"p{n}: mastery(first: {n + 1}) {{ nodes {{ score }} }}" for n in range(count))
        return Documents(schema).plan(f"query ($id: ID!) {{ student(id: $id) {{ {many} }} }}", None)

    assert len(statement_of(planned(5))) <= STATEMENT_BYTES_MAX
    assert planned(20).query is None


async def test_a_connection_keeps_so_many_plans_and_no_more_however_many_documents_are_asked(
    database_url: str, pool: Pool
) -> None:
    documents, district = Documents(schema), await open_school(pool)
    admin, asked_of = viewers(district.tenant, 0)["admin"], "select count(*) from pg_prepared_statements"
    alone = await open_pool(database_url, size_max=1, size_idle=1)
    try:
        for number in range(STATEMENTS_MAX + 5):
            plan = documents.plan(f"query ($id: ID!) {{ student(id: $id) {{ k{number}: key }} }}", None)
            await asked(documents, plan, {"id": "s0"}, admin, alone)

        async with lent(alone) as connection:
            kept = await connection.fetchval(asked_of)
    finally:
        await alone.close()
        engine_on.cache_clear()

    assert documents.tally.compiled == STATEMENTS_MAX + 5
    assert kept <= STATEMENTS_MAX


@pytest.mark.feature("000-17", "000-18")
async def test_whoever_asks_at_the_same_moment_is_read_by_one_statement_and_judged_alone(pool: Pool) -> None:
    documents, district = Documents(schema), await open_school(pool)
    plan, counted = documents.plan(DASHBOARD, None), CountingPool(pool)
    everyone = viewers(district.tenant, (await open_district(pool)).tenant)
    readers = [everyone[name] for name in ("admin", "teacher", "teacher of the other class", "teacher", "admin")]

    answers = await asyncio.gather(
        *(asked(documents, plan, {"id": id}, viewer, counted) for viewer in readers for id in ("7b", "8a"))
    )

    assert counted.asked[statement_of(plan)] == 1
    seen = [msgspec.json.decode(written(answer))["data"]["classroom"] for answer in answers]
    assert [found and found["key"] for found in seen] == [
        *("7b", "8a"), *("7b", None), *(None, "8a"), *("7b", None), *("7b", "8a"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        '{ student(id: "s0") { mastery { nodes { concept { kind } } } } }',
        '{ student(id: "s0") { mastery(classroomId: "7b") { nodes { model } } } }',
        '{ classroom(id: "7b") { concepts { nodes { kind } } } }',
        '{ classroom(id: "7b") { policy { model } } }',
        """query ($id: ID!) { classroom(id: $id) { roster { nodes {
            student { mastery(classroomId: $id) { nodes { model concept { kind } } } }
        } } } }""",
    ],
)
async def test_a_word_of_a_newer_release_is_the_reference_executors(pool: Pool, text: str) -> None:
    documents, district = Documents(schema), await open_school(pool)
    plan, admin = documents.plan(text, None), viewers(district.tenant, 0)["admin"]
    for change in ("concept set kind = 'SKILL'", "classroom_policy set model = 'NEWER'"):
        await district.run(f"update {change} where tenant = $1")

    ours = await asked(documents, plan, {"id": "7b"}, admin, pool)
    theirs = await asked(documents, replace(plan, query=None), {"id": "7b"}, admin, pool)

    assert plan.query is not None
    assert written(ours) == written(theirs)
    assert documents.tally.compiled == 0


def test_the_words_that_sql_knows_are_those_of_the_schema() -> None:
    assert set(CONCEPT_KINDS) == {kind.name for kind in ConceptKind}


@pytest.mark.parametrize("selected", ["nodes { studentId }", "pageInfo { endCursor }", "pageInfo { startCursor }"])
async def test_a_student_at_risk_of_no_overall_severity_is_in_no_list_of_either_path(pool: Pool, selected: str) -> None:
    documents, district = Documents(schema), await open_school(pool)
    admin = viewers(district.tenant, 0)["admin"]
    plan = documents.plan(f'{{ classroom(id: "7b") {{ dashboard {{ atRisk {{ {selected} }} }} }} }}', None)
    await district.run("update risk_flag set overall = null where tenant = $1")

    ours = await asked(documents, plan, {}, admin, pool)
    theirs = await asked(documents, replace(plan, query=None), {}, admin, pool)

    assert plan.query is not None
    assert written(ours) == written(theirs)


@pytest.mark.feature("000-18", "000-19")
async def test_a_student_page_is_one_statement_and_stops_with_the_right_to_see_it(pool: Pool) -> None:
    documents, district = Documents(schema), await open_school(pool)
    plan, counted = documents.plan(PAGE, None), CountingPool(pool)
    tom = viewers(district.tenant, 0)["teacher"]
    variables = {"id": "s0", "c": "7b"}

    before = await asked(documents, plan, variables, tom, counted)
    await district.run("update enrollment set ended = $2 where tenant = $1 and person = 'tom'", date(2026, 3, 11))
    after = await asked(documents, plan, variables, tom, pool)

    assert counted.asked.total() == 1
    assert documents.tally.compiled == 1
    assert b'"key":"s0"' in written(before)
    assert (after.data, after.codes) == ({"student": None}, set())


@pytest.mark.parametrize(("flaw", "id"), [("where 1 / (a.place - a.place) = 1", "7b"), ("", "\ud800")])
async def test_a_statement_that_fails_by_itself_fails_nobody(pool: Pool, flaw: str, id: str) -> None:
    documents, district = Documents(schema), await open_school(pool)
    plan, admin = documents.plan(DASHBOARD, None), viewers(district.tenant, 0)["admin"]
    assert plan.query is not None
    assert isinstance(plan.query.read, PageRead)
    read = replace(plan.query.read, statement=statement_of(plan) + flaw)
    broken = replace(plan, query=replace(plan.query, read=read))

    answers = await asyncio.gather(*(asked(documents, broken, {"id": one}, admin, pool) for one in ("8a", id)))

    assert b'"key":"8a"' in written(answers[0])
    assert written(answers[1]) == written(await asked(documents, replace(plan, query=None), {"id": id}, admin, pool))
    assert documents.tally.compiled == 0


async def test_a_reader_who_leaves_takes_nothing_from_the_others(pool: Pool) -> None:
    documents, district = Documents(schema), await open_school(pool)
    plan, admin = documents.plan(DASHBOARD, None), viewers(district.tenant, 0)["admin"]
    first, second = (asyncio.create_task(asked(documents, plan, {"id": "7b"}, admin, pool)) for _ in range(2))
    await asyncio.sleep(0)  # both wait now

    first.cancel()

    assert b'"key":"7b"' in written(await second)
    assert first.cancelled()


async def test_more_than_a_statement_takes_are_read_in_several(pool: Pool) -> None:
    documents, district = Documents(schema), await open_school(pool)
    plan, counted = documents.plan(DASHBOARD, None), CountingPool(pool)
    everyone = [Viewer(district.tenant, f"head{n}", frozenset({Role.ADMIN}), EXPIRY) for n in range(ASKS_MAX + 1)]

    answers = await asyncio.gather(*(asked(documents, plan, {"id": "7b"}, viewer, counted) for viewer in everyone))

    assert counted.asked[statement_of(plan)] == 2
    assert {written(answer) for answer in answers} == {written(answers[0])}


@pytest.mark.feature("000-17", "000-18")
async def test_readers_of_different_documents_share_a_transaction(pool: Pool) -> None:
    documents, district = Documents(schema), await open_school(pool)
    admin, counted = viewers(district.tenant, 0)["admin"], BorrowedPool(pool)
    plans = [documents.plan(DASHBOARD, None), documents.plan(PAGE, None)]

    asks = zip(plans * 2, ("7b", "s0", "8a", "s5"), strict=True)
    await asyncio.gather(*(asked(documents, plan, {"id": id, "c": "7b"}, admin, counted) for plan, id in asks))

    assert (counted.borrowed, counted.asked.total()) == (1, 2)


class BorrowedPool(CountingPool):
    """A pool that counts its loans, too."""

    borrowed = 0

    def acquire(self, *, timeout: float) -> Any:
        """Lend a connection that counts."""
        self.borrowed += 1
        return super().acquire(timeout=timeout)


def statement_of(plan: Plan) -> str:
    """What a page's round sends."""
    assert plan.query is not None
    assert isinstance(plan.query.read, PageRead)
    return plan.query.read.statement
