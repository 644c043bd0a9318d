"""API keys: mint, hash, authenticate, limit; and the server's own secrets.

Keys are random and long, so they are stored as HMAC-SHA256 with a pepper: cheap to check, useless when stolen from the
database. What is known of a key is remembered as long as the bell proves that nothing has changed (`bell.py`), else for
a second.
"""

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from fnmatch import fnmatchcase
from functools import cache
from math import ceil, floor
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import errors, ids
from app.accounts.projects import checked_name, create_project, get_project
from app.db import rows
from app.db.database import Database
from app.db.listener import Bell
from app.db.models import Key, Project
from app.settings import ConfigurationError, Settings
from app.video import Billing

PREFIX = "vgw_"
CACHE_S = 60.0
BLIND_CACHE_S = 0.9
"""How long something is remembered while changes are heard of, and while they may not be."""
CACHE_SIZE = 10_000
LOOKUPS_AT_ONCE = 3
"""Of keys nobody remembers, so that wrong ones in any number leave the connections to the others."""
MAX_PATTERNS, MAX_PATTERN_CHARACTERS = 100, 200
MAX_LIMIT = 1_000_000


@dataclass(frozen=True)
class Caller:
    """Who is asking, and what they may."""

    owner: str
    """Their project."""
    key_id: str
    models: tuple[str, ...] | None = None
    """Patterns of what they may ask for; None: everything."""
    requests_per_minute: int | None = None
    limited: bool = False
    """Whether a budget or a balance has to cover what they do, so that it needs a price."""
    expires_at: datetime | None = None
    key_hash: str = ""

    def may_use(self, *names: str) -> bool:
        """Say whether a model may be asked for that goes by any of these names."""
        patterns = self.models
        return patterns is None or any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


@dataclass(frozen=True)
class Changes:
    """What of a key can be set beside its budget; a field that is `...` stays, None takes a limit away."""

    name: Any = ...
    models: Any = ...
    requests_per_minute: Any = ...
    concurrent_jobs: Any = ...
    expires_at: Any = ...


def mint() -> str:
    """Return a new key: `vgw_`, 43 random characters, 6 of checksum, so that a scanner can tell a leaked one."""
    body = secrets.token_urlsafe(32)
    return f"{PREFIX}{body}{_checksum(body)}"


_CHECKSUM_LENGTH = 6


def _checksum(body: str) -> str:
    return base64.urlsafe_b64encode(zlib.crc32(body.encode()).to_bytes(4, "big")).decode().rstrip("=")


def own_secret(settings: Settings, name: str) -> bytes:
    """Return the server's secret `name`, derived from the pepper; another name gives an unrelated secret."""
    return hmac.digest(_pepper(settings), name.encode(), "sha256")


def _pepper(settings: Settings) -> bytes:
    if settings.pepper is not None:
        return settings.pepper.get_secret_value().encode()
    return _kept(settings.secrets_dir / "pepper", lambda: secrets.token_urlsafe(32)).encode()


def first_key(settings: Settings) -> tuple[str, Path]:
    """Return the key made on first start and the file it is kept in."""
    path = settings.secrets_dir / "api-key"
    return _kept(path, mint), path


def existing_key(settings: Settings) -> str | None:
    """Return the key made on first start, if a server ever started here."""
    path = settings.secrets_dir / "api-key"
    return _kept(path, mint) if path.exists() else None


