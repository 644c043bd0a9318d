"""Model names to routes, as configured; `jobs/choose.py` orders them.

A name is an alias of the configuration, a model of the catalogue (every provider of a kind that serves it),
`provider/upstream-model` (that provider only), or the bare upstream name (every provider that lists it, in order).
"""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime

from app import errors
from app.capabilities import Capabilities
from app.providers.base import Provider
from app.providers.catalogue import EMPTY, Catalogue, CatalogueRoute, id_for
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
    modes: Mapping[str, str] = field(default_factory=dict)
    """Of a catalogue row whose vendor has an id for each kind of input; `model` is the first."""
    listed_as: str | None = None
    """Name of its model in the catalogue; None: it was named otherwise."""
    entry: int = 0
    """Place in the routes of an alias; a model of the catalogue is one entry with several routes."""

    def for_request(self, request: VideoRequest) -> "Route | None":
        """The route with the vendor's id for a request; None if there is none for its kind of input."""
        if not self.modes:
            return self
        model = id_for(self.modes, request)
        return replace(self, model=model) if model is not None else None

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model}"

    @property
    def names(self) -> Sequence[str]:
        """`provider/model` for each of the vendor's ids."""
        return [f"{self.provider.name}/{model}" for model in (self.modes.values() or (self.model,))]

    @property
    def capabilities(self) -> Capabilities:
        able = self.provider.capabilities(self.model)
        return able if able is not None else Capabilities()  # `Router.routes` only names models that are served

    def capabilities_for(self, request: VideoRequest) -> Capabilities:
        able = self.provider.capabilities_for(self.model, request)
        return able if able is not None else Capabilities()


def utc_now() -> datetime:
    return datetime.now(UTC)


