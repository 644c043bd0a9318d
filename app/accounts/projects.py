"""Projects: the tenants that keys, videos, webhooks and money belong to."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import errors, ids
from app.accounts import audit
from app.accounts.audit import Actor
from app.accounts.budgets import limit_project
from app.db import rows
from app.db.models import Key, Project
from app.providers import KIND_NAMES
from app.video import Billing

MAX_NAME_CHARACTERS = 100


@dataclass(frozen=True)
class ProjectChanges:
    """Changes to a project; `...` leaves a field unchanged, None removes a limit."""

    name: Any = ...
    billing: Any = ...
    monthly_budget_micros: Any = ...
    kinds: Any = ...


def checked_name(param: str, value: str) -> str:
    """Return the name stripped. Raises `InvalidRequest` for an empty, too long or unprintable one."""
    value = value.strip()
    if not value or len(value) > MAX_NAME_CHARACTERS or not value.isprintable():
        raise errors.InvalidRequest(
            f"a {param} is 1 to {MAX_NAME_CHARACTERS} printable characters", param=param, code="invalid_value"
        )
    return value


def checked_kinds(kinds: Sequence[str] | None) -> list[str] | None:
    """Return kinds of providers without repetitions. Raises `InvalidRequest` for an unknown one or an empty list."""
    if kinds is None:
        return None
    unknown = [kind for kind in kinds if kind not in KIND_NAMES]
    if unknown or not kinds:
        wrong = f"; {unknown[0]!r:.80} is none" if unknown else ""
        raise errors.InvalidRequest(
            f"kinds: expected one or more of {', '.join(KIND_NAMES)}{wrong}", param="kinds", code="invalid_value"
        )
    return list(dict.fromkeys(kinds))


async def create_project(session: AsyncSession, changes: ProjectChanges, *, actor: Actor, now: datetime) -> Project:
    """Create a project with a name and what else is given, by default a postpaid one without limits. Raises
    `InvalidRequest`."""
    name = checked_name("name", changes.name)
    project = Project(id=ids.new("proj"), name=name, billing=Billing.postpaid, created_at=now)
    session.add(project)
    await _apply(session, project, changes, now)
    await audit.created(session, actor, project, now=now)
    return project


async def change_project(
    session: AsyncSession, project_id: str, changes: ProjectChanges, *, actor: Actor, now: datetime
) -> Project:
    """Change a project, found as by `get_project`. Raises `NotFound`, `InvalidRequest`."""
    project = await get_project(session, project_id)
    async with audit.changing(session, actor, project, now=now):
        await _apply(session, project, changes, now)
    return project


async def _apply(session: AsyncSession, project: Project, changes: ProjectChanges, now: datetime) -> None:
    if changes.name is not ...:
        project.name = checked_name("name", changes.name)
    if changes.kinds is not ...:
        project.kinds = checked_kinds(changes.kinds)
    await session.flush()
    if changes.billing is not ... or changes.monthly_budget_micros is not ...:
        billing = project.billing if changes.billing is ... else changes.billing
        budget = changes.monthly_budget_micros
        budget = project.monthly_budget_micros if budget is ... else budget
        await limit_project(session, project, budget, billing, now=now)


async def get_project(session: AsyncSession, project_id: str) -> Project:
    """Read and lock a project by its id, or by its name if that is unique. Raises `NotFound`."""
    query = sa.select(Project).with_for_update()
    named: Sequence[Project] = []
    if project_id.isprintable():  # ids and names are printable; PostgreSQL rejects a NUL
        found = (await session.scalars(query.where(Project.id == project_id))).one_or_none()
        named = [found] if found else (await session.scalars(query.where(Project.name == project_id).limit(2))).all()
    if len(named) != 1:
        how_many = "several projects have" if named else "no project has"
        raise errors.NotFound(
            f"{how_many} the id or name {project_id!r:.120}; see `video-gateway projects list`, or make one with "
            "`video-gateway projects create NAME`",
            param="project",
        )
    return named[0]


async def name_of(connection: AsyncConnection, project_id: str) -> str:
    """The name of a project; its id if there is none."""
    found: str | None = await connection.scalar(sa.select(Project.name).where(Project.id == project_id))
    return found or project_id


async def project_and_key(connection: AsyncConnection, project_id: str, key_id: str) -> tuple[str, str]:
    """The names of a project and of a key, each with its id where there is none."""
    project = sa.select(Project.name).where(Project.id == project_id).scalar_subquery()
    key = sa.select(Key.name).where(Key.id == key_id).scalar_subquery()
    row = (await connection.execute(sa.select(project, key))).one()
    return row[0] or project_id, row[1] or key_id


async def list_projects(connection: AsyncConnection) -> list[Project]:
    return await rows.all_of(Project, connection, rows.select(Project).order_by(Project.created_at, Project.id))


async def find_projects(connection: AsyncConnection, *, text: str = "", limit: int) -> list[Project]:
    """Read projects whose name or id has the text in it, by their names."""
    query = rows.select(Project).order_by(sa.func.lower(Project.name), Project.id).limit(limit)
    if text:
        query = query.where(sa.or_(*(c.icontains(text, autoescape=True) for c in (Project.name, Project.id))))
    return await rows.all_of(Project, connection, query)


async def names_of(connection: AsyncConnection, project_ids: Collection[str]) -> dict[str, str]:
    """The names of projects by their ids."""
    query = sa.select(Project.id, Project.name).where(Project.id.in_(project_ids))
    return dict((await connection.execute(query)).all())


async def require_free_name(session: AsyncSession, name: str, *, but: str | None = None) -> None:
    """Require that no project, but the one with this id, has a name. The API does not: it addresses projects by their
    ids. Raises `Conflict`."""
    others = sa.select(Project.id).where(Project.name == name.strip())
    if await session.scalar((others if but is None else others.where(Project.id != but)).limit(1)) is not None:
        raise errors.Conflict(f"another project is called {name.strip()!r:.120}", param="name")


async def ensure_projects(session: AsyncSession, named: Mapping[str, str | None], *, now: datetime) -> None:
    """Create missing projects of the keys in the settings, and give them the names that they have there."""
    for project_id, name in named.items():
        values = {"id": project_id, "name": name or project_id, "billing": Billing.postpaid, "created_at": now}
        row = insert(Project).values(values)
        rename = row.on_conflict_do_update(index_elements=["id"], set_={"name": name}, where=Project.name != name)
        await session.execute(row.on_conflict_do_nothing() if name is None else rename)
