"""request id of a video

The id of the request that created a video, which is in the log. Nullable and without a default, so no row is rewritten:
writes wait for milliseconds, however many videos there are.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("videos", sa.Column("request_id", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("videos", "request_id")
