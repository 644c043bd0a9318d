"""Uploads to the storage of a vendor, at an address that its answer has named: untrusted, so without the key."""

import asyncio
from collections.abc import AsyncIterable, Mapping

import httpx

from app import errors, net
from app.providers.rest import RestProvider
from app.telemetry.logs import log

REFUSED_FILE = (400, 411, 413, 415)
"""Statuses of a storage that will not take this file later either."""


async def send_file(
    provider: RestProvider, method: str, target: str, *, headers: Mapping[str, str], content: AsyncIterable[bytes]
) -> None:
    """Send a file, without the key, to an address that the vendor has named. Raises `UpstreamUnavailable`, and
    `UpstreamRejected` if the storage will never take this file."""
    try:
        request = provider.guarded.build_request(method, target, headers=headers, content=content)
        async with asyncio.timeout(provider.limit_s(request)):
            response = await provider.guarded.send(request, stream=True)
            await response.aclose()
    except net.ForbiddenAddress as error:
        log.warning("address for an upload refused", provider=provider.name, reason=str(error))
        message = f"{provider.name} wants an upload in a private network, which the gateway must not reach"
        raise errors.UpstreamUnavailable(message, provider=provider.name) from error
    except (httpx.RequestError, httpx.InvalidURL, TimeoutError) as error:
        message = f"the storage of {provider.name} did not take an upload ({type(error).__name__})"
        body = provider.proxy_note(target, error) if isinstance(error, httpx.TransportError) else None
        raise errors.UpstreamUnavailable(message, provider=provider.name, body=body) from error
    if not response.is_success:
        message = f"the storage of {provider.name} did not take an upload ({response.status_code})"
        kind = errors.UpstreamRejected if response.status_code in REFUSED_FILE else errors.UpstreamUnavailable
        raise kind(message, provider=provider.name, upstream_status=response.status_code)
