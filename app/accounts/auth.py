"""Authentication: resolves an API key to its `Caller`, and limits requests per minute.

Callers are cached while the listener proves that no key has changed (`db/listener.py`), else for less than a second.
"""

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cache
from math import ceil, floor

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app import errors
from app.accounts.key_hashes import KeyHashes
from app.accounts.key_uses import KeyUses
from app.accounts.secrets import derive_secret, is_well_formed, own_keys
from app.accounts.stream_tokens import StreamTokens
from app.accounts.wrong_keys import WINDOW, WrongKeys
from app.db.database import Database
from app.db.listener import Listener
from app.db.models import Key, Project
from app.providers.routing import Route
from app.settings import Settings
from app.telemetry.logs import log
from app.video import Billing

CACHE_S = 60.0

UNVERIFIED_CACHE_S = 0.9
"""Cache lifetimes in seconds with a working LISTEN connection (`CACHE_S`), and without one."""

CACHE_SIZE = 10_000

LOOKUPS_AT_ONCE = 3
"""Limit of concurrent lookups of unknown keys, so that wrong keys cannot use up the database connections."""

MAX_WRONG = 30
"""Wrong keys of one address in a minute; for more no query is made. More than honest clients with an old key send,
which should read the 401."""


@dataclass(frozen=True)
class Caller:
    """The project and key behind one request, and their permissions."""

    project_id: str
    key_id: str
    models: tuple[str, ...] | None = None
    """Patterns of the models it may use; None: all."""
    kinds: tuple[str, ...] | None = None
    """Kinds of provider that the project may use; None: all."""
    max_cost_micros: int | None = None
    """Highest cost of one request, all outputs."""
    requests_per_minute: int | None = None
    limited: bool = False
    """True when a budget or balance must cover each job, so that it needs a known price."""
    expires_at: datetime | None = None
    key_hash: str = ""

    def may_use(self, model: str, route: Route) -> bool:
        """Return True if the route is of a permitted kind, and the model's name, the catalogue's or the route's matches
        the permitted patterns."""
        if self.kinds is not None and route.provider.kind not in self.kinds:
            return False
        patterns, names = self.models, (model, route.name, route.listed_as or model)
        return patterns is None or any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


@cache
def static_project_id(key: str) -> str:
    # No pepper: machines that share only the key must get the same project id. A slow hash, since the id is stored.
    return "static_" + hashlib.pbkdf2_hmac("sha256", key.encode(), b"video-gateway owner", 100_000)[:8].hex()


