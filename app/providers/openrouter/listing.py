"""OpenRouter's list of models: what each can do, and what it costs. Pure but for reading the list of this release; all
input is untrusted.

`models.json` has the rows of the list of 2026-10-09, as a public copy had it, in the vendor's shape; the answer to
`GET /videos/models` has the same fields (recorded on 2026-11-25). Two fields are ours: `input_references`, the kinds of
media that a model takes as references, and `operation` of one that only edits. The list does not have them, so that
they are kept for the models known here; of any other one references are passed on for the vendor to judge.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from math import log
from pathlib import Path
from typing import Any

from app.capabilities import Capabilities, media_of, nearest_seconds
from app.providers.openrouter.prices import Mode, Rates, read_rates, word_of
from app.sizes import COMMON_RATIOS, complete_size, nearest_ratio
from app.video import ASPECT_RATIO, MAX_NAME_CHARACTERS, MAX_SECONDS, SIZE, Operation, VideoRequest

FILE = Path(__file__).with_name("models.json")
MAX_MODELS = 500
MAX_VALUES = 128
MAX_SIZES = 32
MAX_WORDS = 16
"""Rows of a list, and lengths, sizes and other values of a row, that are read."""
MODEL_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(?:/[\w.\-]+)+(?::[\w\-]+)?")
USUAL_SECONDS = 5
USUAL_RESOLUTION = "720p"
USUAL_RATIO = "16:9"
"""Values of a request without them where the model makes it: the vendor's own choice is not in the list."""
FRAMES = ("first_frame", "last_frame")
REFERENCES = ("reference_images", "reference_video")
HARMLESS = frozenset(
    {
        *("negativeprompt", "persongeneration", "enhanceprompt", "promptoptimizer", "promptextend"),
        *("cfgscale", "guidancescale", "watermark", "camerafixed", "seed"),
    }
)
"""Parameters of makers, without `_` and in small letters, that change neither the price nor the maker."""
OWN_FIELDS = frozenset({"provider", "session_id", "trace"})
ANYTHING = Capabilities(parameters=frozenset({*FRAMES, *REFERENCES, "seed", "generate_audio"}), passes_extra=True)
"""Capabilities of a model that is in no list."""


@dataclass(frozen=True)
class Model:
    """One model of the list."""

    able: Capabilities
    words: Mapping[str, str]
    """The vendor's word for each resolution."""
    sizes: Mapping[tuple[str, str], int]
    """Pixels of a frame by resolution and ratio, of the sizes that the list has."""
    rates: Rates

    def able_for(self, request: VideoRequest) -> Capabilities:
        """Its capabilities for this request, at the prices for its kind of input and its ratio."""
        able, values = self.able, dict[str, Any]()
        if request.operation is Operation.edit:  # as long as its source
            values |= {"seconds": (), "seconds_range": False, "default_seconds": None}
        given = media_of(request)
        if any(name in given for name in FRAMES):  # beside a frame, references would be ignored
            values["parameters"] = able.parameters - set(REFERENCES)
        ratio = request.aspect_ratio or (None if given else self.ratio)
        switches = "generate_audio" in able.parameters
        modes = _modes(request) if _is_harmless(request.extra.get("provider")) else ()
        prices = self._prices(modes, self._has_sound, ratio)
        silent = self._prices(modes, False, ratio) if switches else {}
        # An empty table without sound would stand for the one with sound.
        values["prices"] = silent if switches and request.generate_audio is False else prices
        values["silent_prices"] = silent if silent != values["prices"] else {}
        references = self.rates.reference_micros if request.reference_images else 0
        values["image_micros"] = self.rates.image_micros + references
        return able.model_copy(update=values)

    @property
    def ratio(self) -> str | None:
        """The ratio of a request that has none, and no media either."""
        return USUAL_RATIO if USUAL_RATIO in (self.able.aspect_ratios or ()) else None

    @property
    def _has_sound(self) -> bool:
        """True if a price with sound applies; a model without a switch has either, which the list does not say."""
        return "generate_audio" in self.able.parameters or not any(rate.sound is False for rate in self.rates.all)

    def _prices(self, modes: Collection[Mode], sound: bool, ratio: str | None) -> dict[str, int]:
        found = {}
        named = self.able.resolutions or ("", *self.rates.resolutions)
        for resolution in named:
            micros = self.rates.per_second(modes, sound, resolution, self._pixels(resolution, ratio))
            if micros is not None:
                found[resolution] = micros
        if len(found) < len(named):  # one without a price must not get that of any other
            found.pop("", None)
        return found

    def _pixels(self, resolution: str, ratio: str | None) -> int:
        """Pixels of a frame; of the largest one if the media decide on the ratio."""
        ratios = self.able.aspect_ratios or (USUAL_RATIO,)
        near = nearest_ratio(ratio, ratios) or USUAL_RATIO if ratio is not None else None
        return max((self._area(resolution, one) for one in ([near] if near is not None else ratios)), default=0)

    def _area(self, resolution: str, ratio: str) -> int:
        return self.sizes.get((resolution, ratio)) or _area(
            complete_size(None, ratio, resolution or USUAL_RESOLUTION)["size"]
        )


