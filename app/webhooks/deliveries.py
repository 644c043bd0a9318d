"""Getting an event to its address: claim what is due, call, record the answer, try again with growing gaps.

    pending ──2xx──▶ delivered          failed ──by hand──▶ pending
       │ ▲                                ▲
       └─┴─ anything else, for 72 hours ──┘

The due time is also the lease, as with attempts: what a dying worker held comes due again, under the same `webhook-id`.
Addresses are somebody else's, so they are only ever called through the guarded client, and redirects are failures.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import errors, ids, net
from app.db import rows
from app.db.database import Database
from app.db.models import Delivery, DeliveryTry, Video, WebhookEndpoint
from app.settings import Settings
from app.telemetry import WEBHOOKS, log
from app.video import DeliveryState, WebhookStyle
from app.webhooks import endpoints as webhooks

GAPS_S = (5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400, 28_800)
"""From each failed try to the next, give or take a tenth; the last one repeats."""
RETRY_S = 72 * 3_600
"""From the first failed try to the last; also how long an endpoint may fail before it is disabled."""
MAX_ANSWER_CHARACTERS = 2_048
KEPT_S = 30 * 86_400
"""How long deliveries that have ended are shown."""
PURGE_BATCH = 1_000
RECORD_PATIENCE_S = 30
LANE_SHARE = 5
"""One address has at most the fifth part of the deliveries under way: a receiver that hangs never holds all of them."""
SAMPLE_VIDEO_ID = f"video_{'0' * 26}"
"""What a test event is about; there is no such video."""

Renderer = Callable[[Video], dict[str, Any]]
"""How a video is shown to a receiver: the `data` of an event for the style `standard`, else the whole body."""


@dataclass(frozen=True)
class Answer:
    """What came of one call."""

    status: int | None
    """None: there was no answer."""
    duration_ms: int
    text: str | None = None
    error: str | None = None
    """Why it does not count as delivered; None: it does."""


class Sender:
    """Calls addresses; knows how a body looks and how it is signed, and nothing about the database."""

    def __init__(
        self, settings: Settings, clock: Callable[[], datetime], renderers: Mapping[WebhookStyle, Renderer]
    ) -> None:
        self._timeout_s = settings.webhook_timeout_s
        self._clock = clock
        self._renderers = renderers
        self._client = net.guarded(allow=settings.allow_networks, timeout_s=settings.webhook_timeout_s)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def deliver(self, delivery: Delivery, secrets: Sequence[str], url: str) -> Answer:
        """Try once. Never raises."""
        try:
            body = _encoded(self._document(delivery))
        except Exception:
            log.exception("a webhook's body could not be made")
            return Answer(None, 0, error="the gateway could not make the body; its log has the reason")
        signed = webhooks.headers(delivery.style, secrets, webhook_id=delivery.id, body=body, now=self._clock())
        return await self._post(url, body, signed)

    async def test(self, endpoint: WebhookEndpoint, event_type: str) -> Answer:
        """Send a sample event, once. Never raises."""
        now = self._clock()
        body = _encoded(webhooks.event(ids.new("evt"), event_type, now, {"id": SAMPLE_VIDEO_ID}))
        signed = webhooks.headers(
            WebhookStyle.standard, webhooks.secrets_of(endpoint, now), webhook_id=ids.new("wh"), body=body, now=now
        )
        return await self._post(endpoint.url, body, signed)

    def _document(self, delivery: Delivery) -> dict[str, Any]:
        data = delivery.data
        if data is None:
            data = self._renderers.get(delivery.style, _minimal)(rows.from_values(Video, delivery.video or {}))
        if delivery.style is not WebhookStyle.standard:
            return data
        return webhooks.event(delivery.event_id, delivery.event_type, delivery.created_at, data)

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        started = time.perf_counter()
        status, text, error = None, None, None
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("POST", url, content=body, headers=headers) as r,
            ):
                status = r.status_code
                text = await _beginning(r)
        except net.ForbiddenAddress as refused:
            error = f"{refused}, so nothing was sent; the operator can allow private networks"
        except TimeoutError:
            error = f"no answer within {self._timeout_s:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            error = f"no answer: {str(failure)[:300] or type(failure).__name__}"
        except UnicodeError:  # an address from before `checked_url` looked at its name, which does not decode
            error = "no answer: the host of the address has no name"
        except Exception as failure:  # a receiver can send anything; it must not stop the worker
            log.exception("an unexpected error while a webhook was sent")
            error = f"no answer: {type(failure).__name__}"
        if status is not None:  # it has answered; how the rest of the answer went does not count
            redirected = "; redirects are not followed" if 300 <= status < 400 else ""
            error = None if 200 <= status < 300 else f"answered {status}{redirected}"
        return Answer(status, round((time.perf_counter() - started) * 1000), text, error)


def _encoded(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


async def _beginning(response: httpx.Response) -> str:
    """The first characters of an answer; the rest is never read. What cannot be read is left out."""
    raw = b""
    with suppress(httpx.HTTPError):
        async for chunk in response.aiter_raw(4_096):
            raw += chunk
            if len(raw) >= 4 * MAX_ANSWER_CHARACTERS:
                break
    return raw.decode(errors="replace").replace("\x00", "")[:MAX_ANSWER_CHARACTERS]


def _minimal(video: Video) -> dict[str, Any]:
    failure = {"error": {"code": video.error_code, "message": video.error_message}} if video.error_code else {}
    return {"id": video.id, "status": str(video.status), **failure}


# Taking what is due

_CLAIM = sa.text("""
with recursive lanes as (  -- each owner and address with something pending, found by skipping along the index
  (select owner, lane from deliveries
   where state = 'pending' and exists (select from deliveries where state = 'pending' and due_at <= :now)
   order by owner, lane limit 1)
  union all
  select next.owner, next.lane from lanes cross join lateral (
    select owner, lane from deliveries
    where state = 'pending' and (owner, lane) > (lanes.owner, lanes.lane)
    order by owner, lane limit 1
  ) as next
), busy as (  -- never more rows than all workers have under way
  select owner, lane, count(*) as calls from deliveries
  where lease is not null and due_at > :now
  group by owner, lane
), waiting as (
  select first.id, first.due_at, lanes.owner, coalesce(busy.calls, 0)
    + row_number() over (partition by lanes.owner, lanes.lane order by first.due_at, first.id) as turn
  from lanes left join busy using (owner, lane) cross join lateral (
    select id, due_at from deliveries
    where state = 'pending' and owner = lanes.owner and lane = lanes.lane and due_at <= :now
    order by due_at, id limit greatest(0, :share - coalesce(busy.calls, 0))
  ) as first
), placed as (  -- an owner's turn comes after all who have fewer calls under way
  select id, due_at, row_number() over (partition by owner order by turn, due_at, id)
    + (select coalesce(sum(calls), 0) from busy where busy.owner = waiting.owner) as place
  from waiting
), chosen as (
  select id from placed order by place, due_at, id limit :slots
), due as (
  select id from deliveries where id in (select id from chosen) and state = 'pending' and due_at <= :now
  for update skip locked
)
update deliveries set lease = :lease, due_at = :lease_until
from due where deliveries.id = due.id
returning deliveries.*
""")


async def claim(
    connection: rows.Connection, slots: int, *, share: int, lease_s: float, now: datetime
) -> list[Delivery]:
    """Take up to `slots` of what is due, owners in turns, within an owner addresses in turns, and of one address no
    more than `share` at a time: one statement however many rows, and however many of them go nowhere."""
    parameters = {
        "slots": slots,
        "share": share,
        "now": now,
        "lease": ids.new("lease"),
        "lease_until": now + timedelta(seconds=lease_s),
    }
    return [rows.from_values(Delivery, row) for row in (await connection.execute(_CLAIM, parameters)).mappings()]


# What came of it


async def record(session: AsyncSession, delivery: Delivery, answer: Answer, *, now: datetime) -> str | None:
    """Write a try down and say what came of it: `delivered`, `retried` or `failed`; None when another worker has the
    delivery by now, or nobody wants it any more."""
    endpoint = await _endpoint(session, delivery, answer, now)  # before the delivery, as whoever deletes it does
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
    if outcome != "retried" and delivery.video is not None:
        deleted = ~sa.exists().where(Video.id == delivery.video_id, Video.deleted_at.is_(None))
        values |= {"video": sa.case((deleted, None), else_=Delivery.video)}
        values |= {"secret": sa.case((deleted, None), else_=Delivery.secret)}
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
            answer=answer.text,
            error=answer.error,
        )
    )
    return outcome


async def _endpoint(session: AsyncSession, delivery: Delivery, answer: Answer, now: datetime) -> WebhookEndpoint | None:
    """Keep count of how an endpoint does; one that failed for too long is disabled here."""
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
        await webhooks.disable(session, endpoint, reason, now=now)
        log.warning("webhook endpoint disabled", endpoint=endpoint.id, reason=reason)
    return endpoint


def gap_s(tries: int) -> float:
    """Seconds until the next try after that many have failed before this one."""
    return GAPS_S[min(tries, len(GAPS_S) - 1)] * random.uniform(0.9, 1.1)  # noqa: S311


async def purge(session: AsyncSession, *, now: datetime, limit: int = PURGE_BATCH) -> None:
    """Forget deliveries that ended long ago; make due what a clock that ran ahead has put off."""
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


# For those who want to know


async def page(
    connection: AsyncConnection,
    *,
    owner: str,
    endpoint_id: str | None = None,
    video_id: str | None = None,
    after: str | None,
    limit: int,
) -> tuple[list[tuple[Delivery, list[DeliveryTry]]], bool]:
    """Deliveries to an endpoint or about a video, newest first, with all their tries, oldest first."""
    query = rows.select(Delivery).where(Delivery.owner == owner)
    if endpoint_id is not None:
        query = query.where(Delivery.endpoint_id == endpoint_id)
    if video_id is not None:
        query = query.where(Delivery.video_id == video_id)
    if after is not None and ids.is_id(after, "wh"):
        query = query.where(Delivery.id < after)
    found = await rows.all_of(Delivery, connection, query.order_by(Delivery.id.desc()).limit(limit + 1))
    tries: dict[str, list[DeliveryTry]] = {delivery.id: [] for delivery in found[:limit]}
    made = rows.select(DeliveryTry).where(DeliveryTry.delivery_id.in_(list(tries))).order_by(DeliveryTry.id)
    for entry in await rows.all_of(DeliveryTry, connection, made):
        tries[entry.delivery_id].append(entry)
    return [(delivery, tries[delivery.id]) for delivery in found[:limit]], len(found) > limit


async def redeliver(
    session: AsyncSession,
    delivery_id: str,
    *,
    owner: str,
    endpoint_id: str | None = None,
    video_id: str | None = None,
    now: datetime,
) -> Delivery:
    """Send it once more, now, under the same `webhook-id`; if that fails, with all the gaps again.

    Raises `NotFound`, `Conflict` for a disabled endpoint or when nothing is left to send.
    """
    query = sa.select(Delivery).where(Delivery.id == delivery_id, Delivery.owner == owner)
    query = query.where(Delivery.endpoint_id == endpoint_id) if endpoint_id is not None else query
    query = query.where(Delivery.video_id == video_id) if video_id is not None else query
    delivery = await session.scalar(query) if ids.is_id(delivery_id, "wh") else None
    if delivery is None:
        raise errors.NotFound(f"no delivery has the id {delivery_id!r:.80}", param="delivery_id")
    if delivery.endpoint_id is not None:
        endpoint = await webhooks.lock_endpoint(session, delivery.endpoint_id, owner=owner)
        if endpoint.disabled_at is not None:
            raise errors.Conflict(
                'the endpoint is disabled; enable it with {"enabled": true} first', code="webhook_endpoint_disabled"
            )
    await session.refresh(delivery, with_for_update=True)
    if delivery.data is None and delivery.video is None:
        raise errors.Conflict("the video was deleted, so there is nothing left to send", code="video_deleted")
    if delivery.lease is None or delivery.due_at <= now:  # otherwise it is being sent at this moment
        delivery.state, delivery.ended_at, delivery.lease = DeliveryState.pending, None, None
        delivery.due_at, delivery.tries, delivery.give_up_at = now, 0, None
    await session.flush()
    return delivery


# The duty of a worker


class Courier:
    """Deliveries under way in one process."""

    def __init__(
        self,
        *,
        db: Database,
        settings: Settings,
        sender: Sender,
        clock: Callable[[], datetime],
        wake: Callable[[], None],
    ) -> None:
        self._db = db
        self._sender = sender
        self._clock = clock
        self._wake = wake
        self._limit = settings.webhook_concurrency
        self._lease_s = settings.webhook_timeout_s + settings.lease_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._saturated = False

    async def start_due(self) -> bool:
        """Claim what is due, up to the free places, and start on it; False when nothing was."""
        slots = self._limit - len(self._tasks)
        if slots <= 0:
            return False
        share = max(1, self._limit // LANE_SHARE)
        async with self._db.reading() as connection:
            claimed = await claim(connection, slots, share=share, lease_s=self._lease_s, now=self._clock())
            addressed = [(delivery, *await _address(connection, delivery, self._clock())) for delivery in claimed]
        self._saturated = bool(claimed)
        for delivery, url, secrets in addressed:
            task = asyncio.create_task(self._run(delivery, url, secrets))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        return bool(claimed)

    async def finish(self) -> None:
        """Wait for what is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def drain(self, grace_s: float) -> None:
        """Wait for that long, then let go: what was cut off comes due again with the lease."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        left = set(self._tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._saturated:  # something may wait for the place, or for its address' turn
            self._wake()

    async def _run(self, delivery: Delivery, url: str | None, secrets: Sequence[str]) -> None:
        with structlog.contextvars.bound_contextvars(video=delivery.video_id, delivery=delivery.id):
            try:
                if url is None:
                    answer = Answer(None, 0, error="the endpoint is disabled, so nothing was sent")
                else:
                    answer = await self._sender.deliver(delivery, secrets, url)
                outcome = await self._record(delivery, answer)
            except Exception:
                log.exception("a webhook delivery failed; it comes due again")
                return
            if outcome is None:
                log.warning("another worker has the delivery, or nobody wants it any more")
                return
            WEBHOOKS.labels(outcome).inc()
            said = {"to": webhooks.lane_of(url) if url else None, "status": answer.status, "ms": answer.duration_ms}
            if answer.error is None:
                log.info("webhook delivered", **said)
            else:
                log.warning("webhook not delivered", outcome=outcome, error=answer.error, **said)

    async def _record(self, delivery: Delivery, answer: Answer) -> str | None:
        return await self._db.persist(
            lambda session: record(session, delivery, answer, now=self._clock()), patience_s=RECORD_PATIENCE_S
        )


async def _address(connection: AsyncConnection, delivery: Delivery, now: datetime) -> tuple[str | None, list[str]]:
    """Where a delivery goes and what signs it, as it is now: an endpoint may have moved. No address: it is disabled or
    gone."""
    if delivery.endpoint_id is None:
        if delivery.secret is not None:
            return delivery.url, [delivery.secret]
        standard = delivery.style is WebhookStyle.standard
        return delivery.url, [await webhooks.owner_secret(connection, delivery.owner)] if standard else []
    with suppress(errors.NotFound):
        endpoint = await webhooks.get_endpoint(connection, delivery.endpoint_id, owner=delivery.owner)
        if endpoint.disabled_at is None:
            return endpoint.url, webhooks.secrets_of(endpoint, now)
    return None, []
