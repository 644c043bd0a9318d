"""From a model name to the candidates that can serve a request.

A name is an alias of the configuration, `provider/upstream-model` (that provider only), or the bare upstream name
(every provider that lists it, in order).
"""

import difflib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app import errors
from app.conversion import complete_size, fit
from app.providers.base import Provider
from app.settings import Settings, WeightedRoute
from app.video import Capabilities, VideoRequest

SANDBOX_MODEL = "sandbox/testcard"


@dataclass(frozen=True)
class Route:
    provider: Provider
    model: str

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model}"


@dataclass(frozen=True)
class Plan:
    """Where a request may go, in order, and what of it has to be left out there."""

    routes: tuple[Route, ...]
    request: VideoRequest
    warnings: tuple[str, ...] = ()


class Router:
    """The configured providers and aliases; knows nothing about any job."""

    def __init__(self, settings: Settings, providers: Mapping[str, Provider]) -> None:
        self.providers = providers
        self.aliases = settings.models
        self.can_link = settings.public_url is not None
        vendors = [provider for provider in providers.values() if provider.kind != "sandbox"]
        sandbox = SANDBOX_MODEL if "sandbox" in providers and not vendors else None
        self.default_model = settings.default_model or sandbox

    def models(self) -> dict[str, Sequence[Route]]:
        """Every name a client can ask for, as the model list shows it: aliases first."""
        names: dict[str, Sequence[Route]] = {name: self._alias_routes(name) for name in self.aliases}
        for provider in self.providers.values():
            for model in provider.listed:
                route = Route(provider, model)
                names.setdefault(route.name, (route,))
        return {name: routes for name, routes in names.items() if routes}

    def routes(self, name: str) -> Sequence[Route]:
        """The candidates for a name. Raises `ModelNotFound`, with the nearest name there is."""
        if name in self.aliases:
            found = self._alias_routes(name)
            if found:
                return found
        head, slash, tail = name.partition("/")
        if slash and tail and head in self.providers and self.providers[head].capabilities(tail) is not None:
            return (Route(self.providers[head], tail),)
        bare = [Route(provider, name) for provider in self.providers.values() if name in provider.listed]
        if bare:
            return bare
        known = list(self.models())
        near = difflib.get_close_matches(name[:200], known, n=1, cutoff=0.5) or difflib.get_close_matches(
            name[:200], [known_name.rpartition("/")[2] for known_name in known], n=1
        )
        hint = f"; did you mean {near[0]}?" if near else "."
        raise errors.ModelNotFound(
            f"the model {name!r:.120} does not exist{hint} GET /v1/models lists all models.", param="model"
        )

    def _alias_routes(self, name: str) -> Sequence[Route]:
        routes = []
        for entry in _in_order(self.aliases[name].routes):
            head, _, tail = entry.partition("/")
            provider = self.providers.get(head)
            if provider is not None and tail and provider.capabilities(tail) is not None:
                routes.append(Route(provider, tail))
        return routes

    def plan(
        self,
        request: VideoRequest,
        *,
        only_provider: str | None = None,
        permitted: Callable[[str], bool] = lambda route: True,
    ) -> Plan:
        """Choose the candidates that can express the request, in order.

        `only_provider` is where the work has to be done because what it starts from is there; `permitted` says of a
        route's name whether the caller may go there. Raises `ModelNotFound`, `PermissionDenied`, and
        `UnsupportedParameter` naming the parameter, the provider and what it can do.
        """
        routes = permitted_only(self.routes(request.model), permitted, request.model)
        if only_provider is not None:
            routes = [route for route in routes if route.provider.name == only_provider]
            if not routes:
                raise errors.InvalidRequest(
                    f"the source was made by the provider {only_provider}, which the model {request.model} does not "
                    "use; leave out the model or name one of that provider",
                    param="model",
                )
        found = [(route, fit(request, self._able(route), can_link=self.can_link)) for route in routes]
        able = tuple(route for route, fitted in found if not fitted.problems)
        if able:
            # Another route may not be able to say what the first one does by itself.
            return Plan(able, _with_defaults(request, self._able(able[0])) if len(able) == 1 else request)
        route, fitted = min(found, key=lambda entry: len(entry[1].problems))
        alias = self.aliases.get(request.model)
        forced = all(problem.forced for problem in fitted.problems.values())
        drop = alias is not None and alias.unsupported == "drop" and "operation" not in fitted.problems
        if forced or drop:
            warnings = tuple(f"{name} was left out: {route.name}: {p.why}" for name, p in fitted.problems.items())
            return Plan((route,), fitted.without_problems, warnings)
        name, problem = next(iter(fitted.problems.items()))
        raise errors.UnsupportedParameter(f"{route.name} cannot express {name}: {problem.why}", param=name)

    def character_provider(self, model: str | None, permitted: Callable[[str], bool]) -> Provider:
        """The provider that a character is made at. Raises `ModelNotFound`, `PermissionDenied`,
        `UnsupportedParameter`."""
        name = model or self.default_model
        routes = self.routes(name) if name else [Route(provider, "") for provider in self.providers.values()]
        candidates = [route.provider for route in permitted_only(routes, permitted, name or "characters")]
        for provider in candidates:
            if provider.characters:
                return provider
        refusing = ", ".join(provider.name for provider in candidates)
        raise errors.UnsupportedParameter(f"the provider {refusing} cannot make characters", param="model")

    def _able(self, route: Route) -> Capabilities:
        able = route.provider.capabilities(route.model)
        return able if able is not None else Capabilities()  # `routes` only names models that the provider serves


def permitted_only(routes: Sequence[Route], permitted: Callable[[str], bool], name: str) -> Sequence[Route]:
    """Those of the routes that the caller may go. Raises `PermissionDenied` where there is none."""
    found = [route for route in routes if permitted(route.name)]
    if not found:
        raise errors.PermissionDenied(
            f"this key may not use the model {name!r:.120}; GET /v1/models lists those it may",
            code="model_not_allowed",
            param="model",
        )
    return found


def _in_order(routes: Sequence[str | WeightedRoute]) -> list[str]:
    """As written; where one has a weight, drawn without putting back, and those without weigh 1."""
    names = [entry if isinstance(entry, str) else entry.to for entry in routes]
    if all(isinstance(entry, str) for entry in routes):
        return names
    weights = [1.0 if isinstance(entry, str) else entry.weight for entry in routes]
    drawn = {name: random.random() ** (1 / weight) for name, weight in zip(names, weights, strict=True)}  # noqa: S311
    return sorted(names, key=lambda name: drawn[name], reverse=True)


def _with_defaults(request: VideoRequest, able: Capabilities) -> VideoRequest:
    """Say what the first candidate would choose by itself, so that the client sees it from the start."""
    values: dict[str, Any] = {}
    if request.seconds is None:
        values["seconds"] = able.default_seconds
    if able.default_size is not None and not (request.size or request.aspect_ratio or request.resolution):
        values |= complete_size(able.default_size, None, None)
    return request.model_copy(update=values)
