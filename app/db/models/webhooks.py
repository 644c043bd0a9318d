"""Webhook endpoints, their secrets, and deliveries."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db.models.base import Base, value_check
from app.video import DeliveryState


class WebhookEndpoint(Base):
    """An address that a project registered, told of every video of that project."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(index=True)
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
    """Why, in words for its project."""

    __table_args__ = (CheckConstraint("(disabled_at is null) = (disabled_reason is null)", "disabled"),)


class WebhookSecret(Base):
    """What events are signed with that go to an address given with a request; made on first use."""

    __tablename__ = "webhook_secrets"

    project_id: Mapped[str] = mapped_column(primary_key=True)
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
    project_id: Mapped[str]
    video_id: Mapped[str]
    """No reference: the row of a deleted video goes before what is to be said about it."""
    endpoint_id: Mapped[str | None] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    """The endpoint it goes to, whose address and secret count; None: those given with the request."""
    queue_key: Mapped[str]
    """What takes turns: the endpoint, or scheme, host and port of an address given with a request."""
    url: Mapped[str | None]
    """The address given with the request."""
    secret: Mapped[str | None]
    """The secret given with the request; forgotten with `video`."""
    style: Mapped[str] = mapped_column(String(16))
    """Name of the `WebhookStyle` that renders the body and signs it."""
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
        CheckConstraint(value_check("state", DeliveryState), "state"),
        CheckConstraint("(state = 'pending') = (ended_at is null)", "ended_at"),
        CheckConstraint("(endpoint_id is null) = (url is not null)", "address"),
        CheckConstraint("(endpoint_id is null) = (data is null)", "data"),
        CheckConstraint("state <> 'pending' or data is not null or video is not null", "content"),
        # For the claim: whether anything is due, whose turn it is, and how many each has under way.
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
