"""The catalog: saved all or nothing, prerequisites known and never in a circle."""

import asyncio
from typing import Any

import pytest

from db.pool import Pool
from rules.roster import CATALOG_ITEMS_MAX
from tests.rows.office import Office, open_office

MATHS = {"key": "maths", "name": "Maths"}
EDGES = "select concept, prerequisite from concept_prerequisite where tenant = $1 order by concept, prerequisite"
CONCEPTS = "select concept, subject, name, kind, is_active from concept where tenant = $1 order by concept"


def concept(key: str, *before: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "name": f"Concept {key}", "subjectId": "maths", "prerequisiteIds": list(before), **more}


async def open_catalog(pool: Pool) -> Office:
    """An office whose catalog holds a, then b, then c."""
    office = await open_office(pool)
    await office.done("saveCatalog", subjects=[MATHS], concepts=[concept("a"), concept("b", "a"), concept("c", "b")])
    return office


@pytest.mark.feature("001-06")
async def test_subjects_and_concepts_are_saved_together_and_read_with_their_prerequisites(pool: Pool) -> None:
    office = await open_office(pool)

    payload = await office.done(
        "saveCatalog",
        "subjectCount conceptCount",
        subjects=[MATHS],
        concepts=[concept("c", "b", "a", kind="STANDARD"), concept("a"), concept("b", "a", isActive=False)],
    )
    body = await office.ask(
        '{ concept(id: "c") { key name kind isActive subject { key name } prerequisites { key isActive } } }', {}
    )

    assert payload == {"seq": "0", "subjectCount": 1, "conceptCount": 3}
    assert body == {
        "data": {
            "concept": {
                "key": "c",
                "name": "Concept c",
                "kind": "STANDARD",
                "isActive": True,
                "subject": MATHS,
                "prerequisites": [{"key": "a", "isActive": True}, {"key": "b", "isActive": False}],
            }
        }
    }
    assert await office.waiting() == []


@pytest.mark.feature("001-06")
async def test_saving_the_same_catalog_again_writes_nothing(pool: Pool) -> None:
    office = await open_catalog(pool)
    before = await office.all_of("select xmin, * from concept where tenant = $1 order by concept")

    await office.done("saveCatalog", subjects=[MATHS], concepts=[concept("a"), concept("b", "a"), concept("c", "b")])

    assert await office.all_of("select xmin, * from concept where tenant = $1 order by concept") == before


@pytest.mark.feature("001-06")
async def test_what_is_left_out_stays_and_a_sent_list_replaces(pool: Pool) -> None:
    office = await open_catalog(pool)
    await office.done("saveCatalog", concepts=[concept("c", "b", kind="TOPIC", isActive=False)])

    await office.done("saveCatalog", concepts=[{"key": "c", "name": "C", "subjectId": "maths"}])
    after_name, edges = await office.all_of(CONCEPTS), await office.all_of(EDGES)
    await office.done("saveCatalog", concepts=[concept("c", "a")])
    replaced = await office.all_of(EDGES)
    await office.done("saveCatalog", concepts=[concept("c")])

    assert after_name[-1] == ("c", "maths", "C", "TOPIC", False)
    assert edges == [("b", "a"), ("c", "b")]
    assert replaced == [("b", "a"), ("c", "a")]
    assert await office.all_of(EDGES) == [("b", "a")]


@pytest.mark.feature("001-06")
async def test_a_cycle_is_refused_and_named(pool: Pool) -> None:
    office = await open_catalog(pool)
    before = await office.rows()

    payload = await office.tell("saveCatalog", "conceptCount", concepts=[concept("d"), concept("a", "c")])

    assert payload == {
        "seq": None,
        "conceptCount": 0,
        "errors": [
            {
                "code": "CYCLE",
                "field": ["concepts", "1", "prerequisiteIds"],
                "message": "expected no cycle of prerequisites, got a -> b -> c -> a (each comes before the next)",
            }
        ],
    }
    assert await office.rows() == before


