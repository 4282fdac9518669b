"""Releases side by side, daily snapshots, and what is forgotten in time."""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
oldest_code = "0004"  # only adds; what it adds has defaults


def upgrade() -> None:
    """Only adds: processes of the release before go on beside it."""
    connection = op.get_bind()
    sql = Path(__file__).parent.parent.joinpath("0005_keeping.sql").read_text(encoding="utf-8")
    driver_connection = connection.connection.dbapi_connection
    assert driver_connection is not None
    driver_connection.run_async(lambda driver: driver.execute(sql))
    connection.execute(text("grant select, insert, update, delete on daily_index to sightline_app"))
    connection.execute(text("alter table daily_index enable row level security"))
    connection.execute(
        text(
            "create policy one_tenant on daily_index using "
            "(tenant = nullif(current_setting('sightline.tenant', true), '')::bigint)"
        )
    )


def downgrade() -> None:
    """Expand only: the release before it does not mind what was added."""
    raise RuntimeError("0005 has no way back; the release before it runs on this schema as it is")
