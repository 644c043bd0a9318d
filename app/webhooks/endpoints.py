"""Webhooks out: endpoints and their secrets, signatures, and the event of a video that ends.

Only what belongs to the transaction that ends a video or changes an endpoint; nothing here calls anybody. Getting an
event to its address is `deliveries.py`'s business.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import httpx
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import errors, ids
from app.db import rows
from app.db.models import Delivery, Video, WebhookEndpoint, WebhookSecret
from app.video import DeliveryState, Status, Webhook, WebhookStyle

PREFIX = "whsec_"
SECRET_BYTES = 24
"""A multiple of three, so that the base 64 has no padding; Standard Webhooks asks for 24 to 64."""
MAX_URL_CHARACTERS = 2_048
MAX_SECRET_CHARACTERS = 512
MAX_NAME_CHARACTERS = 100
MAX_ENDPOINTS = 50
"""Of one owner: every video that ends is told to each of them."""
OLD_SECRET_S = 86_400
"""How long a rotated secret goes on signing, where that was asked for."""

_NOT_STORED = ("idempotency_key", "idempotency_hash")


class EventType(StrEnum):
    """What there is to tell. OpenAI has the first two, `video.cancelled` is Lumenfall's."""

    completed = "video.completed"
    failed = "video.failed"
    cancelled = "video.cancelled"


_AS = {EventType.cancelled: (EventType.cancelled, EventType.failed)}
"""What a type is told as, the first of these that an endpoint wants."""


# Signatures


def mint() -> str:
    """Return a new secret: `whsec_` and 32 random characters of base 64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return one entry of `webhook-signature`, `v1,<base64>`, as Standard Webhooks defines it.

    The key is what the part after `whsec_` decodes to, or the text itself without that prefix.
    """
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(_key(secret), signed, 'sha256')).decode()}"


