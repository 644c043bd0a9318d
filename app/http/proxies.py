"""Requests through proxies: the client's address, and the scheme, host and path prefix of the address that it called.

The X-Forwarded headers are claims, which any client can send too: they are believed only from a proxy that
`GATEWAY_TRUSTED_PROXIES` names, and only if they have the form of what they stand for. They never change the path that
is routed.
"""

import math
import re
import time
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal
from urllib.parse import quote

from starlette.types import ASGIApp, Receive, Scope, Send

from app.telemetry.logs import log

FOR, PROTO, HOST, PREFIX = FORWARDED = (
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-forwarded-prefix",
)
MAX_HOPS = 32
"""Entries of X-Forwarded-For that are read, from its end."""
NOTICE_S = 60
"""Shortest interval between two notices in the log that the headers of an untrusted peer were ignored."""

_HOP = re.compile(r"(?:\[([0-9a-fA-F:.]{2,45})\]|([0-9.]{7,15}))(?::([0-9]{1,5}))?|([0-9a-fA-F:.]{2,45})")
_FORMS: Mapping[bytes, re.Pattern[str]] = {
    PROTO: re.compile(r"https?"),
    HOST: re.compile(r"(?:\[[0-9a-fA-F:.]{2,45}\]|[a-zA-Z0-9_][a-zA-Z0-9._-]{0,252})(?::[0-9]{1,5})?"),
    PREFIX: re.compile(r"(?:/(?!\.{1,2}(?:/|$))[a-zA-Z0-9._~-]{1,100}){0,16}/?"),
}

Proxy = IPv4Network | IPv6Network | Literal["*"]


class ProxyMiddleware:
    """Sets `client`, `scheme` and the Host header of the scope to those of the client's own request, and
    `gateway_prefix` to the beginning of its path that is not routed here."""

    def __init__(self, app: ASGIApp, *, trusted: Sequence[Proxy]) -> None:
        self.app = app
        self._trusts_all = "*" in trusted
        self._networks = tuple(network for network in trusted if network != "*")
        self._noticed_at = -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            _split_mount_path(scope)
            if (peer := scope.get("client")) is not None:
                scope["client"] = _without_mapping(peer[0]), peer[1]
            claims: dict[bytes, str] = {}
            for name, value in scope["headers"]:
                if name in FORWARDED:  # several lines are one list
                    text = value.decode("latin-1")
                    claims[name] = f"{claims[name]},{text}" if name in claims else text
            if claims and self._trusts_peer(scope):
                self._believe(scope, claims)
            elif claims:
                self._notice(scope)
        await self.app(scope, receive, send)

    def _trusts_peer(self, scope: Scope) -> bool:
        """`*` trusts every peer, also one without an address, at a Unix socket."""
        peer = scope.get("client")
        return self._trusts_all or (peer is not None and self._is_proxy(peer[0]))

    def _is_proxy(self, host: str) -> bool:
        """True for an address of the networks. `*` names none: what the peer's entry says may be any client."""
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def _believe(self, scope: Scope, claims: Mapping[bytes, str]) -> None:
        client, hops = self._client_of(claims.get(FOR, ""))
        if client is not None:
            scope["client"] = client
        if proto := _claim(claims, PROTO, hops):
            scope["scheme"] = proto
        hosts = sum(name == b"host" for name, _ in scope["headers"])
        if hosts <= 1 and (host := _claim(claims, HOST, hops)):  # a request with two is refused
            others = [header for header in scope["headers"] if header[0] != b"host"]
            scope["headers"] = [(b"host", host.encode()), *others]
        if prefix := _claim(claims, PREFIX, hops).rstrip("/"):
            mounted = scope["gateway_prefix"]
            scope["gateway_prefix"] = prefix if prefix.endswith(mounted) else prefix + mounted

    def _client_of(self, forwarded_for: str) -> tuple[tuple[str, int] | None, int]:
        """Address and port of the client, None for the peer's, and the number of trusted proxies, the peer included.

        Each proxy appends the address that it was called from, so the entries are read from the end: the first one that
        is no trusted proxy is the client, and what stands before it is the client's own invention. An entry that is no
        address, `unknown` for example, ends the search: the client is then the last proxy before it.
        """
        client, hops = None, 1
        for entry in reversed(forwarded_for.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
            found = _read_hop(entry.strip())
            if found is None:
                break
            client = found
            if not self._is_proxy(found[0]):
                break
            hops += 1
        return client, hops

    def _notice(self, scope: Scope) -> None:
        """Log that headers are ignored, at most once in `NOTICE_S`: any client can send them."""
        if time.monotonic() - self._noticed_at >= NOTICE_S:
            self._noticed_at = time.monotonic()
            peer = scope.get("client")
            hint = "if the peer is your proxy, name it in GATEWAY_TRUSTED_PROXIES"
            log.info("forwarded headers ignored", peer="a Unix socket" if peer is None else peer[0], hint=hint)


def _claim(claims: Mapping[bytes, str], name: bytes, hops: int) -> str:
    """The value that the outermost trusted proxy gave the header; empty if there is none of the right form.

    Only that proxy was called by the client itself, so only it knows the address that the client used. A proxy that
    appends makes one entry, so of `hops` trusted proxies the outermost has made the entry `hops` from the end, and
    entries before it are the client's. A shorter list comes from proxies that replace the header or pass it on; then
    its first entry is the outermost one.
    """
    values = [value.strip() for value in claims.get(name, "").split(",")]
    value = values[-hops] if hops <= len(values) else values[0]
    port = value.rpartition(":")[2]
    if _FORMS[name].fullmatch(value) and not (name == HOST and port.isdigit() and int(port) > 65_535):
        return value
    if value:
        log.debug("forwarded header ignored", header=name.decode(), value=value[:100])
    return ""


def _read_hop(entry: str) -> tuple[str, int] | None:
    """Address and port, 0 if there is none, of an entry of X-Forwarded-For; None if it is no address."""
    match = _HOP.fullmatch(entry)
    if match is None:
        return None
    try:
        address = ip_address(match[1] or match[2] or match[4])
    except ValueError:
        return None
    return _without_mapping(str(address)), min(int(match[3] or 0), 65_535)


def _without_mapping(host: str) -> str:
    """An IPv4 address instead of the IPv6 form that it has at a socket for both."""
    if not host.startswith("::ffff:"):
        return host
    try:
        address = ip_address(host)
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return host if mapped is None else str(mapped)


def _split_mount_path(scope: Scope) -> None:
    """Take the path at which a server mounts the application, `uvicorn --root-path`, out of the path."""
    mounted = scope.get("root_path", "").rstrip("/")
    scope["gateway_prefix"] = mounted
    scope["root_path"] = ""
    if mounted and f"{scope['path']}/".startswith(f"{mounted}/"):
        scope["path"] = scope["path"].removeprefix(mounted) or "/"
        if scope.get("raw_path"):
            scope["raw_path"] = scope["raw_path"].removeprefix(quote(mounted).encode()) or b"/"
