"""Webhook events: types, bodies, and the deliveries of a video that ends, written in the transaction that ends it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import httpx
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app import errors, ids
from app.db import rows
from app.db.models import Delivery, DeliveryTry, Video, WebhookEndpoint
from app.video import DeliveryState, Status, Webhook
from app.webhooks import signing

_NOT_STORED = ("idempotency_key", "idempotency_hash")


class EventType(StrEnum):
    """Types of webhook events. OpenAI has the first two, `video.cancelled` is Lumenfall's."""

    completed = "video.completed"
    failed = "video.failed"
    cancelled = "video.cancelled"


_TYPES_TO_TRY = {EventType.cancelled: (EventType.cancelled, EventType.failed)}
"""Event types to try, in order, for endpoints that do not subscribe to the first."""


def queue_key_of(url: str) -> str:
    """Scheme, host and port: fairness key for URLs given with a request, and the only part of a URL that is logged."""
    parsed = httpx.URL(url)
    host = parsed.raw_host.decode("ascii")  # `parsed.host` raises on names that older versions accepted
    return f"{parsed.scheme}://{host}:{parsed.port or (443 if parsed.scheme == 'https' else 80)}"


def checked_event_types(values: Sequence[str], param: str = "event_types") -> list[str]:
    """The types without duplicates. Raises `InvalidRequest` that lists the known types."""
    known = [str(value) for value in EventType]
    unknown = [value for value in values if value not in known]
    if unknown or not values:
        problem = f"{unknown[0]!r:.80} is not sent by this gateway" if unknown else "name at least one"
        raise errors.InvalidRequest(
            f"{param}: {problem}; there are {', '.join(known)}", param=param, code="invalid_value"
        )
    return [value for value in known if value in values]


def event(event_id: str, event_type: str, created_at: datetime, data: Mapping[str, Any]) -> dict[str, Any]:
    """The event in OpenAI's format."""
    return {
        "id": event_id,
        "object": "event",
        "created_at": int(created_at.timestamp()),
        "type": event_type,
        "data": dict(data),
    }


def event_type_of(video: Video) -> EventType:
    if video.status is Status.completed:
        return EventType.completed
    return EventType.cancelled if video.error_code == "cancelled" else EventType.failed


async def record_event(session: AsyncSession, video: Video, *, now: datetime) -> None:
    """Record the deliveries of a video in the transaction that ends it: to the URL given with its request, and to
    every enabled endpoint of its project that subscribes to the event.

    An endpoint that does not subscribe to `video.cancelled` gets a cancelled video as failed, as OpenAI's clients do.
    """
    event_type = event_type_of(video)
    endpoints = await session.execute(
        sa.select(WebhookEndpoint.id, WebhookEndpoint.event_types)
        .where(WebhookEndpoint.project_id == video.project_id, WebhookEndpoint.disabled_at.is_(None))
        .with_for_update(read=True, key_share=True)  # no endpoint can be deleted before the commit
    )
    common: dict[str, Any] = {
        "event_id": ids.new("evt"),
        "event_type": str(event_type),
        "project_id": video.project_id,
        "video_id": video.id,
        "traceparent": video.traceparent,
        "state": DeliveryState.pending,
        "due_at": now,
        "tries": 0,
        "created_at": now,
    }
    empty: dict[str, Any] = dict.fromkeys(("endpoint_id", "url", "secret", "data", "video"))
    deliveries = []
    for endpoint_id, wanted in endpoints:
        subscribed = next((kind for kind in _TYPES_TO_TRY.get(event_type, (event_type,)) if kind in wanted), None)
        if subscribed is not None:
            thin = {"event_type": str(subscribed), "data": {"id": video.id}}
            own: dict[str, Any] = {"endpoint_id": endpoint_id, "queue_key": endpoint_id, "style": signing.STANDARD}
            deliveries.append({**common, **empty, **own, **thin, "id": ids.new("wh")})
    given = video.request.get("webhook")
    if given is not None:
        hook = Webhook.model_validate(given)
        own = {"queue_key": queue_key_of(hook.url), "url": hook.url, "secret": hook.secret, "style": hook.style}
        deliveries.append({**common, **empty, **own, "id": ids.new("wh"), "video": _to_json(video)})
    if deliveries:  # a second end, which should not happen, must not undo the first
        await session.execute(insert(Delivery).values(deliveries).on_conflict_do_nothing())


async def forget_video(session: AsyncSession, video_id: str) -> None:
    """Erase a deleted video from its ended deliveries; pending ones still need it, and erase it with their last try."""
    await session.execute(
        sa.update(Delivery)
        .where(
            Delivery.video_id == video_id,
            Delivery.endpoint_id.is_(None),
            Delivery.state != DeliveryState.pending,
        )
        .values(video=None, secret=None, url=Delivery.queue_key)
        .execution_options(synchronize_session=False)
    )


async def purge_video(
    session: AsyncSession, video_id: str, erase: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> None:
    """Erase the payloads of a video from its deliveries, as `erase` does from a row as JSON: pending ones are still
    sent, with the figures, and erase the rest with their last try. The answers of receivers are erased, too."""
    to_endpoints = sa.and_(Delivery.video_id == video_id, Delivery.endpoint_id.is_not(None))
    by_request = sa.and_(Delivery.video_id == video_id, Delivery.endpoint_id.is_(None))
    found = await session.scalars(
        sa.select(Delivery).where(by_request).with_for_update().execution_options(populate_existing=True)
    )
    for delivery in found:
        if delivery.state is DeliveryState.pending:
            delivery.video = erase(delivery.video or {})
        else:  # the path and the query of a URL often hold a token
            delivery.video, delivery.secret, delivery.url = None, None, delivery.queue_key
    await session.flush()
    of_video = sa.select(Delivery.id).where(sa.or_(to_endpoints, by_request))  # one index for each
    await session.execute(
        sa.update(DeliveryTry)
        .where(DeliveryTry.delivery_id.in_(of_video), DeliveryTry.answer.is_not(None))
        .values(answer=None)
        .execution_options(synchronize_session=False)
    )


def _to_json(video: Video) -> dict[str, Any]:
    """Row as JSON without secrets; read back by `sender.py`."""
    hook = {**video.request["webhook"], "secret": None}
    return {**rows.to_json(video, without=_NOT_STORED), "request": {**video.request, "webhook": hook}}
