"""How a job comes in: one statement that writes the video and its attempts, or finds the one that is there already."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from psycopg.types.json import Jsonb

from app import errors, ids
from app.db import Database
from app.tables import Video, read_only
from app.video import Status, VideoRequest


@dataclass(frozen=True)
class Created:
    video: Video
    replayed: bool
    """True when the idempotency key was seen before; nothing was created."""


EMPTY: dict[str, Any] = dict.fromkeys(Video.__table__.columns.keys())

CREATE = b"""
with video as (
  insert into videos (
    id, owner, dialect, status, progress, model, request, routes, outputs, warnings, cost_estimate_micros,
    source_video_id, idempotency_key, idempotency_hash, created_at, updated_at, deadline_at
  ) values (
    %(id)s, %(owner)s, %(dialect)s, 'queued', 0, %(model)s, %(request)s, %(routes)s, '[]', %(warnings)s,
    %(cost_estimate_micros)s, %(source_video_id)s, %(idempotency_key)s, %(idempotency_hash)s, %(now)s, %(now)s,
    %(deadline_at)s
  )
  on conflict (owner, idempotency_key) where idempotency_key is not null do nothing
  returning id
)
insert into attempts (
  id, video_id, owner, output_index, route_index, state, provider, upstream_model, progress, due_at, submits, polls,
  strikes, cancel_tried, created_at
)
select
  attempt.id, video.id, %(owner)s, attempt.number - 1, 0, 'pending', %(provider)s, %(upstream_model)s, 0, %(now)s, 0, 0,
  0, false, %(now)s
from video, unnest(%(attempts)s::text[]) with ordinality as attempt (id, number)
returning video_id
"""


async def create(
    db: Database,
    request: VideoRequest,
    *,
    video_id: str,
    owner: str,
    dialect: str,
    shown_model: str,
    routes: Sequence[str],
    warnings: Sequence[str] = (),
    cost_estimate_micros: int | None = None,
    idempotency_key: str | None = None,
    idempotency_hash: str | None = None,
    deadline_s: float,
    now: datetime,
) -> Created:
    """Write the job, in one statement: a row in `videos` and a pending attempt for each of its `n` outputs.

    Raises `Conflict` when the owner used the idempotency key for another request.
    """
    provider, _, upstream_model = routes[0].partition("/")
    values: dict[str, Any] = {
        "id": video_id,
        "owner": owner,
        "dialect": dialect,
        "model": shown_model,
        "request": request.model_dump(mode="json", exclude_none=True),
        "routes": list(routes),
        "warnings": list(warnings),
        "cost_estimate_micros": cost_estimate_micros,
        "source_video_id": request.source.video_id if request.source else None,
        "idempotency_key": idempotency_key,
        "idempotency_hash": idempotency_hash,
        "deadline_at": now + timedelta(seconds=deadline_s),
    }
    parameters = {
        **{name: Jsonb(value) if isinstance(value, dict | list) else value for name, value in values.items()},
        "provider": provider,
        "upstream_model": upstream_model,
        "attempts": [ids.new("att") for _ in range(request.n)],
        "now": now,
    }
    if await db.one(CREATE, parameters) is None:
        return await _replay(db, owner, str(idempotency_key), idempotency_hash)
    fresh = {"status": Status.queued, "progress": 0, "outputs": [], "created_at": now, "updated_at": now}
    return Created(read_only(EMPTY | values | fresh), replayed=False)


async def _replay(db: Database, owner: str, key: str, hashed: str | None) -> Created:
    async with db.transaction() as session:
        video = await session.scalar(sa.select(Video).where(Video.owner == owner, Video.idempotency_key == key))
    if video is None:  # deleted in between
        raise errors.ServiceUnavailable("the video of this idempotency key was just deleted; send the request again")
    if video.idempotency_hash != hashed:
        raise errors.Conflict(
            "this idempotency key was used for another request; use a new key for a new request",
            code="idempotency_key_reused",
            param="idempotency_key",
        )
    return Created(video, replayed=True)
