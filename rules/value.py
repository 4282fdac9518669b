"""A value that is made once for each event: as frozen as a dataclass, and made in a tenth of its time."""

from dataclasses import Field, fields, make_dataclass
from functools import cache
from typing import Any, ClassVar

from msgspec import Struct


class _Fields:
    """The fields of a value's class as those of a dataclass, so that `dataclasses.replace` and `fields` take it."""

    def __get__(self, value: "Value | None", kind: type["Value"]) -> dict[str, Field[Any]]:
        return _fields_of(kind)


@cache  # one entry a class
def _fields_of(kind: type["Value"]) -> dict[str, Field[Any]]:
    return {field.name: field for field in fields(make_dataclass(kind.__name__, kind.__struct_fields__))}


class Value(Struct, frozen=True, gc=False):
    """What an event is on its way, and what a fold makes of it: equal by its fields, hashable where they are.

    A frozen dataclass sets each field through a Python call, which was a fifth of what an event cost; a struct is
    filled by C. No value may hold itself: the garbage collector does not look into it.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]] = _Fields()  # type: ignore[assignment] # read, never set
