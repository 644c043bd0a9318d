"""The key that asks: its project and limits, and the usage of its project."""

from fastapi.responses import Response

from app.accounts import budgets, ledger, pricing
from app.accounts.auth import Caller
from app.accounts.reports import OWN, VENDORS, dimensions_of, report, span_of
from app.db import rows
from app.db.models import Key, Project
from app.dialects.openai import account_schemas as schemas
from app.dialects.openai.router import AliasedRouter
from app.http.context import CallerDep, Gateway, GatewayDep
from app.http.openapi import returns
from app.http.parameters import KnownParameters
from app.http.responses import no_store
from app.http.usage import By, Format, Since, Until, usage_response

routes = AliasedRouter(tags=["account"])


@routes.get("/v1/me", responses=returns(schemas.Me))
async def show_me(gateway: GatewayDep, caller: CallerDep) -> Response:
    """Read the project and the key of this request, their limits, and the amount that may still be spent."""
    async with gateway.db.reading() as connection:
        project = await rows.one_of(Project, connection, rows.select(Project).where(Project.id == caller.project_id))
        key = await rows.one_of(Key, connection, rows.select(Key).where(Key.id == caller.key_id))
        available = await budgets.available(connection, [caller.project_id], key_id=caller.key_id, now=gateway.clock())
    billing, left = available[caller.project_id]
    name = project.name if project is not None else caller.project_id
    return no_store(
        {
            "object": "me",
            "project": {
                "id": caller.project_id,
                "name": name,
                "billing": str(billing),
                "kinds": project.kinds if project is not None else None,
            },
            "key": _static_key(gateway, caller, name) if key is None else _key(key),
            "available_usd": pricing.dollars(left),
        }
    )


def _key(key: Key) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "ends_in": key.hint,
        "models": key.models,
        "requests_per_minute": key.requests_per_minute,
        "concurrent_jobs": key.concurrent_jobs,
        "monthly_budget_usd": pricing.dollars(key.monthly_budget_micros),
        "max_cost_usd": pricing.dollars(key.max_cost_micros),
        "expires_at": None if key.expires_at is None else int(key.expires_at.timestamp()),
    }


def _static_key(gateway: Gateway, caller: Caller, name: str) -> dict[str, object]:
    """A key of the settings, which has no limits of its own."""
    limits = ("models", "requests_per_minute", "concurrent_jobs", "monthly_budget_usd", "max_cost_usd", "expires_at")
    hint = gateway.authenticator.static_hints.get(caller.key_id, "")
    return {"id": caller.key_id, "name": name, "ends_in": hint, **dict.fromkeys(limits)}


@routes.get(
    "/v1/usage",
    responses={200: {"model": schemas.OwnUsage, "content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def show_usage(
    gateway: GatewayDep,
    caller: CallerDep,
    _: KnownParameters,
    since: Since = None,
    until: Until = None,
    by: By = "day",
    form: Format = "json",
) -> Response:
    """Report usage of the key's own project from `since` to `until`, both included (UTC, default: the last 30 days),
    grouped `by` any of project, key, model, provider, app, user and day, comma-separated. `format=csv` returns a
    spreadsheet."""
    dimensions = dimensions_of(by)
    first, last = span_of(since, until, today=ledger.day_of(gateway.clock()))
    async with gateway.db.transaction() as session:
        connection = await session.connection()
        found = await report(connection, dimensions, since=first, until=last, project_id=caller.project_id, bounds=OWN)
    return await usage_response(dimensions, found, since=first, until=last, form=form, without=VENDORS)
