"""Webhook endpoints and their secrets, and checks of the URL and secret that come with a request.

Database only, no HTTP calls: `events.py` records deliveries, `deliveries.py` and `sender.py` send them.
"""

import binascii
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import errors, ids, net
from app.db import rows
from app.db.models import Delivery, Project, WebhookEndpoint, WebhookSecret
from app.video import DeliveryState, Webhook
from app.webhooks import signing
from app.webhooks.addresses import public_url
from app.webhooks.events import checked_event_types
from app.webhooks.signing import MAX_SECRET_BYTES, MIN_SECRET_BYTES, PREFIX, is_standard, mint_secret, secret_bytes

MAX_URL_CHARACTERS = 2_048
MAX_SECRET_CHARACTERS = 512
MAX_NAME_CHARACTERS = 100
MAX_ENDPOINTS = 50
"""Per project: each video that ends makes a delivery for each of them."""
OLD_SECRET_S = 86_400
"""Seconds for which a rotated secret still signs, if `keep_old` was requested."""


# Webhook of a request


def requested(
    url: Any,
    secret: Any = None,
    *,
    style: str = signing.STANDARD,
    url_param: str = "webhook_url",
    secret_param: str = "webhook_secret",  # noqa: S107  # the name of a parameter
    origin: str | None = None,
    allow: Iterable[net.Network] = (),
) -> Webhook:
    """Check the webhook given with a request. Raises `InvalidRequest` naming the parameter as the dialect calls it.

    A name in the address is only resolved, and checked, at each call.
    """
    checked = checked_url(url, url_param, allow)
    if secret is not None:
        secret = _checked_secret(secret, secret_param, standard=style == signing.STANDARD)
    return Webhook(url=checked, secret=secret, style=style, origin=origin)


def checked_url(url: Any, param: str, allow: Iterable[net.Network]) -> str:
    """Return the URL unchanged; it may lead to the private networks of `allow`. Raises `InvalidRequest`, which does not
    repeat it: it may hold a token."""

    def refused(why: str) -> errors.InvalidRequest:
        return errors.InvalidRequest(f"{param}: {why}", param=param, code="invalid_value")

    if not isinstance(url, str) or not url.strip():
        raise refused("expected an http:// or https:// address")
    if len(url) > MAX_URL_CHARACTERS:
        raise refused(f"an address has at most {MAX_URL_CHARACTERS} characters")
    if not url.isprintable() or any(character.isspace() for character in url):
        raise refused("an address has no blanks or control characters in it")
    if public_url(url, param, allow).userinfo:
        raise refused("an address must not have a user or password in it; sign the events instead")
    return url


def _checked_secret(secret: Any, param: str, *, standard: bool) -> str:
    if not isinstance(secret, str) or not secret.strip() or len(secret) > MAX_SECRET_CHARACTERS:
        raise errors.InvalidRequest(
            f"{param}: expected 1 to {MAX_SECRET_CHARACTERS} characters", param=param, code="invalid_value"
        )
    if standard:
        try:
            usable = bool(secret_bytes(secret))
        except (binascii.Error, ValueError):
            usable = False
        if not usable:
            raise errors.InvalidRequest(
                f"{param}: what follows {PREFIX} is not base 64", param=param, code="invalid_value"
            )
    return secret


def secret_warnings(webhook: Webhook | None) -> tuple[str, ...]:
    """Sentences for the client about the secret of its request."""
    if webhook is None or webhook.secret is None or webhook.style != signing.STANDARD or is_standard(webhook.secret):
        return ()
    return (
        "webhook_secret: libraries of Standard Webhooks cannot verify with it; they expect "
        f"{PREFIX} and the base 64 of {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes",
    )


async def project_secret(session: rows.Connection, project_id: str) -> str:
    """The secret that signs events for URLs given with a request; made on first use."""
    query = sa.select(WebhookSecret.secret).where(WebhookSecret.project_id == project_id)
    found = (await session.execute(query)).scalar_one_or_none()
    if found is None:
        await session.execute(
            insert(WebhookSecret).values(project_id=project_id, secret=mint_secret()).on_conflict_do_nothing()
        )
        found = (await session.execute(query)).scalar_one()
    return str(found)


# Endpoints


def _checked_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
        raise errors.InvalidRequest(
            f"name: expected 1 to {MAX_NAME_CHARACTERS} printable characters", param="name", code="invalid_value"
        )
    return name


async def create_endpoint(
    session: AsyncSession,
    *,
    project_id: str,
    name: str,
    url: str,
    types: Sequence[str],
    allow: Iterable[net.Network],
    now: datetime,
) -> WebhookEndpoint:
    """Register an endpoint. Raises `InvalidRequest`."""
    endpoint = WebhookEndpoint(
        id=ids.new("whe"),
        project_id=project_id,
        name=_checked_name(name),
        url=checked_url(url, "url", allow),
        event_types=checked_event_types(types),
        secret=mint_secret(),
        created_at=now,
        updated_at=now,
    )
    # Locked, so that endpoints made at the same time are counted one after the other.
    await session.execute(sa.select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))
    count = sa.select(sa.func.count()).select_from(WebhookEndpoint).where(WebhookEndpoint.project_id == project_id)
    if (await session.scalar(count) or 0) >= MAX_ENDPOINTS:
        raise errors.InvalidRequest(f"there are {MAX_ENDPOINTS} endpoints already; delete one", code="too_many")
    session.add(endpoint)
    await session.flush()
    return endpoint


