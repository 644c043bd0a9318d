"""Upstreams: one file per kind, the list of kinds, and the instances that the settings name."""

from pydantic import ValidationError

from app.mistakes import explain
from app.providers.apilaplas import Apilaplas
from app.providers.ark import Ark
from app.providers.base import Provider
from app.providers.fal import Fal
from app.providers.gemini import Gemini
from app.providers.gptge import GptGe
from app.providers.lumen import Lumen
from app.providers.lumenfall import Lumenfall
from app.providers.lunos import Lunos
from app.providers.openai import OpenAI
from app.providers.sandbox import Sandbox
from app.providers.unused import report_unused, unused_routes
from app.settings import ConfigurationError, Settings
from app.telemetry import log

KINDS: tuple[type[Provider], ...] = (
    Lunos,
    Lumenfall,
    Lumen,
    GptGe,
    Apilaplas,
    Ark,
    Fal,
    Gemini,
    OpenAI,
    Sandbox,
)

__all__ = ["KINDS", "KIND_NAMES", "build", "unused_routes"]

KIND_NAMES = {kind.kind: kind for kind in KINDS}


def build(settings: Settings) -> dict[str, Provider]:
    """Build every configured provider, and the sandbox unless disabled. Raises `ConfigurationError` with the variable.

    A provider whose required fields are not all set is left out with a warning, and so are aliases without a route.
    """
    kinds = KIND_NAMES
    providers: dict[str, Provider] = {}
    for name, values in {**settings.providers, "sandbox": settings.providers.get("sandbox", {})}.items():
        prefix = f"GATEWAY_PROVIDERS__{name.upper()}__"
        kind = kinds.get(str(values.get("kind", name)))
        if kind is None:
            raise ConfigurationError(f"{prefix}KIND: expected one of {', '.join(kinds)}")
        try:
            config = kind.Config.model_validate({**values, "kind": kind.kind})
        except ValidationError as error:
            missing = [p for p in error.errors() if p["type"] == "missing"]
            if len(missing) == error.error_count():
                fields = ", ".join(prefix + "__".join(str(part).upper() for part in p["loc"]) for p in missing)
                log.warning("provider left out", provider=name, missing=fields)
                continue
            raise ConfigurationError(explain(error, prefix)) from None
        if config.enabled:
            providers[name] = kind(name, config, tuple(settings.allow_networks))
    report_unused(settings, providers, kinds)
    return providers
