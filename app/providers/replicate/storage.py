"""Replicate's store for uploads that are too long for a request.

`POST /v1/files` is the call of replicate 1.0.7 (Python) and 1.4.0 (Node, `tests/recordings/replicate.json`). Files are
kept for a day there. The form goes to the configured address, as the key does.
"""

from typing import Any

from app import errors
from app.media.uploads import Upload
from app.providers.answers import file_url
from app.providers.forms import Form
from app.providers.rest import RestProvider
from app.providers.storage import REFUSED_FILE

PATH = "/files"
MAX_BYTES = 100 * 2**20
MAX_URL_CHARACTERS = 8_192


async def store(provider: RestProvider, upload: Upload) -> str:
    """Send an upload to the store; returns the address by which Replicate's models read it."""
    if upload.size > MAX_BYTES:
        limit = f"{provider.name} takes uploads of at most {MAX_BYTES // 2**20} MiB"
        raise errors.UpstreamRejected(f"{limit}; send its https:// address", provider=provider.name)
    form = Form([("content", upload)])
    try:
        response = await provider.call("prepare", "POST", PATH, headers=form.headers, content=form)
    except (errors.UpstreamGone, errors.UpstreamRejected) as error:
        if error.upstream_status in REFUSED_FILE:
            raise
        # a fault of the store, not of the request
        raise errors.UpstreamUnavailable(error.message, provider=provider.name, body=error.body) from error
    urls = provider.json("prepare", response).get("urls")
    url = _url(urls.get("get")) if isinstance(urls, dict) else None
    if url is None:
        raise provider.unreadable("prepare", "the answer carries no usable address of an upload", response)
    return url


def _url(value: Any) -> str | None:
    url = file_url(value)
    if url is None or not url.startswith("http") or len(url) > MAX_URL_CHARACTERS:
        return None
    return None if any("\ud800" <= character <= "\udfff" for character in url) else url
