"""The worker loop: claims due attempts and runs their next step, renews leases, purges expired data.

Any number of workers on any number of machines share one database. Attempts held by a worker that dies come due again
when their leases end.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from math import ceil

from app import ids
from app.db.clock import DatabaseClock
from app.db.database import Database
from app.db.faults import is_unavailable
from app.jobs import lifecycle, presence
from app.jobs.claim import STORES, SUBMITS, Claim, Held, Slots, claim_attempts, renew_leases
from app.jobs.context import StepContext
from app.jobs.executor import Executor
from app.jobs.purge import purge
from app.media.signed_links import SignedLinks
from app.media.store import Store
from app.providers.base import Provider
from app.settings import Settings
from app.telemetry.logs import log
from app.video import AttemptState as S
from app.webhooks.sender import Sender
from app.webhooks.worker import DeliveryWorker

SHARE = 3 / 4
"""Part of a worker's slots for downloads, and of those for submits to one provider, that one project may hold: a slow
upstream or a slow file may hold a slot for minutes, and another project's must not wait for it."""
MAX_SERVED = 100
"""Number of the last served projects that are remembered."""


def share_of(slots: int) -> int:
    """Number of slots that one project may hold."""
    return ceil(SHARE * slots)


def _slot_of(claim: Claim) -> tuple[str, str]:
    return (STORES if claim.was is S.storing else claim.attempt.provider), claim.attempt.project_id


