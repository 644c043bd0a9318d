"""The form of the playground: the fields that a model has, and the request that they make."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import UploadFile

from app import errors
from app.capabilities import Capabilities
from app.http.body import Body, extra_of
from app.http.uploads import MAX_MEDIA, Uploads
from app.sizes import complete_by_size
from app.video import MAX_PROMPT_CHARACTERS, Media, VideoRequest

APP = "console"
"""The application that usage reports show."""
MAX_CHARACTERS = 2
SIZE_FIELDS = ("size", "aspect_ratio", "resolution")
BOOLEANS = ("generate_audio", "loop", "expand_prompt")
PLAIN_FIELDS = ("seconds", "n", "seed", "negative_prompt", *BOOLEANS)
MEDIA_FIELDS = {
    "first_frame": "First frame",
    "last_frame": "Last frame",
    "reference_images": "Reference pictures",
    "reference_video": "Reference video",
}
COMPARED = ("compare_1", "compare_2")
"""Fields with the models that the first one is compared with."""
NOT_OF_REQUEST = (*COMPARED, "csrf", "retry", "mode", "from", "agreed")
"""Fields of the form that are no part of the request."""
COMMON = ("seconds", *SIZE_FIELDS, "n")
"""Fields that stand before the others."""


class AnyFields(BaseModel):
    """Fields of any name; none of them is decoded."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True)
class Field:
    """One field of the form."""

    name: str
    label: str
    choices: Sequence[str] = ()
    """Values of a `select`."""
    kind: str = "text"
    """`text`, `number`, `select`, `area`, or `media`: files and addresses."""
    least: float | None = None
    most: float | None = None
    hint: str = ""
    is_required: bool = False
    takes_several: bool = False
    accepts: str = ""
    """Content types of a `media` field's files."""

    @property
    def is_rare(self) -> bool:
        """True for a field that stands behind the others."""
        return self.name not in COMMON and not self.is_required

    def fits(self, value: str) -> bool:
        """True if a value that was given for another model can stay."""
        if self.kind == "select":
            return value in self.choices
        if self.kind == "number" and self.least is not None:
            try:
                return self.least <= float(value) <= (self.most or float("inf"))
            except ValueError:
                return False
        return True


@dataclass(frozen=True)
class Given:
    """The texts and files of a form."""

    values: Mapping[str, str]
    """Texts that are not empty, by field."""
    files: Mapping[str, Sequence[UploadFile]] = field(default_factory=dict)

    @classmethod
    def of(cls, body: Body) -> "Given":
        """Sort the fields of a form with files. Raises `InvalidRequest` for one that no form of a page sends."""
        values: dict[str, str] = {}
        files: dict[str, list[UploadFile]] = {}
        for name, value in body.items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, UploadFile):
                    if one.size or one.filename:  # browsers send an empty one where no file was chosen
                        files.setdefault(name, []).append(one)
                elif not isinstance(one, str):
                    raise errors.InvalidRequest(f"{name[:100]}: this is no form; open the page again")
                elif one.strip():
                    values[name] = plain_text(one)
        return cls(values, files)


def plain_text(text: str) -> str:
    """The text of a field, with the ends of lines as they were typed: forms send two characters for each."""
    return text.replace("\r\n", "\n").strip()


LABELS = {
    **MEDIA_FIELDS,
    "seconds": "Length in seconds",
    "size": "Size",
    "aspect_ratio": "Aspect ratio",
    "resolution": "Resolution",
    "n": "How many",
    "negative_prompt": "Not in it",
    "seed": "Seed",
    "generate_audio": "Sound",
    "loop": "Loop",
    "expand_prompt": "Let the vendor expand it",
    "characters": "Characters",
    "extra": "The vendor's own fields, as JSON",
}
"""Words for the fields."""


# Fields


def fields_of(able: Capabilities) -> list[Field]:
    """The fields of a model, beside model and prompt."""
    found = [] if able.seconds == () else [seconds_field(able)]
    for name in SIZE_FIELDS:
        values = getattr(able, f"{name}s")
        if values is None and (name == "size" or able.sizes is None):
            found.append(_field(name, hint="the vendor decides"))
        elif values:
            found.append(_field(name, "select", tuple(values)))
    found.append(_field("n", "select", ("1", "2", "3", "4")))
    found += [_media_field(name, able) for name in MEDIA_FIELDS if name in able.parameters]
    if "negative_prompt" in able.parameters:
        found.append(_field("negative_prompt", "area"))
    if "seed" in able.parameters:
        found.append(_field("seed", "number", hint="any"))
    found += [_field(name, "select", ("", "true", "false")) for name in BOOLEANS if name in able.parameters]
    if "characters" in able.parameters:
        found.append(_field("characters", hint="ids, with spaces between"))
    if able.passes_extra or able.vendor_fields:
        names = ", ".join(sorted(able.vendor_fields)[:6])
        found.append(_field("extra", "area", hint=names or '{"name": "value"}'))
    return found


def _field(name: str, kind: str = "text", choices: Sequence[str] = (), hint: str = "") -> Field:
    return Field(name, LABELS[name], choices, kind, hint=hint)


