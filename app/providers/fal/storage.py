"""fal's storage: an address for a file, and the file sent there without the key.

`POST /storage/upload/initiate` is the call of @fal-ai/client 1.10.1 (`tests/recordings/fal.json`). fal-client 1.0.3
asks for a token of fal's CDN instead, and in its fall-back sends the key to the address that was named: another host.
"""

import asyncio
from typing import Any

import httpx

from app import errors, net
from app.media.uploads import Upload
from app.providers.answers import file_url
from app.providers.rest import RestProvider
from app.telemetry import log

INITIATE = "/storage/upload/initiate?storage_type=fal-cdn-v3"
MAX_URL_CHARACTERS = 8_192
REFUSED_FILE = (400, 411, 413, 415)
"""Statuses of a storage that will not take this file later either."""


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
    await _put(provider, upload, target)
    return url


def _url(value: Any) -> str | None:
    url = file_url(value)
    return url if url is not None and url.startswith("http") and len(url) <= MAX_URL_CHARACTERS else None


async def _put(provider: RestProvider, upload: Upload, target: str) -> None:
    headers = {"content-type": upload.content_type, "content-length": str(upload.size)}
    try:
        request = provider.guarded.build_request("PUT", target, headers=headers, content=upload.chunks)
        async with asyncio.timeout(provider.limit_s(request)):
            response = await provider.guarded.send(request, stream=True)
            await response.aclose()
    except net.ForbiddenAddress as error:
        log.warning("address for an upload refused", provider=provider.name, reason=str(error))
        message = f"{provider.name} wants an upload in a private network, which the gateway must not reach"
        raise errors.UpstreamUnavailable(message, provider=provider.name) from error
    except (httpx.RequestError, httpx.InvalidURL, TimeoutError) as error:
        message = f"the storage of {provider.name} did not take an upload ({type(error).__name__})"
        raise errors.UpstreamUnavailable(message, provider=provider.name) from error
    if not response.is_success:
        message = f"the storage of {provider.name} did not take an upload ({response.status_code})"
        kind = errors.UpstreamRejected if response.status_code in REFUSED_FILE else errors.UpstreamUnavailable
        raise kind(message, provider=provider.name, upstream_status=response.status_code)
