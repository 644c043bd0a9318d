"""events of a project

Notices of the videos of a project, and an index of the videos that ended in a time. Writes to videos wait while the
index is built, about half a second for each million videos.
"""

import sqlalchemy as sa
from alembic import op

from app.db.migrate import create_functions

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# As it was before, for a downgrade; the functions themselves are always those of the files.
ONLY_WAITERS = """
create or replace function gateway_notify_video() returns trigger language plpgsql as $$
begin
  perform pg_notify('gateway_videos', new.id);
  return null;
end $$;
create or replace trigger notify_video after update on videos for each row
when (old.status is distinct from new.status or old.progress is distinct from new.progress)
execute function gateway_notify_video();
"""


def upgrade() -> None:
    op.create_index(
        "ix_videos_ended_at", "videos", ["ended_at", "project_id"], postgresql_where=sa.text("ended_at is not null")
    )
    create_functions("notify_video")


def downgrade() -> None:
    op.execute(ONLY_WAITERS)
    op.drop_index("ix_videos_ended_at", "videos")
