"""The schema: the only file that gathers its siblings."""

from functools import cache

import strawberry
from graphql import lexicographic_sort_schema, print_schema
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.name_converter import NameConverter
from strawberry.utils.str_converters import to_camel_case

from graph.access import core_of
from graph.background import BackgroundMutation
from graph.catalog import CatalogMutation
from graph.catalog_reads import CatalogQuery
from graph.classrooms import ClassroomQuery
from graph.corrections import CorrectionMutation
from graph.enrollments import EnrollmentMutation
from graph.ingestion import IngestionQuery
from graph.live import LiveSubscription
from graph.nodes import NodeQuery
from graph.policies import PolicyMutation
from graph.recompute import RecomputeMutation
from graph.recording import RecordingMutation
from graph.repairs import RepairMutation
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
class Mutation(
    RecordingMutation,
    CorrectionMutation,
    RosterMutation,
    EnrollmentMutation,
    CatalogMutation,
    PolicyMutation,
    RecomputeMutation,
    BackgroundMutation,
    RepairMutation,
):
    """All roots of mutations."""


@strawberry.type(
    description="What can be watched, over graphql-transport-ws, with the token in the payload of `connection_init`: "
    '`{"authorization": "Bearer …"}`. `after` resumes where a `resumeToken` was given.'
)
class Subscription(LiveSubscription):
    """All roots of subscriptions."""


class Names(NameConverter):
    """Strawberry's names, each derived once: a bulk mutation asks for the same few a thousand times."""

    @staticmethod
    @cache
    def _camel(name: str) -> str:
        return to_camel_case(name)

    def apply_naming_config(self, name: str) -> str:
        """The GraphQL name of a Python name."""
        return self._camel(name)


# Never `sort_schema`: it rebuilds every enum without its Python class, and members no longer serialize.
schema = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    config=StrawberryConfig(scalar_map=SCALARS, name_converter=Names()),
)


def sdl() -> str:
    """The schema in the schema language, sorted by name, as committed in schema.graphql."""
    return print_schema(lexicographic_sort_schema(core_of(schema))).rstrip("\n") + "\n"
