"""The schema is the sum of the migrations, it is what the tables declare, and every key begins with the tenant."""

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel

import db.tables
from db.migrate import migrate

KEYS = """
select c.relname as name, a.attname as first
from pg_index i
join pg_class c on c.oid = i.indexrelid
join pg_class t on t.oid = i.indrelid
join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
where t.relnamespace = 'public'::regnamespace and t.relname <> 'alembic_version'
"""
WALLS = """
select t.relname as name from pg_class t
where t.relnamespace = 'public'::regnamespace and t.relkind in ('r', 'p') and not t.relispartition
    and t.relname <> 'alembic_version'
    and not (t.relrowsecurity and exists (select from pg_policy p where p.polrelid = t.oid))
"""


def _differences(connection: Connection) -> list[object]:
    def is_ours(_object: object, name: str | None, kind: str, _reflected: bool, _compared: object) -> bool:
        # Partitions and their indexes are made by the month; alembic's own table is no table of ours.
        return not (name or "").startswith(("event_2", "alembic_version"))

    context = MigrationContext.configure(connection, opts={"include_object": is_ours, "compare_type": True})
    return list(compare_metadata(context, SQLModel.metadata))


@pytest.mark.feature("003-56")
async def test_the_migrations_make_exactly_the_tables_that_are_declared(database_url: str) -> None:
    assert db.tables.TENANT_TABLES
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(database_url))
    try:
        async with engine.connect() as connection:
            assert await connection.run_sync(_differences) == []
    finally:
        await engine.dispose()


@pytest.mark.feature("003-56")
async def test_migrating_again_changes_nothing(database_url: str) -> None:
    await migrate(database_url)

    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("select count(*) from alembic_version") == 1
    finally:
        await connection.close()


async def test_every_key_begins_with_the_tenant_and_every_table_has_its_wall(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        strangers = {row["name"] for row in await connection.fetch(KEYS) if row["first"] != "tenant"}
        open_tables = {row["name"] for row in await connection.fetch(WALLS)}
    finally:
        await connection.close()

    assert (strangers, open_tables) == (set(), set())
