"""What a video costs: prices, estimates, and the cost of what was really made. In millionths of a US dollar.

"Priced at zero" is 0, "no price known" is None; the two are never mixed up.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from app.routing import Route
from app.settings import Settings
from app.video import VideoRequest

MICROS = 1_000_000


@dataclass(frozen=True)
class Estimate:
    """What a request is expected to cost on one route."""

    seconds: float
    """Of all outputs together."""
    micros_per_second: int

    @property
    def micros(self) -> int:
        return round(self.seconds * self.micros_per_second)


def prices_of(settings: Settings, route: Route) -> Mapping[str, int]:
    """Micros per second by resolution, `""` for any: the operator's prices, else the vendor's list prices."""
    configured = settings.prices.get(route.name)
    if configured is not None:
        table = configured if isinstance(configured, dict) else {"": configured}
        return {resolution: round(price * MICROS) for resolution, price in table.items()}
    able = route.provider.capabilities(route.model)
    return able.prices if able is not None else {}


def price(settings: Settings, route: Route, resolution: str | None) -> int | None:
    """Micros for one second, None when no price is known for that resolution."""
    table = prices_of(settings, route)
    return table.get(resolution or "", table.get(""))


def estimate(settings: Settings, route: Route, request: VideoRequest) -> Estimate | None:
    """What the request is expected to cost; None when the price or the length is not known."""
    able = route.provider.capabilities(route.model)
    seconds = request.seconds if request.seconds is not None else able.default_seconds if able else None
    per_second = price(settings, route, request.resolution)
    if seconds is None or per_second is None:
        return None
    return Estimate(seconds * request.n, per_second)


def cost(settings: Settings, route: Route, request: VideoRequest, seconds: float | None) -> int | None:
    """What one finished output costs by its real length, or by the one asked for where that could not be read."""
    length = seconds if seconds is not None else request.seconds
    per_second = price(settings, route, request.resolution)
    return round(length * per_second) if length is not None and per_second is not None else None
