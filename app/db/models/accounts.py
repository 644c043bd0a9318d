"""Projects, keys, limits and the ledger."""

from datetime import date, datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db.models.base import Base, value_check
from app.video import Billing, Entry


class Project(Base):
    """Who keys, videos, webhooks and money belong to; its id is the `project_id` of all of them."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    billing: Mapped[Billing]
    """Prepaid: nothing is made that the balance of the ledger does not cover."""
    monthly_budget_micros: Mapped[int | None] = mapped_column(BigInteger)
    """What all its keys may spend together in a calendar month, UTC; None: as much as they like."""
    created_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint(value_check("billing", Billing), "billing"),
        CheckConstraint("monthly_budget_micros >= 0", "monthly_budget"),
    )


class Key(Base):
    """An API key; the key itself is nowhere. Limits that are None do not limit."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    """The project whose videos it sees; keys of one project share everything."""
    hash: Mapped[str] = mapped_column(unique=True)
    """HMAC-SHA256 of the key with the server's pepper, hex."""
    hint: Mapped[str]
    """The last four characters, to tell keys apart."""
    models: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))
    """Patterns such as `lumen/*`: the models it may ask for."""
    requests_per_minute: Mapped[int | None]
    concurrent_jobs: Mapped[int | None]
    """Videos that may be under way at once."""
    monthly_budget_micros: Mapped[int | None] = mapped_column(BigInteger)
    """What it may spend in a calendar month, UTC."""
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("requests_per_minute > 0", "requests_per_minute"),
        CheckConstraint("concurrent_jobs > 0", "concurrent_jobs"),
        CheckConstraint("monthly_budget_micros >= 0", "monthly_budget"),
    )


class RequestRate(Base):
    """How full the bucket of requests of a limited key is. Not logged: after a crash of the server it is empty."""

    __tablename__ = "request_rates"

    key_id: Mapped[str] = mapped_column(primary_key=True)
    spent: Mapped[float]
    """Requests that have not trickled out yet."""
    at: Mapped[datetime]
    """When that was."""
    allowed: Mapped[bool]
    """Whether the last request was let through."""

    __table_args__ = ({"prefixes": ["UNLOGGED"]},)


class LedgerEntry(Base):
    """One movement of money, never changed and never deleted. The entries of a video add up to minus what it cost, and
    what is still held for it."""

    __tablename__ = "ledger"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    """The project."""
    kind: Mapped[Entry]
    amount_micros: Mapped[int | None] = mapped_column(BigInteger)
    """What the project has more by it, less when negative; None: no price is known, which is not zero."""
    key_id: Mapped[str | None]
    video_id: Mapped[str | None] = mapped_column(index=True)
    """No reference: entries outlive the video."""
    attempt_id: Mapped[str | None]
    cost_micros: Mapped[int | None] = mapped_column(BigInteger)
    """What an output cost; with `settle` only, None there: no price was known."""
    seconds: Mapped[float | None]
    """The length an output was settled by."""
    model: Mapped[str | None]
    """As the client named it."""
    provider: Mapped[str | None]
    upstream_model: Mapped[str | None]
    app: Mapped[str | None]
    """The caller's word for the application, `X-App-ID`."""
    end_user: Mapped[str | None]
    """The caller's word for its end user, `user`."""
    day: Mapped[date]
    """What the money counts for, UTC: the day the job was created, whenever it is settled."""
    note: Mapped[str | None]
    """Why, where it was not the usual course; for `credit` the operator's reference, which is credited once."""
    created_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint(value_check("kind", Entry), "kind"),
        CheckConstraint("kind = 'credit' or video_id is not null", "video"),
        CheckConstraint("kind = 'settle' or cost_micros is null", "cost"),
        # No task is charged for twice, however many workers try.
        Index("uq_ledger_attempt", "attempt_id", unique=True, postgresql_where=text("kind = 'settle'")),
        Index("uq_ledger_credit", "project_id", "note", unique=True, postgresql_where=text("kind = 'credit'")),
        Index("ix_ledger_day", "day", "project_id"),
        Index("ix_ledger_project_id", "project_id", "day"),
        Index("ix_ledger_key_id", "key_id", "day"),
    )


class Meter(Base):
    """What a limited key or project has spent: the sum of its ledger entries, kept by a trigger so that a create need
    not add them up. Where there is no limit there is no meter."""

    __tablename__ = "meters"

    scope: Mapped[str] = mapped_column(primary_key=True)
    """The id of the key, or of the project after `project:`; those of old installations have the ids of keys."""
    month: Mapped[date] = mapped_column(primary_key=True)
    """The first of it; 0001-01-01 for the balance of a prepaid project, which has no month."""
    spent_micros: Mapped[int] = mapped_column(BigInteger)
    """Held and settled; of a prepaid project less its credit, so that minus this is the balance."""
