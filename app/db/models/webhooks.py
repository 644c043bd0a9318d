"""Webhook endpoints, secrets, deliveries and tries."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db.models.base import Base, value_check
from app.video import DeliveryState


class WebhookEndpoint(Base):
    """A URL that a project registered for webhooks of all its videos."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(index=True)
    name: Mapped[str]
    url: Mapped[str]
    event_types: Mapped[list[str]]
    """Subscribed event types."""
    secret: Mapped[str]
    """`whsec_` and base64; in clear text, since every delivery is signed with it."""
    old_secret: Mapped[str | None]
    """Previous secret after a rotation, while both sign."""
    old_secret_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    """Last change of the configuration or the secret."""
    failing_since: Mapped[datetime | None]
    """First failed try since the last success."""
    disabled_at: Mapped[datetime | None]
    """Time at which it was disabled; it gets no events until it is enabled again."""
    disabled_reason: Mapped[str | None]
    """Reason, as text for the project."""

    __table_args__ = (CheckConstraint("(disabled_at is null) = (disabled_reason is null)", "disabled"),)


class WebhookSecret(Base):
    """Signing secret of a project for webhook URLs given in requests; created on first use."""

    __tablename__ = "webhook_secrets"

    project_id: Mapped[str] = mapped_column(primary_key=True)
    secret: Mapped[str]
    """`whsec_` and base64."""


class Delivery(Base):
    """One event for one URL. The row has all data that is needed: the video may be deleted before it is delivered."""

    __tablename__ = "deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)
    """Also the `webhook-id`: the same on every try, so that receivers can recognise duplicates."""
    event_id: Mapped[str]
    """The same for all deliveries of one event."""
    event_type: Mapped[str]
    project_id: Mapped[str]
    video_id: Mapped[str]
    """No foreign key: a delivery may outlive the row of a deleted video."""
    traceparent: Mapped[str | None]
    """That of the video."""
    endpoint_id: Mapped[str | None] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    """The endpoint with URL and secret; None: those of the request are used."""
    queue_key: Mapped[str]
    """Fairness key: the endpoint id, or scheme, host and port of a URL given in a request."""
    url: Mapped[str | None]
    """The URL given in the request; scheme, host and port alone after a purge and the last try."""
    secret: Mapped[str | None]
    """The secret given in the request; cleared together with `video`."""
    style: Mapped[str] = mapped_column(String(16))
    """Name of the `WebhookStyle` that renders the body and signs it."""
    data: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """Event data for an endpoint; None: rendered from `video` on each try, so that signed links are fresh."""
    video: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """The video's row at its end; cleared when the video is deleted or purged and no try is left."""
    state: Mapped[DeliveryState]
    due_at: Mapped[datetime]
    """Time of the next try. A claim moves it to the end of the lease, as with attempts."""
    lease: Mapped[str | None]
    """Id of the current lease; a worker's write expects its own."""
    tries: Mapped[int] = mapped_column(default=0)
    """Failed tries since the event, or since it was resent manually; sets the delay of the next."""
    give_up_at: Mapped[datetime | None]
    """Time of the last try; set by the first failed one."""
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(value_check("state", DeliveryState), "state"),
        CheckConstraint("(state = 'pending') = (ended_at is null)", "ended_at"),
        CheckConstraint("(endpoint_id is null) = (url is not null)", "address"),
        CheckConstraint("(endpoint_id is null) = (data is null)", "data"),
        CheckConstraint("state <> 'pending' or data is not null or video is not null", "content"),
        # For the claim: due deliveries, pending ones by project and queue key, and leased ones.
        Index("ix_deliveries_due_at", "due_at", postgresql_where=text("state = 'pending'")),
        Index(
            "ix_deliveries_pending",
            "project_id",
            "queue_key",
            "due_at",
            "id",
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_deliveries_under_way", "project_id", "queue_key", "due_at", postgresql_where=text("lease is not null")
        ),
        Index("ix_deliveries_endpoint_id", "endpoint_id", "id"),
        # For the lists of all deliveries of a project, and for sending the failed ones again.
        Index("ix_deliveries_project_id", "project_id", "id"),
        Index("ix_deliveries_failed", "project_id", "id", postgresql_where=text("state = 'failed'")),
        Index("ix_deliveries_ended_at", "ended_at", postgresql_where=text("ended_at is not null")),
        # A video ends once with each event type: failed, then completed if an operator runs it again.
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
    """One HTTP call of a delivery, and its response."""

    __tablename__ = "delivery_tries"

    id: Mapped[str] = mapped_column(primary_key=True)
    delivery_id: Mapped[str] = mapped_column(ForeignKey("deliveries.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime]
    status: Mapped[int | None]
    """HTTP status of the response; None without a response."""
    duration_ms: Mapped[int]
    answer: Mapped[str | None]
    """Response body, at most 2,048 characters; more is not read."""
    error: Mapped[str | None]
    """Reason that the try failed; None: delivered."""
