"""Every table. A row of `videos` is what a client sees, a row of `attempts` is one task at one upstream.

Only `jobs.py` writes a status or a state, only `keys.py` writes keys. Invariants that must never break are constraints
of the database, not habits of the code.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Enum, ForeignKey, Index, MetaData, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.video import AttemptState, Status


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    # psycopg stores an aware datetime in a naive column without a word; so there are no naive columns.
    type_annotation_map = {  # noqa: RUF012
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
        list[str]: JSONB,
        Status: Enum(Status, native_enum=False, create_constraint=False, length=16),
        AttemptState: Enum(AttemptState, native_enum=False, create_constraint=False, length=16),
    }


def _one_of(column: str, values: type[Status] | type[AttemptState]) -> str:
    return f"{column} in ({', '.join(repr(str(value)) for value in values)})"


class Video(Base):
    """One job. Reading one never needs another table nor an upstream."""

    __tablename__ = "videos"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    """Who may see it: the owner of the key it was created with."""
    dialect: Mapped[str]
    """The door it came in by."""
    status: Mapped[Status]
    """What the client sees."""
    progress: Mapped[int] = mapped_column(default=0)
    """0 to 100, the mean over the outputs; 100 only when completed."""
    model: Mapped[str]
    """The model as the client named it."""
    request: Mapped[dict[str, Any]]
    """The whole `VideoRequest`."""
    routes: Mapped[list[str]]
    """`provider/upstream-model` candidates in order, fixed at create."""
    outputs: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    """Stored files: key, size, sha256, content_type, width, height, duration_s, index."""
    provider: Mapped[str | None]
    """The provider of the attempt that came furthest."""
    upstream_model: Mapped[str | None]
    warnings: Mapped[list[str]] = mapped_column(default=list)
    """What was dropped from the request, in words for the client."""
    source_video_id: Mapped[str | None]
    """The video that a remix, an edit or an extension started from; it may be deleted by now."""
    cost_estimate_micros: Mapped[int | None] = mapped_column(BigInteger)
    """What it was expected to cost, in millionths of a US dollar; None: no price is known, which is not zero."""
    cost_micros: Mapped[int | None] = mapped_column(BigInteger)
    """What the stored outputs cost by their real length; None: nothing stored yet, or no price known."""
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    """The client's; unique for each owner while the video exists."""
    idempotency_hash: Mapped[str | None]
    """Of the request that came with the key."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    """When it ended well; a failed job has none."""
    ended_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime]
    """When a job that has not ended fails."""
    expires_at: Mapped[datetime | None]
    """When the files go; None: kept for ever, or not completed yet."""
    deleted_at: Mapped[datetime | None]
    """Deleted by the client; gone from every answer, the row follows its files and upstream tasks."""

    __table_args__ = (
        CheckConstraint(_one_of("status", Status), "status"),
        CheckConstraint("progress between 0 and 100", "progress"),
        CheckConstraint("(status = 'completed') = (completed_at is not null)", "completed_at"),
        CheckConstraint("(status = 'failed') = (error_code is not null)", "error"),
        CheckConstraint("(status in ('completed', 'failed')) = (ended_at is not null)", "ended_at"),
        Index("ix_videos_owner_id", "owner", "id", postgresql_where=text("deleted_at is null")),
        Index(
            "uq_videos_idempotency",
            "owner",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key is not null"),
        ),
        Index("ix_videos_expires_at", "expires_at", postgresql_where=text("outputs <> '[]'")),
        Index("ix_videos_deleted_at", "deleted_at", postgresql_where=text("deleted_at is not null")),
    )


LIVE = (AttemptState.pending, AttemptState.submitting, AttemptState.running, AttemptState.storing)
"""States in which a worker has something to do."""
_LIVE_SQL = f"state in ({', '.join(repr(str(state)) for state in LIVE)})"


class Attempt(Base):
    """One task at one upstream: each output of a video and each fail-over is a row of its own.

    What it was sent with is pinned here, so that polling goes on when a model is taken out of the configuration.
    """

    __tablename__ = "attempts"

    id: Mapped[str] = mapped_column(primary_key=True)
    """Also the idempotency key at upstreams that have one."""
    video_id: Mapped[str] = mapped_column(ForeignKey("videos.id", ondelete="CASCADE"), index=True)
    owner: Mapped[str]
    """Copied from the video, so that claims can take turns between owners."""
    output_index: Mapped[int]
    """Which of the `n` outputs it makes."""
    route_index: Mapped[int]
    """Which of the video's routes it goes."""
    state: Mapped[AttemptState]
    provider: Mapped[str]
    upstream_model: Mapped[str]
    base_url: Mapped[str | None]
    """Where it was sent; pinned at submit."""
    credential: Mapped[str | None]
    """Fingerprint of the key it was sent with."""
    upstream_ref: Mapped[str | None]
    """The upstream's name for the task."""
    upstream_status: Mapped[str | None]
    """The upstream's last word, as it was."""
    progress: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime]
    """When there is something to do. Claiming moves it to the end of the lease: a dead worker's attempt comes due
    again by itself."""
    lease: Mapped[str | None]
    """Who holds it; every write of a worker expects its own."""
    submits: Mapped[int] = mapped_column(default=0)
    """Submits begun."""
    polls: Mapped[int] = mapped_column(default=0)
    """Polls answered."""
    strikes: Mapped[int] = mapped_column(default=0)
    """Times in a row the upstream said it does not know the task, or the file could not be fetched."""
    cancel_tried: Mapped[bool] = mapped_column(default=False)
    """Whether the upstream was asked to stop after the job had ended without it."""
    cost_micros: Mapped[int | None] = mapped_column(BigInteger)
    """What this output cost, in millionths of a US dollar; None: not finished, or no price known."""
    output: Mapped[dict[str, Any] | None]
    """Where the finished file is to be had, an `Output`."""
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    error_body: Mapped[str | None]
    """What the upstream said, trimmed and without secrets; for the operator."""
    created_at: Mapped[datetime]
    submitted_at: Mapped[datetime | None]
    accepted_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(_one_of("state", AttemptState), "state"),
        CheckConstraint("state not in ('running', 'storing') or upstream_ref is not null", "ref"),
        CheckConstraint("state <> 'storing' or output is not null", "output"),
        CheckConstraint(f"({_LIVE_SQL}) = (ended_at is null)", "ended_at"),
        Index("ix_attempts_due_at", "state", "due_at", postgresql_where=text(_LIVE_SQL)),
        # For the claim: whose turn it is, and how many each provider has under way.
        Index("ix_attempts_pending", "provider", "owner", "due_at", "id", postgresql_where=text("state = 'pending'")),
        Index(
            "ix_attempts_under_way",
            "provider",
            "owner",
            postgresql_where=text("state in ('submitting', 'running')"),
        ),
        Index("uq_attempts_live", "video_id", "output_index", unique=True, postgresql_where=text(_LIVE_SQL)),
    )


class ProviderHealth(Base):
    """The circuit breaker of a provider, shared by all processes; see `breaker.py`."""

    __tablename__ = "provider_health"

    name: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int]
    """Times in a row that it could not be reached or failed by itself."""
    open_until: Mapped[datetime | None]
    """Nothing is submitted before then; afterwards one call tries whether it is back."""


class Key(Base):
    """An API key; the key itself is nowhere."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    owner: Mapped[str]
    """Whose videos it sees; keys with the same owner share everything."""
    hash: Mapped[str] = mapped_column(unique=True)
    """HMAC-SHA256 of the key with the server's pepper, hex."""
    hint: Mapped[str]
    """The last four characters, to tell keys apart."""
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class Character(Base):
    """A reusable character that an upstream made; only that upstream can use it."""

    __tablename__ = "characters"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    name: Mapped[str]
    provider: Mapped[str]
    upstream_ref: Mapped[str]
    """The upstream's id for it."""
    created_at: Mapped[datetime]
