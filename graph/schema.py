"""The schema: the only file that gathers its siblings."""

import strawberry
from graphql import lexicographic_sort_schema, print_schema
from strawberry.schema.config import StrawberryConfig

from graph.access import core_of
from graph.catalog import CatalogMutation
from graph.catalog_reads import CatalogQuery
from graph.classrooms import ClassroomQuery
from graph.enrollments import EnrollmentMutation
from graph.ingestion import IngestionQuery
from graph.live import LiveSubscription
from graph.nodes import NodeQuery
from graph.policies import PolicyMutation
from graph.recording import RecordingMutation
from graph.roster import RosterMutation
from graph.scalars import SCALARS
from graph.schools import SchoolQuery
from graph.service import ServiceQuery
from graph.students import StudentQuery
from graph.viewers import ViewerQuery


@strawberry.type(description="What can be asked. Every field answers within the asker's rights, or as if unknown.")
class Query(
    ViewerQuery,
    ClassroomQuery,
    StudentQuery,
    SchoolQuery,
    CatalogQuery,
    IngestionQuery,
    NodeQuery,
    ServiceQuery,
):
    """All roots of queries."""


@strawberry.type(description="What can be told. Expected refusals are the `errors` of the payload.")
class Mutation(RecordingMutation, RosterMutation, EnrollmentMutation, CatalogMutation, PolicyMutation):
    """All roots of mutations."""


@strawberry.type(description="What can be watched, over graphql-transport-ws; `after` resumes where a token was.")
class Subscription(LiveSubscription):
    """All roots of subscriptions."""


# Never `sort_schema`: it rebuilds every enum without its Python class, and members no longer serialize.
schema = strawberry.Schema(
    query=Query, mutation=Mutation, subscription=Subscription, config=StrawberryConfig(scalar_map=SCALARS)
)


def sdl() -> str:
    """The schema in the schema language, sorted by name, as committed in schema.graphql."""
    return print_schema(lexicographic_sort_schema(core_of(schema))).rstrip("\n") + "\n"
