"""The check of one provider by a free call, and its result in words."""

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import httpx

from app import errors, net
from app.providers.base import Provider

WRONG_ADDRESS = (301, 302, 303, 307, 308, 405, 407, 421)
"""Statuses that say that the address is wrong, or a proxy before it, rather than the key."""
CAUSES: dict[type[BaseException], str] = {
    ssl.SSLError: "the TLS handshake failed",
    socket.gaierror: "its name does not resolve",
    ConnectionRefusedError: "the connection is refused",
    TimeoutError: "it takes too long",
    httpx.TimeoutException: "it takes too long",
}


@dataclass(frozen=True)
class Finding:
    """The result of a check; the hint is the next step."""

    status: Literal["ok", "warning", "failed"]
    text: str
    hint: str = ""

    def cleaned(self, clean: Callable[[str], str]) -> "Finding":
        """The finding with both texts cleaned: an error may repeat a secret."""
        return Finding(self.status, clean(self.text), clean(self.hint))


async def check_provider(provider: Provider, now: datetime) -> Finding:
    """Reach one provider, and try its key by a free call."""
    variable = f"GATEWAY_PROVIDERS__{provider.name.upper()}__"
    credentials = provider.config.credentials
    through = "" if provider.proxy is None else f" through the proxy {provider.proxy}"
    compare = f"compare {variable}BASE_URL with the vendor's documentation"
    try:
        accepted = await provider.check(now)
    except errors.UpstreamCredit as error:
        return Finding("warning", error.message, "top up the account at the vendor")
    except errors.UpstreamAccount as error:
        if error.upstream_status in WRONG_ADDRESS:
            return Finding("failed", error.message, f"correct {variable}BASE_URL")
        if error.upstream_status == 429:
            return Finding("warning", error.message, "raise the limit of the account at the vendor, or wait")
        if credentials in (None, "API_KEY"):
            return Finding("failed", error.message, f"set the right key in {variable}API_KEY")
        hint = f"correct {variable}{credentials}, or the permissions of the account at the vendor"
        return Finding("failed", error.message, hint)
    except errors.UpstreamGone as error:
        return Finding("warning", error.message, compare)
    except errors.UpstreamError as error:
        if error.upstream_status is None:
            if provider.proxy is None:
                hint = (
                    f"check {variable}BASE_URL, the network, and whether the way out needs a proxy: GATEWAY_HTTP_PROXY"
                )
            else:
                hint = f"check {variable}BASE_URL, and the proxy, which {provider.proxies.source} names"
            return Finding("failed", f"no answer{through}: {cause(error)}", hint)
        if 300 <= error.upstream_status < 400:
            return Finding("failed", error.message, f"correct {variable}BASE_URL")
        if error.upstream_status < 300:
            return Finding("warning", error.message, compare)
        return Finding("ok", f"answers{through} ({error.upstream_status}); the key could not be checked")
    end = (
        "; it has no key"
        if credentials is None
        else " and accepts the key"
        if accepted
        else "; the key could not be checked"
    )
    return Finding("ok", f"answers{through}{end}")


def cause(error: BaseException) -> str:
    """The reason why a connection failed, in words."""
    found: BaseException | None = error
    chain: list[BaseException] = []
    while found is not None and len(chain) < 20:
        chain.append(found)
        found = found.__cause__ or found.__context__
    refused = next((one for one in chain if isinstance(one, net.ProxyRefused)), None)
    if refused is not None:
        return f"it {refused.reason}"
    certificate = next((one for one in chain if hasattr(one, "verify_message")), None)
    if certificate is not None:
        return f"its TLS certificate is not valid ({certificate.verify_message})"
    for kind, words in CAUSES.items():
        if any(isinstance(one, kind) for one in chain):
            return words
    return next((type(one).__name__ for one in chain if isinstance(one, httpx.HTTPError | OSError)), "no answer")
