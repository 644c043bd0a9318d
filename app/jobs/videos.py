"""Queries for videos, attempts and characters. Status changes belong to `lifecycle.py`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import errors, ids
from app.db import rows
from app.db.database import Database
from app.db.models import Attempt, Character, Video
from app.video import AttemptState

_NAMES = ", ".join(column.name for column in Video.__table__.columns)
_GET_ANY = f"select {_NAMES} from videos where id = %(id)s".encode()  # noqa: S608  # our own names
_GET = _GET_ANY + b" and deleted_at is null"
MAX_ATTEMPTS_SHOWN = 20
"""Attempts of a video that its client sees: a video that waits for a provider may have very many."""
_SHOWN = (
    *(Attempt.id, Attempt.video_id, Attempt.state, Attempt.provider, Attempt.upstream_model),
    *(Attempt.upstream_ref, Attempt.error_code, Attempt.submitted_at),
)
_DETAILS = (*(Attempt.output_index, Attempt.error_message, Attempt.created_at, Attempt.accepted_at, Attempt.ended_at),)
MAX_DERIVED_SHOWN = 20
"""Videos made from one that are listed."""
DERIVED_LOOKED_AT = 5_000
"""Newest later videos of a project among which they are looked for: the source has no index."""


async def get_video(db: Database, video_id: str, *, project_id: str | None, deleted: bool = False) -> Video:
    """Read one video. Raises `NotFound` for an id that is not the project's.

    `project_id` is None only where access was granted otherwise, such as by a signed URL; `deleted` includes a deleted
    video whose row still exists.
    """
    row = await db.one(_GET_ANY if deleted else _GET, {"id": video_id}) if ids.is_id(video_id, "video") else None
    if row is None or project_id not in (None, row["project_id"]):
        raise errors.NotFound(f"no video has the id {video_id!r:.80}", param="video_id")
    return rows.from_values(Video, row)


async def get_videos(connection: AsyncConnection, video_ids: Sequence[str], *, project_id: str) -> list[Video]:
    """Read those of the videos that belong to the project, in the order of `video_ids`."""
    possible = [video_id for video_id in dict.fromkeys(video_ids) if ids.is_id(video_id, "video")]
    query = rows.select(Video).where(Video.id.in_(possible), Video.project_id == project_id, Video.deleted_at.is_(None))
    found = {video.id: video for video in await rows.all_of(Video, connection, query)}
    return [found[video_id] for video_id in possible if video_id in found]


async def get_source_attempt(connection: AsyncConnection, video_id: str) -> Attempt | None:
    """Read the attempt that made the first output of a video: its task is the source of a remix or an extension."""
    made = (Attempt.video_id == video_id, Attempt.state == AttemptState.succeeded)
    return await rows.one_of(
        Attempt, connection, rows.select(Attempt).where(*made).order_by(Attempt.output_index).limit(1)
    )


async def list_attempts(connection: AsyncConnection, video_id: str) -> list[Attempt]:
    """Read all attempts of a video, oldest first."""
    query = rows.select(Attempt).where(Attempt.video_id == video_id).order_by(Attempt.id)
    return await rows.all_of(Attempt, connection, query)


async def list_shown_attempts(
    connection: AsyncConnection, video_id: str, *, every_column: bool = False
) -> tuple[list[Attempt], bool]:
    """Read what its client sees of the last attempts of a video, oldest first, those that made an output among them;
    the second value is True when there are more. `every_column` is for the operator."""
    last = ((Attempt.state == AttemptState.succeeded).desc(), Attempt.id.desc())
    columns: list[Any] = list(Attempt.__table__.columns) if every_column else [*_SHOWN, *_DETAILS]
    query = sa.select(*columns).where(Attempt.video_id == video_id).order_by(*last).limit(MAX_ATTEMPTS_SHOWN + 1)
    found = await rows.all_of(Attempt, connection, query)
    shown = sorted(found[:MAX_ATTEMPTS_SHOWN], key=lambda attempt: attempt.id)
    return shown, len(found) > MAX_ATTEMPTS_SHOWN


async def last_attempts_of(connection: AsyncConnection, video_ids: Sequence[str]) -> dict[str, list[Attempt]]:
    """Read what clients see of the last attempts of several videos with one query, by video, oldest first. Those that
    made an output are among them, however many failed later."""
    last = ((Attempt.state == AttemptState.succeeded).desc(), Attempt.id.desc())
    number = sa.func.row_number().over(partition_by=Attempt.video_id, order_by=last)
    numbered = sa.select(*_SHOWN, number.label("number")).where(Attempt.video_id.in_(video_ids)).subquery()
    query = sa.select(numbered).where(numbered.c.number <= MAX_ATTEMPTS_SHOWN).order_by(numbered.c.id)
    found: dict[str, list[Attempt]] = {}
    for attempt in await rows.all_of(Attempt, connection, query):
        found.setdefault(attempt.video_id, []).append(attempt)
    return found


async def list_derived(connection: AsyncConnection, video: Video) -> list[sa.RowMapping]:
    """Read id, operation, prompt and status of the videos made from one, newest first, at most `MAX_DERIVED_SHOWN`,
    among the newest `DERIVED_LOOKED_AT` of its project."""
    later = (
        sa.select(Video.id, Video.source_video_id)
        .where(Video.project_id == video.project_id, Video.deleted_at.is_(None), Video.id > video.id)
        .order_by(Video.id.desc())
        .limit(DERIVED_LOOKED_AT)
        .subquery()
    )
    found = (
        sa.select(later.c.id)
        .where(later.c.source_video_id == video.id)
        .order_by(later.c.id.desc())
        .limit(MAX_DERIVED_SHOWN)
        .subquery()
    )
    shown = (
        *(Video.id, Video.status, Video.request["operation"].astext.label("operation")),
        sa.func.left(Video.request["prompt"].astext, 100).label("prompt"),
    )
    query = sa.select(*shown).join(found, found.c.id == Video.id).order_by(Video.id.desc())
    return list((await connection.execute(query)).mappings())


async def get_character(connection: AsyncConnection, character_id: str, *, project_id: str) -> Character:
    """Read one character. Raises `NotFound` for an id that is not the project's."""
    query = rows.select(Character).where(Character.id == character_id, Character.project_id == project_id)
    found = await rows.one_of(Character, connection, query) if ids.is_id(character_id, "char") else None
    if found is None:
        raise errors.NotFound(f"no character has the id {character_id!r:.80}", param="character_id")
    return found


async def add_character(
    session: AsyncSession,
    character_id: str,
    *,
    project_id: str,
    name: str,
    provider: str,
    upstream_ref: str,
    now: datetime,
) -> Character:
    character = Character(
        id=character_id, project_id=project_id, name=name, provider=provider, upstream_ref=upstream_ref, created_at=now
    )
    session.add(character)
    await session.flush()
    return character
