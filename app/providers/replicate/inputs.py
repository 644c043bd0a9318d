"""Inputs of Replicate's models (`models.toml`), and the input of a request.

Quirks: each model has a schema of its own, and its own names for the same thing. Length, resolution and sound are
always sent, so that what is made is what was priced. A ratio is not sent beside media that decide on the shape, except
as the model's word for that.
Inferred: that a model which takes frames and references, and says of one that the other must be absent, refuses both;
that the price of a request with a video as input is not known where the vendor's list names none for it.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from app.capabilities import Capabilities, in_micros
from app.sizes import complete_size
from app.video import Operation, VideoRequest, shorter_side, without_fraction

DEFAULT_SECONDS = 5
DEFAULT_RESOLUTIONS = ("720p", "768p")
"""The resolution of a request that names none: the first of these that the model has, else its first."""
DEFAULT_RATIO = "16:9"
FRAMES, REFERENCES = ("first_frame", "last_frame"), ("reference_images", "reference_video")
MEDIA = (*FRAMES, *REFERENCES)
LIST = "[]"


class Limits(BaseModel):
    """Further limits of a request with reference images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lengths: tuple[int, ...]
    ratios: tuple[str, ...]


class Edit(BaseModel):
    """The change of a video that the client gives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    fixed: dict[str, str] = {}
    without: frozenset[str] = frozenset({"seconds"})


class Row(BaseModel):
    """One model, as `models.toml` describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: dict[str, str]
    required: frozenset[str] = frozenset()
    lengths: tuple[int, ...] = ()
    range: tuple[int, int] | None = None
    text_seconds: bool = False
    default_seconds: int = DEFAULT_SECONDS
    resolutions: tuple[str, ...] | dict[str, str] = ()
    resolution_field: str = "resolution"
    sizes: tuple[str, ...] | None = None
    ratios: tuple[str, ...] = ()
    ratio_field: str = "aspect_ratio"
    media_ratio: str | None = None
    references: Limits | None = None
    max_references: int | None = None
    exclusive: bool = False
    edit: Edit | None = None
    edits_only: bool = False
    with_video: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    prices: dict[str, float] = {}
    silent: dict[str, float] = {}
    video: dict[str, float] = {}
    priced_seconds: int | None = None

    @property
    def words(self) -> dict[str, str]:
        """The vendor's word by resolution."""
        if isinstance(self.resolutions, dict):
            return self.resolutions
        return {f"{shorter_side(word)}p": word for word in self.resolutions}

    @property
    def default_resolution(self) -> str | None:
        return next((one for one in (*DEFAULT_RESOLUTIONS, *self.words) if one in self.words), None)

    @property
    def seconds(self) -> tuple[int, ...]:
        return self.range or self.lengths

    @property
    def capabilities(self) -> Capabilities:
        """Everything that the model can do in one request or another."""
        operations = {Operation.edit} if self.edit is not None else set()
        operations |= set() if self.edits_only else {Operation.generate}
        sizes = [size.replace("*", "x") for size in self.sizes] if self.sizes is not None else None
        return Capabilities(
            seconds=self.seconds,
            seconds_range=self.range is not None,
            default_seconds=self.default_seconds if self.seconds else None,
            sizes=tuple(sizes) if sizes is not None else None,
            default_size=sizes[0] if sizes is not None else None,
            aspect_ratios=self.ratios if sizes is None else None,
            resolutions=tuple(self.words) if sizes is None else None,
            default_resolution=self.default_resolution,
            parameters=frozenset(self.inputs),
            required=self.required,
            max_reference_images=self.max_references,
            operations=frozenset(operations),
            prices=in_micros(self.prices),
            silent_prices=in_micros(self.silent),
            vendor_fields=self.own,
        )

    def capabilities_for(self, request: VideoRequest) -> Capabilities:
        """Capabilities of the model beside all that the request has."""
        able = self.capabilities
        is_edit = request.operation is Operation.edit and self.edit is not None
        has_video = is_edit or request.reference_video is not None
        absent = set[str](self.with_video if request.reference_video is not None else ())
        if is_edit and self.edit is not None:
            absent |= self.edit.without
        if self.exclusive and any(getattr(request, name) for name in FRAMES):
            absent |= set(REFERENCES)
        values: dict[str, Any] = {"parameters": able.parameters - absent, "required": able.required - absent}
        if has_video:
            values |= {"prices": in_micros(self.video), "silent_prices": {}}
        elif self.priced_seconds not in (None, request.seconds or self.default_seconds):
            values["prices"] = {}
        if self.references is not None and request.reference_images:
            values |= {"seconds": self.references.lengths, "aspect_ratios": self.references.ratios}
        if "seconds" in absent:
            values |= {"seconds": (), "seconds_range": False, "default_seconds": None}
        values |= {"resolutions": (), "default_resolution": None} if "resolution" in absent else {}
        values |= {"aspect_ratios": ()} if "aspect_ratio" in absent else {}
        return able.model_copy(update=values)

    # Writing requests

    def input(self, request: VideoRequest, urls: Mapping[str, list[str]]) -> dict[str, Any]:
        """The input of a request, with the addresses of its media by parameter."""
        able = self.capabilities_for(request)
        found: dict[str, Any] = {"prompt": request.prompt, **self._length(request, able), **self._shape(request, able)}
        for parameter in able.parameters - set(MEDIA):
            found[self.inputs[parameter]] = getattr(request, parameter)
        if "generate_audio" in able.parameters and request.generate_audio is None:
            found[self.inputs["generate_audio"]] = True  # the price depends on it
        for parameter in able.parameters & urls.keys():
            field, given = self.inputs[parameter], urls[parameter]
            found[field.removesuffix(LIST)] = given if field.endswith(LIST) else given[0]
        if request.operation is Operation.edit and self.edit is not None and "source" in urls:
            found |= {self.edit.field: urls["source"][0], **self.edit.fixed}
        found = {name: value for name, value in found.items() if value is not None}
        own = {name: value for name, value in request.extra.items() if name in self.own and name not in found}
        return found | own

    def _length(self, request: VideoRequest, able: Capabilities) -> dict[str, Any]:
        if not able.seconds:
            return {}
        seconds = without_fraction(request.seconds) or self.default_seconds
        return {"duration": str(seconds) if self.text_seconds else seconds}

    def _shape(self, request: VideoRequest, able: Capabilities) -> dict[str, Any]:
        """Resolution and ratio, or the size, in the words of the model."""
        if self.sizes is not None:
            return {"size": self._size(request)}
        found: dict[str, Any] = {}
        inherits = request.source is not None and request.source.video_id is not None
        if able.resolutions:
            found[self.resolution_field] = self.words.get(request.resolution or "", self._default_word)
        if able.aspect_ratios:
            has_media = request.source is not None or any(getattr(request, name) for name in MEDIA)
            default = self.media_ratio if has_media else able.aspect_ratios[0]
            if not has_media and DEFAULT_RATIO in able.aspect_ratios:
                default = DEFAULT_RATIO
            if self.references is not None and request.reference_images:
                default = self.references.ratios[0]
            found[self.ratio_field] = (None if inherits else request.aspect_ratio) or default
        return found

    @property
    def _default_word(self) -> str | None:
        return self.words.get(self.default_resolution or "")

    def _size(self, request: VideoRequest) -> str:
        """The first size that has what the request names of ratio and resolution, as `fit` has chosen it."""
        words = self.sizes or ()
        for word in words:
            triple = complete_size(word.replace("*", "x"), None, None)
            if all(getattr(request, name) in (None, value) for name, value in triple.items()):
                return word
        return words[0]