@cache
def released() -> Mapping[str, Model]:
    """The models of this release."""
    return read_models(json.loads(FILE.read_text("utf-8")))


@cache
def _own_fields() -> Mapping[str, Mapping[str, Any]]:
    """Our own fields of the models of this release."""
    rows = json.loads(FILE.read_text("utf-8"))["data"]
    return {row["id"]: {name: row.get(name) for name in ("input_references", "operation")} for row in rows}


def read_models(answer: Any) -> dict[str, Model]:
    """The models of a list, without rows that cannot be used."""
    rows = answer.get("data") if isinstance(answer, dict) else None
    found = {}
    for row in rows[:MAX_MODELS] if isinstance(rows, list) else []:
        name = row.get("id") if isinstance(row, dict) else None
        if isinstance(name, str) and len(name) <= MAX_NAME_CHARACTERS and MODEL_ID.fullmatch(name):
            model = _model(row, _own_fields().get(name))
            if model is not None:
                found[name] = model
    return found


def _model(row: Mapping[str, Any], own: Mapping[str, Any] | None) -> Model | None:
    """The model of a row; None for one that only enlarges a video."""
    if row.get("upscale_factor") is not None:
        return None
    words = {word_of(text): text for text in reversed(_texts(row.get("supported_resolutions"))) if word_of(text)}
    resolutions = tuple(sorted(words, key=lambda word: int(word[:-1]))) or None
    ratios = tuple(text for text in _texts(row.get("supported_aspect_ratios")) if ASPECT_RATIO.fullmatch(text)) or None
    sizes = [text for text in _texts(row.get("supported_sizes"), MAX_SIZES) if _is_size(text)]
    able = Capabilities(
        **_lengths(row.get("supported_durations"), edits=own is not None and own["operation"] == "edit"),
        resolutions=resolutions,
        aspect_ratios=ratios,
        default_resolution=_usual_resolution(resolutions),
        parameters=_parameters(row, own),
        vendor_fields=OWN_FIELDS,
    )
    rates = read_rates(row.get("pricing_skus"))
    operations = {Operation.edit} if own is not None and own["operation"] == "edit" else {Operation.generate}
    if any(rate.mode == "continuation" for rate in rates.all):
        operations.add(Operation.extend)
    values = {"operations": frozenset(operations), "least_micros": rates.least_micros}
    model = Model(able.model_copy(update=values), words, _areas(sizes, resolutions or ()), rates)
    return Model(model.able_for(VideoRequest(prompt="", model="")), words, model.sizes, rates)


