"""Regrades, excuses and reopenings: what a correction speaks of, other than one event by its id."""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widen `correction`; a process of the release before goes on writing voids into it."""
    sql = Path(__file__).parent.parent.joinpath("0004_corrections.sql").read_text(encoding="utf-8")
    driver_connection = op.get_bind().connection.dbapi_connection
    assert driver_connection is not None
    driver_connection.run_async(lambda driver: driver.execute(sql))


def downgrade() -> None:
    """Later rows speak of what the old columns cannot hold: restore a backup instead."""
    raise RuntimeError("corrections of submissions and items have no place in the schema before")
