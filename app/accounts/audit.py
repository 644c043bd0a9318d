"""The audit log: who changed what, and its only writer. A trigger refuses other changes (`audit_only_grows.sql`).

An entry is written in the transaction of its change, so that both are there or neither. It names the fields that
differ, without anything secret; a change that changes nothing has no entry.
"""

import os
import pwd
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import errors, ids
from app.accounts import pricing
from app.db import rows
from app.db.models import AuditEntry, Key, Project

State = dict[str, Any]
"""Fields of a thing and their values as JSON."""

NOUNS: dict[type[Key] | type[Project], tuple[str, tuple[str, ...]]] = {
    Project: ("project", ("name", "billing", "monthly_budget_micros", "kinds")),
    Key: (
        "key",
        (
            *("name", "models", "requests_per_minute", "concurrent_jobs", "monthly_budget_micros", "max_cost_micros"),
            *("expires_at", "revoked_at"),
        ),
    ),
}
"""The noun of each kind of row in actions, and the columns that entries show; not the hash of a key."""


class ActorKind(StrEnum):
    """The way in which a change came: the administration API, the console, or the command line."""

    admin_key = "admin_key"
    console = "console"
    cli = "cli"


@dataclass(frozen=True)
class Actor:
    """The one who makes a change: an admin key of this name, or a system user at a host."""

    kind: ActorKind
    name: str
    address: str | None = None
    request_id: str | None = None


def command_actor() -> Actor:
    """The system user who runs this process. The number of one without a name, as in many containers."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return Actor(ActorKind.cli, f"{user}@{socket.gethostname()}")


# Writing


async def record(
    session: AsyncSession,
    actor: Actor,
    action: str,
    subject: str,
    *,
    project_id: str | None = None,
    before: State | None = None,
    after: State | None = None,
    now: datetime,
) -> None:
    """Write the entry of a change that is made in the same transaction; `before` and `after` hold nothing secret."""
    entry = _entry(actor, action, subject, project_id=project_id, before=before, after=after, at=now)
    await session.execute(entry)


async def created(session: AsyncSession, actor: Actor, row: Key | Project, *, now: datetime) -> None:
    """Write the entry of a new row, once it has all its values."""
    noun, _ = NOUNS[type(row)]
    await record(session, actor, f"{noun}.create", row.id, project_id=_project_of(row), after=_state_of(row), now=now)


@asynccontextmanager
async def changing(
    session: AsyncSession, actor: Actor, row: Key | Project, *, verb: str = "change", now: datetime
) -> AsyncIterator[None]:
    """Write the entry of what the block changes in a locked row."""
    was = _state_of(row)
    yield
    now_is = _state_of(row)
    changed = [name for name in was if was[name] != now_is[name]]
    if not changed:
        return
    before, after = ({name: state[name] for name in changed} for state in (was, now_is))
    action = f"{NOUNS[type(row)][0]}.{verb}"
    await record(session, actor, action, row.id, project_id=_project_of(row), before=before, after=after, now=now)


def migrated_by(actor: Actor) -> Callable[[str | None, str], Insert]:
    """Return the function that makes the entry of a migration from one revision of the schema to another."""

    def entry(before: str | None, after: str) -> Insert:
        revisions = {"before": before and {"revision": before}, "after": {"revision": after}}
        return _entry(actor, "schema.migrate", "schema", **revisions, at=sa.func.clock_timestamp())

    return entry


def _entry(actor: Actor, action: str, subject: str, **values: Any) -> Insert:
    who = {"actor_kind": str(actor.kind), "actor": actor.name, "address": actor.address}
    what = {"request_id": actor.request_id, "action": action, "subject": subject, **values}
    return insert(AuditEntry).values(id=ids.new("audit"), **who, **what)


def _project_of(row: Key | Project) -> str:
    return row.project_id if isinstance(row, Key) else row.id


def _state_of(row: Key | Project) -> State:
    return dict(_shown(name, getattr(row, name)) for name in NOUNS[type(row)][1])


def _shown(column: str, value: Any) -> tuple[str, Any]:
    """A column as the administration API shows it: amounts in US dollars, times in UTC."""
    if column.endswith("_micros"):
        return f"{column.removesuffix('_micros')}_usd", pricing.dollars(value)
    if isinstance(value, datetime):
        return column, value.astimezone(UTC).isoformat()
    return column, str(value) if isinstance(value, StrEnum) else value


# Reading


@dataclass(frozen=True)
class Wanted:
    """The entries that a reader asks for; None: any."""

    actor: str | None = None
    """Name of the actor."""
    action: str | None = None
    subject: str | None = None
    project_id: str | None = None
    since: datetime | None = None
    """Included."""
    until: datetime | None = None
    """Included, too."""


async def list_entries(
    connection: AsyncConnection, wanted: Wanted, *, after: str | None = None, limit: int
) -> list[AuditEntry]:
    """Read entries, newest first, from the one behind `after` on. Raises `InvalidRequest` for an unknown `after`."""
    query = rows.select(AuditEntry).order_by(AuditEntry.at.desc(), AuditEntry.id.desc()).limit(limit)
    for name in ("actor", "action", "subject", "project_id"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(getattr(AuditEntry, name) == value)
    if wanted.since is not None:
        query = query.where(AuditEntry.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(AuditEntry.at <= wanted.until)
    if after is not None:
        at = await connection.scalar(sa.select(AuditEntry.at).where(AuditEntry.id == after))
        if at is None:
            message = f"after: no entry has the id {after!r:.80}; take the last_id of the page before"
            raise errors.InvalidRequest(message, param="after", code="invalid_value")
        place = sa.tuple_(AuditEntry.at, AuditEntry.id)
        query = query.where(place < sa.tuple_(sa.literal(at), sa.literal(after)))
    return await rows.all_of(AuditEntry, connection, query)


def as_json(entry: AuditEntry) -> dict[str, Any]:
    """An entry as the administration API and the command show it."""
    return {
        "id": entry.id,
        "object": "audit_entry",
        "at": entry.at.astimezone(UTC).isoformat(),
        "actor": {"kind": entry.actor_kind, "name": entry.actor, "address": entry.address},
        "request_id": entry.request_id,
        "action": entry.action,
        "subject": entry.subject,
        "project": entry.project_id,
        "before": entry.before,
        "after": entry.after,
    }
