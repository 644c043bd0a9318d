"""Filters of lists of videos: the conditions, and which of them an index has.

`app/db/models/jobs.py` has an index by time for each combination of project, state, key and model. The other filters
have none: `jobs/search.py` limits the rows that they look at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app import ids
from app.db.models import Video
from app.db.pages import Place
from app.video import Status

Condition = sa.ColumnElement[bool]


class State(StrEnum):
    """The state that a list can be narrowed to; no video is in two."""

    queued = "queued"
    in_progress = "in_progress"
    completed = "completed"
    failed = "failed"
    """Failed, and not cancelled."""
    cancelled = "cancelled"


_CANCELLED: sa.ColumnElement[str] = sa.literal_column("'cancelled'")  # no parameter, so that the partial indexes fit
_CONDITIONS: dict[State, tuple[Condition, ...]] = {
    State.queued: (Video.ended_at.is_(None), Video.status == Status.queued),
    State.in_progress: (Video.ended_at.is_(None), Video.status == Status.in_progress),
    State.completed: (Video.completed_at.is_not(None),),
    State.failed: (Video.error_code != _CANCELLED,),
    State.cancelled: (Video.error_code == _CANCELLED,),
}
_shown_provider = sa.func.coalesce(Video.provider, sa.func.split_part(Video.routes[0].astext, "/", 1))
"""The provider as the video object shows it."""


@dataclass(frozen=True)
class Filters:
    """Conditions on the videos of a list; None: no condition. Both times are included."""

    project_id: str | None
    """None: of all projects, for the operator."""
    key_id: str | None = None
    states: Sequence[State] | None = None
    model: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    provider: str | None = None
    user: str | None = None
    app: str | None = None
    prompt: str | None = None
    """Part of the prompt, in capital or small letters."""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def ranges(self, project_id: sa.SQLColumnExpression[str] | None = None) -> list[list[Condition]]:
        """Conditions that an index has, one range of an index for each state. `project_id` is a column to compare
        with instead."""
        project = self.project_id if project_id is None else project_id
        common: list[Condition] = [Video.deleted_at.is_(None)]
        if project is not None:
            common.append(Video.project_id == project)
        if self.key_id is not None:
            common.append(Video.key_id == self.key_id)
        if self.model is not None:
            common.append(Video.model == self.model)
        if self.created_after is not None:
            common.append(Video.created_at >= self.created_after)
        if self.created_before is not None:
            common.append(Video.created_at <= self.created_before)
        if self.states is None:
            return [common]
        return [[*common, *_CONDITIONS[state]] for state in self.states] or [[*common, sa.false()]]

    def others(self) -> list[Condition]:
        """Conditions that no index has."""
        found: list[Condition] = []
        if self.provider is not None:
            found.append(_shown_provider == self.provider)
        if self.user is not None:
            found.append(Video.request["user"].astext == self.user)
        if self.app is not None:
            found.append(Video.request["app"].astext == self.app)
        for name, value in self.metadata.items():
            found.append(Video.request["metadata"][name].astext == value)
        if self.prompt is not None:  # its place, not a pattern in which some characters mean others
            prompt = sa.func.lower(Video.request["prompt"].astext)
            found.append(sa.func.strpos(prompt, sa.func.lower(self.prompt)) > 0)
        return found


async def find_place(connection: AsyncConnection, video_id: str, *, project_id: str | None) -> Place | None:
    """The place of a video in lists by time; None for an unknown id. A deleted one is found while its row exists.
    `project_id` None: of any project, for the operator."""
    query = sa.select(Video.created_at, Video.id).where(Video.id == video_id)
    if project_id is not None:
        query = query.where(Video.project_id == project_id)
    row = (await connection.execute(query)).first() if ids.is_id(video_id, "video") else None
    return None if row is None else Place(row[0], row[1])
