"""kinds of a project, highest cost of a request of a key

The kinds of provider that a project's requests may go to, and the most that one request of a key may cost.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("kinds", JSONB(none_as_null=True), nullable=True))
    op.add_column("keys", sa.Column("max_cost_micros", sa.BigInteger(), nullable=True))
    op.create_check_constraint("max_cost", "keys", "max_cost_micros >= 0")


def downgrade() -> None:
    op.drop_column("keys", "max_cost_micros")
    op.drop_column("projects", "kinds")