def _kept(path: Path, make: Callable[[], str]) -> str:
    """Read a secret from a file only we can read, which is made first where there is none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        if not path.exists():
            _keep(path, make())
        kept = path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"the secret in {path} cannot be kept: {(error.strerror or '').lower()}") from None
    if not kept:
        raise ConfigurationError(f"{path} is empty; restore it, or delete it to have a new secret made")
    return kept


def _keep(path: Path, secret: str) -> None:
    # Not named by the process: those of two containers have the same number.
    temporary = path.with_suffix(f".{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)
    try:
        os.link(temporary, path)  # the first of several processes wins, with a whole file
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


@cache
def _static_caller(key: str) -> str:
    # Without the pepper: the owner must be the same on machines that share only the key. Slow, since it is stored.
    return "static_" + hashlib.pbkdf2_hmac("sha256", key.encode(), b"video-gateway owner", 100_000)[:8].hex()


class Authenticator:
    """Turns a presented key into its `Caller`."""

    def __init__(self, db: Database, settings: Settings, bell: Bell, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._bell = bell
        self._clock = clock
        self._secret = own_secret(settings, "api-keys")
        static = [key.get_secret_value() for key in settings.api_keys] or [first_key(settings)[0]]
        self._static = {self.hash(key): _static_caller(key) for key in static}
        self._known: OrderedDict[str, tuple[float, int, Caller]] = OrderedDict()
        self._wrong: OrderedDict[str, tuple[float, int, None]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Caller | None]] = {}
        self._lookups = asyncio.Semaphore(LOOKUPS_AT_ONCE)

    @property
    def static_owners(self) -> Iterable[str]:
        """The projects of the keys that stand in the settings."""
        return self._static.values()

    def hash(self, key: str) -> str:
        return hmac.digest(self._secret, key.encode(errors="surrogatepass"), "sha256").hex()

    async def authenticate(self, key: str | None) -> Caller:
        """Raises `AuthenticationFailed` for a missing, unknown or revoked key, always in the same words, and for one
        that has expired."""
        if not key:
            raise errors.AuthenticationFailed(
                "no API key was sent; send it as `Authorization: Bearer <key>`", code="missing_api_key"
            )
        hashed = self.hash(key)  # looked up by its hash, so no comparison runs along the key itself
        possible = hashed in self._static or is_well_formed(key)  # a mistyped key costs no query
        return self._accepted(await self._caller(hashed) if possible else None)

    async def check(self, caller: Caller) -> Caller:
        """The caller as they are by now, after waiting or sending a long body. Raises `AuthenticationFailed` when their
        key is no longer valid."""
        return self._accepted(await self._caller(caller.key_hash))

    def _accepted(self, caller: Caller | None) -> Caller:
        if caller is None:
            raise errors.AuthenticationFailed(
                "the API key is not valid; check it, or make a new one with `video-gateway keys create NAME`"
            )
        if caller.expires_at is not None and caller.expires_at <= self._clock():
            raise errors.AuthenticationFailed(
                f"the API key expired at {caller.expires_at:%Y-%m-%d %H:%M} UTC; ask for a new one",
                code="expired_api_key",
            )
        return caller

    async def _caller(self, hashed: str) -> Caller | None:
        remembered = self._known.get(hashed) or self._wrong.get(hashed)
        if remembered is not None and self._still_counts(*remembered[:2]):
            return remembered[2]
        asking = self._asking.get(hashed)  # a thousand requests with one key are one question
        if asking is None:
            asking = self._asking[hashed] = asyncio.create_task(self._look_up(hashed))
            asking.add_done_callback(lambda task: (self._asking.pop(hashed), task.cancelled() or task.exception()))
        return await asyncio.shield(asking)

    async def _look_up(self, hashed: str) -> Caller | None:
        once_right = hashed in self._known or hashed in self._static
        async with nullcontext() if once_right else self._lookups:
            changes, now = self._bell.changes, time.monotonic()  # before the query: it may be out of date right after
            async with self._db.reading() as connection:
                caller = await find(connection, hashed, static_owner=self._static.get(hashed))
        self._known.pop(hashed, None)
        self._wrong.pop(hashed, None)
        if caller is not None:
            self._known[hashed] = (now, changes, caller)
        else:  # apart, so that wrong keys never push right ones out
            self._wrong[hashed] = (now, changes, None)
        for cached in (self._known, self._wrong):
            if len(cached) > CACHE_SIZE:
                cached.popitem(last=False)
        return caller

    def _still_counts(self, looked_up: float, changes: int) -> bool:
        """A bell that hears has heard of every change up to a moment ago."""
        if changes != self._bell.changes:
            return False
        return time.monotonic() - looked_up < (CACHE_S if self._bell.hears else BLIND_CACHE_S)


def is_well_formed(key: str) -> bool:
    """Say whether `mint` could have made the key; any other is a wrong one."""
    body, checksum = key[len(PREFIX) : -_CHECKSUM_LENGTH], key[-_CHECKSUM_LENGTH:]
    return key.startswith(PREFIX) and key.isascii() and hmac.compare_digest(_checksum(body), checksum)


async def find(connection: AsyncConnection, hashed: str, *, static_owner: str | None = None) -> Caller | None:
    """Who a key belongs to that is stored under its hash, or stands in the settings and belongs to `static_owner`."""
    limited = sa.or_(Project.billing == Billing.prepaid, Project.monthly_budget_micros.is_not(None))
    if static_owner is not None:
        found = await connection.scalar(sa.select(limited).where(Project.id == static_owner))
        return Caller(owner=static_owner, key_id=static_owner, limited=bool(found), key_hash=hashed)
    query = (
        sa.select(Key, sa.or_(limited, Key.monthly_budget_micros.is_not(None)).label("limited"))
        .join(Project, Project.id == Key.owner)
        .where(Key.hash == hashed, Key.revoked_at.is_(None))
    )
    row = (await connection.execute(query)).first()
    if row is None:
        return None
    return Caller(
        owner=row.owner,
        key_id=row.id,
        models=None if row.models is None else tuple(row.models),
        requests_per_minute=row.requests_per_minute,
        limited=row.limited,
        expires_at=row.expires_at,
        key_hash=hashed,
    )


def require(key: SecretStr, header: str, what: str) -> None:
    """Raises `AuthenticationFailed` unless an Authorization header brings this key, one of the operator's own."""
    scheme, _, given = header.partition(" ")
    right = hmac.compare_digest(given.strip().encode(), key.get_secret_value().encode())
    if scheme.lower() != "bearer" or not right:
        raise errors.AuthenticationFailed(f"send the {what} key as `Authorization: Bearer <key>`")


