"""A gateway with two vendors of one model."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from fakes.ark import FakeArk
from fakes.fal import FakeFal
from fakes.server import KEY, serve
from harness import Running, StartGateway

Open = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
async def ark() -> FakeArk:
    return FakeArk()


@pytest.fixture
async def fal() -> FakeFal:
    return FakeFal()


@pytest.fixture
async def opened(start_gateway: StartGateway, ark: FakeArk, fal: FakeFal) -> AsyncIterator[Open]:
    async with serve(ark) as ark_url, serve(fal) as fal_url:

        @asynccontextmanager
        async def start(**settings: Any) -> AsyncIterator[Running]:
            providers = {
                "fal": {"api_key": KEY, "base_url": fal_url},
                "ark": {"api_key": KEY, "base_url": f"{ark_url}/api/v3"},
            }
            values = {"providers": providers, **settings}
            async with start_gateway(**values) as gateway:
                yield gateway

        yield start


@pytest.fixture
async def gateway(opened: Open) -> AsyncIterator[Running]:
    async with opened() as gateway:
        yield gateway
