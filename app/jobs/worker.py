"""The loops: claim what is due and start on it, keep the leases, purge what has expired.

Any number of workers on any number of machines share one database. What a dying worker held comes due again when its
lease ends.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta

from app.db.database import Database, is_unavailable
from app.jobs import lifecycle
from app.jobs.claim import Claim, Slots, claim_attempts, renew_leases
from app.jobs.context import StepContext
from app.jobs.executor import Executor
from app.jobs.purge import purge
from app.media.signed_links import SignedLinks
from app.media.store import Store
from app.providers.base import Provider
from app.settings import Settings
from app.telemetry import log
from app.video import AttemptState as S
from app.webhooks.sender import Sender
from app.webhooks.worker import DeliveryWorker


class Worker:
    """One worker of one process; `run` until told to stop, or `run_once` for all that is due now."""

    def __init__(
        self,
        *,
        db: Database,
        settings: Settings,
        providers: Mapping[str, Provider],
        store: Store,
        links: SignedLinks,
        sender: Sender,
        clock: Callable[[], datetime],
    ) -> None:
        self._db = db
        self._settings = settings
        self._store = store
        self._clock = clock
        self._wake = asyncio.Event()
        self._executor = Executor(
            StepContext(
                db=db,
                settings=settings,
                providers=providers,
                store=store,
                links=links,
                clock=clock,
                wake=self._wake.set,
            )
        )
        self._deliveries = DeliveryWorker(db=db, settings=settings, sender=sender, clock=clock, wake=self._wake.set)
        self._stopping = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], list[Claim]] = {}
        self._saturated = False
        self._full: set[str] = set()
        """Providers for which there was no room for another submit the last time."""
        self._away = False
        """Whether the database could not be reached the last time."""
        self._purge_due = clock()
        self._purging: asyncio.Task[None] | None = None
        self._pinned = {
            name: {"base_url": provider.config.base_url, "credential": provider.fingerprint}
            for name, provider in providers.items()
        }
        self._connections = {name: provider.config.connections for name, provider in providers.items()}
        self._limits = {
            name: provider.config.concurrency
            for name, provider in providers.items()
            if provider.config.concurrency is not None
        }

    # Loops

    def wake(self) -> None:
        """Say that there is something to do, so that it need not wait for the next tick."""
        self._wake.set()

    def stop(self) -> None:
        """Claim nothing more; `run` returns when what is under way has ended or the grace is over."""
        self._stopping.set()
        self._wake.set()

    async def run(self) -> None:
        """Work until `stop`. The database being away is waited out."""
        heart = asyncio.create_task(self._heartbeat())
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                try:
                    busy = await self._work_on_what_is_due()
                except Exception as error:
                    self._away = is_unavailable(error)
                    if not self._away:
                        log.exception("the worker failed; it goes on")
                    else:
                        log.warning("the database is away; the worker waits", error=type(error).__name__)
                    busy = False
                if not busy:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), self._settings.worker_tick_s)
            await asyncio.gather(self._drain(), self._deliveries.drain(self._settings.shutdown_grace_s))
        finally:
            for task in filter(None, (heart, self._purging)):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _work_on_what_is_due(self) -> bool:
        """True when there may be more. After the database was away the first thing is to keep what is in hand: leases
        may have run out meanwhile, here and at other workers, who get a tick to do the same."""
        if self._away:
            await self._renew()
            self._away = False
            return False
        busy = await self._claim_and_start()
        self._purge_if_due()
        return await self._deliveries.start_due() or busy

    async def run_once(self) -> int:
        """Do all that is due by the clock, deliveries too, and wait for it; returns how many attempts were done."""
        worked = 0
        while await self._claim_and_start():
            worked += len(self._tasks)
            while self._tasks:
                await asyncio.wait(self._tasks)
        while await self._deliveries.start_due():
            await self._deliveries.finish()
        await self.purge()
        return worked

    async def _claim_and_start(self) -> bool:
        """Claim up to the free slots and start on it; True when there may be more."""
        limit = self._settings.worker_concurrency
        held = [claim.was for claim in self._in_hand()]
        stores = sum(was is S.storing for was in held)
        polls = sum(was is S.running for was in held)
        slots = Slots(
            submits=max(0, limit - (len(held) - stores - polls)),
            polls=max(0, limit - polls),
            stores=max(0, self._settings.worker_stores - stores),
        )
        free = self._free_connections()
        async with self._db.transaction() if self._limits else self._db.reading() as connection:
            claimed = await claim_attempts(
                connection,
                slots,
                pinned=self._pinned,
                limits=self._limits,
                free_connections=free,
                lease_s=self._settings.lease_s,
                now=self._clock(),
            )
        taken = [claim.was for claim in claimed]
        self._saturated = any(
            taken.count(state) == slot
            for state, slot in ((S.pending, slots.submits), (S.running, slots.polls), (S.storing, slots.stores))
        )
        begun = Counter(claim.attempt.provider for claim in claimed if claim.was is S.pending)
        self._full = {name for name, room in free.items() if begun[name] >= room}
        for batch in self._executor.batches(claimed):
            task = asyncio.create_task(self._executor.run(batch))
            self._tasks[task] = batch
            task.add_done_callback(self._ended)
        return bool(claimed)

    def _in_hand(self) -> list[Claim]:
        return [claim for batch in self._tasks.values() for claim in batch]

    def _free_connections(self) -> dict[str, int]:
        """How many more submits there are connections for, by provider."""
        held = Counter(claim.attempt.provider for claim in self._in_hand() if claim.was in (S.pending, S.submitting))
        return {name: max(0, connections - held[name]) for name, connections in self._connections.items()}

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        half = self._saturated and len(self._tasks) <= self._settings.worker_concurrency // 2
        free = self._free_connections() if self._full else {}
        if half or any(free[name] > self._connections[name] // 2 for name in self._full):
            self._wake.set()

    async def _heartbeat(self) -> None:
        """Renew the leases of what is in hand: a long download is not a dead worker."""
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            with suppress(Exception):  # the next beat tries again; a lease that runs out is safe, only slower
                await self._renew()

    async def _renew(self) -> None:
        if self._tasks:
            await renew_leases(self._db, self._in_hand(), lease_s=self._settings.lease_s, now=self._clock())

    async def _drain(self) -> None:
        """Let running calls finish for the grace; hand back what can safely be done again, and leave the rest to the
        lease: a submit that was cut off is an unknown outcome, not a free one."""
        if self._tasks:
            log.info("stopping: waiting for running calls", calls=len(self._tasks))
            await asyncio.wait(self._tasks, timeout=self._settings.shutdown_grace_s)
        left = dict(self._tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        for claim in [claim for batch in left.values() for claim in batch]:
            if claim.attempt.state is not S.submitting:
                with suppress(Exception):
                    async with self._db.reading() as connection:
                        await lifecycle.release(connection, claim, now=self._clock())

    # Files that go

    def _purge_if_due(self) -> None:
        """Start a purge beside the work: a store that does not answer must not hold it up."""
        now, gap = self._clock(), timedelta(seconds=self._settings.purge_interval_s)
        due = now >= self._purge_due or self._purge_due > now + gap  # a clock was put back
        if due and (self._purging is None or self._purging.done()):
            self._purge_due = now + gap
            self._purging = asyncio.create_task(self._purge_beside())

    async def _purge_beside(self) -> None:
        try:
            await self.purge()
        except Exception as error:
            if not is_unavailable(error):
                log.exception("the purge failed; it is tried again")

    async def purge(self) -> None:
        """Run the housekeeping of `purge.py` that is due."""
        await purge(self._db, self._settings, self._store, now=self._clock())
