"""filters

The billed length of a video, and the indexes of lists with filters: those of the request log, with that length, and the
same by model. Reads and writes of videos wait meanwhile: each 100,000 videos take about 7 seconds of processor time, and took 33
seconds on a machine with seven times as much to do as it had processors (11 minutes for 2,000,000).

A worker of the release before settles without the length: let it end before the sums of lengths have to be right.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

SHOWN = "deleted_at is null"
CONDITIONS = {
    "": SHOWN,
    "_completed": f"completed_at is not null and {SHOWN}",
    "_failed": f"error_code <> 'cancelled' and {SHOWN}",
    "_cancelled": f"error_code = 'cancelled' and {SHOWN}",
}
BY = {"": [], "_key": ["key_id"], "_model": ["model"], "_key_model": ["key_id", "model"]}
BEFORE = ("", "_key")
"""Those that the release before had."""
RUNNING = ("ix_videos_log_running", [], f"ended_at is null and {SHOWN}")
LENGTHS = """
update videos set billed_s = settled.seconds
from (
  select video_id, sum(seconds) as seconds from ledger where kind = 'settle' and seconds is not null group by video_id
) as settled
where settled.video_id = videos.id
"""


def indexes(by: tuple[str, ...]) -> list[tuple[str, list[str], str]]:
    family = [(f"ix_videos_log{one}{end}", BY[one], where) for one in by for end, where in CONDITIONS.items()]
    return [*family, RUNNING]


def create(by: tuple[str, ...], sums: list[str]) -> None:
    for name, columns, where in indexes(by):
        op.create_index(
            name,
            "videos",
            ["project_id", *columns, "created_at", "id"],
            postgresql_include=sums,
            postgresql_where=sa.text(where),
        )


def drop(by: tuple[str, ...]) -> None:
    for name, _, _ in indexes(by):
        op.drop_index(name, "videos")


def upgrade() -> None:
    drop(BEFORE)  # first, so that the update need not write them
    op.add_column("videos", sa.Column("billed_s", sa.Float()))
    op.execute(LENGTHS)
    create(tuple(BY), ["cost_micros", "billed_s"])


def downgrade() -> None:
    drop(tuple(BY))
    op.drop_column("videos", "billed_s")
    create(BEFORE, ["cost_micros"])
