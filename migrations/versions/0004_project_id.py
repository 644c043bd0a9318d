"""project_id

Columns get the words of docs/glossary.md. The functions and triggers are those of app/db/functions from here on: a
migration that changes one edits its file and calls `create_functions` with its name. No process of an older release can use this
schema: stop all of them first.
"""

from importlib import import_module

from alembic import op

from app.db.migrate import create_functions

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COLUMNS = [
    *(
        (table, "owner", "project_id")
        for table in (
            "videos",
            "attempts",
            "characters",
            "keys",
            "ledger",
            "webhook_endpoints",
            "webhook_secrets",
            "deliveries",
        )
    ),
    ("attempts", "strikes", "consecutive_failures"),
    ("deliveries", "lane", "queue_key"),
    ("meters", "subject", "scope"),
]
INDEXES = [
    ("ix_videos_owner_id", "ix_videos_project_id"),
    ("ix_keys_owner", "ix_keys_project_id"),
    ("ix_ledger_owner", "ix_ledger_project_id"),
    ("ix_webhook_endpoints_owner", "ix_webhook_endpoints_project_id"),
]
OLD_FUNCTIONS = ("ring", "ledger_only_grows", "unsettled_stays", "count_money", "meter", "count_jobs", "keys_changed")
NEW_FUNCTIONS = (
    "notify_video",
    "notify_keys",
    "ledger_only_grows",
    "unsettled_stays",
    "count_money",
    "add_to_meter",
    "count_jobs",
)
FILES = ("count_jobs", "count_money", "ledger_only_grows", "notify_keys", "notify_video", "unsettled_stays")
RING = """
create function gateway_ring() returns trigger language plpgsql as $$
begin
  perform pg_notify('gateway_videos', new.id);
  return null;
end
$$;
create trigger ring after update on videos for each row
when (old.status is distinct from new.status or old.progress is distinct from new.progress)
execute function gateway_ring();
"""


def upgrade() -> None:
    for name in OLD_FUNCTIONS:
        op.execute(f"drop function gateway_{name} cascade")
    for table, old, new in COLUMNS:
        op.alter_column(table, old, new_column_name=new)
    for old, new in INDEXES:
        op.execute(f"alter index {old} rename to {new}")
    op.execute("alter table keys rename constraint fk_keys_owner to fk_keys_project_id")
    create_functions(*FILES)


def downgrade() -> None:
    for name in NEW_FUNCTIONS:
        op.execute(f"drop function gateway_{name} cascade")
    op.execute("alter table keys rename constraint fk_keys_project_id to fk_keys_owner")
    for old, new in INDEXES:
        op.execute(f"alter index {new} rename to {old}")
    for table, old, new in COLUMNS:
        op.alter_column(table, new, new_column_name=old)
    before = import_module("migrations.versions.0003_owners_and_money")
    op.execute(RING)
    for name in ("LEDGER_ONLY_GROWS", "UNSETTLED_STAYS", "METERS", "CONCURRENT_JOBS", "KEYS_CHANGED"):
        op.execute(getattr(before, name))
