"""Videos, their attempts, characters, and the state of each provider's circuit breaker."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.models.base import Base, value_check
from app.video import AttemptState, Settlement, Status


class Video(Base):
    """One job. Reading one never needs another table nor an upstream."""

    __tablename__ = "videos"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    """Who may see it: the project of the key it was created with."""
    key_id: Mapped[str] = mapped_column(server_default="")
    """The key it was created with, whose limits it counts against."""
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
    prices: Mapped[list[Any]] = mapped_column(server_default="[]")
    """Micros per second of each of the routes as they were at create, None where no price is known: what a job costs
    does not change under its hands."""
    hold_micros: Mapped[int | None] = mapped_column(BigInteger)
    """What is held for each output until it is settled: the most that any of the routes may cost. None: no price."""
    cost_micros: Mapped[int | None] = mapped_column(BigInteger)
    """What its outputs cost by their real length; None: nothing settled yet, or no price known."""
    settlement: Mapped[Settlement] = mapped_column(server_default=Settlement.held)
    """Whether something of it may still cost money, which can outlive its status."""
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    """The client's; unique for each project while the video exists."""
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
        CheckConstraint(value_check("status", Status), "status"),
        CheckConstraint(value_check("settlement", Settlement), "settlement"),
        CheckConstraint("progress between 0 and 100", "progress"),
        CheckConstraint("(status = 'completed') = (completed_at is not null)", "completed_at"),
        CheckConstraint("(status = 'failed') = (error_code is not null)", "error"),
        CheckConstraint("(status in ('completed', 'failed')) = (ended_at is not null)", "ended_at"),
        Index("ix_videos_project_id", "project_id", "id", postgresql_where=text("deleted_at is null")),
        Index("ix_videos_running", "key_id", postgresql_where=text("ended_at is null")),
        Index(
            "uq_videos_idempotency",
            "project_id",
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
    project_id: Mapped[str]
    """Copied from the video, so that claims can take turns between projects."""
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
    consecutive_failures: Mapped[int] = mapped_column(default=0)
    """Times in a row the upstream said it does not know the task, or the file could not be fetched."""
    cancel_tried: Mapped[bool] = mapped_column(default=False)
    """Whether the upstream was asked to stop after the job had ended without it."""
    settlement: Mapped[Settlement] = mapped_column(server_default=Settlement.held)
    """What became of the money that the video holds for this output."""
    cost_micros: Mapped[int | None] = mapped_column(BigInteger)
    """What this output cost, in millionths of a US dollar; None: not settled, or no price known."""
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
        CheckConstraint(value_check("state", AttemptState), "state"),
        CheckConstraint("state not in ('running', 'storing') or upstream_ref is not null", "ref"),
        CheckConstraint(value_check("settlement", Settlement), "settlement"),
        CheckConstraint(f"not ({_LIVE_SQL}) or settlement = 'held'", "held"),
        CheckConstraint("state <> 'storing' or output is not null", "output"),
        CheckConstraint(f"({_LIVE_SQL}) = (ended_at is null)", "ended_at"),
        Index("ix_attempts_due_at", "state", "due_at", postgresql_where=text(_LIVE_SQL)),
        # For the claim: whose turn it is, and how many each provider has under way.
        Index(
            "ix_attempts_pending", "provider", "project_id", "due_at", "id", postgresql_where=text("state = 'pending'")
        ),
        Index(
            "ix_attempts_under_way",
            "provider",
            "project_id",
            postgresql_where=text("state in ('submitting', 'running')"),
        ),
        # Ended without a word about the money: lost ones, until somebody decides, and what older releases left behind.
        Index("ix_attempts_open", "ended_at", postgresql_where=text("ended_at is not null and settlement = 'held'")),
        Index("ix_attempts_held", "video_id", postgresql_where=text("settlement = 'held'")),
        Index("ix_attempts_late", "ended_at", postgresql_where=text("state = 'lost' and upstream_ref is not null")),
        Index("ix_attempts_ref", "provider", "upstream_ref", postgresql_where=text("upstream_ref is not null")),
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


class Character(Base):
    """A reusable character that an upstream made; only that upstream can use it."""

    __tablename__ = "characters"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    name: Mapped[str]
    provider: Mapped[str]
    upstream_ref: Mapped[str]
    """The upstream's id for it."""
    created_at: Mapped[datetime]
