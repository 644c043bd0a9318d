"""The fingerprint of the pepper, kept in the database: a process with another pepper is refused.

Key hashes, media links and the addresses of upstream callbacks depend on the pepper. A process with another one would
refuse every key and make links and keys that the others refuse.
"""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import audit
from app.accounts.audit import Actor
from app.accounts.secrets import derive_secret, pepper_file
from app.db.models import DeploymentFact, Key, Project
from app.settings import ConfigurationError, Settings
from app.telemetry.logs import log

NAME = "pepper"
GIVE_UP = "run `video-gateway pepper adopt` to give up all keys, links and webhook callbacks made with the other"


def fingerprint(settings: Settings) -> str:
    """A hash that identifies the pepper without revealing it; makes the pepper where there is none."""
    return derive_secret(settings, "fingerprint")[:16].hex()


async def is_new_installation(session: AsyncSession) -> bool:
    """Return True for a database that no server has used."""
    used = sa.or_(sa.exists().select_from(DeploymentFact), sa.exists().select_from(Project))
    return not await session.scalar(sa.select(used))


async def require_pepper(session: AsyncSession, settings: Settings, *, now: datetime, is_server: bool = True) -> None:
    """Compare the pepper with the database's fingerprint, which the first server or worker writes, else the first
    command that makes a key; not a pepper that is made only now for a database in use. Raises `ConfigurationError`,
    before a pepper is made."""
    stored, has_keys = await _stored_and_needed(session, settings)
    if _is_missing(settings) and settings.database_url is not None:
        log.warning(
            "pepper made for a shared database",
            file=str(pepper_file(settings)),
            hint="set GATEWAY_PEPPER to it: another machine, or this one without that file, makes another one",
        )
        if stored is None and not await is_new_installation(session):
            return  # it may be made anew at each start, as it was in releases without a fingerprint
    if stored is None and (is_server or not has_keys):
        await session.execute(_write(settings, now).on_conflict_do_nothing())
        stored = await _stored(session)  # that of another process if it was faster
    if stored is not None:
        _compare(stored, settings)


async def check_pepper(session: AsyncSession, settings: Settings) -> bool:
    """Compare the pepper as `require_pepper` does, and write nothing. Returns False while the database has no
    fingerprint. Raises `ConfigurationError`."""
    stored, _ = await _stored_and_needed(session, settings)
    if stored is not None:
        _compare(stored, settings)
    return stored is not None


def require_fingerprint(stored: str, settings: Settings) -> None:
    """Raise `ConfigurationError` unless the pepper here is that of a fingerprint."""
    if _is_missing(settings):
        raise ConfigurationError(_none_here(settings))
    _compare(stored, settings)


async def _stored_and_needed(session: AsyncSession, settings: Settings) -> tuple[str | None, bool]:
    """The database's fingerprint, and True if it has keys made with a pepper. Raises `ConfigurationError` if it has and
    there is no pepper here."""
    stored = await _stored(session)
    has_keys = stored is not None or bool(await session.scalar(sa.select(sa.exists().select_from(Key))))
    if has_keys and _is_missing(settings):
        raise ConfigurationError(_none_here(settings))
    return stored, has_keys


def _none_here(settings: Settings) -> str:
    return (
        "this database was set up with another pepper, and there is none here. Set GATEWAY_PEPPER to that of the "
        f"other machines or restore {pepper_file(settings)}, or set a new one and {GIVE_UP}."
    )


def _is_missing(settings: Settings) -> bool:
    return settings.pepper is None and not pepper_file(settings).exists()


def _compare(stored: str, settings: Settings) -> None:
    if stored != fingerprint(settings):
        raise ConfigurationError(
            "GATEWAY_PEPPER is not the one that this database's keys were made with. Set that of the other machines, "
            f"or {GIVE_UP}."
        )


async def adopt_pepper(session: AsyncSession, settings: Settings, *, actor: Actor, now: datetime) -> int | None:
    """Replace the fingerprint by that of the pepper here. Returns the number of keys that this makes useless, None if
    it is the fingerprint already. Raises `ConfigurationError` if there is no pepper here; the embedded database gets a
    new one."""
    if settings.database_url is not None and settings.pepper is None and not pepper_file(settings).exists():
        raise ConfigurationError("there is no pepper here to adopt; set GATEWAY_PEPPER, made with openssl rand -hex 32")
    if await _stored(session) == fingerprint(settings):
        return None
    values = {"value": fingerprint(settings), "created_at": now}
    await session.execute(_write(settings, now).on_conflict_do_update(index_elements=["name"], set_=values))
    query = sa.select(sa.func.count()).select_from(Key).where(Key.revoked_at.is_(None))
    useless = int(await session.scalar(query) or 0)
    await audit.record(session, actor, "pepper.adopt", NAME, after={"useless_keys": useless}, now=now)
    return useless


async def _stored(session: AsyncSession) -> str | None:
    return await session.scalar(sa.select(DeploymentFact.value).where(DeploymentFact.name == NAME))


def _write(settings: Settings, now: datetime) -> Insert:
    return insert(DeploymentFact).values(name=NAME, value=fingerprint(settings), created_at=now)
