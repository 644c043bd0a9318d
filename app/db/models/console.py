"""Sessions of the console and one-time links that open one."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db.models.base import Base, value_check
from app.video import SessionKind


class ConsoleSession(Base):
    """A signed-in browser. It holds no key: each request checks that the key it was opened with is still valid."""

    __tablename__ = "console_sessions"

    id_hash: Mapped[str] = mapped_column(primary_key=True)
    """SHA-256 of the id in the browser's cookie, hex."""
    kind: Mapped[SessionKind]
    key_hash: Mapped[str]
    """HMAC of the API key or the admin key that opened it, as `keys.hash`."""
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    """Time of the last use, to the minute."""
    expires_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint(value_check("kind", SessionKind), "kind"),
        Index("ix_console_sessions_key_hash", "key_hash"),
        Index("ix_console_sessions_expires_at", "expires_at"),
    )


class ConsoleLink(Base):
    """A link that opens one session, once."""

    __tablename__ = "console_links"

    code_hash: Mapped[str] = mapped_column(primary_key=True)
    """SHA-256 of the code in the link, hex."""
    kind: Mapped[SessionKind]
    key_hash: Mapped[str]
    expires_at: Mapped[datetime]

    __table_args__ = (CheckConstraint(value_check("kind", SessionKind), "kind"),)