def _lengths(durations: Any, *, edits: bool) -> dict[str, Any]:
    if edits:
        return {"seconds": ()}
    values = durations[:MAX_VALUES] if isinstance(durations, list) else []
    seconds = sorted({one for one in values if type(one) is int and 0 < one <= MAX_SECONDS})
    if not seconds:
        return {}
    is_range = len(seconds) > 2 and seconds == list(range(seconds[0], seconds[-1] + 1))
    listed = (seconds[0], seconds[-1]) if is_range else tuple(seconds)
    able = Capabilities(seconds=listed, seconds_range=is_range)
    return {"seconds": listed, "seconds_range": is_range, "default_seconds": nearest_seconds(USUAL_SECONDS, able)}


def _usual_resolution(resolutions: tuple[str, ...] | None) -> str | None:
    """The one nearest to the usual one, the smaller of two."""
    usual = int(USUAL_RESOLUTION[:-1])
    return min(resolutions, key=lambda one: abs(log(int(one[:-1]) / usual))) if resolutions else None


def _parameters(row: Mapping[str, Any], own: Mapping[str, Any] | None) -> frozenset[str]:
    frames = [frame for frame in FRAMES if frame in _texts(row.get("supported_frame_images"))]
    switches = [name for name in ("seed", "generate_audio") if row.get(name) is True]
    if own is None:
        return frozenset({*frames, *switches, *REFERENCES})
    takes = own["input_references"] or ()
    references = [name for name, kind in zip(REFERENCES, ("image", "video"), strict=True) if kind in takes]
    return frozenset({*frames, *switches, *references})


def _areas(sizes: list[str], resolutions: tuple[str, ...]) -> dict[tuple[str, str], int]:
    """Pixels of each size by the resolution and the ratio that it stands for: those that are sold as 720p do not all
    have a side of 720 pixels."""
    found: dict[tuple[str, str], int] = {}
    usual = {one: _area(complete_size(None, USUAL_RATIO, one)["size"]) for one in resolutions}
    for size in sizes:
        triple = complete_size(size, None, None)
        exact = triple["resolution"] in resolutions
        nearest = min(usual, key=lambda one: abs(log(_area(size) / usual[one])), default="")
        ratio = nearest_ratio(triple["aspect_ratio"], COMMON_RATIOS)
        if nearest and ratio is not None:
            found.setdefault((triple["resolution"] if exact else nearest, ratio), _area(size))
    return found


def _modes(request: VideoRequest) -> tuple[Mode, ...]:
    """The modes that a request may be charged as: the list does not say which one is meant by a reference video."""
    if request.operation.lengthens:
        return ("continuation",)
    if request.reference_video is not None:
        return ("video", "reference")
    if request.source is not None:
        return ("video",)
    if request.reference_images:
        return ("reference",)
    return ("image",) if request.first_frame is not None or request.last_frame is not None else ("text",)


def _is_harmless(provider: Any) -> bool:
    """True if the client's `provider` has nothing that may change what is made, who makes it or what it costs."""
    if provider is None or provider == {}:
        return True
    if not isinstance(provider, dict) or provider.keys() != {"options"} or not isinstance(provider["options"], dict):
        return False
    for options in provider["options"].values():
        if not isinstance(options, dict) or options.keys() - {"parameters"}:
            return False
        parameters = options.get("parameters", {})
        if not isinstance(parameters, dict) or {_plain(name) for name in parameters} - HARMLESS:
            return False
        if any(isinstance(value, dict | list) for value in parameters.values()):
            return False
    return True


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _texts(values: Any, most: int = MAX_WORDS) -> list[str]:
    return [one for one in values[:most] if isinstance(one, str)] if isinstance(values, list) else []


def _is_size(text: str) -> bool:
    try:
        return "size" in complete_size(text, None, None)
    except ValueError:
        return False


def _area(size: str) -> int:
    match = SIZE.fullmatch(size)
    return int(match[1]) * int(match[2]) if match is not None else 0
