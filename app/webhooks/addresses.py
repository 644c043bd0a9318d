"""Addresses that clients give, for webhooks and for media: read as they will be called, and never private."""

import re
from collections.abc import Iterable

import httpx

from app import errors, net


def public_url(url: str, param: str, allow: Iterable[net.Network]) -> httpx.URL:
    """Read an http(s) address, which may lead to the private networks of `allow`; a name is only resolved, and checked,
    when it is called. Raises `InvalidRequest`, which does not repeat the address: it may hold a token.

    A host that libraries read in different ways, with a percent-encoding or a backslash, is refused: it could be a
    private one where it is called.
    """

    def refused(why: str) -> errors.InvalidRequest:
        return errors.InvalidRequest(f"{param}: {why}", param=param, code="invalid_value")

    try:
        parsed = httpx.URL(url)
        named, host, port = parsed.host, parsed.raw_host, parsed.port  # `host` is decoded only when it is read
    except (httpx.InvalidURL, ValueError):
        raise refused("this is not an address") from None
    if parsed.scheme not in ("http", "https") or not named or b"%" in host or re.match(r"[^:]*://[^/?#]*\\", url):
        raise refused("expected an http:// or https:// address")
    if port is not None and not 0 < port < 65_536:
        raise refused("there is no such port")
    if net.is_private(host.decode("ascii"), allow):
        raise errors.PrivateAddress(param)
    return parsed
