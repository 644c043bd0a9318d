"""Outbound HTTP; the only module that builds clients.

`upstream` calls addresses that the operator configured. `guarded` calls addresses from clients and upstreams, and only
if every address the name resolves to is public or in a network the operator allowed; it connects to the address it
checked, follows no redirect and uses no proxy.
"""

import asyncio
import contextlib
import re
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import lru_cache, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import aiohttp
import httpx
import yarl
from aiohttp import hdrs
from aiohttp.connector import Connection

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
Hook = Callable[[], Awaitable[None]]

_ADDRESS = re.compile(r"""(https?:\\*/\\*/)([^\s"'<>`]*)""", re.IGNORECASE)  # JSON may write a slash as `\/`
_URL_TOKEN = re.compile(r"""(callbacks(?:\\*/|%2f)|sig(?:=|%3d))[^\s"'<>`&]+""", re.IGNORECASE)

KEEPALIVE_S = 4
"""Shorter than the 5 s after which common servers close an idle connection: a submit on a connection that is being
closed has an unknown outcome."""
RESOLVE_S = 10
_resolvers = ThreadPoolExecutor(64, thread_name_prefix="resolve")
"""For names from clients and upstreams. A name whose servers are dead blocks its thread long after our time-out: in the
default thread pool, a few of them would block every other lookup, the database's included."""

HEADERS = {"user-agent": USER_AGENT, "accept-encoding": "identity"}
NO_COOKIES = DefaultCookiePolicy(allowed_domains=())  # a stranger's cookies would pile up
NO_CODING = ("", "identity", "none", "binary", "utf-8", "aws-chunked")
"""Values of `content-encoding` for a body that is not encoded; the last ones are mistakes, mostly of buckets."""

BEFORE_SEND = "before_send"
"""Request extension: an async function, awaited when a connection is held and no byte of the request is sent yet. What
it raises is raised by the call unchanged, nothing is sent, and the connection is closed."""
BEFORE_LAST_PIECE = "before_last_piece"
"""Request extension: the same, awaited when all of the body but its last piece has left this process."""
PIECE_BYTES = 64 * 1024
TAIL_BYTES = 4 * 1024
"""Longest last piece of a body that is held back; a shorter body is sent in one piece with its head."""
MAX_HEAD_LINE_BYTES = 64 * 1024
MAX_HEAD_LINES = 1000
_NOT_ADDED = (hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE)
"""Headers that aiohttp would add to a request without them."""


@lru_cache
def _tls() -> ssl.SSLContext:
    """One context for all clients: reading the certificates takes longer than a request."""
    return httpx.create_ssl_context()


class NotSent(httpx.ConnectError):
    """The connection was closed while the hook ran; no byte of the request was sent."""


class ForbiddenAddress(httpx.ConnectError):
    """The name resolves to an address that must not be reached from here."""


def upstream(*, timeout_s: float, connections: int) -> httpx.AsyncClient:
    """A client for one configured provider: no redirects, since the key must not leave the configured origin."""
    return _Client(
        headers=HEADERS,
        timeout=httpx.Timeout(timeout_s, connect=10),
        limits=httpx.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEPALIVE_S
        ),
        follow_redirects=False,
        cookies=CookieJar(NO_COOKIES),
        event_hooks={"response": [_refuse_invalid_redirect]},
    )


def guarded(*, allow: Iterable[Network] = (), timeout_s: float = 30) -> httpx.AsyncClient:
    """A client for addresses from clients and upstreams. Raises `ForbiddenAddress`, a `httpx.ConnectError`."""
    return httpx.AsyncClient(
        transport=GuardedTransport(allow),
        headers=HEADERS,
        timeout=httpx.Timeout(timeout_s, connect=10),
        follow_redirects=False,
        cookies=CookieJar(NO_COOKIES),
        trust_env=False,
        event_hooks={"response": [_refuse_invalid_redirect]},
    )


