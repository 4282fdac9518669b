"""Hostile documents over the wire: each way in answers with the same code, and the next caller does not notice."""

import asyncio
from collections.abc import AsyncIterator
from time import process_time
from typing import Any

import msgspec
import pytest

from graph.documents import Documents
from graph.http import BODY_BYTES_MAX
from tests.graph.hostile import HOSTILE, bomb
from tests.graph.toy import Toy, heard, served, subscribe, tell, token, toy_schema

GET_CHARACTERS_MAX = 8_000  # an address may be longer, but proxies cut it
PAIR_CPU_SECONDS_MAX = 0.5
SURROGATES = {case for case, (text, _) in HOSTILE.items() if any("\ud800" <= letter <= "\udfff" for letter in text)}


@pytest.fixture(scope="module")
async def toy() -> AsyncIterator[Toy]:
    async with served() as running:
        yield running


def code_of(body: Any) -> str | None:
    errors = body.get("errors")
    return str(errors[0]["extensions"]["code"]) if errors else None


async def by_post(toy: Toy, text: str) -> str | None:
    return code_of((await toy.post(text)).json())


async def by_get(toy: Toy, text: str) -> str | None:
    headers = {"authorization": f"Bearer {token()}"}
    return code_of((await toy.http.get("/graphql", params={"query": text}, headers=headers)).json())


async def by_socket(toy: Toy, text: str) -> str | None:
    async with toy.session() as socket:
        await subscribe(socket, "1", text)
        message = await heard(socket)
        found = str(message["payload"][0]["extensions"]["code"]) if message["type"] == "error" else None
        await tell(socket, id="1", type="complete")
        await subscribe(socket, "2", "{ echo }")  # the socket outlives whatever was asked
        while (message := await heard(socket))["id"] != "2":
            pass
        assert message["payload"] == {"data": {"echo": ""}}
    return found


async def by_events(toy: Toy, text: str) -> str | None:
    headers = {"authorization": f"Bearer {token()}", "accept": "text/event-stream"}
    said = (await toy.http.post("/graphql", json={"query": text}, headers=headers)).text
    blocks = [block for block in said.split("\n\n") if block.startswith("event: next")]
    return code_of(msgspec.json.decode(blocks[0].partition("data: ")[2])) if blocks else None


WAYS = {"post": by_post, "get": by_get, "socket": by_socket, "events": by_events}
LIVE_WAYS = {"socket", "events"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.feature("003-36")
async def test_every_way_in_answers_a_hostile_document_with_its_code_while_another_is_served(
    toy: Toy, way: str
) -> None:
    await toy.post("{ echo }")
    for case, (text, expected) in HOSTILE.items():
        if case in SURROGATES or len(text) > (GET_CHARACTERS_MAX if way == "get" else BODY_BYTES_MAX):
            continue
        if way not in LIVE_WAYS and expected is None and text.startswith("subscription"):
            expected = "BAD_INPUT"
        toy.documents._plans.clear()  # each way reads it for itself

        begun = process_time()
        found, other = await asyncio.gather(WAYS[way](toy, text), toy.post("{ echo }"))
        used = process_time() - begun

        assert found == expected, case
        assert other.json() == {"data": {"echo": ""}}, case
        assert used < PAIR_CPU_SECONDS_MAX, case  # client and server, both requests


async def test_a_token_of_a_megabyte_is_refused_before_it_is_read(toy: Toy) -> None:
    text, _ = HOSTILE["a token of a megabyte"]

    posted = await toy.post(text)

    # A body may hold a bulk of events until its document is known, so here the length of the document speaks.
    assert (posted.status_code, code_of(posted.json())) == (400, "QUERY_TOO_COMPLEX")
    async with toy.session() as socket:
        await subscribe(socket, "1", text)
        await socket.wait_closed()
        assert socket.close_code == 4400


VARIABLES = {
    "a deep object": '{"text": ' + '{"a": ' * 900 + "1" + "}" * 900 + "}",
    "a deep list": '{"text": ' + "[" * 900 + "]" * 900 + "}",
    "a list of 50,000": '{"text": [' + "1," * 49_999 + "1]}",
    "10,000 variables that nobody declared": "{" + ",".join(f'"v{n}": 1' for n in range(10_000)) + "}",
    "a number of 300 digits": '{"text": ' + "9" * 300 + "}",
    "a text of 250,000 letters": '{"text": "' + "x" * 250_000 + '"}',
}


@pytest.mark.parametrize("case", VARIABLES)
async def test_hostile_variables_are_told_in_few_words(toy: Toy, case: str) -> None:
    expected = None if "letters" in case or "nobody" in case else "BAD_INPUT"
    query, raw = "query($text: String) { echo(text: $text) }", VARIABLES[case]

    begun = process_time()
    got = await toy.post_raw(b'{"query": "%s", "variables": %s}' % (query.encode(), raw.encode()))
    async with toy.session() as socket:
        await tell(socket, id="1", type="subscribe", payload={"query": query, "variables": msgspec.json.decode(raw)})
        message = await heard(socket)
    used = process_time() - begun

    assert code_of(got.json()) == expected
    assert len(got.content) < (300_000 if expected is None else 4_000)
    assert message["type"] == ("next" if expected is None else "error")
    assert used < PAIR_CPU_SECONDS_MAX


async def test_a_batch_of_operations_is_no_way_around_any_limit(toy: Toy) -> None:
    for batch in (b'[{"query": "{ echo }"}, {"query": "{ echo }"}]', b"[" + b'{"query": "{ echo }"},' * 500 + b"1]"):
        got = await toy.post_raw(batch, accept="application/graphql-response+json")

        assert (got.status_code, code_of(got.json())) == (400, "BAD_INPUT")


def test_the_work_for_a_bomb_grows_with_its_text_and_not_with_its_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: how many selections the guard looks at for 2^20 and for 2^40 fields."""
    from graph.complexity import _Meter
    from graph.refusal import Refused

    looked, real = [0], _Meter.of_selections

    def counting(meter: _Meter, selections: Any) -> Any:
        looked[0] += 1
        return real(meter, selections)

    monkeypatch.setattr(_Meter, "of_selections", counting)
    documents, work = Documents(toy_schema()), {}
    for levels in (20, 40, 79):
        looked[0] = 0
        with pytest.raises(Refused):
            documents.plan(bomb(levels), None)
        work[levels] = looked[0]

    assert work == {20: 24, 40: 44, 79: 83}
