"""Upstreams: one file per kind, the list of kinds, and the instances that the settings name."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from app.mistakes import explain
from app.providers.apilaplas import Apilaplas
from app.providers.ark import Ark
from app.providers.base import Outbound, Provider, ProviderConfig
from app.providers.dashscope import DashScope
from app.providers.fal import Fal
from app.providers.gemini import Gemini, Vertex
from app.providers.gptge import GptGe
from app.providers.kling import Kling
from app.providers.lumen import Lumen
from app.providers.lumenfall import Lumenfall
from app.providers.lunos import Lunos
from app.providers.minimax import MiniMax
from app.providers.openai import OpenAI
from app.providers.openrouter import OpenRouter
from app.providers.proxies import proxies_of, report_proxies
from app.providers.replicate import Replicate
from app.providers.runway import Runway
from app.providers.sandbox import Sandbox
from app.providers.unused import report_unused, unused_routes
from app.providers.xai import XAI
from app.settings import ConfigurationError, Settings
from app.telemetry.logs import log

KINDS: tuple[type[Provider], ...] = (
    Lunos,
    Lumenfall,
    Lumen,
    GptGe,
    Apilaplas,
    Ark,
    DashScope,
    Fal,
    Gemini,
    Vertex,
    Kling,
    MiniMax,
    OpenAI,
    OpenRouter,
    Replicate,
    Runway,
    XAI,
    Sandbox,
)

__all__ = ["KINDS", "KIND_NAMES", "Instance", "build", "read_instances", "unused_routes"]

KIND_NAMES = {kind.kind: kind for kind in KINDS}


@dataclass(frozen=True)
class Instance:
    """One provider of the settings, whether or not it is enabled and complete."""

    name: str
    kind: type[Provider]
    config: ProviderConfig | None
    """None if required settings are missing."""
    missing: str = ""
    """The variables of those."""


def read_instances(settings: Settings) -> Iterator[Instance]:
    """Read the settings of every provider, and of the sandbox. Raises `ConfigurationError` with the variable."""
    for name, values in {**settings.providers, "sandbox": settings.providers.get("sandbox", {})}.items():
        prefix = f"GATEWAY_PROVIDERS__{name.upper()}__"
        kind = KIND_NAMES.get(str(values.get("kind", name)))
        if kind is None:
            raise ConfigurationError(f"{prefix}KIND: expected one of {', '.join(KIND_NAMES)}")
        try:
            yield Instance(name, kind, kind.Config.model_validate({**values, "kind": kind.kind}))
        except ValidationError as error:
            missing = [p for p in error.errors() if p["type"] == "missing"]
            if len(missing) < error.error_count():
                raise ConfigurationError(explain(error, prefix)) from None
            fields = ", ".join(prefix + "__".join(str(part).upper() for part in p["loc"]) for p in missing)
            yield Instance(name, kind, None, fields)


def build(settings: Settings, *, starts: bool = False) -> dict[str, Provider]:
    """Build every configured provider, and the sandbox unless disabled. Raises `ConfigurationError` with the variable.

    A provider whose required fields are not all set is left out with a warning, and so are aliases without a route. At
    a start, the outbound proxies are logged, too.
    """
    providers: dict[str, Provider] = {}
    for one in read_instances(settings):
        if one.config is None:
            log.warning("provider left out", provider=one.name, missing=one.missing)
        elif one.config.enabled:
            outbound = Outbound(tuple(settings.allow_networks), proxies_of(one.name, one.config, settings))
            providers[one.name] = one.kind(one.name, one.config, outbound)
    if starts:
        report_proxies(providers.values())
    report_unused(settings, providers, KIND_NAMES)
    return providers
