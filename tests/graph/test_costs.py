"""Costs: the price of an operation is known before it runs, and what is dear may not be multiplied."""

from pathlib import Path
from typing import Any

import pytest
from graphql import GraphQLInterfaceType, GraphQLObjectType, get_introspection_query

from graph.access import core_of
from graph.costs import EVENTS, WEIGHTS, table_markdown
from graph.documents import Documents
from graph.gate import Gate
from graph.recording import EVENTS_MAX as BATCH_MAX
from graph.refusal import ErrorCode, Refused
from graph.schema import schema
from tests.graph.toy import viewer

ROOT = Path(__file__).parents[2]
DOCUMENTS = Documents(schema)
DASHBOARD = (Path(__file__).parent / "class_dashboard.graphql").read_text()
GRID = """query($n: Int!) { classroom(id: "7b") { riskFlags(first: $n) {
  nodes { student { key mastery(first: $n) { nodes { concept { key } score } } } } } } }"""

PRICES: dict[str, tuple[str, dict[str, Any], int]] = {
    "a scalar is free": ("{ tenant { key } }", {}, 1),
    "a page of twenty, as by default": ('{ classroom(id: "7b") { roster { nodes { personId } } } }', {}, 1 + 1 + 20),
    "a page of a literal size": ('{ classroom(id: "7b") { roster(first: 3) { nodes { personId } } } }', {}, 5),
    "nodes and edges are paid for each": (
        '{ classroom(id: "7b") { roster(first: 3) { nodes { personId } edges { node { personId } } } } }', {}, 8),
    "what belongs to the page is paid once": (
        '{ classroom(id: "7b") { roster(first: 3) { pageInfo { endCursor } } } }', {}, 3),
    "a page whose size is a variable": (GRID, {"n": 30}, 1 + 1 + 30 * (1 + 1 + 1 + 30 * 2)),
    "a variable out of range is paid as the field would serve it": (GRID, {"n": 10**9}, 2 + 200 * (3 + 200 * 2)),
    "a variable of another type is paid as the default": (GRID, {"n": "x"}, 2 + 20 * (3 + 20 * 2)),
    "a variable with a default": (
        'query($n: Int! = 7) { classroom(id: "7b") { roster(first: $n) { nodes { personId } } } }', {}, 9),
    "a fragment on a page": (
        '{ classroom(id: "7b") { roster(first: 9) { ...P } } } fragment P on EnrollmentConnection { nodes { role } }',
        {}, 11),
    "ids are counted": ("query($ids: [ID!]!) { nodes(ids: $ids) { id } }", {"ids": ["a", "b", "c"]}, 3),
    "literal ids are counted": ('{ nodes(ids: ["a", "b"]) { id } }', {}, 2),
    "a short list counts as five": (
        '{ classroom(id: "7b") { dashboard { atRisk(first: 2) { nodes { flags { reason } } } } } }', {}, 12 + 2 * 6),
    "a row of a heat map is paid whole": (
        '{ classroom(id: "7b") { mastery(first: 30) { nodes { studentId mastery { score } } } } }', {}, 2 + 30 * 3),
    "aliases are paid each": ("{ a: tenant { key } b: tenant { key } }", {}, 2),
    "an event": (
        "mutation($input: RecordEventInput!) { recordEvent(input: $input) { event { id } errors { code } } }", {}, 1),
    "any mutation": ("mutation($input: SaveSchoolInput!) { saveSchool(input: $input) { errors { code } } }", {}, 15),
    "introspection": (get_introspection_query(), {}, 100),
    "what nobody resolves is free": ("{ __typename }", {}, 0),
}  # fmt: skip


@pytest.mark.parametrize("case", PRICES)
@pytest.mark.feature("003-36")
def test_the_price_is_weights_times_page_sizes(case: str) -> None:
    text, variables, points = PRICES[case]

    assert DOCUMENTS.plan(text, None).bill.price.of(variables) == points


