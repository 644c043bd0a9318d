"""The overview for the operator: what runs and what waits, the last day, and what needs a decision."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.accounts import pricing
from app.admin.installation import status_object
from app.admin.shown_settings import advice
from app.console.cards import COLUMNS
from app.console.guard import ConsoleRoute, OperatorDep
from app.console.pages import Frame, render
from app.console.providers import cards_of
from app.http.context import GatewayDep
from app.jobs import search
from app.jobs.filters import Filters, State
from app.jobs.search import Wanted

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

FAILURES_SHOWN = 8
MANY = 10
"""Rows of a list of troubles that are shown; more are counted."""


@routes.get("/console/overview")
async def show_overview(request: Request, gateway: GatewayDep, operator: OperatorDep) -> Response:
    """Show the state of the running gateway."""
    status = await status_object(gateway)
    cards, _ = await cards_of(gateway)
    failed = await search.find_page(gateway.db, Filters(None, states=(State.failed,)), Wanted(FAILURES_SHOWN), COLUMNS)
    return await render(
        request,
        "overview.html",
        frame=Frame(repairs=status["undecided_count"]),
        state=status,
        cards=cards,
        failed=failed.rows,
        warnings=list(advice(gateway.settings, gateway.providers)),
        now=gateway.clock(),
        under_way=sum(job["count"] for job in status["jobs"] if job["state"] != "pending"),
        oldest_s=max((job["oldest_s"] for job in status["jobs"] if job["state"] == "pending"), default=None),
        success=_success(status["last_24_h"]),
        spent_micros=pricing.micros_of(status["last_24_h"]["cost_usd"]),
        held_micros=pricing.micros_of(status["held_usd"]),
        many=MANY,
    )


def _success(day: Mapping[str, Any]) -> str:
    """The share of completed videos of those that were not cancelled; a dash for none."""
    ended = day["completed"] + day["failed"] - day["cancelled"]
    return f"{day['completed'] / ended:.1%}".replace("%", " %") if ended else "-"
