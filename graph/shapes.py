"""Shapes: a selection of plain attributes, compiled once into one function from an object to what the client reads."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from math import isfinite
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias, TypeVar

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLField,
    GraphQLFloat,
    GraphQLID,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    GraphQLString,
    InlineFragmentNode,
    SelectionNode,
)

DEFINITION = "strawberry-definition"
INT_MAX = 2**31 - 1
PLAIN = frozenset({str, int, float, bool, datetime, date, dict, list})  # neither awaitable nor an exception

Shape: TypeAlias = Callable[[Any], dict[str, Any] | None]
"""What the client reads of an object; None where only the reference executor can say, such as a null out of place."""
Fragments: TypeAlias = Mapping[str, FragmentDefinitionNode]
_Write: TypeAlias = Callable[[Any], Any]


class _Part(NamedTuple):
    key: str
    name: str  # of the attribute; "" where it is none
    read: Callable[[Any], Any]
    write: _Write
    is_required: bool


Standing = TypeVar("Standing", bound=type)


def standing_in_for(kind: type) -> Callable[[Standing], Standing]:
    """Say that a class has the attributes of an output type, made only where somebody asks for them.

    An attribute of the class itself is the same for all: it is written once.
    """

    def declare(stand_in: Standing) -> Standing:
        kind.__stand_in__ = stand_in  # type: ignore[attr-defined] # found again by `_object`
        return stand_in

    return declare


class Unknown(Exception):
    """The selection asks for something else than plain attributes."""


class _Unshaped(Exception):
    """This value is none that a shape writes."""


def shape_of(kind: GraphQLOutputType, nodes: Sequence[FieldNode], fragments: Fragments) -> Shape | None:
    """The shape of the fields' selections, which merge, over one object type; None where one is not plain."""
    inner = kind.of_type if isinstance(kind, GraphQLNonNull) else kind
    if not isinstance(inner, GraphQLObjectType):
        return None
    try:
        write = _object(inner, nodes, fragments)
    except Unknown:
        return None

    def shape(source: Any) -> dict[str, Any] | None:
        try:
            shown: dict[str, Any] = write(source)
        except Exception:  # whatever is wrong with the object, the reference executor finds it again and words it
            return None
        return shown

    return shape


def _object(kind: GraphQLObjectType, nodes: Sequence[FieldNode], fragments: Fragments) -> _Write:
    definition = kind.extensions.get(DEFINITION)
    if definition is None or definition.is_type_of or definition.concrete_of:
        raise Unknown
    parts = [_part(kind, key, merging, fragments) for key, merging in collected(kind, nodes, fragments).items()]
    expected, stand_in = definition.origin, getattr(definition.origin, "__stand_in__", None)
    write_stand_in = _stand_in(stand_in, parts) if stand_in else None

    def write(source: Any) -> dict[str, Any]:
        if source.__class__ is expected:
            return _written(source, parts)
        if write_stand_in is not None and source.__class__ is stand_in:
            return write_stand_in(source)
        raise _Unshaped

    return write


