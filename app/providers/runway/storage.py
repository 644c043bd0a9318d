"""Runway's store for uploads that are too long for a request: an address for a form, and the file sent there without
the key. `POST /v1/uploads` and the form are the calls of runwayml 5.24.0 (`tests/recordings/runway.json`)."""

from typing import Any, TypeGuard

from app import errors
from app.media.uploads import Upload
from app.providers.answers import file_url
from app.providers.forms import Form
from app.providers.rest import RestProvider
from app.providers.storage import send_file

PATH = "/v1/uploads"
SCHEME = "runway://"
MAX_TEXT_CHARACTERS = 8_192
MAX_FIELDS = 32
MAX_BYTES = 200 * 2**20


async def store(provider: RestProvider, upload: Upload) -> str:
    """Send an upload to the store; returns the address by which Runway's models read it."""
    if upload.size > MAX_BYTES:
        limit = f"{provider.name} takes uploads of at most {MAX_BYTES // 2**20} MiB"
        raise errors.UpstreamRejected(limit, provider=provider.name)
    asked = {"filename": upload.filename, "type": "ephemeral"}
    try:
        response = await provider.call("prepare", "POST", PATH, json=asked)
    except (errors.UpstreamGone, errors.UpstreamRejected) as error:  # a fault of the store, not of the request
        raise errors.UpstreamUnavailable(error.message, provider=provider.name, body=error.body) from error
    answer = provider.json("prepare", response)
    target, uri, fields = file_url(answer.get("uploadUrl")), answer.get("runwayUri"), _fields(answer.get("fields"))
    can_send = fields is not None and _is_text(target) and target.startswith("http")
    if target is None or fields is None or not can_send or not _is_text(uri) or not uri.startswith(SCHEME):
        raise provider.unreadable("prepare", "the answer carries no usable addresses for an upload", response)
    form = Form([*fields, ("file", upload)])
    await send_file(provider, "POST", target, headers=form.headers, content=form)
    return uri


def _is_text(value: Any) -> TypeGuard[str]:
    """True for a text that can be sent: of bounded length, and without half a character."""
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _fields(value: Any) -> list[tuple[str, str]] | None:
    """The fields of the form; None if they cannot be sent."""
    if not isinstance(value, dict) or len(value) > MAX_FIELDS:
        return None
    fields = list(value.items())
    return fields if all(_is_text(text) for field in fields for text in field) else None
