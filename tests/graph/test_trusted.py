"""Trusted documents: named by the hash of their text over HTTP and sockets, and, where so chosen, the only ones."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from graph import documents as graph_documents
from graph import trusted as graph_trusted
from graph.documents import Documents
from graph.trusted import Library, WrongDocument, id_of, read_trusted
from graph.wire import Ask
from tests.graph.toy import Toy, heard, served, subscribe, tell, token, toy_schema

RESPONSE_JSON = "application/graphql-response+json"
ECHO = "query Echo($text: String!) { echo(text: $text) }\n"
TICKS = "subscription { ticks(upto: 1) }"
RENAME = 'mutation { rename(name: "x") }'
TWO = "query A { echo } query B { pupil { name } }"
UNKNOWN = "sha256:" + "0" * 64
KNOWN = {"echo.graphql": ECHO, "live/ticks.graphql": TICKS, "rename.graphql": RENAME, "two.graphql": TWO}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("documents")
    for name, text in KNOWN.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    return place


@pytest.fixture(scope="module")
async def open_house(folder: Path) -> AsyncIterator[Toy]:
    async with served(documents=Documents(toy_schema(), trusted=read_trusted([folder]))) as running:
        yield running


@pytest.fixture(scope="module")
async def closed_house(folder: Path) -> AsyncIterator[Toy]:
    documents = Documents(toy_schema(), trusted=read_trusted([folder]), only_trusted=True)
    async with served(documents=documents) as running:
        yield running


async def post(toy: Toy, accept: str = RESPONSE_JSON, **body: Any) -> httpx.Response:
    return await toy.http.post("/graphql", json=body, headers={"authorization": f"Bearer {token()}", "accept": accept})


async def get(toy: Toy, **parameters: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {token()}", "accept": RESPONSE_JSON}
    return await toy.http.get("/graphql", params=parameters, headers=headers)


def only_error(got: httpx.Response) -> tuple[str, dict[str, Any]]:
    (error,) = got.json()["errors"]
    assert "data" not in got.json()
    return error["message"], error["extensions"]


def apq(text: str) -> dict[str, Any]:
    return {"persistedQuery": {"version": 1, "sha256Hash": id_of(text).removeprefix("sha256:")}}


def test_the_id_is_the_hash_of_the_very_bytes() -> None:
    # The example of the specification's appendix.
    assert id_of("query($id:ID!){user(id:$id){name}}") == (
        "sha256:71f7dc5758652baac68e4a10c50be732b741c892ade2883a99358f52b555286b"
    )


async def test_a_registered_document_is_answered_by_its_id_over_post_and_get(open_house: Toy) -> None:
    named = {"documentId": id_of(ECHO)}

    posted = await post(open_house, **named, variables={"text": "hi"})
    got = await get(open_house, **named, variables='{"text":"hi"}')

    assert (posted.status_code, posted.json()) == (200, {"data": {"echo": "hi"}})
    assert (got.status_code, got.json()) == (200, {"data": {"echo": "hi"}})


async def test_a_registered_document_of_several_operations_runs_the_one_that_is_named(open_house: Toy) -> None:
    good = await post(open_house, documentId=id_of(TWO), operationName="B")
    unclear = await post(open_house, documentId=id_of(TWO))
    absent = await post(open_house, documentId=id_of(TWO), operationName="C")

    assert good.json() == {"data": {"pupil": {"name": "Ada"}}}
    assert [only_error(bad)[1]["code"] for bad in (unclear, absent)] == ["BAD_INPUT", "BAD_INPUT"]


async def test_a_registered_mutation_is_not_run_by_get(open_house: Toy) -> None:
    refused = await get(open_house, documentId=id_of(RENAME))

    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert (await post(open_house, documentId=id_of(RENAME))).json() == {"data": {"rename": "x"}}


async def test_an_unknown_id_is_exactly_one_coded_error(open_house: Toy) -> None:
    for unknown in (UNKNOWN, "sha256:00", "md5:00", "x"):
        modern, by_get = await post(open_house, documentId=unknown), await get(open_house, documentId=unknown)
        legacy = await post(open_house, "application/json", documentId=unknown)

        assert (modern.status_code, by_get.status_code, legacy.status_code) == (400, 400, 200), unknown
        assert (
            only_error(modern)
            == only_error(by_get)
            == only_error(legacy)
            == (
                "No document with this 'documentId' is known here.",
                {"code": "BAD_INPUT", "reason": "PERSISTED_DOCUMENT_NOT_FOUND"},
            )
        )


async def test_a_registered_document_is_neither_parsed_nor_validated_when_it_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = Documents(toy_schema(), trusted=read_trusted([folder]))

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a trusted document was read again")

    monkeypatch.setattr(graph_documents, "parse", never)
    monkeypatch.setattr(graph_documents, "validate", never)

    asks = [Ask(None, None, {}, id_of(ECHO)), Ask(None, "Echo", {}, id_of(ECHO)), Ask(ECHO, None, {})]
    assert len({id(documents.asked(ask)) for ask in asks}) == 1
    assert documents.asked(Ask(None, "B", {}, id_of(TWO))).name == "B"


async def test_over_a_socket_a_subscription_is_started_by_its_id(open_house: Toy) -> None:
    async with open_house.session() as socket:
        await tell(socket, id="1", type="subscribe", payload={"documentId": id_of(TICKS)})
        assert await heard(socket) == {"id": "1", "type": "next", "payload": {"data": {"ticks": 0}}}
        assert await heard(socket) == {"id": "1", "type": "complete"}

        await tell(socket, id="2", type="subscribe", payload={"documentId": UNKNOWN})
        refused = await heard(socket)
        assert (refused["type"], refused["payload"][0]["extensions"]["reason"]) == (
            "error", "PERSISTED_DOCUMENT_NOT_FOUND")  # fmt: skip

        await tell(socket, id="3", type="subscribe", payload={"extensions": apq(TICKS)})
        assert (await heard(socket))["payload"] == {"data": {"ticks": 0}}


async def test_as_an_event_stream_a_subscription_is_started_by_its_id(open_house: Toy) -> None:
    headers = {"authorization": f"Bearer {token()}", "accept": "text/event-stream"}

    async def said(document_id: str) -> str:
        return (await open_house.http.get("/graphql", params={"documentId": document_id}, headers=headers)).text

    assert 'event: next\ndata: {"data":{"ticks":0}}\n\nevent: complete' in await said(id_of(TICKS))
    assert "PERSISTED_DOCUMENT_NOT_FOUND" in await said(UNKNOWN)


async def test_an_automatic_persisted_query_is_asked_for_brought_and_then_known(open_house: Toy) -> None:
    text = '{ echo(text: "brought") }'

    unknown = await post(open_house, extensions=apq(text))
    brought = await post(open_house, query=text, extensions=apq(text))
    known = await get(open_house, extensions=json.dumps(apq(text)))
    by_id = await post(open_house, documentId=id_of(text))

    assert only_error(unknown) == (
        "PersistedQueryNotFound", {"code": "BAD_INPUT", "reason": "PERSISTED_QUERY_NOT_FOUND"})  # fmt: skip
    assert brought.json() == known.json() == by_id.json() == {"data": {"echo": "brought"}}


async def test_a_text_under_the_hash_of_another_is_refused_and_not_kept(open_house: Toy) -> None:
    other = '{ echo(text: "another") }'

    lied = await post(open_house, query="{ echo }", documentId=id_of(other))

    assert only_error(lied)[1] == {"code": "BAD_INPUT", "reason": "PERSISTED_DOCUMENT_MISMATCH"}
    assert only_error(await post(open_house, documentId=id_of(other)))[1]["reason"] == "PERSISTED_DOCUMENT_NOT_FOUND"


async def test_a_wrong_document_is_not_remembered_by_its_hash(open_house: Toy) -> None:
    wrong = "{ nope }"

    assert only_error(await post(open_house, query=wrong, documentId=id_of(wrong)))[1]["code"] == (
        "GRAPHQL_VALIDATION_FAILED"
    )
    assert only_error(await post(open_house, documentId=id_of(wrong)))[1]["reason"] == "PERSISTED_DOCUMENT_NOT_FOUND"


def test_what_is_remembered_is_bounded_in_number_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_trusted, "REMEMBERED_MAX", 3)
    monkeypatch.setattr(graph_trusted, "REMEMBERED_CHARACTERS_MAX", 100)
    library = Library()
    texts = ["{ a }", "{ b }", "{ c }", "{ d }", "#" * 90]

    for text in texts:
        library.remember(Ask(text, None, {}, id_of(text)))

    assert list(library._remembered.values()) == ["{ c }", "{ d }", "#" * 90]
    assert library._characters == 100

    library.remember(Ask("{ e }", None, {}, id_of("{ e }")))
    assert list(library._remembered.values()) == ["{ d }", "#" * 90, "{ e }"]


@pytest.mark.parametrize("ad_hoc", ["{ echo }", "{ __schema { types { name } } }", "{ __typename }", "{ nonsense"])
async def test_with_trusted_only_ad_hoc_texts_are_refused_introspection_included(
    closed_house: Toy, ad_hoc: str
) -> None:
    refusal = {"code": "BAD_INPUT", "reason": "DOCUMENT_NOT_TRUSTED"}

    posted, got = await post(closed_house, query=ad_hoc), await get(closed_house, query=ad_hoc)
    brought = await post(closed_house, query=ad_hoc, extensions=apq(ad_hoc))
    async with closed_house.session() as socket:
        await subscribe(socket, "1", ad_hoc)
        told = await heard(socket)

    assert [only_error(one)[1] for one in (posted, got, brought)] == [refusal] * 3
    assert (told["type"], told["payload"][0]["extensions"]) == ("error", refusal)
    assert only_error(await post(closed_house, extensions=apq(ad_hoc)))[1]["reason"] == "PERSISTED_QUERY_NOT_FOUND"


async def test_with_trusted_only_a_registered_document_is_answered_also_as_text(closed_house: Toy) -> None:
    by_id = await post(closed_house, documentId=id_of(ECHO), variables={"text": "a"})
    by_text = await post(closed_house, query=ECHO, variables={"text": "a"})

    assert by_id.json() == by_text.json() == {"data": {"echo": "a"}}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{ nope }", "Cannot query field 'nope' on type 'Query'. (line 1 column 3)"),
        ("{ echo", "Syntax Error: Expected Name, found <EOF>. (line 1 column 7)"),
        ("fragment F on Pupil { name }", "The document holds no operation."),
        ("{ echo(text: 1) }", "String cannot represent a non string value: 1 (line 1 column 14)"),
        ("{" + " ".join(f"a{n}: echo" for n in range(31)) + "}", "The document has too many or too deep aliases"),
    ],
)
def test_a_registered_document_that_is_not_valid_stops_the_start_with_its_file_and_reason(
    tmp_path: Path, text: str, why: str
) -> None:
    (tmp_path / "wrong.graphql").write_text(text)

    with pytest.raises(WrongDocument) as stopped:
        Documents(toy_schema(), trusted=read_trusted([tmp_path]))

    assert str(stopped.value).startswith(f"trusted document {tmp_path / 'wrong.graphql'}: {why}")


def test_a_manifest_of_texts_by_hash_registers_them(tmp_path: Path) -> None:
    manifest = tmp_path / "persisted.json"
    bare = id_of(ECHO).removeprefix("sha256:")
    manifest.write_text(json.dumps({bare: ECHO, id_of(TICKS): TICKS}))

    found = read_trusted([manifest])

    assert [(one.id, one.text, one.place) for one in found] == [
        (id_of(ECHO), ECHO, manifest), (id_of(TICKS), TICKS, manifest)]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "expected a folder, or JSON"),
        (b"[]", "expected one JSON object"),
        (b'{"a": 1}', "expected one JSON object"),
        (b"\xff", "expected UTF-8"),
        (b'{"abc": "{ echo }"}', "the text under 'abc' has the id sha256:"),
        (json.dumps({id_of("#" * 70_000): "#" * 70_000}).encode(), "a document holds 65536 characters at most"),
    ],
)
def test_a_manifest_of_another_shape_is_refused_with_its_name(tmp_path: Path, content: bytes, why: str) -> None:
    manifest = tmp_path / "persisted.json"
    manifest.write_bytes(content)

    with pytest.raises(WrongDocument) as refused:
        read_trusted([manifest])

    assert str(refused.value).startswith(f"trusted document {manifest}: {why}")
