"""Asking about classes, schools, viewers and the intake as a client does, with the statements counted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import strawberry
from strawberry.schema.config import StrawberryConfig

from db.pool import Pool
from graph.answers import Answer
from graph.classrooms import ClassroomQuery
from graph.documents import Documents
from graph.ingestion import IngestionQuery
from graph.nodes import NodeQuery
from graph.request import Engine, begin
from graph.scalars import SCALARS
from graph.schools import SchoolQuery
from graph.service import ServiceQuery
from graph.students import StudentQuery
from graph.together import Together
from graph.viewers import ViewerQuery
from rules.access import Role, Scope, Viewer
from tests.rows.district import NOW, District
from tests.rows.reading import EXPIRY, CountingPool, decoded


@strawberry.type
class Query(ViewerQuery, ClassroomQuery, SchoolQuery, StudentQuery, IngestionQuery, ServiceQuery, NodeQuery):
    """The fields under test."""


SCHEMA = strawberry.Schema(Query, config=StrawberryConfig(scalar_map=SCALARS))
DOCUMENTS = Documents(SCHEMA)


@dataclass(slots=True)
class Asker:
    """One viewer of a district; `sources` binds an integrator. `statements` counts what the last operation read."""

    pool: Pool
    tenant: int
    key: str
    roles: set[Role]
    scopes: set[Scope]
    sources: frozenset[str] | None = None
    clock: Callable[[], datetime] = lambda: NOW
    statements: int = 0

    async def ask(self, document: str, **variables: Any) -> Answer:
        """Execute one operation in a context of its own."""
        counted = CountingPool(self.pool)
        viewer = Viewer(
            self.tenant, self.key, frozenset(self.roles), EXPIRY, frozenset(self.scopes), sources=self.sources
        )
        engine = cast(Engine, _Means(pool=counted, clock=self.clock))
        answer = decoded(
            await DOCUMENTS.execute(DOCUMENTS.plan(document, None), variables, begin(engine, viewer, "test"))
        )
        self.statements = sum(counted.asked.values())
        return answer

    async def data(self, document: str, **variables: Any) -> Any:
        """The data of an operation that must not fail."""
        answer = await self.ask(document, **variables)
        assert answer.errors == ()
        return answer.data

    async def refusals(self, document: str, **variables: Any) -> tuple[Any, list[tuple[str, str]]]:
        """The data, and of each error the field it stands at and its code."""
        answer = await self.ask(document, **variables)
        return answer.data, [(".".join(map(str, e["path"])), str(e["extensions"]["code"])) for e in answer.errors]


@dataclass(slots=True)
class _Means:
    pool: Any
    clock: Any
    together: Together = field(default_factory=Together)


def of(district: District, key: str, *roles: Role, scopes: set[Scope] | None = None, **more: Any) -> Asker:
    """Somebody of the district."""
    return Asker(district.pool, district.tenant, key, set(roles), scopes or set(), **more)


def machine(district: District, *scopes: Scope, sources: set[str] | None = None) -> Asker:
    """An integrator's token."""
    bound = None if sources is None else frozenset(sources)
    return of(district, "sis", Role.INTEGRATOR, scopes=set(scopes), sources=bound)
