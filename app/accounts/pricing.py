"""What a video may cost and what it did: prices, quotes, costs. In millionths of a US dollar.

"Priced at zero" is 0, "no price known" is None; the two are never mixed up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from app import errors
from app.providers.routing import Route
from app.settings import Settings
from app.video import Operation, VideoRequest

MICROS = 1_000_000
LEAST_SECONDS = 1.0
"""What is expected of an output at least: no upstream makes a film as short as a request may say."""


@dataclass(frozen=True)
class Estimate:
    """What a request is expected to cost on one route."""

    seconds: float
    """Of each output."""
    outputs: int
    micros_per_second: int

    @property
    def billable_seconds(self) -> float:
        """Of each output, at least a second: what was too short to be held for could be asked for without end."""
        return max(self.seconds, LEAST_SECONDS)

    @property
    def micros(self) -> int:
        """Of all outputs together."""
        return charge(self.billable_seconds, self.micros_per_second) * self.outputs


@dataclass(frozen=True)
class Quote:
    """What is written down of the money when a job is created, and what counts whatever the settings say later."""

    estimate_micros: int | None
    """What the client is shown: all outputs on the first route."""
    prices: list[int | None]
    """Micros per second of each route."""
    hold_micros: int | None
    """For each output, the most that any of the routes may cost; None when that of one of them is not known."""


def charge(seconds: float, micros_per_second: int) -> int:
    """The micros that one output of this length costs."""
    return round(seconds * micros_per_second)


def dollars(micros: int | None) -> float | None:
    """For people and JSON; exact to the micro up to nine billion dollars."""
    return None if micros is None else micros / MICROS


def format_usd(micros: int) -> str:
    """For messages: `$12.5`, with as many decimals as it takes."""
    return f"${micros / MICROS:.6f}".rstrip("0").rstrip(".")


def micros_of(amount: float | Decimal) -> int:
    """The micros of an amount in dollars. Raises `ValueError` for what is finer than one, or too much."""
    exact = Decimal(str(amount)) * MICROS
    if exact != exact.to_integral_value() or abs(exact) >= 10**15:
        raise ValueError("expected US dollars with at most six decimals, below a billion")
    return int(exact)


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
    if request.operation in (Operation.remix, Operation.edit) and request.source and request.source.seconds:
        seconds = max(seconds or 0, request.source.seconds)  # it becomes as long as the film that it is made from
    per_second = price(settings, route, request.resolution)
    if per_second == 0:
        seconds = seconds or 0  # of whatever length
    if seconds is None or per_second is None:
        return None
    return Estimate(seconds, request.n, per_second)


def quote(settings: Settings, routes: Sequence[Route], request: VideoRequest) -> Quote:
    """What a request may cost that is tried on these routes in order."""
    estimates = [estimate(settings, route, request) for route in routes]
    holds = [found.micros // found.outputs for found in estimates if found is not None]
    return Quote(
        estimate_micros=estimates[0].micros if estimates[0] is not None else None,
        prices=[price(settings, route, request.resolution) for route in routes],
        hold_micros=max(holds) if len(holds) == len(estimates) else None,
    )


def no_price(
    name: str, why: str = "no price is known for it", then: str = "the operator sets one under [prices]"
) -> errors.InsufficientFunds:
    return errors.InsufficientFunds(
        f"{name}: {why}, so the limit of this key or its project cannot cover it; {then}", code="price_unknown"
    )


def unpriced(settings: Settings, route: Route, request: VideoRequest) -> errors.InsufficientFunds:
    """The 402 for a request without an estimate on this route, with the reason and the next step."""
    return no_price(route.name, *_reason(settings, route, request))


def _reason(settings: Settings, route: Route, request: VideoRequest) -> tuple[str, ...]:
    """Why there is no estimate, and what helps; empty where there is no price at all."""
    table = prices_of(settings, route)
    if not table:
        return ()
    if price(settings, route, request.resolution) is None:
        asked = f"for {request.resolution}" if request.resolution else "without a resolution"
        return f"no price is known {asked}", f"name a resolution that has one: {', '.join(table)}"
    if request.operation is Operation.edit:
        return "how long the film to be edited is is not known", "edit a video of this gateway, by its id"
    return "how long a film it makes is not known", "name its length, or a model that has one of its own"


def cost(prices: Sequence[int | None], route_index: int, seconds: float | None) -> int | None:
    """What one output cost by its length, at the prices of its quote; None when length or price are not known."""
    per_second = prices[route_index] if route_index < len(prices) else None
    if per_second == 0:
        return 0
    return charge(seconds, per_second) if seconds is not None and per_second is not None else None


def held_seconds(prices: Sequence[int | None], hold_micros: int | None) -> float | None:
    """The length that is held for, where a request names none: what the dearest route makes for it."""
    dearest = max((per_second for per_second in prices if per_second), default=None)
    return hold_micros / dearest if hold_micros and dearest else None
