"""Variables decoded at once: each input type of the schema is also a msgspec struct, derived from it and no wider.

What a struct takes, graphql-core and Strawberry take too, with the same outcome. Some of what they take it refuses (an
Int written 1.0, a list of one without brackets, a Float beyond 2^53): the reference executor then reads that request.
"""

from collections.abc import Callable
from dataclasses import MISSING
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
import strawberry
from graphql import (
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLFloat,
    GraphQLID,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLScalarType,
    GraphQLString,
    Undefined,
)
from strawberry.types.base import StrawberryMaybe

from graph.shapes import DEFINITION

UNSET = strawberry.UNSET
INT_MIN, INT_MAX = -(2**31), 2**31 - 1
EXACT_BELOW = 2**53  # a whole number from here on may have no exact float, which graphql-core refuses

Mend: TypeAlias = Callable[[Any], Any]
"""What a decoded value still needs to be what a resolver receives: an ID its text, an enum its member."""
Decode: TypeAlias = Callable[[Any], Any]
"""JSON of one input, as Python objects, to a struct with the attributes of its Strawberry class. Raises Undecodable."""
Field: TypeAlias = tuple[str, Any] | tuple[str, Any, Any]

Plain: TypeAlias = dict[GraphQLScalarType, tuple[Any, Mend | None]]
Input = TypeVar("Input", bound=type)

_NARROW: Plain = {
    GraphQLString: (str, None),
    GraphQLBoolean: (bool, None),
    GraphQLID: (str, None),
    GraphQLInt: (Annotated[int, msgspec.Meta(ge=INT_MIN, le=INT_MAX)], None),
    GraphQLFloat: (Annotated[float, msgspec.Meta(gt=-EXACT_BELOW, lt=EXACT_BELOW)], None),
}
_WIDE: Plain = {**_NARROW, GraphQLID: (str | int, str)}


def decoded_as(value: type[msgspec.Struct]) -> Callable[[Input], Input]:
    """Say which value an input stands for, field by field: it is decoded straight to one.

    Then None is "not sent", and an enum's member is its name.
    """

    def declare(input: Input) -> Input:
        input.__decoded_as__ = value  # type: ignore[attr-defined] # found again by `_derived`
        return input

    return declare


class Undecodable(Exception):
    """The reference executor must read these variables, and says what is wrong with them if anything is."""


class _Unknown(Exception):
    """An input type that is not derived, such as one with defaults or of which only one field may be sent."""


class Decoders:
    """The decoders of one schema's input types, each derived once."""

    def __init__(self) -> None:
        self._narrow, self._wide = Derivation(_NARROW), Derivation(_WIDE)

    def of(self, kind: GraphQLInputType) -> Decode | None:
        """The decoder of an input type; None for one that is not derived.

        Nearly all ids are sent as texts, and then need no look; where one is a number, all is decoded again.
        """
        narrow, wide = self._narrow.of(kind), self._wide.of(kind)
        if narrow is None or wide is None:
            return None

        def decode(sent: Any) -> Any:
            try:
                return narrow(sent)
            except Exception:
                try:
                    return wide(sent)
                except Exception as error:  # of msgspec or of a scalar: both only mean that the other path words it
                    raise Undecodable from error

        return decode


class Derivation:
    """Structs of input types, whose scalars are read as `plain` says."""

    def __init__(self, plain: Plain) -> None:
        self._plain = plain
        self._known: dict[GraphQLInputObjectType, tuple[Any, Mend | None] | None] = {}  # None while it is being derived

    def of(self, kind: GraphQLInputType) -> Decode | None:
        """The decoder of an input type, which raises any exception; None for one that is not derived."""
        try:
            form, mend = self._typed(kind)
        except _Unknown:
            return None

        def decode(sent: Any) -> Any:
            given = msgspec.convert(sent, form)
            return given if mend is None or given is None else mend(given)

        return decode

    def _typed(self, kind: GraphQLInputType) -> tuple[Any, Mend | None]:
        """The type that msgspec checks, and the mend of values that are not null."""
        if not isinstance(kind, GraphQLNonNull):
            form, mend = self._present(kind)
            return form if form is Any else form | None, mend
        form, mend = self._present(kind.of_type)
        if form is Any:  # msgspec would let null pass
            raise _Unknown
        return form, mend

    def _present(self, kind: GraphQLInputType) -> tuple[Any, Mend | None]:
        """The same for a value that is not null."""
        if isinstance(kind, GraphQLList):
            form, mend = self._typed(kind.of_type)
            return list[form], mend and _each(mend)  # type: ignore[valid-type]
        if isinstance(kind, GraphQLInputObjectType):
            return self._object(kind)
        if isinstance(kind, GraphQLEnumType):
            members = {name: kind.coerce_input_value(name) for name in kind.values}
            return Literal[tuple(members)], members.__getitem__
        if isinstance(kind, GraphQLScalarType):
            return self._plain.get(kind) or (Any, kind.coerce_input_value)
        raise _Unknown

    def _object(self, kind: GraphQLInputObjectType) -> tuple[Any, Mend | None]:
        if kind not in self._known:
            definition = kind.extensions.get(DEFINITION)
            if definition is None or definition.is_one_of or definition.from_input is not None:
                raise _Unknown
            self._known[kind] = None
            self._known[kind] = self._derived(kind)
        known = self._known[kind]
        if known is None:  # it holds itself, or was found to be underivable before
            raise _Unknown
        return known

    def _derived(self, kind: GraphQLInputObjectType) -> tuple[Any, Mend | None]:
        value: type[msgspec.Struct] | None = getattr(kind.extensions[DEFINITION].origin, "__decoded_as__", None)
        fields: list[Field] = []
        names: dict[str, str] = {}
        mends: list[tuple[str, Mend]] = []
        for key, field in kind.fields.items():
            name = field.extensions[DEFINITION].python_name
            form, mend = self._typed(field.type)
            default = _default(field)
            if value is not None:
                default = (None,) if default else ()
                mend = None if isinstance(field.type, GraphQLEnumType) else mend
            fields.append((name, form, *default))
            names[name] = key
            if mend:
                mends.append((name, mend))
        form = msgspec.defstruct(
            kind.name,
            fields,
            bases=(value,) if value else None,
            rename=names,
            forbid_unknown_fields=True,
            kw_only=True,
            frozen=False,
            gc=False,
            module=__name__,
        )
        assert value is None or form.__struct_fields__ == value.__struct_fields__, "an input and its value are alike"
        return form, _mending(mends) if mends else None


def _default(field: GraphQLInputField) -> tuple[()] | tuple[Any]:
    """What the resolver sees where the field is not sent; nothing for a field that must be."""
    definition = field.extensions[DEFINITION]
    default = definition.default_value
    if isinstance(definition.type, StrawberryMaybe) or not (default is None or default in (UNSET, MISSING)):
        raise _Unknown
    if isinstance(field.type, GraphQLNonNull):
        if field.default_value is not Undefined or default is not MISSING:
            raise _Unknown
        return ()
    return (UNSET,) if default is UNSET else (None,)


def _mending(mends: list[tuple[str, Mend]]) -> Mend:
    """Mend the fields that need it, in place."""

    def mend(given: Any) -> Any:
        for name, mend_value in mends:
            value = getattr(given, name)
            if value is not None and value is not UNSET:
                setattr(given, name, mend_value(value))
        return given

    return mend


def _each(mend: Mend) -> Mend:
    if mend is str:
        return lambda values: [str(value) if value.__class__ is int else value for value in values]
    return lambda values: [None if value is None else mend(value) for value in values]
