"""Circuit breakers of each provider, shared by all processes: one for each project, and one for all projects together.

After `THRESHOLD` consecutive failures a circuit is open: nothing is submitted for a while; then one call of one
process, the probe, is let through. An answer of the upstream pauses only the project that got it, since the upstream
may fail at that project's requests alone. All projects are paused when several of them have failed in a row, or when
the connection itself fails. Polls are never blocked: they cost nothing and finish started tasks.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.accounts import audit
from app.accounts.audit import Actor
from app.db import rows
from app.db.database import Database
from app.db.models import Attempt, ProviderHealth
from app.telemetry.logs import log
from app.video import AttemptState as S

ALL_PROJECTS = ""
THRESHOLD = 5
"""Consecutive failures that open the circuit."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 15, 300
PROBE_S = 30
"""Time that other calls wait for the result of the probe."""
CACHE_S = 1.0
MAX_LISTED = 1_000
"""Circuits that are listed: there may be one for each project."""

_FAILED = sa.text(
    """
    insert into provider_health as health (name, project_id, failures, failed_project)
    select :name, circuit, 1, :project_id from unnest((:circuits)::text[]) as circuit
    on conflict (name, project_id) do update set (failures, failed_project, open_until) = (
      select failures, excluded.failed_project, case
        when health.open_until > :now and health.open_until <= :now + make_interval(secs => :longest)
        then health.open_until
        when counts and failures >= :threshold
        then :now + make_interval(secs => least(:longest, :first * power(2, least(10, failures - :threshold))))
        else health.open_until
      end
      from (
        select counts, health.failures + counts::int as failures
        from (select health.project_id <> '' or :unreachable or health.failed_project <> excluded.failed_project)
          as counted (counts)
      ) as next
    )
    returning project_id, failures, open_until
    """
).bindparams(threshold=THRESHOLD, first=FIRST_PAUSE_S, longest=LONGEST_PAUSE_S)
"""In the circuit of all projects, only a failure of another project than the last one counts, or one of the connection:
a project that fails alone, at whatever rate, leaves it closed."""

MAX_MADE_DUE = 10_000
"""Waiting jobs that are due after a release; others wait for the end of the pause."""
_MAKE_DUE = sa.text(
    """
    with waiting as (
      select id from attempts where provider = :name and state = 'pending' and lease is null and due_at > :due_at
      order by due_at limit :most for update skip locked
    )
    update attempts set due_at = :due_at from waiting where attempts.id = waiting.id
    """
).bindparams(most=MAX_MADE_DUE)
"""Locked rows are left out: a worker has them, or their job ends."""


