"""Outbound HTTP; the only module that builds clients.

`upstream` calls addresses that the operator configured. `guarded` calls addresses from clients and upstreams, and only
if every address the name resolves to is public or in a network the operator allowed; it connects to the address it
checked, and follows no redirect. Behind a proxy the check is weaker, since the proxy resolves the name, too. Neither
reads proxies from the environment: they are given.
"""

import asyncio
import re
import socket
import zlib
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

from app.net.proxies import DIRECT, Proxies, authorization, of_environment, through
from app.net.transport import ProxyRefused, Transport

__all__ = ["DIRECT", "Proxies", "ProxyRefused", "authorization", "of_environment", "through"]

USER_AGENT = f"video-gateway/{version('video-gateway')}"

_NEVER_PUBLIC = [
    ip_network(network)
    for network in (
        *("192.0.0.0/24", "168.63.129.16/32"),  # metadata services of Oracle's and Azure's clouds
        *("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "192.88.99.0/24"),  # NAT64 and 6to4 reach any IPv4 address
        *("::/96", "::ffff:0:0:0/96"),  # so do IPv4-compatible and IPv4-translated addresses
        *("fec0::/10", "5f00::/16", "3fff::/20", "100:0:0:1::/64"),  # site-local, segment routing, documentation, dummy
        *("224.0.0.0/4", "ff00::/8"),  # multicast
    )
]
"""Refused although `is_global` is true for them, in some versions of Python at least."""

Network = IPv4Network | IPv6Network

_ADDRESS = re.compile(r"""(https?:\\*/\\*/)([^\s"'<>`]*)""", re.IGNORECASE)  # JSON may write a slash as `\/`
_URL_TOKEN = re.compile(r"""(callbacks(?:\\*/|%2f)|sig(?:=|%3d))[^\s"'<>`&]+""", re.IGNORECASE)

KEEPALIVE_S = 4
"""Shorter than the 5 s after which common servers close an idle connection: a submit on a connection that is being
closed has an unknown outcome."""
RESOLVE_S = 10
RESOLVE_BESIDE_PROXY_S = 3
"""The same for a name that a proxy resolves again: where it is the only way out, ours may know no outside name."""
_resolvers = ThreadPoolExecutor(64, thread_name_prefix="resolve")
"""For names from clients and upstreams. A name whose servers are dead blocks its thread long after our time-out: in the
default thread pool, a few of them would block every other lookup, the database's included."""

HEADERS = {"user-agent": USER_AGENT, "accept-encoding": "identity"}
NO_COOKIES = DefaultCookiePolicy(allowed_domains=())  # a stranger's cookies would pile up
NO_CODING = ("", "identity", "none", "binary", "utf-8", "aws-chunked")
"""Values of `content-encoding` for a body that is not encoded; the last ones are mistakes, mostly of buckets."""


class ForbiddenAddress(httpx.ConnectError):
    """The name resolves to an address that must not be reached from here."""


def upstream(*, timeout_s: float, connections: int, proxies: Proxies = DIRECT) -> httpx.AsyncClient:
    """A client for one configured provider: no redirects, since the key must not leave the configured origin."""
    limits = httpx.Limits(
        max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEPALIVE_S
    )
    return _client(Transport(limits, proxies), timeout_s)


def guarded(*, allow: Iterable[Network] = (), timeout_s: float = 30, proxies: Proxies = DIRECT) -> httpx.AsyncClient:
    """A client for addresses from clients and upstreams. Raises `ForbiddenAddress`, a `httpx.ConnectError`."""
    return _client(GuardedTransport(allow, proxies), timeout_s)


def _client(transport: Transport, timeout_s: float) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=transport,
        headers=HEADERS,
        timeout=httpx.Timeout(timeout_s, connect=10),
        follow_redirects=False,
        cookies=CookieJar(NO_COOKIES),
        trust_env=False,
        event_hooks={"response": [_refuse_invalid_redirect]},
    )


@asynccontextmanager
async def answering(
    client: httpx.AsyncClient, request: httpx.Request, *, timeout_s: float
) -> AsyncIterator[httpx.Response]:
    """The answer to a request, whose head has to come within a time and whose body is read by the caller. Raises
    `httpx.ReadTimeout`."""
    try:
        async with asyncio.timeout(timeout_s):
            response = await client.send(request, stream=True)
    except TimeoutError as error:
        raise httpx.ReadTimeout("no answer in time", request=request) from error
    try:
        yield response
    finally:
        await response.aclose()


