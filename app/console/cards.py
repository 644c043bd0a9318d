"""Cards of videos: what a page shows of a video, in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func

from app.db.models import Video
from app.video import Status

MAX_PROMPT_CHARACTERS = 500
COLUMNS: tuple[Any, ...] = (
    *(Video.id, Video.project_id, Video.status, Video.progress, Video.model, Video.provider, Video.upstream_model),
    *(Video.routes, Video.created_at, Video.ended_at, Video.expires_at, Video.purged_at, Video.outputs),
    *(Video.cost_micros, Video.cost_estimate_micros, Video.error_code, Video.error_message),
    func.left(Video.request["prompt"].astext, MAX_PROMPT_CHARACTERS).label("prompt"),
    Video.request["seconds"].as_float().label("seconds"),
)
"""Columns of a card; not the whole request, which may have 256 KiB."""


@dataclass(frozen=True)
class Card:
    """One video in a list."""

    row: Mapping[Any, Any]
    now: datetime

    @property
    def id(self) -> str:
        return str(self.row["id"])

    @property
    def state(self) -> str:
        """`queued`, `in_progress`, `completed`, `failed` or `cancelled`."""
        return "cancelled" if self.row["error_code"] == "cancelled" else str(self.row["status"])

    @property
    def words(self) -> str:
        """The state for people."""
        match self.state:
            case "queued":
                return "Queued"
            case "in_progress":
                return f"Running {self.row['progress']} %"
            case "completed":
                return "Ready"
            case "cancelled":
                return "Cancelled"
        return f"Failed: {self.row['error_code']}"

    @property
    def is_running(self) -> bool:
        return not Status(self.row["status"]).ended

    @property
    def files(self) -> list[Mapping[str, Any]]:
        """The outputs whose files are there."""
        gone = self.row["purged_at"] is not None or (
            self.row["expires_at"] is not None and self.row["expires_at"] <= self.now
        )
        return [] if gone or self.state != "completed" else list(self.row["outputs"])

    @property
    def gone(self) -> str:
        """The reason why a finished video has no file any more; empty if it has one, or never had."""
        if self.state != "completed" or self.files:
            return ""
        return "Its files were purged." if self.row["purged_at"] is not None else "Its files were kept until then."

    @property
    def provider(self) -> str:
        """The provider and its model as far as they are chosen, else the first route."""
        if self.row["provider"] is None:
            return str(self.row["routes"][0])
        return f"{self.row['provider']}/{self.row['upstream_model']}"

    @property
    def seconds(self) -> float | None:
        """The measured length of the first file, else the requested one."""
        outputs = self.row["outputs"]
        measured: float | None = outputs[0].get("duration_s") if outputs else None
        requested: float | None = self.row["seconds"]
        return measured or requested

    @property
    def cost_micros(self) -> int | None:
        """The cost; of a running video the estimate."""
        cost: int | None = self.row["cost_estimate_micros" if self.is_running else "cost_micros"]
        return cost


def card_of(video: Video, now: datetime) -> Card:
    """The card of a whole row."""
    values = {column.key: getattr(video, column.key) for column in Video.__table__.columns}
    requested = {
        "prompt": video.request.get("prompt", "")[:MAX_PROMPT_CHARACTERS],
        "seconds": video.request.get("seconds"),
    }
    return Card({**values, **requested}, now)
