"""Rows for the measurements, written directly to the database."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from app import ids
from app.db.models import Attempt, Video
from app.video import AttemptState, Status

REQUEST = {"prompt": "a paper boat on a pond", "model": "sandbox/testcard", "seconds": 4, "size": "1280x720", "n": 1}


class Seed:
    """Writes rows of the project that has already created a video through the API."""

    def __init__(self, database_url: str) -> None:
        url = database_url.replace("postgresql://", "postgresql+psycopg://", 1)
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)
        with self._engine.connect() as connection:
            self._project_id = connection.execute(sa.select(Video.project_id).limit(1)).scalar_one()

    def clear(self) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.text("truncate videos, attempts"))

    def running(self, count: int, *, provider: str, base_url: str, due_s: float) -> list[str]:
        """Videos with one running attempt each at `provider`, due evenly over the next `due_s` seconds."""
        now = datetime.now(UTC)
        videos = [self._video(now, status=Status.in_progress, routes=[f"{provider}/model"]) for _ in range(count)]
        attempts = [
            {
                "id": ids.new("att"),
                "video_id": video["id"],
                "project_id": self._project_id,
                "output_index": 0,
                "route_index": 0,
                "state": AttemptState.running,
                "provider": provider,
                "upstream_model": "model",
                "base_url": base_url,
                "upstream_ref": video["id"],
                "submits": 1,
                "due_at": now + timedelta(seconds=due_s * number / count),
                "created_at": now,
                "submitted_at": now,
                "accepted_at": now,
            }
            for number, video in enumerate(videos)
        ]
        with self._engine.begin() as connection:
            connection.execute(sa.insert(Video), videos)
            connection.execute(sa.insert(Attempt), attempts)
            connection.execute(sa.text("analyze videos, attempts"))
        return [video["id"] for video in videos]

    def completed(self, store: Path, content: bytes) -> tuple[str, Path]:
        """One finished video with its file in the store; returns its id and the path of the file."""
        now = datetime.now(UTC)
        video = self._video(now, status=Status.completed, routes=["sandbox/testcard"])
        key = f"videos/{video['id']}/{ids.new('att')}.mp4"
        file = store / key
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        output = {"index": 0, "key": key, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        output |= {"content_type": "video/mp4", "width": 1280, "height": 720, "duration_s": 4.0}
        video |= {"outputs": [output], "progress": 100, "completed_at": now, "ended_at": now}
        with self._engine.begin() as connection:
            connection.execute(sa.insert(Video), video)
        return video["id"], file

    def _video(self, now: datetime, *, status: Status, routes: list[str]) -> dict[str, Any]:
        return {
            "id": ids.new("video"),
            "project_id": self._project_id,
            "dialect": "openai",
            "status": status,
            "progress": 0,
            "model": REQUEST["model"],
            "request": REQUEST,
            "routes": routes,
            "outputs": [],
            "warnings": [],
            "created_at": now,
            "updated_at": now,
            "deadline_at": now + timedelta(hours=1),
        }
