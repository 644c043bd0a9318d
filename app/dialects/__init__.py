"""Public APIs: one file per dialect, the list of dialects, and the lookup of a path's dialect."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError

from app import errors
from app.dialects import apilaplas, luma, lumen, lunos, openai
from app.mistakes import explain
from app.settings import ConfigurationError, Settings
from app.webhooks.sender import WebhookStyle

DIALECTS: tuple[ModuleType, ...] = (lunos, lumen, luma, apilaplas, openai)
"""Each has `TITLE`, `PREFIXES`, `render_error` with the `ErrorModel` that describes its errors, and `routes`, of which
the first POST creates a video; those with webhooks have a `WEBHOOK_STYLE`, those with settings a `Config`. Lumen's
paths lie below OpenAI's prefix, so the longest matching prefix decides. The last dialect renders errors of paths that
belong to none."""

PREFIXES = tuple(prefix for dialect in DIALECTS for prefix in dialect.PREFIXES)

WEBHOOK_STYLES: Mapping[str, WebhookStyle] = {
    dialect.WEBHOOK_STYLE.name: dialect.WEBHOOK_STYLE for dialect in DIALECTS if hasattr(dialect, "WEBHOOK_STYLE")
}


def configure(settings: Settings) -> dict[str, BaseModel]:
    """Validate the settings of each dialect that has a `Config`. Raises `ConfigurationError` naming the variable."""
    kinds = {name_of(dialect): dialect.Config for dialect in DIALECTS if hasattr(dialect, "Config")}
    unknown = settings.dialects.keys() - kinds.keys()
    if unknown:
        prefix = f"GATEWAY_DIALECTS__{min(unknown).upper()}"
        raise ConfigurationError(f"{prefix}: expected one of {', '.join(kinds)}, which have settings")
    configs: dict[str, BaseModel] = {}
    for name, kind in kinds.items():
        try:
            configs[name] = kind.model_validate(settings.dialects.get(name, {}))
        except ValidationError as error:
            raise ConfigurationError(explain(error, f"GATEWAY_DIALECTS__{name.upper()}__")) from None
    return configs


def name_of(dialect: ModuleType) -> str:
    return dialect.__name__.rpartition(".")[2]


def create_paths(dialect: ModuleType) -> list[str]:
    """The paths of a dialect's first POST route, which creates a video, and its aliases."""
    posts = [route for route in dialect.routes.routes if "POST" in getattr(route, "methods", ())]
    return [route.path for route in posts if route.endpoint is posts[0].endpoint]


def dialect_of(path: str) -> ModuleType:
    """The dialect with the longest matching prefix: errors of paths without a route must be rendered too."""
    return _claiming(path) or DIALECTS[-1]


def name_at(path: str) -> str | None:
    """Name of the dialect that a path belongs to; None for the gateway's own, such as `/admin` and `/media`."""
    dialect = _claiming(path)
    return None if dialect is None else name_of(dialect)


def _claiming(path: str) -> ModuleType | None:
    claims = [
        (len(prefix), dialect) for dialect in DIALECTS for prefix in dialect.PREFIXES if f"{path}/".startswith(prefix)
    ]
    return max(claims, key=lambda claim: claim[0])[1] if claims else None


def render_error(error: errors.GatewayError, *, path: str, request_id: str) -> dict[str, Any]:
    """Render an error in the shape of the path's dialect."""
    body: dict[str, Any] = dialect_of(path).render_error(error, path=path, request_id=request_id)
    return body
