"""Models of the responses about models, for the OpenAPI document; `models.py` renders them."""

from datetime import date
from typing import ClassVar, Literal

from app.http.openapi import Json, ResponseModel
from app.video import Operation


class SecondsRange(ResponseModel):
    minimum: float
    maximum: float
    whole: bool
    """True: whole seconds only."""


class CountRange(ResponseModel):
    minimum: int
    maximum: int


class ModelCapabilities(ResponseModel):
    """Parameters and values that a model supports. Null: not known, the upstream decides. Empty: no such parameter."""

    seconds: list[float] | SecondsRange | None
    """Supported lengths."""
    default_seconds: float | None
    sizes: list[str] | None
    aspect_ratios: list[str] | None
    resolutions: list[str] | None
    parameters: list[str]
    """Optional fields of a request that it supports."""
    media: list[Literal["upload", "url"]]
    """Forms of pictures and videos that it takes."""
    operations: list[Operation]
    n: CountRange
    """Number of outputs per request."""
    passes_unknown_fields: bool
    """True: fields that this gateway does not know are passed on."""


class ModelPricing(ResponseModel):
    currency: Literal["USD"]
    per_second: dict[str, float]
    """US dollars per second by resolution; `any` stands for every other resolution."""


class ModelRoute(ResponseModel):
    """A route of a model."""

    route: str
    capabilities: ModelCapabilities
    pricing: ModelPricing | None
    median_seconds: float | None
    """Median time to the finished video of the model's default length and resolution; null: none was made lately."""
    tried_live: date | None
    """Date at which its kind was last tried with the real vendor."""


class Model(ResponseModel):
    """A model or an alias, with the capabilities and the price of its first route."""

    example: ClassVar[Json] = {
        "id": "lumen/veo-3-1",
        "object": "model",
        "created": 0,
        "owned_by": "lumen",
        "title": None,
        "status": None,
        "routes": ["lumen/veo-3-1"],
        "capabilities": {
            "seconds": [4, 6, 8],
            "default_seconds": 8,
            "sizes": None,
            "aspect_ratios": ["16:9", "9:16"],
            "resolutions": ["720p", "1080p"],
            "parameters": ["first_frame", "generate_audio"],
            "media": ["upload", "url"],
            "operations": ["generate"],
            "n": {"minimum": 1, "maximum": 4},
            "passes_unknown_fields": False,
        },
        "pricing": {"currency": "USD", "per_second": {"any": 0.1}},
        "served_by": [],
    }

    id: str
    object: Literal["model"]
    created: int
    """Always 0."""
    owned_by: str
    """The provider of its first route."""
    title: str | None
    """Null: not a model of the catalogue."""
    status: Literal["current", "legacy", "retired"] | None
    routes: list[str]
    """`provider/model` of all its routes, in order."""
    capabilities: ModelCapabilities
    pricing: ModelPricing | None
    """Null: no price is known."""
    served_by: list[ModelRoute]
    """Each route with its own capabilities and price."""


class ModelList(ResponseModel):
    object: Literal["list"]
    data: list[Model]
