"""Cards of videos: what a page shows of a video, in words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import func

from app.db.models import Video
from app.http.context import Gateway
from app.providers.routing import Route
from app.video import Status, VideoRequest

MAX_PROMPT_CHARACTERS = 500
COLUMNS: tuple[Any, ...] = (
    *(Video.id, Video.project_id, Video.key_id, Video.status, Video.progress),
    *(Video.model, Video.provider, Video.upstream_model),
    *(Video.routes, Video.created_at, Video.ended_at, Video.expires_at, Video.purged_at, Video.outputs),
    *(Video.cost_micros, Video.cost_estimate_micros, Video.error_code, Video.error_message),
    func.left(Video.request["prompt"].astext, MAX_PROMPT_CHARACTERS).label("prompt"),
    Video.request["seconds"].as_float().label("seconds"),
    Video.request["resolution"].astext.label("resolution"),
)
"""Columns of a card; not the whole request, which may have 256 KiB."""


@dataclass(frozen=True)
class Card:
    """One video in a list."""

    row: Mapping[Any, Any]
    now: datetime
    usual_s: float | None = None
    """Seconds that such a video usually takes; None: not known."""

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
    def end_words(self) -> str:
        """The sentence for the status line when it has ended."""
        state = {"completed": "ready", "cancelled": "cancelled"}.get(self.state, "failed")
        return f"{self.row['prompt'][:60] or self.row['id']}: {state}"

    @property
    def so_far(self) -> str:
        """The time since its creation, and the usual one."""
        elapsed_s = (self.now - self.row["created_at"]).total_seconds()
        usual = "" if self.usual_s is None else f", usually {self.usual_s:.0f} s"
        return f"{max(0, elapsed_s):.0f} s so far{usual}"

    @property
    def took_s(self) -> float | None:
        """Seconds from its creation to its end; None while it runs."""
        ended_at = self.row["ended_at"]
        return None if ended_at is None else float((ended_at - self.row["created_at"]).total_seconds())

    @property
    def files(self) -> list[Mapping[str, Any]]:
        """The outputs whose files are there."""
        gone = self.row["purged_at"] is not None or (
            self.row["expires_at"] is not None and self.row["expires_at"] <= self.now
        )
        return [] if gone or self.state != "completed" else list(self.row["outputs"])

    @property
    def gone(self) -> str:
        """The reason why a finished video has no file any more, in words before `gone_at`; empty for all others."""
        if self.state != "completed" or self.files:
            return ""
        return "Its files were erased on" if self.row["purged_at"] is not None else "Its files were kept until"

    @property
    def gone_at(self) -> datetime | None:
        """The time since which its files are gone."""
        at: datetime | None = self.row["purged_at"] or self.row["expires_at"]
        return at if self.gone else None

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


def cards_of(gateway: Gateway, rows: Iterable[Mapping[Any, Any]], now: datetime) -> list[Card]:
    """The cards of rows with `COLUMNS`; running ones with the time that such videos usually take."""
    cards = [Card(row, now) for row in rows]
    return [replace(card, usual_s=usual_s(gateway, card)) if card.is_running else card for card in cards]


def usual_s(gateway: Gateway, card: Card) -> float | None:
    """The median time of videos of this length and resolution by the route that makes the video, if it is known."""
    name, _, model = card.provider.partition("/")
    provider = gateway.providers.get(name)
    if provider is None:
        return None
    route = Route(provider, model)
    like = VideoRequest(prompt="", model="", seconds=card.row["seconds"], resolution=card.row["resolution"])
    time = gateway.durations.times([route], like).get(route.name)
    return None if time is None else time.median_s


def card_of(video: Video, now: datetime) -> Card:
    """The card of a whole row."""
    values = {column.key: getattr(video, column.key) for column in Video.__table__.columns}
    requested = {
        "prompt": video.request.get("prompt", "")[:MAX_PROMPT_CHARACTERS],
        "seconds": video.request.get("seconds"),
        "resolution": video.request.get("resolution"),
    }
    return Card({**values, **requested}, now)
