"""Projects and keys as the tables of accounts show them: what was spent, what is left, limits and state in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from app.accounts import budgets, key_uses, keys, projects
from app.accounts.key_uses import Use
from app.console.pages import format_usd
from app.db.models import Key, Project
from app.http.context import Gateway
from app.video import Billing

LISTED = 200
"""Projects and keys that a page shows of each."""


@dataclass(frozen=True)
class ProjectLine:
    """One project with its money."""

    row: Project
    use: Use
    left_micros: int | None
    """None: no limit."""
    balance_micros: int | None
    """None: it is postpaid."""
    keys: int
    """Those that are not revoked."""
    in_settings: bool
    """True for the project of a key of the settings."""


@dataclass(frozen=True)
class KeyLine:
    """One key, of the database or of the settings, with its use."""

    id: str
    name: str
    ends_in: str
    project_id: str
    project: str
    use: Use
    row: Key | None
    """None for a key of the settings."""
    now: datetime

    @property
    def budget_micros(self) -> int | None:
        return None if self.row is None else self.row.monthly_budget_micros

    @property
    def state(self) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.row is None:
            return "valid"
        if self.row.revoked_at is not None:
            return "revoked"
        return "expired" if self.row.expires_at is not None and self.row.expires_at <= self.now else "valid"

    @property
    def limits(self) -> list[str]:
        """The limits in words, without the budget, which is shown beside what was spent."""
        if self.row is None:
            return []
        found = [f"{self.row.requests_per_minute} requests a minute"] if self.row.requests_per_minute else []
        if self.row.concurrent_jobs:
            found.append(f"{self.row.concurrent_jobs} running")
        if self.row.max_cost_micros is not None:
            found.append(f"{format_usd(self.row.max_cost_micros)} a request")
        return [*found, f"models {', '.join(self.row.models)}"] if self.row.models else found


async def project_lines(
    connection: AsyncConnection, gateway: Gateway, found: Sequence[Project], *, now: datetime
) -> list[ProjectLine]:
    """Projects with their money and keys. `connection` is in a transaction."""
    project_ids = [project.id for project in found]
    left = await budgets.available(connection, project_ids, now=now)
    balances = await budgets.balances(connection, project_ids)
    uses = await key_uses.read_uses_of_projects(connection, project_ids, now=now)
    counts = await keys.count_keys(connection, project_ids)
    static = gateway.authenticator.static_projects
    return [
        ProjectLine(
            project,
            uses[project.id],
            left[project.id][1],
            balances.get(project.id) if project.billing is Billing.prepaid else None,
            counts.get(project.id, 0) + (project.id in static),
            project.id in static,
        )
        for project in found
    ]


async def key_lines(
    connection: AsyncConnection,
    gateway: Gateway,
    found: Sequence[Key],
    *,
    static: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    now: datetime,
) -> list[KeyLine]:
    """Keys with their use, those of the settings in front, which have the ids of their projects. `names` are those of
    their projects if they are known. `connection` is in a transaction."""
    uses = await key_uses.read_uses(connection, [*static, *(key.id for key in found)], now=now)
    if names is None:
        names = await projects.names_of(connection, {*static, *(key.project_id for key in found)})
    authenticator = gateway.authenticator
    from_settings = [
        KeyLine(
            key_id,
            authenticator.static_projects[key_id] or "without a name",
            authenticator.static_hints[key_id],
            key_id,
            names.get(key_id, key_id),
            uses[key_id],
            None,
            now,
        )
        for key_id in static
    ]
    return from_settings + [
        KeyLine(key.id, key.name, key.hint, key.project_id, names[key.project_id], uses[key.id], key, now)
        for key in found
    ]


def static_keys(gateway: Gateway, *, text: str = "", project_id: str | None = None) -> list[str]:
    """The keys of the settings that have the text in their name, id or end."""
    authenticator, wanted = gateway.authenticator, text.lower()
    return [
        key_id
        for key_id, name in authenticator.static_projects.items()
        if project_id in (None, key_id)
        and any(wanted in part.lower() for part in (name or "", key_id, authenticator.static_hints[key_id]))
    ]
