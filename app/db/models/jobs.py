"""Videos, attempts, characters, and circuit breakers."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, false, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.models.base import Base, value_check
from app.video import AttemptState, Settlement, Status

_ENDS = {
    "completed": "completed_at is not null",
    "failed": "error_code <> 'cancelled'",
    "cancelled": "error_code = 'cancelled'",
}


_BY = {"": (), "_key": ("key_id",), "_model": ("model",), "_key_model": ("key_id", "model")}


def _log_index(name: str, *columns: str, where: str = "") -> Index:
    """An index of lists of a project by time, with what is summed. It does not name columns that change while a job
    runs."""
    shown = text(f"{where} and deleted_at is null" if where else "deleted_at is null")
    sums = ["cost_micros", "billed_s"]
    return Index(name, "project_id", *columns, "created_at", "id", postgresql_include=sums, postgresql_where=shown)


class Video(Base):
    """One job. Reading it needs no other table and no upstream."""

    __tablename__ = "videos"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    """The project that may see it: that of the key it was created with."""
    key_id: Mapped[str] = mapped_column(server_default="")
    """The key it was created with, whose limits it counts against."""
    dialect: Mapped[str]
    """The dialect (public API) that created it."""
    request_id: Mapped[str | None]
    """Id of the request that created it, as its `x-request-id` and the log have it; None: made by an older release."""
    traceparent: Mapped[str | None]
    """The span of that request as W3C's header has it, the parent of all spans of the job; None: traces were off."""
    status: Mapped[Status]
    """The status that the client sees."""
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
    """Provider of the attempt that was accepted or stored last; if none, of the last one tried."""
    upstream_model: Mapped[str | None]
    choices: Mapped[list[Any]] = mapped_column(server_default="[]")
    """Routes that could serve the request, kept or passed over, with the reasons; empty: there was only one."""
    warnings: Mapped[list[str]] = mapped_column(default=list)
    """Messages for the client, such as fields that were left out of the request."""
    source_video_id: Mapped[str | None]
    """Source of a remix, an edit or an extension; it may be deleted."""
    cost_estimate_micros: Mapped[int | None] = mapped_column(BigInteger)
    """Expected cost in millionths of a US dollar; None: no price is known, which is not zero."""
    prices: Mapped[list[Any]] = mapped_column(server_default="[]")
    """Price of each route at create: micros per second, or a `Formula` as an object; None where no price is known.
    Later price changes do not affect this job."""
    hold_micros: Mapped[int | None] = mapped_column(BigInteger)
    """Hold for each output until it is settled: the highest estimate of all routes. None: no price."""
    longest_s: Mapped[float | None]
    """Longest length that an output is charged for where nothing could be held; fixed at create."""
    cost_micros: Mapped[int | None] = mapped_column(BigInteger)
    """Cost of its settled outputs; None: nothing settled yet, or no price is known."""
    billed_s: Mapped[float | None]
    """Billed length of its settled outputs, as in the ledger; None: nothing settled yet, or no length is known."""
    settlement: Mapped[Settlement] = mapped_column(server_default=Settlement.held)
    """State of its money; `held` while an attempt may still cost money, also after the job has ended."""
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    """Idempotency key of the client; unique in the project until the video is deleted."""
    idempotency_hash: Mapped[str | None]
    """Hash of the request with that key."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    """Time of completion; None for a failed job."""
    ended_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime]
    """Time at which an unfinished job fails."""
    expires_at: Mapped[datetime | None]
    """Time at which the files are deleted; None: never, or not completed yet."""
    deleted_at: Mapped[datetime | None]
    """Time of deletion by the client; hidden from all responses, the row is deleted after files and upstream tasks."""
    purged_at: Mapped[datetime | None]
    """Time at which the client had its payloads erased, see `jobs/payloads.py`; the figures stay."""
    purge_due_at: Mapped[datetime | None]
    """Time at which the purge is repeated: files may be left, or something may still be written."""

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
        Index("ix_videos_deadline_at", "deadline_at", postgresql_where=text("ended_at is null")),
        # Not on `updated_at`: it changes while a job runs, and every update would have to write the index.
        Index("ix_videos_ended_at", "ended_at", "project_id", postgresql_where=text("ended_at is not null")),
        Index("ix_videos_deleted_at", "deleted_at", postgresql_where=text("deleted_at is not null")),
        Index("ix_videos_purge_due_at", "purge_due_at", postgresql_where=text("purge_due_at is not null")),
        # For lists with filters and the request log, their pages and sums (`jobs/filters.py`): of all videos, of
        # running ones, of those that ended in one way; each but the running ones also by key, by model and by both.
        _log_index("ix_videos_log_running", where="ended_at is null"),
        *(_log_index(f"ix_videos_log{by}", *columns) for by, columns in _BY.items()),
        *(
            _log_index(f"ix_videos_log{by}_{end}", *columns, where=where)
            for by, columns in _BY.items()
            for end, where in _ENDS.items()
        ),
    )


LIVE = (AttemptState.pending, AttemptState.submitting, AttemptState.running, AttemptState.storing)
"""States of unfinished attempts, which workers claim."""
NO_FILE = ("no_output", "output_gone", "output_unavailable", "output_incomplete")
"""Error codes of attempts that the upstream finished, and whose file could not be had."""
_LIVE_SQL = f"state in ({', '.join(repr(str(state)) for state in LIVE)})"


class Attempt(Base):
    """One task at one upstream: each output of a video and each fail-over is a row of its own.

    Base URL and credential of the submit are pinned here, so that polling continues after a model is removed.
    """

    __tablename__ = "attempts"

    id: Mapped[str] = mapped_column(primary_key=True)
    """Also the idempotency key at upstreams that have one."""
    video_id: Mapped[str] = mapped_column(ForeignKey("videos.id", ondelete="CASCADE"), index=True)
    project_id: Mapped[str]
    """Copied from the video, so that claims can take projects in turns."""
    output_index: Mapped[int]
    """Index of the output that it makes, from 0 to n - 1."""
    route_index: Mapped[int]
    """Index of its route in the video's routes."""
    state: Mapped[AttemptState]
    provider: Mapped[str]
    upstream_model: Mapped[str]
    base_url: Mapped[str | None]
    """Base URL of the provider; pinned at submit."""
    credential: Mapped[str | None]
    """Fingerprint of the upstream credential; pinned at submit."""
    upstream_ref: Mapped[str | None]
    """The upstream's id for the task."""
    upstream_status: Mapped[str | None]
    """The upstream's last status, unchanged."""
    progress: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime]
    """Time of the next step. A claim moves it to the end of the lease, so that the attempt of a dead worker comes due
    again."""
    lease: Mapped[str | None]
    """Id of the current lease; a worker's write expects its own."""
    submits: Mapped[int] = mapped_column(default=0)
    """Number of tries to submit, over all rounds, sent or not."""
    polls: Mapped[int] = mapped_column(default=0)
    """Number of answered polls."""
    consecutive_failures: Mapped[int] = mapped_column(default=0)
    """Consecutive answers "unknown task" or failed downloads."""
    cancel_tried: Mapped[bool] = mapped_column(default=False)
    """True after a cancel without effect of a task whose job had ended."""
    settlement: Mapped[Settlement] = mapped_column(server_default=Settlement.held)
    """State of the money held for this attempt."""
    cost_micros: Mapped[int | None] = mapped_column(BigInteger)
    """Cost of this output in millionths of a US dollar; None: not settled, or no price is known."""
    uncapped_micros: Mapped[int | None] = mapped_column(BigInteger)
    """Cost by the measured length where that is more than may be charged; None: not capped."""
    reported_micros: Mapped[int | None] = mapped_column(BigInteger)
    """Cost that the upstream reported; never charged. None: none reported."""
    free: Mapped[bool] = mapped_column(server_default=false())
    """True after an operator had the file of a refunded attempt fetched: nothing is charged."""
    output: Mapped[dict[str, Any] | None]
    """Location of the finished file at the upstream, an `Output`."""
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    error_body: Mapped[str | None]
    """Body of the upstream's error answer, trimmed and without secrets; for the operator."""
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
        # For the claim: pending attempts by provider and project, and submits and running tasks by provider.
        Index(
            "ix_attempts_pending", "provider", "project_id", "due_at", "id", postgresql_where=text("state = 'pending'")
        ),
        Index("ix_attempts_finished", "project_id", "due_at", postgresql_where=text("state = 'storing'")),
        Index(
            "ix_attempts_under_way",
            "provider",
            "project_id",
            postgresql_where=text("state in ('submitting', 'running') or (state = 'pending' and lease is not null)"),
        ),
        # Ended but still held: lost attempts, until an operator decides, and leftovers of older releases.
        Index("ix_attempts_open", "ended_at", postgresql_where=text("ended_at is not null and settlement = 'held'")),
        Index("ix_attempts_held", "video_id", postgresql_where=text("settlement = 'held'")),
        Index("ix_attempts_late", "ended_at", postgresql_where=text("state = 'lost' and upstream_ref is not null")),
        Index(
            "ix_attempts_no_file",
            "ended_at",
            postgresql_where=text(f"state = 'failed' and error_code in ({', '.join(map(repr, NO_FILE))})"),
        ),
        Index("ix_attempts_ref", "provider", "upstream_ref", postgresql_where=text("upstream_ref is not null")),
        Index("uq_attempts_live", "video_id", "output_index", unique=True, postgresql_where=text(_LIVE_SQL)),
    )


class ProviderHealth(Base):
    """Circuit breaker of a provider, shared by all processes; see `jobs/breaker.py`."""

    __tablename__ = "provider_health"

    name: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(primary_key=True)
    """The project whose calls failed; empty: the circuit of all projects."""
    failures: Mapped[int]
    """Consecutive connection errors and server errors."""
    failed_project: Mapped[str]
    """The project of the last of them."""
    open_until: Mapped[datetime | None]
    """No submits before this time; then one call probes the provider."""
    probe_project: Mapped[str | None]
    """The project that made the last probe; the next one is another's, if another waits."""


class Character(Base):
    """A reusable character made by an upstream; only that upstream can use it."""

    __tablename__ = "characters"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    name: Mapped[str]
    provider: Mapped[str]
    upstream_ref: Mapped[str]
    """The upstream's id for the character."""
    created_at: Mapped[datetime]