class Once:
    """An awaitable hook that is called at most once; `done` after it has returned."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook
        self.called = False
        self.done = False

    async def __call__(self) -> None:
        if self.called:
            raise AssertionError("a request is sent once")
        self.called = True
        await self._hook()
        self.done = True


def hold_until(hook: Once, request: httpx.Request, *, whole_body: bool) -> None:
    """Await `hook` right before the first byte of `request` is written to its connection; with `whole_body`, before the
    last piece of a body longer than `TAIL_BYTES`. If it raises, no more is sent."""
    late = whole_body and int(request.headers.get("content-length", "0")) > TAIL_BYTES
    request.extensions = {**request.extensions, BEFORE_LAST_PIECE if late else BEFORE_SEND: hook}


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


class _Call:
    """One request on its way: its hooks, whether it may have been sent, and its connection."""

    def __init__(self, extensions: Mapping[str, Any]) -> None:
        self.before_send: Hook | None = extensions.get(BEFORE_SEND)
        self.before_last_piece: Hook | None = extensions.get(BEFORE_LAST_PIECE)
        self.raised: BaseException | None = None
        """The error of a hook or of the body."""
        self.sent = False
        self._connection: Connection | None = None
        self._transport: asyncio.Transport | None = None

    async def begin(self, connection: Connection) -> None:
        """Take the connection on which the request is sent now. Raises what `before_send` does, and `NotSent`."""
        self._connection, self._transport = connection, connection.transport
        if self.before_last_piece is not None and self._transport is not None:
            self._transport.set_write_buffer_limits(0)  # so that "drained" means that all has left this process
        if self.before_send is not None:
            await self._run(self.before_send)
            if self._transport is None or self._transport.is_closing():
                self.raised = NotSent("the connection was closed before the request was sent")
                raise self.raised
        self.sent = True

    def abort(self) -> None:
        """Close the connection at once: a close would first wait until the peer has read what is buffered."""
        if self._transport is not None:
            self._transport.abort()

    async def pieces(self, stream: Any) -> AsyncIterator[bytes]:
        """The body in pieces, each with a time-out of its own: aiohttp has none for a peer that does not read."""
        held = b""
        try:
            async for part in stream:
                for start in range(0, len(part), PIECE_BYTES):
                    if held:
                        self._start_timeout()
                        yield held
                    held = part[start : start + PIECE_BYTES]
        except Exception as error:
            self.raised = error
            raise
        if self.before_last_piece is not None:
            if len(held) > TAIL_BYTES:
                self._start_timeout()
                yield held[:-TAIL_BYTES]
                held = held[-TAIL_BYTES:]
            if self._connection is not None and self._connection.protocol is not None:
                await self._connection.protocol._drain_helper()
            await self._run(self.before_last_piece)
        self._start_timeout()
        yield held

    async def _run(self, hook: Hook) -> None:
        try:
            await hook()
        except BaseException as error:
            self.raised = error
            raise

    def _start_timeout(self) -> None:
        if self._connection is not None and self._connection.protocol is not None:
            self._connection.protocol.start_timeout()

    @contextlib.contextmanager
    def translated(self, request: httpx.Request) -> Iterator[None]:
        """Turn errors of aiohttp into httpx's; only those before the first byte become errors of the connection."""
        try:
            yield
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if self.raised is not None:
                raise self.raised from None
            kind: type[httpx.RequestError] = httpx.ReadError
            if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
                kind = httpx.ProxyError
            elif isinstance(error, TimeoutError):
                kind = httpx.ReadTimeout if self.sent else httpx.ConnectTimeout
            elif not isinstance(error, aiohttp.ClientError | OSError):
                kind = httpx.LocalProtocolError
            elif not self.sent:
                kind = httpx.ConnectError
            elif isinstance(
                error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | aiohttp.ClientResponseError
            ):
                kind = httpx.RemoteProtocolError
            raise kind(str(error) or type(error).__name__, request=request) from error


_call: ContextVar[_Call] = ContextVar("call")


class _Request(aiohttp.ClientRequest):
    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        call = _call.get()
        if call.sent:  # aiohttp repeats a GET, PUT or DELETE whose connection was closed
            raise aiohttp.ClientPayloadError("the connection was closed after the request was sent")
        await call.begin(conn)
        return await super().send(conn)


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: aiohttp.ClientResponse, call: _Call, request: httpx.Request) -> None:
        self._answer, self._call, self._request = answer, call, request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self._call.translated(self._request):
            async for piece in self._answer.content.iter_any():
                yield piece

    async def aclose(self) -> None:
        if self._answer.content.at_eof():
            self._answer.release()
        else:
            self._call.abort()
            self._answer.close()