async def unpacked(response: httpx.Response, piece_bytes: int) -> AsyncIterator[bytes]:
    """The body of a streamed answer in pieces of at most `piece_bytes`, inflated if it came compressed unrequested.

    httpx would inflate all that it has read at once, to a thousand times its size, and again for each coding named.
    Raises `httpx.DecodingError` for a coding other than gzip and deflate, for more than one, and for broken data.
    """
    named = response.headers.get("content-encoding", "").lower().split(",")
    codings = [coding.strip() for coding in named if coding.strip() not in NO_CODING]
    inflater = zlib.decompressobj(47)  # gzip or zlib, as the first bytes say
    async for packed in response.aiter_raw(piece_bytes):
        if not codings:
            yield packed
            continue
        if len(codings) > 1 or codings[0] not in ("gzip", "x-gzip", "deflate"):
            raise httpx.DecodingError(f"the coding {', '.join(codings)!r:.80} is unsupported", request=response.request)
        more = True
        while more and not inflater.eof:
            try:
                piece = inflater.decompress(packed, piece_bytes)
            except zlib.error as error:
                raise httpx.DecodingError(str(error), request=response.request) from error
            packed = inflater.unconsumed_tail
            more = bool(packed) or len(piece) == piece_bytes  # after a full piece the inflater may hold more
            if piece:
                yield piece
    if codings and response.num_bytes_downloaded and not inflater.eof:
        raise httpx.DecodingError("the compressed answer is incomplete", request=response.request)


async def _refuse_invalid_redirect(response: httpx.Response) -> None:
    """Refuse a redirect to an invalid URL: httpx parses it even so, and raises if its host does not decode."""
    if not response.has_redirect_location:
        return
    try:
        sound = "\0" not in httpx.URL(response.headers["location"]).host
    except (httpx.InvalidURL, ValueError):
        sound = False
    if not sound:
        raise httpx.RemoteProtocolError("the answer redirects to an invalid address", request=response.request)


class GuardedTransport(Transport):
    """Resolves once, checks all addresses, connects to a checked one and verifies the certificate of the name.

    Through a proxy, the name is checked if it resolves here, and sent: the proxy connects to what it finds itself. A
    name whose addresses are all in the allowed networks, which are inside, is called directly.
    """

    def __init__(self, allow: Iterable[Network] = (), proxies: Proxies = DIRECT) -> None:
        # Kept-alive connections are pooled by address, and two names on one address must not share a TLS session.
        super().__init__(httpx.Limits(max_keepalive_connections=0), proxies)
        self._allow = tuple(allow)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            _ = request.url.host
        except ValueError:  # `xn--` names that do not decode
            raise httpx.ConnectError("the host name of this address is invalid") from None
        # The encoded form: sockets and TLS would encode the decoded name by another standard, `faß.de` to `fass.de`.
        host = request.url.raw_host.decode("ascii")
        proxy = self.proxies.of(request.url)
        address = await checked_address(host, request.url.port, self._allow, is_proxied=proxy is not None)
        if address is None:
            return await self.send(request, proxy)
        request.extensions = {**request.extensions, "sni_hostname": host}
        request.url = request.url.copy_with(host=address)
        return await self.send(request, None)


async def checked_address(
    host: str, port: int | None, allow: Iterable[Network], *, is_proxied: bool = False
) -> str | None:
    """Return the address to connect to, or None to leave that to the proxy. Raises `ForbiddenAddress` unless all
    addresses of `host` may be reached, and `httpx.ConnectError` if it has none and there is no proxy to know better."""
    allow = tuple(allow)
    forbidden = ForbiddenAddress(f"{host} is not a public address")
    if is_proxied and is_private(host, allow):  # in forms, too, that a proxy may read and our resolver does not
        raise forbidden
    try:
        async with asyncio.timeout(RESOLVE_BESIDE_PROXY_S if is_proxied else RESOLVE_S):
            lookup = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            found = await asyncio.get_running_loop().run_in_executor(_resolvers, lookup)
    except (OSError, UnicodeError, OverflowError):  # TimeoutError is an OSError, a long port overflows
        if is_proxied:
            return None
        raise httpx.ConnectError(f"the name {host} does not resolve") from None
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not addresses or not all(may_reach(address, allow) for address in addresses):
        raise forbidden
    return None if is_proxied and any(may_reach(address) for address in addresses) else addresses[0]


def is_private(host: str, allow: Iterable[Network] = ()) -> bool:
    """Return True for a host of a URL that is this machine or a private IP address, in any notation that sockets take,
    such as `2130706433`. Other names are only resolved, and checked, when they are called."""
    name = re.sub(r"^(.*\.)?localhost$", "127.0.0.1", host.partition("%")[0].rstrip(".").lower())
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError):
        return False
    return not may_reach(str(found[0][4][0]).partition("%")[0], allow)


def redact_urls(text: str) -> str:
    """The text with its URLs redacted: no user, no query, no fragment, no callback token."""
    return _URL_TOKEN.sub(r"\1...", _ADDRESS.sub(_cut, text))


def _cut(found: re.Match[str]) -> str:
    place = re.split(r"[?#]", found[2], maxsplit=1)[0]
    authority = re.split(r"[/\\]", place, maxsplit=1)[0]
    return found[1] + authority.rpartition("@")[2] + place[len(authority) :]


def may_reach(address: str, allow: Iterable[Network] = ()) -> bool:
    """Return True if `address` is public or in one of the networks of `allow`."""
    ip: IPv4Address | IPv6Address = ip_address(address)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if any(ip.version == network.version and ip in network for network in allow):
        return True
    return ip.is_global and not any(ip.version == network.version and ip in network for network in _NEVER_PUBLIC)
