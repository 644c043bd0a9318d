"""Repairs for the operator: submits whose outcome is unknown, finished tasks without a file, and the decisions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app import errors
from app.accounts import pricing
from app.admin.repairs import Repair, decide, repair_objects
from app.console.guard import ConsoleRoute, OperatorDep, form_of
from app.console.pages import Values, go, render
from app.http.body import validated
from app.http.context import Gateway, GatewayDep

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

SHOWN = 50
"""Repairs of each kind on the page; more follow when these are decided."""
MAX_BODY_CHARACTERS = 500
"""Length up to which the vendor's words are shown."""
FIELDS = ("action", "upstream_ref", "url")


@dataclass(frozen=True)
class Line:
    """One repair of the page; `found` is its document in the administration API."""

    found: Mapping[str, Any]
    now: datetime

    @property
    def held_micros(self) -> int | None:
        held = self.found["held_usd"]
        return None if held is None else pricing.micros_of(held)

    @property
    def left_s(self) -> float | None:
        """Seconds until the money comes back by itself."""
        at = self.found["given_back_at"]
        return None if at is None else max(0.0, (datetime.fromisoformat(at) - self.now).total_seconds())


@dataclass(frozen=True)
class Tried:
    """A decision that was refused: its repair, what was typed, and the reason."""

    attempt_id: str
    given: Mapping[str, str]
    problem: errors.GatewayError

    def is_of(self, found: Mapping[str, Any]) -> bool:
        """True if a repair of the page has the form that was sent."""
        return found["id"] == self.attempt_id and self.given.get("action") in found["actions"]


@routes.get("/console/repairs")
async def show_repairs(request: Request, gateway: GatewayDep, operator: OperatorDep, ask: str = "") -> Response:
    """Show what waits for a decision, oldest first; the vendor of the submit `ask` is asked for its tasks."""
    return await _page(request, gateway, asked=ask)


@routes.get("/console/repairs/{attempt_id}")
async def lead_to_repairs(attempt_id: str, request: Request, operator: OperatorDep) -> Response:
    """Lead to the list: the answer to a form has this address, which browsers open again."""
    return go(request, "repairs")


@routes.post("/console/repairs/{attempt_id}")
async def decide_one(attempt_id: str, request: Request, gateway: GatewayDep, operator: OperatorDep) -> Response:
    """Carry out a decision; one that is refused is shown with the reason, and nothing has changed."""
    form = await form_of(request)
    given = {name: form[name].strip() for name in FIELDS if form.get(name, "").strip()}
    try:
        wire = validated(Repair, given)
        await decide(gateway, operator, attempt_id, wire)
    except errors.GatewayError as problem:
        return await _page(request, gateway, tried=Tried(attempt_id, given, problem))
    return go(request, "repairs", f"repair_{wire.action}")


async def _page(request: Request, gateway: Gateway, *, asked: str = "", tried: Tried | None = None) -> Response:
    found = await repair_objects(gateway, candidates=asked)
    now = gateway.clock()
    lines = [Line(one, now) for one in found]
    undecided = [line for line in lines if line.found["reason"] == "unknown_outcome"]
    without_file = [line for line in lines if line.found["reason"] == "no_file"]
    shown = [line.found for part in (undecided, without_file) for line in part[:SHOWN]]
    return await render(
        request,
        "repairs.html",
        status=tried.problem.status_code if tried is not None else 200,
        undecided=undecided[:SHOWN],
        more_undecided=max(0, len(undecided) - SHOWN),
        without_file=without_file[:SHOWN],
        more_without_file=max(0, len(without_file) - SHOWN),
        asked=asked,
        tried=tried,
        given=Values(tried.given if tried is not None else {}),
        is_shown=tried is not None and any(tried.is_of(one) for one in shown),
        body_characters=MAX_BODY_CHARACTERS,
    )
