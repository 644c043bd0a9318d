"""A browser in front of a gateway: signed-in pages that complain of nothing."""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from browsers import Browser, Tab, chromium, open_tab
from fakes.server import serve
from harness import ALICE, RealClock, Running, StartGateway
from money import ADMIN
from playwright.async_api import Locator, Page
from processes import PATIENCE_S

STATUS_OF_AN_ANSWER = "Failed to load resource: the server responded with a status of 4"
"""The line of Chromium's console about an answer such as 404, which many tests ask for."""


@dataclass
class Site:
    """A gateway with a worker, at an address of this machine."""

    gateway: Running
    url: str


OpenConsole = Callable[..., AbstractAsyncContextManager[Tab]]
StartSite = Callable[..., AbstractAsyncContextManager[Site]]


async def reload_until(page: Page, shown: Locator, text: str) -> None:
    """Load a page that is not live again until a part of it has the text."""
    async with asyncio.timeout(PATIENCE_S):
        while text not in await shown.inner_text():
            await page.reload()


@pytest.fixture(autouse=True)
def without_leftovers() -> Iterator[None]:
    """Let go of requests that a closed browser has left half-way, here: their connections to the database end with a
    warning, which would fail another test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture
def clock() -> RealClock:
    return RealClock(datetime.now(UTC))


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


@pytest.fixture
def start_site(start_gateway: StartGateway) -> StartSite:
    """Start a gateway with a worker that the browser can reach."""

    @asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[Site]:
        values = {"admin_key": ADMIN, "run_worker": True, **settings}
        async with start_gateway(**values) as gateway, serve(gateway.app, patience_s=PATIENCE_S) as url:
            yield Site(gateway, url)

    return start


@pytest.fixture
async def site(start_site: StartSite) -> AsyncIterator[Site]:
    """A gateway with nothing configured but the sandbox."""
    async with start_site() as found:
        yield found


@pytest.fixture
def open_console(browser: Browser) -> OpenConsole:
    """Open a profile and sign in; at the end nothing may have been complained of."""

    @asynccontextmanager
    async def opened(
        site: Site, path: str = "", key: str = ALICE, allows: str = "data:", **options: Any
    ) -> AsyncIterator[Tab]:
        """`allows` is the beginning of addresses elsewhere that may be loaded."""
        where = f"{site.url}/console/login?next=/console{path}"
        async with open_tab(browser, where, **options) as tab:
            await tab.page.fill("#key", key)
            await tab.page.click("button.main")
            await tab.page.locator("header nav").wait_for()
            yield tab
            assert [error for error in tab.errors if not error.startswith(STATUS_OF_AN_ANSWER)] == []
            elsewhere = {address for address in tab.loaded if not address.startswith((site.url, "data:", allows))}
            assert elsewhere == set()

    return opened
