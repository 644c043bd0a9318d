"""ASGI middleware: request id, body limits, security and CORS headers, access log, metrics, error responses.

Pure ASGI, because it runs for every request and must not touch a streamed body.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import errors, ids
from app.http import request_facts
from app.http.address_limit import AddressLimit
from app.http.cors import Cors
from app.http.errors import ErrorPage, RenderError, to_gateway_error, to_response
from app.http.openapi import creates_video
from app.http.spool import Bodies
from app.telemetry import traces
from app.telemetry.logs import log, loggable
from app.telemetry.metrics import HTTP_SECONDS

QUIET = ("/healthz", "/readyz", "/metrics")
"""Requested by machines every few seconds; logged only with an error status."""
LEAST_RATE = 4 * 2**10
"""Bytes a second that a request body has to arrive with, over its whole time beyond the first `body_timeout_s`."""
LINGER_S = 30
"""Time limit for draining the body after an early error; closing at once would reset the connection before the client
reads the response."""

SECURITY = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
"""Headers of every response whose route sets no other. No cross-origin-resource-policy: videos play on other sites."""
ONLY_HTTPS = ((b"strict-transport-security", b"max-age=31536000"),)

CALLBACKS = "/callbacks/"
PAGES = "/console/"
"""Beginning of the addresses whose errors are pages."""

OWN_IDS = (b"x-client-request-id", b"x-request-id")
"""Headers with an id of the client or of a proxy, which is logged beside ours: theirs need not be unique."""
TRACED = ("request", "dialect", "project", "key", "model", "video")
"""Facts of a request that its span has, too."""
VIDEO_IDS = ("video_id", "request_id")
"""Names of the parameter of a path that is the id of a video."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""Methods used as label values. Clients can send any method; label values must stay bounded."""