def sign_lumen(secret: str, body: bytes) -> str:
    """Return Lumen's `X-Lumen-Signature`: over the body alone, in hex."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(PREFIX)) if secret.startswith(PREFIX) else secret.encode()


def headers(
    style: WebhookStyle, secrets_: Sequence[str], *, webhook_id: str, body: bytes, now: datetime
) -> dict[str, str]:
    """The headers of one try; each of `secrets_` signs."""
    timestamp = int(now.timestamp())
    plain = {"content-type": "application/json", "webhook-id": webhook_id}
    match style:
        case WebhookStyle.standard:
            signatures = " ".join(sign(secret, webhook_id, timestamp, body) for secret in secrets_)
            return {**plain, "webhook-timestamp": str(timestamp), "webhook-signature": signatures}
        case WebhookStyle.lumen:
            signed = {"x-lumen-signature": sign_lumen(secrets_[0], body)} if secrets_ else {}
            return {**plain, "x-lumen-timestamp": str(timestamp), **signed}
    return plain


# What comes with a request


def requested(
    url: Any,
    secret: Any = None,
    *,
    style: WebhookStyle = WebhookStyle.standard,
    url_param: str = "webhook_url",
    secret_param: str = "webhook_secret",  # noqa: S107  # the name of a parameter
    origin: str | None = None,
) -> Webhook:
    """Check what a client gave. Raises `InvalidRequest` naming the parameter in the dialect's words.

    Only the form is judged: whether the address may be called is checked each time that it is called.
    """
    checked = checked_url(url, url_param)
    if secret is not None:
        secret = _checked_secret(secret, secret_param, standard=style is WebhookStyle.standard)
    return Webhook(url=checked, secret=secret, style=style, origin=origin)


def checked_url(url: Any, param: str) -> str:
    """Return the address as it is. Raises `InvalidRequest`, which does not repeat it: it may hold a token."""

    def refused(why: str) -> errors.InvalidRequest:
        return errors.InvalidRequest(f"{param}: {why}", param=param, code="invalid_value")

    if not isinstance(url, str) or not url.strip():
        raise refused("expected an http:// or https:// address")
    if len(url) > MAX_URL_CHARACTERS:
        raise refused(f"an address has at most {MAX_URL_CHARACTERS} characters")
    if not url.isprintable() or any(character.isspace() for character in url):
        raise refused("an address has no blanks or control characters in it")
    try:
        parsed = httpx.URL(url)
        named, host, port = parsed.host, parsed.raw_host, parsed.port  # `host` is decoded only when it is read
    except (httpx.InvalidURL, ValueError):
        raise refused("this is not an address") from None
    if parsed.scheme not in ("http", "https") or not named or b"%" in host:
        raise refused("expected an http:// or https:// address")
    if port is not None and not 0 < port < 65_536:
        raise refused("there is no such port")
    if parsed.userinfo:
        raise refused("an address must not have a user or password in it; sign the events instead")
    return url


def _checked_secret(secret: Any, param: str, *, standard: bool) -> str:
    if not isinstance(secret, str) or not secret.strip() or len(secret) > MAX_SECRET_CHARACTERS:
        raise errors.InvalidRequest(
            f"{param}: expected 1 to {MAX_SECRET_CHARACTERS} characters", param=param, code="invalid_value"
        )
    if standard:
        try:
            usable = bool(_key(secret))
        except (binascii.Error, ValueError):
            usable = False
        if not usable:
            raise errors.InvalidRequest(
                f"{param}: what follows {PREFIX} is not base 64", param=param, code="invalid_value"
            )
    return secret


def lane_of(url: str) -> str:
    """Scheme, host and port: what one owner's addresses outside of any endpoint take turns by, and all that is
    logged."""
    parsed = httpx.URL(url)
    host = parsed.raw_host.decode("ascii")  # `parsed.host` raises on names that `checked_url` once let pass
    return f"{parsed.scheme}://{host}:{parsed.port or (443 if parsed.scheme == 'https' else 80)}"


async def owner_secret(session: rows.Connection, owner: str) -> str:
    """The secret behind addresses given with a request; made on first use."""
    query = sa.select(WebhookSecret.secret).where(WebhookSecret.owner == owner)
    found = (await session.execute(query)).scalar_one_or_none()
    if found is None:
        await session.execute(insert(WebhookSecret).values(owner=owner, secret=mint()).on_conflict_do_nothing())
        found = (await session.execute(query)).scalar_one()
    return str(found)


# Endpoints


def event_types(values: Sequence[str], param: str = "event_types") -> list[str]:
    """The types, each once. Raises `InvalidRequest` naming what there is."""
    known = [str(value) for value in EventType]
    unknown = [value for value in values if value not in known]
    if unknown or not values:
        said = f"{unknown[0]!r:.80} is not sent by this gateway" if unknown else "name at least one"
        raise errors.InvalidRequest(f"{param}: {said}; there are {', '.join(known)}", param=param, code="invalid_value")
    return [value for value in known if value in values]


def _checked_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
        raise errors.InvalidRequest(
            f"name: expected 1 to {MAX_NAME_CHARACTERS} printable characters", param="name", code="invalid_value"
        )
    return name


async def create_endpoint(
    session: AsyncSession, *, owner: str, name: str, url: str, types: Sequence[str], now: datetime
) -> WebhookEndpoint:
    """Register an address. Raises `InvalidRequest`."""
    endpoint = WebhookEndpoint(
        id=ids.new("whe"),
        owner=owner,
        name=_checked_name(name),
        url=checked_url(url, "url"),
        event_types=event_types(types),
        secret=mint(),
        created_at=now,
        updated_at=now,
    )
    count = sa.select(sa.func.count()).select_from(WebhookEndpoint).where(WebhookEndpoint.owner == owner)
    if (await session.scalar(count) or 0) >= MAX_ENDPOINTS:
        raise errors.InvalidRequest(f"there are {MAX_ENDPOINTS} endpoints already; delete one", code="too_many")
    session.add(endpoint)
    await session.flush()
    return endpoint


async def get_endpoint(connection: rows.Connection, endpoint_id: str, *, owner: str) -> WebhookEndpoint:
    """Read one. Raises `NotFound` for an id that is not the owner's."""
    query = rows.select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.owner == owner)
    found = await rows.one_of(WebhookEndpoint, connection, query) if ids.is_id(endpoint_id, "whe") else None
    if found is None:
        raise _no_such_endpoint(endpoint_id)
    return found


