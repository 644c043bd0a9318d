"""fal's storage: an address for a file, and the file sent there without the key.

`POST /storage/upload/initiate` is the call of @fal-ai/client 1.10.1 (`tests/recordings/fal.json`). fal-client 1.0.3
asks for a token of fal's CDN instead, and in its fall-back sends the key to the address that was named: another host.
"""

from typing import Any

from app import errors
from app.media.uploads import Upload
from app.providers.answers import file_url
from app.providers.rest import RestProvider
from app.providers.storage import send_file

INITIATE = "/storage/upload/initiate?storage_type=fal-cdn-v3"
MAX_URL_CHARACTERS = 8_192


async def store(provider: RestProvider, upload: Upload, *, origin: str) -> str:
    """Send an upload to the storage; returns the URL from which fal's models read it."""
    asked = {"content_type": upload.content_type, "file_name": upload.filename}
    try:
        response = await provider.call("prepare", "POST", INITIATE, origin=origin, json=asked)
    except (errors.UpstreamGone, errors.UpstreamRejected) as error:  # a fault of the storage, not of the request
        raise errors.UpstreamUnavailable(error.message, provider=provider.name, body=error.body) from error
    answer = provider.json("prepare", response)
    target, url = (_url(answer.get(name)) for name in ("upload_url", "file_url"))
    if target is None or url is None:
        raise provider.unreadable("prepare", "the answer carries no usable URLs for an upload", response)
    headers = {"content-type": upload.content_type, "content-length": str(upload.size)}
    await send_file(provider, "PUT", target, headers=headers, content=upload.chunks)
    return url


def _url(value: Any) -> str | None:
    url = file_url(value)
    return url if url is not None and url.startswith("http") and len(url) <= MAX_URL_CHARACTERS else None
