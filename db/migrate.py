"""Bring a database to the newest schema: the sum of the migrations, under one lock."""

import asyncio
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Schema:
    """The revision a database stands at, and the oldest one whose code works with it; None where it does not say."""

    revision: str | None = None
    oldest_code: str | None = None

    def serves(self, code: str) -> bool:
        """Whether code written for this revision works here: the schema is its own, or a newer one that says so.

        Revisions are numbers of one length, so they compare as texts.
        """
        if self.revision is None or self.revision <= code:
            return self.revision == code
        return self.oldest_code is not None and self.oldest_code <= code


# Schemas before 0005 have no such column.
_STANDS_AT = "select v.version_num as revision, to_jsonb(v) ->> 'oldest_code' as oldest_code from alembic_version v"


async def schema_of(connection: asyncpg.Connection) -> Schema:
    """Where the database stands; nowhere before the first migration."""
    if await connection.fetchval("select to_regclass('alembic_version') is null"):
        return Schema()
    row = await connection.fetchrow(_STANDS_AT)
    return Schema(**row) if row else Schema()


async def make_partitions(database_url: str, *, first_day: date, months: int) -> int:
    """Make the log's monthly partitions from the month of `first_day` on; returns how many were missing."""
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        made: int = await connection.fetchval("select make_event_partitions($1, $2)", first_day, months)
        return made
    finally:
        await connection.close()
