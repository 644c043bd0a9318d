"""uvicorn's HTTP/1.1 protocol with limits on request heads, pipelining and waiting.

Guards against slow clients below ASGI: unfinished request heads, idle connections, unread responses. The time limit of
bodies is in `middleware.py`, which can render the error in the dialect's shape.
"""

import json
from asyncio import TimerHandle, Transport
from http import HTTPStatus

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app import errors, ids
from app.http.middleware import SECURITY, loggable_path
from app.telemetry.logs import log


class HttpProtocol(HttpToolsProtocol):
    """Errors are in OpenAI's shape, since the dialect is unknown before the path. WebSockets are not supported."""

    max_head_bytes = 64 * 2**10
    """Size limit of a request line with its headers; also of trailers and the like, which are ignored."""
    max_pipelined = 64
    """Limit of requests queued behind an earlier one: a packet holds thousands, each takes a hundred times its size."""
    head_timeout_s = 30.0
    """Timeout for receiving the request head, also for a new idle connection, and for the rest of a body whose request
    has had its response."""
    stall_timeout_s = 60.0
    """Longest time in which a client reads nothing of a pending response."""
    linger_s = 5.0
    """Time before closing after an error; closing at once would reset the connection before the client reads it."""

    _timer: TimerHandle | None = None
    _stall_timer: TimerHandle | None = None
    _unparsed_bytes = 0
    """Bytes received since the parser's last event."""
    _in_head = False
    _measured = False
    """The head may be over the limit, so its size is checked."""
    _closing = False
    """The connection is closing: received bytes are ignored."""
    _reason: errors.GatewayError | None = None
    _answering: RequestResponseCycle | None = None
    """The request that is being served; `cycle` is the latest one received."""

    def shutdown(self) -> None:
        """Begin to close, when the server stops: waiting requests are answered and the worker claims no more jobs now,
        not after the last connection."""
        if "drain" in self.app_state:
            self.app_state["drain"]()
        super().shutdown()

    # Incoming data

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        if isinstance(self.app, ProxyHeadersMiddleware):  # it would hide the peer from http/proxies.py
            self.app = self.app.app
        self._timer = self.loop.call_later(self.head_timeout_s, self._too_slow)

    def data_received(self, data: bytes) -> None:
        if not self._closing:
            self._unparsed_bytes += len(data)
            self._measured = self._in_head or len(data) > self.max_head_bytes
            super().data_received(data)
            self._expect_more()

    def _expect_more(self) -> None:
        if self._closing:
            return
        if self._unparsed_bytes > self.max_head_bytes:
            self._refuse(self._head_too_large())
        elif self._timer is None and (self.cycle is None or self.cycle.response_complete):
            # uvicorn stops its timer for idle connections at the first byte, even if no request follows.
            self._timer = self.loop.call_later(self.head_timeout_s, self._too_slow)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._cancel_timer()

    def on_headers_complete(self) -> None:
        self._cancel_timer()
        if self._measured and self._head_bytes() > self.max_head_bytes:
            self._reason = self._head_too_large()
            raise self._reason
        if len(self.pipeline) >= self.max_pipelined:
            raise errors.InvalidRequest("too many requests at once on one connection")
        super().on_headers_complete()
        self._in_head = False
        self._unparsed_bytes = 0
        self.headers = []  # trailers would be appended to the list that the application has
        if not self.pipeline:
            self._answering = self.cycle

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._unparsed_bytes = 0

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._unparsed_bytes = 0
        self._cancel_timer()

    def _head_too_large(self) -> errors.HeadTooLarge:
        return errors.HeadTooLarge(f"the address and headers of a request have at most {self.max_head_bytes} bytes")

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _too_slow(self) -> None:
        self._timer = None
        if self._in_head:
            self._refuse(errors.RequestTimeout(f"the head of the request took more than {self.head_timeout_s:g} s"))
        else:
            self.timeout_keep_alive_handler()

    def _should_upgrade(self) -> bool:
        return False

    def _unsupported_upgrade_warning(self) -> None:
        """Serve a request for another protocol as HTTP/1.1, then close: the parser has skipped the bytes that follow,
        which may be a body or a request."""
        self._closing = True
        self.cycle.keep_alive = False

    # Errors

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._reason or errors.InvalidRequest("this is not a valid HTTP/1.1 request"))

    def _refuse(self, error: errors.GatewayError) -> None:
        """Send the error and close. If the response to another request is pending, close after that one instead;
        without a request to respond to, send nothing."""
        self._closing = True
        self._cancel_timer()
        due = self.cycle is not None and not self.cycle.response_complete
        if due and (self.pipeline or not self.cycle.more_body):
            self.cycle.keep_alive = False
            return
        if due and not self.cycle.response_started:  # the error is in its body
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        elif due or not self._in_head:
            self.timeout_keep_alive_handler()
            return
        request_id = ids.new("req")
        log.info("unreadable request refused", request=request_id, status=error.status_code, reason=error.message)
        body = json.dumps(
            {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
        ).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
            *SECURITY,
        ]
        status = HTTPStatus(error.status_code)
        lines = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode()), *(b"%s: %s" % pair for pair in headers)]
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._timer = self.loop.call_later(self.linger_s, self.transport.abort)
        else:
            self.transport.close()

    # Outgoing data

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._unwatch_reader()

    def _watch_reader(self) -> None:
        self._stall_timer = self.loop.call_later(
            self.stall_timeout_s, self._stalled, self.transport.get_write_buffer_size()
        )

    def _unwatch_reader(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _stalled(self, left: int) -> None:
        if self.transport.get_write_buffer_size() < left:
            self._watch_reader()
            return
        path = loggable_path(self._answering.scope["path"]) if self._answering is not None else None
        log.info("unread response aborted", path=path)
        self.transport.abort()

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._answering = self.pipeline[-1][0]
        super().on_response_complete()
        if self.transport.is_closing() and self._stall_timer is None:  # ends it as soon as the client has read the rest
            self._watch_reader()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # the client has not read the last response in time
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        self._unwatch_reader()
        if self._answering is not None and self._answering is not self.cycle:
            # uvicorn notifies only the latest request; this one would run on without a client.
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
