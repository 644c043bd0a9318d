"""usage

Summed days of usage with the triggers that reopen them, the ends of deleted videos, and the last use of keys. All tables
are new and empty; writes wait only while the triggers are created. The worker sums the days of an old installation
afterwards, a few at a time.
"""

import sqlalchemy as sa
from alembic import op

from app.db.migrate import create_functions

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "closed_days",
        sa.Column("day", sa.Date(), nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_closed_days")),
    )
    op.create_table(
        "usage_days",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        *(sa.Column(name, sa.String()) for name in ("key_id", "model", "provider", "app", "video_id")),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("outputs", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("cost_micros", sa.BigInteger(), nullable=False),
        sa.Column("unpriced", sa.Integer(), nullable=False),
        sa.Column("reported_micros", sa.BigInteger(), nullable=False),
        sa.Column("underpriced_micros", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("completed", "failed", "cancelled")),
        sa.Column("duration_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_days")),
    )
    op.create_index("ix_usage_days_day", "usage_days", ["day", "project_id"])
    op.create_table(
        "deleted_videos",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("provider", sa.String()),
        sa.Column("error_code", sa.String()),
        sa.Column("duration_s", sa.Double(), nullable=False),
        sa.CheckConstraint("duration_s >= 0", name=op.f("ck_deleted_videos_duration_s")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deleted_videos")),
    )
    op.create_table(
        "key_uses",
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_key_uses")),
    )
    create_functions("keep_end", "reopen_day")


def downgrade() -> None:
    for name in ("keep_end", "entry_reopens_day", "end_reopens_day", "reopen_day"):
        op.execute(f"drop function gateway_{name} cascade")
    for table in ("key_uses", "deleted_videos", "usage_days", "closed_days"):
        op.drop_table(table)