class RequestMiddleware:
    """Wraps the application; every response has an `x-request-id`, every error the dialect's shape.

    A route may add headers to its response, even to an error, in `scope["gateway_headers"]`: pairs of bytes.
    """

    body_timeout_s = 30.0
    """Longest pause while a request body is received, and the time before `LEAST_RATE` counts."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        render_error: RenderError,
        name_dialect: Callable[[str], str | None],
        max_body_bytes: int,
        bodies: Bodies,
        cors: Cors,
        https: bool = False,
        error_page: ErrorPage | None = None,
        addresses: AddressLimit | None = None,
    ) -> None:
        self._app = app
        self._error_page = error_page
        self._addresses = addresses
        self._render_error = render_error
        self._name_dialect = name_dialect
        self._max_body_bytes = max_body_bytes
        self._bodies = bodies
        self._cors = cors
        self._headers = SECURITY + (ONLY_HTTPS if https else ())
        self._names = frozenset(name for name, _ in self._headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with nullcontext() if scope["path"] in QUIET else traces.server(scope["headers"]):
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = ids.new("req")
        scope["gateway_request_id"] = request_id
        facts = request_facts.collect(request_id)
        scope["gateway_headers"] = self._cors.headers(scope)  # more are collected on the way, for any kind of response
        scope["gateway_bodies"] = self._bodies
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
                require_host(scope)
                if self._addresses is not None:
                    self._addresses.require(scope)
                upload.refuse_declared()
                await (self._cors.preflight(scope) or self._app)(scope, upload.receive, tagged_send)
            except ClientDisconnect:
                if upload.stalled and not status:
                    await self._error_response(upload.timeout())(scope, receive, tagged_send)
                status = status or 499
            except Exception as error:
                if status:  # too late for an error response; the connection is aborted
                    log.exception("response aborted", path=loggable_path(scope["path"]))
                    raise
                await self._error_response(error)(scope, receive, tagged_send)
            finally:
                self._record(scope, facts, status, first_byte_s, time.perf_counter() - started)

    def _missing(self, given: dict[bytes, bytes]) -> Iterable[tuple[bytes, bytes]]:
        if self._names.isdisjoint(given):
            return self._headers
        return [(name, value) for name, value in self._headers if name not in given]

    def _error_response(self, error: Exception) -> ASGIApp:
        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            if self._error_page is not None and f"{scope['path']}/".startswith(PAGES):
                response = await self._error_page(Request(scope), to_gateway_error(error))
            else:
                response = to_response(scope, error, self._render_error)
            await response(scope, receive, send)

        return respond

    def _record(self, scope: Scope, facts: dict[str, str], status: int, first_byte_s: float, total_s: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in METHODS else "other"
        HTTP_SECONDS.labels(method, route, str(status)).observe(first_byte_s)
        if scope["path"] in QUIET and status < 400:
            return
        known = self._known_by_address(scope) | facts
        log.info(
            "request",
            method=scope["method"],
            path=loggable_path(scope["path"]),
            status=status,
            ms=round(total_s * 1000, 1),
            **known,
        )
        if traces.are_on():
            _note_span(scope, method, status, {name: known.get(name) for name in TRACED})

    def _known_by_address(self, scope: Scope) -> dict[str, str]:
        """Facts that need no handler, so that errors have them too; those of the handlers count more."""
        parameters, headers = scope.get("path_params", {}), dict(scope["headers"])
        video_id = next((parameters[name] for name in VIDEO_IDS if name in parameters), "")
        own_id = next((headers[name] for name in OWN_IDS if headers.get(name)), b"")
        found = {
            "dialect": self._name_dialect(scope["path"]),
            "video": video_id if ids.is_id(video_id, "video") else None,
            "client_request": loggable(own_id.decode("latin-1")) or None,
        }
        return {name: value for name, value in found.items() if value is not None}


def _note_span(scope: Scope, method: str, status: int, known: Mapping[str, str | None]) -> None:
    """Name the span of a request, and say how it ended. A refused create counts as failed, other refusals do not."""
    creates, route = creates_video(scope.get("route")), getattr(scope.get("route"), "path", None)
    traces.rename("video.create" if creates else f"{method} {route}" if route else method)
    code = scope.get("gateway_error_code")
    traces.note(method=method, route=route, scheme=scope["scheme"], status_code=status, code=code, **known)
    if status >= 500 or (creates and status >= 400):
        traces.fail(code or str(status))


def require_host(scope: Scope) -> None:
    """Raise `InvalidRequest` for a request with several Host headers, and for one of HTTP/1.1 with none: proxies would
    disagree about its address. The connection is closed."""
    hosts = sum(name == b"host" for name, _ in scope["headers"])
    if hosts > 1 or (hosts == 0 and scope["http_version"] == "1.1"):
        raise errors.InvalidRequest(
            f"a request has exactly one Host header; this one has {hosts or 'none'}", headers={"connection": "close"}
        )


def loggable_path(path: str) -> str:
    """The path for the log, without the token of a callback."""
    before, callback, _ = path.partition(CALLBACKS)
    return f"{before}{callback}"[:200]


def _is_last(message: Message) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body")


class BodyGuard:
    """Counts a request body while it is read. A declared length over the limit is refused before reading, because a
    response that has started, such as a stream, can no longer become an error."""

    def __init__(self, scope: Scope, receive: Receive, max_bytes: int, timeout_s: float) -> None:
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"")
        self._receive = receive
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self.answering = False
        """The response has started, so it can no longer become an error."""
        self.stalled = False
        """The body came too slowly; no more of it is read."""
        self._waited_s = 0.0
        """Time spent waiting for the client, without the gateway's own."""
        self._too_long = declared.isdigit() and int(declared[:20]) > max_bytes
        self._received = 0
        self._ended = declared in (b"", b"0") and b"transfer-encoding" not in headers
        self._closes = scope["http_version"] == "1.0" or b"close" in headers.get(b"connection", b"").lower()
        self._expects_continue = b"expect" in headers

    def refuse_declared(self) -> None:
        if self._too_long:
            raise self._refusal()

    def timeout(self) -> errors.RequestTimeout:
        return errors.RequestTimeout(
            f"no data of the request body arrived for {self._timeout_s:g} s, or less than {LEAST_RATE // 2**10} KiB/s "
            "over its whole time; send it again"
        )

    @property
    def _left_s(self) -> float:
        """Seconds until more of the body has to be there, by the least rate."""
        return self._timeout_s + self._received / LEAST_RATE - self._waited_s

    async def receive(self) -> Message:
        """Receive a message; report a stalled client as `http.disconnect`. Raises `PayloadTooLarge`."""
        message = {"type": "http.disconnect"} if self.stalled else await self._read()
        if self._received > self._max_bytes:
            raise self._refusal()
        return message

    def _refusal(self) -> errors.PayloadTooLarge:
        limit = f"{self._max_bytes // 2**20} MiB"
        return errors.PayloadTooLarge(f"the request body is larger than {limit}; GATEWAY_MAX_BODY_MB sets this")

    async def _read(self) -> Message:
        started = time.perf_counter()
        try:
            limit_s = None if self._ended or self.answering else min(self._timeout_s, self._left_s)
            async with asyncio.timeout(limit_s):
                message = await self._receive()
            self._waited_s += time.perf_counter() - started
        except TimeoutError:
            self._waited_s += time.perf_counter() - started
            if self.answering:  # the response has started meanwhile
                message = await self._receive()
            else:
                self.stalled = True
                message = {"type": "http.disconnect"}
        self._received += len(message.get("body", b""))
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    @property
    def has_to_be_read(self) -> bool:
        """True if the server closes the connection after this response: unread bytes would then make TCP discard it. On
        a connection that stays open, the server reads the rest itself."""
        return self._closes and not self._ended and not self._expects_continue

    async def linger(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self._ended:
                    await self._read()
