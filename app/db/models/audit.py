"""The audit log."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db.models.base import Base


class AuditEntry(Base):
    """One change by an operator, never changed or deleted. No foreign keys: entries outlive what they are about."""

    __tablename__ = "audit"

    id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    actor_kind: Mapped[str]
    """`admin_key` or `cli`."""
    actor: Mapped[str]
    """Name of the admin key, or the system user and the host, `root@gateway-1`."""
    address: Mapped[str | None]
    """Address that the request came from; None for a command."""
    request_id: Mapped[str | None]
    action: Mapped[str]
    """Noun and verb, such as `key.create`."""
    subject: Mapped[str]
    """Id of what was changed."""
    project_id: Mapped[str | None]
    before: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """The fields that were changed, with their values before; None for something new."""
    after: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))

    __table_args__ = (
        Index("ix_audit_at", "at", "id"),
        Index("ix_audit_actor", "actor", "at", "id"),
        Index("ix_audit_action", "action", "at", "id"),
        Index("ix_audit_subject", "subject", "at", "id"),
        Index("ix_audit_project_id", "project_id", "at", "id"),
    )
