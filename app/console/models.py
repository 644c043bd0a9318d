"""The models: what each can do, who serves it, at what price, side by side; and one model with all its routes."""

from collections.abc import Mapping, Sequence

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app import errors
from app.accounts import pricing
from app.capabilities import Capabilities
from app.console.guard import ConsoleRoute, Visitor, VisitorDep
from app.console.model_facts import INPUTS, MEDIA, able_of, line_of, route_line
from app.console.pages import Values, render
from app.http.context import Gateway, GatewayDep
from app.providers.routing import Route
from app.video import Operation

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

FILTERS = {
    **{name: INPUTS[name] for name in MEDIA},
    "extend": "extend",
    "remix": "remix",
    "edit": "edit",
}
"""Abilities that the list can be narrowed to, in words."""


@routes.get("/console/models")
async def show_models(request: Request, gateway: GatewayDep, visitor: VisitorDep) -> Response:
    """Show the models with their routes, as narrowed by the filters in the address."""
    query = request.query_params
    can = [name for name in query.getlist("can") if name]
    highest, problem = _highest(query.get("max_price", ""))
    if unknown := set(can) - FILTERS.keys():
        problem = f"can: {min(unknown)[:80]!r} is none of {', '.join(FILTERS)}"
    every = _models_of(gateway, visitor)
    text = query.get("q", "").strip().lower()
    found = {} if problem else {name: _kept(gateway, routes, can, highest) for name, routes in every.items()}
    found = {name: kept for name, kept in found.items() if kept and text in name.lower()}
    return await render(
        request,
        "models.html",
        status=400 if problem else 200,
        models={name: [route_line(gateway, route) for route in kept] for name, kept in found.items()},
        operations={name: _operations(able_of(kept)) for name, kept in found.items()},
        filters=FILTERS,
        can=can,
        given=Values(query),
        problem=problem,
        has_any=bool(every),
    )


@routes.get("/console/models/{name:path}")
async def show_model(name: str, request: Request, gateway: GatewayDep, visitor: VisitorDep) -> Response:
    """Show one model: its abilities, and its routes in order."""
    candidates = _models_of(gateway, visitor, every=True).get(name)
    if not candidates:
        raise errors.NotFound(f"no model of yours is called {name[:100]!r}; the page Models lists them")
    alias = gateway.router.aliases.get(name)
    catalogued = gateway.router.catalogued(name)
    row = gateway.router.catalogue.models[catalogued] if catalogued is not None else None
    return await render(
        request,
        "model.html",
        name=name,
        title=row.title if row is not None else None,
        facts=line_of(gateway, name, candidates),
        lines=[(route, route_line(gateway, route)) for route in candidates],
        abilities=_abilities(candidates),
        alias=alias,
        operations=_operations(able_of(candidates)),
    )


def _models_of(gateway: Gateway, visitor: Visitor, *, every: bool = False) -> Mapping[str, Sequence[Route]]:
    if visitor.caller is None:
        return gateway.router.models(every=every)
    return gateway.router.permitted_models(visitor.caller.may_use, every=every)


def _highest(text: str) -> tuple[int | None, str]:
    """The highest price per second in micros, and the problem of what was typed."""
    if not text.strip():
        return None, ""
    try:
        micros = pricing.micros_of(float(text))
    except (ValueError, ArithmeticError):
        return None, "max_price: expected US dollars, such as 0.2"
    return (micros, "") if micros >= 0 else (None, "max_price: expected 0 or more")


def _kept(gateway: Gateway, candidates: Sequence[Route], can: Sequence[str], highest: int | None) -> list[Route]:
    def fits(route: Route) -> bool:
        able = {*route.capabilities.parameters, *route.capabilities.operations}
        prices = pricing.prices_of(gateway.settings, route).values()
        return able >= set(can) and (highest is None or any(price <= highest for price in prices))

    return [route for route in candidates if fits(route)]


def _operations(able: Capabilities) -> list[str]:
    return [str(operation) for operation in Operation if operation in able.operations]


def _abilities(candidates: Sequence[Route]) -> list[tuple[str, list[str]]]:
    """Each parameter and operation in words, with yes, no or required for each route."""
    rows = [
        (
            words,
            [
                "required" if name in able.required else "yes" if name in able.parameters else "no"
                for able in (route.capabilities for route in candidates)
            ],
        )
        for name, words in INPUTS.items()
    ]
    rows += [
        (str(operation), ["yes" if operation in route.capabilities.operations else "no" for route in candidates])
        for operation in Operation
    ]
    passes = ["yes" if route.capabilities.passes_extra else "no" for route in candidates]
    return [*rows, ("fields that are not known here", passes)]
