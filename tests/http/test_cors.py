"""Cross-origin requests: which paths are open to which origins, preflights, and headers that scripts may read."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
from contract.dialect_cases import CASES
from dialects.case import DialectCase
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import ALICE, ORIGIN, Running, StartGateway
from money import ADMIN, operator_of
from refusals import refused

from app.dialects import DIALECTS
from app.http.middleware import SECURITY
from app.settings import ConfigurationError, load

pytestmark = pytest.mark.anyio

PAGE, OTHER = "https://app.example.com", "http://localhost:3000"
ALWAYS_READABLE = {"cache-control", "content-language", "content-length", "content-type", "expires", "last-modified"}
"""The response headers that the Fetch standard lets every script read."""
UNREAD = {name.decode() for name, _ in SECURITY} | {"connection", "vary", "x-accel-buffering"}
"""Headers for browsers and proxies, not for scripts."""
SDK_HEADERS = (
    "authorization, api-key, x-api-key, x-goog-api-key, content-type, idempotency-key, last-event-id, openai-beta, "
    "openai-organization, x-app-id, x-stainless-os, x-stainless-retry-count"
)


@pytest.fixture(params=[prefix for dialect in DIALECTS for prefix in dialect.PREFIXES])
def case(request: pytest.FixtureRequest) -> DialectCase:
    return CASES[request.param]


@pytest.fixture
async def open_to_pages(start_gateway: StartGateway) -> AsyncIterator[Running]:
    async with start_gateway(cors_origins=[PAGE, OTHER]) as gateway:
        yield gateway


def anonymous(gateway: Running, origin: str | None = PAGE) -> httpx.AsyncClient:
    """A page without a key; each request names its origin."""
    headers = {} if origin is None else {"origin": origin}
    return httpx.AsyncClient(transport=gateway.client._transport, base_url=ORIGIN, headers=headers)


def page(gateway: Running, origin: str = PAGE) -> httpx.AsyncClient:
    """A page with Alice's key."""
    client = anonymous(gateway, origin)
    client.headers["authorization"] = f"Bearer {ALICE}"
    return client


def cors_headers(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


def readable(response: httpx.Response, origin: str = PAGE) -> httpx.Response:
    """Check that a script of this origin may read the response with all its headers; returns it."""
    headers = response.headers
    assert headers["access-control-allow-origin"] == origin
    assert headers["vary"] == "origin"
    exposed = set(headers["access-control-expose-headers"].split(", "))
    hidden = headers.keys() - exposed - ALWAYS_READABLE - UNREAD - cors_headers(response).keys()
    assert not hidden
    assert "access-control-allow-credentials" not in headers
    return response


async def preflight(
    client: httpx.AsyncClient, path: str, method: str = "POST", wanted: str = SDK_HEADERS
) -> httpx.Response:
    asked = {"access-control-request-method": method, "access-control-request-headers": wanted}
    return await client.options(path, headers=asked)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "PATCH"])
async def test_a_preflight_is_answered_without_a_key(
    open_to_pages: Running, case: DialectCase, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with anonymous(open_to_pages) as client:
        for path in (case.create, case.get.format(id="video_1"), f"{case.create}/no/such/path"):
            answer = readable(await preflight(client, path, method))
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers["access-control-allow-headers"] == SDK_HEADERS
            assert method in answer.headers["access-control-allow-methods"].split(", ")
            assert int(answer.headers["access-control-max-age"]) > 600
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-request-id"] in capsys.readouterr().out


async def test_a_page_creates_and_reads_a_video(open_to_pages: Running, case: DialectCase) -> None:
    for origin in (PAGE, OTHER):
        async with page(open_to_pages, origin) as client:
            made = readable(await client.post(case.create, json=case.body), origin)
            assert made.status_code == case.created
            shown = readable(await client.get(case.get.format(id=case.id_of(made.json()))), origin)
            assert shown.status_code == 200


async def test_a_page_reads_every_error(open_to_pages: Running, case: DialectCase) -> None:
    too_long = {"content-length": str(open_to_pages.gateway.settings.max_body_mb * 2**20 + 1)}
    async with page(open_to_pages) as client, anonymous(open_to_pages) as stranger:
        for answer, status in (
            (await stranger.post(case.create, json=case.body), 401),
            (await client.post(case.create, json=case.bad_body), 400),
            (await client.get(case.get.format(id="video_1")), 404),
            (await client.get(f"{case.create}/no/such/path"), 404),
            (await client.put(case.create), 405),
            (await client.options(case.create), 405),
            (await client.post(case.create, headers=too_long), 413),
        ):
            assert readable(answer).status_code == status
            assert case.message_of(answer.json())


@pytest.mark.parametrize("path", ["/videos", "//videos", "/models", "/webhook_endpoints/we_1"])
async def test_a_page_reads_that_its_base_url_lacks_the_version(open_to_pages: Running, path: str) -> None:
    async with page(open_to_pages) as client:
        asked = await preflight(client, f"{ORIGIN}{path}")
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, PAGE)
        answer = readable(await client.post(f"{ORIGIN}{path}", json={}))
    assert answer.status_code == 404
    assert "the base URL has to end with /v1" in answer.json()["error"]["message"]


