"""The checks of `video-gateway doctor` over the network: each provider, and the gateway's own public address."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from ipaddress import ip_address

import httpx

from app import errors, net
from app.cli.checks import Check, Installation, Status, is_local
from app.jobs.presence import RELEASE
from app.providers.base import Provider

WRONG_ADDRESS = (301, 302, 303, 307, 308, 405, 407, 421)
"""Statuses that say that the address is wrong, or a proxy before it, rather than the key."""
ANSWER_S = 5
MAX_ANSWER_BYTES = 64 * 2**10
CAUSES: dict[type[BaseException], str] = {
    ssl.SSLError: "the TLS handshake failed",
    socket.gaierror: "its name does not resolve",
    ConnectionRefusedError: "the connection is refused",
    httpx.ProxyError: "the proxy of the environment refuses the connection",
    TimeoutError: "it takes too long",
    httpx.TimeoutException: "it takes too long",
}
PRIVATE_ENDINGS = (".internal", ".local", ".lan", ".home.arpa", ".test")


async def check_provider(provider: Provider, here: Installation) -> AsyncGenerator[Check]:
    """Reach one provider, and try its key by a free call."""
    name = f"provider {provider.name}"
    variable = f"GATEWAY_PROVIDERS__{provider.name.upper()}__"
    credentials = provider.config.credentials
    try:
        accepted = await provider.check(datetime.now(UTC))
    except errors.UpstreamCredit as error:
        yield Check(name, Status.warning, error.message, "top up the account at the vendor")
    except errors.UpstreamAccount as error:
        if error.upstream_status in WRONG_ADDRESS:
            yield Check(name, Status.failed, error.message, f"correct {variable}BASE_URL")
        elif error.upstream_status == 429:
            yield Check(name, Status.warning, error.message, "raise the limit of the account at the vendor, or wait")
        elif credentials in (None, "API_KEY"):
            yield Check(name, Status.failed, error.message, f"set the right key in {variable}API_KEY")
        else:
            hint = f"correct {variable}{credentials}, or the permissions of the account at the vendor"
            yield Check(name, Status.failed, error.message, hint)
    except errors.UpstreamGone as error:
        yield Check(name, Status.warning, error.message, f"compare {variable}BASE_URL with the vendor's documentation")
    except errors.UpstreamError as error:
        if error.upstream_status is None:
            text = f"no answer: {cause(error)}"
            yield Check(
                name, Status.failed, text, f"check {variable}BASE_URL, the network, and a proxy if there is one"
            )
        elif 300 <= error.upstream_status < 400:
            yield Check(name, Status.failed, error.message, f"correct {variable}BASE_URL")
        elif error.upstream_status < 300:
            yield Check(
                name, Status.warning, error.message, f"compare {variable}BASE_URL with the vendor's documentation"
            )
        else:
            text = f"answers ({error.upstream_status}); the key could not be checked"
            yield Check(name, Status.ok, text)
    else:
        unknown = "it has no key" if credentials is None else None if accepted else "the key could not be checked"
        yield Check(name, Status.ok, f"answers; {unknown}" if unknown else "answers and accepts the key")


def cause(error: BaseException) -> str:
    """The reason why a connection failed, in words."""
    found: BaseException | None = error
    chain: list[BaseException] = []
    while found is not None and len(chain) < 20:
        chain.append(found)
        found = found.__cause__ or found.__context__
    certificate = next((one for one in chain if hasattr(one, "verify_message")), None)
    if certificate is not None:
        return f"its TLS certificate is not valid ({certificate.verify_message})"
    for kind, words in CAUSES.items():
        if any(isinstance(one, kind) for one in chain):
            return words
    return next((type(one).__name__ for one in chain if isinstance(one, httpx.HTTPError | OSError)), "no answer")


async def check_public_url(here: Installation) -> AsyncGenerator[Check]:
    """Reach the gateway at its public address, as clients and upstreams do."""
    name, config = "public URL", here.settings
    url = config.public_url
    if url is None:
        if is_local(config.host):
            yield Check(name, Status.ok, "not set; the gateway listens for this machine alone")
            return
        text = "not set: vendors cannot call back, and links name the address of each request"
        yield Check(name, Status.warning, text, "set GATEWAY_PUBLIC_URL to the address that clients use")
        return
    shown, host = net.redact_urls(url), httpx.URL(url).host
    if url.startswith("http:") and _is_public(host):
        text = f"{shown}: keys and links travel unencrypted"
        yield Check(name, Status.warning, text, "put a proxy with TLS in front, and set the https address")
    try:
        release = await _release_at(url)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        text = f"{shown} cannot be reached from here: {cause(error)}"
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


async def _release_at(url: str) -> str | None:
    """The release of the gateway at an address; None if it is another server. Raises httpx's errors."""
    async with net.upstream(timeout_s=ANSWER_S, connections=1) as client:
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


def _is_public(host: str) -> bool:
    """True for a host that the internet may reach."""
    try:
        return ip_address(host.strip("[]")).is_global
    except ValueError:
        return "." in host and not is_local(host) and not host.endswith(PRIVATE_ENDINGS)