def _rows() -> dict[str, Row]:
    document = tomllib.loads(Path(__file__).with_name("models.toml").read_text())
    return {name: Row.model_validate(row) for name, row in document.items()}


ROWS = _rows()
MODELS = {name: row.capabilities for name, row in ROWS.items()}
UNKNOWN = Capabilities(seconds=(), aspect_ratios=(), resolutions=(), passes_extra=True)
"""A model that is not in the table: its input is what the request passes on, since its names are not known."""


def capabilities_for(model: str, request: VideoRequest) -> Capabilities:
    """Capabilities of any model for a request."""
    row = ROWS.get(model)
    return UNKNOWN if row is None else row.capabilities_for(request)


def input_of(model: str, request: VideoRequest, urls: Mapping[str, list[str]]) -> dict[str, Any]:
    """The input of a request for any model."""
    row = ROWS.get(model)
    if row is not None:
        return row.input(request, urls)
    extra = {name: value for name, value in request.extra.items() if name != "n"}
    return {**extra, "prompt": request.prompt}


def price_micros(model: str, request: VideoRequest) -> int | None:
    """The vendor's list price of a request; None if it is not known."""
    row = ROWS.get(model)
    if row is None:
        return None
    able = row.capabilities_for(request)
    seconds = request.seconds or able.default_seconds
    if request.source is not None and request.source.seconds is not None:
        seconds = max(seconds or 0, request.source.seconds)
    table = able.silent_prices if able.silent_prices and request.generate_audio is False else able.prices
    per_second = table.get(request.resolution or able.default_resolution or "", table.get(""))
    return None if seconds is None or per_second is None else round(per_second * seconds)
