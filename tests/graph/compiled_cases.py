"""Dice for the compiled path: documents over any type's plain attributes, variables and objects, sound and flawed."""

import random
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    get_named_type,
)

from db.freshness import Freshness

MOMENT = datetime(2026, 3, 11, 9, 0, tzinfo=UTC)
POINT = Freshness(seq=7, time=MOMENT, withheld=0, lag_ms=3)
FLAWED = 0.12  # of documents, variables and objects: each of their parts may then be wrong

# What a client may send anywhere; JSON carries all of it.
JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7.0, 1.5, -0.0, 1e300, "", "x", "LIVE", "live", "1", "2026-03-11T09:00:00Z", [],
    [None], ["a", "b"], ["a", 1], [[]], {}, {"a": 1}, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**53 - 1, 2**53,
    2**53 + 1, -(2**53), 2**63, 2**64 - 1, "ä" * 200, "a\u2028b", " e1",
)  # fmt: skip
DATES = (
    "2026-03-11T09:00:00Z", "2026-03-11t09:00:00.1234567890z", "2026-03-11T09:00:00+01:00", "2026-03-11T09:00:00",
    "2026-02-30T09:00:00Z", "2026-03-11", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59-01:00", "2031-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00", "2026-W11-3T09:00:00Z", "now", "",
)  # fmt: skip
TEXTS = ("e1", "lms", "s1", "7b", "user:t1", "sightline", "ä", "x" * 129)
KINDS = ("SUBMISSION_GRADED", "QUIZ_ATTEMPT", "quiz_attempt", "STUDENT_LOGIN", "EVENT_VOIDED", "CONTENT_VIEWED", "NOPE")
TREES: tuple[Any, ...] = (
    {}, {"device": "tablet"}, {"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}}, {"device": None, "n": [1, 2.5, True]},
    {"big": 2**60}, [], "text", 3,
)  # fmt: skip


@dataclass(slots=True)
class Dice:
    """One seed's throws."""

    random: random.Random
    flaw: float = 0.0  # the chance of each part to be wrong

    def is_flawed(self) -> bool:
        """Whether the next part is wrong."""
        return self.flaw > 0 and self.random.random() < self.flaw

    def of(self, values: Any) -> Any:
        """One of these."""
        return self.random.choice(list(values))

    # ------------------------------------------------------------ documents

    def selection(self, kind: GraphQLObjectType, *, depth: int = 0) -> str:
        """Some plain fields of a type, with aliases, fragments and fields that merge."""
        names = [name for name, field in kind.fields.items() if not field.args and is_plain(field)]
        chosen = self.random.sample(names, self.random.randint(1, len(names)))
        parts = [self._selected(kind, name, depth) for name in chosen]
        if self.random.random() < 0.2:
            parts.append("__typename")
        if self.random.random() < 0.2:
            parts.append(f"... on {kind.name} {{ {self._selected(kind, self.of(chosen), depth)} }}")
        if self.random.random() < 0.1:
            parts.append(f"... {{ {self._selected(kind, self.of(chosen), depth)} }}")
        if self.is_flawed():
            parts.append(self.of(("nope", "__typename @include(if: true)", "... @skip(if: false) { __typename }")))
        self.random.shuffle(parts)
        return " ".join(parts)

    def _selected(self, kind: GraphQLObjectType, name: str, depth: int) -> str:
        inner = get_named_type(kind.fields[name].type)
        alias = f"a{self.random.randint(0, 99)}_{depth}_{name}: " if self.random.random() < 0.1 else ""
        if isinstance(inner, GraphQLObjectType):
            return f"{alias}{name} {{ {self.selection(inner, depth=depth + 1)} }}"
        return alias + name

    # ------------------------------------------------------------ variables

    def input(self, kind: Any) -> Any:
        """A value of an input type, as JSON."""
        if self.is_flawed():
            return self.of((*JUNK, *(EDGES.get(get_named_type(kind).name, ()) * 12)))
        if isinstance(kind, GraphQLNonNull):
            return self.input(kind.of_type)
        if isinstance(kind, GraphQLList):
            return [self.input(kind.of_type) for _ in range(self.random.randint(0, 3))]
        if isinstance(kind, GraphQLInputObjectType):
            return self.input_object(kind)
        if isinstance(kind, GraphQLEnumType):
            return self.of(kind.values)
        return SENT[kind.name](self)

    def input_object(self, kind: GraphQLInputObjectType) -> dict[str, Any]:
        """Some of an input's fields, in any order; an event is mostly one that the rules take."""
        usual = {"RecordEventInput": self._event, "VoidEventInput": self._void}.get(kind.name)
        given: dict[str, Any] = usual() if usual and self.random.random() < 0.8 else {}
        needed = [name for name, field in kind.fields.items() if isinstance(field.type, GraphQLNonNull)]
        more = 0 if given else self.random.randint(0, min(6, len(kind.fields)))
        chosen = needed + self.random.sample(list(kind.fields), more)
        given |= {name: self.input(kind.fields[name].type) for name in chosen}
        for name in list(given):
            if self.is_flawed():
                given[name] = self.input(kind.fields[name].type)
        if self.is_flawed():
            given[self.of(("nope", "event_id", "Source"))] = self.of(JUNK)
        names = list(given)
        self.random.shuffle(names)
        return {name: given[name] for name in names}

    def _event(self) -> dict[str, Any]:
        """An event that a machine may tell, or a person, who names neither source nor id."""
        number = self.random.randint(0, 400)
        given = {"studentId": "s1", "classroomId": "7b", "occurredAt": DATES[0], **self.of(EVENTS)}
        if self.random.random() < 0.75:
            given |= {"source": "lms", "eventId": self.of((f"e{number}", number))}
        for name in self.random.sample(list(EXTRAS), self.random.randint(0, 3)):
            given.setdefault(name, self.of(EXTRAS[name]))
        return given

    def _void(self) -> dict[str, Any]:
        """A void of an event that the log has, or of one that has yet to come."""
        return {"source": "lms", "eventId": self.of(("e1", "e2", self.random.randint(0, 400))), "reason": "sent twice"}

    # ------------------------------------------------------------ objects

    def made(self, kind: Any) -> Any:
        """A value of an output type, as a resolver returns it."""
        if self.is_flawed():
            return self.of((*BROKEN, *(STRAYS.get(get_named_type(kind).name, ()) * 9)))
        if not isinstance(kind, GraphQLNonNull) and self.random.random() < 0.15:
            return None
        return self._present(kind)

    def _present(self, kind: Any) -> Any:
        if isinstance(kind, GraphQLNonNull):
            return self._present(kind.of_type)
        if isinstance(kind, GraphQLList):
            item = kind.of_type
            return self.of((list, tuple))([self.made(item) for _ in range(self.random.randint(0, 3))])
        if isinstance(kind, GraphQLObjectType):
            return self.built(kind)
        if isinstance(kind, GraphQLEnumType):
            return self.of(kind.wrapped_cls)  # type: ignore[attr-defined]
        return MADE[kind.name](self)

    def built(self, kind: GraphQLObjectType) -> Any:
        """An object of a Strawberry type."""
        origin = kind.extensions["strawberry-definition"].origin
        by_name = {_python_name(field): field for field in kind.fields.values()}
        values = {}
        for part in fields(origin):
            if part.init:
                known = by_name.get(part.name)
                values[part.name] = self.made(known.type) if known else PRIVATE.get(part.name)
        return SimpleNamespace(**values) if self.is_flawed() else origin(**values)


def _python_name(field: Any) -> str:
    return str(field.extensions["strawberry-definition"].python_name)


def is_plain(field: Any) -> bool:
    """Whether a field has no resolver, or is one of the two methods that only read their object."""
    return getattr(field.resolve, "_is_default", False) or _python_name(field) in {"as_of", "lag_ms"}


PRIVATE = {"freshness": POINT, "point": POINT}
# What the rules take, and what may go with it; a few of the extras they refuse.
WORK = {"assignmentId": "hw1", "conceptIds": ["k1", 2]}
EVENTS: tuple[dict[str, Any], ...] = (
    {"type": "STUDENT_LOGIN"},
    {**WORK, "type": "SUBMISSION_GRADED", "score": 0.8},
    {**WORK, "type": "SUBMISSION_GRADED", "score": 1, "maxScore": 12},
    {**WORK, "score": 1.2},
    WORK,
    {"type": "quiz_attempt", "quizId": "q1", "conceptIds": ["k1"], "score": 0},
    {"type": "CONTENT_VIEWED", "contentId": "c1"},
    {"type": "EXERCISE_COMPLETED", "totalExercises": 10, "completedExercises": 8, "difficulty": "beginner"},
    {"type": "EVENT_VOIDED", "targetSource": "lms", "targetEventId": "e1", "reason": "sent twice"},
)
EXTRAS: dict[str, tuple[Any, ...]] = {
    "dueAt": (DATES[1], DATES[2], DATES[3], None),
    "lane": ("LIVE", "BACKFILL", None),
    "metadata": TREES,
    "revision": (0, 3, 2**31 - 1, None),
    "rubricTags": ([], ["t"], None),
    "submissionId": ("sub1", 7, None),
    "timeSpentMs": (0, 86_400_000, None),
    "correctness": (0, 1, 0.5),
    "app": ("NOTEBOOK", "WHITEBOARD", "CHALK"),
    "helperId": ("", "s1"),
}
# What JSON may hold at the very edge of a scalar, inside and outside.
EDGES: dict[str, tuple[Any, ...]] = {
    "Float": (2**53, 2**53 + 1, -(2**53) - 1, True, "1.5"),
    "Int": (2**31, -(2**31) - 1, 3.0, 3.5, True, "3"),
    "ID": (3.0, 3.5, 2**70, True),
}
# What a resolver may return by mistake, anywhere and for one scalar.
BROKEN: tuple[Any, ...] = (
    None, "x", 1, True, float("nan"), [None], (), MOMENT.replace(tzinfo=None), ValueError("Ada scored 12"),
)  # fmt: skip
STRAYS: dict[str, tuple[Any, ...]] = {
    "Float": (float("inf"), 2**53 + 1, True, "1.5"),
    "Int": (2**31, -(2**31) - 1, 3.0, 3.5, True, "3"),
    "ID": (3, 3.5, b"x"),
    "String": (3, 3.5, True, b"x"),
    "Boolean": (0, 1, 1.5, "true"),
}
SENT: dict[str, Callable[[Dice], Any]] = {
    "ID": lambda dice: dice.of((*TEXTS, 5, -3, 2**40)),
    "String": lambda dice: dice.of((*TEXTS, *KINDS, "beginner", "WHITEBOARD")),
    "Int": lambda dice: dice.of((0, 1, 3, 2**31 - 1, -(2**31))),
    "Float": lambda dice: dice.of((0, 0.5, 1, -1.25, 1e15, 2**53 - 1, -0.0)),
    "Boolean": lambda dice: dice.of((True, False)),
    "EventTime": lambda dice: dice.of(DATES),
    "Metadata": lambda dice: dice.of(TREES),
}
MADE: dict[str, Callable[[Dice], Any]] = {
    "ID": lambda dice: dice.of(TEXTS),
    "String": lambda dice: dice.of(TEXTS),
    "Int": lambda dice: dice.of((0, 1, 2**31 - 1, -(2**31))),
    "Float": lambda dice: dice.of((0.0, 0.125, 3, -1.5, 1e300)),
    "Boolean": lambda dice: dice.of((True, False)),
    "DateTime": lambda dice: dice.of((MOMENT, MOMENT.replace(microsecond=5))),
    "Date": lambda dice: date(2026, 3, 11),
    "Seq": lambda dice: dice.of((0, 5, 2**62)),
}
