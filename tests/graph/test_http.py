"""GraphQL over HTTP: every request gets one coded answer in JSON, with the status its clients expect."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rules.access import Role
from tests.graph.toy import Toy, served, token

RESPONSE_JSON = "application/graphql-response+json"


@pytest.fixture(scope="module")
async def house() -> AsyncIterator[Toy]:
    async with served() as running:
        yield running


@pytest.fixture
async def toy(house: Toy) -> AsyncIterator[Toy]:
    yield house
    await house.sockets.wait_until_open(0)
    house.stage.reset()


BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "a number": (b"1", 400),
    "null": (b"null", 400),
    "a list": (b"[]", 400),
    "a batch": (b'[{"query": "{ echo }"}]', 400),
    "a string": (b'"{ echo }"', 400),
    "broken JSON": (b'{"query": ', 400),
    "two values": (b'{"query": "{ echo }"} {}', 400),
    "NaN": (b'{"query": "{ echo }", "variables": {"a": NaN}}', 400),
    "infinity": (b'{"query": "{ echo }", "variables": {"a": 1e999}}', 400),
    "an integer of 6,000 digits": (b'{"query": "{ echo }", "variables": {"a": ' + b"9" * 6_000 + b"}}", 400),
    "invalid UTF-8": (b'{"query": "{ echo \xff }"}', 400),
    "a surrogate in UTF-8": (b'{"query": "{ echo }", "variables": {"a": "\xed\xa0\x80"}}', 400),
    "a lone surrogate": (b'{"query": "{ echo }", "variables": {"a": "\\ud800"}}', 400),
    "NUL in a variable": (b'{"query": "{ echo }", "variables": {"a": ["\\u0000"]}}', 400),
    "NUL in a key": (b'{"query": "{ echo }", "variables": {"\\u0000": 1}}', 400),
    "100,000 brackets": (b'{"query": "{ echo }", "variables": ' + b"[" * 100_000, 400),
    "deep objects": (b'{"query": "{ echo }", "variables": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001, 400),
    "a key twice": (b'{"query": "{ echo }", "query": "{ pupil { name } }"}', 400),
    "a key twice, with spaces": (b'{"query" : "{ echo }", "query":"{ pupil { name } }"}', 400),
    "a key twice, and a quote by its number": (
        b'{"query":"{ echo }","query":"{ echo }","variables":{"a":"\\u0022:"}}',
        400,
    ),
    "a key twice, and a colon by its number": (
        b'{"query":"{ echo }","query":"{ echo }","variables":{"a":"\\"\\u003A"}}',
        400,
    ),
    "a key twice, in compact JSON": (b'{"query":"{ echo }","variables":{"a":1,"a":":"}}', 400),
    "a key twice, and a number that is written by none": (
        b'{"query":"{ echo }","query":"{ echo }","variables":{"a":99999999999999999999}}',
        400,
    ),
    "a key twice below": (b'{"query": "{ echo }", "variables": {"a": {"b": 1, "b": 2}}}', 400),
    "no query": (b"{}", 400),
    "an empty query": (b'{"query": ""}', 400),
    "a query that is a number": (b'{"query": 1}', 400),
    "a query that is an object": (b'{"query": {}}', 400),
    "a document id that is a number": (b'{"documentId": 1}', 400),
    "an empty document id": (b'{"documentId": ""}', 400),
    "a document id and a query that is a number": (b'{"query": 1, "documentId": "sha256:00"}', 400),
    "a persisted query without hash": (b'{"extensions": {"persistedQuery": {"version": 1}}}', 400),
    "a persisted query of another version": (
        b'{"extensions": {"persistedQuery": {"version": 2, "sha256Hash": "00"}}}',
        400,
    ),
    "a persisted query that is null": (b'{"query": "{ echo }", "extensions": {"persistedQuery": null}}', 400),
    "a name that is a number": (b'{"query": "{ echo }", "operationName": 1}', 400),
    "variables that are a list": (b'{"query": "{ echo }", "variables": []}', 400),
    "variables that are a string": (b'{"query": "{ echo }", "variables": "{}"}', 400),
    "extensions that are a number": (b'{"query": "{ echo }", "extensions": 1}', 400),
    "300 KiB": (b'{"query": "{ echo }", "variables": {"a": "' + b"x" * 300_000 + b'"}}', 413),
    "5 MiB": (b'{"query": "{ echo }", "variables": {"a": "' + b"x" * 5 * 1024 * 1024 + b'"}}', 413),
}


@pytest.mark.parametrize("accept", ["application/json", RESPONSE_JSON])
async def test_a_bad_body_is_refused_in_words_and_the_next_request_works(toy: Toy, accept: str) -> None:
    for case, (body, status) in BAD_BODIES.items():
        got = await toy.post_raw(body, accept=accept)

        assert got.status_code == status, case
        assert got.headers["content-type"] == f"{accept}; charset=utf-8", case
        error = got.json()["errors"][0]
        assert error["extensions"]["code"] == ("TOO_LARGE" if status == 413 else "BAD_INPUT"), case
        assert "data" not in got.json(), case
    assert (await toy.post("{ echo }")).json() == {"data": {"echo": ""}}


@pytest.mark.feature("003-36")
async def test_a_body_without_length_is_bounded_all_the_same(toy: Toy) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(80):
            yield b" " * 65_536

    headers = {"authorization": f"Bearer {token()}", "content-type": "application/json"}
    got = await toy.http.post("/graphql", content=endless(), headers=headers)

    assert got.status_code == 413
    assert got.json()["errors"][0]["extensions"]["code"] == "TOO_LARGE"


@pytest.mark.feature("003-36")
async def test_recording_in_bulk_alone_may_send_more(toy: Toy) -> None:
    events = [{"eventId": f"{number:0300}"} for number in range(1_000)]
    bulk = "mutation($events: [EventInput!]!) { recordEvents(events: $events) }"
    other = bulk.replace("}", ' rename(name: "x") }')

    assert (await toy.post(bulk, {"events": events})).json() == {"data": {"recordEvents": 1_000}}
    assert (await toy.post(other, {"events": events})).status_code == 413


REQUEST_ERRORS = {
    "{ echo": "GRAPHQL_PARSE_FAILED",
    "{ nope }": "GRAPHQL_VALIDATION_FAILED",
    "query A { echo } query B { echo }": "BAD_INPUT",
    "query($a: DateTime!) { echo(day: $a) }": "BAD_INPUT",
    "{ pupil { said(score: 1e999) } }": "BAD_INPUT",
    "{" + " ".join(f"a{n}: echo" for n in range(31)) + "}": "QUERY_TOO_COMPLEX",
}


async def test_a_request_error_has_a_status_for_new_clients_and_200_for_legacy_ones(toy: Toy) -> None:
    for query, code in REQUEST_ERRORS.items():
        modern = await toy.post(query)
        legacy = await toy.post(query, accept="application/json")

        assert (modern.status_code, legacy.status_code) == (400, 200), query
        assert modern.json() == legacy.json()
        assert modern.json()["errors"][0]["extensions"]["code"] == code
        assert "data" not in modern.json()


async def test_the_edition_of_2026_tells_wrong_documents_and_half_answers_apart_by_status() -> None:
    async with served(status_edition=2026) as toy:
        for query, code in REQUEST_ERRORS.items():
            modern, legacy = await toy.post(query), await toy.post(query, accept="application/json")

            expected = 400 if code == "GRAPHQL_PARSE_FAILED" else 422
            assert (modern.status_code, legacy.status_code) == (expected, 200), query
            assert modern.json() == legacy.json()
        half, whole = await toy.post("{ broken echo }"), await toy.post("{ echo }")
        nothing, legacy = await toy.post("{ broken }"), await toy.post("{ broken }", accept="application/json")
        unread = [(await toy.post_raw(body, accept=RESPONSE_JSON)).status_code for body, _ in BAD_BODIES.values()]

    assert (half.status_code, nothing.status_code, legacy.status_code, whole.status_code) == (294, 294, 200, 200)
    assert unread == [status for _, status in BAD_BODIES.values()]  # a request that cannot be read stays 400


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        (f"{RESPONSE_JSON}, application/json;q=0.9", RESPONSE_JSON),
        ("application/*;q=0.5", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
    ],
)
async def test_the_answer_comes_in_the_type_that_the_client_accepts(toy: Toy, accept: str, expected: str) -> None:
    got = await toy.post("{ echo }", accept=accept)

    assert got.status_code == 200
    assert got.headers["content-type"] == f"{expected}; charset=utf-8"


async def test_a_client_that_accepts_no_json_is_told_so_in_json(toy: Toy) -> None:
    got = await toy.post("{ echo }", accept="text/html")

    assert got.status_code == 406
    assert got.json()["errors"][0]["extensions"]["code"] == "BAD_INPUT"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content-type", "text/plain"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-type", "multipart/form-data; boundary=x"),
        ("content-type", "application/graphql"),
        ("content-type", ""),
        ("content-type", "application/json; charset=latin-1"),
        ("content-encoding", "gzip"),
    ],
)
async def test_a_body_that_a_browser_could_send_unasked_is_refused(toy: Toy, name: str, value: str) -> None:
    got = await toy.post_raw(b'{"query": "mutation { rename(name: \\"x\\") }"}', **{name: value})

    assert got.status_code == 415
    assert got.json()["errors"][0]["extensions"]["code"] == "BAD_INPUT"


@pytest.mark.parametrize("value", ["application/json; charset=utf-8", 'application/json;charset="UTF-8"'])
async def test_the_charset_may_be_named(toy: Toy, value: str) -> None:
    assert (await toy.post_raw(b'{"query": "{ echo }"}', content_type=value)).status_code == 200


@pytest.mark.parametrize("value", [None, "", "Bearer", "Basic eDp5", "Bearer x.y.z", "Bearer " + "x" * 9_000])
async def test_every_operation_needs_a_valid_token(toy: Toy, value: str | None) -> None:
    headers = {"accept": RESPONSE_JSON} | ({} if value is None else {"authorization": value})

    got = await toy.http.post("/graphql", json={"query": "{ __typename }"}, headers=headers)

    assert got.status_code == 401
    assert got.headers["www-authenticate"].startswith('Bearer realm="sightline"')
    assert got.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert "data" not in got.json()


async def test_a_field_of_another_role_is_forbidden_and_empty(toy: Toy) -> None:
    got = await toy.post("{ adminOnly }", roles=(Role.STUDENT,))

    assert got.status_code == 200
    assert got.json()["data"] == {"adminOnly": None}
    assert got.json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def get(toy: Toy, query: str, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await toy.http.get(
        "/graphql", params={"query": query}, headers={"authorization": f"Bearer {token()}", **named}
    )


async def test_get_runs_queries_only(toy: Toy) -> None:
    assert (await get(toy, "{ echo }")).json() == {"data": {"echo": ""}}
    refused = await get(toy, 'mutation { rename(name: "x") }')

    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert (await get(toy, "{ echo }", sec_fetch_site="cross-site")).status_code == 403


async def test_get_runs_no_mutation_of_a_document_that_has_queries_too(toy: Toy) -> None:
    both = 'query Q { echo } mutation M { rename(name: "x") }'
    headers = {"authorization": f"Bearer {token()}"}
    named = [
        await toy.http.get("/graphql", params={"query": both, "operationName": name}, headers=headers) for name in "QM"
    ]

    assert [got.status_code for got in named] == [200, 405]


async def test_get_takes_variables_as_json(toy: Toy) -> None:
    query = "query($t: String!) { echo(text: $t) }"
    headers = {"authorization": f"Bearer {token()}"}
    good = await toy.http.get("/graphql", params={"query": query, "variables": '{"t": "hi"}'}, headers=headers)
    bad = await toy.http.get("/graphql", params={"query": query, "variables": "[1]"}, headers=headers)

    assert good.json() == {"data": {"echo": "hi"}}
    assert bad.status_code == 400


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
async def test_other_methods_are_not_allowed(toy: Toy, method: str) -> None:
    got = await toy.http.request(method, "/graphql")

    assert (got.status_code, got.headers["allow"]) == (405, "GET, POST")


async def test_a_subscription_over_post_is_told_the_way(toy: Toy) -> None:
    got = await toy.post("subscription { ticks }")

    assert got.status_code == 400
    assert "graphql-transport-ws" in got.json()["errors"][0]["message"]


async def test_a_part_that_is_away_is_503_and_worth_a_retry(toy: Toy) -> None:
    got = await toy.post("{ away }")

    assert (got.status_code, got.headers["retry-after"]) == (503, "1")
    assert got.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
    assert (await toy.post("{ away echo }")).status_code == 200  # half an answer is an answer


async def test_a_masked_error_leaves_the_rest_of_the_answer(toy: Toy) -> None:
    got = await toy.post("{ broken echo }")

    assert got.status_code == 200
    assert got.json()["data"] == {"broken": None, "echo": ""}
    assert got.json()["errors"][0]["message"] == "Internal error"


async def test_the_callers_request_id_comes_back_where_it_is_harmless(toy: Toy) -> None:
    kept = await toy.post_raw(b'{"query": "{ echo }"}', x_request_id="abc-1")
    replaced = await toy.post_raw(b"1", x_request_id="a b;<script>")

    assert kept.headers["x-request-id"] == "abc-1"
    assert len(replaced.headers["x-request-id"]) == 32
    assert kept.headers["x-content-type-options"] == "nosniff"


async def test_a_full_house_answers_503_and_recovers() -> None:
    async with served(places=1, wait_seconds_max=0.02) as toy:
        first = asyncio.create_task(toy.post("{ waiting }"))
        await toy.stage.arrived.wait()

        second = await toy.post("{ echo }")
        toy.stage.released.set()

        assert (second.status_code, second.headers["retry-after"]) == (503, "1")
        assert second.json()["errors"][0]["extensions"]["code"] == "OVERLOADED"
        assert (await first).json() == {"data": {"waiting": "done"}}
        assert (await toy.post("{ echo }")).status_code == 200


MISSPELT_MOMENTS = [
    "2026-03-01",
    "2026-03-01T10:00:00",
    "2026-W09-7T10:00:00Z",
    "318857-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "1969-12-31T23:59:59Z",
    "9999-12-31T23:59:59-01:00",
    "2026-02-30T00:00:00Z",
    "\uff12026-03-01T10:00:00Z",
    "2026-03-01T25:00:00Z",
    "2026-03-01T10:00:00+99:00",
    " 2026-03-01T10:00:00Z",
    "",
    5,
    "x" * 100_000,
]
MISSPELT_POSITIONS = [-1, 2**63, True, 1.5, "1e3", " 1", "\uff19", "", "9" * 30]


async def test_moments_days_and_positions_have_one_spelling(toy: Toy) -> None:
    query = "query($d: DateTime, $s: Seq) { echo(day: $d, seq: $s) }"

    good = await toy.post(query, {"d": "2026-03-01T10:00:00.1234567+01:00", "s": "9223372036854775807"})

    assert good.json() == {"data": {"echo": "2026-03-01 09:00:00.123456+00:009223372036854775807"}}
    for value in MISSPELT_MOMENTS:
        got = await toy.post(query, {"d": value})
        assert (got.status_code, got.json()["errors"][0]["extensions"]["code"]) == (400, "BAD_INPUT"), value
    for position in MISSPELT_POSITIONS:
        got = await toy.post(query, {"s": position})
        assert (got.status_code, got.json()["errors"][0]["extensions"]["code"]) == (400, "BAD_INPUT"), position


async def test_text_that_looks_like_a_key_is_not_taken_for_one(toy: Toy) -> None:
    text = 'a": \\ "b": "b":'
    body = msgspec.json.encode({"query": "query($t: String!) { echo(text: $t) }", "variables": {"t": text}})

    assert (await toy.post_raw(body)).json() == {"data": {"echo": text}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = ("query", "variables", "operationName", "extensions", "documentId")
REQUESTS = st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5).map(msgspec.json.encode)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=60) | JSON.map(msgspec.json.encode) | REQUESTS)
async def test_whatever_is_sent_is_answered_in_json_and_never_as_our_fault(toy: Toy, body: bytes) -> None:
    got = await toy.post_raw(body, accept=RESPONSE_JSON)

    assert 400 <= got.status_code < 500
    assert got.json()["errors"][0]["extensions"]["code"] in ("BAD_INPUT", "GRAPHQL_PARSE_FAILED")
