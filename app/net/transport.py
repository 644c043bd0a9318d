"""httpx's requests over aiohttp's connections; see docs/decisions/0024 and 0025."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import aiohttp
import httpx
import yarl
from aiohttp import hdrs
from aiohttp.connector import Connection

from app.net.proxies import DIRECT, Proxies, authorization
from app.setting_types import Proxy

Hook = Callable[[], Awaitable[None]]

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


class ProxyRefused(httpx.ConnectError):
    """The proxy cannot be reached, or passes nothing on: the server has not seen the request."""

    def __init__(self, proxy: Proxy, reason: str, request: httpx.Request) -> None:
        super().__init__(f"the proxy {proxy.name} {reason}", request=request)
        self.reason = reason
        """The same without the name of the proxy."""


def _refusal(error: Exception, proxy: Proxy) -> str | None:
    """The refusal of a proxy, before it had a connection to the server, in words; None for another error."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"refuses the connection ({_status(error.status)})"
    if isinstance(error, aiohttp.ClientConnectorDNSError):  # the name of the server is the proxy's to resolve
        return "cannot be reached: its name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        is_its = (error.host, error.port) == (proxy.host, proxy.port)  # else the server's, within the tunnel
        return "cannot be reached: its TLS or its certificate is not valid" if is_its else None
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        refused = isinstance(error.os_error, ConnectionRefusedError)
        return f"cannot be reached{': the connection is refused' if refused else ''}"
    return None


def _status(code: int) -> str:
    """A status with its usual words, not the ones that came."""
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


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


class _Call:
    """One request on its way: its hooks, whether it may have been sent, and its connection."""

    def __init__(self, extensions: Mapping[str, Any], proxy: Proxy | None) -> None:
        self._proxy = proxy
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
            # So that "drained" means that all has left this process. With 0, TLS pauses at an empty buffer, for ever.
            is_tls = self._transport.get_extra_info("sslcontext") is not None
            self._transport.set_write_buffer_limits(1 if is_tls else 0, 0)
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
            if self._proxy is not None and not self.sent and (reason := _refusal(error, self._proxy)):
                raise ProxyRefused(self._proxy, reason, request) from error
            kind: type[httpx.RequestError] = httpx.ReadError
            if isinstance(error, TimeoutError):
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

    def __init__(self, limits: httpx.Limits, proxies: Proxies = DIRECT) -> None:
        self._limits = limits
        self.proxies = proxies
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
        return await self.send(request, self.proxies.of(request.url))

    async def send(self, request: httpx.Request, proxy: Proxy | None) -> httpx.Response:
        """Send a request through a proxy, or directly. Raises httpx's errors, and `ProxyRefused`."""
        if request.url.scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol(f"unsupported protocol {request.url.scheme!r}", request=request)
        self._session = session = self._session or self._open()
        call = _Call(request.extensions, proxy)
        try:
            content = request.content
        except httpx.RequestNotRead:
            content = None
        short = content is not None and len(content) <= PIECE_BYTES and call.before_last_piece is None
        limits = request.extensions.get("timeout", {})
        forwards = proxy is not None and request.url.scheme == "http"  # a request, where https is a tunnel
        headers = [
            (name.decode("latin-1"), value.decode())
            for name, value in request.headers.raw
            if name.lower() != b"transfer-encoding"  # set by aiohttp
        ]
        asked = authorization(proxy) if proxy is not None else {}
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
                    headers=[*headers, *asked.items()] if forwards else headers,
                    skip_auto_headers=_NOT_ADDED,
                    data=(content or None) if short else call.pieces(request.stream),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(
                        connect=limits.get("pool"), sock_connect=limits.get("connect"), sock_read=limits.get("read")
                    ),
                    server_hostname=request.extensions.get("sni_hostname"),
                    proxy=None if proxy is None else yarl.URL(f"{proxy.scheme}://{proxy.name}"),
                    proxy_headers=None if forwards else asked,
                )
        except BaseException:
            call.abort()
            raise
        finally:
            _call.reset(token)
        if forwards and proxy is not None and answer.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            call.abort()
            answer.close()
            raise ProxyRefused(proxy, f"refuses the request ({_status(answer.status)})", request)
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer, call, request))

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
