"""A receiver of traces, as a collector is: decodes OTLP over HTTP and keeps the spans."""

import asyncio
import gzip
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fakes.server import Fault

KINDS = {
    WireSpan.SPAN_KIND_INTERNAL: "internal",
    WireSpan.SPAN_KIND_SERVER: "server",
    WireSpan.SPAN_KIND_CLIENT: "client",
}


@dataclass(frozen=True)
class Span:
    """A span as it arrived."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    """Empty: it has none."""
    start_ns: int
    end_ns: int
    failed: bool
    facts: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    links: list[str]
    """Traces that it is linked to."""
    resource: dict[str, Any]
    text: str
    """All of it, to be searched."""


@dataclass
class Collector:
    """Answers 200 unless `always` has something else."""

    always: Fault | None = None
    spans: list[Span] = field(default_factory=list)
    calls: list[dict[str, str]] = field(default_factory=list)
    """Headers of each call."""
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        assert (request.method, request.url.path) == ("POST", "/v1/traces")
        body = gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body
        self.calls.append(dict(request.headers))
        if self.always is None:
            self.spans += _spans_of(ExportTraceServiceRequest.FromString(body))
        async with self._news:
            self._news.notify_all()
        answer = ExportTraceServiceResponse().SerializeToString()
        await (self.always.play if self.always else Response(answer, media_type="application/x-protobuf"))(
            scope, receive, send
        )

    async def wait_for(self, names: Collection[str], *, calls: int = 0) -> None:
        """Until spans of all these names have arrived, and so many calls."""
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(lambda: {*names} <= {s.name for s in self.spans} and len(self.calls) >= calls)

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Span:
        (span,) = self.named(name)
        return span

    def tree(self, trace: str) -> dict[str, Any]:
        """The names of the spans of a trace below each other, below `remote` those whose parent is elsewhere."""
        spans = [span for span in self.spans if span.trace == trace]
        ids = {span.id for span in spans}

        def below(parent: str) -> dict[str, Any]:
            found = [span for span in spans if span.parent == parent]
            return {span.name: below(span.id) for span in sorted(found, key=lambda span: span.name)}

        remote = {span.name: below(span.id) for span in spans if span.parent and span.parent not in ids}
        return below("") | ({"remote": remote} if remote else {})


def _spans_of(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        Span(
            name=span.name,
            kind=KINDS[span.kind],
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            start_ns=span.start_time_unix_nano,
            end_ns=span.end_time_unix_nano,
            failed=span.status.code == Status.STATUS_CODE_ERROR,
            facts=_facts(span.attributes),
            events=[(event.name, _facts(event.attributes)) for event in span.events],
            links=[link.trace_id.hex() for link in span.links],
            resource=_facts(group.resource.attributes),
            text=f"{group.resource} {span}",
        )
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _facts(attributes: Any) -> dict[str, Any]:
    return {attribute.key: _value(attribute.value) for attribute in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None
