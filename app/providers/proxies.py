"""The outbound proxies of providers: of their own setting, of the one for all, or else of the environment."""

from collections.abc import Iterable

from app import net
from app.providers.base import Provider, ProviderConfig
from app.settings import ConfigurationError, Settings, environment_proxies
from app.telemetry.logs import log


def proxies_of(name: str, config: ProviderConfig, settings: Settings) -> net.Proxies:
    """The proxies for the calls of one provider and for what it names. Raises `ConfigurationError` for a proxy of the
    environment that cannot be used."""
    if config.proxy is not None:
        return net.through(config.proxy.get_secret_value(), f"GATEWAY_PROVIDERS__{name.upper()}__PROXY", loopback=True)
    if settings.http_proxy is not None:
        return net.through(settings.http_proxy.get_secret_value(), "GATEWAY_HTTP_PROXY")
    try:
        return net.of_environment(environment_proxies())
    except ValueError as error:
        raise ConfigurationError(
            f"{error}. It is read from the environment; GATEWAY_HTTP_PROXY, a proxy or none, takes its place"
        ) from None


def report_proxies(providers: Iterable[Provider]) -> None:
    """Log each proxy in use, with the setting or the variables that name it, and the providers behind it."""
    behind: dict[tuple[str, str], list[str]] = {}
    for provider in providers:
        if provider.proxy is not None:
            behind.setdefault((provider.proxy, provider.proxies.source), []).append(provider.name)
    for (proxy, source), names in behind.items():
        log.info("outbound proxy used", proxy=proxy, source=source, providers=names)
