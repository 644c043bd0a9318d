"""HTTP on a connection: uvicorn's protocol, with bounds on what a client may pile up and how long it may make us wait.

Here is what an application never sees: heads that do not end, connections that say nothing, answers that nobody reads.
How long a body may take is the business of `edge.py`, which can refuse it in the dialect's own shape.
"""

import json
from asyncio import TimerHandle, Transport
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app import errors, ids
from app.http.middleware import SECURITY, loggable_path
from app.telemetry import log


class HttpProtocol(HttpToolsProtocol):
    """Refuses in OpenAI's shape, since no dialect speaks before there is a path. WebSockets are not spoken at all."""

    max_head_bytes = 64 * 2**10
    """Of a request line with its headers; as much may come in trailers and the like, which nobody reads."""
    max_pipelined = 64
    """Requests that wait for the answer to an earlier one: a packet holds thousands, each a hundred times its size."""
    head_timeout_s = 30.0
    """From the first byte of a head to its last, and how long a new connection may say nothing. Also what is left of a
    body whose request has been answered has to come within it."""
    stall_timeout_s = 60.0
    """How long a client may read nothing of an answer that waits for it."""
    linger_s = 5.0
    """How long a refused client is listened to: closing at once would take the refusal away from it."""

    _limit: TimerHandle | None = None
    _stall: TimerHandle | None = None
    _unheard = 0
    """Bytes since the parser last had something for us."""
    _in_head = False
    _measured = False
    """The head may be a large one, so it has to be measured."""
    _deaf = False
    """Nothing that comes is a request any more."""
    _reason: errors.GatewayError | None = None
    _answering: RequestResponseCycle | None = None
    """The request whose turn it is; `cycle` is the last that came."""

    # What comes in

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._limit = self.loop.call_later(self.head_timeout_s, self._too_slow)

    def data_received(self, data: bytes) -> None:
        if not self._deaf:
            self._unheard += len(data)
            self._measured = self._in_head or len(data) > self.max_head_bytes
            super().data_received(data)
            self._expect_more()

    def _expect_more(self) -> None:
        if self._deaf:
            return
        if self._unheard > self.max_head_bytes:
            self._refuse(self._head_too_large())
        elif self._limit is None and (self.cycle is None or self.cycle.response_complete):
            # uvicorn's timer for idle connections is gone with the first byte, whatever that byte is.
            self._limit = self.loop.call_later(self.head_timeout_s, self._too_slow)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._lift()

    def on_headers_complete(self) -> None:
        self._lift()
        if self._measured and self._head_bytes() > self.max_head_bytes:
            self._reason = self._head_too_large()
            raise self._reason
        if len(self.pipeline) >= self.max_pipelined:
            raise errors.InvalidRequest("too many requests at once on one connection")
        super().on_headers_complete()
        self._in_head = False
        self._unheard = 0
        self.headers = []  # trailers would be appended to the headers that the application has by now
        if not self.pipeline:
            self._answering = self.cycle

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._unheard = 0

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._unheard = 0
        self._lift()

    def _head_too_large(self) -> errors.HeadTooLarge:
        return errors.HeadTooLarge(f"the address and headers of a request have at most {self.max_head_bytes} bytes")

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _too_slow(self) -> None:
        self._limit = None
        if self._in_head:
            self._refuse(errors.RequestTimeout(f"the head of the request took more than {self.head_timeout_s:g} s"))
        else:
            self.timeout_keep_alive_handler()

    def _should_upgrade(self) -> bool:
        return False

    def _unsupported_upgrade_warning(self) -> None:
        """Whoever asks for another protocol is answered in this one, and then no more: the parser has passed over
        what follows, which may be a body and may be a request."""
        self._deaf = True
        self.cycle.keep_alive = False

    # What is refused here

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._reason or errors.InvalidRequest("this is not HTTP/1.1 as the gateway understands it"))

    def _refuse(self, error: errors.GatewayError) -> None:
        """Answer and close. Where an answer to another request is due, that one is the last instead; where one would
        come unasked, there is none."""
        self._deaf = True
        self._lift()
        due = self.cycle is not None and not self.cycle.response_complete
        if due and (self.pipeline or not self.cycle.more_body):
            self.cycle.keep_alive = False
            return
        if due and not self.cycle.response_started:  # its body is what is wrong
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        elif due or not self._in_head:
            self.timeout_keep_alive_handler()
            return
        request_id = ids.new("req")
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
            self._limit = self.loop.call_later(self.linger_s, self.transport.abort)
        else:
            self.transport.close()

    # What goes out

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._unwatch_reader()

    def _watch_reader(self) -> None:
        self._stall = self.loop.call_later(self.stall_timeout_s, self._stalled, self.transport.get_write_buffer_size())

    def _unwatch_reader(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _stalled(self, left: int) -> None:
        if self.transport.get_write_buffer_size() < left:
            self._watch_reader()
            return
        path = loggable_path(self._answering.scope["path"]) if self._answering is not None else None
        log.info("an answer is given up, for its client does not read it", path=path)
        self.transport.abort()

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._answering = self.pipeline[-1][0]
        super().on_response_complete()
        if self.transport.is_closing() and self._stall is None:  # as soon as the client has read the rest
            self._watch_reader()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # its client has not read the last answer and will not now
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lift()
        self._unwatch_reader()
        if self._answering is not None and self._answering is not self.cycle:
            # uvicorn tells the last request only, and this one would go on for nobody.
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def _lift(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
