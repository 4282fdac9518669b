"""Pages of one root object read at once: what Postgres answers as JSON, together for all who ask at one moment.

Each is the same data as the resolvers read field by field, for people who may see all of it. Whatever else is selected,
and whoever else asks, is the reference executor's.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from graphql import FieldNode, GraphQLObjectType, get_named_type
from msgspec import Raw

from db.pages import Ask, Found
from db.written import DOUBT, PARTS_MAX, Fields, Objects, Part
from graph.open_values import Doubt, OpenValues, Take, Variables, arguments_of
from graph.request import Context
from graph.shapes import Fragments, Unknown, collected
from rules.access import Role, Scope, Viewer

# A connection keeps the plan of each statement, and aliases make as many statements as a caller likes.
STATEMENT_BYTES_MAX = 12 * 1024
LOGS_MAX = 1  # lists of events in one statement: each is planned over all months of the log, near a megabyte

Judge: TypeAlias = Callable[[Viewer, Ask, Found], bool]
"""Whether all that was found is the viewer's to see, by `rules.access`."""
Describe: TypeAlias = Callable[[OpenValues, FieldNode], Part]
"""What the arguments of a field say, as a part without name and selection. Raises Unknown."""


class Compose(Protocol):
    """`statement_of` of a module of db/."""

    def __call__(self, parts: Sequence[Part], kinds: Sequence[str], *, with_seq: bool) -> str:
        """The statement that writes these parts."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A root object that can be read at once: its fields, those of them that take arguments, and whose it is."""

    fields: Fields
    objects: Objects
    arguments: Mapping[tuple[str, str], Describe]
    compose: Compose
    may_see: Judge
    logs: Collection[tuple[str, str]]  # its fields that read the log of events

    def page_of(
        self,
        kind: GraphQLObjectType,
        nodes: Sequence[FieldNode],
        fragments: Fragments,
        declared: Mapping[str, str],
    ) -> "PageRead | None":
        """The page that merged root fields select; None for a selection that holds more."""
        values = OpenValues(declared)
        try:
            given = arguments_of(nodes[0], "id", "minSeq")
            key, seq_min = values.key(given.get("id")), values.seq_min(given.get("minSeq"))
            parts = _Selection(self, values, fragments).parts(kind, nodes)
        except Unknown:
            return None
        statement = self.compose(parts, values.types, with_seq=seq_min is not None)
        if len(statement) > STATEMENT_BYTES_MAX:
            return None
        return PageRead(key, seq_min, tuple(values.takes), self.may_see, statement)


@dataclass(frozen=True, slots=True)
class PageRead:
    """One compiled selection of a root object."""

    key: Take
    seq_min: Take | None  # the position that must be counted
    open_values: tuple[Callable[[Variables], tuple[Any, ...]], ...]
    may_see: Judge
    statement: str

    async def __call__(self, context: Context, variables: Variables) -> Raw | None:
        """The object as selected; None where the reference executor must say what the viewer may see."""
        viewer = context.viewer
        if viewer.is_integrator_for(Scope.READ) and not viewer.has(Role.ADMIN):
            return None  # a machine that reads sees no names
        try:
            ask = self._ask(viewer, variables)
            seq_min = None if self.seq_min is None else self.seq_min(variables)
        except Doubt:
            return None
        engine = context.engine
        found = await engine.together.read(context.pool, viewer.tenant, self.statement, ask, clock=engine.clock)
        if found is None or found.text is None or not self.may_see(viewer, ask, found) or DOUBT in found.text:
            return None
        if seq_min is not None and (found.seq is None or found.seq < seq_min):
            return None  # it waits there
        return Raw(found.text.encode())

    def _ask(self, viewer: Viewer, variables: Variables) -> Ask:
        roles = viewer.roles
        return Ask(
            key=self.key(variables),
            viewer=viewer.key,
            is_admin=Role.ADMIN in roles,
            as_teacher=Role.TEACHER in roles,
            as_guardian=Role.GUARDIAN in roles,
            as_student=Role.STUDENT in roles,
            values=tuple(value for take in self.open_values for value in take(variables)),
        )


class _Selection:
    """One walk through a selection: which fields of which objects, with which arguments."""

    def __init__(self, subject: Subject, values: OpenValues, fragments: Fragments) -> None:
        self._subject = subject
        self._values = values
        self._fragments = fragments
        self._logs = 0

    def parts(self, kind: GraphQLObjectType, nodes: Sequence[FieldNode]) -> tuple[Part, ...]:
        """What merged fields select of an object. Raises Unknown."""
        return tuple(self._part(kind, key, merging) for key, merging in self._of(kind, nodes))

    def _part(self, kind: GraphQLObjectType, key: str, nodes: Sequence[FieldNode]) -> Part:
        node = nodes[0]
        name = node.name.value
        described = self._described(kind.name, node)
        if name == "__typename" or name in self._subject.fields.get(kind.name, ()):
            return Part(key, name)
        if (kind.name, name) not in self._subject.objects:
            raise Unknown
        self._logs += (kind.name, name) in self._subject.logs
        if self._logs > LOGS_MAX:
            raise Unknown
        inner = _object_of(kind, name)
        parts = self._page(inner, nodes) if described.page else self.parts(inner, nodes)
        return Part(key, name, parts, described.page, described.classroom, described.words, described.is_newest_first)

    def _described(self, kind: str, node: FieldNode) -> Part:
        describe = self._subject.arguments.get((kind, node.name.value))
        if describe is not None:
            return describe(self._values, node)
        arguments_of(node)
        return Part("", node.name.value)

    def _page(self, page: GraphQLObjectType, nodes: Sequence[FieldNode]) -> tuple[Part, ...]:
        """What is selected of a page: its items, and where it begins and ends."""
        return tuple(self._of_page(page, key, merging) for key, merging in self._of(page, nodes))

    def _of(self, kind: GraphQLObjectType, nodes: Sequence[FieldNode]) -> list[tuple[str, list[FieldNode]]]:
        by_key = collected(kind, nodes, self._fragments)
        if len(by_key) > PARTS_MAX:
            raise Unknown
        return list(by_key.items())

    def _of_page(self, page: GraphQLObjectType, key: str, nodes: Sequence[FieldNode]) -> Part:
        name = nodes[0].name.value
        if name == "__typename":
            return Part(key, name)
        inner = _object_of(page, name) if name in ("nodes", "pageInfo") else None
        if inner is None:
            raise Unknown
        if name == "nodes":
            return Part(key, name, self.parts(inner, nodes))
        return Part(key, name, tuple(Part(one, merging[0].name.value) for one, merging in self._of(inner, nodes)))


def _object_of(kind: GraphQLObjectType, name: str) -> GraphQLObjectType:
    inner = get_named_type(kind.fields[name].type)
    assert isinstance(inner, GraphQLObjectType)
    return inner
