"""Every table. A row of `videos` is what a client sees, a row of `attempts` is one task at one upstream.

Only `jobs.py` writes a status or a state of a job, only `usage.py` the ledger and what is settled, only `keys.py` keys
and projects, only `webhooks.py` and `deliveries.py` endpoints and deliveries. Invariants that must never break are
constraints and triggers of the database, not habits of the code: the ledger is only ever added to, what a limit does
not cover is refused, a video whose money is not settled stays (`migrations/versions/0003_owners_and_money.py`).
"""

from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Enum, ForeignKey, Index, MetaData, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, configure_mappers, mapped_column

from app.video import AttemptState, Billing, DeliveryState, Entry, Settlement, Status, WebhookStyle


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
        list[Any]: JSONB,
        Status: Enum(Status, native_enum=False, create_constraint=False, length=16),
        AttemptState: Enum(AttemptState, native_enum=False, create_constraint=False, length=16),
        DeliveryState: Enum(DeliveryState, native_enum=False, create_constraint=False, length=16),
        WebhookStyle: Enum(WebhookStyle, native_enum=False, create_constraint=False, length=16),
        Settlement: Enum(Settlement, native_enum=False, create_constraint=False, length=16),
        Billing: Enum(Billing, native_enum=False, create_constraint=False, length=16),
        Entry: Enum(Entry, native_enum=False, create_constraint=False, length=16),
    }


def _one_of(column: str, values: type[StrEnum]) -> str:
    return f"{column} in ({', '.join(repr(str(value)) for value in values)})"


class Video(Base):
    """One job. Reading one never needs another table nor an upstream."""

    __tablename__ = "videos"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
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
        CheckConstraint(_one_of("settlement", Settlement), "settlement"),
        CheckConstraint("progress between 0 and 100", "progress"),
        CheckConstraint("(status = 'completed') = (completed_at is not null)", "completed_at"),
        CheckConstraint("(status = 'failed') = (error_code is not null)", "error"),
        CheckConstraint("(status in ('completed', 'failed')) = (ended_at is not null)", "ended_at"),
        Index("ix_videos_owner_id", "owner", "id", postgresql_where=text("deleted_at is null")),
        Index("ix_videos_running", "key_id", postgresql_where=text("ended_at is null")),
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


def read_only(values: Mapping[str, Any]) -> Video:
    """A video to be read and never written: without the bookkeeping of a session, which takes as long as the query."""
    video = Video.__new__(Video)
    video.__dict__.update(values)
    return video


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
        CheckConstraint(_one_of("state", AttemptState), "state"),
        CheckConstraint("state not in ('running', 'storing') or upstream_ref is not null", "ref"),
        CheckConstraint(_one_of("settlement", Settlement), "settlement"),
        CheckConstraint(f"not ({_LIVE_SQL}) or settlement = 'held'", "held"),
        CheckConstraint("state <> 'storing' or output is not null", "output"),
        CheckConstraint(f"({_LIVE_SQL}) = (ended_at is null)", "ended_at"),
        Index("ix_attempts_due_at", "state", "due_at", postgresql_where=text(_LIVE_SQL)),
        # For the claim: whose turn it is, and how many each provider has under way.
        Index("ix_attempts_pending", "provider", "owner", "due_at", "id", postgresql_where=text("state = 'pending'")),
        Index(
            "ix_attempts_under_way", "provider", "owner", postgresql_where=text("state in ('submitting', 'running')")
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


class Project(Base):
    """Who keys, videos, webhooks and money belong to; its id is the `owner` of all of them."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    billing: Mapped[Billing]
    """Prepaid: nothing is made that the balance of the ledger does not cover."""
    monthly_budget_micros: Mapped[int | None] = mapped_column(BigInteger)
    """What all its keys may spend together in a calendar month, UTC; None: as much as they like."""
    created_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint(_one_of("billing", Billing), "billing"),
        CheckConstraint("monthly_budget_micros >= 0", "monthly_budget"),
    )


class Key(Base):
    """An API key; the key itself is nowhere. Limits that are None do not limit."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    owner: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
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
    owner: Mapped[str]
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
        CheckConstraint(_one_of("kind", Entry), "kind"),
        CheckConstraint("kind = 'credit' or video_id is not null", "video"),
        CheckConstraint("kind = 'settle' or cost_micros is null", "cost"),
        # No task is charged for twice, however many workers try.
        Index("uq_ledger_attempt", "attempt_id", unique=True, postgresql_where=text("kind = 'settle'")),
        Index("uq_ledger_credit", "owner", "note", unique=True, postgresql_where=text("kind = 'credit'")),
        Index("ix_ledger_day", "day", "owner"),
        Index("ix_ledger_owner", "owner", "day"),
        Index("ix_ledger_key_id", "key_id", "day"),
    )


