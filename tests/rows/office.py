"""The school office for tests: one fresh tenant, and the mutations that fill its roster, over the real schema."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import strawberry
from strawberry.schema.config import StrawberryConfig

from db.live import Moved
from db.pool import Connection, Pool, tenant_transaction
from db.tables import TENANT_TABLES
from graph.documents import Documents
from graph.request import Engine, begin
from graph.scalars import SCALARS
from graph.schema import Mutation, Query
from rules.access import Role, Scope, Viewer
from tests.support.tenants import fresh_tenant

NOW = datetime(2026, 11, 18, 9, 30, tzinfo=UTC)  # a Wednesday
ERRORS = "errors { code field message }"


DOCUMENTS = Documents(strawberry.Schema(query=Query, mutation=Mutation, config=StrawberryConfig(scalar_map=SCALARS)))


@dataclass
class Bell:
    """What was told after a commit, to the workers and to whoever watches: the way out to Redis."""

    marked: list[tuple[int, int]] = field(default_factory=list)
    announced: list[Moved] = field(default_factory=list)

    def mark(self, tenant: int, shard: int) -> None:
        self.marked.append((tenant, shard))

    def announce(self, moved: Moved) -> None:
        self.announced.append(moved)


@dataclass
class Office:
    """One tenant and a clock that the test moves; mutations are an admin's unless `by` says otherwise."""

    pool: Pool
    tenant: int
    now: datetime = NOW
    bell: Bell = field(default_factory=Bell)

    def viewer(self, key: str, *roles: Role, scopes: frozenset[Scope] = frozenset()) -> Viewer:
        """Somebody of this tenant."""
        expires_at = self.now + timedelta(hours=1)
        return Viewer(self.tenant, key, frozenset(roles), expires_at, scopes)

    async def ask(self, text: str, variables: dict[str, Any], *, by: Viewer | None = None) -> dict[str, Any]:
        """The whole body of an answer."""
        told: Any = self.bell
        engine = Engine(clock=lambda: self.now, pool=self.pool, recorder=told, wake=told, live=told)
        context = begin(engine, by or self.viewer("admin", Role.ADMIN), "test")
        return (await DOCUMENTS.execute(DOCUMENTS.plan(text, None), variables, context)).body

    async def send(self, mutation: str, wants: str, *, by: Viewer | None = None, **sent: Any) -> dict[str, Any]:
        """The body of one mutation's answer; `sent` is its input."""
        kind = mutation[0].upper() + mutation[1:] + "Input"
        text = f"mutation Go($input: {kind}!) {{ {mutation}(input: $input) {{ {ERRORS} seq {wants} }} }}"
        return await self.ask(text, {"input": sent}, by=by)

    async def tell(self, mutation: str, wants: str = "", *, by: Viewer | None = None, **sent: Any) -> dict[str, Any]:
        """The payload of a mutation that was let in."""
        body = await self.send(mutation, wants, by=by, **sent)
        assert "errors" not in body, body
        payload: dict[str, Any] = body["data"][mutation]
        return payload

    async def done(self, mutation: str, wants: str = "", *, by: Viewer | None = None, **sent: Any) -> dict[str, Any]:
        """The payload of a mutation that succeeded, without errors."""
        payload = await self.tell(mutation, wants, by=by, **sent)
        assert payload.pop("errors") == [], payload
        return payload

    async def codes(self, mutation: str, *, by: Viewer | None = None, **sent: Any) -> list[tuple[str, str]]:
        """The codes and fields of a mutation that was refused, having changed nothing."""
        before = await self.rows()
        payload = await self.tell(mutation, by=by, **sent)
        assert (payload["seq"], await self.rows()) == (None, before)
        return [(error["code"], ".".join(error["field"] or ())) for error in payload["errors"]]

    async def all_of(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement whose $1 is the tenant."""
        async with tenant_transaction(self.pool, self.tenant, read_only=True) as connection:
            return [tuple(row) for row in await connection.fetch(statement, self.tenant, *arguments)]

    async def rows(self) -> dict[str, list[str]]:
        """Every row of the tenant, by table."""
        return {
            table: sorted(
                str(row)
                for row in await self.all_of(f'select * from "{table}" where tenant = $1')  # noqa: S608 - tables of ours
            )
            for table in TENANT_TABLES
        }

    async def waiting(self) -> list[tuple[str, str, str]]:
        """What the fold must look at, (kind, student, classroom), in the order it was asked."""
        return [
            (kind, student, classroom)
            for kind, student, classroom in await self.all_of(
                "select kind, student, classroom from outbox where tenant = $1 order by seq"
            )
        ]

    def writing(self) -> AbstractAsyncContextManager[Connection]:
        """A transaction for what no mutation does yet."""
        return tenant_transaction(self.pool, self.tenant)

    async def folded(self) -> None:
        """Forget what waits, as if the fold had run, and the wake-ups."""
        async with self.writing() as connection:
            await connection.execute("delete from outbox where tenant = $1", self.tenant)
        self.bell.marked.clear()
        self.bell.announced.clear()

    async def head(self) -> str:
        """The tenant's place in the log, as clients read it."""
        ((seq,),) = await self.all_of("select seq from tenant_head where tenant = $1")
        return str(seq)


async def open_office(pool: Pool, *, zone: str = "UTC") -> Office:
    """Make a tenant with the log's month."""
    tenant = await fresh_tenant(pool, zone=zone)
    async with tenant_transaction(pool, tenant) as connection:
        await connection.execute("select make_event_partitions(date '2026-11-01', 2)")
    return Office(pool, tenant)


async def open_class(pool: Pool, *students: str, zone: str = "UTC") -> Office:
    """An office with class 7b, these students on the roster, concepts c1 and c2, and nothing waiting."""
    office = await open_office(pool, zone=zone)
    await office.done(
        "saveCatalog",
        subjects=[{"key": "maths", "name": "Maths"}],
        concepts=[{"key": key, "name": key, "subjectId": "maths"} for key in ("c1", "c2")],
    )
    await office.done("saveClassroom", key="7b", name="7b")
    for student in students:
        await office.done("saveStudent", key=student)
    await office.folded()
    return office


def enrolment(person: str = "s1", starts_on: str = "2026-09-01", **more: Any) -> dict[str, Any]:
    """The input of a student's enrolment in 7b."""
    return {"classroomId": "7b", "personId": person, "role": "STUDENT", "startsOn": starts_on, **more}


def work(key: str = "a1", **more: Any) -> dict[str, Any]:
    """The input of a piece of work of 7b."""
    return {"key": key, "classroomId": "7b", "title": f"Work {key}", "conceptIds": ["c1"], **more}
