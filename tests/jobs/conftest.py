"""A gateway in front of one OpenAI-shaped upstream called `up`."""

from collections.abc import AsyncIterator

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import serve
from harness import Running, StartGateway
from jobs.upstream import provider


@pytest.fixture
async def fake() -> FakeOpenAI:
    return FakeOpenAI()


@pytest.fixture
async def upstream(fake: FakeOpenAI) -> AsyncIterator[str]:
    async with serve(fake) as url:
        yield f"{url}/v1"


@pytest.fixture
async def gateway(start_gateway: StartGateway, upstream: str) -> AsyncIterator[Running]:
    """One OpenAI-shaped upstream called `up`."""
    async with start_gateway(providers={"up": provider(upstream)}) as running:
        yield running
