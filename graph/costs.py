"""What an operation costs: fixed weights of its fields times the sizes of its pages, known before anything is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLCompositeType,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_composite_type,
)

from graph.complexity import too_complex
from graph.connections import FIRST_DEFAULT, FIRST_MAX

COST_MAX = 10_000  # of one operation (003-36)
LIST_ITEMS = 5  # assumed of a list without pages: such lists are short by nature
IDS_MAX = 100  # of `nodes`
EVENTS_MAX = 1_000  # of `recordEvents`; more are refused
ITEMS = frozenset({"nodes", "edges"})  # what a page holds as often as it is long


@dataclass(frozen=True, slots=True)
class Weight:
    """What one field costs beside its selection. `is_whole`: its selection is in the weight already."""

    points: int
    is_once: bool = False  # may stand once in an operation, under whatever alias
    is_whole: bool = False
    items: int = LIST_ITEMS  # of a list without pages


OBJECT, SCALAR, MUTATION, SUBSCRIPTION = Weight(1), Weight(0), Weight(10), Weight(10)
# Whatever is not listed costs what it is: an object 1, a scalar 0, a mutation or subscription 10.
WEIGHTS: Mapping[str, Weight] = {
    # Events have limits of their own (graph/budgets.py), so telling them costs next to nothing here.
    "Mutation.recordEvent": Weight(1, is_whole=True),
    "Mutation.voidEvent": Weight(1, is_whole=True),
    "Mutation.recordEvents": Weight(1, is_once=True, is_whole=True),
    # They touch many rows, or begin long work.
    "Mutation.excuseAssignment": Weight(200, is_once=True, is_whole=True),
    "Mutation.reopenAssignment": Weight(200, is_once=True, is_whole=True),
    "Mutation.saveCatalog": Weight(200, is_once=True),
    "Mutation.updateClassroomPolicy": Weight(100, is_once=True),
    "Mutation.replayDeadLetters": Weight(200, is_once=True),
    "Mutation.discardDeadLetters": Weight(200, is_once=True),
    "Mutation.recompute": Weight(1_000, is_once=True),
    "Mutation.verifyProjection": Weight(1_000, is_once=True),
    # Several statements each, whatever is selected.
    "Classroom.dashboard": Weight(10),
    "Query.ingestion": Weight(10),
    # A row of a heat map: one statement reads all rows of a page, and a class of 1,255 is seven pages.
    "StudentMastery.mastery": Weight(2, is_whole=True),
    # No data, but a long answer.
    "Query.__schema": Weight(100, is_whole=True),
    "Query.__type": Weight(20, is_whole=True),
}
# What tells events: one, or as many as a list of the input is long.
EVENTS: Mapping[str, str | None] = {
    "recordEvent": None,
    "recordEvents": "events",
    "voidEvent": None,
    "regradeSubmission": None,
    "excuseAssignment": None,
    "reopenAssignment": None,
}


@dataclass(frozen=True, slots=True)
class Size:
    """How many items a variable asks for: its number, or the length of its list (under a key of it)."""

    variable: str
    default: int
    most: int
    key: str | None = None

    def of(self, variables: Mapping[str, Any]) -> int:
        """Never more than the field would serve: a number out of range is refused by the field, in better words."""
        value = variables.get(self.variable)
        if self.key is not None:
            value = value.get(self.key) if isinstance(value, dict) else None
        if isinstance(value, list):
            value = len(value)
        return min(max(value, 1), self.most) if isinstance(value, int) else self.default


@dataclass(frozen=True, slots=True)
class Price:
    """A sum: a fixed part, and parts that are as many as a variable says."""

    fixed: int = 0
    paged: tuple[tuple[Size | int, "Price"], ...] = ()

    def of(self, variables: Mapping[str, Any]) -> int:
        """The price with these variables."""
        total = self.fixed
        for size, each in self.paged:
            total += (size if isinstance(size, int) else size.of(variables)) * each.of(variables)
        return total

    def plus(self, other: "Price") -> "Price":
        """Both."""
        return Price(self.fixed + other.fixed, self.paged + other.paged) if other.paged else self.more(other.fixed)

    def more(self, points: int) -> "Price":
        """A bit dearer."""
        return Price(self.fixed + points, self.paged) if points else self

    def times(self, size: Size | int) -> "Price":
        """As often as `size` says."""
        if isinstance(size, int) and not self.paged:
            return Price(self.fixed * size)
        return Price(0, ((size, self),)) if self.fixed or self.paged else self


@dataclass(frozen=True, slots=True)
class Bill:
    """What one operation is charged, but for what its variables decide."""

    price: Price = field(default_factory=Price)
    fields: int = 0  # root fields, each alias counted
    events: Price = field(default_factory=Price)


def billed(schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode) -> Bill:
    """Price a valid operation. Raises Refused where a field stands more often than it may."""
    root = schema.get_root_type(operation.operation)
    assert root is not None, "a valid operation has a root"
    fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
    roots = _roots(operation.selection_set, fragments)
    counts: dict[str, int] = {}
    for node in roots.values():
        counts[node.name.value] = counts.get(node.name.value, 0) + 1
    for name, count in counts.items():
        if count > 1 and _weight(root, name, root.fields[name]).is_once:
            raise too_complex(f"fields '{name}'", 1)
    pricing = _Pricing(schema, fragments, _defaults(operation))
    once, each = pricing.of_selections(operation.selection_set, root)
    assert each == Price(), "no root is a page"
    events = Price()
    if operation.operation is OperationType.MUTATION:
        for node in roots.values():
            events = events.plus(pricing.events_of(node))
    return Bill(once, len(roots), events)


def _roots(selections: SelectionSetNode, fragments: Mapping[str, FragmentDefinitionNode]) -> dict[str, FieldNode]:
    """The fields of the root by response name, introspection left out: it reads no data."""
    found: dict[str, FieldNode] = {}
    waiting, seen = [selections], set[str]()
    while waiting:
        for selection in waiting.pop().selections:
            if isinstance(selection, FieldNode):
                if not selection.name.value.startswith("__"):
                    found[(selection.alias or selection.name).value] = selection
            elif isinstance(selection, InlineFragmentNode):
                waiting.append(selection.selection_set)
            elif isinstance(selection, FragmentSpreadNode) and selection.name.value not in seen:
                seen.add(selection.name.value)
                waiting.append(fragments[selection.name.value].selection_set)
    return found


def _defaults(operation: OperationDefinitionNode) -> dict[str, ValueNode]:
    definitions = operation.variable_definitions or ()
    return {d.variable.name.value: d.default_value for d in definitions if d.default_value is not None}


Pair = tuple[Price, Price]  # what a selection costs once, and for each item of the page it is of


@dataclass(slots=True)
class _Pricing:
    schema: GraphQLSchema
    fragments: Mapping[str, FragmentDefinitionNode]
    defaults: Mapping[str, ValueNode]
    known: dict[str, Pair] = field(default_factory=dict)  # each fragment is priced once, however often it is spread

    def of_selections(self, selections: SelectionSetNode, parent: GraphQLCompositeType) -> Pair:
        once, each = Price(), Price()
        for selection in selections.selections:
            if isinstance(selection, FieldNode):
                price = self._of_field(selection, parent)
                is_item = parent.name.endswith("Connection") and selection.name.value in ITEMS
                more, per_item = (Price(), price) if is_item else (price, Price())
            elif isinstance(selection, InlineFragmentNode):
                more, per_item = self.of_selections(selection.selection_set, self._type(selection) or parent)
            else:
                assert isinstance(selection, FragmentSpreadNode), "there is no other selection"
                more, per_item = self._of_fragment(selection.name.value)
            once, each = once.plus(more), each.plus(per_item)
        return once, each

    def events_of(self, node: FieldNode) -> Price:
        """How many events a root field of a mutation tells."""
        name, value = EVENTS.get(node.name.value, ""), _argument(node, "input")
        size = self._length(value, name, EVENTS_MAX) if name and value else None
        return Price(int(name != "")) if size is None else Price(1).times(size)

    def _of_fragment(self, name: str) -> Pair:
        if name not in self.known:
            fragment = self.fragments[name]
            kind = self._type(fragment)
            assert kind is not None, "a valid fragment is of a type"
            self.known[name] = self.of_selections(fragment.selection_set, kind)
        return self.known[name]

    def _type(self, node: InlineFragmentNode | FragmentDefinitionNode) -> GraphQLCompositeType | None:
        kind = self.schema.type_map[node.type_condition.name.value] if node.type_condition else None
        return kind if is_composite_type(kind) else None

    def _of_field(self, node: FieldNode, parent: GraphQLCompositeType) -> Price:
        name = node.name.value
        if name.startswith("__") or not isinstance(parent, GraphQLObjectType | GraphQLInterfaceType):
            return Price(WEIGHTS.get(f"{parent.name}.{name}", SCALAR).points)
        definition = parent.fields[name]
        kind, weight = get_named_type(definition.type), _weight(parent, name, definition)
        if node.selection_set is None or weight.is_whole:
            return Price(weight.points)
        assert is_composite_type(kind), "only composite types have selections"
        once, each = self.of_selections(node.selection_set, kind)
        if kind.name.endswith("Connection"):
            return once.plus(each.times(self._first(node, definition))).more(weight.points)
        whole = once.more(weight.points)
        is_list = isinstance(get_nullable_type(definition.type), GraphQLList)
        if not is_list or (name in ITEMS and parent.name.endswith("Connection")):
            return whole
        return whole.times(self._items(node, weight))

    def _first(self, node: FieldNode, definition: GraphQLField) -> Size | int:
        value = _argument(node, "first")
        if isinstance(value, VariableNode):
            default = self.defaults.get(value.name.value)
            return Size(value.name.value, _page(default), FIRST_MAX)
        return _page(value)

    def _items(self, node: FieldNode, weight: Weight) -> Size | int:
        ids = _argument(node, "ids")
        size = self._length(ids, None, IDS_MAX) if ids else None
        return weight.items if size is None else size

    def _length(self, value: ValueNode, key: str | None, most: int) -> Size | int | None:
        """How long a list is that stands as this value, or under the key of it."""
        if isinstance(value, VariableNode):
            return Size(value.name.value, 1, most, key)
        if isinstance(value, ListValueNode):
            return max(1, len(value.values))
        if key is not None and isinstance(value, ObjectValueNode):
            inner = next((f.value for f in value.fields if f.name.value == key), None)
            return self._length(inner, None, most) if inner else None
        return None


def _argument(node: FieldNode, name: str) -> ValueNode | None:
    return next((one.value for one in node.arguments or () if one.name.value == name), None)


def _page(value: ValueNode | None) -> int:
    """The size of a page whose `first` is a literal, clamped as `Size` does it."""
    return min(max(int(value.value), 1), FIRST_MAX) if isinstance(value, IntValueNode) else FIRST_DEFAULT


def _weight(parent: GraphQLCompositeType, name: str, definition: GraphQLField) -> Weight:
    listed = WEIGHTS.get(f"{parent.name}.{name}")
    if listed:
        return listed
    if parent.name in ("Mutation", "Subscription"):
        return MUTATION if parent.name == "Mutation" else SUBSCRIPTION
    is_object = is_composite_type(get_named_type(definition.type)) and not parent.name.endswith("Edge")
    return OBJECT if is_object else SCALAR  # an edge and its node are one object


def table_markdown() -> str:
    """The weights that differ from the rule, as the table of docs/costs.md."""
    lines = ["| Field | Points | Once in an operation | Selection included | Items |", "|---|---|---|---|---|"]
    for name, weight in sorted(WEIGHTS.items()):
        once, whole = ("yes" if fact else "" for fact in (weight.is_once, weight.is_whole))
        items = str(weight.items) if weight.items != LIST_ITEMS else ""
        lines.append(f"| `{name}` | {weight.points:,} | {once} | {whole} | {items} |")
    return "\n".join(lines) + "\n"