class Router:
    """The configured providers, aliases and the catalogue; holds no state of jobs."""

    def __init__(
        self,
        settings: Settings,
        providers: Mapping[str, Provider],
        clock: Callable[[], datetime] = utc_now,
        kinds: Collection[str] | None = None,
    ) -> None:
        """Make a router; `kinds` are those of this release, which errors may name (None: all of the catalogue's rows).
        Raises `ConfigurationError` for a catalogue file that cannot be used."""
        self._kinds = kinds
        self.providers = providers
        self.catalogue = Catalogue.load(settings.catalogue_file) if settings.catalogue else EMPTY
        self._clock = clock
        self.aliases = settings.models
        self.can_link = settings.public_url is not None
        vendors = [provider for provider in providers.values() if provider.kind != "sandbox"]
        self._only_sandbox = "sandbox" in providers and not vendors
        self.default_model = settings.default_model or (SANDBOX_MODEL if self._only_sandbox else None)

    def models(self, *, every: bool = True) -> dict[str, Sequence[Route]]:
        """The model names a client can request, in the order of the model list: aliases, the catalogue's, then
        `provider/model`; of the last only those that no row of the catalogue covers, unless `every` is set."""
        catalogued = {name: self._catalogue_routes(name) for name in self.catalogue.models}
        names: dict[str, Sequence[Route]] = {name: self._alias_routes(name) for name in self.aliases}
        for name, routes in catalogued.items():
            names.setdefault(name, routes)
        covered = {name for routes in catalogued.values() for route in routes for name in route.names}
        for provider in self.providers.values():
            for listed in provider.listed:
                route = Route(provider, listed)
                if every or route.name not in covered:
                    names.setdefault(route.name, (route,))
        return {name: routes for name, routes in names.items() if routes}

    def permitted_models(
        self, permitted: Callable[[str, Route], bool], *, every: bool = True
    ) -> dict[str, Sequence[Route]]:
        """The models of which a caller may use at least one route, with those routes; `permitted` takes the name of
        the model and a route."""
        names = self.models(every=every)
        found = {name: [route for route in routes if permitted(name, route)] for name, routes in names.items()}
        return {name: routes for name, routes in found.items() if routes}

    def catalogued(self, name: str) -> str | None:
        """The catalogue's name for a model that `name` means, with a route of it; None if it means something else. An
        alias means one if that is its only route."""
        if name in self.aliases:
            entry, *others = self.aliases[name].routes
            name = entry if isinstance(entry, str) and not others else ""
        found = self._find(name)
        return found if found is not None and self._catalogue_routes(found) else None

    def _find(self, name: str) -> str | None:
        """The catalogue's name for a model; none for `provider/model` of a provider that lists it, though the catalogue
        may have that as another vendor's spelling."""
        head, _, tail = name.partition("/")
        is_pinned = head in self.providers and tail in self.providers[head].listed
        return None if is_pinned else self.catalogue.find(name)

    def stands_in(self, name: str) -> bool:
        """True for a model that has ended without a successor, such as `sora-2`, while no vendor is configured: the
        sandbox makes a test card, so that existing code can be tried."""
        found = None if name in self.aliases else self.catalogue.find(name)
        if found is None or not self._only_sandbox:
            return False
        model = self.catalogue.models[found]
        return model.status == "retired" and model.replaced_by is None

    @property
    def stand_ins(self) -> Sequence[str]:
        """The names of the catalogue to which the sandbox answers."""
        return [name for name in self.catalogue.models if self.stands_in(name)]

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
        catalogued = self.catalogued(name)
        if catalogued is not None and name not in self.aliases:
            return self._catalogue_routes(catalogued)
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
        listed = self.catalogue.find(name)
        if self.stands_in(name):
            return (Route(self.providers["sandbox"], SANDBOX_MODEL.partition("/")[2]),)
        if listed is not None:
            raise errors.ModelNotFound(self._unserved(listed), param="model")
        known = list(self.models())
        near = difflib.get_close_matches(name[:200], known, n=1, cutoff=0.5) or difflib.get_close_matches(
            name[:200], [known_name.rpartition("/")[2] for known_name in known], n=1
        )
        hint = f"; did you mean {near[0]}?" if near else "."
        raise errors.ModelNotFound(
            f"the model {name!r:.120} does not exist{hint} GET /v1/models lists all models.", param="model"
        )

    def _catalogue_routes(self, name: str) -> Sequence[Route]:
        model, today = self.catalogue.models[name], self._clock().date()
        if model.retires is not None and model.status == "retired" and model.retires <= today:
            return ()
        return [
            replace(route, listed_as=name)
            for row in model.routes
            for provider in self.providers.values()
            if (route := _route_of(row, provider, today)) is not None
        ]

    def _unserved(self, name: str) -> str:
        """The sentence about a model of the catalogue without a route here."""
        model = self.catalogue.models[name]
        successor = f" Its successor is {model.replaced_by}." if model.replaced_by else ""
        if model.status == "retired":
            ended = f" on {model.retires}" if model.retires else ""
            rows = sorted(self.catalogue.models.items(), key=lambda one: one[1].status != "current")
            others = [other for other, row in rows if row.status != "retired" and self._catalogue_routes(other)]
            if model.replaced_by is None and others:
                more = f"; others that could are {', '.join(others[1:4])}" if others[1:] else ""
                successor = (
                    f" The operator can let another model answer to {name}: `video-gateway alias {name} {others[0]}` "
                    f'adds these lines to gateway.toml: [models."{name}"], routes = ["{others[0]}"], '
                    f'unsupported = "drop"{more}.'
                )
            return f"{model.title} has ended{ended}.{successor} GET /v1/models lists all models."
        served_by = dict.fromkeys(row.kind for row in model.routes if self._kinds is None or row.kind in self._kinds)
        kinds = ", ".join(served_by) or "no kind of provider of this release"
        return (
            f"the model {name!r:.120} is served by {kinds}, and none of these is configured here.{successor} "
            "GET /v1/models lists all models."
        )

    def _alias_routes(self, name: str) -> Sequence[Route]:
        routes = []
        entries = self.aliases[name].routes
        unweighted = None if all(isinstance(entry, str) for entry in entries) else 1.0
        for number, entry in enumerate(entries):
            to, weight = (entry, unweighted) if isinstance(entry, str) else (entry.to, entry.weight)
            catalogued = self._find(to)
            if catalogued is not None:
                found = self._catalogue_routes(catalogued)
                share = weight and weight / max(1, len(found))
                routes += [replace(route, weight=share, entry=number) for route in found]
                continue
            head, _, tail = to.partition("/")
            provider = self.providers.get(head)
            if provider is not None and tail and provider.capabilities(tail) is not None:
                routes.append(Route(provider, tail, weight, entry=number))
        return routes


def _route_of(row: CatalogueRoute, provider: Provider, today: date) -> Route | None:
    """The route of a catalogue row at a provider; None if it is of another kind or region, or has ended."""
    if row.kind != provider.kind or (row.retires is not None and row.retires <= today):
        return None
    if row.region is not None and provider.region is not None and row.region != provider.region:
        return None
    model = row.model or next(iter(row.modes.values()))
    return Route(provider, model, modes=dict(row.modes.items())) if provider.capabilities(model) is not None else None


def permitted_only(routes: Sequence[Route], permitted: Callable[[Route], bool], name: str) -> Sequence[Route]:
    """The routes that the caller may use. Raises `PermissionDenied` if there is none."""
    found = [route for route in routes if permitted(route)]
    if not found:
        raise errors.PermissionDenied(
            f"this key may not use the model {name!r:.120}; GET /v1/models lists those it may",
            code="model_not_allowed",
            param="model",
        )
    return found
