"""Deliveries of events to URLs: claim those that are due, record each try, retry with growing gaps.

    pending ──2xx──▶ delivered          failed ──redeliver──▶ pending
       │ ▲                                ▲
       └─┴─ anything else, for 72 hours ──┘

`due_at` is also the end of the lease, as with attempts: the deliveries of a dead worker come due again, under the same
`webhook-id`. URLs come from clients: they are only called through the guarded client, and redirects are failures.
"""

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import errors, ids
from app.db import rows
from app.db.database import Database
from app.db.models import Delivery, DeliveryTry, Video, WebhookEndpoint
from app.telemetry.logs import log
from app.video import DeliveryState
from app.webhooks import endpoints, signing
from app.webhooks.sender import Answer

GAPS_S = (5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400, 28_800)
"""Seconds from each failed try to the next, plus or minus a tenth; the last one repeats."""
RETRY_S = 72 * 3_600
"""Seconds from the first failed try to the last; an endpoint that fails for as long is disabled."""
KEPT_S = 30 * 86_400
"""Seconds for which ended deliveries are kept."""
PURGE_BATCH = 1_000
MAX_REDELIVERED, REDELIVERY_BATCH = 1_000, 200
"""Failed deliveries that one request makes due, and one transaction."""
MAX_COUNTED = 10_000
"""Failed deliveries that are counted by the reason why they were left out."""
CLOCKS_DIFFER = timedelta(minutes=10)
"""Difference of the clocks that make ids and that write times, at most."""


# Claiming

_CLAIM = sa.text(
    """
with recursive queues as (  -- each project and queue key with a pending delivery, by a loose index scan
  (select project_id, queue_key from deliveries
   where state = 'pending' and exists (select from deliveries where state = 'pending' and due_at <= :now)
   order by project_id, queue_key limit 1)
  union all
  select next.project_id, next.queue_key from queues cross join lateral (
    select project_id, queue_key from deliveries
    where state = 'pending' and (project_id, queue_key) > (queues.project_id, queues.queue_key)
    order by project_id, queue_key limit 1
  ) as next
), busy as (  -- at most as many rows as all workers have deliveries under way
  select project_id, queue_key, count(*) as calls from deliveries
  where lease is not null and due_at > :now
  group by project_id, queue_key
), waiting as (
  select first.id, first.due_at, queues.project_id, coalesce(busy.calls, 0)
    + row_number() over (partition by queues.project_id, queues.queue_key order by first.due_at, first.id) as turn
  from queues left join busy using (project_id, queue_key) cross join lateral (
    select id, due_at from deliveries
    where state = 'pending' and project_id = queues.project_id and queue_key = queues.queue_key and due_at <= :now
    order by due_at, id limit greatest(0, :share - coalesce(busy.calls, 0))
  ) as first
), placed as (  -- projects with fewer deliveries under way come first
  select id, due_at, row_number() over (partition by project_id order by turn, due_at, id)
    + (select coalesce(sum(calls), 0) from busy where busy.project_id = waiting.project_id) as place
  from waiting
), chosen as (
  select id from placed order by place, due_at, id limit :slots
), due as (
  select id from deliveries where id in (select id from chosen) and state = 'pending' and due_at <= :now
  for update skip locked
)
update deliveries set lease = :lease, due_at = :lease_until
from due where deliveries.id = due.id
returning {columns}
""".replace("{columns}", rows.column_list(Delivery))
)


async def claim_deliveries(
    connection: rows.Connection, slots: int, *, share: int, lease_s: float, now: datetime
) -> list[Delivery]:
    """Claim up to `slots` due deliveries in turns, by project and then by queue key, with at most `share` under way for
    one queue key. One statement, however many deliveries are pending and however many of them fail."""
    parameters = {
        "slots": slots,
        "share": share,
        "now": now,
        "lease": ids.new("lease"),
        "lease_until": now + timedelta(seconds=lease_s),
    }
    return [rows.from_values(Delivery, row) for row in (await connection.execute(_CLAIM, parameters)).mappings()]


# Recording


