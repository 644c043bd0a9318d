"""lists of deliveries

Indexes for the lists of all deliveries of a project, and of failed ones. Writes to deliveries wait while they are
built, two or three seconds for each million of deliveries, which are kept for 30 days.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_deliveries_project_id", "deliveries", ["project_id", "id"])
    op.create_index(
        "ix_deliveries_failed", "deliveries", ["project_id", "id"], postgresql_where=sa.text("state = 'failed'")
    )


def downgrade() -> None:
    op.drop_index("ix_deliveries_failed", "deliveries")
    op.drop_index("ix_deliveries_project_id", "deliveries")
