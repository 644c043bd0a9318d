"""Choice among the routes of a request: by the strategy that the client, the alias or the catalogue names."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app import errors
from app.accounts import pricing
from app.providers.routing import Route
from app.settings import Settings
from app.video import VideoRequest

ALIKE = 1.05
"""Factor up to which prices count as equal, so that a kind that was tried live comes first."""
LEAST_JOBS = 20
"""Finished jobs of a route from which its median time counts; one job in so many goes to a route with fewer."""


NO_PRICE = "no price is known"
UNCOVERED = "no price is known, so the limit of the key or its project cannot cover it"


class Strategy(StrEnum):
    """Order in which the routes of a request are tried."""

    order = "order"
    """As they are written."""
    cheapest = "cheapest"
    fastest = "fastest"
    weighted = "weighted"


@dataclass(frozen=True)
class Routing:
    """Wishes of a client about the choice."""

    strategy: Strategy | None = None
    max_cost_micros: int | None = None
    """Highest cost of the whole request, all outputs."""


NO_WISHES = Routing()


@dataclass(frozen=True)
class Time:
    """Time that a route took for videos of one length and resolution."""

    median_s: float
    jobs: int


@dataclass(frozen=True)
class Choice:
    """One route in the order of a plan, and the reason for its place."""

    route: Route
    micros: int | None
    """Estimate for all outputs; None: not known."""
    time: Time | None
    kept: bool
    reason: str

    @property
    def stored(self) -> dict[str, Any]:
        """The choice as it is kept with the job, for the operator."""
        return {
            "route": self.route.name,
            "cost_estimate": pricing.dollars(self.micros),
            "median_seconds": self.time and round(self.time.median_s, 1),
            "kept": self.kept,
            "reason": self.reason,
        }


def choose(
    routes: Sequence[Route],
    request: VideoRequest,
    *,
    settings: Settings,
    strategy: Strategy,
    max_cost_micros: int | None,
    price_factor: float | None,
    times: Mapping[str, Time],
    only_priced: bool = False,
) -> list[Choice]:
    """Order the routes that can express a request, and pass over those that are too dear: dearer than the limit, or
    than `price_factor` times the cheapest one, whatever the order, so that what is held does not depend on chance; with
    `only_priced` also those without a known price. Kept routes come first.

    Raises `InsufficientFunds` if none is left.
    """
    micros = {route.name: _micros(settings, route, request) for route in routes}
    most = _most(micros.values(), price_factor)
    ordered, reasons = _ordered(list(routes), strategy, micros, times)
    kept: list[Choice] = []
    passed: list[Choice] = []
    for route in ordered:
        cost = micros[route.name]
        refusal = None
        if max_cost_micros is not None and (cost is None or cost > max_cost_micros):
            refusal = "no price is known, so max_cost cannot cover it" if cost is None else "dearer than max_cost"
        elif only_priced and cost is None:
            refusal = UNCOVERED
        elif most is not None and cost is not None and cost > most:
            refusal = f"dearer than {price_factor:g} times the cheapest route"
        (passed if refusal else kept).append(
            Choice(route, cost, times.get(route.name), refusal is None, refusal or reasons[route.name])
        )
    if not kept and max_cost_micros is None:
        raise pricing.unpriced(settings, passed[0].route, request)
    if not kept:
        raise _none_left(request, passed, max_cost_micros or 0)
    return kept + passed


def _micros(settings: Settings, route: Route, request: VideoRequest) -> int | None:
    found = pricing.estimate(settings, route, request)
    return None if found is None else found.micros


def _most(found: Iterable[int | None], factor: float | None) -> float | None:
    """The highest cost of a route that is kept, by the cheapest one; None: any."""
    priced = [micros for micros in found if micros is not None]
    return min(priced) * factor if priced and factor is not None else None


def _none_left(request: VideoRequest, passed: Sequence[Choice], most: int) -> errors.InsufficientFunds:
    priced = [choice for choice in passed if choice.micros is not None]
    limit = pricing.format_usd(most)
    if not priced:
        message = f"no price is known for {request.model}, so max_cost ({limit}) cannot cover it"
        return errors.InsufficientFunds(message, code="price_unknown", param="max_cost")
    cheapest = min(priced, key=lambda choice: choice.micros or 0)
    cost = pricing.format_usd(cheapest.micros or 0)
    message = f"the cheapest route, {cheapest.route.name}, costs {cost}, and max_cost is {limit}"
    return errors.InsufficientFunds(message, code="max_cost_exceeded", param="max_cost")


# Orders


def draw(routes: Sequence[Route]) -> list[Route]:
    """Return routes in weighted random order, where no weight counts as 1."""
    drawn = [(random.random() ** (1 / (route.weight or 1.0)), route) for route in routes]  # noqa: S311
    return [route for _, route in sorted(drawn, key=lambda entry: entry[0], reverse=True)]


def _ordered(
    routes: list[Route], strategy: Strategy, micros: Mapping[str, int | None], times: Mapping[str, Time]
) -> tuple[list[Route], dict[str, str]]:
    """The routes in the order of a strategy, and the reason for each place."""
    match strategy:
        case Strategy.cheapest:
            return _by_price(routes, micros)
        case Strategy.fastest:
            return _by_time(routes, times)
        case Strategy.weighted:
            return draw(routes), {route.name: f"drawn with the weight {route.weight or 1:g}" for route in routes}
        case Strategy.order:
            return _as_written(routes, micros)


def _as_written(routes: list[Route], micros: Mapping[str, int | None]) -> tuple[list[Route], dict[str, str]]:
    """As the entries of the alias are written; the vendors of an entry that is a model of the catalogue by price."""
    entries = {route.entry: [other for other in routes if other.entry == route.entry] for route in routes}
    if len(entries) > 1:
        routes = [route for same in entries.values() for route in _by_price(same, micros)[0]]
    return routes, {route.name: f"number {number} as written" for number, route in enumerate(routes, 1)}


def _by_price(routes: list[Route], micros: Mapping[str, int | None]) -> tuple[list[Route], dict[str, str]]:
    """The cheapest first; of prices that are alike, kinds that were tried live; routes without a price last."""
    priced = sorted((route for route in routes if micros[route.name] is not None), key=lambda r: micros[r.name] or 0)
    ordered: list[Route] = []
    while priced:
        alike = [route for route in priced if (micros[route.name] or 0) <= (micros[priced[0].name] or 0) * ALIKE]
        priced = priced[len(alike) :]
        ordered += sorted(alike, key=lambda route: route.provider.tried is None)
    reasons = {route.name: f"costs {pricing.format_usd(micros[route.name] or 0)}" for route in ordered}
    unpriced = [route for route in routes if micros[route.name] is None]
    return ordered + unpriced, reasons | {route.name: NO_PRICE for route in unpriced}


def _by_time(routes: list[Route], times: Mapping[str, Time]) -> tuple[list[Route], dict[str, str]]:
    """The fastest first, among the places of the routes whose time is known; now and then one whose time is not."""
    known = {route.name: times[route.name] for route in routes if _is_known(times.get(route.name))}
    fastest = iter(sorted((route for route in routes if route.name in known), key=lambda r: known[r.name].median_s))
    ordered = [next(fastest) if route.name in known else route for route in routes]
    reasons = {
        route.name: f"takes {known[route.name].median_s:.0f} s in the median"
        if route.name in known
        else f"fewer than {LEAST_JOBS} videos like this were made"
        for route in routes
    }
    unknown = [route for route in ordered if route.name not in known]
    if unknown and known and random.random() < 1 / LEAST_JOBS:  # noqa: S311
        tried = random.choice(unknown)  # noqa: S311
        ordered = [tried, *(route for route in ordered if route is not tried)]
        reasons[tried.name] += "; tried now to learn its time"
    return ordered, reasons


def _is_known(time: Time | None) -> bool:
    return time is not None and time.jobs >= LEAST_JOBS
