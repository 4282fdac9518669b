"""Alembic's environment: one connection, handed in by db.migrate, under a lock and lock timeouts."""

from alembic import context
from sqlmodel import SQLModel

import db.tables  # noqa: F401 - declares the tables on the metadata below

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
