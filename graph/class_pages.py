"""Class pages read at once: freshness, rates, risks, recent activity, concepts and policy, for the class's teachers."""

from graphql import FieldNode

from db import class_pages
from db.pages import Ask, Found
from db.written import Part
from graph.boards import may_see_class
from graph.class_mastery import CONCEPT_ORDER
from graph.connections import Keyset
from graph.dashboards import AT_RISK_ORDER, RECENT_ORDER
from graph.open_values import OpenValues, arguments_of
from graph.pages import Describe, Subject
from graph.risk import FLAG_ORDER
from rules.access import Viewer


def _list(kind: str, name: str, keyset: Keyset) -> Describe:
    order = class_pages.PAGES[kind, name]

    def describe(values: OpenValues, node: FieldNode) -> Part:
        return Part("", name, page=values.page(arguments_of(node, "first", "after"), keyset, order))

    return describe


def _may_see(viewer: Viewer, _ask: Ask, found: Found) -> bool:
    return may_see_class(viewer, is_teacher=found.is_tied, is_enrolled=found.is_linked)


CLASS_PAGES = Subject(
    class_pages.FIELDS,
    class_pages.OBJECTS,
    {
        ("Dashboard", "atRisk"): _list("Dashboard", "atRisk", AT_RISK_ORDER),
        ("Dashboard", "recentActivity"): _list("Dashboard", "recentActivity", RECENT_ORDER),
        ("Classroom", "riskFlags"): _list("Classroom", "riskFlags", FLAG_ORDER),
        ("Classroom", "concepts"): _list("Classroom", "concepts", CONCEPT_ORDER),
    },
    class_pages.statement_of,
    _may_see,
    class_pages.LOGS,
)