async def test_a_page_reads_a_failure_of_the_gateway(open_to_pages: Running) -> None:
    open_to_pages.app.state.gateway = None  # no handler can work
    async with page(open_to_pages) as client:
        answer = readable(await client.get("/v1/videos/video_1"))
    assert refused(answer, None, 500).startswith("the gateway failed")


async def test_a_page_reads_the_limits_of_its_key(start_gateway: StartGateway, case: DialectCase) -> None:
    async with start_gateway(admin_key=ADMIN, cors_origins=[PAGE]) as gateway, operator_of(gateway) as operator:
        slow = operator.user(await operator.key(requests_per_minute=1))
        busy = operator.user(await operator.key(concurrent_jobs=1))
        async with slow, busy:
            for client, limits in ((slow, "x-ratelimit-reset-requests"), (busy, "x-ratelimit-limit-concurrent-jobs")):
                client.headers["origin"] = PAGE
                answers = [readable(await client.post(case.create, json=case.body)) for _ in range(2)]
                assert [answer.status_code for answer in answers] == [case.created, 429]
                assert limits in answers[1].headers


async def test_other_origins_read_nothing(open_to_pages: Running, case: DialectCase) -> None:
    for origin in ("https://evil.example", f"{PAGE}.evil.example", "https://APP.example.com", f"{PAGE}:444", "null"):
        async with page(open_to_pages, origin) as client:
            refusal = await preflight(client, case.create)
            assert refusal.status_code == 403
            assert "GATEWAY_CORS_ORIGINS" in case.message_of(refusal.json())
            answer = await client.post(case.create, json=case.bad_body)
            for response in (refusal, answer):
                assert cors_headers(response) == {}
                assert response.headers["vary"] == "origin", "a cache must not hand it to a page that may read it"


async def test_clients_that_are_no_pages_are_served_as_before(open_to_pages: Running, case: DialectCase) -> None:
    answer = await open_to_pages.client.post(case.create, json=case.body)
    assert answer.status_code == case.created
    assert cors_headers(answer) == {}
    assert answer.headers["vary"] == "origin"


async def test_a_star_opens_the_api_to_all_pages(start_gateway: StartGateway, case: DialectCase) -> None:
    async with start_gateway(cors_origins=["*"]) as gateway:
        for origin in (PAGE, "null", "capacitor://localhost"):
            async with page(gateway, origin) as client:
                answers = [await preflight(client, case.create), await client.get(case.get.format(id="video_1"))]
                assert [answer.status_code for answer in answers] == [204, 404]
                for answer in answers:
                    assert answer.headers["access-control-allow-origin"] == "*"
                    assert "vary" not in answer.headers


async def test_without_the_setting_no_page_reads_the_api(gateway: Running, case: DialectCase) -> None:
    async with page(gateway) as client:
        assert (await preflight(client, case.create)).status_code == 405
        for answer in (
            await preflight(client, case.create),
            await client.options(case.create),
            await client.post(case.create, json=case.body),
            await client.get(case.get.format(id="video_1")),
        ):
            assert cors_headers(answer) == {}
            assert "vary" not in answer.headers


