"""Providers for the operator: the state of each in words, its queue and figures; a check, and the end of a pause."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app import errors
from app.admin.providers import check_by_operator, provider_objects, release_by_operator
from app.console.guard import ConsoleRoute, OperatorDep
from app.console.pages import go, render
from app.http.context import Gateway, GatewayDep

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

CODES_SHOWN = 5
MAX_BODY_CHARACTERS = 500
"""Length up to which the vendor's words are shown."""
HOUR_WIDTH, BAR_HEIGHT = 10, 36
"""Size of the picture of the last day, in its own units."""
RESTING = ("open", "half_open")


@dataclass(frozen=True)
class Hour:
    """One hour of the last day: its numbers, and the heights of its bars."""

    start: datetime
    left: int
    submits: int
    failures: int
    submits_height: float
    failures_height: float


@dataclass(frozen=True)
class ProviderCard:
    """A provider as its card shows it; `found` is its document in the administration API."""

    found: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.found["name"])

    @property
    def circuits(self) -> list[Mapping[str, Any]]:
        """The circuits of single projects."""
        return list(self.found["breaker"]["projects"])

    @property
    def resting(self) -> list[Mapping[str, Any]]:
        """The circuits that hold submits back: that of all projects, and those of single ones, with their `project`."""
        return [one for one in (self.found["breaker"], *self.circuits) if one["state"] in RESTING]

    @property
    def state(self) -> str:
        """`gone`, `rests`, `tried`, `rests_for_some`, `fails`, `unused` or `answers`."""
        if not self.found["configured"]:
            return "gone"
        common = self.found["breaker"]["state"]
        if common in RESTING:
            return "rests" if common == "open" else "tried"
        if any(one["state"] == "open" for one in self.circuits):
            return "rests_for_some"
        if self.resting:
            return "tried"
        if self.found["breaker"]["failures"]:
            return "fails"
        return "answers" if self.is_used else "unused"

    @property
    def is_used(self) -> bool:
        """True when anything was submitted in the last 24 hours, has failed there, or is under way."""
        return bool(self.found["under_way"] or self.found["storing"] or any(self.totals))

    @property
    def totals(self) -> tuple[int, int]:
        """Submits and failures of the last 24 hours."""
        hours = self.found["hours"]
        return sum(one["submits"] for one in hours), sum(one["failures"] for one in hours)

    @property
    def hours(self) -> list[Hour]:
        """The last 24 hours, oldest first."""
        given = self.found["hours"]
        most = max(1, *(max(one["submits"], one["failures"]) for one in given))
        return [
            Hour(
                datetime.fromisoformat(one["start"]),
                number * HOUR_WIDTH,
                one["submits"],
                one["failures"],
                _height(one["submits"], most),
                _height(one["failures"], most),
            )
            for number, one in enumerate(given)
        ]

    @property
    def success(self) -> str:
        """The share of successes of the last hour; empty if nothing has ended."""
        rate = self.found["last_hour"]["success_rate"]
        return "" if rate is None else f"{rate:.1%}".replace("%", " %")


@routes.get("/console/providers")
async def show_providers(request: Request, gateway: GatewayDep, operator: OperatorDep) -> Response:
    """Show a card for each provider; for a page that is open, the cards alone."""
    return await _page(request, gateway)


@routes.get("/console/providers/{name}/close")
async def confirm_close(name: str, request: Request, gateway: GatewayDep, operator: OperatorDep) -> Response:
    """Ask before the circuits of a provider are closed."""
    cards, _ = await cards_of(gateway)
    card = next((card for card in cards if card.name == name), None)
    if card is None:
        raise errors.NotFound("there is no such provider")
    return await render(request, "provider_close.html", card=card)


@routes.post("/console/providers/{name}/close")
async def close(name: str, request: Request, gateway: GatewayDep, operator: OperatorDep) -> Response:
    """Close the circuits of a provider, so that waiting jobs are submitted."""
    closed = await release_by_operator(gateway, operator, name)
    return go(request, "providers", "circuits_closed" if closed else "circuits_were_closed")


@routes.post("/console/providers/{name}/check")
async def check(name: str, request: Request, gateway: GatewayDep, operator: OperatorDep) -> Response:
    """Reach a provider by a free call, and show its answer: on the page, or for a page that is open alone."""
    checked = await check_by_operator(gateway, name)
    if "hx-request" in request.headers:
        return await render(request, "_provider_check.html", checked=checked)
    return await _page(request, gateway, checked=checked)


async def cards_of(gateway: Gateway) -> tuple[list[ProviderCard], bool]:
    """The cards of all providers; the second value is False when there were more attempts than are counted."""
    found, complete = await provider_objects(gateway)
    return [ProviderCard(one) for one in found], complete


async def _page(request: Request, gateway: Gateway, checked: Mapping[str, Any] | None = None) -> Response:
    cards, complete = await cards_of(gateway)
    return await render(
        request,
        "_providers.html" if "hx-request" in request.headers else "providers.html",
        cards=cards,
        complete=complete,
        checked=checked,
        now=gateway.clock(),
        codes_shown=CODES_SHOWN,
        body_characters=MAX_BODY_CHARACTERS,
        bar_height=BAR_HEIGHT,
        width=HOUR_WIDTH * 24,
    )


def _height(count: int, most: int) -> float:
    """Height of a bar; a single one among thousands is still seen."""
    return round(max(2, BAR_HEIGHT * count / most), 1) if count else 0
