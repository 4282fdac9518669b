"""Pages of lists: keyset cursors, and the catalog that is read through them."""

from datetime import UTC, datetime

import pytest

from db.pool import Pool
from graph.connections import Keyset
from graph.nodes import global_id, read_global_id
from graph.refusal import Refused
from rules.access import Role, Scope
from tests.rows.district import District, open_district
from tests.rows.reading import Reader

PLACES = Keyset("places", (datetime, int))
WORDS = Keyset("words", (str,))
MOMENT = datetime(2026, 3, 11, 9, 30, 0, 123456, tzinfo=UTC)

CATALOG = """query ($first: Int! = 20, $after: String) {
  catalog(first: $first, after: $after) {
    nodes { key name }
    edges { cursor node { key } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}"""
BAD_CURSOR = {"code": "BAD_INPUT", "field": ["after"]}


async def with_subjects(pool: Pool, *keys: str) -> District:
    district = await open_district(pool)
    for key in keys:
        await district.put("subject", subject=key, name=f"Subject {key}")
    return district


def test_a_cursor_comes_back_as_the_place_it_was_written_for() -> None:
    assert PLACES.read(PLACES.write(MOMENT, 2**63 - 1)) == (MOMENT, 2**63 - 1)
    assert WORDS.read(WORDS.write("7b/ü")) == ("7b/ü",)
    assert WORDS.read(None) is None


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "!!!!",
        "ä",
        "a" * 5_000,
        WORDS.write("a") + "=",
        WORDS.write("a") + "\n",
        WORDS.write("a")[:-1],
        Keyset("other", (str,)).write("a"),
        Keyset("words", (int,)).write(1),
        Keyset("words", (str, str)).write("a", "b"),
        Keyset("words", (str,)).write("a\0b"),
        Keyset("words", ()).write(),
    ],
)
def test_a_cursor_that_this_list_never_wrote_is_refused(cursor: str) -> None:
    with pytest.raises(Refused) as caught:
        WORDS.read(cursor)

    assert (caught.value.code, caught.value.field) == ("BAD_INPUT", ("after",))


@pytest.mark.parametrize("micros", [2**63, 10**18, True, 1.5, "1", None])
def test_a_cursor_with_an_impossible_moment_is_refused(micros: object) -> None:
    forged = Keyset("places", (object, int)).write(micros, 1)

    with pytest.raises(Refused):
        PLACES.read(forged)


@pytest.mark.parametrize(
    "id", ["", "x", "ä", "a" * 5_000, "U3R1ZGVudA", global_id("Student", ""), global_id("S", "a") + "="]
)
def test_a_global_id_that_was_never_given_out_names_nothing(id: str) -> None:
    assert read_global_id(id) is None


def test_a_global_id_names_its_type_and_a_key_with_colons() -> None:
    assert read_global_id(global_id("Student", "a:b")) == ("Student", "a:b")


@pytest.mark.feature("001-06")
async def test_the_catalog_is_read_a_page_at_a_time_by_key(pool: Pool) -> None:
    district = await with_subjects(pool, "art", "biology", "chemistry")
    reader = Reader(pool, district.tenant, roles={Role.STUDENT})

    one = (await reader.data(CATALOG, first=2))["catalog"]
    two = (await reader.data(CATALOG, first=2, after=one["pageInfo"]["endCursor"]))["catalog"]

    art, biology, chemistry = (Keyset("subjects", (str,)).write(key) for key in ("art", "biology", "chemistry"))
    assert one == {
        "nodes": [{"key": "art", "name": "Subject art"}, {"key": "biology", "name": "Subject biology"}],
        "edges": [{"cursor": art, "node": {"key": "art"}}, {"cursor": biology, "node": {"key": "biology"}}],
        "pageInfo": {"hasNextPage": True, "hasPreviousPage": False, "startCursor": art, "endCursor": biology},
    }
    assert two == {
        "nodes": [{"key": "chemistry", "name": "Subject chemistry"}],
        "edges": [{"cursor": chemistry, "node": {"key": "chemistry"}}],
        "pageInfo": {"hasNextPage": False, "hasPreviousPage": True, "startCursor": chemistry, "endCursor": chemistry},
    }


async def test_a_page_is_not_moved_by_rows_that_are_inserted_before_it(pool: Pool) -> None:
    district = await with_subjects(pool, "art", "chemistry")
    reader = Reader(pool, district.tenant)
    one = (await reader.data(CATALOG, first=1))["catalog"]

    await district.put("subject", subject="aaa", name="Inserted before")
    two = (await reader.data(CATALOG, first=1, after=one["pageInfo"]["endCursor"]))["catalog"]

    assert [node["key"] for node in one["nodes"] + two["nodes"]] == ["art", "chemistry"]


