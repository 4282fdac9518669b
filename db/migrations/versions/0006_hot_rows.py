"""Rows that a fold writes again and again stay on their page."""

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
oldest_code = "0004"  # an index fewer and room on pages: older code reads and writes the same


def upgrade() -> None:
    """Drop an index that every change had to write, and leave room on the pages of hot rows."""
    sql = Path(__file__).parent.parent.joinpath("0006_hot_rows.sql").read_text(encoding="utf-8")
    driver_connection = op.get_bind().connection.dbapi_connection
    assert driver_connection is not None
    driver_connection.run_async(lambda driver: driver.execute(sql))


def downgrade() -> None:
    """Nothing needs to go back: the release before reads and writes the same tables."""
