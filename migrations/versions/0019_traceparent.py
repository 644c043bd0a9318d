"""traceparent of videos and deliveries

The trace that a job belongs to. Nullable and without a default, so no row is rewritten: writes wait for milliseconds,
however many rows there are.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("videos", "deliveries"):
        op.add_column(table, sa.Column("traceparent", sa.String(), nullable=True))


def downgrade() -> None:
    for table in ("deliveries", "videos"):
        op.drop_column(table, "traceparent")