@pytest.mark.parametrize("first", [0, -1, 201, 2**31 - 1])
async def test_a_page_size_out_of_range_is_refused(pool: Pool, first: int) -> None:
    answer = await Reader(pool, 1).ask(CATALOG, first=first)

    assert answer.data == {"catalog": None}
    assert [error["extensions"] for error in answer.errors] == [{"code": "BAD_INPUT", "field": ["first"]}]


async def test_a_cursor_of_another_list_is_refused(pool: Pool) -> None:
    answer = await Reader(pool, 1).ask(CATALOG, after=WORDS.write("a"))

    assert answer.data == {"catalog": None}
    assert [error["extensions"] for error in answer.errors] == [BAD_CURSOR]


@pytest.mark.feature("001-06")
async def test_subjects_concepts_and_prerequisites_are_read_in_one_statement_a_level(pool: Pool) -> None:
    district = await with_subjects(pool, "art", "maths")
    for key, subject in (("add", "maths"), ("multiply", "maths"), ("draw", "art")):
        await district.put("concept", concept=key, subject=subject, name=f"To {key}", kind="STANDARD")
    await district.put("concept_prerequisite", concept="multiply", prerequisite="add")
    reader = Reader(pool, district.tenant, roles={Role.GUARDIAN})

    data = await reader.data(
        "{ catalog { nodes { key concepts { nodes { key name kind isActive inCatalog subject { key } "
        "prerequisites { key subject { key } } } } } } }"
    )

    def concept(key: str, subject: str, *prerequisites: str) -> dict[str, object]:
        return {
            "key": key,
            "name": f"To {key}",
            "kind": "STANDARD",
            "isActive": True,
            "inCatalog": True,
            "subject": {"key": subject},
            "prerequisites": [{"key": before, "subject": {"key": subject}} for before in prerequisites],
        }

    assert data["catalog"]["nodes"] == [
        {"key": "art", "concepts": {"nodes": [concept("draw", "art")]}},
        {"key": "maths", "concepts": {"nodes": [concept("add", "maths"), concept("multiply", "maths", "add")]}},
    ]
    assert reader.statements == 4  # subjects, concepts, prerequisites, and the subjects of both again


@pytest.mark.feature("001-06")
async def test_a_concept_of_another_tenant_is_as_unknown_as_one_that_nobody_has(pool: Pool) -> None:
    district = await with_subjects(pool, "maths")
    await district.put("concept", concept="add", subject="maths", name="Adding")
    other = await open_district(pool)
    document = '{ known: concept(id: "add") { id key name } unknown: concept(id: "nope") { key } }'

    mine = await Reader(pool, district.tenant).data(document)
    theirs = await Reader(pool, other.tenant).data(document)

    assert mine == {"known": {"id": global_id("Concept", "add"), "key": "add", "name": "Adding"}, "unknown": None}
    assert theirs == {"known": None, "unknown": None}


async def test_a_machine_without_the_scope_read_gets_nothing(pool: Pool) -> None:
    district = await with_subjects(pool, "maths")
    reader = Reader(pool, district.tenant, roles={Role.INTEGRATOR}, scopes={Scope.INGEST, Scope.ROSTER})

    answer = await reader.ask('{ catalog { nodes { key } } concept(id: "add") { key } node(id: "x") { id } }')

    assert answer.data == {"catalog": None, "concept": None, "node": None}
    assert answer.codes == {"FORBIDDEN"}
    assert reader.statements == 0


@pytest.mark.feature("003-17")
async def test_nodes_answer_in_the_order_of_their_ids_with_null_for_what_cannot_be_seen(pool: Pool) -> None:
    district = await with_subjects(pool, "maths")
    await district.put("concept", concept="add", subject="maths", name="Adding")
    await district.enroll("ada")
    ids = [
        global_id("Concept", "add"),
        global_id("Student", "nobody"),
        "garbage",
        global_id("Student", "ada"),
        global_id("Nothing", "ada"),
        global_id("Subject", "maths"),
        global_id("Concept", "add"),
    ]
    document = "query ($ids: [ID!]!) { nodes(ids: $ids) { __typename id ... on Student { key } } }"

    admin = (await Reader(pool, district.tenant).data(document, ids=ids))["nodes"]
    student = (await Reader(pool, district.tenant, "bob", {Role.STUDENT}).data(document, ids=ids))["nodes"]

    concept, subject = {"__typename": "Concept", "id": ids[0]}, {"__typename": "Subject", "id": ids[5]}
    assert admin == [
        concept, None, None, {"__typename": "Student", "id": ids[3], "key": "ada"}, None, subject, concept,
    ]  # fmt: skip
    assert student == [concept, None, None, None, None, subject, concept]


@pytest.mark.feature("003-17")
async def test_more_than_a_hundred_ids_are_refused(pool: Pool) -> None:
    answer = await Reader(pool, 1).ask("query ($ids: [ID!]!) { nodes(ids: $ids) { id } }", ids=["x"] * 101)

    assert answer.data == {"nodes": None}
    assert [error["extensions"] for error in answer.errors] == [{"code": "BAD_INPUT", "field": ["ids"]}]
