"""Facts about the installation as a whole, and its worker processes."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from app.db.models.base import Base


class DeploymentFact(Base):
    """A value that all processes on this database must agree on."""

    __tablename__ = "deployment"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    created_at: Mapped[datetime]


class WorkerProcess(Base):
    """A process that works on jobs, and the time of its last heartbeat by the database's clock."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    version: Mapped[str]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    stopped_at: Mapped[datetime | None]
    """The clean stop; None while it runs, and after a kill."""