# Requests per minute

_COUNT_REQUEST = b"""
insert into request_rates as rate (key_id, spent, at, allowed) values (%(key_id)s, 1, %(now)s, true)
on conflict (key_id) do update set (spent, at, allowed) = (
  select left_over + case when left_over + 1 <= %(limit)s + 1e-6 then 1 else 0 end,
    case when excluded.at < rate.at - interval '10 minutes' then excluded.at else greatest(excluded.at, rate.at) end,
    left_over + 1 <= %(limit)s + 1e-6
  from (
    select greatest(0, least(rate.spent, %(limit)s)
      - greatest(0, extract(epoch from excluded.at - rate.at)) * %(limit)s / 60.0) as left_over
  ) as bucket
)
returning spent, allowed
"""


async def count_request(db: Database, caller: Caller, *, now: datetime) -> list[tuple[bytes, bytes]]:
    """Count one request of a limited key; returns the headers that tell how much is left. Raises `RateLimited`.

    A bucket that holds a minute's requests and empties steadily, counted in the database, so that all processes count
    together, by the clock that is ahead, as long as no two are more than ten minutes apart. A clock that is put back by
    less empties nothing until it has caught up; put back by more, it costs nobody more than a minute.
    """
    limit = caller.requests_per_minute
    if limit is None:
        return []
    parameters = {"key_id": caller.key_id, "limit": float(limit), "now": now}
    row = await db.one(_COUNT_REQUEST, parameters)
    spent = float(row["spent"]) if row is not None else 1.0
    headers = {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": str(max(0, floor(limit - spent + 1e-6))),
        "x-ratelimit-reset-requests": f"{ceil(spent * 60 / limit)}s",
    }
    if row is not None and not row["allowed"]:
        error = errors.RateLimited(
            f"this key may make {limit} requests a minute; wait for retry-after. A video need not be polled: "
            "?wait= and webhooks tell of its end",
            retry_after_s=(spent + 1 - limit) * 60 / limit,
        )
        error.headers.update(headers)
        raise error
    return [(name.encode(), value.encode()) for name, value in headers.items()]


