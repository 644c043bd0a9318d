"""Spans by OpenTelemetry's SDK, for `traces.py`, which imports this module when traces are sent.

The tracer provider is the gateway's own, not the global one: no library of this process makes spans in it. A receiver
that does not answer costs memory for at most the queue of the batch processor, and nothing waits for it but `close`.
"""

import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import requests
import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode

from app import errors
from app.telemetry.logs import log, loggable
from app.telemetry.traces import Fact, Moment, host_of

NAMES = {
    "code": "error.type",
    "host": "server.address",
    "method": "http.request.method",
    "route": "http.route",
    "scheme": "url.scheme",
    "status_code": "http.response.status_code",
}
"""Attributes with names of OpenTelemetry's semantic conventions."""
FLUSH_S = 3
"""Longest time that the end of a process waits for the receiver."""

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Tracing:
    """The tracer of this process, and the thread that sends its spans."""

    def __init__(self, role: str) -> None:
        release = version("video-gateway")
        own = {
            "service.name": "video-gateway",
            "service.version": release,
            "service.instance.id": str(uuid4()),
            "gateway.role": role,
        }
        resource = Resource.create().merge(Resource(own)).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._exporter = _Exporter()
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("video-gateway", release)

    def close(self) -> None:
        """Send what is left, for at most `FLUSH_S`; the rest is given up with its thread, which is a daemon."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces-close", daemon=True)
        closing.start()
        closing.join(FLUSH_S)
        if closing.is_alive():
            self._exporter.given_up = True
            log.warning("traces not sent", reason="the process ended before the receiver had answered")

    def server(self, headers: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[None]:
        given = [value for name, value in headers if name == b"traceparent"]
        parent = _context(given[0].decode("latin-1")) if len(given) == 1 else None
        return _entered(self._tracer.start_span("HTTP", context=parent or Context(), kind=SpanKind.SERVER))

    def step(
        self, name: str, of: str | None, facts: Mapping[str, Fact], *, outbound: bool = False
    ) -> AbstractContextManager[None]:
        job = _context(of)
        if job is None:
            return nullcontext()
        within = None if _trace_id() == _trace_id(job) else job
        kind = SpanKind.CLIENT if outbound else SpanKind.INTERNAL
        return _entered(self._tracer.start_span(name, context=within, kind=kind, attributes=_attributes(facts)))

    def call(self, method: str, url: str, verb: str, facts: Mapping[str, Fact]) -> AbstractContextManager[None]:
        if not trace.get_current_span().is_recording():
            return nullcontext()
        found = _attributes({"method": method, "host": host_of(url), "verb": verb, **facts})
        return _entered(self._tracer.start_span(f"{method} {verb}", kind=SpanKind.CLIENT, attributes=found))

    @contextmanager
    def joined(self, of: str | None) -> Iterator[None]:
        job = _context(of)
        if job is None:
            yield
            return
        root = trace.get_current_span(job)
        ids = {"trace_id": trace.format_trace_id(root.get_span_context().trace_id)}
        with trace.use_span(root), structlog.contextvars.bound_contextvars(**ids):
            yield

    def past(
        self,
        name: str,
        of: str | None,
        start: datetime,
        end: datetime,
        code: str | None,
        moments: Sequence[Moment],
        facts: Mapping[str, Fact],
    ) -> None:
        job = _context(of)
        if job is None:
            return
        span = self._tracer.start_span(name, context=job, start_time=_ns(start), attributes=_attributes(facts))
        for moment in moments:
            span.add_event(moment.name, _attributes(moment.facts), timestamp=_ns(moment.at))
        if code is not None:
            _fail(span, code)
        span.end(_ns(max(start, end)))

    def note(self, facts: Mapping[str, Fact]) -> None:
        trace.get_current_span().set_attributes(_attributes(facts))

    def fail(self, code: str) -> None:
        _fail(trace.get_current_span(), code)

    def rename(self, name: str) -> None:
        trace.get_current_span().update_name(name)

    def link(self, of: str | None) -> None:
        job = _context(of)
        if job is not None and _trace_id() not in (0, _trace_id(job)):
            trace.get_current_span().add_link(trace.get_current_span(job).get_span_context())

    def traceparent(self) -> str | None:
        here = trace.get_current_span().get_span_context()
        if not here.is_valid:
            return None
        ids = trace.format_trace_id(here.trace_id), trace.format_span_id(here.span_id)
        return f"00-{ids[0]}-{ids[1]}-{here.trace_flags:02x}"


@contextmanager
def _entered(span: trace.Span) -> Iterator[None]:
    """Make a span the current one, and end it. Exceptions leave their code or their type, no text and no traceback."""
    here = span.get_span_context()
    ids = {"trace_id": trace.format_trace_id(here.trace_id), "span_id": trace.format_span_id(here.span_id)}
    with (
        trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False),
        structlog.contextvars.bound_contextvars(**ids),
    ):
        try:
            yield
        except BaseException as error:
            _fail(span, error.code if isinstance(error, errors.GatewayError) else type(error).__name__)
            raise


def _fail(span: trace.Span, code: str) -> None:
    span.set_attribute(NAMES["code"], loggable(code))
    span.set_status(StatusCode.ERROR)


def _attributes(facts: Mapping[str, Fact]) -> dict[str, str | int | float | bool]:
    return {
        NAMES.get(name, f"gateway.{name}"): loggable(value) if isinstance(value, str) else value
        for name, value in facts.items()
        if value is not None
    }


def _context(traceparent: str | None) -> Context | None:
    """The remote span that a header names; None for anything but W3C's form, with ids that are not zero."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    if found is None:
        return None
    ids = int(found[1], 16), int(found[2], 16)
    flags = trace.TraceFlags(int(found[3], 16) & trace.TraceFlags.SAMPLED)
    remote = trace.SpanContext(*ids, is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(trace.NonRecordingSpan(remote), Context()) if remote.is_valid else None


def _trace_id(context: Context | None = None) -> int:
    """The trace of a context, by default of the current one; 0 without one."""
    return trace.get_current_span(context).get_span_context().trace_id


def _ns(at: datetime) -> int:
    return int(at.timestamp() * 1e9)


class _Session(requests.Session):
    """The exporter's HTTP session, with the outcome of its last call for the log."""

    outcome = ""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        try:
            response = super().request(*args, **kwargs)
        except Exception as error:
            self.outcome = type(error).__name__
            raise
        self.outcome = f"answered {response.status_code}"
        return response


class _Exporter(OTLPSpanExporter):
    """Logs the first failure and the first success after it: the library's own lines come with each try, and may have
    what the receiver answered."""

    given_up = False
    """The process ends, and nothing more is logged."""

    def __init__(self) -> None:
        self._outcomes = _Session()
        super().__init__(session=self._outcomes)
        self._fails = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        fails = result is not SpanExportResult.SUCCESS
        if self.given_up:
            return result
        if fails and not self._fails:
            log.warning("traces not sent", reason=self._outcomes.outcome, spans=len(spans))
        elif self._fails and not fails:
            log.info("traces are sent again")
        self._fails = fails
        return result
