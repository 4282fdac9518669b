"""What a bench tells is what it measured: limits, tenths, spells, and documents that the schema takes."""

import pytest
from graphql import build_schema, parse, validate

from tests.bench import backlog, outage
from tests.bench.figures import PROJECT, bound, claim, holds, machine
from tests.bench.orders import MIX, READS, RECORD_EVENT, RECORD_EVENTS, SUBSCRIPTIONS, Seen


def test_a_claim_holds_up_to_its_limit_and_from_its_least_on() -> None:
    at_most = [claim("wait", value, unit="ms", limit=100.0) for value in (99.9, 100.0, 100.1)]
    at_least = [claim("ratio", value, least=0.8) for value in (0.79, 0.8, 0.81)]

    assert [holds(one) for one in at_most] == [True, True, False]
    assert [holds(one) for one in at_least] == [False, True, True]
    assert [bound(one) for one in (at_most[0], at_least[0], claim("told", 7))] == ["≤ 100 ms", "≥ 0.8", ""]
    assert holds(claim("told", 7))


def test_the_tenths_of_a_backlog_that_slows_down_say_so() -> None:
    looks = [(0.0, 100), (1.0, 600), (6.0, 1_100)]  # 500 rows in a second, then 500 in five

    assert backlog._tenths(looks, 1_100) == [500] * 5 + [100] * 5


def test_a_wait_belongs_to_the_spell_in_which_it_was_due_and_the_warm_up_to_none() -> None:
    seen = Seen(started=0.0, ended=9.0, waits=[(0.5, 9.0), (1.0, 0.1), (2.9, 0.2), (3.0, 0.3), (7.5, 0.4)])

    assert outage._by_spell(seen, [1.0, 3.0, 5.0, 7.0]) == {
        "up": [0.1, 0.2],
        "frozen": [0.3],
        "up again": [],
        "gone": [0.4],
    }


def test_a_mix_is_four_reads_for_each_event_each_kind_as_often_as_the_others() -> None:
    assert {kind: MIX.count(kind) for kind in set(MIX)} == {"recordEvent": 3, **dict.fromkeys(READS, 4)}


def test_settings_that_are_tried_are_told_beside_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "settings" not in machine("18")

    monkeypatch.setenv("BENCH_SETTINGS", "WORKER_CONCURRENCY=2 LOG_LEVEL=ERROR")

    assert machine("18")["settings"] == "WORKER_CONCURRENCY=2 LOG_LEVEL=ERROR"


@pytest.mark.parametrize("document", [RECORD_EVENT, RECORD_EVENTS, *READS.values(), *SUBSCRIPTIONS.values()])
def test_the_schema_takes_what_the_benches_send(document: str) -> None:
    schema = build_schema((PROJECT / "schema.graphql").read_text())

    assert validate(schema, parse(document)) == []
