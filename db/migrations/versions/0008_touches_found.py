"""Touches that wait are found by their class."""

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
oldest_code = "0004"  # an index more: older code reads and writes the same


def upgrade() -> None:
    """Add the index; the outbox is small but for a backlog, and whoever records waits no longer than it takes."""
    sql = Path(__file__).parent.parent.joinpath("0008_touches_found.sql").read_text(encoding="utf-8")
    driver_connection = op.get_bind().connection.dbapi_connection
    assert driver_connection is not None
    driver_connection.run_async(lambda driver: driver.execute(sql))


def downgrade() -> None:
    """Nothing needs to go back: the release before reads and writes the same tables."""
