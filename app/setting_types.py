"""Types of the settings' values: aliases, keys of the administration API, prices, outbound proxies."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

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


@dataclass(frozen=True)
class Proxy:
    """An outbound proxy. Its texts have neither user nor password."""

    scheme: str
    host: str
    port: int
    credentials: str | None = field(default=None, repr=False)
    """User and password as `user:password`, decoded."""

    @property
    def name(self) -> str:
        """Host and port, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{'***@' if self.credentials is not None else ''}{self.name}"


NO_PROXY = "none"
"""Value of a setting that stands for a direct connection."""
_PROXY = (
    "expected http://host:port or https://host:port, with user:password@ before the host if the proxy asks for them "
    f"(@ : / # ? % percent-encoded), or {NO_PROXY}"
)
_PROXY_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?|[0-9a-f:.]*:[0-9a-f:.]*")


def read_proxy(text: str) -> Proxy | None:
    """Read the address of a proxy; None for `NO_PROXY`. Raises `ValueError`, whose message has nothing of the text but
    its scheme."""
    if text.strip().lower() == NO_PROXY:
        return None
    scheme = re.match(r"([a-z][a-z0-9+.-]{0,20})://", text.strip(), re.IGNORECASE)
    if scheme is not None and scheme[1].lower() not in _PROXY_PORTS:
        raise ValueError(f"proxies by {scheme[1].lower()} are not supported; {_PROXY}")
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(_PROXY) from None
    more = parts.path.strip("/") + parts.query + parts.fragment
    if scheme is None or port == 0 or more or not _HOST.fullmatch(host):
        raise ValueError(_PROXY)
    given = None if parts.username is None else f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(parts.scheme, host, port or _PROXY_PORTS[parts.scheme], given)


def check_proxy(value: SecretStr) -> SecretStr:
    """Check the address of a proxy. Raises `ValueError`."""
    read_proxy(value.get_secret_value())
    return value
