"""Types of fields in request bodies. Each text has a length: a field without one may be as long as the whole body."""

import re
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from app.video import MAX_NAME_CHARACTERS

Word = Annotated[str, Field(max_length=MAX_NAME_CHARACTERS)]
"""A name, an id, a size or another short text, which may be empty."""
Name = Annotated[Word, Field(min_length=1)]
"""A name or an id that must not be empty."""
Address = Annotated[str, Field(max_length=8_192)]
"""A URL. Those of webhooks have a lower limit of their own, with a message of its own."""
Secret = Annotated[str, Field(max_length=8_192)]
"""A signing secret, with a lower limit in `webhooks/endpoints.py`."""


def iso_moment(value: Any) -> str:
    """Require an ISO 8601 time in a query: pydantic would read a number as seconds since 1970. A `+` that a client did
    not encode arrives as a blank. Raises `ValueError`."""
    written = str(value)
    if not re.match(r"\d{4}-\d\d-\d\d[Tt]", written):
        raise ValueError("expected an ISO 8601 time with an offset, such as 2026-11-01T00:00:00Z")
    if not 1 < int(written[:4]) < 9999:  # other time zones may not be able to express the first and the last year
        raise ValueError("expected a year from 0002 to 9998")
    return re.sub(r" (\d\d:?\d\d)$", r"+\1", written)


# Media. These fields have any type, since `Uploads.media` reads and limits them; the schemas describe them.


def _schema_of_media(title: str, text: str, *others: dict[str, Any]) -> dict[str, Any]:
    choices = [{"type": "string", "description": text}, *others]
    return {"title": title, "description": text, "anyOf": choices}


_OBJECT = {
    "title": "MediaObject",
    "type": "object",
    "description": "A medium in an object; exactly one of the fields is given.",
    "properties": {name: {"type": "string"} for name in ("image_url", "video_url", "url")},
    "minProperties": 1,
}
_FILE = {"type": "string", "format": "binary", "description": "The file."}
_MEDIA = _schema_of_media("Media", "An http(s) URL, or a base64 data URL.", _OBJECT)
_PICTURE = _schema_of_media("Base64Media", "An http(s) URL, a data URL, or base64 alone.", _OBJECT)
SOURCE_VIDEO: dict[str, Any] = {
    "title": "SourceVideo",
    "type": "object",
    "description": "A finished video of this gateway; with multipart, the video may be a file.",
    "properties": {"id": {"type": "string", "description": "`video_...`"}},
    "required": ["id"],
}
"""The source of an edit or an extension."""
_PARTS = {
    "Media": _schema_of_media("MediaPart", "An http(s) URL, a base64 data URL, or a file.", _FILE),
    "Base64Media": _schema_of_media("Base64MediaPart", "An http(s) URL, a data URL, base64 alone, or a file.", _FILE),
    "SourceVideo": {
        "title": "SourceVideoPart",
        "description": "A file, or a finished video of this gateway.",
        "anyOf": [_FILE, SOURCE_VIDEO],
    },
}
SHARED_SCHEMAS = {schema["title"]: schema for schema in (_OBJECT, _MEDIA, _PICTURE, SOURCE_VIDEO, *_PARTS.values())}
"""Schemas by their titles, which are components of the document."""

Medium = Annotated[Any, WithJsonSchema(_MEDIA)]
"""A picture or a video."""
MediumOrList = Annotated[Any, WithJsonSchema({"anyOf": [_MEDIA, {"type": "array", "items": _MEDIA, "maxItems": 20}]})]
Base64Medium = Annotated[Any, WithJsonSchema(_PICTURE)]
"""A picture or a video, in dialects that take base64 alone, too."""


def as_form(schema: Any) -> Any:
    """Return the fields of a schema for multipart, where media are parts; equal to `schema` if there are none."""
    if isinstance(schema, list):
        return [as_form(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    part = _PARTS.get(schema.get("title", ""))
    if part is not None:
        beside = {name: value for name, value in schema.items() if name in ("default", "title")}
        return {**beside, **part}
    return {name: as_form(value) for name, value in schema.items()}
