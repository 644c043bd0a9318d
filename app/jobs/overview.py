"""Overview of the running gateway, read from its database, for `video-gateway status`, the administration API and the
console."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app import ids
from app.accounts import ledger, pricing
from app.db.database import Database
from app.db.models import LIVE, Attempt, Delivery, ProviderHealth, Video, WebhookEndpoint
from app.jobs import breaker, presence
from app.video import DeliveryState, Settlement, Status

DAY = timedelta(days=1)
MAX_LISTED = 1_000
"""Open circuits, undecided submits and disabled endpoints that are listed."""
UNDECIDED = ("id", "video", "project", "provider", "submitted_at")
"""Fields of an undecided submit, apart from its money."""


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
        counts = await read_counts(connection, now)
        return {
            "version": presence.RELEASE,
            "schema": counts.schema,  # another one than this process needs, during an update
            "workers": workers,
            "jobs": await _jobs(connection, now),
            "circuits": counts.circuits or [],
            "undecided": [
                {**{name: one[name] for name in UNDECIDED}, "held_usd": pricing.dollars(one["hold_micros"])}
                for one in counts.undecided or ()
            ],
            "undecided_count": counts.undecided_count,
            "webhooks": {
                "pending": counts.webhooks,
                "oldest_s": None if counts.oldest_webhook is None else _seconds(now, counts.oldest_webhook),
                "disabled_endpoints": counts.disabled_endpoints or [],
            },
            "unfinished": {"queued": counts.queued, "in_progress": counts.in_progress},
            "last_24_h": {
                "created": counts.created,
                "completed": counts.completed,
                "failed": counts.failed,
                "cancelled": counts.cancelled,
                "cost_usd": pricing.dollars(int(counts.cost_micros or 0)),
            },
            "held_usd": pricing.dollars(int(counts.held_micros or 0)),
        }


async def read_counts(connection: AsyncConnection, now: datetime) -> sa.Row[Any]:
    """Read counts, sums and short lists of the overview, with one statement."""

    def count(*conditions: sa.ColumnElement[bool]) -> Any:
        return sa.select(sa.func.count()).where(*conditions).scalar_subquery()

    unfinished, waiting = Video.ended_at.is_(None), Delivery.state == DeliveryState.pending
    circuits = sa.select(
        ProviderHealth.name.label("provider"),
        sa.func.nullif(ProviderHealth.project_id, breaker.ALL_PROJECTS).label("project"),
        ProviderHealth.open_until,
    ).where(ProviderHealth.open_until > now)
    endpoints = sa.select(
        WebhookEndpoint.id, WebhookEndpoint.project_id, WebhookEndpoint.name, WebhookEndpoint.disabled_reason
    ).where(WebhookEndpoint.disabled_at.is_not(None))
    held = sa.select(sa.func.sum(Video.hold_micros)).select_from(Attempt).join(Video, Video.id == Attempt.video_id)
    values = {
        "schema": sa.select(sa.column("version_num")).select_from(sa.table("alembic_version")).scalar_subquery(),
        "circuits": _listed(circuits.order_by(ProviderHealth.name, ProviderHealth.project_id)),
        "undecided": _listed(_undecided()),
        "undecided_count": count(*ledger.UNKNOWN),
        "webhooks": count(waiting),
        "oldest_webhook": sa.select(sa.func.min(Delivery.created_at)).where(waiting).scalar_subquery(),
        "disabled_endpoints": _listed(endpoints.order_by(WebhookEndpoint.id)),
        "queued": count(unfinished, Video.status == Status.queued),
        "in_progress": count(unfinished, Video.status == Status.in_progress),
        "created": count(Video.id >= ids.least("video", now - DAY)),
        "held_micros": held.where(Attempt.settlement == Settlement.held).scalar_subquery(),
    }
    ended = sa.select(
        sa.func.count().filter(Video.status == Status.completed).label("completed"),
        sa.func.count().filter(Video.status == Status.failed).label("failed"),
        sa.func.count().filter(Video.error_code == "cancelled").label("cancelled"),
        sa.func.sum(Video.cost_micros).label("cost_micros"),
    ).where(Video.ended_at >= now - DAY)
    day = ended.subquery()
    query = sa.select(*day.c, *(value.label(name) for name, value in values.items()))
    return (await connection.execute(query)).one()


def _undecided() -> Any:
    """The submits of unknown outcome, oldest first."""
    columns = (Attempt.id, Video.id, Video.project_id, Attempt.provider, Attempt.submitted_at)
    named = [column.label(name) for name, column in zip(UNDECIDED, columns, strict=True)]
    query = sa.select(*named, Video.hold_micros).join(Video, Video.id == Attempt.video_id)
    return query.where(*ledger.UNKNOWN).order_by(Attempt.ended_at, Attempt.id)


def _listed(query: Any) -> Any:
    """Rows as a JSON array, in their order; null for none."""
    found = query.limit(MAX_LISTED).subquery("listed")
    array = sa.func.jsonb_agg(sa.func.to_jsonb(sa.literal_column("listed")))
    return sa.select(array).select_from(found).scalar_subquery()


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


def _seconds(now: datetime, then: datetime) -> int:
    return max(0, round((now - then).total_seconds()))
