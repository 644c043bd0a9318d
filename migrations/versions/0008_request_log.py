"""request log

The purge of payloads, and the indexes of the request log. Writes to videos wait while the indexes are built, one to
three seconds for each 100,000 videos.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SHOWN = "deleted_at is null"
ENDS = {
    "completed": "completed_at is not null",
    "failed": "error_code <> 'cancelled'",
    "cancelled": "error_code = 'cancelled'",
}
INDEXES: dict[str, tuple[list[str], str]] = {
    "ix_videos_log": ([], SHOWN),
    "ix_videos_log_key": (["key_id"], SHOWN),
    "ix_videos_log_running": ([], f"ended_at is null and {SHOWN}"),
    **{f"ix_videos_log_{end}": ([], f"{where} and {SHOWN}") for end, where in ENDS.items()},
    **{f"ix_videos_log_key_{end}": (["key_id"], f"{where} and {SHOWN}") for end, where in ENDS.items()},
}


def upgrade() -> None:
    # Indexes first: until the columns are added, only writes wait.
    for name, (columns, where) in INDEXES.items():
        op.create_index(
            name,
            "videos",
            ["project_id", *columns, "created_at", "id"],
            postgresql_include=["cost_micros"],
            postgresql_where=sa.text(where),
        )
    op.add_column("videos", sa.Column("purged_at", sa.DateTime(timezone=True)))
    op.add_column("videos", sa.Column("purge_due_at", sa.DateTime(timezone=True)))
    op.create_index(
        "ix_videos_purge_due_at",
        "videos",
        ["purge_due_at"],
        postgresql_where=sa.text("purge_due_at is not null"),
    )


def downgrade() -> None:
    op.drop_index("ix_videos_purge_due_at", "videos")
    op.drop_column("videos", "purge_due_at")
    op.drop_column("videos", "purged_at")
    for name in reversed(INDEXES):
        op.drop_index(name, "videos")
