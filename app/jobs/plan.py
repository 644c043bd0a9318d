"""Builds the plan of a request: the routes of its model that can express it, in the order in which they are tried."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app import errors
from app.accounts import pricing
from app.capabilities import (
    MEDIA_FIELDS,
    Capabilities,
    Fitted,
    Problem,
    brought_near,
    fit,
    media_of,
    with_defaults,
)
from app.jobs.choose import NO_PRICE, NO_WISHES, Choice, Routing, Strategy, Time, choose, draw
from app.providers.base import Provider
from app.providers.routing import Route, Router, permitted_only
from app.setting_types import ModelSettings, WeightedRoute
from app.settings import Settings
from app.sizes import complete_size
from app.video import Operation, VideoRequest

MAX_WARNINGS = 20
"""Warnings about fields left out of one request; a request may have thousands of unknown ones."""


@dataclass(frozen=True)
class Plan:
    """The routes of a request in order, the request as it is sent, and warnings about fields left out."""

    routes: tuple[Route, ...]
    request: VideoRequest
    warnings: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()
    """All routes that can express the request, kept or passed over, each with the reason."""


def make_plan(
    router: Router,
    request: VideoRequest,
    *,
    settings: Settings,
    routing: Routing = NO_WISHES,
    times: Callable[[Sequence[Route], VideoRequest], Mapping[str, Time]] = lambda routes, request: {},
    named: str | None = None,
    only_provider: str | None = None,
    only_priced: bool = False,
    permitted: Callable[[Route], bool] = lambda route: True,
) -> Plan:
    """Choose the candidates that can express the request, in the order of its strategy.

    `named` is the name that the client used, where the request has that of a route; `only_provider` is the provider
    that made the source of the request; `only_priced` leaves out routes whose cost is not known, which a limit of
    spending cannot cover; `permitted` takes a route and returns True if the caller may use it. Raises `ModelNotFound`,
    `PermissionDenied`, `InsufficientFunds` if all cost more than the client allows, and `UnsupportedParameter` naming
    the parameter, the provider and its capability.
    """
    routes = permitted_only(_serving(router.routes(request.model), request), permitted, request.model)
    if only_provider is not None:
        routes = [route for route in routes if route.provider.name == only_provider]
        if not routes:
            raise errors.InvalidRequest(
                f"the source was made by the provider {only_provider}, which the model {request.model} does not "
                "use; leave out the model or name one of that provider",
                param="model",
            )
    asked, catalogued = request, router.catalogued(request.model)
    alias = router.aliases.get(named or request.model)
    variants = list(_variants(router, asked, catalogued, alias))
    plan = _able(router, variants, routes, alias) or _without_problems(router, variants, routes, alias)
    choices = choose(
        plan.routes,
        plan.request,
        settings=settings,
        times=times(plan.routes, plan.request),
        only_priced=only_priced,
        **_wishes(alias, routing, settings, is_catalogued=catalogued is not None),
    )
    kept = tuple(choice.route for choice in choices if choice.kept)
    # With several routes no defaults are filled in: another route may not be able to express them.
    wanted = with_defaults(plan.request, kept[0].capabilities_for(plan.request)) if len(kept) == 1 else plan.request
    warnings = (*plan.warnings, *_price_warnings(choices))
    if asked.loop and not wanted.loop and asked.first_frame is not None and wanted.last_frame == asked.first_frame:
        warnings = ("the model makes no loops: the video ends with its first frame", *warnings)
    if router.stands_in(request.model):
        warnings = (
            f"no vendor is configured here: the sandbox makes a test card in place of {request.model}",
            *warnings,
        )
    return Plan(kept, wanted, warnings, tuple(choices))


def _serving(routes: Sequence[Route], request: VideoRequest) -> Sequence[Route]:
    """The routes with the vendor's id for the request's kind of input; all of them if there is none."""
    found = [serving for route in routes if (serving := route.for_request(request)) is not None]
    return found or routes


def _variants(
    router: Router, request: VideoRequest, catalogued: str | None, alias: ModelSettings | None
) -> Iterator[VideoRequest]:
    """The request in the forms in which routes are asked, the best first: for a model of the catalogue completed by its
    defaults, so that all routes make the same; a loop also as one that ends with its first frame."""
    default = {} if catalogued is None else router.catalogue.models[catalogued].default
    for asked in (request, *_looped(request, alias)):
        yield from _with_row_defaults(asked, default)


def _able(
    router: Router, variants: Sequence[VideoRequest], routes: Sequence[Route], alias: ModelSettings | None
) -> Plan | None:
    """The routes that can express the request, in its first form that any can; None if none can. A route of which
    nothing is known does not count where others can be brought near."""
    drops = alias is not None and alias.unsupported == "drop"
    for wanted in variants:
        able = _fitting(router, wanted, routes)
        if able and not (drops and _all_unknown(able, wanted) and not _all_unknown(routes, wanted)):
            return Plan(tuple(able), _with_preferred(wanted, able))
    return None


def _fitting(router: Router, request: VideoRequest, routes: Sequence[Route]) -> list[Route]:
    """The routes that can express all of a request."""
    fitted = [(route, fit(request, route.capabilities_for(request), can_link=router.can_link)) for route in routes]
    return [route for route, found in fitted if not found.problems]


def _all_unknown(routes: Sequence[Route], request: VideoRequest) -> bool:
    """True if neither lengths nor sizes of any route are known, so that each seems to make everything."""
    ables = [route.capabilities_for(request) for route in routes]
    return all(one.seconds is None and one.sizes is one.aspect_ratios is one.resolutions is None for one in ables)


def _looped(request: VideoRequest, alias: ModelSettings | None) -> list[VideoRequest]:
    """A request for a loop as one that ends with its first frame, for models without loops that take both frames."""
    refused = alias is not None and alias.unsupported == "error"
    if refused or not request.loop or request.first_frame is None or request.last_frame is not None:
        return []
    return [request.model_copy(update={"loop": None, "last_frame": request.first_frame})]


def _with_row_defaults(request: VideoRequest, default: Mapping[Any, Any]) -> Iterator[VideoRequest]:
    """The request completed by the defaults of its row, then as it is."""
    if default and request.operation is Operation.generate:
        values: dict[str, Any] = {"seconds": request.seconds if request.seconds is not None else default.get("seconds")}
        if request.size is None:
            # Media decide on the ratio.
            ratio = request.aspect_ratio or (None if media_of(request) else default.get("aspect_ratio"))
            values |= complete_size(None, ratio, request.resolution or default.get("resolution"))
        yield request.model_copy(update=values)
    yield request


def _wishes(
    alias: ModelSettings | None, routing: Routing, settings: Settings, *, is_catalogued: bool
) -> dict[str, Any]:
    """The client's wishes about the choice, completed by those of the alias and by the defaults."""
    strategy = routing.strategy or (alias.strategy if alias is not None else None)
    if strategy is None:
        weighted = alias is not None and any(isinstance(route, WeightedRoute) for route in alias.routes)
        strategy = Strategy.cheapest if is_catalogued else Strategy.weighted if weighted else Strategy.order
    own = None if alias is None or alias.max_cost is None else round(alias.max_cost * pricing.MICROS)
    limits = [limit for limit in (routing.max_cost_micros, own) if limit is not None]
    return {
        "strategy": Strategy(strategy),
        "max_cost_micros": min(limits, default=None),
        "price_factor": settings.fallback_price_factor if is_catalogued else None,
    }


