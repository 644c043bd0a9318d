"""Heartbeats of worker processes: rows of `workers`, written and compared by the database's clock."""

import os
import socket
from dataclasses import dataclass
from importlib.metadata import version

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import rows
from app.db.database import Database
from app.db.models import WorkerProcess

HEARTBEAT_S = 10
RUNNING_S = 30
"""Age of a heartbeat up to which its worker counts as running."""
KEPT_S = 86_400
"""Age of a heartbeat from which its row is deleted."""

RELEASE = version("video-gateway")


@dataclass(frozen=True)
class Presence:
    """The workers of this database."""

    running: int
    silence_s: float | None
    """Seconds since the last sign of any worker; None if none has ever run."""


async def announce(db: Database, worker_id: str) -> None:
    """Write the heartbeat of a worker of this process, and delete the rows of those that ended a day ago."""
    values = {"id": worker_id, "host": socket.gethostname(), "pid": os.getpid(), "version": RELEASE}
    row = insert(WorkerProcess).values(**values, started_at=sa.func.now(), seen_at=sa.func.now())
    old = WorkerProcess.seen_at < sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, KEPT_S)
    async with db.reading() as connection:
        await connection.execute(row.on_conflict_do_update(index_elements=["id"], set_={"seen_at": sa.func.now()}))
        await connection.execute(sa.delete(WorkerProcess).where(old))


async def withdraw(db: Database, worker_id: str) -> None:
    """Record the clean stop of a worker."""
    stopped = sa.update(WorkerProcess).where(WorkerProcess.id == worker_id)
    async with db.reading() as connection:
        await connection.execute(stopped.values(seen_at=sa.func.now(), stopped_at=sa.func.now()))


async def read_presence(connection: AsyncConnection) -> Presence:
    """Count the running workers and the time since the last sign of one."""
    age_s = sa.func.extract("epoch", sa.func.now() - WorkerProcess.seen_at)
    running = sa.func.count().filter(WorkerProcess.stopped_at.is_(None), age_s <= RUNNING_S)
    row = (await connection.execute(sa.select(running, sa.func.min(age_s)))).one()
    return Presence(running=row[0], silence_s=None if row[1] is None else max(0.0, float(row[1])))


async def list_running(connection: AsyncConnection) -> list[WorkerProcess]:
    """Read the running workers, those started first at the beginning."""
    recent = WorkerProcess.seen_at >= sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, RUNNING_S)
    query = rows.select(WorkerProcess).where(WorkerProcess.stopped_at.is_(None), recent)
    return await rows.all_of(WorkerProcess, connection, query.order_by(WorkerProcess.started_at, WorkerProcess.id))
