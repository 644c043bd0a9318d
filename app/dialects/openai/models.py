"""The model list in OpenAI's shape: what can be asked for, who serves it, and at what price."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import Query
from fastapi.responses import JSONResponse, Response

from app import errors
from app.accounts import pricing
from app.capabilities import OPTIONAL_PARAMETERS, Capabilities, union_of, with_defaults
from app.dialects.openai import model_schemas as schemas
from app.dialects.openai.router import AliasedRouter
from app.http.context import CallerDep, Gateway, GatewayDep
from app.http.openapi import returns
from app.providers.routing import Route, permitted_only
from app.video import VideoRequest

routes = AliasedRouter(tags=["models"])

CAN = {"audio": "generate_audio", "references": "reference_images"}
"""Short names of parameters in the filter `can`."""


@routes.get("/v1/models", responses=returns(schemas.ModelList))
async def list_models(
    gateway: GatewayDep,
    caller: CallerDep,
    every: Annotated[
        bool, Query(alias="all", description="True: also every provider/model that a listed model covers.")
    ] = False,
    can: Annotated[
        str, Query(max_length=300, description="Parameters that a model must have, such as `first_frame,audio`.")
    ] = "",
    max_price: Annotated[
        float | None, Query(ge=0, description="Highest price in US dollars per second of one of its routes.")
    ] = None,
) -> Response:
    """List the models that this key may use: aliases, models of the catalogue, and other models of the providers."""
    wanted = _parameters_of(can)
    usable = gateway.router.permitted_models(caller.may_use, every=every)
    data = [
        render_model(name, found, gateway)
        for name, candidates in usable.items()
        if (found := [route for route in candidates if _fits(gateway, route, wanted, max_price)])
    ]
    return JSONResponse({"object": "list", "data": data})


@routes.get("/v1/models/{model:path}", responses=returns(schemas.Model))
async def retrieve_model(model: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Read a model's capabilities and its price per second."""
    allowed = permitted_only(gateway.router.routes(model), partial(caller.may_use, model), model)
    return JSONResponse(render_model(model, allowed, gateway))


def _parameters_of(can: str) -> set[str]:
    """The parameters named in the filter `can`. Raises `InvalidRequest`."""
    names = {CAN.get(name.strip(), name.strip()) for name in can.split(",") if name.strip()}
    if unknown := names - {*OPTIONAL_PARAMETERS}:
        known = ", ".join((*OPTIONAL_PARAMETERS, *CAN))
        raise errors.InvalidRequest(f"can: {min(unknown)!r:.80} is none of {known}", param="can")
    return names


def _fits(gateway: Gateway, route: Route, parameters: set[str], max_price: float | None) -> bool:
    prices = pricing.prices_of(gateway.settings, route).values()
    cheap = max_price is None or any(price <= max_price * pricing.MICROS for price in prices)
    return cheap and parameters <= route.capabilities.parameters


def render_model(name: str, candidates: Sequence[Route], gateway: Gateway) -> dict[str, Any]:
    """A model in OpenAI's shape, with what any of its routes can do, the price of the one asked first
    for the model's defaults, and all routes with theirs."""
    catalogued = gateway.router.catalogued(name)
    row = gateway.router.catalogue.models[catalogued] if catalogued is not None else None
    default = row.default if row is not None else {}
    first = candidates[0] if row is None else _cheapest(candidates, gateway, default)
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": first.provider.name,
        "title": row.title if row is not None else None,
        "status": row.status if row is not None else None,
        "routes": [route.name for route in candidates],
        "capabilities": render_capabilities(union_of([route.capabilities for route in candidates])),
        "pricing": _pricing(gateway, first),
        "served_by": [_served_by(route, gateway, default) for route in candidates],
    }


def _cheapest(candidates: Sequence[Route], gateway: Gateway, default: Mapping[Any, Any]) -> Route:
    """The route with the lowest known price for the defaults of a model, else the first."""
    request = VideoRequest(prompt="", model="", **default)
    found = [(pricing.estimate(gateway.settings, route, request), route) for route in candidates]
    priced = [(estimate.micros, number) for number, (estimate, _) in enumerate(found) if estimate is not None]
    return candidates[min(priced)[1]] if priced else candidates[0]


def _served_by(route: Route, gateway: Gateway, default: Mapping[Any, Any]) -> dict[str, Any]:
    request = with_defaults(VideoRequest(prompt="", model="", **default), route.capabilities)
    time = gateway.durations.times([route], request).get(route.name)
    return {
        "route": route.name,
        "capabilities": render_capabilities(route.capabilities),
        "pricing": _pricing(gateway, route),
        "median_seconds": time and round(time.median_s, 1),
        "tried_live": route.provider.tried.isoformat() if route.provider.tried is not None else None,
    }


def _pricing(gateway: Gateway, route: Route) -> dict[str, Any] | None:
    per_second = pricing.prices_of(gateway.settings, route)
    if not per_second:
        return None
    prices = {resolution or "any": pricing.dollars(micros) for resolution, micros in per_second.items()}
    return {"currency": "USD", "per_second": prices}


def render_capabilities(able: Capabilities) -> dict[str, Any]:
    """Capabilities as JSON. Null means unknown: the upstream decides. An empty list means: no such parameter."""
    seconds: Any = able.seconds
    if able.seconds is not None and able.seconds_range:
        seconds = {"minimum": able.seconds[0], "maximum": able.seconds[1], "whole": able.whole_seconds}
    return {
        "seconds": seconds,
        "default_seconds": able.default_seconds,
        "sizes": able.sizes,
        "aspect_ratios": able.aspect_ratios,
        "resolutions": able.resolutions,
        "parameters": sorted(able.parameters),
        "media": sorted(able.media),
        "operations": sorted(able.operations),
        "n": {"minimum": 1, "maximum": 4},
        "passes_unknown_fields": able.passes_extra,
    }
