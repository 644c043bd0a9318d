"""Budgets and balances of keys and projects, and the remaining amounts."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.accounts.ledger import (
    day_of,
)
from app.db.models import Key, LedgerEntry, Meter, Project
from app.video import Billing, Entry

ALL_TIME = date(1, 1, 1)
"""Value of `Meter.month` for a balance."""


async def limit_key(session: AsyncSession, key: Key, budget_micros: int | None, *, now: datetime) -> None:
    """Set the monthly budget of a key; past spending of the month counts. None: no limit."""
    key.monthly_budget_micros = budget_micros
    if budget_micros is not None:
        await _start_meters(session, LedgerEntry.key_id == key.id, key.id, prepaid=False, now=now)


async def limit_project(
    session: AsyncSession, project: Project, budget_micros: int | None, billing: Billing, *, now: datetime
) -> None:
    """Set billing and monthly budget of a project; past spending counts."""
    project.monthly_budget_micros, project.billing = budget_micros, billing
    if budget_micros is not None or billing is Billing.prepaid:
        which, scope = LedgerEntry.project_id == project.id, f"project:{project.id}"
        await _start_meters(session, which, scope, prepaid=billing is Billing.prepaid, now=now)


async def _start_meters(
    session: AsyncSession, which: sa.ColumnElement[bool], scope: str, *, prepaid: bool, now: datetime
) -> None:
    """Set the meters of a new limit to the sums in the ledger. The ledger is locked for other writers until this
    transaction ends, so that no entry is missed between the sum and the triggers."""
    await session.flush()
    await session.execute(sa.text("lock table ledger in share row exclusive mode"))
    # From the previous month on, since an entry may be written around midnight.
    since = (day_of(now).replace(day=1) - timedelta(days=1)).replace(day=1)
    month = sa.func.date_trunc("month", LedgerEntry.day).cast(sa.Date)
    spent = -sa.func.coalesce(sa.func.sum(LedgerEntry.amount_micros), 0)
    found = await session.execute(
        sa.select(month, spent).where(which, LedgerEntry.kind != Entry.credit, LedgerEntry.day >= since).group_by(month)
    )
    meters: dict[date, Any] = {row[0]: row[1] for row in found}
    if prepaid:
        meters[ALL_TIME] = await session.scalar(sa.select(spent).where(which))
    for counted, micros in meters.items():
        values = {"scope": scope, "month": counted, "spent_micros": int(micros or 0)}
        written = insert(Meter).values(values)
        await session.execute(
            written.on_conflict_do_update(
                index_elements=["scope", "month"], set_={"spent_micros": written.excluded.spent_micros}
            )
        )


_AVAILABLE = sa.text("""
select project.id, project.billing, balance.spent_micros as balance_spent,
  project.monthly_budget_micros as project_budget,
  coalesce(project_month.spent_micros, 0) as project_spent, keys.monthly_budget_micros as key_budget,
  coalesce(key_month.spent_micros, 0) as key_spent
from projects as project
left join keys on keys.id = :key_id
left join meters as balance on balance.scope = 'project:' || project.id and balance.month = '0001-01-01'
left join meters as project_month on project_month.scope = 'project:' || project.id
  and project_month.month = :month
left join meters as key_month on key_month.scope = keys.id and key_month.month = :month
where project.id = any(:project_ids)
""")


async def available(
    connection: AsyncConnection, project_ids: Sequence[str], *, key_id: str | None = None, now: datetime
) -> dict[str, tuple[Billing, int | None]]:
    """Billing and remaining micros of each project, by its tightest limit, including that of `key_id`; None: no
    limit."""
    parameters = {"project_ids": list(project_ids), "key_id": key_id, "month": day_of(now).replace(day=1)}
    found = await connection.execute(_AVAILABLE, parameters)
    defaults: dict[str, tuple[Billing, int | None]] = dict.fromkeys(project_ids, (Billing.postpaid, None))
    return defaults | {row["id"]: (Billing(row["billing"]), _left(row)) for row in found.mappings()}


def _left(row: sa.RowMapping) -> int | None:
    left = [
        row[f"{what}_budget"] - row[f"{what}_spent"] for what in ("project", "key") if row[f"{what}_budget"] is not None
    ]
    if row["billing"] == Billing.prepaid:
        left.append(-(row["balance_spent"] or 0))
    return min(left, default=None)


async def balances(connection: AsyncConnection, project_ids: Sequence[str]) -> dict[str, int]:
    """The balance of each prepaid project in micros; postpaid ones have none."""
    query = (
        sa.select(Project.id, -sa.func.coalesce(Meter.spent_micros, 0))
        .outerjoin(Meter, (Meter.scope == "project:" + Project.id) & (Meter.month == ALL_TIME))
        .where(Project.id.in_(project_ids), Project.billing == Billing.prepaid)
    )
    return dict((await connection.execute(query)).all())
