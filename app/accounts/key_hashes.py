"""The hashes of all keys, read at once: whether an address that guesses has a right key is then no query of its own."""

import asyncio
import math
import time

import sqlalchemy as sa

from app.db.database import Database
from app.db.models import Key

MOST = 50_000
"""Keys beyond which they are not kept: each key is then looked up by itself."""
REREAD_S = 2.0
"""Age in seconds at which the hashes are read anew, if they are asked for."""


class KeyHashes:
    """The beginnings of the hashes of all keys that are not revoked. They are read only while an address guesses."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._found: frozenset[int] | None = None
        """None: there are too many keys."""
        self._read_at = -math.inf
        self._reading = asyncio.Lock()

    async def may_have(self, hashed: str) -> bool:
        """False if no key has this hash, or has it for less than `REREAD_S`."""
        async with self._reading:
            if time.monotonic() - self._read_at >= REREAD_S:
                self._found = await self._read()
                self._read_at = time.monotonic()
        return self._found is None or _beginning(hashed) in self._found

    async def _read(self) -> frozenset[int] | None:
        query = sa.select(sa.func.left(Key.hash, 16)).where(Key.revoked_at.is_(None)).limit(MOST + 1)
        async with self._db.reading() as connection:
            found = (await connection.scalars(query)).all()
        return None if len(found) > MOST else frozenset(map(_beginning, found))


def _beginning(hashed: str) -> int:
    return int(hashed[:16], 16)
