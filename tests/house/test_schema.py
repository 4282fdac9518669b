"""The schema as a stranger meets it: committed, described, and with one access rule for each operation."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    get_named_type,
    get_nullable_type,
    is_introspection_type,
    is_specified_scalar_type,
)

from graph import nodes
from graph.access import core_of, rule_of, undeclared_fields
from graph.schema import schema, sdl
from rules.access import FIELD_ROLES, INTEGRATOR_SCOPES, Role, Scope

ROOT = Path(__file__).parents[2]
CORE = core_of(schema)
ROOTS = {"Query": CORE.query_type, "Mutation": CORE.mutation_type, "Subscription": CORE.subscription_type}
# The objects behind these root fields have operations of their own, written `root.field`.
SUBJECTS = {
    "viewer": "Viewer",
    "student": "Student",
    "classroom": "Classroom",
    "school": "School",
    "ingestion": "Ingestion",
    "tenant": "Tenant",
}
EVERYONE = frozenset(Role)
# Lines of the Operations index that rules.access does not repeat; a machine needs any scope for its own tenant.
UNLISTED = {
    "tenant": EVERYONE,
    "ingestion.deadLetters": frozenset({Role.ADMIN, Role.INTEGRATOR}),
    "ingestion.waitingCorrections": frozenset({Role.ADMIN, Role.INTEGRATOR}),
}
LISTED = {**UNLISTED, **FIELD_ROLES}
# Lists that cannot grow without a bound: everything else is a connection.
BOUNDED_LISTS = {
    "AtRiskStudent.flags",  # one for each reason
    "Backlog.lanes",  # one for each lane
    "Concept.prerequisites",  # 50 at most
    "DriftReport.differences",  # 50 of each kind at most
    "JobOutcome.differences",  # 50 of each kind at most
    "Query.nodes",  # as many as asked for, 100 at most
    "ExcuseAssignmentPayload.results",  # one for each student, 1,000 at most
    "ReopenAssignmentPayload.results",
    "StudentTrends.snapshots",  # one for each of 90 days at most
    "RecordEventsPayload.results",  # as many as sent, 1,000 at most
    "RiskEvidence.events",
    "RiskEvidence.items",  # 20 of a state at most
    "RiskEvidence.numbers",  # one for each name
    "StudentMastery.mastery",  # the concepts of a class, at most 200
}
# An `id` that is a fact of the log (UUIDv7), not an object to fetch again.
ID_OF_THE_LOG = {"LearningEvent", "IngestedEvent", "RecordedEvent"}
# They have a `key` and no `id`: each is the asker's own, so nothing needs to be named to fetch it again.
KEY_WITHOUT_NODE = {"Tenant", "Viewer", "RiskItem"}


def own_types() -> list[object]:
    """Every type that we named."""
    types = CORE.type_map.values()
    return [kind for kind in types if not (is_introspection_type(kind) or is_specified_scalar_type(kind))]


def objects() -> list[GraphQLObjectType]:
    return [kind for kind in own_types() if isinstance(kind, GraphQLObjectType)]


def described() -> Iterator[tuple[str, str | None]]:
    """The coordinate and description of everything that can carry one."""
    for kind in own_types():
        name, about = kind.name, kind.description  # type: ignore[attr-defined] # every type has both
        yield name, about
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for field_name, field in kind.fields.items():
                yield f"{name}.{field_name}", field.description
                yield from ((f"{name}.{field_name}({arg}:)", has.description) for arg, has in field.args.items())
        elif isinstance(kind, GraphQLInputObjectType):
            yield from ((f"{name}.{part}", has.description) for part, has in kind.fields.items())
        elif isinstance(kind, GraphQLEnumType):
            yield from ((f"{name}.{value}", has.description) for value, has in kind.values.items())


def plain(kind: object) -> str:
    """A type's name, as `[String!]!`."""
    return str(kind)


def is_list(field: GraphQLField) -> bool:
    return isinstance(get_nullable_type(field.type), GraphQLList)


def is_object(field: GraphQLField) -> bool:
    return isinstance(get_named_type(field.type), GraphQLObjectType | GraphQLInterfaceType)


def operations() -> Iterator[tuple[str, GraphQLField, str]]:
    """Root fields, and those fields of their objects that take arguments or open a list: (name, field, its root)."""
    for root in ROOTS.values():
        assert root is not None
        yield from ((name, field, name) for name, field in root.fields.items())
    for root_name, type_name in SUBJECTS.items():
        kind = CORE.type_map[type_name]
        assert isinstance(kind, GraphQLObjectType)
        for name, field in kind.fields.items():
            if field.args or rule_of(field) is not None or f"{root_name}.{name}" in LISTED:
                yield f"{root_name}.{name}", field, root_name


@pytest.mark.feature("002-11")
def test_the_committed_schema_is_what_the_code_says() -> None:
    committed = (ROOT / "schema.graphql").read_text()

    assert committed == sdl(), "schema.graphql is stale: run make schema"


def test_every_type_field_argument_and_value_is_described() -> None:
    silent = [name for name, about in described() if not (about or "").strip()]

    assert silent == []


def test_a_description_is_whole_sentences() -> None:
    ragged = [name for name, about in described() if about and not (about[0].isupper() or about[0] in "`0123456789")]
    ragged += [name for name, about in described() if about and about.rstrip()[-1] not in ".)"]

    assert ragged == []


