"""A webhook receiver."""

from collections.abc import AsyncIterator

import pytest
from fakes.receiver import Receiver
from fakes.server import serve


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def hook(receiver: Receiver) -> AsyncIterator[str]:
    async with serve(receiver) as url:
        yield f"{url}/hook"
