"""Aliases and prices that lead nowhere: their routes name no configured provider, or no model of one."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from app.mistakes import nearest
from app.providers.base import Provider
from app.providers.catalogue import EMPTY, Catalogue
from app.settings import ConfigurationError, Settings
from app.telemetry.logs import log


@dataclass(frozen=True)
class Unused:
    """A route or a price that no request can use."""

    name: str
    """`provider/upstream-model`, as written."""
    reason: str
    mistaken: bool
    """True for a name that cannot be meant, False for a provider that is disabled or not complete."""


def unused_routes(
    settings: Settings, providers: Mapping[str, Provider], kinds: Collection[str]
) -> dict[str, list[Unused]]:
    """The unusable routes of each alias that has such."""
    found = {}
    catalogue = Catalogue.load(settings.catalogue_file) if settings.catalogue else EMPTY
    served = {provider.kind for provider in providers.values()}
    for alias, model in settings.models.items():
        names = [entry if isinstance(entry, str) else entry.to for entry in model.routes]
        names = [name for name in names if not _is_catalogued(name, catalogue, served)]
        if unused := [one for name in names if (one := _unused(name, settings, providers, kinds))]:
            found[alias] = unused
    return found


def _is_catalogued(name: str, catalogue: Catalogue, served: Collection[str]) -> bool:
    """True for a model of the catalogue that a configured kind of provider serves."""
    found = catalogue.find(name)
    return found is not None and any(row.kind in served for row in catalogue.models[found].routes)


def unused_prices(settings: Settings, providers: Mapping[str, Provider], kinds: Collection[str]) -> list[Unused]:
    """The prices whose names cannot be meant."""
    found = (_unused(name, settings, providers, kinds) for name in settings.prices)
    return [price for price in found if price is not None and price.mistaken]


def report_unused(settings: Settings, providers: Mapping[str, Provider], kinds: Collection[str]) -> None:
    """Log aliases and prices that lead nowhere. Raises `ConfigurationError` for mistaken names if `strict` is set."""
    mistakes = []
    for alias, unused in unused_routes(settings, providers, kinds).items():
        reasons = {one.name: one.reason for one in unused}
        if len(unused) == len(settings.models[alias].routes):
            log.warning("alias left out", alias=alias, routes=reasons)
        else:
            log.warning("routes left out", alias=alias, routes=reasons)
        mistakes += [f"the alias {alias}: {one.name}: {one.reason}" for one in unused if one.mistaken]
    for price in unused_prices(settings, providers, kinds):
        log.warning("price without use", price=price.name, reason=price.reason)
        mistakes.append(f"the price of {price.name}: {price.reason}")
    if settings.strict and mistakes:
        raise ConfigurationError("\n".join(mistakes))


def _unused(name: str, settings: Settings, providers: Mapping[str, Provider], kinds: Collection[str]) -> Unused | None:
    """The reason why no request can use `provider/upstream-model`, None if one can."""
    head, slash, model = name.partition("/")
    provider = providers.get(head)
    if not slash or not model:
        reason = "expected provider/upstream-model, or a model of the catalogue that a provider here serves"
        return Unused(name, reason, mistaken=True)
    if provider is not None and provider.capabilities(model) is not None:
        return None
    if provider is not None:
        near = nearest(model, provider.listed)
        reason = f"{head} has no model {model}{f'; did you mean {head}/{near}?' if near else ''}"
        return Unused(name, reason, mistaken=True)
    if head in settings.providers or head == "sandbox":
        return Unused(name, f"the provider {head} is disabled, or left out for missing settings", mistaken=False)
    if head in kinds:
        missing = f"the provider {head} is not configured; set GATEWAY_PROVIDERS__{head.upper()}__API_KEY"
        return Unused(name, missing, mistaken=False)
    near = nearest(head, {*providers, *settings.providers, *kinds})
    reason = f"there is no provider {head}{f'; did you mean {near}/{model}?' if near else ''}"
    return Unused(name, reason, mistaken=True)
