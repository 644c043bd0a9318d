"""The address `/`: the console or a page for browsers, a document for programs, chosen by the Accept header."""

import re
from collections.abc import AsyncIterator
from importlib.metadata import version

import httpx
import pytest
from harness import Running, StartGateway

pytestmark = pytest.mark.anyio

RELEASE = version("video-gateway")
CHROMIUM = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> AsyncIterator[Running]:
    """A gateway without the console."""
    async with start_gateway(console=False) as running:
        yield running


def anonymous(gateway: Running, root: str = "") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(gateway.app, root_path=root)
    return httpx.AsyncClient(transport=transport, base_url="http://gateway.test")


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (CHROMIUM, True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("text/html", True),
        ("TEXT/HTML; q=0.5", True),
        ("text/*", True),
        ("application/json;q=0.1, text/html;q=0.2", True),
        ("application/json;q=0.2, text/html;q=0.1", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html;q=0", False),
        ("text/html;q=nan", True),
        ("image/png", False),
        ("", False),
        (",;,;q=1,/" * 3_000, False),
    ],
)
async def test_browsers_get_a_page_and_programs_a_document(gateway: Running, accept: str, html: bool) -> None:
    async with anonymous(gateway) as client:
        answer = await client.get("/", headers={"accept": accept})
        head = await client.head("/", headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == ("text/html; charset=utf-8" if html else "application/json")
    assert answer.headers["vary"] == "accept"
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == answer.headers["content-type"]


async def test_the_document_names_the_other_addresses(start_gateway: StartGateway) -> None:
    for public_url, root, base in (
        (None, "", "http://gateway.test"),
        (None, "/video", "http://gateway.test/video"),
        ("https://video.example.com/v", "", "https://video.example.com/v"),
    ):
        async with start_gateway(public_url=public_url) as gateway, anonymous(gateway, root) as client:
            document = (await client.get(f"{root}/")).json()
        assert document == {
            "name": "video-gateway",
            "version": RELEASE,
            "docs": f"{base}/docs",
            "openapi": f"{base}/openapi.json",
            "health": f"{base}/healthz",
        }


@pytest.mark.parametrize("root", ["", "/video"])
async def test_the_links_of_the_page_lead_somewhere_under_any_sub_path(gateway: Running, root: str) -> None:
    async with anonymous(gateway, root) as client:
        page = await client.get(f"{root}/", headers={"accept": CHROMIUM})
        links = [link for link in re.findall('href="([^"]+)"', page.text) if link != "data:,"]
        found = {link: (await client.get(str(page.url.join(link)))).status_code for link in links}
    assert found == {"docs": 200, "openapi.json": 200, "v1/models": 401, "healthz": 200}
    assert f"release {RELEASE}<" in page.text


async def test_the_page_runs_no_script_and_loads_nothing(gateway: Running) -> None:
    async with anonymous(gateway) as client:
        page = await client.get("/", headers={"accept": CHROMIUM})
    assert "<script" not in page.text
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; ")
    assert re.fullmatch(r"img-src data:; style-src 'sha256-[\w+/]{43}='", policy.split("; ", 4)[4])


@pytest.mark.parametrize("root", ["", "/video"])
async def test_browsers_are_led_to_the_console(start_gateway: StartGateway, root: str) -> None:
    async with start_gateway() as gateway, anonymous(gateway, root) as client:
        answer = await client.get(f"{root}/", headers={"accept": CHROMIUM})
        assert (answer.status_code, answer.headers["location"]) == (303, f"{root}/console")
        assert answer.headers["vary"] == "accept"
        assert (await client.get(f"{root}/")).json()["name"] == "video-gateway"
