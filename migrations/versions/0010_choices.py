"""choices

The routes that could serve a request, each with the reason for its place.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("videos", sa.Column("choices", JSONB, server_default="[]", nullable=False))


def downgrade() -> None:
    op.drop_column("videos", "choices")
