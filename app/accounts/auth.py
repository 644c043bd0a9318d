"""Authentication: from a presented API key to its `Caller`, and requests per minute.

Callers are cached for as long as the listener proves that no key has changed (`db/listener.py`), else for a second.
"""

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cache
from math import ceil, floor

import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from app import errors
from app.accounts.secrets import (
    derive_secret,
    first_key,
    is_well_formed,
)
from app.db.database import Database
from app.db.listener import Listener
from app.db.models import Key, Project
from app.settings import Settings
from app.video import Billing

CACHE_S = 60.0

UNVERIFIED_CACHE_S = 0.9
"""How long something is remembered while changes are heard of, and while they may not be."""

CACHE_SIZE = 10_000

LOOKUPS_AT_ONCE = 3
"""Of keys nobody remembers, so that wrong ones in any number leave the connections to the others."""


@dataclass(frozen=True)
class Caller:
    """Who is asking, and what they may."""

    project_id: str
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


@cache
def static_project_id(key: str) -> str:
    # Without the pepper: the project must be the same on machines that share only the key. Slow, since it is stored.
    return "static_" + hashlib.pbkdf2_hmac("sha256", key.encode(), b"video-gateway owner", 100_000)[:8].hex()


class Authenticator:
    """Turns a presented key into its `Caller`."""

    def __init__(self, db: Database, settings: Settings, listener: Listener, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._listener = listener
        self._clock = clock
        self._secret = derive_secret(settings, "api-keys")
        static = [key.get_secret_value() for key in settings.api_keys] or [first_key(settings)[0]]
        self._static = {self.hash(key): static_project_id(key) for key in static}
        self._known: OrderedDict[str, tuple[float, int, Caller]] = OrderedDict()
        self._wrong: OrderedDict[str, tuple[float, int, None]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Caller | None]] = {}
        self._lookups = asyncio.Semaphore(LOOKUPS_AT_ONCE)

    @property
    def static_projects(self) -> Iterable[str]:
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
            changes, now = (
                self._listener.key_changes,
                time.monotonic(),
            )  # before the query: it may be out of date right after
            async with self._db.reading() as connection:
                caller = await find_caller(connection, hashed, static_project=self._static.get(hashed))
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
        """True while the listener proves that no key has changed since."""
        if changes != self._listener.key_changes:
            return False
        return time.monotonic() - looked_up < (CACHE_S if self._listener.is_current else UNVERIFIED_CACHE_S)


async def find_caller(connection: AsyncConnection, hashed: str, *, static_project: str | None = None) -> Caller | None:
    """Who a key belongs to that is stored under its hash, or stands in the settings and belongs to `static_owner`."""
    limited = sa.or_(Project.billing == Billing.prepaid, Project.monthly_budget_micros.is_not(None))
    if static_project is not None:
        found = await connection.scalar(sa.select(limited).where(Project.id == static_project))
        return Caller(project_id=static_project, key_id=static_project, limited=bool(found), key_hash=hashed)
    query = (
        sa.select(Key, sa.or_(limited, Key.monthly_budget_micros.is_not(None)).label("limited"))
        .join(Project, Project.id == Key.project_id)
        .where(Key.hash == hashed, Key.revoked_at.is_(None))
    )
    row = (await connection.execute(query)).first()
    if row is None:
        return None
    return Caller(
        project_id=row.project_id,
        key_id=row.id,
        models=None if row.models is None else tuple(row.models),
        requests_per_minute=row.requests_per_minute,
        limited=row.limited,
        expires_at=row.expires_at,
        key_hash=hashed,
    )


def require_key(key: SecretStr, header: str, what: str) -> None:
    """Raises `AuthenticationFailed` unless an Authorization header brings this key, one of the operator's own."""
    scheme, _, given = header.partition(" ")
    right = hmac.compare_digest(given.strip().encode(), key.get_secret_value().encode())
    if scheme.lower() != "bearer" or not right:
        raise errors.AuthenticationFailed(f"send the {what} key as `Authorization: Bearer <key>`")


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