def test_no_root_field_is_without_an_access_rule() -> None:
    assert undeclared_fields(schema) == []


def test_each_operation_lets_in_whom_the_rules_say() -> None:
    found: dict[str, object] = {}
    expected: dict[str, object] = {}
    for name, field, root in operations():
        rule = rule_of(field)
        if rule is None:  # whoever may use its root may use it
            found[name], expected[name] = LISTED[root], LISTED.get(name, LISTED[root])
            continue
        roles = LISTED.get(name, frozenset())
        machines = INTEGRATOR_SCOPES.get(name, frozenset(Scope)) if Role.INTEGRATOR in roles else frozenset()
        found[name] = (rule.roles | ({Role.INTEGRATOR} if rule.scopes else set()), rule.scopes)
        expected[name] = (roles, machines)

    assert found == expected


def test_rules_and_schema_name_the_same_operations() -> None:
    names = {name for name, _field, _root in operations()}
    unruled = {name for name, field, _root in operations() if name not in LISTED and "." not in name}

    assert FIELD_ROLES.keys() - names == set()
    assert unruled == set()


@pytest.mark.feature("003-58")
def test_every_list_that_can_grow_is_a_connection_with_a_bounded_page() -> None:
    lists, connections = set(), {}
    for kind in objects():
        is_page = kind.name.endswith("Connection")
        for name, field in kind.fields.items():
            if is_list(field) and is_object(field) and not is_page and name != "errors":
                lists.add(f"{kind.name}.{name}")
            if get_named_type(field.type).name.endswith("Connection"):
                page = (page_argument(field.args, "first"), page_argument(field.args, "after"))
                connections[f"{kind.name}.{name}"] = page

    assert lists == BOUNDED_LISTS
    assert connections
    assert set(connections.values()) == {(("Int!", 20), ("String", None))}


def page_argument(arguments: dict[str, GraphQLArgument], name: str) -> tuple[str, object]:
    return plain(arguments[name].type), arguments[name].default_value


def test_every_connection_has_the_same_shape() -> None:
    for kind in objects():
        if not kind.name.endswith("Connection"):
            continue
        item = kind.name.removesuffix("Connection")
        edge = CORE.type_map[f"{item}Edge"]
        assert isinstance(edge, GraphQLObjectType)

        assert {name: plain(field.type) for name, field in kind.fields.items()} == {
            "edges": f"[{item}Edge!]!",
            "nodes": f"[{item}!]!",
            "pageInfo": "PageInfo!",
        }
        assert {name: plain(field.type) for name, field in edge.fields.items()} == {
            "cursor": "String!",
            "node": f"{item}!",
        }


def test_every_mutation_takes_one_input_and_answers_a_payload_with_typed_errors() -> None:
    mutation = CORE.mutation_type
    assert mutation is not None
    for name, field in mutation.fields.items():
        stem = name[0].upper() + name[1:]
        assert {arg: plain(has.type) for arg, has in field.args.items()} == {"input": f"{stem}Input!"}
        assert plain(field.type) == f"{stem}Payload!"
        payload = get_named_type(field.type)
        assert isinstance(payload, GraphQLObjectType)
        errors = payload.fields["errors"].type
        error = get_named_type(errors)
        assert isinstance(error, GraphQLObjectType)
        assert plain(errors) == f"[{error.name}!]!"

        shown = {part: plain(has.type) for part, has in error.fields.items()}
        code = get_named_type(error.fields["code"].type)
        assert shown == {"code": f"{code.name}!", "field": "[String!]", "message": "String!"}
        assert isinstance(code, GraphQLEnumType)


def test_root_fields_of_queries_may_be_null_so_that_one_refusal_blanks_no_page() -> None:
    query = CORE.query_type
    assert query is not None

    assert [name for name, field in query.fields.items() if isinstance(field.type, GraphQLNonNull)] == []


def test_what_can_be_fetched_again_is_a_node() -> None:
    nodes_known = set(nodes._loaders)
    implementing = {kind.name for kind in objects() if any(face.name == "Node" for face in kind.interfaces)}
    with_id = {kind.name for kind in objects() if "id" in kind.fields}
    with_key = {kind.name for kind in objects() if "key" in kind.fields}

    assert implementing == nodes_known
    assert with_id - implementing == ID_OF_THE_LOG
    assert with_key - implementing == KEY_WITHOUT_NODE


@pytest.mark.feature("X-29")
def test_every_message_of_a_subscription_carries_its_place_and_its_freshness() -> None:
    subscription = CORE.subscription_type
    assert subscription is not None
    for field in subscription.fields.values():
        message = get_named_type(field.type)
        assert isinstance(message, GraphQLObjectType)
        assert {"resumeToken", "asOf", "kind"} <= message.fields.keys()
        assert "after" in field.args


@pytest.mark.feature("X-22")
def test_what_can_be_waited_for_says_how_fresh_it_is() -> None:
    query = CORE.query_type
    assert query is not None
    waiting = {name for name, field in query.fields.items() if "minSeq" in field.args}

    assert waiting == {"viewer", "student", "classroom", "school"}
    for name in waiting:
        kind = get_named_type(query.fields[name].type)
        assert isinstance(kind, GraphQLObjectType)
        assert {"asOf", "lagMs"} <= kind.fields.keys()
