"""One server and one provider for each upstream, and a fake of its own for each test."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from contract.stage import UPSTREAMS, Stage
from fakes.server import Fake, serve
from fakes.upstream import Upstream
from starlette.types import Receive, Scope, Send

from app.providers.base import Provider


@dataclass
class Server:
    """One server and one provider for all tests of an upstream, since TLS contexts are slow to make; each test brings
    its own fake."""

    fake: Fake
    origin: str = ""
    provider: Provider | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.fake(scope, receive, send)


@pytest.fixture(params=UPSTREAMS, ids=lambda upstream: upstream.name)
def upstream(request: pytest.FixtureRequest) -> Upstream:
    found: Upstream = request.param
    return found


@pytest.fixture(scope="module")
async def servers() -> AsyncIterator[dict[str, Server]]:
    servers = {upstream.name: Server(upstream.fake()) for upstream in UPSTREAMS}
    async with AsyncExitStack() as stack:
        for upstream in UPSTREAMS:
            server = servers[upstream.name]
            server.origin = await stack.enter_async_context(serve(server))
            server.provider = Stage(upstream, server.fake, server.origin, stack).provider()
        yield servers


@pytest.fixture
async def stage(upstream: Upstream, servers: dict[str, Server]) -> AsyncIterator[Stage]:
    server = servers[upstream.name]
    server.fake = upstream.fake()
    async with AsyncExitStack() as stack:
        yield Stage(upstream, server.fake, server.origin, stack)


@pytest.fixture
def provider(upstream: Upstream, stage: Stage, servers: dict[str, Server]) -> Provider:
    provider = servers[upstream.name].provider
    assert provider is not None
    return provider
