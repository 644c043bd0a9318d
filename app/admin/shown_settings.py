"""Settings as they are shown: each with its origin and without secrets, and what their values alone warn of.

Shared by `video-gateway config show`, `doctor` and the administration API; knows no web framework, which takes long to
load.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NamedTuple

import httpx
from pydantic import BaseModel, SecretStr

from app import errors, net, providers, settings
from app.accounts import secrets
from app.db.address import read_address
from app.mistakes import LEAST_SECRET, too_short
from app.providers.answers import secret_pattern
from app.providers.base import Provider, ProviderConfig
from app.providers.routing import Router
from app.providers.unused import unused_prices, unused_routes
from app.setting_types import NO_PROXY, read_proxy
from app.settings import ConfigurationError, Settings

MASK = "***"
SHOWN_CHARACTERS = 4
"""Last characters that are shown of a secret that is long enough."""
SHORT = LEAST_SECRET // 2
"""Characters below which a secret is not removed from texts, which would make them unreadable."""
PROXIES = ("http_proxy", "webhook_proxy", "proxy")
"""Settings with the address of a proxy, which may have a password."""
PRIVATE_ENDINGS = (".internal", ".local", ".lan", ".home.arpa", ".test")
DialectConfigs = Mapping[str, type[BaseModel]]
"""The class of the settings of each dialect that has some, by name."""
Origins = tuple[list[str], Mapping[tuple[str, ...], tuple[Any, str]]]
"""See `settings.origins`."""


@dataclass(frozen=True)
class Shown:
    """One setting as it is shown: without secrets."""

    name: str
    value: Any
    origin: str


class Advice(NamedTuple):
    """A warning about the settings, and the next step."""

    text: str
    next_step: str


# Values without secrets


def shown_settings(config: Settings, found: Origins, dialects: DialectConfigs, *, every: bool) -> Iterator[Shown]:
    """The settings that are set, in the order of the documentation, with `every` the others, too."""
    _, values = found
    for field in Settings.model_fields:
        paths = [path for path in values if path[0] == field and field not in config.overrides]
        for path in paths:
            raw, origin = values[path]
            yield Shown(_name(path), _value(path, raw, config, dialects), origin)
        if paths:
            continue
        if field in config.model_fields_set and field in settings.PARTS:
            for path, raw in settings.parts((field,), config.model_dump(mode="json", include={field})[field]):
                yield Shown(_name(path), _value(path, raw, config, dialects), "command line")
        elif field in config.model_fields_set:
            yield Shown(_name((field,)), _value((field,), None, config, dialects), "command line")
        elif every:
            yield Shown(_name((field,)), _value((field,), None, config, dialects), "default")


def secrets_of(config: Settings) -> set[str]:
    """Every secret of the settings, for removal from texts."""
    single = (config.database_url, config.database_listen_url, config.admin_key, config.metrics_key, config.pepper)
    found = {secret.get_secret_value() for secret in single if secret is not None} | set(config.static_keys)
    found |= {given.key.get_secret_value() for given in config.admin_keys.values()}
    for url in filter(None, (config.database_url, config.database_listen_url)):
        with suppress(ConfigurationError):
            options = read_address(url.get_secret_value()).options
            found |= {value for name, value in options.items() if "password" in name}
    for proxy in (config.http_proxy, config.webhook_proxy):
        found |= _proxy_secrets(proxy.get_secret_value()) if proxy is not None else set()
    for name, values in config.providers.items():
        found |= _proxy_secrets(str(values.get("proxy", "")))
        nested = {field: ("providers", name, field) for field in values}
        found |= {str(values[field]) for field, path in nested.items() if not _is_open(path, config, {})}
    return found - {""}


def _proxy_secrets(address: str) -> set[str]:
    """The password of a proxy, and its user and password as they are sent."""
    try:
        proxy = read_proxy(address)
    except ValueError:
        return set()
    if proxy is None or proxy.credentials is None:
        return set()
    sent = net.authorization(proxy)["proxy-authorization"].partition(" ")[2]
    return {proxy.credentials, proxy.credentials.partition(":")[2], sent, address}


def cleaner(config: Settings) -> Callable[[str], str]:
    """Return a function that removes the secrets of the settings from any text, and the queries of its URLs."""
    hidden = sorted(secrets_of(config), key=len, reverse=True)
    patterns: list[re.Pattern[str]] = [secret_pattern(secret) for secret in hidden if len(secret) >= SHORT]

    def clean(text: str) -> str:
        for pattern in patterns:
            text = pattern.sub(MASK, text)
        return net.redact_urls(text)

    return clean


def masked(secret: str) -> str:
    """A secret as it is shown: its end alone, if it is long."""
    return MASK + (secret[-SHOWN_CHARACTERS:] if len(secret) >= LEAST_SECRET else "")


def _name(path: tuple[str, ...]) -> str:
    """The variable of a setting; the place in the TOML file for names that variables cannot have."""
    if path[0] in ("models", "prices") and len(path) > 1:
        return f"{path[0]}.{'.'.join(json.dumps(part, ensure_ascii=False) for part in path[1:])}"
    return "GATEWAY_" + "__".join(path).upper()


def _value(path: tuple[str, ...], raw: Any, config: Settings, dialects: DialectConfigs) -> Any:
    """The value of one part of the settings without secrets: as it is read, or as it is written in a nested one."""
    if path[-1] in PROXIES:
        return _shown_proxy(str(raw) if len(path) > 1 else getattr(config, path[0]))
    if len(path) > 1:
        return _redacted(raw) if _is_open(path, config, dialects) else masked(str(raw))
    value = getattr(config, path[0])
    if path[0] in ("database_url", "database_listen_url") and value is not None:
        try:
            return str(read_address(value.get_secret_value()))
        except ConfigurationError:
            return MASK
    if path[0] == "api_keys":
        if isinstance(value, dict):
            return {name: masked(key.get_secret_value()) for name, key in value.items()}
        return [masked(key.get_secret_value()) for key in value]
    if path[0] == "admin_keys":
        return {
            name: {"key": masked(given.key.get_secret_value()), "role": given.role} for name, given in value.items()
        }
    if isinstance(value, SecretStr):
        return masked(value.get_secret_value())
    return _redacted(config.model_dump(mode="json", include={path[0]})[path[0]])


def _shown_proxy(value: str | SecretStr | None) -> str | None:
    """A proxy without its user and password."""
    if value is None:
        return None
    try:
        found = read_proxy(value.get_secret_value() if isinstance(value, SecretStr) else value)
    except ValueError:  # of a provider that is off
        return MASK
    return NO_PROXY if found is None else str(found)


def _redacted(value: Any) -> Any:
    return net.redact_urls(value) if isinstance(value, str) else value


def _is_open(path: tuple[str, ...], config: Settings, dialects: DialectConfigs) -> bool:
    """True for a part of a nested setting that is known to hold no secret; a name that is not known may hold one."""
    if path[0] not in ("providers", "dialects"):
        return True
    known: type[BaseModel] | None
    if path[0] == "providers":
        kind = providers.KIND_NAMES.get(str(config.providers.get(path[1], {}).get("kind", path[1])))
        known = ProviderConfig if kind is None else kind.Config
    else:
        known = dialects.get(path[1])
    fields = known.model_fields if known is not None else {}
    return len(path) == 3 and path[2] in fields and "SecretStr" not in str(fields[path[2]].annotation)


# Warnings


def advice(config: Settings, configured: Mapping[str, Provider]) -> Iterator[Advice]:
    """Warnings about the settings, by their values alone."""
    for problem in (*settings.unknown_names(), *map(too_short, config.short_secrets())):
        yield Advice(*problem.split("; ", 1)) if "; " in problem else Advice(problem, ".env.example lists all settings")
    if config.storage_url is not None and config.storage_url.startswith("memory:"):
        yield Advice("files are kept in memory and are lost with the process", "set GATEWAY_STORAGE_URL")
    try:
        for one in providers.read_instances(config):
            if one.config is None:
                yield Advice(f"the provider {one.name} is left out", f"set {one.missing}")
    except ConfigurationError as error:  # a file that a provider was started with may be gone
        yield Advice(str(error), "correct it before the next start, which it would stop")
    if all(provider.kind == "sandbox" for provider in configured.values()):
        text = "no vendor is configured: only the sandbox makes videos"
        yield Advice(text, "set a vendor's key, such as GATEWAY_PROVIDERS__LUMENFALL__API_KEY")
    for alias, unused in unused_routes(config, configured, providers.KIND_NAMES).items():
        left_out = "is left out" if len(unused) == len(config.models[alias].routes) else "has routes that are left out"
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in unused)
        yield Advice(f"the alias {alias} {left_out}: {reasons}", "GET /admin/v1/models has each route")
    for price in unused_prices(config, configured, providers.KIND_NAMES):
        yield Advice(f"the price of {price.name} has no use: {price.reason}", "correct the name under [prices]")
    if (missing := default_model_problem(config, configured)) is not None:
        yield Advice(missing, "name a model that GET /v1/models lists")
    if (address := public_url_advice(config)) is not None:
        yield address
    if config.metrics_key is None and not is_local(config.host):
        yield Advice("/metrics needs no key", "set GATEWAY_METRICS_KEY, or let no proxy forward /metrics")


def default_model_problem(config: Settings, configured: Mapping[str, Provider]) -> str | None:
    """The reason why requests without a model cannot use the one of the settings; None if they can."""
    if config.default_model is None:
        return None
    try:
        Router(config, configured).routes(config.default_model)
    except errors.ModelNotFound as error:
        return f"GATEWAY_DEFAULT_MODEL: {error.message}"
    return None


def public_url_advice(config: Settings) -> Advice | None:
    """A warning about the public address, as far as it can be given without a call."""
    url = config.public_url
    if url is None:
        if is_local(config.host):
            return None
        text = "not set: vendors cannot call back, and links name the address of each request"
        return Advice(f"public URL {text}", "set GATEWAY_PUBLIC_URL to the address that clients use")
    if url.startswith("http:") and _is_public(httpx.URL(url).host):
        text = f"public URL {net.redact_urls(url)}: keys and links travel unencrypted"
        return Advice(text, "put a proxy with TLS in front, and set the https address")
    return None


def is_local(host: str) -> bool:
    """True for a host that only this machine reaches."""
    return secrets.is_loopback(host) or host.endswith(".localhost")


def _is_public(host: str) -> bool:
    """True for a host that the internet may reach."""
    try:
        return ip_address(host.strip("[]")).is_global
    except ValueError:
        return "." in host and not is_local(host) and not host.endswith(PRIVATE_ENDINGS)
