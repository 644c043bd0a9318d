"""Fields of fal's video endpoints, and the choice of an endpoint for a request.

`endpoints.json` has the typed endpoint map of `@fal-ai/client` 1.10.1 (2026-11-25), which lacks newer endpoints;
those are in `endpoints.toml`, with a source for each. Quirks: an endpoint does one thing (text, first frame, first
and last frame, references, extend, edit), the name of a field differs from model to model, and a length is a quoted
number for most, a number for some, with an `s` for Veo and Luma.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from app.capabilities import Capabilities, fit, in_micros
from app.sizes import complete_size
from app.video import Operation, VideoRequest, shorter_side

MODES: tuple[tuple[str, Operation], ...] = (
    ("", Operation.generate),
    ("text-to-video", Operation.generate),
    ("image-to-video", Operation.generate),
    ("first-last-frame-to-video", Operation.generate),
    ("start-end-to-video", Operation.generate),
    ("transition", Operation.generate),
    ("reference-to-video", Operation.generate),
    ("extend-video", Operation.extend),
    ("video-extension", Operation.extend),
    ("edit-video", Operation.edit),
    ("video-to-video/edit", Operation.edit),
    ("video-to-video", Operation.edit),
    ("video-to-video/remix", Operation.edit),
    ("edit", Operation.edit),
)
"""Last segments of the endpoints of a family, in the order in which they are considered, and what they do."""

MEDIA: Mapping[str, tuple[str, ...]] = {
    "first_frame": ("image_url", "start_image_url", "first_frame_url", "first_image_url"),
    "last_frame": ("end_image_url", "last_frame_url", "tail_image_url"),
    "reference_images": ("image_urls", "reference_image_urls", "ref_image_urls", "input_image_urls"),
    "reference_video": ("reference_video_urls", "video_urls", "video_url"),
}
"""Names of the fields for each medium of a request, of which an endpoint has one at most."""
PLAIN: Mapping[str, tuple[str, ...]] = {
    "negative_prompt": ("negative_prompt",),
    "seed": ("seed",),
    "generate_audio": ("generate_audio", "generate_audio_switch", "audio"),
    "loop": ("loop",),
    "expand_prompt": ("enable_prompt_expansion", "prompt_optimizer"),
}
CORE = ("prompt", "duration", "resolution", "aspect_ratio", "end_user_id")
UNKNOWN = Capabilities(seconds=(), aspect_ratios=(), resolutions=(), passes_extra=True)
"""Capabilities of an endpoint in no table: the prompt, and the vendor's own fields as the client gives them."""


@dataclass(frozen=True)
class Field:
    """One input field of an endpoint."""

    type: str
    """`string`, `number`, `3..15` for whole numbers, both included, `6 | 8` for those alone, `boolean`, `url|data-uri`,
    `Array<...>`, or quoted values joined by bars."""
    default: str | None = None
    """As JSON."""
    required: bool = False

    @cached_property
    def options(self) -> tuple[str, ...]:
        """The values to choose from; empty if any is taken."""
        return tuple(re.findall(r'"([^"]*)"', self.type))

    @cached_property
    def whole_numbers(self) -> tuple[int, ...]:
        match = re.fullmatch(r"(\d+)\.\.(\d+)", self.type)
        if match:
            return tuple(range(int(match[1]), int(match[2]) + 1))
        listed = self.type.split(" | ")
        return tuple(map(int, listed)) if all(re.fullmatch(r"\d+", one) for one in listed) else ()

    @property
    def default_value(self) -> Any:
        return json.loads(self.default) if self.default is not None and self.default != "auto" else None


@dataclass(frozen=True)
class Endpoint:
    """One endpoint with its fields."""

    id: str
    fields: Mapping[str, Field]
    operation: Operation
    prices: Mapping[str, int]
    """Micro-dollars per second by resolution; `""` where it cannot be chosen."""
    silent_prices: Mapping[str, int]
    """The same without sound, where that is cheaper."""
    image_price: int
    """Micro-dollars for each picture that is sent."""
    made: str | None
    """The resolution that it makes, where it cannot be chosen and is known."""

    def name_of(self, parameter: str) -> str | None:
        """The field for a medium or another parameter of a request; None if the endpoint has none."""
        names = MEDIA.get(parameter) or PLAIN[parameter]
        if parameter == "reference_video" and self.operation is not Operation.generate:
            return None  # its video is the source
        return next((name for name in names if name in self.fields), None)

    @property
    def source_name(self) -> str | None:
        """The field for the video that an extension or an edit starts from."""
        return "video_url" if self.operation is not Operation.generate and "video_url" in self.fields else None

    @cached_property
    def capabilities(self) -> Capabilities:
        given = {name: field for name in (*MEDIA, *PLAIN) if (field := self.name_of(name)) is not None}
        used = {*CORE, *given.values(), self.source_name}
        duration = self.fields.get("duration")
        return Capabilities(
            seconds=() if duration is None else _numbers(duration) or None,
            default_seconds=_number(duration.default_value) if duration is not None else None,
            resolutions=(self.made,) if self.made else self._options("resolution", _resolutions),
            aspect_ratios=self._options("aspect_ratio", _ratios),
            default_size=self._default_size(),
            parameters=frozenset(given),
            required=frozenset(name for name, field in given.items() if self.fields[field].required),
            operations=frozenset({self.operation}),
            prices=dict(self.prices),
            silent_prices=dict(self.silent_prices),
            image_micros=self.image_price,
            default_resolution=self._default_resolution(),
            vendor_fields=frozenset(self.fields) - used,
        )

    def _default_resolution(self) -> str | None:
        """The resolution that is sent for requests that name none."""
        field = self.fields.get("resolution")
        return next(_resolutions(Field(f'"{field.default_value}"')), None) if field is not None else None

    def _options(self, name: str, read: Any) -> tuple[str, ...] | None:
        if name not in self.fields:
            return ()
        return tuple(read(self.fields[name])) or None

    def _default_size(self) -> str | None:
        ratio, resolution = (self.fields.get(name) for name in ("aspect_ratio", "resolution"))
        if ratio is None or resolution is None or "auto" in (ratio.default_value, resolution.default_value):
            return None
        if ratio.default_value is None or resolution.default_value is None:
            return None
        return complete_size(None, ratio.default_value, resolution.default_value.lower()).get("size")