class Transport(httpx.AsyncBaseTransport):
    """httpx's requests over aiohttp's connections; see docs/decisions/0024."""

    def __init__(self, limits: httpx.Limits, proxy: httpx.Proxy | None = None) -> None:
        self._limits = limits
        self._proxy: yarl.URL | None = None
        if proxy is not None and proxy.url.scheme not in ("http", "https"):
            raise ValueError(f"proxies with the scheme {proxy.url.scheme} are not supported; expected http or https")
        if proxy is not None:
            user, password = proxy.auth or (None, None)
            self._proxy = yarl.URL(str(proxy.url)).with_user(user).with_password(password)
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        once = self._limits.max_keepalive_connections == 0
        keep: dict[str, Any] = {"force_close": True} if once else {"keepalive_timeout": self._limits.keepalive_expiry}
        limit = self._limits.max_connections or 0
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=_tls(), limit=limit, use_dns_cache=False, **keep),
            request_class=_Request,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=MAX_HEAD_LINE_BYTES,
            max_field_size=MAX_HEAD_LINE_BYTES,
            max_headers=MAX_HEAD_LINES,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol(f"unsupported protocol {request.url.scheme!r}", request=request)
        self._session = session = self._session or self._open()
        call = _Call(request.extensions)
        try:
            content = request.content
        except httpx.RequestNotRead:
            content = None
        short = content is not None and len(content) <= PIECE_BYTES and call.before_last_piece is None
        limits = request.extensions.get("timeout", {})
        token = _call.set(call)
        try:
            with call.translated(request):
                answer = await session.request(
                    request.method,
                    # Built from its parts, as they are: aiohttp would quote a URL anew, which breaks signatures.
                    yarl.URL.build(
                        scheme=request.url.scheme,
                        authority=request.url.netloc.decode("ascii"),
                        path=request.url.raw_path.decode("ascii"),
                        encoded=True,
                    ),
                    headers=[
                        (name.decode("latin-1"), value.decode())
                        for name, value in request.headers.raw
                        if name.lower() != b"transfer-encoding"  # set by aiohttp
                    ],
                    skip_auto_headers=_NOT_ADDED,
                    data=(content or None) if short else call.pieces(request.stream),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(
                        connect=limits.get("pool"), sock_connect=limits.get("connect"), sock_read=limits.get("read")
                    ),
                    server_hostname=request.extensions.get("sni_hostname"),
                    proxy=self._proxy,
                )
        except BaseException:
            call.abort()
            raise
        finally:
            _call.reset(token)
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer, call, request))

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


class _Client(httpx.AsyncClient):
    """With `Transport` for direct connections and for those through a proxy of the environment."""

    def _init_transport(self, *, limits: httpx.Limits, **_: Any) -> httpx.AsyncBaseTransport:  # type: ignore[override]
        return Transport(limits)

    def _init_proxy_transport(  # type: ignore[override]
        self, proxy: httpx.Proxy, *, limits: httpx.Limits, **_: Any
    ) -> httpx.AsyncBaseTransport:
        return Transport(limits, proxy)


class GuardedTransport(Transport):
    """Resolves once, checks all addresses, connects to a checked one and verifies the certificate of the name."""

    def __init__(self, allow: Iterable[Network] = ()) -> None:
        # Kept-alive connections are pooled by address, and two names on one address must not share a TLS session.
        super().__init__(httpx.Limits(max_keepalive_connections=0))
        self._allow = tuple(allow)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            _ = request.url.host
        except ValueError:  # `xn--` names that do not decode
            raise httpx.ConnectError("the host name of this address is invalid") from None
        # The encoded form: sockets and TLS would encode the decoded name by another standard, `faß.de` to `fass.de`.
        host = request.url.raw_host.decode("ascii")
        address = await checked_address(host, request.url.port, self._allow)
        request.extensions = {**request.extensions, "sni_hostname": host}
        request.url = request.url.copy_with(host=address)
        return await super().handle_async_request(request)


async def checked_address(host: str, port: int | None, allow: Iterable[Network]) -> str:
    """Return the address to connect to, or raise `ForbiddenAddress` unless all addresses of `host` may be reached."""
    try:
        async with asyncio.timeout(RESOLVE_S):
            lookup = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            found = await asyncio.get_running_loop().run_in_executor(_resolvers, lookup)
    except (OSError, UnicodeError, OverflowError):  # TimeoutError is an OSError, a long port overflows
        raise httpx.ConnectError(f"the name {host} does not resolve") from None
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not addresses or not all(may_reach(address, allow) for address in addresses):
        raise ForbiddenAddress(f"{host} is not a public address")
    return addresses[0]


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
