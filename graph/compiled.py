"""Known shapes of operations: decoded, told and written without walking graphql-core; all others fall back to it.

Every doubt is the reference executor's: variables that do not decode, a viewer whom the field's rule refuses, an error,
a value that no shape writes. So there is one place that words errors, and what is compiled can only be right or slow.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    VariableNode,
    get_named_type,
    print_ast,
)
from msgspec import Raw

from db.evidence import Answer
from graph.access import Rule, resolver_of, rule_of
from graph.decoding import Decode, Decoders, Undecodable
from graph.request import Context
from graph.shapes import Fragments, Shape, shape_of
from rules.evidence import Submission

Tell: TypeAlias = Callable[[Context, Any], Awaitable[Any]]
Replay: TypeAlias = Callable[..., Any]
"""A middleware of graphql-core that answers the root field with what came of it already."""

Resolver = TypeVar("Resolver", bound=Callable[..., Any])


class Read(Protocol):
    """A selection that is read at once; None is answered by the reference executor."""

    async def __call__(self, context: Context, variables: Mapping[str, Any], /) -> Raw | None:
        """The JSON of the root field. Whose it is to see is decided here."""


CompileRead: TypeAlias = Callable[[GraphQLObjectType, Sequence[FieldNode], Fragments, Mapping[str, str]], Read | None]
"""Compiles merged root fields of a document whose variables, none with a default, are of these types."""


def read_at_once(*compile_read: CompileRead) -> Callable[[Resolver], Resolver]:
    """Say which selections of a query's field can be read at once: the first that compiles is taken."""

    def declare(resolver: Resolver) -> Resolver:
        resolver.__dict__["read_at_once"] = compile_read
        return resolver

    return declare


class Begun(NamedTuple):
    """A mutation that waits for nothing but the log."""

    submissions: Sequence[Submission]  # none: there is nothing to store, and `finish` takes no answers
    finish: Callable[
        [Sequence[Answer] | Exception], Any
    ]  # from the log's answers to the payload; raises as `tell` does


Begin: TypeAlias = Callable[[Context, Any], Begun | None]
"""What `tell` does before it waits for the log, where it waits for nothing else; None otherwise. It changes nothing."""


def straight(tell: Tell, begin: Begin | None = None) -> Callable[[Resolver], Resolver]:
    """Say what a mutation's resolver does, as a function of the context and its one input: all that it does."""

    def declare(resolver: Resolver) -> Resolver:
        resolver.__dict__["straight"] = tell
        resolver.__dict__["begin"] = begin
        return resolver

    return declare


@dataclass(slots=True)
class Tally:
    """How many answers each path gave."""

    compiled: int = 0
    reference: int = 0


@dataclass(frozen=True, slots=True)
class Mutation:
    """One mutation of one input, which is a variable, answered by plain attributes."""

    key: str
    variable: str
    rule: Rule
    decode: Decode
    tell: Tell
    shape: Shape
    begin: Begin | None = None

    def begun(self, variables: dict[str, Any], context: Context) -> Begun | None:
        """The mutation up to where it waits for the log; None where `run` must say, nothing having been told."""
        if self.begin is None or not self.rule.admits(context.viewer):
            return None
        try:
            return self.begin(context, self.given(variables))
        except Exception:  # whatever it is, `run` meets it again, where it is worded
            return None

    async def run(self, variables: dict[str, Any], context: Context) -> dict[str, Any] | Replay | None:
        """The data of the answer; None before anything was told, or else how the reference executor ends it."""
        if not self.rule.admits(context.viewer):
            return None
        try:
            given = self.given(variables)
        except Undecodable:
            return None
        try:
            payload = await self.tell(context, given)
        except Exception as error:  # worded, or masked and logged, where every error of a resolver is
            return replay_of(error)
        shown = self.shown(payload)
        return replay_of(payload) if shown is None else {self.key: shown}

    def given(self, variables: dict[str, Any]) -> Any:
        """The input as the resolver's function takes it. Raises Undecodable."""
        return self.decode(variables.get(self.variable))

    def shown(self, payload: Any) -> dict[str, Any] | None:
        """The payload as the client reads it, where its shape fits."""
        return self.shape(payload)


@dataclass(frozen=True, slots=True)
class Query:
    """One query whose root field is read at once."""

    key: str
    rule: Rule
    read: Read

    async def run(self, variables: dict[str, Any], context: Context) -> dict[str, Any] | Replay | None:
        """The data of the answer; None where the reference executor must read it, or how it must end it."""
        if not self.rule.admits(context.viewer):
            return None
        try:
            shown = await self.read(context, variables)
        except Exception as error:  # worded, or masked and logged, where every error of a resolver is
            return replay_of(error)
        return None if shown is None else {self.key: shown}


