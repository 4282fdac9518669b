"""The first release: the roster, the log, the outbox and the projections."""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = {"event", "event_key"}
TABLES = (
    "assignment",
    "classroom",
    "classroom_policy",
    "classroom_state",
    "concept",
    "concept_prerequisite",
    "conflict",
    "correction",
    "dead_letter",
    "enrollment",
    "event",
    "event_key",
    "guardian_link",
    "outbox",
    "person",
    "risk_change",
    "risk_flag",
    "school",
    "standing",
    "student",
    "student_state",
    "subject",
    "tenant",
    "tenant_head",
    "unrostered",
    "view_state",
    "work",
)


def upgrade() -> None:
    """Create every table, its wall between tenants, and the rights of the processes' role."""
    connection = op.get_bind()
    sql = Path(__file__).parent.parent.joinpath("0001_spine.sql").read_text(encoding="utf-8")
    # The driver's own execute: SQLAlchemy prepares each statement, and a prepared one holds one command only.
    driver_connection = connection.connection.dbapi_connection
    assert driver_connection is not None
    driver_connection.run_async(lambda driver: driver.execute(sql))
    for table in TABLES:
        rights = "select, insert" if table in APPEND_ONLY else "select, insert, update, delete"
        connection.execute(text(f'grant {rights} on "{table}" to sightline_app'))
        connection.execute(text(f'alter table "{table}" enable row level security'))
        connection.execute(
            text(
                f'create policy one_tenant on "{table}" using '
                "(tenant = nullif(current_setting('sightline.tenant', true), '')::bigint)"
            )
        )
    connection.execute(text("grant select on alembic_version to sightline_app"))  # /ready asks for it
    connection.execute(text("select make_event_partitions((now() - interval '1 month')::date, 5)"))


def downgrade() -> None:
    """There is nothing before the first release: drop the database instead."""
    raise RuntimeError("the first migration has no way back; drop the database")