def _written(source: Any, parts: Sequence[_Part]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for key, _, read, write_value, is_required in parts:
        value = read(source)
        if value is not None:
            shown[key] = write_value(value)
        elif is_required:
            raise _Unshaped
        else:
            shown[key] = None
    return shown


def _stand_in(kind: type, parts: Sequence[_Part]) -> Callable[[Any], dict[str, Any]]:
    """Writes what stands in for an object; what all of its class have alike is written now."""
    said = {name: value for name, value in vars(kind).items() if not hasattr(value, "__get__")}
    alike = [part for part in parts if not part.name or part.name in said]
    fixed, open_parts = _written(kind, alike), [part for part in parts if part not in alike]
    if not open_parts:
        return lambda _source: fixed
    order = dict.fromkeys(part.key for part in parts) | fixed
    return lambda source: order | _written(source, open_parts)


def collected(kind: GraphQLObjectType, nodes: Sequence[FieldNode], fragments: Fragments) -> dict[str, list[FieldNode]]:
    """What fields that merge select of an object, by response name. Raises Unknown."""
    by_key: dict[str, list[FieldNode]] = {}
    for node in nodes:
        _collect(kind, node.selection_set.selections if node.selection_set else (), fragments, by_key, set())
    return by_key


def _collect(
    kind: GraphQLObjectType,
    selections: Sequence[SelectionNode],
    fragments: Fragments,
    by_key: dict[str, list[FieldNode]],
    spread: set[str],
) -> None:
    """Gather the fields by response name, in the order of their first mention, as the specification's CollectFields."""
    names = {kind.name, *(interface.name for interface in kind.interfaces)}
    for node in selections:
        if node.directives:
            raise Unknown
        if isinstance(node, FieldNode):
            by_key.setdefault((node.alias or node.name).value, []).append(node)
            continue
        if isinstance(node, FragmentSpreadNode):
            if node.name.value in spread:
                continue
            spread.add(node.name.value)
            fragment: FragmentDefinitionNode | InlineFragmentNode = fragments[node.name.value]
        elif isinstance(node, InlineFragmentNode):
            fragment = node
        condition = fragment.type_condition
        if fragment.directives or (condition and condition.name.value not in names):
            raise Unknown
        _collect(kind, fragment.selection_set.selections, fragments, by_key, spread)


def _part(kind: GraphQLObjectType, key: str, nodes: Sequence[FieldNode], fragments: Fragments) -> _Part:
    name = nodes[0].name.value
    if name == "__typename":
        return _Part(key, "", lambda _: kind.name, lambda value: value, is_required=True)
    field = kind.fields.get(name)
    if field is None or field.args:
        raise Unknown
    is_required = isinstance(field.type, GraphQLNonNull)
    attribute, read = _reader(field)
    return _Part(key, attribute, read, _writer(field.type, nodes, fragments), is_required=is_required)


def _reader(field: GraphQLField) -> tuple[str, Callable[[Any], Any]]:
    """How the value is read: an attribute by its name, or a method of the object alone; it must change nothing."""
    definition = field.extensions.get(DEFINITION)
    if definition is None or definition.extensions or "access_guarded" in field.extensions:
        raise Unknown
    if getattr(field.resolve, "_is_default", False) and definition.default_resolver is getattr:
        return definition.python_name, attrgetter(definition.python_name)
    resolver = definition.base_resolver
    if resolver is None or resolver.is_async or not resolver.self_parameter or len(resolver.signature.parameters) != 1:
        raise Unknown
    method: Callable[[Any], Any] = resolver.wrapped_func
    return method.__name__, method


def _writer(kind: GraphQLOutputType, nodes: Sequence[FieldNode], fragments: Fragments) -> _Write:
    if isinstance(kind, GraphQLNonNull):
        kind = kind.of_type
    if isinstance(kind, GraphQLList):
        return _list(kind.of_type, nodes, fragments)
    if isinstance(kind, GraphQLObjectType):
        return _object(kind, nodes, fragments)
    if isinstance(kind, GraphQLEnumType):
        return _enum(kind)
    if isinstance(kind, GraphQLScalarType):
        return _SCALARS.get(kind) or _custom(kind)
    raise Unknown


def _list(kind: GraphQLOutputType, nodes: Sequence[FieldNode], fragments: Fragments) -> _Write:
    write_item = _writer(kind, nodes, fragments)
    is_required = isinstance(kind, GraphQLNonNull)

    def write(value: Any) -> list[Any]:
        if value.__class__ is not list and value.__class__ is not tuple:
            raise _Unshaped
        if is_required and None in value:
            raise _Unshaped
        return [None if item is None else write_item(item) for item in value]

    return write


def _enum(kind: GraphQLEnumType) -> _Write:
    members = getattr(kind, "wrapped_cls", None)
    if members is None:
        raise Unknown
    names = {member: kind.coerce_output_value(member) for member in members}

    def write(value: Any) -> str:
        if value.__class__ is not members:
            raise _Unshaped
        return names[value]

    return write


def _custom(kind: GraphQLScalarType) -> _Write:
    serialize = kind.coerce_output_value

    def write(value: Any) -> Any:
        if value.__class__ not in PLAIN:
            raise _Unshaped
        shown = serialize(value)
        if shown is None:
            raise _Unshaped
        return shown

    return write


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Unshaped
    return value


def _whole(value: Any) -> int:
    if value.__class__ is not int or not -INT_MAX <= value <= INT_MAX:
        raise _Unshaped
    return int(value)


def _number(value: Any) -> float:
    if value.__class__ is float and isfinite(value):
        return float(value)
    if value.__class__ is int:
        return float(GraphQLFloat.coerce_output_value(value))
    raise _Unshaped


def _flag(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise _Unshaped


# Only what is of the very class is written here; graphql-core converts more, and is asked where that is needed.
_SCALARS: dict[GraphQLScalarType, _Write] = {
    GraphQLString: _text,
    GraphQLID: _text,
    GraphQLInt: _whole,
    GraphQLFloat: _number,
    GraphQLBoolean: _flag,
}