@dataclass(frozen=True, slots=True)
class Subscription:
    """One subscription whose messages are plain attributes."""

    key: str
    shape: Shape

    def shown(self, message: Any) -> dict[str, Any] | None:
        """The data of one message; None where the reference executor must write it."""
        shown = self.shape(message)
        return None if shown is None else {self.key: shown}


class Compiler:
    """Compiles operations of one guarded schema that are valid."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._schema = schema
        self._decoders = Decoders()

    def mutation(self, document: DocumentNode, operation: OperationDefinitionNode) -> Mutation | None:
        """The compiled mutation, or None where it is of another kind."""
        node, field = self._root(OperationType.MUTATION, operation)
        if node is None or field is None:
            return None
        rule, tell = rule_of(field), getattr(resolver_of(field), "straight", None)
        variable = _only_variable(operation, node, field)
        if rule is None or tell is None or variable is None:
            return None
        (argument,) = field.args.values()
        decode, shape = self._decoders.of(argument.type), _shape(document, node, field)
        if decode is None or shape is None:
            return None
        return Mutation(_key(node), variable, rule, decode, tell, shape, getattr(resolver_of(field), "begin", None))

    def query(self, document: DocumentNode, operation: OperationDefinitionNode) -> Query | None:
        """The compiled query, or None where its field is not read at once."""
        node, field = self._root(OperationType.QUERY, operation)
        if node is None or field is None:
            return None
        rule, ways = rule_of(field), getattr(resolver_of(field), "read_at_once", ())
        kind, declared = get_named_type(field.type), _declared(operation)
        if rule is None or declared is None or not isinstance(kind, GraphQLObjectType):
            return None
        reads = (compile_read(kind, [node], _fragments(document), declared) for compile_read in ways)
        read: Read | None = next((one for one in reads if one is not None), None)
        return Query(_key(node), rule, read) if read is not None else None

    def subscription(self, document: DocumentNode, operation: OperationDefinitionNode) -> Subscription | None:
        """The compiled subscription, or None where its messages hold more than plain attributes."""
        node, field = self._root(OperationType.SUBSCRIPTION, operation)
        shape = _shape(document, node, field) if node and field else None
        return Subscription(_key(node), shape) if node and shape else None

    def _root(
        self, kind: OperationType, operation: OperationDefinitionNode
    ) -> tuple[FieldNode | None, GraphQLField | None]:
        """The one field of an operation of this kind, where neither has directives."""
        selections = operation.selection_set.selections
        node, root = selections[0], self._schema.get_root_type(kind)
        is_plain = len(selections) == 1 and isinstance(node, FieldNode) and not node.directives
        if operation.operation is not kind or operation.directives or not is_plain or root is None:
            return None, None
        assert isinstance(node, FieldNode)
        return node, root.fields.get(node.name.value)


def _only_variable(operation: OperationDefinitionNode, node: FieldNode, field: GraphQLField) -> str | None:
    """The name of the operation's one variable, where it is the field's one argument and of exactly its type."""
    variables, arguments = operation.variable_definitions or (), node.arguments or ()
    if len(variables) != 1 or len(arguments) != 1 or len(field.args) != 1:
        return None
    variable, value = variables[0], arguments[0].value
    (argument,) = field.args.values()
    is_plain = not variable.directives and variable.default_value is None and isinstance(value, VariableNode)
    return variable.variable.name.value if is_plain and print_ast(variable.type) == str(argument.type) else None


def _declared(operation: OperationDefinitionNode) -> dict[str, str] | None:
    """The types of the operation's variables; None where one has a directive or a default."""
    variables = operation.variable_definitions or ()
    if any(variable.directives or variable.default_value is not None for variable in variables):
        return None
    return {variable.variable.name.value: print_ast(variable.type) for variable in variables}


def _shape(document: DocumentNode, node: FieldNode, field: GraphQLField) -> Shape | None:
    return shape_of(field.type, [node], _fragments(document))


def _fragments(document: DocumentNode) -> Fragments:
    return {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}


def _key(node: FieldNode) -> str:
    return (node.alias or node.name).value


def replay_of(outcome: Any) -> Replay:
    """Let the reference executor answer with what came of the root field."""

    # A function, since graphql-core takes no other callable for a middleware. It raises an outcome that is an error.
    def replay(resolve: Callable[..., Any], source: Any, info: Any, **arguments: Any) -> Any:
        return outcome if info.path.prev is None else resolve(source, info, **arguments)

    return replay