async def lock_endpoint(session: AsyncSession, endpoint_id: str, *, owner: str) -> WebhookEndpoint:
    """Read one to be changed in this transaction. Raises `NotFound` for an id that is not the owner's."""
    query = sa.select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.owner == owner)
    query = query.with_for_update(key_share=True)
    found = await session.scalar(query) if ids.is_id(endpoint_id, "whe") else None
    if found is None:
        raise _no_such_endpoint(endpoint_id)
    return found


def _no_such_endpoint(endpoint_id: str) -> errors.NotFound:
    return errors.NotFound(f"no webhook endpoint has the id {endpoint_id!r:.80}", param="webhook_endpoint_id")


async def list_endpoints(
    connection: AsyncConnection, *, owner: str, after: str | None, limit: int
) -> tuple[list[WebhookEndpoint], bool]:
    """A page, newest first, and whether there are more."""
    query = rows.select(WebhookEndpoint).where(WebhookEndpoint.owner == owner)
    if after is not None and ids.is_id(after, "whe"):
        query = query.where(WebhookEndpoint.id < after)
    query = query.order_by(WebhookEndpoint.id.desc()).limit(limit + 1)
    found = await rows.all_of(WebhookEndpoint, connection, query)
    return found[:limit], len(found) > limit


async def update_endpoint(
    session: AsyncSession,
    endpoint_id: str,
    *,
    owner: str,
    name: str | None = None,
    url: str | None = None,
    types: Sequence[str] | None = None,
    enabled: bool | None = None,
    now: datetime,
) -> WebhookEndpoint:
    """Change what is given. A new address enables an endpoint again, unless `enabled` says otherwise.

    Raises `NotFound`, `InvalidRequest`.
    """
    endpoint = await lock_endpoint(session, endpoint_id, owner=owner)
    before = (endpoint.name, endpoint.url, endpoint.event_types, endpoint.disabled_at)
    endpoint.name = endpoint.name if name is None else _checked_name(name)
    endpoint.event_types = endpoint.event_types if types is None else event_types(types)
    if url is not None and checked_url(url, "url") != endpoint.url:
        endpoint.url = url
        enabled = True if enabled is None else enabled
    if enabled:
        endpoint.disabled_at = endpoint.disabled_reason = endpoint.failing_since = None
    elif enabled is False and endpoint.disabled_at is None:
        await disable(session, endpoint, "disabled by its owner", now=now)
    if before != (endpoint.name, endpoint.url, endpoint.event_types, endpoint.disabled_at):
        endpoint.updated_at = now
    await session.flush()
    return endpoint


async def disable(session: AsyncSession, endpoint: WebhookEndpoint, reason: str, *, now: datetime) -> None:
    """Send it nothing more: what waits has failed, and later events are not written down for it."""
    endpoint.disabled_at, endpoint.disabled_reason = now, reason
    await session.execute(
        sa.update(Delivery)
        .where(Delivery.endpoint_id == endpoint.id, Delivery.state == DeliveryState.pending, Delivery.lease.is_(None))
        .values(state=DeliveryState.failed, ended_at=now)
        .execution_options(synchronize_session=False)
    )


async def delete_endpoint(session: AsyncSession, endpoint_id: str, *, owner: str) -> None:
    """Forget it, with everything that was or is to be sent to it. Raises `NotFound`."""
    await session.delete(await lock_endpoint(session, endpoint_id, owner=owner))


