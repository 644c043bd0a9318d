"""audit log

The table of the changes by operators, and the trigger that lets it only grow. No table that exists is touched.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from app.db.migrate import create_functions

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

INDEXES = {"at": [], "actor": ["actor"], "action": ["action"], "subject": ["subject"], "project_id": ["project_id"]}


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_kind", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=True),
        sa.Column("before", JSONB(none_as_null=True), nullable=True),
        sa.Column("after", JSONB(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    for name, columns in INDEXES.items():
        op.create_index(f"ix_audit_{name}", "audit", [*columns, "at", "id"])
    create_functions("audit_only_grows")


def downgrade() -> None:
    op.drop_table("audit")
    op.execute("drop function gateway_audit_only_grows()")
