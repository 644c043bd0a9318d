"""Prices, estimates, quotes and costs of videos, in millionths of a US dollar (micros).

A price of zero is 0; an unknown price is None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal

from app import errors
from app.capabilities import in_micros, with_defaults
from app.providers.routing import Route
from app.settings import Settings
from app.video import Operation, VideoRequest

MICROS = 1_000_000
LEAST_SECONDS = 1.0
"""Least billed length of an output: no upstream makes a video as short as a request may ask for."""

TOLERANCE = 0.05
"""Share of our price by which a reported cost may be above it before the operator is warned."""
ASSUMED_SECONDS = 60.0
"""Longest charged length of an output for jobs of releases that did not fix one."""


@dataclass(frozen=True)
class Formula:
    """Price of one output on one route: an amount per second and a fixed one, in micros."""

    per_second: int
    fixed: int = 0
    """For the task itself, such as its input images."""
    least: int = 0
    """Least price of a task."""

    @classmethod
    def read(cls, stored: int | Mapping[str, int] | None) -> "Formula | None":
        """The formula that `stored` is; None: no price is known."""
        if stored is None or isinstance(stored, int):
            return None if stored is None else cls(stored)
        return cls(**stored)

    @property
    def stored(self) -> int | dict[str, int]:
        """The formula as it is kept with a job: micros per second where that is all."""
        return asdict(self) if self.fixed or self.least else self.per_second

    def micros(self, seconds: float) -> int:
        """Price of one output of this length."""
        return max(self.fixed + round(seconds * self.per_second), self.least)

    def seconds(self, micros: int) -> float:
        """Length that costs so much; only for a price by length."""
        return max(0, micros - self.fixed) / self.per_second


@dataclass(frozen=True)
class Estimate:
    """Expected cost of a request on one route."""

    seconds: float
    """Length of each output."""
    outputs: int
    formula: Formula

    @property
    def billable_seconds(self) -> float:
        """Billed length of each output, at least `LEAST_SECONDS`: without it, tiny jobs would pass any budget."""
        return max(self.seconds, LEAST_SECONDS)

    @property
    def micros(self) -> int:
        """Cost of all outputs together."""
        return self.formula.micros(self.billable_seconds) * self.outputs


@dataclass(frozen=True)
class Quote:
    """Estimate, prices and hold, fixed when a job is created; later price changes do not affect it."""

    estimate_micros: int | None
    """Cost of all outputs on the first route, as shown to the client."""
    prices: list[int | dict[str, int] | None]
    """Formula of each route as it is stored; None: not known."""
    hold_micros: int | None
    """Hold for each output: the highest estimate of all routes; None when one of them is not known."""
    longest_s: float
    """Longest length that an output is charged for where nothing is held."""


@dataclass(frozen=True)
class Cost:
    """Cost of one output: never more than was held for it, whatever its file says."""

    micros: int | None
    """None when length or price is not known."""
    seconds: float | None
    """Length that is charged."""
    uncapped_micros: int | None = None
    """Cost by the measured length where that is more; None: not capped."""


NO_COST = Cost(None, None)


def is_underpriced(cost_micros: int, reported_micros: int | None) -> bool:
    """True if an upstream reports a cost that is above ours by more than `TOLERANCE`."""
    return reported_micros is not None and reported_micros > cost_micros * (1 + TOLERANCE)


def dollars(micros: int | None) -> float | None:
    """Convert micros to US dollars for JSON; exact up to nine billion dollars."""
    return None if micros is None else micros / MICROS


def format_usd(micros: int) -> str:
    """Format micros for messages: `$12.5`, with as many decimals as needed."""
    return f"${micros / MICROS:.6f}".rstrip("0").rstrip(".")


def micros_of(amount: float | Decimal) -> int:
    """Convert US dollars to micros. Raises `ValueError` for more than six decimals or too large an amount."""
    exact = Decimal(str(amount)) * MICROS
    if exact != exact.to_integral_value() or abs(exact) >= 10**15:
        raise ValueError("expected US dollars with at most six decimals, below a billion")
    return int(exact)


def prices_of(settings: Settings, route: Route, request: VideoRequest | None = None) -> Mapping[str, int]:
    """Micros per second by resolution, `""` for any: prices from the settings, else the vendor's list prices, for a
    request without sound those without where the vendor has such."""
    configured = settings.prices.get(route.name)
    if configured is not None:
        table = configured if isinstance(configured, dict) else {"": configured}
        return in_micros(table)
    if request is None:
        return route.capabilities.prices
    able = route.capabilities_for(request)
    return able.silent_prices if able.silent_prices and request.generate_audio is False else able.prices


def price(settings: Settings, route: Route, request: VideoRequest) -> Formula | None:
    """The formula for a request; None when no price is known for its resolution."""
    table = prices_of(settings, route, request)
    able = route.capabilities_for(request)
    resolution = with_defaults(request, able).resolution or able.default_resolution
    per_second = table.get(resolution or "", table.get(""))
    if per_second is None or route.name in settings.prices:
        return None if per_second is None else Formula(per_second)
    images = sum(medium is not None for medium in (request.first_frame, request.last_frame, *request.reference_images))
    return Formula(per_second, max(0, images - able.free_images) * able.image_micros, able.least_micros)


def expected_seconds(route: Route, request: VideoRequest) -> float | None:
    """Length of each output: as requested, else the model's default, at least that of the source of a remix or an
    edit; None when it is not known."""
    seconds = request.seconds if request.seconds is not None else route.capabilities_for(request).default_seconds
    if request.operation in (Operation.remix, Operation.edit) and request.source and request.source.seconds:
        return max(seconds or 0, request.source.seconds)
    return seconds


def longest_seconds(settings: Settings, route: Route, request: VideoRequest) -> float:
    """Longest length that an output is charged for where nothing is held: the expected one, else the model's longest,
    else the setting."""
    known = route.capabilities_for(request).seconds
    expected = expected_seconds(route, request)
    return max(expected or max(known or (settings.assumed_length_s,)), LEAST_SECONDS)


def estimate(settings: Settings, route: Route, request: VideoRequest) -> Estimate | None:
    """Estimate a request on one route; None when the price or the length is not known."""
    seconds = expected_seconds(route, request)
    formula = price(settings, route, request)
    if formula is not None and formula.per_second == 0:
        seconds = seconds or 0  # the same at any length
    if seconds is None or formula is None:
        return None
    return Estimate(seconds, request.n, formula)


def quote(settings: Settings, routes: Sequence[Route], request: VideoRequest) -> Quote:
    """Quote a request for the routes of its plan."""
    estimates = [estimate(settings, route, request) for route in routes]
    formulas = [
        found.formula if found is not None else price(settings, route, request)
        for found, route in zip(estimates, routes, strict=True)
    ]
    holds = [found.micros // found.outputs for found in estimates if found is not None]
    return Quote(
        estimate_micros=estimates[0].micros if estimates[0] is not None else None,
        prices=[None if formula is None else formula.stored for formula in formulas],
        hold_micros=max(holds) if len(holds) == len(estimates) else None,
        longest_s=max(longest_seconds(settings, route, request) for route in routes),
    )


UNPRICED, SET_PRICE = "no price is known for it", "the operator sets one under [prices]"


def no_price(name: str, why: str = UNPRICED, then: str = SET_PRICE) -> errors.InsufficientFunds:
    return errors.InsufficientFunds(
        f"{name}: {why}, so the limit of this key or its project cannot cover it; {then}", code="price_unknown"
    )


def unpriced(settings: Settings, route: Route, request: VideoRequest) -> errors.InsufficientFunds:
    """Build the 402 error for a request without an estimate on this route, with the reason and the next step."""
    return no_price(route.name, *_reason(settings, route, request))


def no_estimate(settings: Settings, route: Route, request: VideoRequest) -> str:
    """A sentence about a missing estimate on this route, with the reason and the next step."""
    why, then = _reason(settings, route, request) or (UNPRICED, SET_PRICE)
    return f"the cost cannot be estimated: {route.name}: {why}; {then}"


def _reason(settings: Settings, route: Route, request: VideoRequest) -> tuple[str, str] | tuple[()]:
    """Reason for a missing estimate, and the next step; empty when the route has no price at all."""
    table = prices_of(settings, route, request)
    if not table:
        return ()
    if price(settings, route, request) is None:
        scope = f"for {request.resolution}" if request.resolution else "without a resolution"
        return f"no price is known {scope}", f"name a resolution that has one: {', '.join(table)}"
    if request.operation is Operation.edit:
        return "the length of the video to be edited is not known", "edit a video of this gateway, by its id"
    return "the length of the video is not known", "name its length, or a model with a default length"


def cost(
    prices: Sequence[int | dict[str, int] | None],
    route_index: int,
    seconds: float | None,
    *,
    hold_micros: int | None,
    longest_s: float,
) -> Cost:
    """Cost of one output by its length, at the prices of its quote, at most what was held for it; where nothing was
    held, at most that of `longest_s`."""
    formula = Formula.read(prices[route_index]) if route_index < len(prices) else None
    if formula is None:
        return Cost(None, None if seconds is None else min(seconds, longest_s))
    if formula.per_second == 0:
        return Cost(formula.micros(0), None if seconds is None else min(seconds, max(longest_s, LEAST_SECONDS)))
    if seconds is None:
        return Cost(None, None)
    most = formula.micros(longest_s) if hold_micros is None else hold_micros
    by_length = formula.micros(seconds)
    if by_length <= most:
        return Cost(by_length, seconds)
    return Cost(most, formula.seconds(most), uncapped_micros=by_length)


def held_seconds(prices: Sequence[int | dict[str, int] | None], hold_micros: int | None) -> float | None:
    """Length that the hold covers, at the price of the most expensive route; for requests without a length."""
    formulas = [formula for formula in map(Formula.read, prices) if formula is not None and formula.per_second]
    return min((formula.seconds(hold_micros) for formula in formulas), default=None) if hold_micros else None
