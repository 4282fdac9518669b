"""Work in the background, drift reports, attempts at batches; conflicts keep what was sent, so it can replace."""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = ("job", "drift_report", "claim")


def upgrade() -> None:
    """Only adds: processes of the first release go on beside it."""
    connection = op.get_bind()
    sql = Path(__file__).parent.parent.joinpath("0002_jobs.sql").read_text(encoding="utf-8")
    driver_connection = connection.connection.dbapi_connection
    assert driver_connection is not None
    driver_connection.run_async(lambda driver: driver.execute(sql))
    for table in TABLES:
        connection.execute(text(f'grant select, insert, update, delete on "{table}" to sightline_app'))
        connection.execute(text(f'alter table "{table}" enable row level security'))
        connection.execute(
            text(
                f'create policy one_tenant on "{table}" using '
                "(tenant = nullif(current_setting('sightline.tenant', true), '')::bigint)"
            )
        )


def downgrade() -> None:
    """Expand only: the release before it does not mind what was added."""
    raise RuntimeError("0002 has no way back; the release before it runs on this schema as it is")
