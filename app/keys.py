"""API keys: mint, hash, authenticate; and the server's own secrets.

Keys are random and long, so they are stored as HMAC-SHA256 with a pepper: cheap to check, useless when stolen from the
database. Who a key belongs to is looked up at most once a second for each key and process.
"""

import base64
import hashlib
import hmac
import os
import secrets
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import errors, ids
from app.db import Database
from app.settings import ConfigurationError, Settings
from app.tables import Key

PREFIX = "vgw_"
CACHE_S = 1.0
CACHE_SIZE = 10_000
MAX_NAME_CHARACTERS = 100


@dataclass(frozen=True)
class Caller:
    """Who is asking."""

    owner: str
    key_id: str


def mint() -> str:
    """Return a new key: `vgw_`, 43 random characters, 6 of checksum, so that a scanner can tell a leaked one."""
    body = secrets.token_urlsafe(32)
    return f"{PREFIX}{body}{_checksum(body)}"


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
    temporary = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)
    try:
        os.link(temporary, path)  # the first of several processes wins, with a whole file
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


@cache
def _static_caller(key: str) -> Caller:
    # Without the pepper: the owner must be the same on machines that share only the key. Slow, since it is stored.
    name = "static_" + hashlib.pbkdf2_hmac("sha256", key.encode(), b"video-gateway owner", 100_000)[:8].hex()
    return Caller(owner=name, key_id=name)


class Authenticator:
    """Turns a presented key into its `Caller`."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._secret = own_secret(settings, "api-keys")
        static = [key.get_secret_value() for key in settings.api_keys] or [first_key(settings)[0]]
        self._static = {self.hash(key): _static_caller(key) for key in static}
        self._cache: OrderedDict[str, tuple[float, Caller | None]] = OrderedDict()

    def hash(self, key: str) -> str:
        return hmac.digest(self._secret, key.encode(errors="surrogatepass"), "sha256").hex()

    async def authenticate(self, key: str | None) -> Caller:
        """Raises `AuthenticationFailed` for a missing, unknown or revoked key, always in the same words."""
        if not key:
            raise errors.AuthenticationFailed(
                "no API key was sent; send it as `Authorization: Bearer <key>`", code="missing_api_key"
            )
        hashed = self.hash(key)  # looked up by its hash, so no comparison runs along the key itself
        caller = self._static.get(hashed) or await self._stored(hashed)
        if caller is None:
            raise errors.AuthenticationFailed(
                "the API key is not valid; check it, or make a new one with `video-gateway keys create NAME`"
            )
        return caller

    async def _stored(self, hashed: str) -> Caller | None:
        now = time.monotonic()
        cached = self._cache.get(hashed)
        if cached is not None and now < cached[0]:
            return cached[1]
        async with self._db.reading() as connection:
            caller = await find(connection, hashed)
        self._cache[hashed] = (now + CACHE_S, caller)
        self._cache.move_to_end(hashed)
        if len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return caller


async def find(connection: AsyncConnection, hashed: str) -> Caller | None:
    query = sa.select(Key.owner, Key.id).where(Key.hash == hashed, Key.revoked_at.is_(None))
    row = (await connection.execute(query)).first()
    return Caller(owner=row.owner, key_id=row.id) if row else None


async def create(
    session: AsyncSession, name: str, *, owner: str | None, settings: Settings, now: datetime
) -> tuple[Key, str]:
    """Make a key; the second value is the key itself, never to be had again. Raises `InvalidRequest`."""
    name = _checked("name", name)
    owner = None if owner is None else _checked("owner", owner)
    key = mint()
    key_id = ids.new("key")
    hashed = hmac.digest(own_secret(settings, "api-keys"), key.encode(), "sha256").hex()
    row = Key(id=key_id, name=name, owner=owner or key_id, hash=hashed, hint=key[-4:], created_at=now)
    session.add(row)
    await session.flush()
    return row, key


def _checked(param: str, value: str) -> str:
    value = value.strip()
    if not value or len(value) > MAX_NAME_CHARACTERS or not value.isprintable():
        raise errors.InvalidRequest(
            f"a key's {param} is 1 to {MAX_NAME_CHARACTERS} printable characters", param=param, code="invalid_value"
        )
    return value


async def listed(connection: AsyncConnection) -> list[Key]:
    rows = await connection.execute(sa.select(*Key.__table__.columns).order_by(Key.id))
    return [Key(**row._mapping) for row in rows]


async def revoke(session: AsyncSession, key_id: str, *, now: datetime) -> Key:
    """Refuse a key from now on, within a second on every process. Raises `NotFound`."""
    key = await session.get(Key, key_id, with_for_update=True)
    if key is None:
        raise errors.NotFound(f"no key has the id {key_id!r:.80}; see `video-gateway keys list`")
    key.revoked_at = key.revoked_at or now
    return key