@pytest.mark.parametrize("path", ["/admin/v1/videos", "/metrics", "/healthz", "/docs", "/callbacks/a", "/v1beta", "/"])
async def test_other_paths_are_open_to_no_page(start_gateway: StartGateway, path: str) -> None:
    async with start_gateway(cors_origins=["*"]) as gateway, page(gateway) as client:
        for answer in (await client.get(path), await preflight(client, path), await client.options(path)):
            assert cors_headers(answer) == {}


@pytest.mark.parametrize("origins", [[], [OTHER]])
async def test_a_media_link_is_open_to_every_page(
    start_gateway: StartGateway, fake: FakeOpenAI, origins: list[str]
) -> None:
    async with serve(fake) as url:
        upstream = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]}
        async with start_gateway(providers={"up": upstream}, cors_origins=origins) as gateway:
            video = await gateway.finish((await gateway.create(model="up/sora-2"))["id"])
            link = urlsplit(video["output"]["url"])._replace(scheme="", netloc="").geturl()
            async with anonymous(gateway) as client:
                whole = await client.get(link)
                part = await client.get(link, headers={"range": "bytes=0-99"})
                known = await client.get(link, headers={"if-none-match": whole.headers["etag"]})
                beyond = await client.get(link, headers={"range": "bytes=99999999-"})
                expired = await client.get(f"{link[:-1]}!")
                nothing = await client.get("/media/nothing")
                head = await client.head(link)
                asked = await preflight(client, link, "GET", "range, if-none-match, if-range")
    answers = [whole, part, known, beyond, expired, nothing, head, asked]
    assert [answer.status_code for answer in answers] == [200, 206, 304, 416, 404, 404, 200, 204]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "vary" not in answer.headers, "one cached response is right for all pages"
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"content-range", "accept-ranges", "content-length", "etag", "content-disposition"} <= set(exposed)
    assert asked.headers["access-control-allow-headers"] == "range, if-none-match, if-range"
    assert asked.headers["access-control-allow-methods"] == "GET, HEAD"


async def test_a_preflight_with_two_hosts_is_refused(open_to_pages: Running) -> None:
    headers = [("host", "a"), ("host", "b"), ("origin", PAGE), ("access-control-request-method", "POST")]
    async with httpx.AsyncClient(transport=open_to_pages.client._transport, base_url=ORIGIN) as client:
        answer = await client.request("OPTIONS", "/v1/videos", headers=headers)
    refused(answer, None, 400)
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        ("https://app.example.com", ["https://app.example.com"]),
        ("https://App.Example.com, http://localhost:3000", ["https://app.example.com", "http://localhost:3000"]),
        ('["http://[::1]:8000"]', ["http://[::1]:8000"]),
        ("capacitor://localhost,chrome-extension://abc", ["capacitor://localhost", "chrome-extension://abc"]),
        ("*", ["*"]),
        ("", []),
    ],
)
def test_origins_are_read(given: str, origins: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_CORS_ORIGINS", given)
    assert load().cors_origins == origins


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("https://app.example.com/", "without a path, not even a slash at the end"),
        ("https://app.example.com/video", "without a path"),
        ("https://app.example.com:443", "leave out the default port"),
        ("http://app.example.com:80", "leave out the default port"),
        ("http://app.example.com:0", "expected origins such as"),
        ("http://app.example.com:70000", "expected origins such as"),
        ("http://app.example.com:08080", "expected origins such as"),
        ("http://app.example.com:00080", "expected origins such as"),
        ("app.example.com", "expected origins such as https://app.example.com, or * for all"),
        ("https://*.example.com", "expected origins such as"),
        ("https://user@app.example.com", "expected origins such as"),
        ("https://bücher.example", "xn--"),
        ("null", "expected origins such as"),
        ("https://a.example https://b.example", "expected origins such as"),
        ("https://a.example\nx: y", "expected origins such as"),
    ],
)
def test_a_mistake_in_an_origin_is_named(given: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_CORS_ORIGINS", given)
    with pytest.raises(ConfigurationError, match=r"GATEWAY_CORS_ORIGINS") as caught:
        load()
    assert reason in str(caught.value)