def _price_warnings(choices: Sequence[Choice]) -> list[str]:
    """The sentence about routes that are tried last because their price is not known."""
    names = [choice.route.name for choice in choices if choice.kept and choice.reason == NO_PRICE]
    return [f"no price is known for {', '.join(names)}, tried last"] if names and len(choices) > 1 else []


def character_provider(router: Router, model: str | None, permitted: Callable[[Route], bool]) -> Provider:
    """Choose the provider at which a character is made: that of `model`, else the first one that can. Raises
    `ModelNotFound`, `PermissionDenied`, `UnsupportedParameter`."""
    name = model or router.default_model
    routes = router.routes(name) if name else [Route(provider, "") for provider in router.providers.values()]
    candidates = [route.provider for route in order(permitted_only(routes, permitted, name or "characters"))]
    for provider in candidates:
        if provider.characters:
            return provider
    refusing = ", ".join(provider.name for provider in candidates)
    raise errors.UnsupportedParameter(f"the provider {refusing} cannot make characters", param="model")


def order(routes: Sequence[Route]) -> list[Route]:
    """Return routes as configured; if any has a weight, in weighted random order."""
    return list(routes) if all(route.weight is None for route in routes) else draw(routes)


@dataclass(frozen=True)
class _Candidate:
    """A request as one route could make it: brought near to what the route has, and without what it cannot express."""

    route: Route
    wanted: VideoRequest
    fitted: Fitted
    refused: Sequence[str]
    """Parameters that the route cannot express and that must not be left out."""
    changes: Sequence[str]
    """Sentences about values that were brought near."""
    is_unknown: bool

    @property
    def rank(self) -> tuple[int, bool, int]:
        return len(self.refused), self.is_unknown, len(self.fitted.problems) + len(self.changes)


