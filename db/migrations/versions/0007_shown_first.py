"""A change of policy is shown before it is made; months of the log are made beside readers."""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
oldest_code = "0004"  # one more column that may be null: older code leaves jobs of this kind to newer workers


def upgrade() -> None:
    """Add the column, written for one kind of job only, and replace the function that makes months."""
    sql = Path(__file__).parent.parent.joinpath("0007_shown_first.sql").read_text(encoding="utf-8")
    driver_connection = op.get_bind().connection.dbapi_connection
    assert driver_connection is not None
    driver_connection.run_async(lambda driver: driver.execute(sql))


def downgrade() -> None:
    """Nothing needs to go back: the release before reads and writes the same tables."""
