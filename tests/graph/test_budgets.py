"""Budgets: each viewer may ask for so much at once and so much a second, over HTTP and sockets alike."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from graph import budgets as graph_budgets
from graph.budgets import Bucket, Budgets
from graph.refusal import ErrorCode, Refused
from rules.access import Role, Scope, Viewer
from tests.graph.toy import NOW, Toy, heard, served, subscribe, viewer


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
async def toy(hand: Hand) -> AsyncIterator[Toy]:
    async with served(budgets=Budgets(clock=hand)) as running:
        yield running


def machine(key: str = "lms", tenant: int = 1) -> Viewer:
    return Viewer(tenant, key, frozenset({Role.INTEGRATOR}), NOW, scopes=frozenset({Scope.INGEST}))


def spend(budgets: Budgets, who: Viewer, **amounts: int) -> dict[str, Any]:
    return budgets.spend(who, **{"points": 0, "fields": 0, "events": 0, **amounts})


def limited(budgets: Budgets, who: Viewer, **amounts: int) -> dict[str, Any]:
    with pytest.raises(Refused) as refused:
        spend(budgets, who, **amounts)
    assert refused.value.code == ErrorCode.RATE_LIMITED
    return refused.value.extensions


@pytest.mark.feature("003-32", "C9")
def test_a_person_has_a_hundred_root_fields_a_minute_and_gets_them_back_evenly(hand: Hand) -> None:
    budgets, who = Budgets(clock=hand), viewer()

    for _ in range(50):
        spend(budgets, who, fields=2)

    assert limited(budgets, who, fields=1) == {"limit": "root fields", "retryAfterSeconds": 1}
    assert limited(budgets, who, fields=10) == {"limit": "root fields", "retryAfterSeconds": 6}
    hand.seconds += 6.01
    spend(budgets, who, fields=10)
    assert limited(budgets, who, fields=1)["limit"] == "root fields"
    hand.seconds += 3_600
    spend(budgets, who, fields=100)  # never more than a full bucket
    assert limited(budgets, who, fields=1)["limit"] == "root fields"


@pytest.mark.feature("003-32", "C9")
def test_a_person_may_tell_a_thousand_events_a_minute_and_machines_share_their_tenants(hand: Hand) -> None:
    budgets, who = Budgets(clock=hand), viewer()

    spend(budgets, who, events=1_000)
    for _ in range(10):
        spend(budgets, machine("lms"), events=1_000)

    assert limited(budgets, who, events=1) == {"limit": "events", "retryAfterSeconds": 1}
    assert limited(budgets, machine("quiz"), events=1_000) == {"limit": "events", "retryAfterSeconds": 1}
    spend(budgets, machine("lms", tenant=2), events=1_000)
    hand.seconds += 0.1
    spend(budgets, machine("quiz"), events=1_000)


def test_what_is_refused_charges_nothing(hand: Hand) -> None:
    budgets, who = Budgets(clock=hand), viewer()
    spend(budgets, who, points=1, fields=99, events=999)

    limited(budgets, who, points=5_000, fields=1, events=2)

    assert spend(budgets, who, points=0, fields=1, events=1) == {
        "requested": 0, "throttle": {"max": 10_000, "available": 9_999, "restoreRate": 200}}  # fmt: skip


def test_two_viewers_and_two_tenants_have_budgets_of_their_own(hand: Hand) -> None:
    budgets, who = Budgets(clock=hand), viewer()
    spend(budgets, who, points=10_000)

    assert limited(budgets, who, points=400) == {
        "limit": "points",
        "retryAfterSeconds": 2,
        "cost": {"requested": 400, "throttle": {"max": 10_000, "available": 0, "restoreRate": 200}},
    }
    for other in (Viewer(1, "t2", who.roles, NOW), Viewer(2, who.key, who.roles, NOW)):
        spend(budgets, other, points=10_000)


def test_wrong_documents_are_charged_into_debt_and_then_not_read(hand: Hand) -> None:
    budgets, who = Budgets(clock=hand), viewer()

    for _ in range(41):
        budgets.refuse_debtors(who)
        budgets.charge_wrong_document(who)

    with pytest.raises(Refused) as refused:
        budgets.refuse_debtors(who)
    assert refused.value.extensions["retryAfterSeconds"] == 2
    hand.seconds += 2
    budgets.refuse_debtors(who)


def test_debts_end_at_one_bucket_and_memory_at_its_limit(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_budgets, "KEYS_MAX", 100)
    bucket = Bucket("points", most=10, a_second=1.0)

    for _ in range(50):
        bucket.take((0, "deep"), 10, hand())
    for number in range(1, 500):
        bucket.take((number, "x"), 1, hand())

    assert bucket.left((0, "deep"), hand()) == -10
    assert len(bucket._full_at) <= 100
    hand.seconds += 60
    assert bucket.left((0, "deep"), hand()) == 10


async def test_every_answer_tells_its_cost_and_what_is_left(toy: Toy) -> None:
    got = await toy.post("{ pupil { friend { name } } }")
    refused = await toy.post("{ refused }")

    assert got.json() == {
        "data": {"pupil": {"friend": {"name": "Grace"}}},
        "extensions": {"cost": {"requested": 2, "throttle": {"max": 10_000, "available": 9_998, "restoreRate": 200}}},
    }
    assert refused.json()["extensions"]["cost"]["requested"] == 0


@pytest.mark.feature("003-32", "C9")
@pytest.mark.parametrize("accept", ["application/json", "application/graphql-response+json"])
async def test_over_the_limit_the_answer_is_429_with_the_time_to_wait(toy: Toy, hand: Hand, accept: str) -> None:
    aliases = "{" + " ".join(f"a{n}: echo" for n in range(25)) + "}"
    for _ in range(4):
        assert (await toy.post(aliases)).status_code == 200

    refused = await toy.post(aliases, accept=accept)

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "15")
    assert refused.json()["errors"][0]["extensions"] == {
        "code": "RATE_LIMITED", "limit": "root fields", "retryAfterSeconds": 15}  # fmt: skip
    assert "data" not in refused.json()
    hand.seconds += 15
    assert (await toy.post(aliases)).status_code == 200


async def test_over_a_socket_the_same_budget_is_spent_and_the_socket_lives(toy: Toy, hand: Hand) -> None:
    aliases = "{" + " ".join(f"a{n}: echo" for n in range(25)) + "}"
    for _ in range(4):
        await toy.post(aliases)

    async with toy.session() as socket:
        await subscribe(socket, "1", "subscription { ticks(upto: 1) }")
        refused = await heard(socket)
        hand.seconds += 1
        await subscribe(socket, "2", "{ echo }")
        answered = await heard(socket)

    assert (refused["type"], refused["payload"][0]["extensions"]["code"]) == ("error", "RATE_LIMITED")
    assert answered["payload"]["extensions"]["cost"]["requested"] == 0


async def test_an_event_stream_spends_the_same_budget(toy: Toy) -> None:
    aliases = "{" + " ".join(f"a{n}: echo" for n in range(25)) + "}"
    for _ in range(4):
        await toy.post(aliases)

    refused = await toy.post("subscription { ticks(upto: 1) }", accept="text/event-stream")

    assert '"code":"RATE_LIMITED"' in refused.text


async def test_a_viewer_in_debt_is_refused_before_the_document_is_read(toy: Toy) -> None:
    for _ in range(41):
        assert (await toy.post("{ nope }")).status_code == 400

    assert (await toy.post("{ nope }")).status_code == 429
    assert (await toy.post("{ echo }")).status_code == 429
    assert (await toy.post("{ echo }", roles=(Role.ADMIN,))).status_code == 429  # the viewer, whatever the role


async def test_without_budgets_an_answer_has_no_extensions() -> None:
    async with served() as toy:
        assert (await toy.post("{ echo }")).json() == {"data": {"echo": ""}}
