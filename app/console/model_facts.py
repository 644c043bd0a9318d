"""Facts about models in words: lengths, sizes, inputs, price and usual time of a route, and of a whole model."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.accounts import pricing
from app.capabilities import Capabilities, union_of, with_defaults
from app.console.pages import format_usd
from app.http.context import Gateway
from app.providers.routing import Route
from app.video import VideoRequest

INPUTS = {
    "first_frame": "first frame",
    "last_frame": "last frame",
    "reference_images": "reference pictures",
    "reference_video": "reference video",
    "characters": "characters",
    "generate_audio": "sound",
    "negative_prompt": "negative prompt",
    "seed": "seed",
    "loop": "loop",
    "expand_prompt": "prompt expansion",
}
"""Parameters of models, in words."""
MEDIA = ("first_frame", "last_frame", "reference_images", "reference_video", "generate_audio")
"""Those of the short list."""
UNKNOWN = "the vendor decides"


@dataclass(frozen=True)
class Line:
    """One route of a model in a table."""

    route: str
    kind: str
    seconds: str
    sizes: str
    inputs: str
    price: str
    usual_s: float | None

    @property
    def summary(self) -> list[str]:
        """The facts that are known, in short."""
        length = [] if self.seconds == UNKNOWN else [f"{self.seconds} s"]
        usual = [] if self.usual_s is None else [f"usually {self.usual_s:.0f} s"]
        return [*length, *([] if self.sizes == UNKNOWN else [self.sizes]), self.price, *usual]


def able_of(candidates: Sequence[Route]) -> Capabilities:
    """The capabilities of a whole model: what any of its routes can do."""
    return union_of([route.capabilities for route in candidates])


def route_line(gateway: Gateway, route: Route) -> Line:
    able = route.capabilities
    return Line(
        route.name,
        route.provider.kind,
        seconds_of(able),
        sizes_of(able),
        ", ".join(INPUTS[name] for name in MEDIA if name in able.parameters),
        price_of(gateway, route),
        usual_s(gateway, route),
    )


def usual_s(gateway: Gateway, route: Route) -> float | None:
    """The usual time of a route for its defaults, in seconds."""
    request = with_defaults(VideoRequest(prompt="", model=""), route.capabilities)
    time = gateway.durations.times([route], request).get(route.name)
    return None if time is None else time.median_s


def line_of(gateway: Gateway, name: str, candidates: Sequence[Route]) -> Line:
    """The facts of a whole model: what any of its routes can do, and the cheapest price per second."""
    able = able_of(candidates)
    micros = [price for route in candidates for price in pricing.prices_of(gateway.settings, route).values()]
    usual = [seconds for route in candidates if (seconds := usual_s(gateway, route)) is not None]
    kinds = {route.provider.kind for route in candidates}
    return Line(
        name,
        kinds.pop() if len(kinds) == 1 else "",
        seconds_of(able),
        sizes_of(able),
        ", ".join(INPUTS[name] for name in MEDIA if name in able.parameters),
        f"{'from ' if len(set(micros)) > 1 else ''}{format_usd(min(micros))} a second" if micros else "no known price",
        min(usual, default=None),
    )


def price_of(gateway: Gateway, route: Route) -> str:
    """Prices per second by resolution."""
    prices = pricing.prices_of(gateway.settings, route)
    return "; ".join(f"{format_usd(micros)}{f' at {name}' if name else ''}" for name, micros in prices.items()) or "-"


def seconds_of(able: Capabilities) -> str:
    if not able.seconds:
        return UNKNOWN
    if able.seconds_range:
        return f"{able.seconds[0]:g} to {able.seconds[1]:g}"
    return ", ".join(f"{length:g}" for length in able.seconds)


def sizes_of(able: Capabilities) -> str:
    return ", ".join(able.sizes or able.resolutions or ()) or UNKNOWN