async def get_endpoint(connection: rows.Connection, endpoint_id: str, *, project_id: str) -> WebhookEndpoint:
    """Read an endpoint. Raises `NotFound` for an id that is not the project's."""
    query = rows.select(WebhookEndpoint).where(
        WebhookEndpoint.id == endpoint_id, WebhookEndpoint.project_id == project_id
    )
    found = await rows.one_of(WebhookEndpoint, connection, query) if ids.is_id(endpoint_id, "whe") else None
    if found is None:
        raise _no_such_endpoint(endpoint_id)
    return found


async def lock_endpoint(session: AsyncSession, endpoint_id: str, *, project_id: str) -> WebhookEndpoint:
    """Read an endpoint and lock its row for this transaction. Raises `NotFound` for an id that is not the project's."""
    query = sa.select(WebhookEndpoint).where(
        WebhookEndpoint.id == endpoint_id, WebhookEndpoint.project_id == project_id
    )
    query = query.with_for_update(key_share=True)
    found = await session.scalar(query) if ids.is_id(endpoint_id, "whe") else None
    if found is None:
        raise _no_such_endpoint(endpoint_id)
    return found


def _no_such_endpoint(endpoint_id: str) -> errors.NotFound:
    return errors.NotFound(f"no webhook endpoint has the id {endpoint_id!r:.80}", param="webhook_endpoint_id")


async def list_endpoints(
    connection: AsyncConnection, *, project_id: str, after: str | None, limit: int
) -> tuple[list[WebhookEndpoint], bool]:
    """A page of endpoints, newest first, and whether there are more."""
    query = rows.select(WebhookEndpoint).where(WebhookEndpoint.project_id == project_id)
    if after is not None and ids.is_id(after, "whe"):
        query = query.where(WebhookEndpoint.id < after)
    query = query.order_by(WebhookEndpoint.id.desc()).limit(limit + 1)
    found = await rows.all_of(WebhookEndpoint, connection, query)
    return found[:limit], len(found) > limit


async def update_endpoint(
    session: AsyncSession,
    endpoint_id: str,
    *,
    project_id: str,
    name: str | None = None,
    url: str | None = None,
    types: Sequence[str] | None = None,
    enabled: bool | None = None,
    allow: Iterable[net.Network],
    now: datetime,
) -> WebhookEndpoint:
    """Change the given fields. A new URL enables an endpoint again, unless `enabled` is false.

    Raises `NotFound`, `InvalidRequest`.
    """
    endpoint = await lock_endpoint(session, endpoint_id, project_id=project_id)
    before = (endpoint.name, endpoint.url, endpoint.event_types, endpoint.disabled_at)
    endpoint.name = endpoint.name if name is None else _checked_name(name)
    endpoint.event_types = endpoint.event_types if types is None else checked_event_types(types)
    if url is not None and checked_url(url, "url", allow) != endpoint.url:
        endpoint.url = url
        enabled = True if enabled is None else enabled
    if enabled:
        endpoint.disabled_at = endpoint.disabled_reason = endpoint.failing_since = None
    elif enabled is False and endpoint.disabled_at is None:
        await disable(session, endpoint, "disabled by its project", now=now)
    if before != (endpoint.name, endpoint.url, endpoint.event_types, endpoint.disabled_at):
        endpoint.updated_at = now
    await session.flush()
    return endpoint


async def disable(session: AsyncSession, endpoint: WebhookEndpoint, reason: str, *, now: datetime) -> None:
    """Disable an endpoint: its waiting deliveries fail, and later events make none for it."""
    endpoint.disabled_at, endpoint.disabled_reason = now, reason
    await session.execute(
        sa.update(Delivery)
        .where(Delivery.endpoint_id == endpoint.id, Delivery.state == DeliveryState.pending, Delivery.lease.is_(None))
        .values(state=DeliveryState.failed, ended_at=now)
        .execution_options(synchronize_session=False)
    )


async def delete_endpoint(session: AsyncSession, endpoint_id: str, *, project_id: str) -> None:
    """Delete an endpoint with all its deliveries. Raises `NotFound`."""
    await session.delete(await lock_endpoint(session, endpoint_id, project_id=project_id))


async def rotate_secret(
    session: AsyncSession, endpoint_id: str, *, project_id: str, keep_old: bool, now: datetime
) -> WebhookEndpoint:
    """Replace the secret of an endpoint; with `keep_old` both sign for a day. Raises `NotFound`."""
    endpoint = await lock_endpoint(session, endpoint_id, project_id=project_id)
    endpoint.old_secret = endpoint.secret if keep_old else None
    endpoint.old_secret_until = now + timedelta(seconds=OLD_SECRET_S) if keep_old else None
    endpoint.secret, endpoint.updated_at = mint_secret(), now
    await session.flush()
    return endpoint


def secrets_of(endpoint: WebhookEndpoint, now: datetime) -> list[str]:
    """Secrets that sign at `now`, newest first."""
    old = endpoint.old_secret if endpoint.old_secret_until is not None and now < endpoint.old_secret_until else None
    return [endpoint.secret, *([old] if old else [])]
