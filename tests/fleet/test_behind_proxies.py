"""The gateway behind a real nginx and a real Caddy, as docs/networks.md has them, and as operators have them, too."""

import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pages
import pytest
from fakes.caddy import caddy
from fakes.nginx import free_port, nginx
from harness import ALICE
from processes import PATIENCE_S, Served, served
from programs import need

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PAGE = pages.read("docs/networks.md")
SERVER, LOCATIONS = PAGE.claim("nginx")
SITE, SITE_BELOW = PAGE.claim("caddy")
CARD = {"prompt": "a paper boat", "model": "sandbox/testcard", "seconds": "1", "size": "128x128"}
UPLOAD = b"\x89PNG\r\n\x1a\n" + bytes(24 * 2**20)

HOST, FORWARDED_HOST = "proxy_set_header Host $http_host;", "proxy_set_header X-Forwarded-Host $http_host;"
VERSION = "proxy_http_version 1.1;"
COMPRESSED = "gzip on; gzip_types *; gzip_proxied any; gzip_min_length 1;"


def replaced(text: str, **parts: str) -> str:
    for old, new in parts.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def without(*lines: str) -> str:
    """The page's server without these lines."""
    return replaced(SERVER, **dict.fromkeys(lines, ""))


ROOT_LOCATION = re.search(r"    location / \{.*?\}\n", SERVER, re.DOTALL)
assert ROOT_LOCATION is not None

CONFIGURATIONS = {
    "the page's": (SERVER, ""),
    "the page's below a path": (replaced(SERVER, **{ROOT_LOCATION[0]: LOCATIONS}), "/video"),
    "buffering, no forwarded Host": (
        replaced(
            SERVER,
            **{
                VERSION: f"{VERSION} proxy_buffering on; proxy_buffers 8 64k;",
                FORWARDED_HOST: 'proxy_set_header X-Forwarded-Host "";',
            },
        ),
        "",
    ),
    "HTTP/1.0, compressed, no Host": (
        replaced(
            SERVER,
            **{VERSION: f"proxy_http_version 1.0; {COMPRESSED}", HOST: 'proxy_set_header Host "";'},
        ),
        "",
    ),
}


CADDY = {"Caddy": (SITE, ""), "Caddy below a path": (SITE_BELOW, "/video")}