class Authenticator:
    """Resolves API keys to callers, with a cache."""

    def __init__(self, db: Database, settings: Settings, listener: Listener, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._listener = listener
        self._clock = clock
        self._secret = derive_secret(settings, "api-keys")
        own = own_keys(settings)
        self._static = {self.hash(key): static_project_id(key) for key in own}
        self.static_projects = {static_project_id(key): name for key, name in own.items()}
        """Project ids of the keys in the settings, each with its name there."""
        self.static_hints = {static_project_id(key): key[-4:] for key in own}
        """The same ids with the last four characters of the keys."""
        self.uses = KeyUses(db, clock)
        self._stream_tokens = StreamTokens(derive_secret(settings, "stream-tokens"))
        self._known: OrderedDict[str, tuple[float, int, Caller]] = OrderedDict()
        self._wrong: OrderedDict[str, tuple[float, int, None]] = OrderedDict()
        self._running: dict[str, asyncio.Task[Caller | None]] = {}
        self._lookups = asyncio.Semaphore(LOOKUPS_AT_ONCE)
        self._guesses = WrongKeys(MAX_WRONG)
        self._hashes = KeyHashes(db)

    def hash(self, key: str) -> str:
        return hmac.digest(self._secret, key.encode(errors="surrogatepass"), "sha256").hex()

    async def authenticate(self, key: str | None, *, address: str | None = None) -> Caller:
        """Resolve a key. Raises `AuthenticationFailed` for a missing, unknown, revoked or expired key, `RateLimited`
        after too many wrong ones from this address; unknown and revoked keys get the same message."""
        if not key:
            raise errors.AuthenticationFailed(
                "no API key was sent; send it as `Authorization: Bearer <key>`", code="missing_api_key"
            )
        hashed = self.hash(key)  # looked up by hash, so no comparison time depends on the key
        is_known = hashed in self._static or hashed in self._known
        possible = is_known or is_well_formed(key)  # a mistyped key costs no query
        if possible and not is_known and address is not None and self._guesses.is_over(address, self._clock()):
            possible = await self._hashes.may_have(hashed)
        found = await self._caller(hashed) if possible else None
        if found is None and address is not None:
            self._count_wrong(address)
        caller = self._require_valid(found)
        self.uses.note(caller.key_id)
        return caller

    def _count_wrong(self, address: str) -> None:
        before, refusal = self._guesses.count(address, self._clock())
        if before == MAX_WRONG:
            log.warning("wrong API keys", address=address, within_s=WINDOW.total_seconds())
        if refusal is not None:
            raise refusal

    async def check(self, caller: Caller) -> Caller:
        """Resolve the caller's key again, after a wait or a long upload. Raises `AuthenticationFailed` when the key is
        no longer valid."""
        return await self.by_hash(caller.key_hash)

    async def by_hash(self, hashed: str) -> Caller:
        """Resolve the key with this hash, as `hash` makes it. Raises `AuthenticationFailed`."""
        return self._require_valid(await self._caller(hashed))

    def mint_stream_token(self, caller: Caller) -> tuple[str, int]:
        """Return a token that opens the event stream of the caller's project, and the Unix time of its expiry."""
        return self._stream_tokens.mint(caller.key_id, now=self._clock())

    async def authenticate_stream(self, token: str) -> Caller:
        """Resolve a token to the caller whose key made it. Raises `AuthenticationFailed` for a token that is wrong or
        has expired, and for one of a key that is no longer valid."""
        key_id = self._stream_tokens.key_id_of(token, now=self._clock())
        hashed = next((own for own, project_id in self._static.items() if project_id == key_id), None)
        if key_id is not None and hashed is None:
            async with self._db.reading() as connection:
                hashed = await connection.scalar(sa.select(Key.hash).where(Key.id == key_id))
        caller = await self._caller(hashed) if key_id is not None and hashed is not None else None
        if caller is None:
            raise errors.AuthenticationFailed(
                "the token is not valid or has expired; get a new one with POST /v1/events/token"
            )
        return self._require_valid(caller)

    def _require_valid(self, caller: Caller | None) -> Caller:
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
        cached = self._known.get(hashed) or self._wrong.get(hashed)
        if cached is not None and self._is_fresh(*cached[:2]):
            return cached[2]
        lookup = self._running.get(hashed)  # concurrent requests with one key share one query
        if lookup is None:
            lookup = self._running[hashed] = asyncio.create_task(self._look_up(hashed))
            lookup.add_done_callback(lambda task: (self._running.pop(hashed), task.cancelled() or task.exception()))
        return await asyncio.shield(lookup)

    async def _look_up(self, hashed: str) -> Caller | None:
        was_valid = hashed in self._known or hashed in self._static
        async with nullcontext() if was_valid else self._lookups:
            changes, now = (
                self._listener.key_changes,
                time.monotonic(),
            )  # read before the query: a later change must invalidate the result
            async with self._db.reading() as connection:
                caller = await find_caller(connection, hashed, static_project=self._static.get(hashed))
        self._known.pop(hashed, None)
        self._wrong.pop(hashed, None)
        if caller is not None:
            self._known[hashed] = (now, changes, caller)
        else:  # a separate cache, so that wrong keys do not evict valid ones
            self._wrong[hashed] = (now, changes, None)
        for cached in (self._known, self._wrong):
            if len(cached) > CACHE_SIZE:
                cached.popitem(last=False)
        return caller

    def _is_fresh(self, looked_up: float, changes: int) -> bool:
        """True while a cache entry is valid: no key has changed since, and it has not expired."""
        if changes != self._listener.key_changes:
            return False
        return time.monotonic() - looked_up < (CACHE_S if self._listener.is_current else UNVERIFIED_CACHE_S)


async def find_caller(connection: AsyncConnection, hashed: str, *, static_project: str | None = None) -> Caller | None:
    """Look up the caller by key hash; keys from the settings pass their project."""
    limited = sa.or_(Project.billing == Billing.prepaid, Project.monthly_budget_micros.is_not(None))
    if static_project is not None:
        own = sa.select(limited.label("limited"), Project.kinds).where(Project.id == static_project)
        project = (await connection.execute(own)).first()
        return Caller(
            project_id=static_project,
            key_id=static_project,
            kinds=None if project is None or project.kinds is None else tuple(project.kinds),
            limited=project is not None and bool(project.limited),
            key_hash=hashed,
        )
    query = (
        sa.select(Key, Project.kinds, sa.or_(limited, Key.monthly_budget_micros.is_not(None)).label("limited"))
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
        kinds=None if row.kinds is None else tuple(row.kinds),
        max_cost_micros=row.max_cost_micros,
        requests_per_minute=row.requests_per_minute,
        limited=row.limited,
        expires_at=row.expires_at,
        key_hash=hashed,
    )


_COUNT_REQUEST = b"""
insert into request_rates as rate (key_id, spent, at, allowed) values (%(key_id)s, 1, %(now)s, true)
on conflict (key_id) do update set (spent, at, allowed) = (
  select left_over + case when left_over + 1 <= %(limit)s + 1e-6 then 1 else 0 end,
    case when excluded.at < rate.at - interval '1 minute' then excluded.at else greatest(excluded.at, rate.at) end,
    left_over + 1 <= %(limit)s + 1e-6
  from (
    select greatest(0, least(rate.spent, %(limit)s)
      - greatest(0, extract(epoch from excluded.at - rate.at)) * %(limit)s / 60.0) as left_over
  ) as bucket
)
returning spent, allowed
"""


async def take_token(db: Database, bucket: str, limit: int, *, now: datetime) -> tuple[float, bool]:
    """Take a token out of a bucket of `limit` tokens that fills within a minute, shared by all processes; returns the
    tokens in use, and False if there was none left.

    The latest time counts, since requests arrive out of order; one that lies more than a minute before counts as new,
    after a clock was set back, which delays a client by a minute at most.
    """
    row = await db.one(_COUNT_REQUEST, {"key_id": bucket, "limit": float(limit), "now": now})
    return (1.0, True) if row is None else (float(row["spent"]), bool(row["allowed"]))


async def count_request(db: Database, caller: Caller, *, now: datetime) -> list[tuple[bytes, bytes]]:
    """Count one request of a rate-limited key; returns the rate-limit headers. Raises `RateLimited`."""
    limit = caller.requests_per_minute
    if limit is None:
        return []
    spent, allowed = await take_token(db, caller.key_id, limit, now=now)
    headers = {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": str(max(0, floor(limit - spent + 1e-6))),
        "x-ratelimit-reset-requests": f"{ceil(spent * 60 / limit)}s",
    }
    if not allowed:
        error = errors.RateLimited(
            f"this key may make {limit} requests a minute; wait for retry-after. Instead of polling a video, use "
            "?wait= or webhooks",
            retry_after_s=(spent + 1 - limit) * 60 / limit,
        )
        error.headers.update(headers)
        raise error
    return [(name.encode(), value.encode()) for name, value in headers.items()]
