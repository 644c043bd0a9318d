"""Overview of the running gateway, read from its database, for `video-gateway status` and the administration API."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.accounts import pricing
from app.db.database import Database
from app.db.models import LIVE, Attempt, Delivery, ProviderHealth, Video, WebhookEndpoint
from app.jobs import presence, reconcile
from app.video import DeliveryState, Settlement, Status

DAY = timedelta(days=1)
MAX_LISTED = 1_000
"""Open circuits and disabled endpoints that are listed."""

_SCHEMA = sa.text("select version_num from alembic_version")


async def read_overview(database: Database, now: datetime) -> dict[str, Any]:
    """Read the state of the running gateway."""
    async with database.reading() as connection:
        workers = [
            {
                "host": worker.host,
                "pid": worker.pid,
                "version": worker.version,
                "seen_s": _seconds(now, worker.seen_at),
            }
            for worker in await presence.list_running(connection)
        ]
        return {
            "version": presence.RELEASE,
            "schema": await connection.scalar(_SCHEMA),  # another one than this process needs, during an update
            "workers": workers,
            "jobs": await _jobs(connection, now),
            "circuits": await _circuits(connection, now),
            "undecided": await _undecided(connection),
            "undecided_count": await reconcile.count_undecided(connection),
            "webhooks": await _webhooks(connection, now),
            "last_24_h": await last_day(connection, now),
            "held_usd": await _held(connection),
        }


async def _jobs(connection: AsyncConnection, now: datetime) -> list[dict[str, Any]]:
    query = (
        sa.select(Attempt.provider, Attempt.state, sa.func.count(), sa.func.min(Attempt.created_at))
        .where(Attempt.state.in_(LIVE))
        .group_by(Attempt.provider, Attempt.state)
        .order_by(Attempt.provider, Attempt.state)
    )
    return [
        {"provider": provider, "state": str(state), "count": count, "oldest_s": _seconds(now, oldest)}
        for provider, state, count, oldest in await connection.execute(query)
    ]


async def _circuits(connection: AsyncConnection, now: datetime) -> list[dict[str, Any]]:
    columns = (ProviderHealth.name, ProviderHealth.project_id, ProviderHealth.open_until)
    query = sa.select(*columns).where(ProviderHealth.open_until > now).order_by(*columns[:2]).limit(MAX_LISTED)
    return [
        {"provider": provider, "project": project or None, "open_until": until and until.isoformat()}
        for provider, project, until in await connection.execute(query)
    ]


async def _undecided(connection: AsyncConnection) -> list[dict[str, Any]]:
    return [
        {
            "id": attempt.id,
            "video": video.id,
            "project": video.project_id,
            "provider": attempt.provider,
            "submitted_at": attempt.submitted_at and attempt.submitted_at.isoformat(),
            "held_usd": pricing.dollars(video.hold_micros),
        }
        for attempt, video in await reconcile.list_undecided(connection)
    ]


async def _webhooks(connection: AsyncConnection, now: datetime) -> dict[str, Any]:
    waiting = sa.select(sa.func.count(), sa.func.min(Delivery.created_at)).where(
        Delivery.state == DeliveryState.pending
    )
    count, oldest = (await connection.execute(waiting)).one()
    columns = (WebhookEndpoint.id, WebhookEndpoint.project_id, WebhookEndpoint.name, WebhookEndpoint.disabled_reason)
    disabled = (
        sa.select(*columns)
        .where(WebhookEndpoint.disabled_at.is_not(None))
        .order_by(WebhookEndpoint.id)
        .limit(MAX_LISTED)
    )
    return {
        "pending": count,
        "oldest_s": None if oldest is None else _seconds(now, oldest),
        "disabled_endpoints": [dict(row._mapping) for row in await connection.execute(disabled)],
    }


async def last_day(connection: AsyncConnection, now: datetime) -> dict[str, int]:
    """Count the videos that ended within 24 hours, by status."""
    ended = Video.ended_at >= now - DAY
    query = sa.select(Video.status, sa.func.count()).where(ended).group_by(Video.status)
    counts = {str(ended): count for ended, count in await connection.execute(query)}
    return {str(name): counts.get(str(name), 0) for name in (Status.completed, Status.failed)}


async def _held(connection: AsyncConnection) -> Any:
    held = sa.select(sa.func.sum(Video.hold_micros)).select_from(Attempt).join(Video, Video.id == Attempt.video_id)
    micros = await connection.scalar(held.where(Attempt.settlement == Settlement.held))
    return pricing.dollars(int(micros or 0))


def _seconds(now: datetime, then: datetime) -> int:
    return max(0, round((now - then).total_seconds()))
