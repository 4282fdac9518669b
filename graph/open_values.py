"""What a compiled document leaves open: the values that come with each request, taken from its variables.

Only what the reference executor would take, with the same outcome, is taken; every doubt is its own.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from graphql import FieldNode, GraphQLError, IntValueNode, NullValueNode, StringValueNode, ValueNode, VariableNode

from db.written import Given, Order, Page
from graph.connections import FIRST_DEFAULT, FIRST_MAX, Keyset
from graph.refusal import Refused
from graph.scalars import read_seq
from graph.shapes import Unknown

Variables: TypeAlias = Mapping[str, Any]
Take: TypeAlias = Callable[[Variables], Any]
"""Takes one value from the variables of a request. Raises Doubt."""
Arguments: TypeAlias = Mapping[str, ValueNode]


class Doubt(Exception):
    """The reference executor must say what these variables mean."""


def arguments_of(node: FieldNode, *known: str) -> Arguments:
    """The arguments by name, without nulls, where all are known. Raises Unknown."""
    given = {argument.name.value: argument.value for argument in node.arguments or ()}
    if not given.keys() <= set(known):
        raise Unknown
    return given


class OpenValues:
    """The values that a document leaves open, as columns of its statement; `declared` has the type of each variable."""

    def __init__(self, declared: Mapping[str, str]) -> None:
        self._declared = declared
        self.takes: list[Callable[[Variables], tuple[Any, ...]]] = []
        self.types: list[str] = []

    def key(self, value: ValueNode | None) -> Take:
        """The key of what is asked for. Raises Unknown."""
        return self._text(value, "ID!")

    def seq_min(self, value: ValueNode | None) -> Take | None:
        """The position that must be counted; None where the document names none. Raises Unknown."""
        if value is None or isinstance(value, NullValueNode):
            return None
        name, is_required = self._variable(value, "Seq")

        def take(variables: Variables) -> int | None:
            given = _given(variables, name, is_required=is_required)
            try:
                return None if given is None else int(read_seq(given))
            except GraphQLError:
                raise Doubt from None

        return take

    def page(self, arguments: Arguments, keyset: Keyset, order: Order) -> Page:
        """Which page `first` and `after` ask for. Raises Unknown."""
        assert keyset.name == order.name
        return Page(self._first(arguments.get("first")), self._after(arguments.get("after"), keyset, order))

    def classroom(self, value: ValueNode | None) -> Given | None:
        """The class that an optional argument names; "" where it is null. Raises Unknown."""
        if value is None or isinstance(value, NullValueNode):
            return None
        if isinstance(value, VariableNode) and self._declared.get(value.name.value) == "ID":
            name = value.name.value
            return self._open("text", lambda variables: _named(variables.get(name)))
        take = self._text(value, "ID!")
        return self._open("text", lambda variables: _named(take(variables)))

    def _text(self, value: ValueNode | None, kind: str) -> Take:
        if isinstance(value, StringValueNode):
            text = value.value
            return lambda _variables: text
        name, _ = self._variable(value, kind)
        return lambda variables: _of_class(str, variables.get(name))

    def _first(self, value: ValueNode | None) -> int | Given:
        if value is None:
            return FIRST_DEFAULT
        if isinstance(value, IntValueNode):
            if not 1 <= int(value.value) <= FIRST_MAX:
                raise Unknown
            return int(value.value)
        name, is_required = self._variable(value, "Int")

        def take(variables: Variables) -> int:
            if name not in variables and not is_required:
                return FIRST_DEFAULT
            first: int = _of_class(int, variables.get(name))
            if not 1 <= first <= FIRST_MAX:
                raise Doubt
            return first

        return self._open("int4", take)

    def _after(self, value: ValueNode | None, keyset: Keyset, order: Order) -> tuple[Given, ...]:
        if value is None or isinstance(value, NullValueNode):
            return ()
        name, is_required = self._variable(value, "String")

        def take(variables: Variables) -> tuple[Any, ...]:
            given = _given(variables, name, is_required=is_required)
            if given is None:
                return (False, *order.beginning)
            try:
                place = keyset.read(_of_class(str, given))
            except Refused:
                raise Doubt from None
            assert place is not None
            return (True, *place)

        first = len(self.types)
        self.types += ["bool", *order.types]
        self.takes.append(take)
        return tuple(Given(column) for column in range(first, len(self.types)))

    def _open(self, kind: str, take: Take) -> Given:
        self.types.append(kind)
        self.takes.append(lambda variables: (take(variables),))
        return Given(len(self.types) - 1)

    def _variable(self, value: ValueNode | None, kind: str) -> tuple[str, bool]:
        """The name of a variable of this type, and whether it must have a value. Raises Unknown."""
        declared = self._declared.get(value.name.value) if isinstance(value, VariableNode) else None
        if declared is None or declared.rstrip("!") != kind.rstrip("!") or (kind.endswith("!") and declared != kind):
            raise Unknown
        assert isinstance(value, VariableNode)
        return value.name.value, declared.endswith("!")


def _given(variables: Variables, name: str, *, is_required: bool) -> Any:
    given = variables.get(name)
    if given is None and is_required:
        raise Doubt
    return given


def _of_class(kind: type, value: Any) -> Any:
    if value.__class__ is not kind:
        raise Doubt
    return value


def _named(value: Any) -> str:
    """A class by key: none at all is "", and a key of no letters is not the same in every field."""
    if value is None:
        return ""
    if value.__class__ is not str or not value:
        raise Doubt
    return str(value)