# Managing keys


async def create(
    session: AsyncSession, name: str, *, project_id: str | None, changes: Changes, settings: Settings, now: datetime
) -> tuple[Key, str]:
    """Make a key, with a project of its own where none is named; the second value is the key itself, never to be had
    again. Raises `InvalidRequest`, `NotFound`."""
    name = checked_name("name", name)
    project = (
        await get_project(session, project_id)
        if project_id is not None
        else await create_project(session, name, now=now)
    )
    key = mint()
    hashed = hmac.digest(own_secret(settings, "api-keys"), key.encode(), "sha256").hex()
    row = Key(id=ids.new("key"), name=name, owner=project.id, hash=hashed, hint=key[-4:], created_at=now)
    session.add(row)
    await change(session, row, changes, now=now)
    return row, key


async def change(session: AsyncSession, key: Key, changes: Changes, *, now: datetime) -> None:
    """Set what is to be set. Raises `InvalidRequest`."""
    if changes.name is not ...:
        key.name = checked_name("name", changes.name)
    if changes.models is not ...:
        key.models = _checked_patterns(changes.models)
    for name in ("requests_per_minute", "concurrent_jobs"):
        value = getattr(changes, name)
        if value is not ...:
            setattr(key, name, _checked_limit(name, value))
    if changes.expires_at is not ...:
        key.expires_at = _checked_moment("expires_at", changes.expires_at)
    await session.flush()


def _checked_patterns(patterns: list[str] | None) -> list[str] | None:
    if patterns is None:
        return None
    sound = all(0 < len(p) <= MAX_PATTERN_CHARACTERS and p.isprintable() for p in patterns)
    if not 0 < len(patterns) <= MAX_PATTERNS or not sound:
        raise errors.InvalidRequest(
            f"models: expected 1 to {MAX_PATTERNS} patterns such as lumen/* or sora-2", param="models"
        )
    return patterns


def _checked_limit(name: str, value: int | None) -> int | None:
    if value is not None and not 1 <= value <= MAX_LIMIT:
        raise errors.InvalidRequest(f"{name}: expected 1 to {MAX_LIMIT}", param=name, code="invalid_value")
    return value


def _checked_moment(name: str, at: datetime | None) -> datetime | None:
    """In UTC. The first and the last year are left out: a moment there may be none in another time zone, such as the
    database's."""
    if at is None:
        return None
    try:
        moment = at.astimezone(UTC)
        sound = MINYEAR < moment.year < MAXYEAR
    except OverflowError:
        sound = False
    if not sound:
        message = f"{name}: expected a moment from the year {MINYEAR + 1} to {MAXYEAR - 1}, or none for never"
        raise errors.InvalidRequest(message, param=name, code="invalid_value")
    return moment


async def get(session: AsyncSession, key_id: str) -> Key:
    """Read and lock a key. Raises `NotFound`."""
    key = await session.get(Key, key_id, with_for_update=True) if ids.is_id(key_id, "key") else None
    if key is None:
        raise errors.NotFound(f"no key has the id {key_id!r:.80}; see `video-gateway keys list`")
    return key


async def listed(connection: AsyncConnection, *, owner: str | None = None) -> list[Key]:
    query = rows.select(Key).order_by(Key.id)
    return await rows.all_of(Key, connection, query if owner is None else query.where(Key.owner == owner))


async def revoke(session: AsyncSession, key_id: str, *, now: datetime) -> Key:
    """Refuse a key from now on, within a second on every process. Raises `NotFound`."""
    key = await get(session, key_id)
    key.revoked_at = key.revoked_at or now
    return key
