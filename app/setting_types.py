"""Types of the settings' values: aliases, keys of the administration API, prices."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from app.video import shorter_side


class WeightedRoute(BaseModel):
    """A route that is chosen first with probability proportional to `weight`."""

    model_config = ConfigDict(extra="forbid")

    to: str
    weight: Annotated[float, Field(gt=0)]


class ModelSettings(BaseModel):
    """One alias, `[models."name"]` in the TOML file."""

    model_config = ConfigDict(extra="forbid")

    routes: Annotated[list[str | WeightedRoute], Field(min_length=1)]
    """`provider/upstream-model` or a model of the catalogue, tried in this order; with `{ to = "...", weight = 3 }`, in
    weighted random order."""
    unsupported: Literal["error", "drop"] = "error"
    """Handling of a parameter that no route can express: a 400, or it is left out and listed in `warnings`."""
    frames: Literal["refuse", "pad", "crop"] = "refuse"
    """Handling of an uploaded first or last frame of another ratio than the video's."""
    on_unknown: Literal["fail", "resubmit"] = "fail"
    """Handling of a submit with an unknown outcome: `resubmit` may pay twice."""
    strategy: Literal["order", "cheapest", "fastest", "weighted"] | None = None
    """Order in which the routes are tried; unset: `weighted` if one has a weight, `cheapest` for a single model of the
    catalogue, else `order`."""
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """Highest cost of one request in US dollars, all outputs; dearer routes are not used."""
    retry_failed: bool = False
    """True: a verified failure upstream that the client did not cause goes on to the next route."""


class AdminKey(BaseModel):
    """One key of the administration API, `[admin_keys]` in the TOML file."""

    model_config = ConfigDict(extra="forbid")

    key: SecretStr
    role: Literal["read", "write"] = "write"
    """`read`: it may look at everything and change nothing."""


StaticKeys = list[SecretStr] | dict[str, SecretStr]
Price = Annotated[float, Field(ge=0)]
Prices = dict[str, Price | dict[str, Price]]


def by_resolution(model: str, table: dict[str, float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for resolution, price in table.items():
        try:
            name = f"{shorter_side(resolution)}p" if resolution else ""
        except ValueError as error:
            raise ValueError(f"{model}: {error}") from None
        if name in found:
            raise ValueError(f"{model}: {name} has two prices")
        found[name] = price
    return found
