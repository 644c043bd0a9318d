"""Summed days of usage, and what is kept about deleted videos and the use of keys."""

from datetime import date, datetime

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db.models.base import Base


class ClosedDay(Base):
    """The mark of a day whose usage is summed in `usage_days`. A trigger deletes it, with the sums, when something is
    written for that day later."""

    __tablename__ = "closed_days"

    day: Mapped[date] = mapped_column(primary_key=True)
    """An accounting day, UTC."""


class UsageDay(Base):
    """Usage of a closed day: the sums of one combination of project, key, model, provider and app, written by
    `accounts/closed_days.py`.

    A video whose entries fall into several combinations has rows of its own, which name it: it counts once in each
    report, so its rows cannot be added up."""

    __tablename__ = "usage_days"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    day: Mapped[date]
    project_id: Mapped[str]
    key_id: Mapped[str | None]
    model: Mapped[str | None]
    provider: Mapped[str | None]
    app: Mapped[str | None]
    video_id: Mapped[str | None]
    """The video of these rows if it has several combinations; None: `jobs` says how many videos there are."""
    jobs: Mapped[int]
    outputs: Mapped[int]
    seconds: Mapped[float]
    cost_micros: Mapped[int] = mapped_column(BigInteger)
    unpriced: Mapped[int]
    """Outputs without a known price."""
    reported_micros: Mapped[int] = mapped_column(BigInteger)
    underpriced_micros: Mapped[int] = mapped_column(BigInteger)
    completed: Mapped[int]
    failed: Mapped[int]
    cancelled: Mapped[int]
    duration_s: Mapped[float]
    """Time from create to end of all completed jobs together."""

    __table_args__ = (Index("ix_usage_days_day", "day", "project_id"),)


class DeletedVideo(Base):
    """The end of a video whose row was deleted, kept by a trigger: the counts of its day stay right."""

    __tablename__ = "deleted_videos"

    id: Mapped[str] = mapped_column(primary_key=True)
    provider: Mapped[str | None]
    error_code: Mapped[str | None]
    """None: it was completed."""
    duration_s: Mapped[float]
    """Time from create to end."""

    __table_args__ = (CheckConstraint("duration_s >= 0", "duration_s"),)


class KeyUse(Base):
    """The last use of a key, written at most once a minute by each process. A table of its own: a change of `keys`
    makes every process forget all keys."""

    __tablename__ = "key_uses"

    key_id: Mapped[str] = mapped_column(primary_key=True)
    """Key id; of a key in the settings the project's."""
    last_used_at: Mapped[datetime]
