"""The checks of `video-gateway doctor` over the network: each provider, and the gateway's own public address."""

import asyncio
import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import httpx

from app import net
from app.admin.shown_settings import public_url_advice
from app.cli.checks import Check, Installation, Status
from app.jobs.presence import RELEASE
from app.providers import check
from app.providers.base import Provider
from app.settings import environment_proxies

ANSWER_S = 5
MAX_ANSWER_BYTES = 64 * 2**10


async def check_provider(provider: Provider, here: Installation) -> AsyncGenerator[Check]:
    """Reach one provider, and try its key by a free call."""
    found = await check.check_provider(provider, datetime.now(UTC))
    yield Check(f"provider {provider.name}", Status(found.status), found.text, found.hint)


async def check_public_url(here: Installation) -> AsyncGenerator[Check]:
    """Reach the gateway at its public address, as clients and upstreams do."""
    name, config = "public URL", here.settings
    url = config.public_url
    advice = public_url_advice(config)
    if advice is not None:
        yield Check(name, Status.warning, advice.text.removeprefix(f"{name} "), advice.next_step)
    if url is None:
        if advice is None:
            yield Check(name, Status.ok, "not set; the gateway listens for this machine alone")
        return
    shown, proxy = net.redact_urls(url), None
    try:
        proxies = net.of_environment(environment_proxies())
        proxy = proxies.of(httpx.URL(url))
        release = await _release_at(url, proxies)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        through = "" if proxy is None else f" through the proxy {proxy.name} of the environment"
        text = f"{shown} cannot be reached from here{through}: {check.cause(error)}"
        hint = "nothing to do if a firewall stands between this machine and that address, or no server runs yet"
        yield Check(name, Status.warning, text, hint)
        return
    if release is None:
        text = f"the server at {shown} is not a video-gateway: GET /healthz answers something else"
        yield Check(name, Status.warning, text, "correct GATEWAY_PUBLIC_URL, or the proxy that stands there")
    elif release != RELEASE:
        yield Check(
            name, Status.warning, f"the gateway at {shown} is another release: {release}, this one is {RELEASE}"
        )
    else:
        yield Check(name, Status.ok, f"a video-gateway answers at {shown}")


async def _release_at(url: str, proxies: net.Proxies) -> str | None:
    """The release of the gateway at an address; None if it is another server. Raises httpx's errors."""
    async with net.upstream(timeout_s=ANSWER_S, connections=1, proxies=proxies) as client:
        request = client.build_request("GET", f"{url}/healthz")
        async with asyncio.timeout(ANSWER_S):
            response = await client.send(request, stream=True)
            try:
                body = b""
                async for piece in net.unpacked(response, MAX_ANSWER_BYTES):
                    body += piece
                    if len(body) > MAX_ANSWER_BYTES:
                        return None
            finally:
                await response.aclose()
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if response.status_code != 200 or not isinstance(document, dict) or document.get("status") != "ok":
        return None
    release = document.get("version")
    return release[:40] if isinstance(release, str) else None
