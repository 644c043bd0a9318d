"""Fields of Runway's models by endpoint, the choice of an endpoint for a request, and the body of a request.

`models.json` has the typed parameters of runwayml 5.24.0 (2026-11-25), whose comments give the lengths and the numbers
of references here. Quirks: an endpoint is a kind of input (text, picture, video), and its fields differ by model. A
format is two sides in pixels, from a list of each model, that also stands for the resolution: 864:496 is the 480p of
Seedance 2, 854:480 that of 2.5. Some models have a `resolution`, with a true ratio or none; some follow the picture by
`auto_720p`. The field for a video is `videoUri` or `promptVideo`. A field that a model does not have is refused.
Inferred: Seedance, Kling and Omni make 720p in the shape of a first frame where no format is said.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from app.capabilities import Capabilities, in_micros, union_of
from app.sizes import COMMON_RATIOS, distance
from app.video import Operation, VideoRequest, shorter_side, without_fraction

TEXT, PICTURE, VIDEO = NAMES = ("text_to_video", "image_to_video", "video_to_video")
DEFAULT_SECONDS = 5
DEFAULT_RATIO = "16:9"
DEFAULT_TIERS = ("720p", "768p")
"""The resolution of a request that names none: the first of these that the model has, else its least."""
AREAS = {"360p": 640 * 360, "480p": 854 * 480, "720p": 1280 * 720, "1080p": 1920 * 1080, "2160p": 3840 * 2160}
"""Pixels of a frame by resolution, for formats whose shorter side is none of them."""
PIXELS = re.compile(r"(\d{3,4}):(\d{3,4})")
FIXED_POSITION = "position*"
"""In the type of a field for pictures: one without a position is a first frame; elsewhere it would be a reference."""
PLAIN = {"seed": "seed", "generate_audio": "audio", "negative_prompt": "negativePrompt"}
SOURCES = ("videoUri", "promptVideo")
OWN = {"promptText", "promptImage", *SOURCES, "references", "duration", "ratio", "resolution", "mode", *PLAIN.values()}
OWN |= {"targetAspectRatio"}
MODES = {Operation.edit: "edit", Operation.extend: "extend"}
DRAFT_OF = "draftTaskId"
UNPRICED = ("draft", DRAFT_OF, "outputFormat", "proresProfile")
"""Vendor's own fields with another price than the list's, which is not known."""
KEYFRAMES_BY_COMMENT = ("hailuo3", "wan3", "wan3_prime")
"""Models whose pictures are no more than objects in the types, and whose comments name first and last."""
MAX_RESOLUTION_WITH_REFERENCES = {"grok_imagine_1_5": "720p"}


@dataclass(frozen=True)
class Facts:
    """Limits and prices of a model, which its types do not have; prices in US dollars per second."""

    seconds: tuple[float, ...] | None = None
    is_range: bool = False
    default_seconds: int = DEFAULT_SECONDS
    references: Mapping[str, int] | int | None = None
    """Most reference images, of all endpoints or by endpoint."""
    prices: Mapping[str, float] | float | None = None
    silent: float | None = None
    least: float = 0
    video_is_billed: bool = False
    """True: a video that is given costs something for its length, too."""


KLING_OMNI = Facts(references={PICTURE: 7, VIDEO: 4})
FACTS = {
    "gen4.5": Facts((2, 10), is_range=True, prices=0.12),
    "gen4_turbo": Facts(prices=0.05),
    "aleph2": Facts(prices=0.28, least=0.56),
    "veo3.1": Facts((4, 6, 8), default_seconds=8, prices=0.4, silent=0.2),
    "veo3.1_fast": Facts((4, 6, 8), default_seconds=8, prices=0.15, silent=0.1),
    "seedance2_5": Facts(
        references=30, prices={"480p": 0.2, "720p": 0.3, "1080p": 0.68}, least=0.8, video_is_billed=True
    ),
    "seedance2": Facts(references=9, prices={"480p": 0.36, "720p": 0.36, "1080p": 0.4, "2160p": 1.5}),
    "seedance2_fast": Facts(references=9, prices=0.29),
    "seedance2_mini": Facts(references=9, prices=0.16, least=0.64),
    "hailuo3": Facts(references=9, prices={"720p": 0.1, "768p": 0.1, "1440p": 0.15}),
    "h3_max": Facts(prices={"480p": 0.05}),
    "gemini_omni_flash": Facts((3, 10), is_range=True, prices=0.1),
    "gemini_omni_flash_1.1": Facts((3, 10), is_range=True),
    "kling_4": Facts(references=10),
    "kling3.0_standard": Facts(),
    "kling3.0_pro": Facts(),
    "kling3.0_4k": Facts(),
    "klingO3_standard": KLING_OMNI,
    "klingO3_pro": KLING_OMNI,
    "klingO3_4k": KLING_OMNI,
    "kling2.5_turbo_pro": Facts((5, 10)),
    "wan3": Facts(references=10),
    "wan3_prime": Facts(references=10),
    "happyhorse_1_0": Facts(),
    "grok_imagine_1_5": Facts(),
    "grok_imagine_1_5_lite": Facts(),
}
"""In the order of the model list. Prices: the price map of LiteLLM 1.110.2, 2026-11, which a survey of 2026-09
confirms; that of `h3_max` is the survey's alone. A credit is one cent."""
ANYTHING = Capabilities(parameters=frozenset({"first_frame", "seed"}), passes_extra=True)
"""Capabilities of a model that is newer than the table, of which the vendor refuses fields that it does not have."""


