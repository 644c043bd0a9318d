"""Metrics of jobs, and the fields of their log lines."""

from collections.abc import Mapping
from typing import Any

from app.accounts.pricing import MICROS, Cost, format_usd, is_underpriced
from app.db.models import Attempt, Video
from app.jobs.spans import note_ended
from app.providers.base import Provider
from app.telemetry.logs import log, loggable
from app.telemetry.metrics import CAPPED, CAPPED_DOLLARS, JOBS, UNDERPRICED, UNDERPRICED_DOLLARS


def log_fields(video: Video) -> dict[str, Any]:
    """Fields of every line about a job; `request` is the id of the request that created it."""
    model = loggable(video.model)
    return {"video": video.id, "project": video.project_id, "model": model, "request": video.request_id}


def count_ended(video: Video, providers: Mapping[str, Provider]) -> None:
    """Count and log an ended job. Models that no provider lists share one label: clients can name any, labels stay
    bounded."""
    provider, model = video.provider or str(video.routes[0]).partition("/")[0], video.upstream_model or ""
    listed = provider in providers and model in providers[provider].listed
    JOBS.labels(provider, model if listed else "other", str(video.status)).inc()
    seconds = round(((video.ended_at or video.updated_at) - video.created_at).total_seconds(), 1)
    log.info("video ended", **log_fields(video), status=str(video.status), code=video.error_code, seconds=seconds)
    note_ended(video, provider, model)


def count_capped(attempt: Attempt, cost: Cost) -> None:
    """Count and log an output that was charged less than its measured length costs."""
    charged, by_length = cost.micros or 0, cost.uncapped_micros or 0
    CAPPED.labels(attempt.provider).inc()
    CAPPED_DOLLARS.labels(attempt.provider).inc((by_length - charged) / MICROS)
    log.warning("cost capped", attempt=attempt.id, charged=format_usd(charged), by_length=format_usd(by_length))


def count_underpriced(attempt: Attempt, cost: Cost) -> None:
    """Count and log an output for which the upstream reported more than our price."""
    ours = cost.micros if cost.uncapped_micros is None else cost.uncapped_micros
    if ours is None or attempt.free or not is_underpriced(ours, attempt.reported_micros):
        return
    reported = attempt.reported_micros or 0
    UNDERPRICED.labels(attempt.provider).inc()
    UNDERPRICED_DOLLARS.labels(attempt.provider).inc((reported - ours) / MICROS)
    log.warning(
        "reported cost is above our price; set it under [prices]",
        route=f"{attempt.provider}/{attempt.upstream_model}",
        attempt=attempt.id,
        reported=format_usd(reported),
        ours=format_usd(ours),
    )