class Worker:
    """The worker of one process: `run` works until `stop`, `run_once` does all that is due now."""

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
        self._id = ids.new("worker")
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
        """Providers without a free connection for another submit after the last claim."""
        self._database_down = False
        """True when the last attempt to reach the database failed."""
        self._ticked_at = time.monotonic()
        self._purge_due = clock()
        self._purging: asyncio.Task[None] | None = None
        self._claims_made = 0
        self._served: dict[tuple[str, str], int] = {}
        """The number of the last claim that served a project, by provider, `STORES` for downloads."""
        self._connections = {name: provider.config.connections for name, provider in providers.items()}
        self._shares = {name: share_of(connections) for name, connections in self._connections.items()}
        self._shares |= {STORES: share_of(settings.worker_stores), SUBMITS: share_of(settings.worker_concurrency)}
        self._limits = {
            name: provider.config.concurrency
            for name, provider in providers.items()
            if provider.config.concurrency is not None
        }

    # Loops

    def wake(self) -> None:
        """Look for due work now instead of at the next tick."""
        self._wake.set()

    def stop(self) -> None:
        """Stop claiming; `run` returns when running calls have ended or the grace period is over."""
        self._stopping.set()
        self._wake.set()

    @property
    def silence_s(self) -> float:
        """Seconds since the last tick of the loop; 0 once it is stopped, for it then waits for running calls. For other
        threads, too."""
        return 0.0 if self._stopping.is_set() else time.monotonic() - self._ticked_at

    async def run(self) -> None:
        """Work until `stop`; waits while the database is unavailable."""
        async with self._alive():
            while not self._stopping.is_set():
                self._wake.clear()
                self._ticked_at = time.monotonic()
                try:
                    busy = await self._start_due()
                except Exception as error:
                    self._database_down = is_unavailable(error)
                    if not self._database_down:
                        log.exception("worker loop failed, continued")
                    busy = False
                if not busy:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), self._settings.worker_tick_s)
            await asyncio.gather(self._drain(), self._deliveries.drain(self._settings.shutdown_grace_s))

    async def run_due(self) -> int:
        """`run_once` in a process of its own: other processes see that it runs, and its leases are renewed."""
        async with self._alive():
            return await self.run_once()

    @asynccontextmanager
    async def _alive(self) -> AsyncIterator[None]:
        """Renew leases and announce this worker while the block runs."""
        heartbeat = asyncio.create_task(self._heartbeat())
        announcing = asyncio.create_task(self._announce())
        try:
            yield
        finally:
            for task in filter(None, (heartbeat, announcing, self._purging)):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            with suppress(Exception):  # the database is away; the last heartbeat says the same
                await presence.withdraw(self._db, self._id)

    async def _start_due(self) -> bool:
        """Claim and start due attempts and deliveries; True when there may be more.

        After a database outage the leases are renewed first: they may have run out, here and at other workers, which
        get one tick to do the same."""
        if self._database_down:
            if isinstance(self._clock, DatabaseClock):  # it may be another server now, with another time
                await self._clock.synchronise(self._db)
            await self._renew()
            self._database_down = False
            return False
        busy = await self._claim_and_start()
        self._purge_if_due()
        return await self._deliveries.start_due() or busy

    async def run_once(self) -> int:
        """Do all that is due by the clock, deliveries and housekeeping too, and wait for it; returns the number of
        batches."""
        worked = 0
        while await self._claim_and_start():
            worked += len(self._tasks)
            while self._tasks:
                await asyncio.wait(self._tasks)
        while await self._deliveries.start_due():
            await self._deliveries.finish()
        if self._purge_is_due():
            await self.purge()
        return worked

    async def _claim_and_start(self) -> bool:
        """Claim up to the free slots and start the steps; True when there may be more."""
        limit = self._settings.worker_concurrency
        held = [claim.was for claim in self._claims()]
        stores = sum(was is S.storing for was in held)
        polls = sum(was is S.running for was in held)
        slots = Slots(
            submits=max(0, limit - (len(held) - stores - polls)),
            polls=max(0, limit - polls),
            stores=max(0, self._settings.worker_stores - stores),
        )
        free, slots_held = self._free_connections(), self._slots_held()
        async with self._db.transaction() if self._limits else self._db.reading() as connection:
            claimed = await claim_attempts(
                connection,
                slots,
                limits=self._limits,
                free_connections=free,
                shares=self._shares,
                held=self._held(slots_held),
                lease_s=self._settings.lease_s,
                now=self._clock(),
            )
        self._claims_made += 1
        for claim in claimed:
            self._served.pop(_slot_of(claim), None)  # behind the others
            self._served[_slot_of(claim)] = self._claims_made
        taken = [claim.was for claim in claimed]
        self._saturated = any(
            taken.count(state) == slot
            for state, slot in ((S.pending, slots.submits), (S.running, slots.polls), (S.storing, slots.stores))
        )
        submits = Counter(claim.attempt.provider for claim in claimed if claim.was is S.pending)
        self._full = {name for name, connections in free.items() if submits[name] >= connections}
        for batch in self._executor.batches(claimed):
            task = asyncio.create_task(self._executor.run(batch))
            self._tasks[task] = batch
            task.add_done_callback(self._ended)
        self._note_shares(slots_held + Counter(map(_slot_of, claimed)))
        return bool(claimed)

    def _note_shares(self, reached: Counter[tuple[str, str]]) -> None:
        """Note where a project has reached its share: more of its jobs may wait, though slots are free."""
        totals: Counter[str] = Counter()
        for (provider, project_id), held in reached.items():
            if provider in self._connections and held >= self._shares[provider]:
                self._full.add(provider)
            if provider != STORES:
                totals[project_id] += held
        self._saturated = self._saturated or max(totals.values(), default=0) >= self._shares[SUBMITS]

    def _claims(self) -> list[Claim]:
        return [claim for batch in self._tasks.values() for claim in batch]

    def _held(self, held: Counter[tuple[str, str]]) -> list[Held]:
        """The slots that projects hold, with those last served."""
        self._served = dict(list(self._served.items())[-MAX_SERVED:])
        return [
            Held(provider=slot[0], project_id=slot[1], slots=held[slot], served=self._served.get(slot, 0))
            for slot in {*held, *self._served}
        ]

    def _slots_held(self) -> Counter[tuple[str, str]]:
        """Slots held by provider, or `STORES`, and project."""
        return Counter(_slot_of(claim) for claim in self._claims() if claim.was is not S.running)

    def _free_connections(self) -> dict[str, int]:
        """Connections left for more submits, by provider."""
        held = Counter(claim.attempt.provider for claim in self._claims() if claim.was in (S.pending, S.submitting))
        return {name: max(0, connections - held[name]) for name, connections in self._connections.items()}

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        half = self._saturated and len(self._tasks) <= self._settings.worker_concurrency // 2
        free = self._free_connections() if self._full else {}
        if half or any(free[name] > self._connections[name] // 2 for name in self._full):
            self._wake.set()

    async def _heartbeat(self) -> None:
        """Renew the leases of held attempts: a step such as a download may take longer than one lease."""
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            with suppress(Exception):  # the next heartbeat tries again; an expired lease costs time only
                await self._renew()

    async def _announce(self) -> None:
        """Tell the other processes that this worker runs."""
        while True:
            with suppress(Exception):  # the next heartbeat tries again
                await presence.announce(self._db, self._id)
            await asyncio.sleep(presence.HEARTBEAT_S)

    async def _renew(self) -> None:
        if self._tasks:
            await renew_leases(self._db, self._claims(), lease_s=self._settings.lease_s, now=self._clock())

    async def _drain(self) -> None:
        """Release submits that are not sent yet at once; let all other calls finish within the grace period, then
        release what can safely be repeated.

        An interrupted submit that was sent is not released but keeps its lease: its outcome is unknown."""
        await self._stop(
            [task for task, (claim, *_) in self._tasks.items() if claim.was is S.pending and not claim.sent]
        )
        if self._tasks:
            log.info("stopping: waiting for running calls", calls=len(self._tasks))
            await asyncio.wait(self._tasks, timeout=self._settings.shutdown_grace_s)
        await self._stop(list(self._tasks))

    async def _stop(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        claims = [claim for task in tasks for claim in self._tasks[task]]
        for claim in claims:
            claim.stopped = True
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for claim in claims:
            if not claim.sent and claim.was is not S.submitting:
                with suppress(Exception):
                    async with self._db.reading() as connection:
                        await lifecycle.release(connection, claim, now=self._clock())

    # Housekeeping

    def _purge_if_due(self) -> None:
        """Start a due purge in the background: a store that does not answer must not block the worker loop."""
        if (self._purging is None or self._purging.done()) and self._purge_is_due():
            self._purging = asyncio.create_task(self._purge_in_background())

    def _purge_is_due(self) -> bool:
        """Return True once in each interval."""
        now, gap = self._clock(), timedelta(seconds=self._settings.purge_interval_s)
        due = now >= self._purge_due or self._purge_due > now + gap  # the clock was set back
        if due:
            self._purge_due = now + gap
        return due

    async def _purge_in_background(self) -> None:
        try:
            await self.purge()
        except Exception as error:
            if not is_unavailable(error):
                log.exception("purge failed, repeated later")

    async def purge(self) -> None:
        """Run all housekeeping of `purge.py`."""
        await purge(self._db, self._settings, self._store, now=self._clock())
