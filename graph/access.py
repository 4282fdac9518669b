"""Default-deny for the whole schema: a root field answers only those its declared rule lets in.

A rule stands at every root field, and at any deeper field with a resolver of its own that is narrower than its root.
Other fields inherit: their objects are reached only through a guarded root, whose resolver decides which objects
exist for the viewer. That keeps leaf scalars free of a wrapper; 900 cells of a dashboard would pay for each one.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import strawberry
from graphql import GraphQLField, GraphQLObjectType, GraphQLSchema

from graph.refusal import ErrorCode, Refused
from rules.access import Role, Scope, Viewer

PEOPLE = (Role.STUDENT, Role.GUARDIAN, Role.TEACHER, Role.ADMIN)
ANY_SCOPE = frozenset(Scope)

Resolver = TypeVar("Resolver", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may ask for a field at all: people by role, machines by scope."""

    roles: frozenset[Role]
    scopes: frozenset[Scope]

    def admits(self, viewer: Viewer) -> bool:
        """Whether the viewer may ask; which rows they then see is decided in `rules.access`."""
        return viewer.has(*self.roles) or any(viewer.is_integrator_for(scope) for scope in self.scopes)


def allow(*roles: Role, scope: Scope | Collection[Scope] = ()) -> Callable[[Resolver], Resolver]:
    """Declare a field's rule: `@strawberry.field` above, `@allow(Role.TEACHER, scope=Scope.READ)` below it."""
    if Role.INTEGRATOR in roles:
        raise ValueError("an integrator is admitted by scope=..., never by role alone")
    rule = Rule(frozenset(roles), frozenset((scope,) if isinstance(scope, Scope) else scope))

    def declare(resolver: Resolver) -> Resolver:
        resolver.__dict__["access_rule"] = rule
        return resolver

    return declare


def core_of(schema: strawberry.Schema) -> GraphQLSchema:
    """The graphql-core schema that Strawberry built: caching and guarding need it, and no public name leads to it."""
    return schema._schema


def undeclared_fields(schema: strawberry.Schema) -> list[str]:
    """The root fields without a rule, as `Query.field`; a test keeps this empty."""
    roots = _roots(core_of(schema))
    return [f"{root.name}.{name}" for root in roots for name, field in root.fields.items() if rule_of(field) is None]


def guard(schema: GraphQLSchema) -> None:
    """Put each rule in front of its resolver, and a closed door in front of every root field without one."""
    roots = list(_roots(schema))
    for kind in schema.type_map.values():
        if not isinstance(kind, GraphQLObjectType) or kind.name.startswith("__"):
            continue
        for name, field in kind.fields.items():
            rule = rule_of(field)
            if (rule or kind in roots) and "access_guarded" not in field.extensions:
                _close(field, rule, name)


def _close(field: GraphQLField, rule: Rule | None, name: str) -> None:
    # A subscription is judged where it starts; its later events come from a source that was opened for this viewer.
    entrance = "subscribe" if field.subscribe else "resolve"
    enter = getattr(field, entrance)

    def guarded(source: Any, info: Any, **arguments: Any) -> Any:
        if rule is None or not rule.admits(info.context.viewer):
            raise Refused(ErrorCode.FORBIDDEN, f"You may not use '{name}'.")
        return enter(source, info, **arguments)

    setattr(field, entrance, guarded)
    field.extensions["access_guarded"] = True


def _roots(schema: GraphQLSchema) -> Iterator[GraphQLObjectType]:
    yield from (root for root in (schema.query_type, schema.mutation_type, schema.subscription_type) if root)


def rule_of(field: GraphQLField) -> Rule | None:
    """The rule declared at a field."""
    rule = getattr(resolver_of(field), "access_rule", None)
    return rule if isinstance(rule, Rule) else None


def resolver_of(field: GraphQLField) -> Callable[..., Any] | None:
    """The function that was written as the field's resolver, with what decorators declared on it."""
    definition = field.extensions.get("strawberry-definition")
    resolver = getattr(definition, "base_resolver", None)
    return getattr(resolver, "wrapped_func", None)