EVENT = '{eventId: "e", studentId: "s"}'
TOLD: dict[str, tuple[str, dict[str, Any], int]] = {
    "one": ("mutation($input: RecordEventInput!) { recordEvent(input: $input) { seq } }", {}, 1),
    "a batch in a variable": (
        "mutation($i: RecordEventsInput!) { recordEvents(input: $i) { seq } }", {"i": {"events": [{}] * 500}}, 500),
    "a batch whose list is a variable": (
        "mutation($e: [RecordEventInput!]!) { recordEvents(input: {events: $e}) { seq } }", {"e": [{}] * 7}, 7),
    "a batch in the text": (f"mutation {{ recordEvents(input: {{events: [{EVENT}, {EVENT}]}}) {{ seq }} }}", {}, 2),
    "more than a batch may hold": (
        "mutation($i: RecordEventsInput!) { recordEvents(input: $i) { seq } }", {"i": {"events": [{}] * 5_000}}, 1_000),
    "a batch that is no object": (
        "mutation($i: RecordEventsInput!) { recordEvents(input: $i) { seq } }", {"i": 1}, 1),
    "two under aliases": (
        f"mutation {{ a: recordEvent(input: {EVENT}) {{ seq }} b: recordEvent(input: {EVENT}) {{ seq }} }}", {}, 2),
    "the roster": ("mutation($input: SaveSchoolInput!) { saveSchool(input: $input) { errors { code } } }", {}, 0),
    "a query": ("{ tenant { key } }", {}, 0),
}  # fmt: skip


@pytest.mark.parametrize("case", TOLD)
def test_events_are_counted_as_they_are_told(case: str) -> None:
    text, variables, events = TOLD[case]

    assert DOCUMENTS.plan(text, None).bill.events.of(variables) == events


def test_root_fields_are_counted_by_alias_and_introspection_is_none() -> None:
    text = """{ ...R a: tenant { key } tenant { key } __typename __schema { types { name } } }
    fragment R on Query { tenant { key } b: service { status } }"""

    assert DOCUMENTS.plan(text, None).bill.fields == 3


ONCE = sorted(name for name, weight in WEIGHTS.items() if weight.is_once)


def test_what_is_dear_or_long_may_stand_once_whatever_its_aliases() -> None:
    mutation = core_of(schema).mutation_type
    assert mutation is not None
    assert ONCE
    for coordinate in ONCE:
        name = coordinate.removeprefix("Mutation.")
        kind = mutation.fields[name].args["input"].type
        call = f"{name}(input: $i) {{ errors {{ code }} }}"
        text = f"mutation($i: {kind}) {{ a: {call} ...F }} fragment F on Mutation {{ b: {call} }}"

        with pytest.raises(Refused) as refused:
            DOCUMENTS.plan(text, None)

        assert refused.value.code == ErrorCode.QUERY_TOO_COMPLEX
        assert f"'{name}'" in refused.value.message
        assert DOCUMENTS.plan(f"mutation($i: {kind}) {{ {call} }}", None).bill.fields == 1


@pytest.mark.feature("003-36")
def test_an_operation_over_the_limit_is_refused_with_its_price() -> None:
    gate, plan = Gate(), DOCUMENTS.plan(GRID, None)

    assert gate.charge(plan, {"n": 60}, viewer()) is None
    with pytest.raises(Refused) as refused:
        gate.charge(plan, {"n": 80}, viewer())

    assert refused.value.code == ErrorCode.QUERY_TOO_COMPLEX
    assert refused.value.extensions == {"cost": {"requested": 13_042, "max": 10_000}}


def test_every_weight_is_of_a_field_that_exists() -> None:
    core = core_of(schema)
    known = {
        f"{kind.name}.{name}"
        for kind in core.type_map.values()
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)
        for name in kind.fields
    } | {"Query.__schema", "Query.__type"}

    assert WEIGHTS.keys() - known == set()
    assert {f"Mutation.{name}" for name in EVENTS} - known == set()


def test_mutations_that_may_stand_twice_do_not_read_or_write_in_bulk() -> None:
    """Whoever adds a mutation with a list of work in its input decides here what it costs."""
    mutation = core_of(schema).mutation_type
    assert mutation is not None
    in_bulk = {
        f"Mutation.{name}"
        for name, field in mutation.fields.items()
        for part in field.args["input"].type.of_type.fields.values()
        if str(part.type).startswith("[")
    }

    assert in_bulk - WEIGHTS.keys() - SHORT_LISTS == set()


# Lists of keys that belong to one thing.
SHORT_LISTS = {"Mutation.recordEvent", "Mutation.saveAssignment"}


def test_the_table_of_weights_is_that_of_the_code() -> None:
    told = (ROOT / "docs" / "costs.md").read_text()

    between = told.partition("<!-- weights -->\n")[2].partition("<!-- end of weights -->")[0]
    assert between == table_markdown()
    assert BATCH_MAX == 1_000
