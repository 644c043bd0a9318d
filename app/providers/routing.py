"""Model names to routes, as configured; `jobs/plan.py` orders them.

A name is an alias of the configuration, `provider/upstream-model` (that provider only), or the bare upstream name
(every provider that lists it, in order).
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from app import errors
from app.capabilities import Capabilities
from app.providers.base import Provider
from app.settings import Settings
from app.video import MAX_NAME_CHARACTERS, VideoRequest

SANDBOX_MODEL = "sandbox/testcard"


@dataclass(frozen=True)
class Route:
    """One candidate for a request: a model of a provider."""

    provider: Provider
    model: str
    """The upstream's own model name."""
    weight: float | None = None
    """Of an alias: chosen first with probability proportional to it; None: routes are tried in the written order."""

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model}"

    @property
    def capabilities(self) -> Capabilities:
        able = self.provider.capabilities(self.model)
        return able if able is not None else Capabilities()  # `Router.routes` only names models that are served

    def capabilities_for(self, request: VideoRequest) -> Capabilities:
        able = self.provider.capabilities_for(self.model, request)
        return able if able is not None else Capabilities()


class Router:
    """The configured providers and aliases; holds no state of jobs."""

    def __init__(self, settings: Settings, providers: Mapping[str, Provider]) -> None:
        self.providers = providers
        self.aliases = settings.models
        self.can_link = settings.public_url is not None
        vendors = [provider for provider in providers.values() if provider.kind != "sandbox"]
        sandbox = SANDBOX_MODEL if "sandbox" in providers and not vendors else None
        self.default_model = settings.default_model or sandbox

    def models(self) -> dict[str, Sequence[Route]]:
        """Every model name a client can request, in the order of the model list: aliases first."""
        names: dict[str, Sequence[Route]] = {name: self._alias_routes(name) for name in self.aliases}
        for provider in self.providers.values():
            for model in provider.listed:
                route = Route(provider, model)
                names.setdefault(route.name, (route,))
        return {name: routes for name, routes in names.items() if routes}

    def permitted_models(self, permitted: Callable[[str, str], bool]) -> dict[str, Sequence[Route]]:
        """The models of which a caller may use at least one route, with those routes; `permitted` takes the names of
        the model and of a route."""
        found = {
            name: [route for route in routes if permitted(name, route.name)] for name, routes in self.models().items()
        }
        return {name: routes for name, routes in found.items() if routes}

    def routes(self, name: str) -> Sequence[Route]:
        """The candidates for a name. Raises `ModelNotFound` with the most similar known name."""
        if len(name) > MAX_NAME_CHARACTERS:
            raise errors.ModelNotFound(
                f"the name of a model has at most {MAX_NAME_CHARACTERS} characters; GET /v1/models lists all models.",
                param="model",
            )
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
        if name in self.aliases:
            raise errors.ModelNotFound(
                f"the model {name!r:.120} is configured, but none of its providers is; `video-gateway models` has the "
                "reasons. GET /v1/models lists all models.",
                param="model",
            )
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
        entries = self.aliases[name].routes
        unweighted = None if all(isinstance(entry, str) for entry in entries) else 1.0
        for entry in entries:
            to, weight = (entry, unweighted) if isinstance(entry, str) else (entry.to, entry.weight)
            head, _, tail = to.partition("/")
            provider = self.providers.get(head)
            if provider is not None and tail and provider.capabilities(tail) is not None:
                routes.append(Route(provider, tail, weight))
        return routes


def permitted_only(routes: Sequence[Route], permitted: Callable[[str], bool], name: str) -> Sequence[Route]:
    """The routes that the caller may use. Raises `PermissionDenied` if there is none."""
    found = [route for route in routes if permitted(route.name)]
    if not found:
        raise errors.PermissionDenied(
            f"this key may not use the model {name!r:.120}; GET /v1/models lists those it may",
            code="model_not_allowed",
            param="model",
        )
    return found