def _without_problems(
    router: Router, variants: Sequence[VideoRequest], routes: Sequence[Route], alias: ModelSettings | None
) -> Plan:
    """Build the plan of a request that no route can express, if what they cannot express may be left out: of the
    requests that lose the least, the one that most routes can express. Raises `UnsupportedParameter`."""
    drops = alias is not None and alias.unsupported == "drop"
    found = [_candidate(router, wanted, route, drops=drops) for wanted in variants for route in order(routes)]
    best = min(one.rank for one in found)
    fitting = [(one, _fitting(router, one.fitted.without_problems, routes)) for one in found if one.rank == best]
    one, able = max(fitting, key=lambda pair: len(pair[1]))
    named = {name: (_client_name(variants[0], name, each), each.why) for name, each in one.fitted.problems.items()}
    for name in one.refused:
        shown, why = named[name]
        verb = "needs" if one.fitted.problems[name].missing else "cannot express"
        alone = fit(one.wanted, one.route.capabilities, can_link=router.can_link).problems
        end = "" if name in alone else ", given the rest of the request"
        raise errors.UnsupportedParameter(f"{one.route.name} {verb} {shown}: {why}{end}", param=shown)
    warnings = [f"{text}: {one.route.name} makes nothing nearer" for text in one.changes]
    warnings += [f"{shown:.80} was left out: {one.route.name}: {why}" for shown, why in named.values()]
    if len(warnings) > MAX_WARNINGS:
        warnings[MAX_WARNINGS - 1 :] = [f"{len(warnings) - MAX_WARNINGS + 1} more parameters were left out"]
    able = able or [one.route]
    return Plan(tuple(able), _with_preferred(one.fitted.without_problems, able), tuple(warnings))


def _candidate(router: Router, request: VideoRequest, route: Route, *, drops: bool) -> _Candidate:
    able = route.capabilities_for(request)
    wanted, changes = brought_near(request, able) if drops else (request, [])
    fitted = fit(wanted, able, can_link=router.can_link)
    refused = _refused(request, fitted, drops=drops)
    return _Candidate(route, wanted, fitted, refused, changes, is_unknown=drops and _all_unknown([route], request))


def _client_name(request: VideoRequest, name: str, problem: Problem) -> str:
    """The client's name of a parameter. A `size` that its API does not have was made of ratio and resolution."""
    if name in request.client_names and request.client_names[name] is None:
        name = next(other for other in problem.drop if other != name)
    return request.client_names.get(name) or name


def _refused(request: VideoRequest, found: Fitted, *, drops: bool) -> list[str]:
    """Names of the parameters that a route cannot express and that must not be left out."""

    def may_go(name: str, problem: Problem) -> bool:
        if drops:
            return bool(problem.drop) and name not in MEDIA_FIELDS
        return problem.forced or (request.drop_unsupported and problem.absent and name not in MEDIA_FIELDS)

    return [name for name, problem in found.problems.items() if not may_go(name, problem)]


def _with_preferred(request: VideoRequest, routes: Sequence[Route]) -> VideoRequest:
    """Fill in the preferred values that all routes are known to support."""
    for name, value in request.preferred.items():
        filled = request.model_copy(update={name: value})
        able = (route.capabilities_for(filled) for route in routes)
        if getattr(request, name) is None and all(_supports(filled, name, one) for one in able):
            request = filled
    return request


def _supports(request: VideoRequest, name: str, able: Capabilities) -> bool:
    known = name != "seconds" or able.seconds is not None
    return known and name not in fit(request, able, can_link=True).problems
