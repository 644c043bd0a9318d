"""A gateway with prices, and its administration API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from accounts.billing import PRICE, Open
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import StartGateway
from money import ADMIN, Operator, operator_of


@pytest.fixture
async def fake() -> FakeOpenAI:
    return FakeOpenAI()


@pytest.fixture
async def opened(start_gateway: StartGateway, fake: FakeOpenAI) -> AsyncIterator[Open]:
    async with serve(fake) as url:

        @asynccontextmanager
        async def start(**settings: Any) -> AsyncIterator[Operator]:
            up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}
            values = {
                "providers": {"up": up, "spare": up},
                "prices": {"up/sora-2": PRICE},
                "admin_key": ADMIN,
                **settings,
            }
            async with start_gateway(**values) as gateway, operator_of(gateway) as admin:
                yield admin

        yield start


@pytest.fixture
async def admin(opened: Open) -> AsyncIterator[Operator]:
    async with opened() as admin:
        yield admin
