"""Alembic's environment: one connection, handed in by db.migrate, under a lock and lock timeouts."""

from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import Script
from sqlalchemy import text
from sqlmodel import SQLModel

import db.tables  # noqa: F401 - declares the tables on the metadata below

DECLARED_SINCE = "0005"


def declare(ctx: MigrationContext, step: MigrationInfo, *_: Any, **__: Any) -> None:
    """Say, in the migration's own transaction, from which revision on code works with the schema it made (X-38).

    One that does not say is taken to work with its own code alone.
    """
    made = step.up_revision
    if isinstance(made, Script) and made.revision >= DECLARED_SINCE and ctx.connection is not None:
        oldest = getattr(made.module, "oldest_code", None)
        ctx.connection.execute(text("update alembic_version set oldest_code = :oldest"), {"oldest": oldest})


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    transaction_per_migration=True,
    on_version_apply=declare,
)
with context.begin_transaction():
    context.run_migrations()
