"""Student pages read at once: freshness, mastery, progress, work and history, for student, guardians and teachers."""

from dataclasses import replace
from enum import Enum

from graphql import EnumValueNode, FieldNode, ListValueNode, NullValueNode, ValueNode

from db import student_pages
from db.pages import Ask, Found
from db.written import Part
from graph import timelines
from graph.coursework import WORK_ORDER, AssignmentStatus
from graph.open_values import OpenValues, arguments_of
from graph.pages import Subject
from graph.shapes import Unknown
from graph.standings import MASTERY_ORDER
from rules.access import Viewer, may_read_student, may_see_flags


def _mastery(values: OpenValues, node: FieldNode) -> Part:
    given = arguments_of(node, "classroomId", "first", "after")
    page = values.page(given, MASTERY_ORDER, student_pages.MASTERY_ORDER)
    return Part("", "mastery", page=page, classroom=values.classroom(given.get("classroomId")))


def _progress(values: OpenValues, node: FieldNode) -> Part:
    return Part("", "progress", classroom=values.classroom(arguments_of(node, "classroomId").get("classroomId")))


def _timeline(values: OpenValues, node: FieldNode) -> Part:
    given = arguments_of(node, "classroomId", "types", "order", "first", "after")
    is_newest_first = _is_newest_first(given.get("order"))
    if is_newest_first:
        page = values.page(given, timelines.NEWEST_FIRST, student_pages.NEWEST_FIRST)
    else:
        page = values.page(given, timelines.OLDEST_FIRST, student_pages.OLDEST_FIRST)
    return Part(
        "",
        "timeline",
        page=page,
        classroom=values.classroom(given.get("classroomId")),
        words=_words(given.get("types"), timelines.EventType),
        is_newest_first=is_newest_first,
    )


def _assignments(values: OpenValues, node: FieldNode) -> Part:
    given = arguments_of(node, "classroomId", "statuses", "first", "after")
    return Part(
        "",
        "assignments",
        page=values.page(given, WORK_ORDER, student_pages.WORK_ORDER),
        classroom=values.classroom(given.get("classroomId")),
        words=_words(given.get("statuses"), AssignmentStatus),
    )


def _is_newest_first(value: ValueNode | None) -> bool:
    if value is None or isinstance(value, NullValueNode):
        return False
    return _name(value) == timelines.TimelineOrder.NEWEST_FIRST.name


def _words(value: ValueNode | None, known: type[Enum]) -> tuple[str, ...]:
    """The stored words that a literal names; none, where it names none at all. Raises Unknown."""
    if value is None or isinstance(value, NullValueNode):
        return ()
    names = [_name(one) for one in (value.values if isinstance(value, ListValueNode) else (value,))]
    if not names:
        raise Unknown  # an empty list asks for nothing, which is no way to ask
    return tuple(sorted({str(known[name].value) for name in names}))


def _name(value: ValueNode) -> str:
    if not isinstance(value, EnumValueNode):
        raise Unknown
    return value.value


def _may_see(viewer: Viewer, ask: Ask, found: Found) -> bool:
    """As a person, and as much of the history as the statement has shown."""
    person = replace(viewer, scopes=frozenset()) if viewer.scopes else viewer
    shown_as_staff = ask.is_admin or (ask.as_teacher and found.is_tied)
    return may_read_student(person, ask.key, is_linked=found.is_linked, is_taught=found.is_tied) and (
        may_see_flags(viewer, is_taught=found.is_tied) == shown_as_staff
    )


STUDENT_PAGES = Subject(
    student_pages.FIELDS,
    student_pages.OBJECTS,
    {
        ("Student", "mastery"): _mastery,
        ("Student", "progress"): _progress,
        ("Student", "timeline"): _timeline,
        ("Student", "assignments"): _assignments,
    },
    student_pages.statement_of,
    _may_see,
    student_pages.LOGS,
)
