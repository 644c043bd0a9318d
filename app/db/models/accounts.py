"""Projects, keys, limits and the ledger."""

from datetime import date, datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db.models.base import Base, value_check
from app.video import Billing, Entry


class Project(Base):
    """The tenant: keys, videos, webhooks and money belong to it by `project_id`."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    billing: Mapped[Billing]
    """Prepaid: a job is refused that the balance of the ledger does not cover."""
    monthly_budget_micros: Mapped[int | None] = mapped_column(BigInteger)
    """Limit for all its keys together in a calendar month, UTC; None: no limit."""
    kinds: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))
    """Kinds of provider that its requests may go to, such as for data residency; None: all."""
    created_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint(value_check("billing", Billing), "billing"),
        CheckConstraint("monthly_budget_micros >= 0", "monthly_budget"),
    )


class Key(Base):
    """An API key, stored as a hash. A limit of None is no limit."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    """The project whose videos it can access; keys of one project share everything."""
    hash: Mapped[str] = mapped_column(unique=True)
    """HMAC-SHA256 of the key with the server's pepper, hex."""
    hint: Mapped[str]
    """The last four characters, to tell keys apart."""
    models: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))
    """Patterns of the models it may use, such as `lumen/*`; None: all."""
    requests_per_minute: Mapped[int | None]
    concurrent_jobs: Mapped[int | None]
    """Limit of unfinished videos."""
    monthly_budget_micros: Mapped[int | None] = mapped_column(BigInteger)
    """Limit in a calendar month, UTC."""
    max_cost_micros: Mapped[int | None] = mapped_column(BigInteger)
    """Highest cost of one request, all outputs; dearer routes are not used."""
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("requests_per_minute > 0", "requests_per_minute"),
        CheckConstraint("concurrent_jobs > 0", "concurrent_jobs"),
        CheckConstraint("monthly_budget_micros >= 0", "monthly_budget"),
        CheckConstraint("max_cost_micros >= 0", "max_cost"),
    )


class RequestRate(Base):
    """Token bucket of a rate-limited key, or of an address that signs in to the console. Unlogged table: empty after a
    crash of the database server."""

    __tablename__ = "request_rates"

    key_id: Mapped[str] = mapped_column(primary_key=True)
    spent: Mapped[float]
    """Tokens in use at the time `at`."""
    at: Mapped[datetime]
    """Time of the last request."""
    allowed: Mapped[bool]
    """True if the last request was allowed."""

    __table_args__ = ({"prefixes": ["UNLOGGED"]},)


class LedgerEntry(Base):
    """One movement of money, never changed or deleted. The entries of a video sum to minus its cost and its current
    holds."""

    __tablename__ = "ledger"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    kind: Mapped[Entry]
    amount_micros: Mapped[int | None] = mapped_column(BigInteger)
    """Change of the project's balance; None: no price is known, which is not zero."""
    key_id: Mapped[str | None]
    video_id: Mapped[str | None] = mapped_column(index=True)
    """No foreign key: entries outlive the video."""
    attempt_id: Mapped[str | None]
    cost_micros: Mapped[int | None] = mapped_column(BigInteger)
    """Cost of an output, for `settle` only; None in a `settle` entry: no price is known."""
    reported_micros: Mapped[int | None] = mapped_column(BigInteger)
    """Cost of an output that the upstream reported, for `settle` only."""
    seconds: Mapped[float | None]
    """Billed length of an output."""
    model: Mapped[str | None]
    """The model as the client named it."""
    provider: Mapped[str | None]
    upstream_model: Mapped[str | None]
    app: Mapped[str | None]
    """Application as the client named it, `X-App-ID`."""
    end_user: Mapped[str | None]
    """End user as the client named it, `user`."""
    day: Mapped[date]
    """The accounting day, UTC: the day the job was created, whenever it is settled."""
    note: Mapped[str | None]
    """Reason of an unusual entry; for `credit` the operator's reference, which is credited once."""
    created_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint(value_check("kind", Entry), "kind"),
        CheckConstraint("kind = 'credit' or video_id is not null", "video"),
        CheckConstraint("kind = 'settle' or cost_micros is null", "cost"),
        # No attempt is charged twice, even by concurrent workers.
        Index("uq_ledger_attempt", "attempt_id", unique=True, postgresql_where=text("kind = 'settle'")),
        Index("uq_ledger_credit", "project_id", "note", unique=True, postgresql_where=text("kind = 'credit'")),
        Index("ix_ledger_day", "day", "project_id"),
        Index("ix_ledger_project_id", "project_id", "day"),
        Index("ix_ledger_key_id", "key_id", "day"),
    )


class Meter(Base):
    """Spending of a limited key or project: the sum of its ledger entries, updated by a trigger so that a create need
    not compute it. Without a limit there is no meter."""

    __tablename__ = "meters"

    scope: Mapped[str] = mapped_column(primary_key=True)
    """Key id, or `project:` and the project id; projects of old installations have the ids of keys."""
    month: Mapped[date] = mapped_column(primary_key=True)
    """First day of the month; 0001-01-01 for the balance of a prepaid project."""
    spent_micros: Mapped[int] = mapped_column(BigInteger)
    """Held and settled money; for the balance minus the credits, so that its negative is the balance."""