async def rotate_secret(
    session: AsyncSession, endpoint_id: str, *, owner: str, keep_old: bool, now: datetime
) -> WebhookEndpoint:
    """Give it a new secret; with `keep_old` both sign for a day. Raises `NotFound`."""
    endpoint = await lock_endpoint(session, endpoint_id, owner=owner)
    endpoint.old_secret = endpoint.secret if keep_old else None
    endpoint.old_secret_until = now + timedelta(seconds=OLD_SECRET_S) if keep_old else None
    endpoint.secret, endpoint.updated_at = mint(), now
    await session.flush()
    return endpoint


def secrets_of(endpoint: WebhookEndpoint, now: datetime) -> list[str]:
    """What signs now, the newest first."""
    old = endpoint.old_secret if endpoint.old_secret_until is not None and now < endpoint.old_secret_until else None
    return [endpoint.secret, *([old] if old else [])]


# Events


def event(event_id: str, event_type: str, created_at: datetime, data: Mapping[str, Any]) -> dict[str, Any]:
    """The event as OpenAI shows it."""
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


async def record(session: AsyncSession, video: Video, *, now: datetime) -> None:
    """Write down, in the transaction that ends a video, whom to tell: the address that came with its request, and
    every enabled endpoint of its owner that wants to know.

    An endpoint that does not know `video.cancelled` sees a cancelled video as OpenAI's clients do: as one that failed.
    """
    event_type = event_type_of(video)
    endpoints = await session.execute(
        sa.select(WebhookEndpoint.id, WebhookEndpoint.event_types)
        .where(WebhookEndpoint.owner == video.owner, WebhookEndpoint.disabled_at.is_(None))
        .with_for_update(read=True, key_share=True)  # none of them goes before this is committed
    )
    common: dict[str, Any] = {
        "event_id": ids.new("evt"),
        "event_type": str(event_type),
        "owner": video.owner,
        "video_id": video.id,
        "state": DeliveryState.pending,
        "due_at": now,
        "tries": 0,
        "created_at": now,
    }
    empty: dict[str, Any] = dict.fromkeys(("endpoint_id", "url", "secret", "data", "video"))
    deliveries = []
    for endpoint_id, wanted in endpoints:
        told = next((kind for kind in _AS.get(event_type, (event_type,)) if kind in wanted), None)
        if told is not None:
            thin = {"event_type": str(told), "data": {"id": video.id}}
            own: dict[str, Any] = {"endpoint_id": endpoint_id, "lane": endpoint_id, "style": WebhookStyle.standard}
            deliveries.append({**common, **empty, **own, **thin, "id": ids.new("wh")})
    given = video.request.get("webhook")
    if given is not None:
        hook = Webhook.model_validate(given)
        own = {"lane": lane_of(hook.url), "url": hook.url, "secret": hook.secret, "style": hook.style}
        deliveries.append({**common, **empty, **own, "id": ids.new("wh"), "video": _frozen(video)})
    if deliveries:  # a video ends once; should it ever end twice, that must not undo its end
        await session.execute(insert(Delivery).values(deliveries).on_conflict_do_nothing())


async def forget(session: AsyncSession, video_id: str) -> None:
    """The video was deleted: keep nothing of it but what has still to be told."""
    await session.execute(
        sa.update(Delivery)
        .where(
            Delivery.video_id == video_id,
            Delivery.endpoint_id.is_(None),
            Delivery.state != DeliveryState.pending,
        )
        .values(video=None, secret=None)
        .execution_options(synchronize_session=False)
    )


def _frozen(video: Video) -> dict[str, Any]:
    """The row as plain JSON, without secrets; `deliveries.py` thaws it."""
    hook = {**video.request["webhook"], "secret": None}
    return {**rows.to_json(video, without=_NOT_STORED), "request": {**video.request, "webhook": hook}}
