"""Traces: spans of requests and of jobs, see docs/tracing.md.

Off unless the environment names a receiver. While they are off nothing of OpenTelemetry's SDK is imported, and each
function here is one test. The functions that change a span change the one around them; a span of a job is made only in
the trace of the job, which its row has as `traceparent`. Attributes of a span are named as fields of the log, with
`gateway.` before the name; those of `otel.NAMES` have the names of OpenTelemetry. Never pass a text of a client or of
an upstream: codes, ids, numbers and hosts only.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from app import settings
from app.mistakes import install
from app.telemetry.logs import log

if TYPE_CHECKING:
    from app.telemetry.otel import Tracing

Fact = str | int | float | bool | None
"""Value of an attribute; None leaves it out."""

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Variables with the address of the receiver; the first one that is set counts."""
EXPORTERS = ("OTEL_TRACES_EXPORTER",)
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"

_tracing: "Tracing | None" = None
_NO_SPAN = nullcontext()


class Moment(NamedTuple):
    """An event within a span."""

    name: str
    at: datetime
    facts: dict[str, Fact]


# Spans


def are_on() -> bool:
    return _tracing is not None


def server(headers: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[None]:
    """The span of a request, in the trace that its `traceparent` names, else in a new one."""
    return _NO_SPAN if _tracing is None else _tracing.server(headers)


def step(name: str, of: str | None, **facts: Fact) -> AbstractContextManager[None]:
    """A span of the job whose `traceparent` is `of`, below the current one if that is of the same trace. An exception
    marks it as failed."""
    return _NO_SPAN if _tracing is None else _tracing.step(name, of, facts)


def outbound(name: str, of: str | None, **facts: Fact) -> AbstractContextManager[None]:
    """As `step`, for one that is a single call to another system."""
    return _NO_SPAN if _tracing is None else _tracing.step(name, of, facts, outbound=True)


def call(method: str, url: str, verb: str, **facts: Fact) -> AbstractContextManager[None]:
    """The span of an HTTP call, if there is a span around it; polls of jobs have none."""
    return _NO_SPAN if _tracing is None else _tracing.call(method, url, verb, facts)


def joined(of: str | None) -> AbstractContextManager[None]:
    """Work on a job without a span of its own: its lines in the log have the trace, and so have the calls it makes."""
    return _NO_SPAN if _tracing is None else _tracing.joined(of)


def past(
    name: str,
    of: str | None,
    start: datetime,
    end: datetime,
    *,
    code: str | None = None,
    moments: Sequence[Moment] = (),
    **facts: Fact,
) -> None:
    """Write a span of a job that has just ended, and may have begun in another process; `code`: it failed."""
    if _tracing is not None:
        _tracing.past(name, of, start, end, code, moments, facts)


def note(**facts: Fact) -> None:
    if _tracing is not None:
        _tracing.note(facts)


def fail(code: str) -> None:
    """Mark the span as failed."""
    if _tracing is not None:
        _tracing.fail(code)


def rename(name: str) -> None:
    if _tracing is not None:
        _tracing.rename(name)


def link(of: str | None) -> None:
    """Link the span to the job whose `traceparent` is `of`, unless that is of the same trace."""
    if _tracing is not None:
        _tracing.link(of)


def traceparent() -> str | None:
    """The current span as W3C's header has it; None without one."""
    return None if _tracing is None else _tracing.traceparent()


def headers() -> dict[str, str]:
    """Headers by which a receiver joins the trace."""
    here = traceparent()
    return {} if here is None else {"traceparent": here}


# Start and end


@asynccontextmanager
async def running(role: str) -> AsyncIterator[None]:
    """Send traces while the block lasts, if the environment says so; nothing that goes wrong here stops a process."""
    global _tracing
    started = _start(role) if _tracing is None else None
    if started is None:
        yield
        return
    _tracing = started
    try:
        yield
    finally:
        _tracing = None
        await asyncio.to_thread(started.close)


def _start(role: str) -> "Tracing | None":
    given = settings.otel_variables()
    endpoint = _first(given, ENDPOINTS)
    if endpoint is None:
        if settings.are_set(ENDPOINTS):
            log.warning("traces not sent", reason="OTEL_ variables are read from the environment, not from .env")
        return None
    exporter = _first(given, EXPORTERS) or "otlp"
    if given.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return None
    protocol = _first(given, PROTOCOLS) or PROTOCOL
    if exporter != "otlp" or protocol != PROTOCOL:
        log.warning("traces not sent", reason=f"only OTLP by {PROTOCOL} is supported, mostly at the port 4318")
        return None
    to = _origin(endpoint)
    if to is None:
        log.warning("traces not sent", reason="the endpoint is not a URL such as http://collector:4318")
        return None
    try:
        from app.telemetry.otel import Tracing
    except ImportError:
        log.warning("traces not sent", reason="the extra `otel` is not installed", hint=install("otel"))
        return None
    try:
        tracing = Tracing(role)
    except Exception as error:  # without its text, which may have a value
        log.warning("traces not sent", reason=f"OpenTelemetry refuses an OTEL_ variable ({type(error).__name__})")
        return None
    log.info("traces are sent", to=to)
    return tracing


def host_of(url: str | None) -> str | None:
    """The host of an address, which is all that a span has of it."""
    try:
        return urlsplit(url or "").hostname
    except ValueError:
        return None


def _first(given: dict[str, str], names: Sequence[str]) -> str | None:
    return next((given[name].strip() for name in names if given.get(name, "").strip()), None)


def _origin(endpoint: str) -> str | None:
    """Scheme, host and port of the receiver; None for what is no http(s) URL. User and query may be secrets."""
    try:
        parts = urlsplit(endpoint)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return None
    return f"{parts.scheme}://{parts.hostname}{port}" if parts.scheme in ("http", "https") and parts.hostname else None
