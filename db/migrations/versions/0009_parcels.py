"""Events ride in their outbox rows."""

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
oldest_code = "0004"  # a column more, which may be null: older code writes none and reads none


def upgrade() -> None:
    """Add the column: a change of the catalog alone, no row is written."""
    sql = Path(__file__).parent.parent.joinpath("0009_parcels.sql").read_text(encoding="utf-8")
    driver_connection = op.get_bind().connection.dbapi_connection
    assert driver_connection is not None
    driver_connection.run_async(lambda driver: driver.execute(sql))


def downgrade() -> None:
    """Nothing needs to go back: the release before reads and writes the same tables."""
