"""Asking the read side as a client does: guarded documents against real Postgres, with the statements counted."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import strawberry
from strawberry.schema.config import StrawberryConfig

from db.pool import Pool
from graph.answers import Answer
from graph.catalog_reads import CatalogQuery
from graph.documents import Documents
from graph.nodes import NodeQuery
from graph.request import Engine, begin
from graph.scalars import SCALARS
from graph.students import StudentQuery
from graph.together import Together
from rules.access import Role, Scope, Viewer
from tests.rows.district import NOW


@strawberry.type
class Query(StudentQuery, CatalogQuery, NodeQuery):
    """The fields under test."""


DOCUMENTS = Documents(strawberry.Schema(Query, config=StrawberryConfig(scalar_map=SCALARS)))

EXPIRY = datetime(2099, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Reader:
    """One viewer of one tenant; `asked` counts what their last operation asked of Postgres."""

    pool: Pool
    tenant: int
    key: str = "head"
    roles: set[Role] = field(default_factory=lambda: {Role.ADMIN})
    scopes: set[Scope] = field(default_factory=set)
    clock: Callable[[], datetime] = lambda: NOW
    asked: Counter[str] = field(default_factory=Counter)

    @property
    def statements(self) -> int:
        """How many statements the last operation ran."""
        return sum(self.asked.values())

    @property
    def polls(self) -> int:
        """How often the last operation looked at its freshness."""
        return sum(times for statement, times in self.asked.items() if "tenant_head" in statement)

    async def ask(self, document: str, **variables: Any) -> Answer:
        """Execute one operation in a context of its own."""
        counted = CountingPool(self.pool)
        self.asked = counted.asked
        viewer = Viewer(self.tenant, self.key, frozenset(self.roles), EXPIRY, frozenset(self.scopes))
        engine = cast(Engine, SimpleNamespace(pool=counted, clock=self.clock, together=Together()))
        return decoded(
            await DOCUMENTS.execute(DOCUMENTS.plan(document, None), variables, begin(engine, viewer, "test"))
        )

    async def data(self, document: str, **variables: Any) -> Any:
        """The data of an operation that must not fail."""
        answer = await self.ask(document, **variables)
        assert answer.errors == ()
        return answer.data


def decoded(answer: Answer) -> Answer:
    """The answer with its data as a client reads it, whoever wrote it."""
    return replace(answer, data=msgspec.json.decode(msgspec.json.encode(answer.data)))


class CountingPool:
    """A pool that counts the reading statements sent through it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.asked: Counter[str] = Counter()

    @asynccontextmanager
    async def acquire(self, *, timeout: float) -> AsyncIterator[Any]:  # noqa: ASYNC109 - asyncpg's own signature
        """Lend a connection that counts."""
        async with self._pool.acquire(timeout=timeout) as connection:
            yield _Counting(connection, self.asked)


class _Counting:
    def __init__(self, connection: Any, asked: "Counter[str]") -> None:
        self._connection = connection
        self._asked = asked

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._connection, name)
        if not name.startswith("fetch"):
            return method

        async def counted(statement: str, *arguments: Any) -> Any:
            self._asked[statement] += 1
            return await method(statement, *arguments)

        return counted
