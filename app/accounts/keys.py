"""Management of API keys: create, change, list, revoke.

Keys are long and random, so they are stored as HMAC-SHA256 with a pepper: cheap to check, useless without the pepper.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import errors, ids
from app.accounts import audit
from app.accounts.audit import Actor
from app.accounts.budgets import limit_key
from app.accounts.pepper import require_pepper
from app.accounts.projects import ProjectChanges, checked_name, create_project, get_project
from app.accounts.secrets import derive_secret, mint_key
from app.db import rows
from app.db.models import Key, Project
from app.db.pages import Page, Place, Window, read_page
from app.settings import ConfigurationError, Settings

MAX_PATTERNS, MAX_PATTERN_CHARACTERS = 100, 200
MAX_LIMIT = 1_000_000
MAX_NAMESAKES = 10
"""Keys of one name that an error lists."""


@dataclass(frozen=True)
class Changes:
    """Changes to a key; `...` leaves a field unchanged, None removes a limit."""

    name: Any = ...
    models: Any = ...
    requests_per_minute: Any = ...
    concurrent_jobs: Any = ...
    expires_at: Any = ...
    max_cost_micros: Any = ...
    monthly_budget_micros: Any = ...


async def create_key(
    session: AsyncSession,
    name: str,
    *,
    project_id: str | None,
    changes: Changes,
    settings: Settings,
    actor: Actor,
    now: datetime,
) -> tuple[Key, str]:
    """Create a key, and a project for it if none is given; the second value is the key itself, which is not stored.
    Raises `InvalidRequest`, `NotFound`."""
    name = checked_name("name", name)
    try:
        await require_pepper(session, settings, now=now, is_server=False)
    except ConfigurationError as error:  # the key would be refused by every server
        raise errors.Conflict(str(error)) from None
    if project_id is not None:
        project = await get_project(session, project_id)
    else:
        project = await create_project(session, ProjectChanges(name=name), actor=actor, now=now)
    key = mint_key()
    hashed = hmac.digest(derive_secret(settings, "api-keys"), key.encode(), "sha256").hex()
    row = Key(id=ids.new("key"), name=name, project_id=project.id, hash=hashed, hint=key[-4:], created_at=now)
    session.add(row)
    await _apply(session, row, changes, now)
    await audit.created(session, actor, row, now=now)
    return row, key


async def has_keys(session: AsyncSession) -> bool:
    """Return True if there is a key that is not revoked."""
    return bool(await session.scalar(sa.select(sa.exists().where(Key.revoked_at.is_(None)))))


async def change_key(session: AsyncSession, key_id: str, changes: Changes, *, actor: Actor, now: datetime) -> Key:
    """Change a key. Raises `NotFound`, `InvalidRequest`."""
    key = await get_key(session, key_id)
    async with audit.changing(session, actor, key, now=now):
        await _apply(session, key, changes, now)
    return key


async def _apply(session: AsyncSession, key: Key, changes: Changes, now: datetime) -> None:
    if changes.name is not ...:
        key.name = checked_name("name", changes.name)
    if changes.models is not ...:
        key.models = _checked_patterns(changes.models)
    for name in ("requests_per_minute", "concurrent_jobs"):
        value = getattr(changes, name)
        if value is not ...:
            setattr(key, name, _checked_limit(name, value))
    if changes.max_cost_micros is not ...:
        key.max_cost_micros = changes.max_cost_micros
    if changes.expires_at is not ...:
        key.expires_at = _checked_moment("expires_at", changes.expires_at)
    await session.flush()
    if changes.monthly_budget_micros is not ...:
        await limit_key(session, key, changes.monthly_budget_micros, now=now)


def _checked_patterns(patterns: list[str] | None) -> list[str] | None:
    if patterns is None:
        return None
    valid = all(0 < len(p) <= MAX_PATTERN_CHARACTERS and p.isprintable() for p in patterns)
    if not 0 < len(patterns) <= MAX_PATTERNS or not valid:
        raise errors.InvalidRequest(
            f"models: expected 1 to {MAX_PATTERNS} patterns such as lumen/* or sora-2", param="models"
        )
    return patterns


def _checked_limit(name: str, value: int | None) -> int | None:
    if value is not None and not 1 <= value <= MAX_LIMIT:
        raise errors.InvalidRequest(f"{name}: expected 1 to {MAX_LIMIT}", param=name, code="invalid_value")
    return value


def _checked_moment(name: str, at: datetime | None) -> datetime | None:
    """Return a time in UTC. The first and the last year are refused: another time zone, such as that of the database,
    may not be able to express them."""
    if at is None:
        return None
    try:
        moment = at.astimezone(UTC)
        valid = MINYEAR < moment.year < MAXYEAR
    except OverflowError:
        valid = False
    if not valid:
        message = f"{name}: expected a moment from the year {MINYEAR + 1} to {MAXYEAR - 1}, or none for never"
        raise errors.InvalidRequest(message, param=name, code="invalid_value")
    return moment


async def get_key(session: AsyncSession, key_id: str) -> Key:
    """Read and lock a key. Raises `NotFound`."""
    key = await session.get(Key, key_id, with_for_update=True) if ids.is_id(key_id, "key") else None
    if key is None:
        raise errors.NotFound(f"no key has the id {key_id!r:.80}; see `video-gateway keys list`")
    return key


async def find_key_id(connection: AsyncConnection, wanted: str) -> str:
    """Return the id of the key with this id or name; revoked ones have no name any more. Raises `NotFound`, also if
    several keys have it."""
    if ids.is_id(wanted, "key"):
        return wanted
    named = rows.select(Key).where(Key.name == wanted, Key.revoked_at.is_(None)).order_by(Key.id).limit(MAX_NAMESAKES)
    found = await rows.all_of(Key, connection, named) if wanted.isprintable() else []
    if not found:
        raise errors.NotFound(f"no key has the id or name {wanted!r:.120}; see `video-gateway keys list`")
    if len(found) > 1:
        which = ", ".join(f"{key.id} (project {key.project_id}, ends in {key.hint})" for key in found)
        raise errors.NotFound(f"several keys are named {wanted!r:.120}; give the id of one: {which}")
    return found[0].id


async def list_keys(connection: AsyncConnection, *, project_id: str | None = None) -> list[Key]:
    query = rows.select(Key).order_by(Key.id)
    return await rows.all_of(
        Key, connection, query if project_id is None else query.where(Key.project_id == project_id)
    )


async def find_keys(
    connection: AsyncConnection, *, text: str = "", project_id: str | None = None, limit: int
) -> list[Key]:
    """Read keys whose name, id or end has the text in it: first those that are not revoked, newest first."""
    query = rows.select(Key).order_by(Key.revoked_at.is_not(None), Key.id.desc()).limit(limit)
    if text:
        query = query.where(sa.or_(*(c.icontains(text, autoescape=True) for c in (Key.name, Key.id, Key.hint))))
    if project_id is not None:
        query = query.where(Key.project_id == project_id)
    return await rows.all_of(Key, connection, query)


async def count_keys(connection: AsyncConnection, project_ids: Sequence[str]) -> dict[str, int]:
    """The number of keys of each project that are not revoked; projects without one are left out."""
    query = sa.select(Key.project_id, sa.func.count()).where(Key.project_id.in_(project_ids), Key.revoked_at.is_(None))
    return dict((await connection.execute(query.group_by(Key.project_id))).all())


async def require_free_name(session: AsyncSession, name: str, project_id: str) -> None:
    """Require that no key of a project has a name, revoked ones apart. Raises `Conflict`."""
    others = sa.select(Key.id).where(Key.project_id == project_id, Key.name == name.strip(), Key.revoked_at.is_(None))
    if await session.scalar(others.limit(1)) is not None:
        raise errors.Conflict(f"a key of this project is called {name.strip()!r:.120} already", param="name")


@dataclass(frozen=True)
class KeysOfProject:
    """The keys of one project as it may see them: those in the database, and the one in the settings if it is that
    key's project, which is as old as the project."""

    project_id: str
    in_settings: bool
    name_in_settings: str | None = None

    async def read(self, connection: AsyncConnection, *, is_active: bool | None, window: Window, now: datetime) -> Page:
        """Read a page: `id`, `name`, `last_four`, `created_at`, `expires_at`, `revoked_at`, and `is_active`, which is
        false for a revoked and for an expired key; `is_active` selects those keys."""
        found = self._rows(now)
        query = sa.select(found) if is_active is None else sa.select(found).where(found.c.is_active == is_active)
        return await read_page(connection, query, found.c.created_at, found.c.id, window)

    async def find_place(self, connection: AsyncConnection, key_id: str, *, now: datetime) -> Place | None:
        """The place of a key in the list; None for an unknown id."""
        found = self._rows(now)
        query = sa.select(found.c.created_at, found.c.id).where(found.c.id == key_id)
        row: Any = (await connection.execute(query)).first()
        return None if row is None else Place(row.created_at, row.id)

    def _rows(self, now: datetime) -> sa.Subquery:
        expires = sa.func.coalesce(Key.expires_at > now, sa.true())
        columns = (Key.id, Key.name, Key.hint.label("last_four"), Key.created_at, Key.expires_at, Key.revoked_at)
        own = sa.select(*columns, sa.and_(Key.revoked_at.is_(None), expires).label("is_active"))
        own = own.where(Key.project_id == self.project_id)
        if not self.in_settings:
            return own.subquery()
        name, text, moment = sa.literal(self.name_in_settings, sa.String), sa.cast(None, sa.String), Key.created_at.type
        nothing = (text, Project.created_at, sa.cast(None, moment), sa.cast(None, moment), sa.true())
        static = sa.select(Project.id, name, *nothing).where(Project.id == self.project_id)
        return sa.union_all(own, static).subquery()


async def revoke_key(session: AsyncSession, key_id: str, *, actor: Actor, now: datetime) -> Key:
    """Revoke a key; every process refuses it within a second. Raises `NotFound`."""
    key = await get_key(session, key_id)
    async with audit.changing(session, actor, key, verb="revoke", now=now):
        key.revoked_at = key.revoked_at or now
    return key
