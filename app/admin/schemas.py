"""Rendering of objects in the administration API, and parsing of its amounts and times."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Query
from pydantic import AwareDatetime, BeforeValidator

from app import errors, net
from app.accounts import budgets, key_uses, pricing
from app.db.models import Base, Key, Project
from app.db.rows import to_json
from app.http.body import reject_bool
from app.http.context import Gateway

Dollars = Annotated[float, BeforeValidator(reject_bool)]
Moment = AwareDatetime
"""ISO 8601 with an offset: without one, the time would depend on the machine's time zone."""


Given = Annotated[str | None, Query(pattern=r"^[^\x00]*$")]
"""An id in a query; PostgreSQL cannot even compare text with a NUL."""
GivenProject = Annotated[Given, Query(description="Only those of this project, by id or name.")]


def micros_or_refuse(amount: float, param: str) -> int:
    """Convert an amount to micros. Raises `InvalidRequest`."""
    try:
        return pricing.micros_of(amount)
    except (ValueError, ArithmeticError) as error:
        raise errors.InvalidRequest(f"{param}: {error}", param=param, code="invalid_value") from None


def amount_or_refuse(amount: float | None, param: str) -> int | None:
    """Convert a limit to micros, None for no limit. Raises `InvalidRequest`."""
    micros = None if amount is None else micros_or_refuse(amount, param)
    if micros is not None and micros < 0:
        raise errors.InvalidRequest(f"{param}: expected 0 or more", param=param)
    return micros


def listing(data: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": list(data)}


def row_json(row: Base, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """A row as JSON, column by column; `project_id` is called `project` throughout this API."""
    values = to_json(row, without=without)
    return {"project" if name == "project_id" else name: value for name, value in values.items()}


def redact(value: Any) -> Any:
    """Redact the URLs in a document: their queries often contain tokens."""
    match value:
        case dict():
            return {name: redact(inner) for name, inner in value.items()}
        case list():
            return [redact(inner) for inner in value]
        case str() if value.lower().startswith(("http://", "https://")):
            return net.redact_urls(value)
    return value


async def key_objects(gateway: Gateway, keys: Sequence[Key]) -> list[dict[str, Any]]:
    """Keys without their secrets, with their use."""
    async with gateway.db.transaction() as session:
        used = await key_uses.read_uses(await session.connection(), [key.id for key in keys], now=gateway.clock())
    return [_key_object(key, used[key.id]) for key in keys]


def new_key_object(key: Key) -> dict[str, Any]:
    """A key that was made a moment ago; nothing is read that might fail, since its secret is shown only once."""
    return _key_object(key, key_uses.UNUSED)


async def key_object(gateway: Gateway, key: Key) -> dict[str, Any]:
    return (await key_objects(gateway, [key]))[0]


def _key_object(key: Key, use: key_uses.Use) -> dict[str, Any]:
    return {
        "id": key.id,
        "object": "api_key",
        "name": key.name,
        "project": key.project_id,
        "ends_in": key.hint,
        "models": key.models,
        "requests_per_minute": key.requests_per_minute,
        "concurrent_jobs": key.concurrent_jobs,
        "monthly_budget_usd": pricing.dollars(key.monthly_budget_micros),
        "max_cost_usd": pricing.dollars(key.max_cost_micros),
        "expires_at": _moment(key.expires_at),
        "created_at": _moment(key.created_at),
        "revoked_at": _moment(key.revoked_at),
        "last_used_at": _moment(use.last_used_at),
        "spent_usd": pricing.dollars(use.spent_micros),
        "running": use.running,
    }


async def project_objects(gateway: Gateway, projects: Sequence[Project]) -> list[dict[str, Any]]:
    """Projects with the amount that each may still spend, null for no limit."""
    project_ids = [project.id for project in projects]
    async with gateway.db.reading() as connection:
        left = await budgets.available(connection, project_ids, now=gateway.clock())
    return [
        {
            "id": project.id,
            "object": "project",
            "name": project.name,
            "billing": str(project.billing),
            "monthly_budget_usd": pricing.dollars(project.monthly_budget_micros),
            "kinds": project.kinds,
            "available_usd": pricing.dollars(left[project.id][1]),
            "created_at": _moment(project.created_at),
        }
        for project in projects
    ]


async def project_object(gateway: Gateway, project: Project) -> dict[str, Any]:
    return (await project_objects(gateway, [project]))[0]


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()
