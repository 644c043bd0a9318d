"""The outermost layer: request ids, body limits, headers of every answer, access log, HTTP metrics, and the last word
on errors.

Pure ASGI, since it runs for every request and must not touch a streamed body.
"""

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import errors, ids
from app.http.errors import RenderError, to_response
from app.telemetry import HTTP_SECONDS, log

QUIET = ("/healthz", "/readyz", "/metrics")
"""Asked every few seconds by machines; logged only when something is wrong."""
LINGER_S = 30
"""How long a refused upload is read on, where closing at once would take the answer away from its sender."""

SECURITY = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
"""Of every answer, save what its route says itself. No cross-origin-resource-policy: films play on other sites."""
ONLY_HTTPS = ((b"strict-transport-security", b"max-age=31536000"),)

CALLBACKS = "/callbacks/"

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""Label values are ours to choose: whoever asks could invent methods without end."""


class RequestMiddleware:
    """Wraps the application; every answer carries `x-request-id`, every refusal the dialect's own shape.

    A route may leave headers for its answer, whatever becomes of it, in `scope["gateway_headers"]`: pairs of bytes.
    """

    body_timeout_s = 30.0
    """How long a request body may make no progress, however long it takes as a whole."""

    def __init__(self, app: ASGIApp, *, render_error: RenderError, max_body_bytes: int, https: bool = False) -> None:
        self._app = app
        self._render_error = render_error
        self._max_body_bytes = max_body_bytes
        self._headers = SECURITY + (ONLY_HTTPS if https else ())
        self._names = frozenset(name for name, _ in self._headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = ids.new("req")
        scope["gateway_request_id"] = request_id
        scope["gateway_headers"] = []  # what is found out on the way and belongs on whatever the answer will be
        started = time.perf_counter()
        status = 0
        first_byte_s = 0.0
        upload = BodyGuard(scope, receive, self._max_body_bytes, self.body_timeout_s)

        async def tagged_send(message: Message) -> None:
            nonlocal status, first_byte_s
            if message["type"] == "http.response.start":
                status = message["status"]
                first_byte_s = time.perf_counter() - started
                upload.answering = True
                given = message.get("headers", ())
                message["headers"] = [
                    *given,
                    (b"x-request-id", request_id.encode()),
                    *self._missing(dict(given)),
                    *scope["gateway_headers"],
                ]
            elif _is_last(message) and upload.has_to_be_read:
                await send({**message, "more_body": True})
                await upload.linger()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        with structlog.contextvars.bound_contextvars(request=request_id):
            try:
                upload.refuse_declared()
                await self._app(scope, upload.receive, tagged_send)
            except ClientDisconnect:
                if upload.stalled and not status:
                    await self._last_word(upload.timeout())(scope, receive, tagged_send)
                status = status or 499
            except Exception as error:
                if status:  # too late for an answer; the connection has to break off
                    log.exception("an answer broke off", path=loggable_path(scope["path"]))
                    raise
                await self._last_word(error)(scope, receive, tagged_send)
            finally:
                self._account(scope, status, first_byte_s, time.perf_counter() - started)

    def _missing(self, given: dict[bytes, bytes]) -> Iterable[tuple[bytes, bytes]]:
        if self._names.isdisjoint(given):
            return self._headers
        return [(name, value) for name, value in self._headers if name not in given]

    def _last_word(self, error: Exception) -> ASGIApp:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await to_response(scope, error, self._render_error)(scope, receive, send)

        return answer

    def _account(self, scope: Scope, status: int, first_byte_s: float, total_s: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in METHODS else "other"
        HTTP_SECONDS.labels(method, route, str(status)).observe(first_byte_s)
        if scope["path"] in QUIET and status < 400:
            return
        log.info(
            "request",
            method=scope["method"],
            path=loggable_path(scope["path"]),
            status=status,
            ms=round(total_s * 1000, 1),
        )


def loggable_path(path: str) -> str:
    """The path for the log; that of a callback is its own permission."""
    return CALLBACKS if path.startswith(CALLBACKS) else path[:200]


def _is_last(message: Message) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body")


class BodyGuard:
    """A request body that is counted while it is read; a declared length that is too much is refused unread, since
    an answer that has begun, such as a stream, could not become a refusal any more."""

    def __init__(self, scope: Scope, receive: Receive, max_bytes: int, timeout_s: float) -> None:
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"")
        self._receive = receive
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self.answering = False
        """An answer has begun, so a refusal would come too late."""
        self.stalled = False
        self._too_long = declared.isdigit() and int(declared[:20]) > max_bytes
        self._received = 0
        self._ended = declared in (b"", b"0") and b"transfer-encoding" not in headers
        self._closes = scope["http_version"] == "1.0" or b"close" in headers.get(b"connection", b"").lower()
        self._asks_first = b"expect" in headers

    def refuse_declared(self) -> None:
        if self._too_long:
            raise self._refusal()

    def timeout(self) -> errors.RequestTimeout:
        return errors.RequestTimeout(f"nothing came of the request body for {self._timeout_s:g} s; send it again")

    async def receive(self) -> Message:
        """To the application a client that stalls is a client that has gone: it knows what to do then."""
        message = {"type": "http.disconnect"} if self.stalled else await self._read()
        if self._received > self._max_bytes:
            raise self._refusal()
        return message

    def _refusal(self) -> errors.PayloadTooLarge:
        limit = f"{self._max_bytes // 2**20} MiB"
        return errors.PayloadTooLarge(f"the request body is larger than {limit}; GATEWAY_MAX_BODY_MB sets this")

    async def _read(self) -> Message:
        try:
            async with asyncio.timeout(None if self._ended or self.answering else self._timeout_s):
                message = await self._receive()
        except TimeoutError:
            if self.answering:  # by now
                message = await self._receive()
            else:
                self.stalled = True
                message = {"type": "http.disconnect"}
        self._received += len(message.get("body", b""))
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    @property
    def has_to_be_read(self) -> bool:
        """The server closes after this answer; bytes unread by then make TCP throw the answer away. On a connection
        that is kept, it reads on by itself."""
        return self._closes and not self._ended and not self._asks_first

    async def linger(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self._ended:
                    await self._read()