@pytest.mark.feature("001-06")
async def test_a_cycle_that_the_same_input_breaks_is_none(pool: Pool) -> None:
    office = await open_catalog(pool)

    await office.done("saveCatalog", concepts=[concept("a", "c"), concept("b")])

    assert await office.all_of(EDGES) == [("a", "c"), ("c", "b")]


@pytest.mark.feature("001-06")
async def test_of_two_saves_at_once_that_would_close_a_circle_one_is_refused(pool: Pool) -> None:
    office = await open_office(pool)
    await office.done("saveCatalog", subjects=[MATHS], concepts=[concept("a"), concept("b")])

    payloads = await asyncio.gather(
        office.tell("saveCatalog", concepts=[concept("a", "b")]),
        office.tell("saveCatalog", concepts=[concept("b", "a")]),
    )

    assert sorted(len(payload["errors"]) for payload in payloads) == [0, 1]
    assert len(await office.all_of(EDGES)) == 1


WRONG: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"concepts": [concept("d", "d")]}, [("CYCLE", "concepts.0.prerequisiteIds")]),
    ({"concepts": [concept("d", "a", "z")]}, [("NOT_FOUND", "concepts.0.prerequisiteIds.1")]),
    ({"concepts": [concept("d", subjectId="art")]}, [("NOT_FOUND", "concepts.0.subjectId")]),
    ({"concepts": [concept("d"), concept("e"), concept("d")]}, [("REPEATED", "concepts.2")]),
    ({"subjects": [MATHS, MATHS]}, [("REPEATED", "subjects.1")]),
    ({"concepts": [concept("d", "a", "a")]}, [("REPEATED", "concepts.0.prerequisiteIds.1")]),
    ({"concepts": [concept("d", *(f"p{n}" for n in range(51)))]}, [("TOO_MANY", "concepts.0.prerequisiteIds")]),
    ({"concepts": [concept("")]}, [("BAD_ID", "concepts.0.key")]),
    ({"concepts": [concept("d", name="\u0000")]}, [("BAD_TEXT", "concepts.0.name")]),
    ({"subjects": [{"key": "art", "name": "x" * 201}]}, [("TOO_LONG", "subjects.0.name")]),
    ({"subjects": [{"key": f"s{n}", "name": "S"} for n in range(2_001)]}, [("TOO_MANY", "subjects")]),
]


@pytest.mark.feature("001-06")
@pytest.mark.parametrize(("sent", "codes"), WRONG)
async def test_a_wrong_catalog_is_refused_as_a_whole(
    pool: Pool, sent: dict[str, Any], codes: list[tuple[str, str]]
) -> None:
    office = await open_catalog(pool)
    good = {"concepts": [concept("good"), *sent["concepts"]]} if "concepts" in sent else {}
    moved = [
        (code, field.replace("concepts.0", "concepts.1").replace("concepts.2", "concepts.3")) for code, field in codes
    ]

    assert await office.codes("saveCatalog", **sent) == codes
    assert await office.codes("saveCatalog", **{**sent, **good}) == (moved if good else codes)


@pytest.mark.feature("001-06")
async def test_the_errors_of_a_hopeless_catalog_are_bounded(pool: Pool) -> None:
    office = await open_office(pool)

    codes = await office.codes("saveCatalog", concepts=[concept(f"c{n}") for n in range(500)])

    assert codes == [("NOT_FOUND", f"concepts.{place}.subjectId") for place in range(100)]


@pytest.mark.feature("001-06")
async def test_a_full_catalog_input_is_saved_in_one_go(pool: Pool) -> None:
    office = await open_office(pool)
    chain = [concept("c0000")] + [concept(f"c{n:04}", f"c{n - 1:04}") for n in range(1, CATALOG_ITEMS_MAX)]

    payload = await office.done("saveCatalog", "conceptCount", subjects=[MATHS], concepts=chain)

    assert payload == {"seq": "0", "conceptCount": CATALOG_ITEMS_MAX}
    assert len(await office.all_of(EDGES)) == CATALOG_ITEMS_MAX - 1
