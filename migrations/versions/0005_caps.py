"""caps

What may be charged at most, and the indexes of the claim, of deadlines and of finished tasks without a file. Restart
workers of an older release: their prepared statements do not fit the new columns.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UNDER_WAY = "state in ('submitting', 'running')"
NO_FILE = "error_code in ('no_output', 'output_gone', 'output_unavailable', 'output_incomplete')"


def upgrade() -> None:
    # Indexes first: until the columns are added, only writes wait.
    _under_way("ix_attempts_under_way_", f"{UNDER_WAY} or (state = 'pending' and lease is not null)")
    op.create_index("ix_videos_deadline_at", "videos", ["deadline_at"], postgresql_where=sa.text("ended_at is null"))
    op.create_index(
        "ix_attempts_no_file", "attempts", ["ended_at"], postgresql_where=sa.text(f"state = 'failed' and {NO_FILE}")
    )
    op.drop_index("ix_attempts_under_way", "attempts")
    op.execute("alter index ix_attempts_under_way_ rename to ix_attempts_under_way")
    op.add_column("videos", sa.Column("longest_s", sa.Float()))
    op.add_column("attempts", sa.Column("uncapped_micros", sa.BigInteger()))
    op.add_column("attempts", sa.Column("free", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    op.drop_index("ix_attempts_no_file", "attempts")
    op.drop_index("ix_videos_deadline_at", "videos")
    op.drop_index("ix_attempts_under_way", "attempts")
    _under_way("ix_attempts_under_way", UNDER_WAY)
    op.drop_column("attempts", "free")
    op.drop_column("attempts", "uncapped_micros")
    op.drop_column("videos", "longest_s")


def _under_way(name: str, where: str) -> None:
    op.create_index(name, "attempts", ["provider", "project_id"], postgresql_where=sa.text(where))
