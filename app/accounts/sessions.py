"""Sessions of the console, and one-time links that open one: the only writer of both tables.

The id of a session is random, in the browser's cookie alone, and stored as a hash. A session holds the hash of the key
that opened it; who uses the session has that key checked again with each request, so that a revoked key ends it.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app import errors
from app.accounts.auth import take_token
from app.accounts.wrong_keys import group_of
from app.db import rows
from app.db.database import Database
from app.db.models import ConsoleLink, ConsoleSession, RequestRate
from app.video import SessionKind

LONGEST = timedelta(days=7)
"""Age at which a session ends, however often it is used."""
SEEN_GAP = timedelta(minutes=1)
"""Least time between two writes of the last use."""
LINK_LIFETIME = timedelta(minutes=10)
TRIES_A_MINUTE = 10
"""Sign-ins of one address in a minute, right and wrong ones."""
_SIGN_IN = "sign-in:"


@dataclass(frozen=True)
class Holder:
    """The key that a session or a link stands for."""

    kind: SessionKind
    key_hash: str


async def open_session(connection: AsyncConnection, holder: Holder, *, lifetime: timedelta, now: datetime) -> str:
    """Open a session and return its id, which is not stored. It ends `lifetime` after its last use."""
    session_id = secrets.token_urlsafe(32)
    row = {
        "id_hash": _hash(session_id),
        "kind": holder.kind,
        "key_hash": holder.key_hash,
        "created_at": now,
        "seen_at": now,
        "expires_at": now + min(lifetime, LONGEST),
    }
    await connection.execute(sa.insert(ConsoleSession).values(row))
    return session_id


async def find_session(
    connection: AsyncConnection, session_id: str, *, lifetime: timedelta, now: datetime, is_use: bool = True
) -> Holder | None:
    """Return the holder of a session, and record its use if it is one; None for an unknown or ended one."""
    current = (ConsoleSession.id_hash == _hash(session_id), ConsoleSession.expires_at > now)
    found = await rows.one_of(ConsoleSession, connection, rows.select(ConsoleSession).where(*current))
    if found is None:
        return None
    if is_use and abs(now - found.seen_at) >= SEEN_GAP:  # abs: the clock may have been set back
        expires_at = min(now + lifetime, found.created_at + LONGEST)
        used = sa.update(ConsoleSession).where(ConsoleSession.id_hash == found.id_hash)
        await connection.execute(used.values(seen_at=now, expires_at=expires_at))
    return Holder(found.kind, found.key_hash)


def form_token(session_id: str) -> str:
    """The token that forms of a session carry: a page of another site cannot know it."""
    return hmac.digest(session_id.encode(), b"form", "sha256").hex()


async def close_session(connection: AsyncConnection, session_id: str) -> None:
    await connection.execute(sa.delete(ConsoleSession).where(ConsoleSession.id_hash == _hash(session_id)))


async def close_sessions_of(connection: AsyncConnection, holder: Holder) -> None:
    """Close all sessions and links of a key."""
    for model in (ConsoleSession, ConsoleLink):
        same = (model.key_hash == holder.key_hash, model.kind == holder.kind)
        await connection.execute(sa.delete(model).where(*same))


async def make_link(connection: AsyncConnection, holder: Holder, *, now: datetime) -> str:
    """Make a link and return its code, which is not stored. It opens one session within `LINK_LIFETIME`."""
    code = secrets.token_urlsafe(24)
    row = {
        "code_hash": _hash(code),
        "kind": holder.kind,
        "key_hash": holder.key_hash,
        "expires_at": now + LINK_LIFETIME,
    }
    await connection.execute(sa.insert(ConsoleLink).values(row))
    return code


async def redeem_link(connection: AsyncConnection, code: str, *, now: datetime) -> Holder | None:
    """Use up a link and return its holder; None for an unknown, used or old one."""
    used = sa.delete(ConsoleLink).where(ConsoleLink.code_hash == _hash(code), ConsoleLink.expires_at > now)
    row = (await connection.execute(used.returning(ConsoleLink.kind, ConsoleLink.key_hash))).first()
    return None if row is None else Holder(row.kind, row.key_hash)


async def count_sign_in(db: Database, address: str, *, now: datetime) -> None:
    """Count a try to sign in from an address, for all processes. Raises `RateLimited` beyond `TRIES_A_MINUTE`."""
    used, allowed = await take_token(db, f"{_SIGN_IN}{group_of(address)}", TRIES_A_MINUTE, now=now)
    if not allowed:
        raise errors.RateLimited(
            f"more than {TRIES_A_MINUTE} tries to sign in within a minute came from this address; wait for retry-after",
            retry_after_s=(used + 1 - TRIES_A_MINUTE) * 60 / TRIES_A_MINUTE,
        )


async def purge_sessions(connection: AsyncConnection, *, now: datetime) -> None:
    """Delete ended sessions, old links, and counts of sign-ins that no longer matter."""
    for model in (ConsoleSession, ConsoleLink):
        await connection.execute(sa.delete(model).where(model.expires_at <= now))
    old = RequestRate.key_id.startswith(_SIGN_IN), RequestRate.at < now - timedelta(hours=1)
    await connection.execute(sa.delete(RequestRate).where(*old))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
