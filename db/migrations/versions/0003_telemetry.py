"""What the metrics read across tenants: depth and age of the queue, months of the log."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add three functions; no table is touched, so no lock is waited for."""
    connection = op.get_bind()
    sql = Path(__file__).parent.parent.joinpath("0003_telemetry.sql").read_text(encoding="utf-8")
    driver_connection = connection.connection.dbapi_connection
    assert driver_connection is not None
    driver_connection.run_async(lambda driver: driver.execute(sql))


def downgrade() -> None:
    """Take them away."""
    op.execute("drop function queue_depth(integer), oldest_waiting(), partitions_ahead(date)")