class Breaker:
    """The circuit breakers of all providers, cached for `CACHE_S`."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock
        self._known: dict[tuple[str, str], ProviderHealth] = {}
        self._read_at = float("-inf")

    async def seconds_until_retry(self, name: str, project_id: str) -> float:
        """Seconds until a project may submit; 0: now. After the pause of an open circuit, one call gets 0: the probe.
        The projects that have jobs waiting for a provider take turns with the probes of their common circuit."""
        await self._read()
        now = self._clock()
        circuits = [self._known.get((name, circuit)) for circuit in (ALL_PROJECTS, project_id)]
        found = [health for health in circuits if health is not None and health.open_until is not None]
        wait_s = max(((health.open_until - now).total_seconds() for health in found if health.open_until), default=0)
        if 0 < wait_s <= LONGEST_PAUSE_S:  # more was written before the clock was set back
            return wait_s
        for health in found:
            if not await self._win_probe(health, project_id, now):
                return PROBE_S
        return 0

    async def _win_probe(self, health: ProviderHealth, project_id: str, now: datetime) -> bool:
        soon = timedelta(seconds=PROBE_S)
        others_wait = sa.exists().where(
            Attempt.state == S.pending,
            Attempt.provider == health.name,
            Attempt.project_id != project_id,
            Attempt.due_at <= now + soon,
        )
        another_turn = ProviderHealth.probe_project.is_distinct_from(project_id)
        lapsed = ProviderHealth.open_until <= now - soon  # the others have not taken their turn
        async with self._db.reading() as connection:
            won = await connection.execute(
                sa.update(ProviderHealth)
                .where(
                    ProviderHealth.name == health.name,
                    ProviderHealth.project_id == health.project_id,
                    ProviderHealth.open_until == health.open_until,
                    sa.or_(ProviderHealth.project_id != ALL_PROJECTS, another_turn, lapsed, ~others_wait),
                )
                .values(open_until=now + soon, probe_project=project_id)
            )
        self._invalidate()
        return bool(won.rowcount)

    async def record_failure(self, name: str, project_id: str, *, unreachable: bool) -> None:
        """Count a failure: the provider answered a project with a server error or not at all, or could not be reached.
        May open the project's circuit, and that of all projects."""
        parameters = {
            "name": name,
            "project_id": project_id,
            "unreachable": unreachable,
            "circuits": [ALL_PROJECTS] if unreachable else [ALL_PROJECTS, project_id],
            "now": self._clock(),
        }
        async with self._db.reading() as connection:
            failed = (await connection.execute(_FAILED, parameters)).all()
        for row in failed:
            if row.open_until is not None:
                log.warning(
                    "circuit open",
                    provider=name,
                    project=row.project_id or "all",
                    failures=row.failures,
                    until=row.open_until.isoformat(),
                )
        self._invalidate()

    async def record_success(self, name: str, project_id: str) -> None:
        """Close the circuit of the project and that of all projects, and reset their counts. After an outage of the
        provider the other projects' are closed, too. Writes only after failures."""
        await self._read()
        common, own = (self._known.get((name, circuit)) for circuit in (ALL_PROJECTS, project_id))
        if common is None and own is None:
            return
        closed = sa.delete(ProviderHealth).where(ProviderHealth.name == name)
        if common is None or common.open_until is None:
            closed = closed.where(ProviderHealth.project_id.in_((ALL_PROJECTS, project_id)))
        async with self._db.reading() as connection:
            await connection.execute(closed)
        log.info("circuit closed", provider=name, project=project_id)
        self._invalidate()

    async def _read(self) -> None:
        now = time.monotonic()
        if now >= self._read_at + CACHE_S:
            async with self._db.reading() as connection:
                known = await rows.all_of(ProviderHealth, connection, rows.select(ProviderHealth))
            self._known = {(health.name, health.project_id): health for health in known}
            self._read_at = now

    def _invalidate(self) -> None:
        self._read_at = float("-inf")


async def list_circuits(connection: AsyncConnection) -> list[ProviderHealth]:
    """Read the circuits that have failures, those of all projects first; at most `MAX_LISTED`."""
    query = rows.select(ProviderHealth).order_by(ProviderHealth.project_id, ProviderHealth.name).limit(MAX_LISTED)
    return await rows.all_of(ProviderHealth, connection, query)


async def release(session: AsyncSession, actor: Actor, name: str, *, now: datetime) -> int:
    """Close all circuits of a provider and reset their counts, in every process within `CACHE_S`; then jobs that wait
    for the end of a pause are due. Returns the number of circuits that were open or counting."""
    closed = len(
        (
            await session.scalars(
                sa.delete(ProviderHealth).where(ProviderHealth.name == name).returning(ProviderHealth.project_id)
            )
        ).all()
    )
    if closed:
        due_at = now + timedelta(
            seconds=2 * CACHE_S
        )  # a process that still sees an open circuit would pause them again
        await session.execute(_MAKE_DUE, {"name": name, "due_at": due_at})
        await audit.record(session, actor, "breaker.release", name, before={"circuits": closed}, now=now)
        log.warning("circuits closed by the operator", provider=name, circuits=closed)
    return closed
