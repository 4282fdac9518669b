"""Standings of classes are found by their views, and stay on their page."""

from pathlib import Path

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
oldest_code = "0004"  # columns with defaults, and another index: older code finds a class's changes among all its rows


def upgrade() -> None:
    """Make the other index and the columns, each for itself: one transaction over all would lock folds and readers."""
    sql = Path(__file__).parent.parent.joinpath("0010_standings_in_place.sql").read_text(encoding="utf-8")
    with op.get_context().autocommit_block():
        for statement in sql.split(";\n")[:-1]:
            op.execute(statement)


def downgrade() -> None:
    """Nothing needs to go back: the release before reads and writes the same tables."""
