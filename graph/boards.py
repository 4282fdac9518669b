"""A class by concepts read at once: the selections of a class that Postgres answers as JSON, in one statement.

It is the same data as `graph.classrooms`, `graph.class_mastery` and `graph.students` read field by field, for those who
may see all of it: the teachers of the class and admins. Whatever else is selected, and whoever else asks, is theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphql import FieldNode, GraphQLObjectType, IntValueNode, ValueNode, VariableNode, get_named_type
from msgspec import Raw

from db.boards import FIELDS, OBJECTS, PAGES, BoardAsk, read_board, statement_of
from db.pool import tenant_transaction
from db.written import DOUBT, PARTS_MAX, Part
from graph.class_mastery import CONCEPTS_MAX
from graph.connections import FIRST_DEFAULT, FIRST_MAX
from graph.request import Context
from graph.shapes import Fragments, Unknown, collected
from rules.access import Role, Viewer, may_read_classroom, may_read_student, may_subscribe_dashboard


@dataclass(frozen=True, slots=True)
class BoardRead:
    """One compiled selection of `classroom(id: $variable)`."""

    variable: str
    statement: str
    students_max: int
    concepts_max: int

    async def __call__(self, context: Context, variables: Mapping[str, Any]) -> Raw | None:
        """The class as selected; None where the reference executor must say what the viewer may see."""
        id = variables.get(self.variable)
        if id.__class__ is not str:
            return None
        viewer, now = context.viewer, context.now
        ask = BoardAsk(id, viewer.key, viewer.has(Role.ADMIN), self.students_max, self.concepts_max)
        async with tenant_transaction(context.pool, viewer.tenant, read_only=True) as connection:
            found = await read_board(connection, viewer.tenant, self.statement, ask, now=now)
        if (
            found is None
            or found.text is None
            or not may_see_class(viewer, is_teacher=found.is_teacher, is_enrolled=found.is_enrolled)
            or DOUBT in found.text
        ):
            return None
        return Raw(found.text.encode())


def may_see_class(viewer: Viewer, *, is_teacher: bool, is_enrolled: bool) -> bool:
    """Whether all of a class is the viewer's to see: its staff fields, names, and every student in it today."""
    return (
        may_read_classroom(viewer, is_teacher=is_teacher, is_enrolled=is_enrolled, field_for_staff=True)
        and may_subscribe_dashboard(viewer, is_taught=is_teacher)
        and may_read_student(viewer, "", is_linked=False, is_taught=is_teacher)  # any student of the class
    )


def board_of(
    kind: GraphQLObjectType, nodes: Sequence[FieldNode], fragments: Fragments, declared: Mapping[str, str]
) -> BoardRead | None:
    """The board that merged `classroom` fields select; None for a selection that holds more, or no roster."""
    try:
        read = _Reading(fragments).board(kind, nodes)
    except Unknown:
        return None
    return read if declared == {read.variable: "ID!"} else None


class _Reading:
    """One walk through a selection, and what its arguments say."""

    def __init__(self, fragments: Fragments) -> None:
        self._fragments = fragments
        self._variable: str | None = None
        self._limits: dict[str, int] = {}

    def board(self, kind: GraphQLObjectType, nodes: Sequence[FieldNode]) -> BoardRead:
        argument = _arguments(nodes[0], {"id"}).get("id")
        if not isinstance(argument, VariableNode):
            raise Unknown
        self._variable = argument.name.value
        parts = self._parts(kind, nodes)
        if "students" not in self._limits:  # a class without them is a few fields: nothing is won
            raise Unknown
        statement, students_max = statement_of(parts), self._limits["students"]
        return BoardRead(self._variable, statement, students_max, self._limits.get("concepts", FIRST_DEFAULT))

    def _parts(self, kind: GraphQLObjectType, nodes: Sequence[FieldNode]) -> tuple[Part, ...]:
        by_key = collected(kind, nodes, self._fragments)
        if len(by_key) > PARTS_MAX:
            raise Unknown
        return tuple(self._part(kind, key, merging) for key, merging in by_key.items())

    def _part(self, kind: GraphQLObjectType, key: str, nodes: Sequence[FieldNode]) -> Part:
        name = nodes[0].name.value
        if name == "__typename" or name in FIELDS[kind.name]:
            return Part(key, name)
        if (kind.name, name) not in OBJECTS:
            raise Unknown
        inner = _object_of(kind, name)
        if (kind.name, name) in PAGES:
            self._page(kind.name, nodes[0])
            return Part(key, name, self._nodes(inner, nodes))
        if kind.name == "StudentMastery":
            self._limit("concepts", CONCEPTS_MAX)
        return Part(key, name, self._parts(inner, nodes))

    def _page(self, kind: str, node: FieldNode) -> None:
        """Note how long the page is, and that it is of this class."""
        is_of_student = kind == "Student"
        given = _arguments(node, {"first", "classroomId"} if is_of_student else {"first"})
        if is_of_student and not self._is_this_class(given.get("classroomId")):
            raise Unknown
        first = given.get("first")
        limit = FIRST_DEFAULT if first is None else int(first.value) if isinstance(first, IntValueNode) else 0
        self._limit("concepts" if is_of_student else "students", limit)

    def _limit(self, what: str, limit: int) -> None:
        """A statement has one limit of each; two pages could differ in it."""
        if what in self._limits or not 1 <= limit <= FIRST_MAX:
            raise Unknown
        self._limits[what] = limit

    def _is_this_class(self, value: ValueNode | None) -> bool:
        return isinstance(value, VariableNode) and value.name.value == self._variable

    def _nodes(self, page: GraphQLObjectType, nodes: Sequence[FieldNode]) -> tuple[Part, ...]:
        """The items of a page, where nothing but them is selected."""
        by_key = collected(page, nodes, self._fragments)
        key, merging = next(iter(by_key.items()))
        if len(by_key) > 1 or merging[0].name.value != "nodes":
            raise Unknown
        return (Part(key, "nodes", self._parts(_object_of(page, "nodes"), merging)),)


def _object_of(kind: GraphQLObjectType, name: str) -> GraphQLObjectType:
    inner = get_named_type(kind.fields[name].type)
    assert isinstance(inner, GraphQLObjectType)
    return inner


def _arguments(node: FieldNode, known: set[str]) -> Mapping[str, ValueNode]:
    """The arguments by name, where all are known. Raises Unknown."""
    given = {argument.name.value: argument.value for argument in node.arguments or ()}
    if not given.keys() <= known:
        raise Unknown
    return given
