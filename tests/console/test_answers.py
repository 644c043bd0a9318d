"""Errors that no route of the console meets: they are pages too, and lines for htmx."""

import pytest
from console.conftest import visitor_at
from harness import ALICE, StartGateway

pytestmark = pytest.mark.anyio


async def test_a_body_that_is_too_large_is_refused_by_a_page(start_gateway: StartGateway) -> None:
    async with start_gateway(max_body_mb=1) as gateway:
        browser = visitor_at(gateway)
        async with browser.client:
            await browser.sign_in(ALICE)
            large = {"prompt": "x" * (2**20 + 1)}
            page = await browser.post("/console/playground", large)
            assert (page.status_code, page.headers["content-type"]) == (413, "text/html; charset=utf-8")
            assert "larger than 1 MiB" in page.text
            assert "content-security-policy" in page.headers
            line = await browser.post("/console/playground", large, **{"hx-request": "true"})
            assert (line.status_code, line.headers["hx-retarget"]) == (413, "#status")
            assert line.text.startswith('<span class="problem" role="alert"')
            elsewhere = await browser.post("/consoles", large)
            assert elsewhere.headers["content-type"] == "application/json"


async def test_without_the_console_its_addresses_are_those_of_the_api(start_gateway: StartGateway) -> None:
    async with start_gateway(max_body_mb=1, console=False) as gateway:
        browser = visitor_at(gateway)
        async with browser.client:
            answer = await browser.post("/console/playground", {"prompt": "x" * (2**20 + 1)})
            assert (answer.status_code, answer.headers["content-type"]) == (413, "application/json")
