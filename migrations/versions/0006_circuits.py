"""circuits

A circuit breaker for each project at a provider, besides that of all projects. Restart workers of an older release:
their circuit breakers fail at the new table, which they log; their jobs go on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("lock table provider_health in access exclusive mode")  # a worker may write to it meanwhile
    op.execute("delete from provider_health")  # counts of failures in a row, which start again
    op.add_column("provider_health", sa.Column("project_id", sa.String(), nullable=False))
    op.add_column("provider_health", sa.Column("failed_project", sa.String(), nullable=False))
    op.add_column("provider_health", sa.Column("probe_project", sa.String()))
    op.drop_constraint("pk_provider_health", "provider_health", type_="primary")
    op.create_primary_key("pk_provider_health", "provider_health", ["name", "project_id"])
    op.create_index(
        "ix_attempts_finished", "attempts", ["project_id", "due_at"], postgresql_where=sa.text("state = 'storing'")
    )


def downgrade() -> None:
    op.drop_index("ix_attempts_finished", "attempts")
    op.execute("delete from provider_health")
    op.drop_constraint("pk_provider_health", "provider_health", type_="primary")
    for name in ("probe_project", "failed_project", "project_id"):
        op.drop_column("provider_health", name)
    op.create_primary_key("pk_provider_health", "provider_health", ["name"])