@dataclass(frozen=True)
class Proxied:
    """A gateway as it is reached through a proxy."""

    url: str
    server: str = "nginx"
    """The beginning of the header of what the proxy answers itself."""

    def client(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {ALICE}"}
        return httpx.AsyncClient(base_url=f"{self.url}/v1/", headers=headers, timeout=PATIENCE_S, trust_env=False)


@asynccontextmanager
async def through_nginx(server: str, upstream: str, *, path: str = "", port: int = 0) -> AsyncIterator[Proxied]:
    """The page's `server` block, or a change of it, without TLS on a port, or on a free one."""
    port = port or free_port()
    plain = replaced(
        re.sub(r"ssl_certificate.*\n", "", server),
        **{"listen 443 ssl;": f"listen 127.0.0.1:{port};", "127.0.0.1:8080": urlsplit(upstream).netloc},
    )
    async with nginx(plain, port):
        yield Proxied(f"http://127.0.0.1:{port}{path}")


@pytest.fixture(scope="module")
def settings(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("nginx")
    quick = {"worker_tick_s": 0.05, "poll_interval_s": 0.1, "providers__sandbox__testcard_s": 0.2}
    keys = {"api_keys": ALICE, "pepper": "a pepper of the tests"}
    return {"cwd": home, "database_url": module_database_url, "data_dir": home / "data", **quick, **keys}


@pytest.fixture(scope="module")
async def gateway(settings: dict[str, Any]) -> AsyncIterator[Served]:
    """One gateway for all configurations: a process of its own, which trusts this machine's proxy by default."""
    async with served(**settings) as running:
        yield running


@pytest.fixture(scope="module")
async def behind_caddy(gateway: Served) -> AsyncIterator[dict[str, Proxied]]:
    """One Caddy with each of the page's sites on a port of its own, without TLS; empty where Caddy is not installed."""
    if shutil.which("caddy") is None:
        yield {}
        return
    sites, found = "", {}
    for name, (site, path) in CADDY.items():
        port = free_port()
        inner = {"video.example.com {": f"http://127.0.0.1:{port} {{", "127.0.0.1:8080": urlsplit(gateway.url).netloc}
        sites += replaced(site, **inner)
        found[name] = Proxied(f"http://127.0.0.1:{port}{path}", "Caddy")
    async with caddy(sites, port):
        yield found


@pytest.fixture(params=[*CONFIGURATIONS, *CADDY])
async def proxied(
    request: pytest.FixtureRequest, gateway: Served, behind_caddy: dict[str, Proxied]
) -> AsyncIterator[Proxied]:
    if request.param in CADDY:
        need("caddy")
        yield behind_caddy[request.param]
        return
    server, path = CONFIGURATIONS[request.param]
    async with through_nginx(server, gateway.url, path=path) as found:
        yield found


async def finished_link(client: httpx.AsyncClient) -> str:
    """The media link of a new video, as the answer has it."""
    created = await client.post("videos?wait=60", json=CARD)
    assert created.status_code == 202, created.text
    video = created.json()
    while video["status"] not in ("completed", "failed"):
        video = (await client.get(f"videos/{video['id']}?wait=60")).json()
    assert video["status"] == "completed"
    return str(video["output"]["url"])


async def test_videos_are_created_and_their_links_are_reached(proxied: Proxied) -> None:
    async with proxied.client() as client, httpx.AsyncClient(trust_env=False) as browser:
        link = await finished_link(client)
        assert link.startswith(f"{proxied.url}/media/")
        whole = await browser.get(link)
        assert (whole.status_code, whole.content[4:8]) == (200, b"ftyp")
        part = await browser.get(link, headers={"range": "bytes=4-7"})
        assert (part.status_code, part.content) == (206, b"ftyp")
        assert part.headers["content-range"] == f"bytes 4-7/{len(whole.content)}"
        head = await browser.head(link)
        assert head.status_code == 200
        assert (await browser.get(link, headers={"if-none-match": whole.headers["etag"]})).status_code == 304


async def test_events_arrive_one_by_one(proxied: Proxied) -> None:
    async with proxied.client() as client:
        video = (await client.post("videos", json={**CARD, "model": "sandbox/slow"})).json()
        names = []
        async with client.stream("GET", f"videos/{video['id']}/events") as stream:
            async for line in stream.aiter_lines():
                if line.startswith("event: "):
                    names.append(line.removeprefix("event: "))
                if names == ["status"] and line.startswith("data: "):  # it is here while the stream goes on
                    assert json.loads(line.removeprefix("data: "))["status"] in ("queued", "in_progress")
                    assert (await client.delete(f"videos/{video['id']}")).status_code == 200
        assert (names[0], names[-1]) == ("status", "end")


async def test_a_large_upload_arrives(proxied: Proxied) -> None:
    async with proxied.client() as client:
        fields = {**CARD, "model": "sandbox/slow"}
        created = await client.post("videos", data=fields, files={"input_reference": ("a.png", UPLOAD, "image/png")})
        assert created.status_code == 202, created.text
        await client.delete(f"videos/{created.json()['id']}")

        async def chunks() -> AsyncIterator[bytes]:
            yield json.dumps({**CARD, "prompt": ""}).encode()

        refused = await client.post("videos", content=chunks(), headers={"content-type": "application/json"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt")


async def test_the_documentation_names_the_address_and_admin_is_closed(proxied: Proxied) -> None:
    async with httpx.AsyncClient(trust_env=False) as browser:
        page = await browser.get(f"{proxied.url}/docs")
        (script,) = re.findall(r'<script src="([^"]+)"', page.text)
        origin = proxied.url.removesuffix(urlsplit(proxied.url).path)
        assert (await browser.get(f"{origin}{script}")).status_code == 200
        (document,) = re.findall(r"url: '([^']+)'", page.text)
        assert (await browser.get(f"{origin}{document}")).json()["servers"] == [{"url": proxied.url}]
        inside = (
            "/admin",
            "/admin/v1/projects",
            "//admin/v1/projects",
            "/%61dmin/v1/projects",
            "/metrics",
            "//metrics",
        )
        for path in inside:
            answer = await browser.get(f"{proxied.url}{path}")
            assert (answer.status_code, answer.headers["server"][:5]) == (404, proxied.server)
            assert "x-request-id" not in answer.headers


OPERATORS = ("/admin", "/admin/v1/projects", "//admin/v1/projects", "/%61dmin/v1/projects", "/metrics", "//metrics")
FORGED = {"x-forwarded-host": "evil.example", "x-forwarded-proto": "https", "x-forwarded-prefix": "/evil"}
PAGES_OWN = ("the page's", "the page's below a path", *CADDY)


@pytest.mark.parametrize("proxied", PAGES_OWN, indirect=True)
async def test_a_client_cannot_forge_its_address(proxied: Proxied) -> None:
    async with httpx.AsyncClient(trust_env=False) as browser:
        document = (await browser.get(f"{proxied.url}/openapi.json", headers=FORGED)).json()
    assert document["servers"] == [{"url": proxied.url}]


async def test_without_any_host_links_need_the_public_address(gateway: Served, settings: dict[str, Any]) -> None:
    """nginx by itself sends the gateway's own address as Host."""
    bare = without(HOST, FORWARDED_HOST)
    async with through_nginx(bare, gateway.url) as proxied, proxied.client() as client:
        assert (await finished_link(client)).startswith(f"{gateway.url}/media/")
    inner, outer = free_port(), free_port()
    public = f"http://127.0.0.1:{outer}"
    async with (
        served("--port", str(inner), public_url=public, **settings),
        through_nginx(bare, f"http://127.0.0.1:{inner}", port=outer) as proxied,
        proxied.client() as client,
        httpx.AsyncClient(trust_env=False) as browser,
    ):
        link = await finished_link(client)
        assert link.startswith(f"{public}/media/")
        assert (await browser.get(link)).status_code == 200
