"""The database's clock, which all processes of one gateway share: the clocks of their machines may differ by hours.

Leases, due times and deadlines are written by one process and compared by another, so both must mean the same time.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from app.db.database import Database
from app.db.faults import is_unavailable
from app.telemetry.logs import log
from app.telemetry.metrics import CLOCK_SKEW

SYNCHRONISE_S = 60
"""Seconds between two comparisons with the database's clock."""
WARN_S = 5
"""Difference in seconds that is logged: of this machine's clock, or of two readings of the database's."""


def steady_s() -> float:
    """Seconds since some moment, by a clock that is never set and, on Linux, goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class DatabaseClock:
    """The time of the database, as of the last comparison plus what has passed since by this process's steady clock.

    Calling it costs no query. Exact to half the round trip of the comparison. Until the first comparison it is this
    machine's time.
    """

    def __init__(self, *, steady: Callable[[], float] = steady_s, wall: Callable[[], float] = time.time) -> None:
        self._steady = steady
        self._wall = wall
        self._offset_s = wall() - steady()
        self._compared = False
        self._machine_is_off = False

    def __call__(self) -> datetime:
        return datetime.fromtimestamp(self._steady() + self._offset_s, UTC)

    @asynccontextmanager
    async def synchronised(self, db: Database) -> AsyncIterator[None]:
        """Compare with the database now, and each `SYNCHRONISE_S` while the block lasts. Raises the errors of the first
        comparison; later ones are repeated."""
        await self.synchronise(db)
        running = asyncio.create_task(self._synchronise_for_ever(db))
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    async def synchronise(self, db: Database) -> None:
        """Compare with the database's clock. Raises the database's errors."""
        before = self._steady()
        there = (await db.now()).timestamp()
        after = self._steady()
        offset_s = there - (before + after) / 2
        moved_s = offset_s - self._offset_s
        if abs(moved_s) > (after - before) / 2:  # less may be the round trip alone
            self._offset_s = offset_s
        if self._compared and abs(moved_s) > WARN_S:
            log.warning("the database's clock was set", by_s=round(moved_s, 1))
        self._compared = True
        self._report_skew(self._wall() - self().timestamp())

    async def _synchronise_for_ever(self, db: Database) -> None:
        while True:
            await asyncio.sleep(SYNCHRONISE_S)
            try:
                await self.synchronise(db)
            except Exception as error:
                if not is_unavailable(error):
                    log.exception("clock not compared, repeated later")

    def _report_skew(self, skew_s: float) -> None:
        """Set the metric; log when this machine's clock becomes wrong, and when it is right again."""
        CLOCK_SKEW.set(skew_s)
        off = abs(skew_s) > WARN_S
        if off != self._machine_is_off:
            self._machine_is_off = off
            if off:
                log.warning(
                    "this machine's clock differs from the database's, which is used",
                    ahead_s=round(skew_s, 1),
                    hint="set both by NTP: vendors and receivers of webhooks compare times with their own clocks",
                )
            else:
                log.info("this machine's clock agrees with the database's again")