class Meter(Base):
    """What a limited key or project has spent: the sum of its ledger entries, kept by a trigger so that a create need
    not add them up. Where there is no limit there is no meter."""

    __tablename__ = "meters"

    subject: Mapped[str] = mapped_column(primary_key=True)
    """The id of the key, or of the project after `project:`; those of old installations have the ids of keys."""
    month: Mapped[date] = mapped_column(primary_key=True)
    """The first of it; 0001-01-01 for the balance of a prepaid project, which has no month."""
    spent_micros: Mapped[int] = mapped_column(BigInteger)
    """Held and settled; of a prepaid project less its credit, so that minus this is the balance."""


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


class WebhookEndpoint(Base):
    """An address that an owner registered, told of every video of that owner."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(index=True)
    name: Mapped[str]
    url: Mapped[str]
    event_types: Mapped[list[str]]
    """What it wants to be told of."""
    secret: Mapped[str]
    """`whsec_` and base 64; in the clear, since every delivery is signed with it."""
    old_secret: Mapped[str | None]
    """The one before the last rotation, while both sign."""
    old_secret_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    """Last change of the configuration or the secret."""
    failing_since: Mapped[datetime | None]
    """First failed try since the last success."""
    disabled_at: Mapped[datetime | None]
    """When it was given up; it gets nothing until somebody enables it again."""
    disabled_reason: Mapped[str | None]
    """Why, in words for its owner."""

    __table_args__ = (CheckConstraint("(disabled_at is null) = (disabled_reason is null)", "disabled"),)


class WebhookSecret(Base):
    """What events are signed with that go to an address given with a request; made on first use."""

    __tablename__ = "webhook_secrets"

    owner: Mapped[str] = mapped_column(primary_key=True)
    secret: Mapped[str]
    """`whsec_` and base 64."""


class Delivery(Base):
    """One event on its way to one address. The row has all that takes: the video may be deleted before it arrives."""

    __tablename__ = "deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)
    """Also the `webhook-id`: the same on every try, by which receivers recognise a repeated one."""
    event_id: Mapped[str]
    """The same for all addresses that one event goes to."""
    event_type: Mapped[str]
    owner: Mapped[str]
    video_id: Mapped[str]
    """No reference: the row of a deleted video goes before what is to be said about it."""
    endpoint_id: Mapped[str | None] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    """The endpoint it goes to, whose address and secret count; None: those given with the request."""
    lane: Mapped[str]
    """What takes turns: the endpoint, or scheme, host and port of an address given with a request."""
    url: Mapped[str | None]
    """The address given with the request."""
    secret: Mapped[str | None]
    """The secret given with the request; forgotten with `video`."""
    style: Mapped[WebhookStyle]
    data: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """The event's, for an endpoint; None: rendered from `video` on each try, so that links in it are fresh."""
    video: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """The video's row as it ended; forgotten when the video is deleted and nothing is to be sent any more."""
    state: Mapped[DeliveryState]
    due_at: Mapped[datetime]
    """When to try. Claiming moves it to the end of the lease, as with attempts."""
    lease: Mapped[str | None]
    """Who is trying; the result is only taken from the holder."""
    tries: Mapped[int] = mapped_column(default=0)
    """Tries that failed since the event, or since it was sent again by hand; sets the gap to the next."""
    give_up_at: Mapped[datetime | None]
    """When the last try is made; set by the first that fails."""
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(_one_of("state", DeliveryState), "state"),
        CheckConstraint("(state = 'pending') = (ended_at is null)", "ended_at"),
        CheckConstraint("(endpoint_id is null) = (url is not null)", "address"),
        CheckConstraint("(endpoint_id is null) = (data is null)", "data"),
        CheckConstraint("state <> 'pending' or data is not null or video is not null", "content"),
        # For the claim: whether anything is due, whose turn it is, and how many each has under way.
        Index("ix_deliveries_due_at", "due_at", postgresql_where=text("state = 'pending'")),
        Index("ix_deliveries_pending", "owner", "lane", "due_at", "id", postgresql_where=text("state = 'pending'")),
        Index("ix_deliveries_under_way", "owner", "lane", "due_at", postgresql_where=text("lease is not null")),
        Index("ix_deliveries_endpoint_id", "endpoint_id", "id"),
        Index("ix_deliveries_ended_at", "ended_at", postgresql_where=text("ended_at is not null")),
        # One event, told once to each address: a video ends once, and once more when an operator had it made again.
        Index(
            "uq_deliveries_endpoint",
            "video_id",
            "endpoint_id",
            "event_type",
            unique=True,
            postgresql_where=text("endpoint_id is not null"),
        ),
        Index(
            "uq_deliveries_request", "video_id", "event_type", unique=True, postgresql_where=text("endpoint_id is null")
        ),
    )


class DeliveryTry(Base):
    """One call of an address, and what it answered."""

    __tablename__ = "delivery_tries"

    id: Mapped[str] = mapped_column(primary_key=True)
    delivery_id: Mapped[str] = mapped_column(ForeignKey("deliveries.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime]
    status: Mapped[int | None]
    """Of the answer; None when there was none."""
    duration_ms: Mapped[int]
    answer: Mapped[str | None]
    """At most 2,048 characters of it; more is never read."""
    error: Mapped[str | None]
    """Why it did not count as delivered."""


configure_mappers()  # at once, not at the first query: `read_only` has nothing to read with before
