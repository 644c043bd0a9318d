"""A gateway in front of a fake OpenAI-shaped server."""

from collections.abc import AsyncIterator

import pytest
from dialects.openai_wire import Upstream
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import StartGateway


@pytest.fixture
async def up(start_gateway: StartGateway) -> AsyncIterator[Upstream]:
    fake = FakeOpenAI(polls_until_working=0, polls_until_done=0)
    async with serve(fake) as url:
        provider = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}
        async with start_gateway(providers={"up": provider}, default_model="up/sora-2") as gateway:
            yield Upstream(gateway, fake)
