"""The models that a key may use: what each can do, who serves it, and at what price."""

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.accounts import pricing
from app.capabilities import Capabilities, union_of
from app.console.guard import ConsoleRoute, KeyHolderDep
from app.console.pages import format_usd, render
from app.http.context import Gateway, GatewayDep
from app.providers.routing import Route
from app.video import VideoRequest

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

INPUTS = {
    "first_frame": "first frame",
    "last_frame": "last frame",
    "reference_images": "reference pictures",
    "reference_video": "reference video",
    "generate_audio": "sound",
}


@dataclass(frozen=True)
class Line:
    """One route of a model in the table."""

    route: str
    seconds: str
    sizes: str
    inputs: str
    price: str
    usual_s: float | None


@routes.get("/console/models")
async def show_models(request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Show the models with their routes, the cheapest known price first."""
    found = gateway.router.permitted_models(caller.may_use, every=False)
    models = {name: [_line(gateway, route) for route in candidates] for name, candidates in found.items()}
    unions = {name: union_of([route.capabilities for route in candidates]) for name, candidates in found.items()}
    operations = {name: sorted(str(one) for one in able.operations) for name, able in unions.items()}
    return await render(request, "models.html", models=models, operations=operations)


def _line(gateway: Gateway, route: Route) -> Line:
    able = route.capabilities
    prices = pricing.prices_of(gateway.settings, route)
    time = gateway.durations.times([route], VideoRequest(prompt="", model="")).get(route.name)
    return Line(
        route.name,
        _seconds(able),
        ", ".join(able.sizes or able.resolutions or ()) or "the vendor decides",
        ", ".join(words for name, words in INPUTS.items() if name in able.parameters),
        "; ".join(f"{format_usd(micros)}{f' at {name}' if name else ''}" for name, micros in prices.items()) or "-",
        None if time is None else time.median_s,
    )


def _seconds(able: Capabilities) -> str:
    if able.seconds is None:
        return "the vendor decides"
    if able.seconds_range:
        return f"{able.seconds[0]:g} to {able.seconds[1]:g}"
    return ", ".join(f"{length:g}" for length in able.seconds)
