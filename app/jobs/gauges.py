"""Gauges of the whole gateway, read from its database: queue, circuits, money, webhooks, decisions that wait."""

import asyncio
import math
import time
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from app.accounts.ledger import day_of
from app.db.database import Database
from app.db.faults import is_unavailable
from app.db.models import LIVE
from app.jobs import presence, reconcile
from app.telemetry import metrics

READ_GAP_S = 5
"""Shortest interval between two readings of one process."""
READ_S = 3
"""Time limit of one reading: a scrape has ten seconds by default."""
MAX_BUDGETS = 300
"""Projects with a budget that are shown, those that have used most of it first."""

_FIGURES = sa.text(
    f"""
    with queue as (
      select provider, state, count(*) as count, extract(epoch from :now - min(due_at))::float8 as age_s from attempts
      where state in ({", ".join(repr(str(state)) for state in LIVE)}) group by provider, state
    ), held as (
      select attempts.provider, coalesce(sum(videos.hold_micros), 0)::float8 / 1000000 as usd
      from attempts join videos on videos.id = attempts.video_id
      where attempts.settlement = 'held' group by attempts.provider
    ), circuits as (
      select name, case project_id when '' then 'all' else 'project' end as scope, count(*) as count
      from provider_health where open_until > :now group by 1, 2
    ), budgets as (
      select projects.id, coalesce(meters.spent_micros, 0)::float8 / projects.monthly_budget_micros as ratio
      from projects left join meters on meters.scope = 'project:' || projects.id and meters.month = :month
      where projects.monthly_budget_micros > 0 order by ratio desc, projects.id limit :budgets
    )
    select
      (select jsonb_agg(jsonb_build_array(provider, state, count, age_s)) from queue) as queue,
      (select jsonb_agg(jsonb_build_array(provider, usd)) from held) as held,
      (select jsonb_agg(jsonb_build_array(name, scope, count)) from circuits) as circuits,
      (select jsonb_agg(jsonb_build_array(id, ratio)) from budgets) as budgets,
      (select count(*) from deliveries where state = 'pending') as webhooks,
      (select extract(epoch from :now - min(created_at))::float8 from deliveries where state = 'pending') as webhook_s,
      (select count(*) from webhook_endpoints where disabled_at is not null) as disabled,
      (select count(*) from workers
       where stopped_at is null and seen_at >= now() - make_interval(secs => :running_s)) as workers
    """  # noqa: S608  # our own names
).bindparams(budgets=MAX_BUDGETS, running_s=presence.RUNNING_S)


class Gauges:
    """Reads the shared gauges for one process, when its metrics are asked for."""

    def __init__(self, db: Database, providers: Collection[str], clock: Callable[[], datetime]) -> None:
        self._db = db
        self._providers = tuple(providers)
        self._clock = clock
        self.read_at = -math.inf

    async def refresh(self) -> None:
        """Read them, unless that was done a moment ago. While the database cannot be read there are none. Raises the
        errors of wrong statements."""
        if time.monotonic() - self.read_at < READ_GAP_S:
            return
        self.read_at = time.monotonic()  # before the query, so that concurrent requests do not repeat it
        now = self._clock()
        try:
            async with asyncio.timeout(READ_S), self._db.reading() as connection:
                parameters = {"now": now, "month": day_of(now).replace(day=1)}
                figures = (await connection.execute(_FIGURES, parameters)).one()
                repairs = await reconcile.count_undecided(connection)
        except Exception as error:
            metrics.forget_shared()
            if not isinstance(error, TimeoutError) and not is_unavailable(error):
                raise
            return
        self._show(figures)
        metrics.REPAIRS.show(repairs)

    def _show(self, figures: sa.Row[Any]) -> None:
        zeros: dict[tuple[str, ...], float] = {(name,): 0.0 for name in self._providers}
        queue = figures.queue or []
        ages = dict(zeros)
        for provider, _, _, age_s in queue:
            ages[provider,] = max(ages.get((provider,), 0.0), age_s)
        counts = {(name, str(state)): 0.0 for name in self._providers for state in LIVE}
        metrics.QUEUE.show(counts | {(provider, state): count for provider, state, count, _ in queue})
        metrics.PROVIDER_QUEUE_AGE.show(ages)
        metrics.QUEUE_AGE.show(max(ages.values(), default=0.0))
        circuits = {(name, scope): 0.0 for name in self._providers for scope in ("all", "project")}
        metrics.PROVIDER_OPEN.show(circuits | {(name, scope): count for name, scope, count in figures.circuits or []})
        metrics.HELD.show(zeros | {(provider,): usd for provider, usd in figures.held or []})
        metrics.BUDGET_USED.show({(project,): ratio for project, ratio in figures.budgets or []})
        metrics.WEBHOOKS_PENDING.show(figures.webhooks)
        metrics.WEBHOOK_AGE.show(max(0.0, figures.webhook_s or 0.0))
        metrics.ENDPOINTS_DISABLED.show(figures.disabled)
        metrics.WORKERS.show(figures.workers)