def seconds_field(able: Capabilities) -> Field:
    hint = "the model's own" if able.default_seconds is None else f"{able.default_seconds:g} if empty"
    label = LABELS["seconds"]
    if able.seconds is None:
        return Field("seconds", label, kind="number", least=0.1, hint=hint)
    if able.seconds_range:
        return Field("seconds", label, (), "number", able.seconds[0], able.seconds[1], hint)
    return Field("seconds", label, tuple(f"{length:g}" for length in able.seconds), "select", hint=hint)


def _media_field(name: str, able: Capabilities) -> Field:
    is_video = name == "reference_video"
    return Field(
        name,
        MEDIA_FIELDS[name],
        kind="media",
        hint="or an address, https://...",
        is_required=name in able.required,
        takes_several=name == "reference_images",
        accepts="video/*" if is_video else "image/png,image/jpeg,image/webp",
    )


# Requests


def read_request(given: Given, uploads: Uploads) -> VideoRequest:
    """Read the request of a form. Raises `InvalidRequest` that names the field."""
    values: dict[str, Any] = {
        "prompt": checked_prompt(given),
        "model": given.values.get("model", ""),
        "app": APP,
        "extra": extra_fields(given),
    }
    values |= {name: given.values[name] for name in PLAIN_FIELDS if name in given.values}
    for name, label in MEDIA_FIELDS.items():
        media = _media(given, uploads, name)
        if name == "reference_images":
            values[name] = tuple(media)
        elif len(media) > 1:
            raise errors.InvalidRequest(f"{label}: give a file or an address, not both", param=name)
        elif media:
            values[name] = media[0]
    values["characters"] = tuple(given.values.get("characters", "").split())
    if len(values["characters"]) > MAX_CHARACTERS:
        raise errors.InvalidRequest(f"characters: at most {MAX_CHARACTERS}", param="characters", code="invalid_value")
    try:
        triple, _ = complete_by_size(*(given.values.get(name) for name in SIZE_FIELDS))
        request = VideoRequest.model_validate({**values, **triple})
    except ValidationError as error:
        wrong = error.errors()[0]
        name = str(wrong["loc"][0]) if wrong["loc"] else "request"
        raise errors.InvalidRequest(f"{name}: {wrong['msg']}", param=name, code="invalid_value") from None
    except ValueError as error:
        name = str(error).partition(":")[0]
        raise errors.InvalidRequest(str(error), param=name, code="invalid_value") from None
    if request.seed is not None and not -(2**63) <= request.seed < 2**63:
        raise errors.InvalidRequest("seed: the number is too large", param="seed", code="invalid_value")
    return request


def checked_prompt(given: Given) -> str:
    """The prompt. Raises `InvalidRequest` for none, and for one that is too long."""
    prompt = given.values.get("prompt", "")
    if not prompt:
        raise errors.InvalidRequest("Describe the video first.", param="prompt", code="missing_parameter")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        message = f"prompt: at most {MAX_PROMPT_CHARACTERS:,} characters"
        raise errors.InvalidRequest(message, param="prompt", code="invalid_value")
    return prompt


def extra_fields(given: Given) -> dict[str, Any]:
    """The vendor's own fields. Raises `InvalidRequest`."""
    if "extra" not in given.values:
        return {}
    try:
        found = json.loads(given.values["extra"], parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        message = f'extra: expected JSON such as {{"name": "value"}} ({error})'
        raise errors.InvalidRequest(message, param="extra", code="invalid_json") from None
    if not isinstance(found, dict):
        raise errors.InvalidRequest('extra: expected a JSON object such as {"name": "value"}', param="extra")
    return extra_of(AnyFields.model_validate(found))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _media(given: Given, uploads: Uploads, name: str) -> list[Media]:
    """The files and addresses of a field. A page that asks for a price says how many files are chosen (`_chosen`)."""
    found = [uploads.media(file, name) for file in given.files.get(f"{name}_file", ())]
    found += [uploads.media(address, name) for address in given.values.get(name, "").split()]
    chosen = given.values.get(f"{name}_chosen", "")
    if not found and chosen.isdecimal():
        stand_in = Media(key=f"uploads/{uploads.video_id}/0", content_type="image/png")
        found = [stand_in] * min(int(chosen[:3]), MAX_MEDIA)
    return found


def values_of(requested: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a stored request, for the form; uploads are left out, since they are not kept."""
    found = {name: requested[name] for name in ("prompt", "model", *SIZE_FIELDS, *PLAIN_FIELDS) if name in requested}
    shown = {name: _text(value) for name, value in found.items() if value is not None}
    for name in MEDIA_FIELDS:
        if addresses := [media["url"] for media in _media_of(requested, name) if media.get("url")]:
            shown[name] = " ".join(addresses)
    if requested.get("extra"):
        shown["extra"] = json.dumps(requested["extra"], ensure_ascii=False)
    if requested.get("characters"):
        shown["characters"] = " ".join(requested["characters"])
    source = (requested.get("source") or {}).get("video_id")
    if source and requested.get("operation") in ("remix", "edit", "extend"):
        shown |= {"mode": requested["operation"], "from": source}
    return shown


def uploads_of(requested: Mapping[str, Any]) -> list[str]:
    """The fields of a stored request whose files were uploaded, in words."""
    return [
        label for name, label in MEDIA_FIELDS.items() if any(media.get("key") for media in _media_of(requested, name))
    ]


def _media_of(requested: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = requested.get(name) or []
    return found if isinstance(found, list) else [found]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