async def record_try(session: AsyncSession, delivery: Delivery, answer: Answer, *, now: datetime) -> str | None:
    """Record a try and return its outcome: `delivered`, `retried` or `failed`; None if another worker has claimed the
    delivery, or if it was deleted."""
    endpoint = await _endpoint(session, delivery, answer, now)  # lock order: endpoint, video, delivery
    is_erased = await _is_erased(session, delivery.video_id)
    values: dict[str, Any] = {"lease": None}
    if answer.error is None:
        outcome = "delivered"
        values |= {"state": DeliveryState.delivered, "ended_at": now}
    else:
        give_up_at = delivery.give_up_at or now + timedelta(seconds=RETRY_S)
        values |= {"tries": delivery.tries + 1, "give_up_at": give_up_at}
        if now >= give_up_at or (endpoint is not None and endpoint.disabled_at is not None):
            outcome = "failed"
            values |= {"state": DeliveryState.failed, "ended_at": now}
        else:
            outcome = "retried"
            values["due_at"] = min(give_up_at, now + timedelta(seconds=gap_s(delivery.tries)))
    if outcome != "retried" and is_erased and delivery.url is not None:
        values |= {"video": None, "secret": None, "url": delivery.queue_key}
    moved = await session.scalar(
        sa.update(Delivery)
        .where(Delivery.id == delivery.id, Delivery.lease == delivery.lease, Delivery.state == DeliveryState.pending)
        .values(**values)
        .returning(Delivery.id)
        .execution_options(synchronize_session=False)
    )
    if moved is None:
        return None
    session.add(
        DeliveryTry(
            id=ids.new("try"),
            delivery_id=delivery.id,
            at=now,
            status=answer.status,
            duration_ms=answer.duration_ms,
            answer=None if is_erased else answer.text,
            error=answer.error,
        )
    )
    return outcome


async def _is_erased(session: AsyncSession, video_id: str) -> bool:
    """True if a video was deleted or purged. Its row is locked, so that a delete or a purge at the same time waits, and
    then sees the try."""
    kept = (Video.id == video_id, Video.deleted_at.is_(None), Video.purged_at.is_(None))
    locked = sa.select(Video.id).where(*kept).with_for_update(read=True, key_share=True)
    return await session.scalar(locked) is None


async def _endpoint(session: AsyncSession, delivery: Delivery, answer: Answer, now: datetime) -> WebhookEndpoint | None:
    """Record success or failure of an endpoint; disable one that has failed for `RETRY_S`."""
    if delivery.endpoint_id is None:
        return None
    if answer.error is None:
        await session.execute(
            sa.update(WebhookEndpoint)
            .where(WebhookEndpoint.id == delivery.endpoint_id, WebhookEndpoint.failing_since.is_not(None))
            .values(failing_since=None)
        )
        return None
    endpoint = await session.get(WebhookEndpoint, delivery.endpoint_id, with_for_update={"key_share": True})
    if endpoint is None or endpoint.disabled_at is not None:
        return endpoint
    endpoint.failing_since = endpoint.failing_since or now
    if now >= endpoint.failing_since + timedelta(seconds=RETRY_S):
        reason = (
            f"nothing was delivered since {endpoint.failing_since:%Y-%m-%d %H:%M} UTC; the last try: {answer.error}"
        )
        await endpoints.disable(session, endpoint, reason, now=now)
        log.warning("webhook endpoint disabled", endpoint=endpoint.id, reason=reason)
    return endpoint


def gap_s(tries: int) -> float:
    """Seconds until the next try; `tries` is the number of tries that failed before this one."""
    return GAPS_S[min(tries, len(GAPS_S) - 1)] * random.uniform(0.9, 1.1)  # noqa: S311


