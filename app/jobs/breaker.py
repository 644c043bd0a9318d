"""Circuit breaker of each provider, shared by all processes through one row per provider.

After `THRESHOLD` consecutive failures the circuit is open: nothing is submitted for a while; then one call of one
process, the probe, is let through. Polls are never blocked: they cost nothing and finish started tasks.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa

from app.db import rows
from app.db.database import Database
from app.db.models import ProviderHealth
from app.telemetry import log

THRESHOLD = 5
"""Consecutive failures that open the circuit."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 15, 300
PROBE_S = 30
"""Time that other calls wait for the result of the probe."""
CACHE_S = 1.0

_FAILED = sa.text(
    """
    insert into provider_health (name, failures) values (:name, 1)
    on conflict (name) do update set
      failures = provider_health.failures + 1,
      open_until = case
        when provider_health.open_until > :now then provider_health.open_until
        when provider_health.failures + 1 >= :threshold then :now + make_interval(secs => least(
          :longest, :first * power(2, least(10, provider_health.failures + 1 - :threshold))
        ))
      end
    returning failures, open_until
    """
).bindparams(threshold=THRESHOLD, first=FIRST_PAUSE_S, longest=LONGEST_PAUSE_S)


class Breaker:
    """The circuit breakers of all providers, cached for `CACHE_S`."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock
        self._known: dict[str, ProviderHealth] = {}
        self._read_at = float("-inf")

    async def seconds_until_retry(self, name: str) -> float:
        """Seconds until a submit is allowed; 0: now. After the pause of an open circuit, one call gets 0: the probe."""
        await self._read()
        health = self._known.get(name)
        if health is None or health.open_until is None:
            return 0
        now = self._clock()
        if now < health.open_until:
            return (health.open_until - now).total_seconds()
        async with self._db.reading() as connection:
            won = await connection.execute(
                sa.update(ProviderHealth)
                .where(ProviderHealth.name == name, ProviderHealth.open_until == health.open_until)
                .values(open_until=now + timedelta(seconds=PROBE_S))
            )
        self._invalidate()
        return 0 if won.rowcount else PROBE_S

    async def record_failure(self, name: str) -> None:
        """Count a failure: the provider was unreachable or answered with a server error. May open the circuit."""
        async with self._db.reading() as connection:
            row = (await connection.execute(_FAILED, {"name": name, "now": self._clock()})).one()
        if row.open_until is not None:
            log.warning(
                "circuit open",
                provider=name,
                failures=row.failures,
                until=row.open_until.isoformat(),
            )
        self._invalidate()

    async def record_success(self, name: str) -> None:
        """Close the circuit and reset the count. Writes only after failures."""
        await self._read()
        if name in self._known:
            async with self._db.reading() as connection:
                await connection.execute(sa.delete(ProviderHealth).where(ProviderHealth.name == name))
            log.info("circuit closed", provider=name)
            self._invalidate()

    async def _read(self) -> None:
        now = time.monotonic()
        if now >= self._read_at + CACHE_S:
            async with self._db.reading() as connection:
                known = await rows.all_of(ProviderHealth, connection, rows.select(ProviderHealth))
            self._known = {health.name: health for health in known}
            self._read_at = now

    def _invalidate(self) -> None:
        self._read_at = float("-inf")
