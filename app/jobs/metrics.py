"""Metrics of jobs."""

from collections.abc import Mapping

from app.db.models import Video
from app.providers.base import Provider
from app.telemetry import JOBS


def count_ended(video: Video, providers: Mapping[str, Provider]) -> None:
    """Count an ended job. Models that no provider lists share one label: clients can name any, labels stay bounded."""
    provider, model = video.provider or str(video.routes[0]).partition("/")[0], video.upstream_model or ""
    listed = provider in providers and model in providers[provider].listed
    JOBS.labels(provider, model if listed else "other", str(video.status)).inc()
