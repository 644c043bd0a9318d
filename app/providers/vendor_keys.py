"""Keys that people already have: the vendors' own variables, and the line that gives such a key to the gateway."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from app.providers.base import Provider
from app.settings import Settings, are_set
from app.telemetry.logs import log


@dataclass(frozen=True)
class VendorKey:
    """A vendor's own variable that is set; its value is never read."""

    kind: str
    variable: str

    @property
    def line(self) -> str:
        """The line that makes a provider of it, in `.env`, or in a shell after `export`. The braces are required in
        `.env`, where `$NAME` alone would be the key itself."""
        return f"GATEWAY_PROVIDERS__{self.kind.upper()}__API_KEY=${{{self.variable}}}"


def unused_keys(settings: Settings, kinds: Iterable[type[Provider]]) -> Iterator[VendorKey]:
    """The first key at hand of each kind that has no provider in the settings and needs nothing but a key."""
    configured = {str(values.get("kind", name)) for name, values in settings.providers.items()}
    for kind in kinds:
        required = [name for name, field in kind.Config.model_fields.items() if field.is_required()]
        if kind.kind not in configured and required == ["api_key"]:
            for variable in are_set(kind.key_variables)[:1]:
                yield VendorKey(kind.kind, variable)


def report_unused_keys(settings: Settings, kinds: Iterable[type[Provider]]) -> None:
    """Log the line to add for each key at hand."""
    for key in unused_keys(settings, kinds):
        log.info("vendor key not used", variable=key.variable, add=key.line, where=f"in .env below {key.variable}")
