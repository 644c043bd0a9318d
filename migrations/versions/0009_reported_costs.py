"""reported costs

The cost of a task that its upstream reports, beside ours.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("reported_micros", sa.BigInteger))
    op.add_column("ledger", sa.Column("reported_micros", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("ledger", "reported_micros")
    op.drop_column("attempts", "reported_micros")
