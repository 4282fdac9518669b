"""Bring a database to the newest schema: the sum of the migrations, under one lock."""

import asyncio
from datetime import date
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

MIGRATION_LOCK = 7_204_001  # any number that nothing else in the database uses
LOCK_WAIT_SECONDS = 30  # a second migrator waits this long for the first
STATEMENT_LOCK_SECONDS = 5  # a migration never queues behind a long transaction and blocks intake with it


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def newest_revision() -> str:
    """The revision this code was written for."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def migrate(database_url: str) -> None:
    """Run every missing migration; safe to call from several processes at once, and again at any time."""
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(database_url, timeout=10)
    )
    try:
        async with asyncio.timeout(LOCK_WAIT_SECONDS + 300), engine.connect() as connection:
            await connection.execute(text(f"set lock_timeout = '{LOCK_WAIT_SECONDS}s'"))
            await connection.execute(text(f"select pg_advisory_lock({MIGRATION_LOCK})"))
            await connection.execute(text(f"set lock_timeout = '{STATEMENT_LOCK_SECONDS}s'"))
            await connection.commit()
            await connection.run_sync(_upgrade)
            await connection.commit()
            await connection.execute(text(f"select pg_advisory_unlock({MIGRATION_LOCK})"))
    finally:
        await engine.dispose()


async def current_revision(connection: asyncpg.Connection) -> str | None:
    """The revision the database stands at, None before the first migration."""
    if await connection.fetchval("select to_regclass('alembic_version') is null"):
        return None
    revision: str | None = await connection.fetchval("select version_num from alembic_version")
    return revision


async def make_partitions(database_url: str, *, first_day: date, months: int) -> int:
    """Make the log's monthly partitions from the month of `first_day` on; returns how many were missing."""
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        made: int = await connection.fetchval("select make_event_partitions($1, $2)", first_day, months)
        return made
    finally:
        await connection.close()