@dataclass(frozen=True)
class Endpoint:
    """One endpoint of one model, with its fields."""

    name: str
    model: str
    types: Mapping[str, str]
    """By field."""
    required: frozenset[str]
    facts: Facts

    @property
    def source_name(self) -> str | None:
        """The field for the video that an edit or an extension starts from."""
        return next((name for name in SOURCES if name in self.types), None)

    def options(self, name: str) -> tuple[str, ...]:
        """The values to choose from; empty if the field takes any, or does not exist."""
        kind = self.types.get(name, "")
        return tuple(kind.split("|")) if "|" in kind and "{" not in kind else ()

    @cached_property
    def formats(self) -> dict[tuple[str, str], str]:
        """The format in pixels, as the vendor writes it, by ratio and resolution."""
        found = {}
        for option in self.options("ratio"):
            if match := PIXELS.fullmatch(option):
                found[_common_ratio(option), _tier(int(match[1]), int(match[2]))] = option
        return found

    @cached_property
    def ratios(self) -> tuple[str, ...]:
        """The ratios that can be chosen."""
        if self.formats:
            return tuple(dict.fromkeys(ratio for ratio, _ in self.formats))
        options = self.options("targetAspectRatio") or self.options("ratio")
        return tuple(option for option in options if re.fullmatch(r"\d+:\d+", option))

    @cached_property
    def tiers(self) -> tuple[str, ...]:
        """The resolutions that can be chosen, without 720p where that means 768p."""
        words = [*self._autos, *(f"{shorter_side(word.lower())}p" for word in self.options("resolution"))]
        return tuple(dict.fromkeys([*(tier for _, tier in self.formats), *words]))

    @cached_property
    def default_tier(self) -> str | None:
        return next((tier for tier in (*DEFAULT_TIERS, *self.tiers) if tier in self.tiers), None)

    @property
    def takes_last_frame(self) -> bool:
        kind = self.types.get("promptImage", "")
        return "last" in kind or ("object" in kind and self.model in KEYFRAMES_BY_COMMENT)

    @property
    def _autos(self) -> tuple[str, ...]:
        """The resolutions of formats that follow the media."""
        return tuple(option[5:] for option in self.options("ratio") if option.startswith("auto_"))

    @cached_property
    def capabilities(self) -> Capabilities:
        facts, types = self.facts, self.types
        parameters = {name for name, field in PLAIN.items() if field in types}
        parameters |= {"first_frame"} if "promptImage" in types else set()
        parameters |= {"last_frame"} if self.takes_last_frame else set()
        parameters |= {"reference_images"} if "references" in types else set()
        parameters |= {"reference_video"} if self._video_items else set()
        operations = {Operation.generate}
        if self.name == VIDEO:
            operations = {Operation.edit, Operation.extend} if "mode" in types else {Operation.edit}
        has_length = "duration" in types
        extra_tiers = ("720p",) if "768p" in self.tiers and "720p" not in self.tiers else ()
        limit = facts.references
        return Capabilities(
            seconds=facts.seconds if has_length else (),
            seconds_range=facts.is_range and has_length,
            default_seconds=facts.default_seconds if has_length else None,
            aspect_ratios=self.ratios,
            resolutions=tuple(sorted((*extra_tiers, *self.tiers), key=shorter_side)),
            default_resolution=self.default_tier,
            parameters=frozenset(parameters),
            required=frozenset({"first_frame"} if self.name == PICTURE else ()),
            max_reference_images=limit.get(self.name) if isinstance(limit, Mapping) else limit,
            operations=frozenset(operations),
            prices=_table(facts.prices),
            silent_prices=_table(facts.silent),
            least_micros=in_micros({"": facts.least})[""],
            vendor_fields=frozenset(types) - OWN - ({"referenceVideos"} if self._video_items else set()),
        )

    @property
    def _video_items(self) -> bool:
        """True if reference videos can be given, in a form that is known."""
        return "uri" in self.types.get("referenceVideos", "")

    # Writing requests

    def body(self, request: VideoRequest, given: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a request, with the addresses of its media by field of the request."""
        if request.extra.get(DRAFT_OF):  # the vendor takes no other field beside it
            return {"model": self.model, DRAFT_OF: request.extra[DRAFT_OF]}
        mode = MODES.get(request.operation) if "mode" in self.types else None
        videos = [{"type": "video", "uri": given["reference_video"]}] if given.get("reference_video") else None
        if videos and "type" not in self.types["referenceVideos"]:
            videos = [{"uri": given["reference_video"]}]
        body: dict[str, Any] = {
            "model": self.model,
            "promptText": request.prompt or None,
            "promptImage": self._pictures(given),
            "references": [{"uri": url} for url in given.get("reference_images", ())] or None,
            "referenceVideos": videos,
            "mode": mode,
            **({self.source_name: given.get("source")} if self.source_name else {}),
            **{field: getattr(request, name) for name, field in PLAIN.items()},
            "duration": self._duration(request),
            **({} if mode else self._shape(request, given.get("ratio"))),
        }
        if request.generate_audio is None and self.facts.silent is not None:
            body["audio"] = True  # the price depends on it
        body = {name: value for name, value in body.items() if value is not None}
        own = {name: value for name, value in request.extra.items() if name not in body and name != "n"}
        return body | own

    def _pictures(self, given: Mapping[str, Any]) -> Any:
        first, last = given.get("first_frame"), given.get("last_frame")
        kind = self.types.get("promptImage", "")
        if last is None and (first is None or FIXED_POSITION in kind or not self.takes_last_frame):
            return first
        frames = (("first", first), ("last", last))
        return [{"uri": url, "position": position} for position, url in frames if url is not None]

    def _duration(self, request: VideoRequest) -> int | float | str | None:
        """The length as the model takes it: as long as the source for an edit, where that can be said."""
        if "duration" not in self.types:
            return None
        if request.operation is Operation.edit and "mode" in self.types:
            return "auto" if self.model == "seedance2_5" else None
        seconds = request.seconds
        if seconds is None:
            seconds = _source_seconds(request) or self.facts.default_seconds
        return without_fraction(seconds)

    def _shape(self, request: VideoRequest, ratio_of_frame: str | None) -> dict[str, Any]:
        """Format, resolution or ratio in the words of the model."""
        inherits = request.source is not None and request.source.video_id is not None
        ratio = None if inherits else request.aspect_ratio
        tier = (None if inherits else request.resolution) or self.default_tier
        found: dict[str, Any] = {}
        if "targetAspectRatio" in self.types:
            return {"targetAspectRatio": ratio}
        if "resolution" in self.types:
            found["resolution"] = self._word(tier)
        has_media = any((request.first_frame, request.last_frame, request.source))
        exact = request.size.replace("x", ":") if request.size and not inherits else None
        if exact in self.formats.values():
            found["ratio"] = exact
        elif self.formats or self._autos:
            found["ratio"] = self._format(ratio, tier, ratio_of_frame, has_media=has_media)
        elif "ratio" in self.types:
            has_media = has_media or bool(request.reference_images or request.reference_video)
            found["ratio"] = ratio or (None if has_media else DEFAULT_RATIO)
        return found

    def _format(
        self, ratio: str | None, tier: str | None, ratio_of_frame: str | None, *, has_media: bool
    ) -> str | None:
        if tier in self._autos and (not self.formats or (has_media and ratio is None)):
            return f"auto_{tier}"
        ratio = ratio or ratio_of_frame
        if ratio is None and has_media and "ratio" not in self.required and tier == self.default_tier:
            return None  # that of the picture
        wanted = (ratio or DEFAULT_RATIO, tier or self.default_tier)
        nearest = min(self.formats, key=lambda one: (distance(wanted[0], one[0]), distance(wanted[1], one[1])))
        return self.formats[nearest]

    def _word(self, tier: str | None) -> str | None:
        """The model's word for a resolution: `2k` for 1440p, `768p` for 720p where it has none."""
        words = {f"{shorter_side(word.lower())}p": word for word in reversed(self.options("resolution"))}
        return words.get(tier or "", words.get("768p" if tier == "720p" else "", tier))


def _source_seconds(request: VideoRequest) -> int | None:
    """The length of the video that is edited, in whole seconds, where it is known."""
    source = request.source if request.operation is Operation.edit else None
    return max(1, round(source.seconds)) if source is not None and source.seconds else None


def _table(prices: Mapping[str, float] | float | None) -> dict[str, int]:
    return in_micros(prices if isinstance(prices, Mapping) else {} if prices is None else {"": prices})


def _tier(width: int, height: int) -> str:
    """The resolution that a format is sold as: its shorter side, else the one with the nearest number of pixels."""
    side = f"{min(width, height)}p"
    return side if side in AREAS else min(AREAS, key=lambda tier: abs(AREAS[tier] / (width * height) - 1))


def _common_ratio(shape: str) -> str:
    return min(COMMON_RATIOS, key=lambda ratio: distance(shape, ratio))


# The tables


@cache
def of(model: str) -> tuple[Endpoint, ...]:
    """The endpoints of a model, in the order text, picture, video."""
    typed = _typed().get(model, {})
    return tuple(
        Endpoint(
            name,
            model,
            {field: kind["type"] for field, kind in typed[name].items()},
            frozenset(field for field, kind in typed[name].items() if kind["required"]),
            FACTS[model],
        )
        for name in NAMES
        if name in typed
    )


@cache
def _typed() -> dict[str, Any]:
    models: dict[str, Any] = json.loads(Path(__file__).with_name("models.json").read_text("utf-8"))["models"]
    return models


@cache
def merged(model: str) -> Capabilities:
    """Capabilities of all endpoints of a model together, for the model list."""
    able = [endpoint.capabilities for endpoint in of(model)]
    fields = frozenset[str]().union(*(one.vendor_fields for one in able))
    limits = [one.max_reference_images for one in able if one.max_reference_images is not None]
    required = frozenset[str].intersection(*(one.required for one in able))
    changes = {"vendor_fields": fields, "required": required, "max_reference_images": max(limits, default=None)}
    return union_of(able).model_copy(update=changes)


def choose(model: str, request: VideoRequest) -> Endpoint | None:
    """The endpoint for the kind of input of a request, else the first that the model has; None for a model that is in
    no table."""
    endpoints = of(model)
    if not endpoints:
        return None
    wanted = TEXT
    if request.operation is not Operation.generate:
        wanted = VIDEO
    elif request.first_frame is not None or request.last_frame is not None:
        wanted = PICTURE
    return next((endpoint for endpoint in endpoints if endpoint.name == wanted), endpoints[0])


def capabilities_for(model: str, request: VideoRequest) -> Capabilities:
    """Capabilities of the endpoint for a request, narrowed by what else is in it."""
    endpoint = choose(model, request)
    if endpoint is None:
        return ANYTHING
    able = endpoint.capabilities
    changes: dict[str, Any] = {}
    if request.last_frame is not None and request.first_frame is None:
        changes |= {"required": frozenset()}
    if MODES.get(request.operation) and "mode" in endpoint.types:
        changes |= {"aspect_ratios": (), "resolutions": ()}
        if request.operation is Operation.edit:
            changes |= {"seconds": (), "seconds_range": False, "default_seconds": None}
    elif (length := _source_seconds(request)) is not None and "duration" in endpoint.types:
        changes |= {"default_seconds": length}
    sizes = {shape.replace(":", "x"): tier for (_, tier), shape in endpoint.formats.items()}
    if request.size in sizes:  # a format of the vendor's own, whose resolution has its shorter side as name
        prices = {f"{min(map(int, size.split('x')))}p": able.prices.get(tier) for size, tier in sizes.items()}
        known = {name: price for name, price in prices.items() if price is not None}
        changes |= {"sizes": tuple(sizes), "prices": {**known, **able.prices}}
    cap = MAX_RESOLUTION_WITH_REFERENCES.get(model)
    if cap is not None and request.reference_images:
        highest = shorter_side(cap)
        changes |= {"resolutions": tuple(one for one in able.resolutions or () if shorter_side(one) <= highest)}
    has_video = request.reference_video is not None or request.source is not None
    other_price = any(request.extra.get(name) not in (None, False, "mp4") for name in UNPRICED)
    if other_price or (has_video and endpoint.facts.video_is_billed):
        changes |= {"prices": {}, "silent_prices": {}}
    if request.extra.get(DRAFT_OF):
        changes |= {"seconds": (), "seconds_range": False, "default_seconds": None}
    return able.model_copy(update=changes)


def body_of_unknown(model: str, request: VideoRequest, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Endpoint and body for a model that is newer than the table: what the client says, in the commonest words."""
    size = request.size.replace("x", ":") if request.size else request.aspect_ratio
    seconds = request.seconds
    body = {
        "model": model,
        "promptText": request.prompt or None,
        "promptImage": given.get("first_frame"),
        "ratio": size,
        "duration": without_fraction(seconds),
        "seed": request.seed,
    }
    body = {name: value for name, value in body.items() if value is not None}
    own = {name: value for name, value in request.extra.items() if name not in body and name != "n"}
    return PICTURE if "promptImage" in body else TEXT, body | own
