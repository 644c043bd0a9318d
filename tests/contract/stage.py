"""The stage of the provider contract suite: every provider in front of the fake of its upstream, over real HTTP.

The suite runs over the rows in `UPSTREAMS` at the end of each `tests/fakes/<kind>.py`: the fake, its vocabulary, and
the requests as they must look on the wire. Money is at stake: a submit that may have been accepted must never look
like one that was not.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from ipaddress import ip_network
from typing import Any, get_args

from fakes.server import KEY, Answer, BrokenOff, Fake, Reset
from fakes.upstream import UPLOADS, Upstream, ask

from app.media.uploads import Upload
from app.providers import KINDS
from app.providers.base import Outbound, Provider, Task
from app.providers.rest import MAX_ANSWER_BYTES
from app.providers.sandbox import Sandbox
from app.video import Media, Output, VideoRequest

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def _modules() -> Iterator[str]:
    """One fake for each kind of provider, and for kinds with flavours one for each of those. The sandbox has none."""
    for kind in KINDS:
        if kind is Sandbox:
            continue
        yield kind.kind
        flavor = kind.Config.model_fields.get("flavor")
        if flavor is not None:
            yield from (name.replace("-", "_") for name in get_args(flavor.annotation) if name != kind.kind)


UPSTREAMS: tuple[Upstream, ...] = tuple(row for name in _modules() for row in import_module(f"fakes.{name}").UPSTREAMS)
"""Every row of every fake: the suite finds a new provider by itself."""
LOOPBACK = ip_network("127.0.0.0/8")
HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"


@asynccontextmanager
async def read(media: Media) -> AsyncIterator[Upload]:
    filename, content_type, content = UPLOADS[media.key or ""]

    async def chunks() -> AsyncIterator[bytes]:
        yield content[:1000]
        yield content[1000:]

    yield Upload(filename, content_type, len(content), chunks())


@dataclass
class Stage:
    """A provider in front of its fake."""

    upstream: Upstream
    fake: Fake
    origin: str
    stack: AsyncExitStack

    def provider(self, base_url: str | None = None, *, allow: bool = True, **config: Any) -> Provider:
        values = {"api_key": KEY, "base_url": base_url or self.origin + self.upstream.prefix, "timeout_s": 5}
        kind = self.upstream.kind
        provider = kind(
            "up", kind.Config(**values | self.upstream.config | config), Outbound((LOOPBACK,) if allow else ())
        )
        self.stack.push_async_callback(provider.aclose)
        return provider

    def task(self, request: VideoRequest | None = None, **fields: Any) -> Task:
        values = {"id": "attempt_1", "model": self.upstream.model, "request": request or ask(), "read": read}
        return Task(**{"now": NOW, **values, **fields})

    async def submitted(self, provider: Provider) -> Task:
        task = self.task()
        return self.task(ref=(await provider.send(task)).ref, submitted_at=NOW)


async def content(provider: Provider, task: Task, output: Output | None) -> bytes:
    assert output is not None
    async with provider.fetch(task, output) as download:
        return b"".join([chunk async for chunk in download.chunks])


async def finished(stage: Stage, provider: Provider) -> tuple[Task, Output]:
    task = await stage.submitted(provider)
    stage.fake.finish(task.ref or "")
    progress = await provider.poll(task)
    assert progress.output is not None
    return task, progress.output


UNKNOWN = {
    "500": Answer(500, {"error": {"message": "The server had an error", "type": "server_error"}}),
    "502 page": Answer(502, HTML),
    "html": Answer(200, HTML),
    "empty": Answer(200, b""),
    "no content": Answer(204, b""),
    "truncated json": Answer(200, b'{"id":"video_1","status":"que', {"content-type": "application/json"}),
    "array": Answer(200, []),
    "number": Answer(200, b"7"),
    "deep": Answer(200, b"[" * 100_000),
    "not utf-8": Answer(200, b'{"id":"\xff\xfe"'),
    "short": BrokenOff(b'{"id":"video_1"}', promised=400),
    "reset": Reset(),
    "huge": Answer(200, b'{"id":"video_1","pad":[' + b"10," * (MAX_ANSWER_BYTES // 3) + b"10]}"),
    "no id": Answer(200, {"object": "video", "status": "queued"}),
}