async def purge_deliveries(session: AsyncSession, *, now: datetime, limit: int = PURGE_BATCH) -> None:
    """Delete old ended deliveries; make due now those due after `RETRY_S`: the database's clock was set back."""
    await session.execute(
        sa.update(Delivery)
        .where(Delivery.state == DeliveryState.pending, Delivery.due_at > now + timedelta(seconds=RETRY_S))
        .values(due_at=now)
    )
    old = (
        sa.select(Delivery.id)
        .where(Delivery.ended_at < now - timedelta(seconds=KEPT_S))
        .order_by(Delivery.ended_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    await session.execute(sa.delete(Delivery).where(Delivery.id.in_(old)))


# Reading and redelivery


async def list_deliveries(
    connection: AsyncConnection,
    *,
    project_id: str | None,
    endpoint_id: str | None = None,
    video_id: str | None = None,
    state: DeliveryState | None = None,
    event_type: str | None = None,
    since: datetime | None = None,
    after: str | None,
    limit: int,
) -> tuple[list[tuple[Delivery, list[DeliveryTry]]], bool]:
    """Deliveries of a project (None: of all), to an endpoint or about a video, newest first, with all their tries,
    oldest first."""
    query = rows.select(Delivery)
    if project_id is not None:
        query = query.where(Delivery.project_id == project_id)
    if endpoint_id is not None:
        query = query.where(Delivery.endpoint_id == endpoint_id)
    if video_id is not None:
        query = query.where(Delivery.video_id == video_id)
    if state is not None:
        query = query.where(Delivery.state == state)
    query = query.where(*_of_kind(event_type, since))
    if after is not None and ids.is_id(after, "wh"):
        query = query.where(Delivery.id < after)
    found = await rows.all_of(Delivery, connection, query.order_by(Delivery.id.desc()).limit(limit + 1))
    tries: dict[str, list[DeliveryTry]] = {delivery.id: [] for delivery in found[:limit]}
    made = rows.select(DeliveryTry).where(DeliveryTry.delivery_id.in_(list(tries))).order_by(DeliveryTry.id)
    for entry in await rows.all_of(DeliveryTry, connection, made):
        tries[entry.delivery_id].append(entry)
    return [(delivery, tries[delivery.id]) for delivery in found[:limit]], len(found) > limit


def _of_kind(event_type: str | None, since: datetime | None) -> list[sa.ColumnElement[bool]]:
    """Conditions for deliveries of one type of event, and of those since a moment: a range of ids, too, in which an
    index ends."""
    found = [] if event_type is None else [Delivery.event_type == event_type]
    if since is not None:
        found += [Delivery.created_at >= since, Delivery.id >= ids.least("wh", since - CLOCKS_DIFFER)]
    return found


async def redeliver(
    session: AsyncSession,
    delivery_id: str,
    *,
    project_id: str,
    endpoint_id: str | None = None,
    video_id: str | None = None,
    now: datetime,
) -> Delivery:
    """Make a delivery due now, under the same `webhook-id`; if it fails, all gaps start again.

    Raises `NotFound`, `Conflict` for a disabled endpoint or when nothing is left to send.
    """
    query = sa.select(Delivery).where(Delivery.id == delivery_id, Delivery.project_id == project_id)
    query = query.where(Delivery.endpoint_id == endpoint_id) if endpoint_id is not None else query
    query = query.where(Delivery.video_id == video_id) if video_id is not None else query
    delivery = await session.scalar(query) if ids.is_id(delivery_id, "wh") else None
    if delivery is None:
        raise errors.NotFound(f"no delivery has the id {delivery_id!r:.80}", param="delivery_id")
    if delivery.endpoint_id is not None:
        endpoint = await endpoints.lock_endpoint(session, delivery.endpoint_id, project_id=project_id)
        if endpoint.disabled_at is not None:
            raise errors.Conflict(
                'the endpoint is disabled; enable it with {"enabled": true} first', code="webhook_endpoint_disabled"
            )
    await session.refresh(delivery, with_for_update=True)
    if delivery.data is None and delivery.video is None:
        raise errors.Conflict("the video was deleted or purged, so there is nothing left to send", code="video_deleted")
    if delivery.lease is None or delivery.due_at <= now:  # otherwise it is being sent at this moment
        delivery.state, delivery.ended_at, delivery.lease = DeliveryState.pending, None, None
        delivery.due_at, delivery.tries, delivery.give_up_at = now, 0, None
    await session.flush()
    return delivery


@dataclass(frozen=True)
class Redelivered:
    """The result of `redeliver_failed`."""

    count: int
    has_more: bool
    endpoint_disabled: int
    """Deliveries left out, counted up to `MAX_COUNTED`: their endpoint is disabled."""
    video_deleted: int
    """The same: nothing is left to send."""


async def redeliver_failed(
    db: Database,
    *,
    project_id: str,
    since: datetime,
    endpoint_id: str | None = None,
    event_type: str | None = None,
    now: datetime,
) -> Redelivered:
    """Make the failed deliveries since a moment due now, as `redeliver` does, oldest first, at most `MAX_REDELIVERED`,
    in batches. Those to disabled endpoints and those of which nothing is left to send are left out."""
    failed = _failed(project_id, since, endpoint_id, event_type)
    count = 0
    while count < MAX_REDELIVERED:
        async with db.transaction() as session:
            limit = min(REDELIVERY_BATCH, MAX_REDELIVERED - count)
            made = await _redeliver_batch(session, failed, project_id=project_id, limit=limit, now=now)
        count += made
        if made < limit:
            break
    # Not by the counts: where they end, deliveries may be left out that no repetition sends.
    more = sa.select(sa.exists().where(*failed, _REASON == _OPEN))
    async with db.reading() as connection:
        left = await _count_by_reason(connection, failed)
        has_more = bool(await connection.scalar(more))
    return Redelivered(
        count, has_more=has_more, endpoint_disabled=left.get(_DISABLED, 0), video_deleted=left.get(_ERASED, 0)
    )


@dataclass(frozen=True)
class Failed:
    """The result of `count_failed`; no number is above `MAX_COUNTED`."""

    sendable: int
    endpoint_disabled: int
    video_deleted: int


async def count_failed(
    connection: AsyncConnection,
    *,
    project_id: str,
    since: datetime,
    endpoint_id: str | None = None,
    event_type: str | None = None,
) -> Failed:
    """Count the failed deliveries that `redeliver_failed` would send, and those that it would leave out."""
    failed = _failed(project_id, since, endpoint_id, event_type)
    left = await _count_by_reason(connection, failed)
    # A count of its own: those that are left out may be more than are looked at.
    sendable = sa.select(Delivery.id).where(*failed, _REASON == _OPEN).limit(MAX_COUNTED).subquery()
    count = await connection.scalar(sa.select(sa.func.count()).select_from(sendable))
    return Failed(count or 0, endpoint_disabled=left.get(_DISABLED, 0), video_deleted=left.get(_ERASED, 0))


def _failed(
    project_id: str, since: datetime, endpoint_id: str | None, event_type: str | None
) -> list[sa.ColumnElement[bool]]:
    """Conditions for the failed deliveries of a project since a moment."""
    found: list[sa.ColumnElement[bool]] = [
        Delivery.project_id == project_id,
        Delivery.state == DeliveryState.failed,
        *_of_kind(event_type, since),
    ]
    return found if endpoint_id is None else [*found, Delivery.endpoint_id == endpoint_id]


async def _count_by_reason(connection: AsyncConnection, failed: Sequence[sa.ColumnElement[bool]]) -> dict[str, int]:
    looked_at = sa.select(_REASON.label("reason")).where(*failed).limit(MAX_COUNTED).subquery()
    query = sa.select(looked_at.c.reason, sa.func.count()).group_by(looked_at.c.reason)
    return {row[0]: row[1] for row in await connection.execute(query)}


_OPEN, _DISABLED, _ERASED = "open", "disabled", "erased"
_REASON = sa.case(
    (sa.and_(Delivery.data.is_(None), Delivery.video.is_(None)), _ERASED),
    (
        sa.exists().where(WebhookEndpoint.id == Delivery.endpoint_id, WebhookEndpoint.disabled_at.is_not(None)),
        _DISABLED,
    ),
    else_=_OPEN,
)
"""The reason why a failed delivery cannot be sent again."""


async def _redeliver_batch(
    session: AsyncSession,
    failed: Sequence[sa.ColumnElement[bool]],
    *,
    project_id: str,
    limit: int,
    now: datetime,
) -> int:
    """Make a batch due; returns their number. Rows that another transaction holds are left for the next call."""
    enabled = await session.scalars(  # lock order: endpoints, by id, then deliveries
        sa.select(WebhookEndpoint.id)
        .where(WebhookEndpoint.project_id == project_id, WebhookEndpoint.disabled_at.is_(None))
        .order_by(WebhookEndpoint.id)
        .with_for_update(key_share=True)
    )
    sendable = sa.or_(Delivery.data.is_not(None), Delivery.video.is_not(None))
    reachable = sa.or_(Delivery.endpoint_id.is_(None), Delivery.endpoint_id.in_(enabled.all()))
    chosen = (
        sa.select(Delivery.id)
        .where(*failed, sendable, reachable)
        .order_by(Delivery.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    made_due = await session.execute(
        sa.update(Delivery)
        .where(Delivery.id.in_((await session.scalars(chosen)).all()))
        .values(state=DeliveryState.pending, ended_at=None, lease=None, due_at=now, tries=0, give_up_at=None)
        .execution_options(synchronize_session=False)
    )
    return int(made_due.rowcount)  # type: ignore[attr-defined]  # of an UPDATE


# Address


async def address_of(connection: AsyncConnection, delivery: Delivery, now: datetime) -> tuple[str | None, list[str]]:
    """Current URL and signing secrets of a delivery; its endpoint may change. No URL: it is disabled or deleted."""
    if delivery.endpoint_id is None:
        if delivery.secret is not None:
            return delivery.url, [delivery.secret]
        standard = delivery.style == signing.STANDARD
        return delivery.url, [await endpoints.project_secret(connection, delivery.project_id)] if standard else []
    with suppress(errors.NotFound):
        endpoint = await endpoints.get_endpoint(connection, delivery.endpoint_id, project_id=delivery.project_id)
        if endpoint.disabled_at is None:
            return endpoint.url, endpoints.secrets_of(endpoint, now)
    return None, []
