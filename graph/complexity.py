"""The size of a document, known before it is validated: hostile texts must cost no more than reading them once."""

from dataclasses import dataclass, field
from math import isinf

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    Token,
    TokenKind,
)

from graph.refusal import ErrorCode, Refused
from graph.wire import bad_input, refuse_unstorable

CHARACTERS_MAX = 65_536  # one token can be a long string, so tokens alone do not bound the reading
TOKENS_MAX = 1_500
COMMENTS_MAX = 500
FIELDS_MAX = 3_000  # with every fragment expanded where it is spread
DEPTH_MAX = 12
INTROSPECTION_DEPTH_EXTRA = 8  # the standard introspection query of GraphiQL is 14 deep and reads no data
NESTING_MAX = 60  # brackets of any kind: inline fragments nest without adding depth
ALIASES_MAX = 30
DIRECTIVES_MAX = 30
OPERATIONS_MAX = 10
VARIABLES_MAX = 50
FRAGMENTS_MAX = 80  # validation compares the fragments of one selection pairwise
REPEATS_MAX = 40  # and likewise the fields that merge under one response name

_STRINGS = (TokenKind.STRING, TokenKind.BLOCK_STRING)
_NUMBERS = (TokenKind.INT, TokenKind.FLOAT)


def too_complex(what: str, limit: int) -> Refused:
    """The refusal of a document that asks for too much of one thing."""
    return Refused(ErrorCode.QUERY_TOO_COMPLEX, f"The document has too many or too deep {what}; the limit is {limit}.")


def guard(document: DocumentNode) -> None:
    """Raise Refused for a document that is over a limit. Linear in its tokens, whatever its fragments do."""
    _guard_tokens(document)
    fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
    operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
    if len(operations) > OPERATIONS_MAX:
        raise too_complex("operations", OPERATIONS_MAX)
    if len(fragments) > FRAGMENTS_MAX:
        raise too_complex("fragments", FRAGMENTS_MAX)
    meter = _Meter(fragments)
    for fragment in fragments:
        meter.of_fragment(fragment)
    for operation in operations:
        if len(operation.variable_definitions or ()) > VARIABLES_MAX:
            raise too_complex("variables", VARIABLES_MAX)
        size = meter.of_selections(operation.selection_set)
        if size.fields > FIELDS_MAX:
            raise too_complex("fields", FIELDS_MAX)
        if size.depth > DEPTH_MAX:
            raise too_complex("levels", DEPTH_MAX)
        _guard_repeats([operation.selection_set], fragments)  # safe now: at most FIELDS_MAX fields, and no cycle


def _guard_tokens(document: DocumentNode) -> None:
    nesting = directives = 0
    token: Token | None = document.loc.start_token if document.loc else None
    while token:
        kind = token.kind
        if kind in (TokenKind.BRACE_L, TokenKind.BRACKET_L):
            nesting += 1
            if nesting > NESTING_MAX:
                raise too_complex("brackets", NESTING_MAX)
        elif kind in (TokenKind.BRACE_R, TokenKind.BRACKET_R):
            nesting -= 1
        elif kind is TokenKind.AT:
            directives += 1
            if directives > DIRECTIVES_MAX:
                raise too_complex("directives", DIRECTIVES_MAX)
        elif kind in _STRINGS:
            refuse_unstorable(token.value or "")
        elif kind in _NUMBERS and isinf(float(token.value or "0")):
            # As a variable the JSON decoder refuses such a number; as a literal graphql-core hands on infinity.
            raise bad_input("A number in the document is out of range.")
        token = token.next


def _guard_repeats(merging: list[SelectionSetNode], fragments: dict[str, FragmentDefinitionNode]) -> None:
    """Merge selections by response name, as execution does, and refuse a name that stands there too often."""
    by_name: dict[str, list[FieldNode]] = {}
    spread: set[str] = set()
    waiting = list(merging)
    while waiting:
        for selection in waiting.pop().selections:
            if isinstance(selection, FieldNode):
                by_name.setdefault((selection.alias or selection.name).value, []).append(selection)
            elif isinstance(selection, InlineFragmentNode):
                waiting.append(selection.selection_set)
            elif isinstance(selection, FragmentSpreadNode) and selection.name.value not in spread:
                spread.add(selection.name.value)
                waiting += [fragments[name].selection_set for name in (selection.name.value,) if name in fragments]
    for name, nodes in by_name.items():
        if len(nodes) > REPEATS_MAX:
            raise too_complex(f"repeats of the field '{name}'", REPEATS_MAX)
        _guard_repeats([node.selection_set for node in nodes if node.selection_set], fragments)


@dataclass(slots=True)
class _Size:
    fields: int = 0
    depth: int = 0


@dataclass(slots=True)
class _Meter:
    """Sizes of selections. Each fragment is measured once: spreading it 2^40 times is one multiplication."""

    fragments: dict[str, FragmentDefinitionNode]
    aliases: int = 0
    known: dict[str, _Size | None] = field(default_factory=dict)  # None while it is being measured

    def of_fragment(self, name: str) -> _Size:
        if name not in self.known:
            self.known[name] = None
            fragment = self.fragments.get(name)
            self.known[name] = self.of_selections(fragment.selection_set) if fragment else _Size()
        size = self.known[name]
        if size is None:
            raise Refused(ErrorCode.GRAPHQL_VALIDATION_FAILED, f"The fragment '{name}' spreads itself.")
        return size

    def of_selections(self, selections: SelectionSetNode | None) -> _Size:
        total = _Size()
        if selections and not selections.selections:  # the parser lets it pass, the grammar does not
            raise Refused(ErrorCode.GRAPHQL_PARSE_FAILED, "Syntax Error: Expected Name, found '}'.")
        for selection in selections.selections if selections else ():
            if isinstance(selection, FieldNode):
                size = self._of_field(selection)
            elif isinstance(selection, InlineFragmentNode):
                size = self.of_selections(selection.selection_set)
            elif isinstance(selection, FragmentSpreadNode):
                size = self.of_fragment(selection.name.value)
            total.fields += size.fields
            total.depth = max(total.depth, size.depth)
        return total

    def _of_field(self, node: FieldNode) -> _Size:
        if node.alias:
            self.aliases += 1
            if self.aliases > ALIASES_MAX:
                raise too_complex("aliases", ALIASES_MAX)
        inner = self.of_selections(node.selection_set)
        depth = inner.depth + 1
        if node.name.value in ("__schema", "__type"):
            depth = max(1, depth - INTROSPECTION_DEPTH_EXTRA)
        return _Size(inner.fields + 1, depth)