def _numbers(field: Field) -> tuple[float, ...]:
    return field.whole_numbers or tuple(number for option in field.options if (number := _number(option)))


def _number(value: Any) -> float | None:
    """The number that `5`, `"5"` or `"5s"` is; None for `auto` and the like."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)s?", str(value))
    return float(match[1]) if match else None


def _resolutions(field: Field) -> Iterator[str]:
    for option in field.options:
        if re.fullmatch(r"\d+[pP]|\d[kK]", option):
            yield f"{shorter_side(option.lower())}p"


def _ratios(field: Field) -> Iterator[str]:
    return (option for option in field.options if ":" in option)


# The tables


@cache
def known_endpoints() -> Mapping[str, Endpoint]:
    """Every known endpoint by its id."""
    folder = Path(__file__).parent
    typed = json.loads((folder / "endpoints.json").read_text("utf-8"))["endpoints"]
    own = tomllib.loads((folder / "endpoints.toml").read_text("utf-8"))
    listed = tomllib.loads((folder / "prices.toml").read_text("utf-8"))["rows"]
    prices = own | {name: row for row in listed for name in row["endpoints"]}
    by_resolution = tomllib.loads((folder / "resolutions.toml").read_text("utf-8"))
    made = {name: resolution for resolution, names in by_resolution.items() for name in names}
    fields: dict[str, Mapping[str, Any]] = {**typed, **{name: row["fields"] for name, row in own.items()}}
    return {
        name: Endpoint(
            name,
            {field: Field(**values) for field, values in given.items()},
            _operation_of(name),
            in_micros(prices.get(name, {}).get("prices", {})),
            in_micros(prices.get(name, {}).get("silent", {})),
            in_micros({"": prices.get(name, {}).get("image", 0)})[""],
            made.get(name),
        )
        for name, given in fields.items()
    }


def _operation_of(name: str) -> Operation:
    for mode, operation in MODES:
        is_mode = name.endswith(f"/{mode}") if mode == "video-to-video" else f"/{mode}" in name
        if operation is not Operation.generate and is_mode:  # not .../video-to-video/reference, which makes a new shot
            return operation
    return Operation.generate


@cache
def family(model: str) -> tuple[Endpoint, ...]:
    """The endpoints that `model` stands for: the one of this id, and those of the family whose name it is; empty if
    it is in no table."""
    known = known_endpoints()
    ids = [model if not mode else f"{model}/{mode}" for mode, _ in MODES]
    return tuple(known[name] for name in ids if name in known)


def choose(model: str, request: VideoRequest) -> Endpoint | None:
    """The endpoint of `model` that can express most of a request; None if the model is in no table."""
    candidates = family(model)
    if not candidates:
        return None
    return min(candidates, key=lambda one: len(fit(request, one.capabilities, can_link=True).problems))


@cache
def merged(model: str) -> Capabilities:
    """Capabilities of all endpoints of a model together, for the model list and for prices."""
    able = [endpoint.capabilities for endpoint in family(model)]
    if len(able) <= 1:
        return able[0] if able else UNKNOWN
    return Capabilities(
        seconds=_union(tuple(sorted(one.seconds)) if one.seconds is not None else None for one in able),
        default_seconds=able[0].default_seconds,
        resolutions=_union(one.resolutions for one in able),
        aspect_ratios=_union(one.aspect_ratios for one in able),
        default_size=able[0].default_size,
        parameters=frozenset().union(*(one.parameters for one in able)),
        operations=frozenset().union(*(one.operations for one in able)),
        prices=able[0].prices,
        silent_prices=able[0].silent_prices,
        default_resolution=able[0].default_resolution,
        vendor_fields=frozenset().union(*(one.vendor_fields for one in able)),
    )


def _union(lists: Iterator[tuple[Any, ...] | None]) -> tuple[Any, ...] | None:
    """All values once, in order; None if any list is open."""
    found = list(lists)
    if any(values is None for values in found):
        return None
    return tuple(dict.fromkeys(value for values in found for value in values or ()))


@cache
def families() -> tuple[str, ...]:
    """Names to show in the model list: what is before the mode in the endpoints that make a video of a text."""
    names = {name.removesuffix("/text-to-video") for name in known_endpoints() if name.endswith("/text-to-video")}
    bare = {name for name in known_endpoints() if f"{name}/image-to-video" in known_endpoints()}
    return tuple(sorted(names | bare))
