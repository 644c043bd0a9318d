"""Forwarded headers: believed from trusted proxies, in the right form, and ignored from all others."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fakes.server import serve
from harness import ALICE, ORIGIN, Running, StartGateway
from money import ADMIN
from processes import PATIENCE_S
from starlette.types import Scope
from structlog.testing import capture_logs

from app.http.server import HttpProtocol

pytestmark = pytest.mark.anyio

Headers = list[tuple[str, str]]
PROXIES = "10.0.0.0/8, 2001:db8::/64, 192.0.2.10"
WRONG_KEYS = 10
"""Wrong keys of one address that are a 401; the next one is a 429."""


@asynccontextmanager
async def peer(gateway: Running, address: str = "10.0.0.1", **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose connection comes from this address."""
    transport = httpx.ASGITransport(gateway.app, client=(address, 50_000), **options)
    headers = {"authorization": f"Bearer {ALICE}"}
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers) as client:
        yield client


async def origin_at(client: httpx.AsyncClient, headers: Headers) -> str:
    """The address of the gateway as the OpenAPI document has it."""
    document = (await client.get("/openapi.json", headers=headers)).json()
    (server,) = document["servers"]
    return str(server["url"])


async def is_blocked(client: httpx.AsyncClient, headers: Headers) -> bool:
    """True if the client's address has sent too many wrong operator keys; this is one more."""
    answer = await client.get("/admin/v1/projects", headers=[*headers, ("authorization", "Bearer wrong")])
    assert answer.status_code in (401, 429)
    return answer.status_code == 429


async def block(client: httpx.AsyncClient, headers: Headers) -> None:
    assert [await is_blocked(client, headers) for _ in range(WRONG_KEYS)] == [False] * WRONG_KEYS
    assert await is_blocked(client, headers)


ALL: Headers = [
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "video.example.com"),
    ("x-forwarded-prefix", "/video"),
]


@pytest.mark.parametrize(
    ("address", "trusted", "believed"),
    [
        ("127.0.0.1", None, True),
        ("::1", None, True),
        ("::ffff:127.0.0.1", None, True),
        ("127.0.0.2", None, False),
        ("10.0.0.1", None, False),
        ("10.0.0.1", PROXIES, True),
        ("::ffff:10.0.0.1", PROXIES, True),
        ("2001:db8::1", PROXIES, True),
        ("2001:db8:0:1::1", PROXIES, False),
        ("192.0.2.10", PROXIES, True),
        ("192.0.2.11", PROXIES, False),
        ("127.0.0.1", PROXIES, False),
        ("127.0.0.1", "[]", False),
        ("192.0.2.11", "*", True),
        ("/run/gateway.sock", PROXIES, False),
    ],
)
async def test_only_trusted_peers_are_believed(
    start_gateway: StartGateway, address: str, trusted: str | None, believed: bool
) -> None:
    settings = {} if trusted is None else {"trusted_proxies": trusted}
    async with start_gateway(admin_key=ADMIN, **settings) as gateway, peer(gateway, address) as client:
        expected = "https://video.example.com/video" if believed else ORIGIN
        assert await origin_at(client, ALL) == expected
        await block(client, ALL)
        other = [("x-forwarded-for", "203.0.113.8"), *ALL[1:]]
        assert await is_blocked(client, other) is not believed


async def test_an_asterisk_trusts_the_peer_and_no_address_before_it(start_gateway: StartGateway) -> None:
    """The client of the peer has sent the entries before the peer's own."""
    forged = [
        ("x-forwarded-for", "198.51.100.1, 203.0.113.7"),
        ("x-forwarded-proto", "http, https"),
        ("x-forwarded-host", "evil.example, video.example.com"),
        ("x-forwarded-prefix", "/evil, /video"),
    ]
    async with start_gateway(admin_key=ADMIN, trusted_proxies="*") as gateway, peer(gateway, "192.0.2.11") as client:
        assert await origin_at(client, forged) == "https://video.example.com/video"
        await block(client, forged)
        assert await is_blocked(client, [("x-forwarded-for", "198.51.100.2, 203.0.113.7")]), "a forged entry"
        assert not await is_blocked(client, [("x-forwarded-for", "203.0.113.7, 203.0.113.8")])


async def test_networks_beside_an_asterisk_extend_the_walk(start_gateway: StartGateway) -> None:
    hops = ("x-forwarded-for", "203.0.113.7, 10.1.1.1")
    hosts = ("x-forwarded-host", "evil.example, video.example.com, inner.example")
    async with start_gateway(trusted_proxies="*, 10.0.0.0/8") as gateway, peer(gateway, "192.0.2.11") as client:
        assert await origin_at(client, [hops, hosts]) == "http://video.example.com"


@pytest.mark.parametrize(("trusted", "believed"), [("*", True), (PROXIES, False)])
async def test_a_unix_socket_is_trusted_with_an_asterisk_only(
    start_gateway: StartGateway, trusted: str, believed: bool
) -> None:
    async with start_gateway(trusted_proxies=trusted) as gateway:
        status, document = await at_a_unix_socket(gateway, "/openapi.json", ALL)
    assert status == 200
    assert document["servers"] == [{"url": "https://video.example.com/video" if believed else "http://socket"}]


async def at_a_unix_socket(gateway: Running, path: str, headers: Headers) -> tuple[int, Any]:
    """The answer to a request whose peer has no address, as uvicorn passes it on from a Unix socket."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    lines = [(name.encode(), value.encode()) for name, value in [("host", "socket"), *headers]]
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": lines,
        "server": ("/run/gateway.sock", None),
        "client": None,
    }
    await gateway.app(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1, 203.0.113.7", "10.1.1.1,2001:db8::2", "192.0.2.10"], "203.0.113.7"),
        (["203.0.113.7,10.2.2.2"], "203.0.113.7"),
        (["  203.0.113.7  "], "203.0.113.7"),
        (["203.0.113.7:4711"], "203.0.113.7"),
        (["203.0.113.7:4711, 10.1.1.1:80"], "203.0.113.7"),
        (["[2001:db8:0:1::7]:443"], "2001:db8:0:1::7"),
        (["[2001:db8:0:1::7]"], "2001:db8:0:1::7"),
        (["2001:DB8:0:1:0:0:0:7"], "2001:db8:0:1::7"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        (["[::ffff:203.0.113.7]:443"], "203.0.113.7"),
        (["10.3.3.3, 10.1.1.1"], "10.3.3.3"),
        (["203.0.113.7, unknown, 10.1.1.1"], "10.1.1.1"),
        (["203.0.113.7, _hidden"], "10.0.0.1"),
        (["unix:"], "10.0.0.1"),
        ([""], "10.0.0.1"),
        (["203.0.113.7,"], "10.0.0.1"),
        (["203.0.113.256"], "10.0.0.1"),
        (["203.0.113.7:99999999"], "10.0.0.1"),
        (["fe80::1%eth0"], "10.0.0.1"),
        (["0x7f.1"], "10.0.0.1"),
        (["127.1"], "10.0.0.1"),
        (["\u00b203.0.113.7"], "10.0.0.1"),
        (["203.0.113.7" + ",10.1.1.1" * 31], "203.0.113.7"),
        (["203.0.113.7" + ",10.1.1.1" * 5_000], "10.1.1.1"),
        (["[" * 60_000], "10.0.0.1"),
    ],
)
async def test_the_client_is_the_last_address_that_is_no_proxy(
    start_gateway: StartGateway, lines: list[str], client: str
) -> None:
    """Counted by the limit on wrong operator keys, and named in its warning."""
    headers = [(b"x-forwarded-for", line.encode("latin-1")) for line in lines]
    async with start_gateway(admin_key=ADMIN, trusted_proxies=PROXIES) as gateway, peer(gateway) as proxy:
        with capture_logs() as logs:
            for _ in range(WRONG_KEYS + 1):
                answer = await proxy.get("/admin/v1/projects", headers=[*headers, (b"authorization", b"Bearer wrong")])
        assert answer.status_code == 429
    (warning,) = [entry for entry in logs if entry["event"] == "wrong operator keys"]
    assert warning["address"] == client


async def test_clients_of_one_proxy_are_counted_apart(start_gateway: StartGateway) -> None:
    async with start_gateway(admin_key=ADMIN, trusted_proxies=PROXIES) as gateway, peer(gateway) as client:
        await block(client, [("x-forwarded-for", "203.0.113.7")])
        assert await is_blocked(client, [("x-forwarded-for", "198.51.100.1, 203.0.113.7")]), "a forged entry"
        assert not await is_blocked(client, [("x-forwarded-for", "203.0.113.8")])
        assert not await is_blocked(client, [])
        async with peer(gateway, "203.0.113.7") as direct:
            assert await is_blocked(direct, []), "the same client without the proxy"


async def test_clients_at_a_socket_for_both_families_are_counted_apart(start_gateway: StartGateway) -> None:
    async with start_gateway(admin_key=ADMIN) as gateway:
        async with peer(gateway, "::ffff:203.0.113.7") as client:
            await block(client, [])
        async with peer(gateway, "::ffff:203.0.113.8") as client:
            assert not await is_blocked(client, [])


@pytest.mark.parametrize(
    ("forwarded_for", "protos", "expected"),
    [
        (None, "https", "https"),
        (None, "http, https", "https"),
        (None, "https, http", "http"),
        ("203.0.113.7", "http, https", "https"),
        ("203.0.113.7, 10.1.1.1", "http, https, http", "https"),
        ("203.0.113.7, 10.1.1.1", "https, http", "https"),
        ("203.0.113.7, 10.1.1.1", "https", "https"),
        ("203.0.113.7, 10.1.1.1, 10.1.1.2", "https, http", "https"),
        ("198.51.100.1, 203.0.113.7, 10.1.1.1", "http, https, http", "https"),
        ("10.3.3.3, 10.1.1.1", "https, http", "https"),
    ],
)
async def test_the_outermost_trusted_proxy_names_scheme_host_and_prefix(
    start_gateway: StartGateway, forwarded_for: str | None, protos: str, expected: str
) -> None:
    hosts = protos.replace("https", "right.example").replace("http", "wrong.example")
    prefixes = protos.replace("https", "/right").replace("http", "/wrong")
    headers = [("x-forwarded-proto", protos), ("x-forwarded-host", hosts)]
    headers += [("x-forwarded-prefix", part) for part in prefixes.split(", ")]  # several lines are one list
    headers += [("x-forwarded-for", forwarded_for)] if forwarded_for else []
    word = "right" if expected == "https" else "wrong"
    async with start_gateway(trusted_proxies=PROXIES) as gateway, peer(gateway) as client:
        assert await origin_at(client, headers) == f"{expected}://{word}.example/{word}"


@pytest.mark.parametrize(
    ("header", "value", "origin"),
    [
        ("host", "video.example.com:8443", "http://video.example.com:8443"),
        ("host", "xn--bcher-kva.example", "http://xn--bcher-kva.example"),
        ("host", "[2001:db8::1]:8443", "http://[2001:db8::1]:8443"),
        ("host", "video_gateway", "http://video_gateway"),
        ("prefix", "/video", f"{ORIGIN}/video"),
        ("prefix", "/video/", f"{ORIGIN}/video"),
        ("prefix", "/a/b-c_d.e~f", f"{ORIGIN}/a/b-c_d.e~f"),
        ("prefix", "/.well-known", f"{ORIGIN}/.well-known"),
        ("prefix", "/", ORIGIN),
        ("proto", "http", ORIGIN),
    ],
)
async def test_values_of_the_right_form_are_taken(
    start_gateway: StartGateway, header: str, value: str, origin: str
) -> None:
    async with start_gateway() as gateway, peer(gateway, "127.0.0.1") as client:
        assert await origin_at(client, [(f"x-forwarded-{header}", value)]) == origin


HOSTILE = {
    "host": (
        *("evil.example/path", "user@evil.example", "evil.example:99999", "evil.example:port", "evil.example:", ""),
        *("evil.example?x", "evil.example#x", 'evil"><script>', "[::1", "::1", "-evil", ".", "b\u00fccher.example"),
        *("evil.example\\@x", "a" * 300, "evil.example:\u0661", "%65vil.example", "[evil]", "a b", "evil.example\t"),
    ),
    "proto": ("HTTPS", "javascript", "wss", "https:", "http\u00df", "", "file", "https://evil"),
    "prefix": (
        *("video", "//evil.example", "/a//b", "/..", "/../x", "/a/../b", "/a/.", "/./a", "/a b", "/a%2Fb"),
        *("http://evil.example", '/"><script>', "/a;b", "/a\\b", "/\u00e9", "/a" * 20, "/" + "a" * 101, "", "/a/.."),
        *("/'+alert(1)+'", "/{{x}}", "/@evil.example", "/a?x", "/a#x", "/a//"),
    ),
}


@pytest.mark.parametrize("header", HOSTILE)
async def test_values_of_another_form_are_ignored(start_gateway: StartGateway, header: str) -> None:
    async with start_gateway() as gateway, peer(gateway, "127.0.0.1") as client:
        for value in HOSTILE[header]:
            raw = value.strip().encode("utf-8")
            answer = await client.get("/openapi.json", headers=[(f"x-forwarded-{header}".encode(), raw)])
            if value.endswith("\t"):  # blanks around a value are no part of it
                assert answer.json()["servers"] == [{"url": "http://evil.example"}]
            else:
                assert answer.json()["servers"] == [{"url": ORIGIN}], value
            page = await client.get("/docs", headers=[(f"x-forwarded-{header}".encode(), raw)])
            assert "url: '/openapi.json'" in page.text, value


async def test_links_and_documentation_name_the_address_of_the_client(start_gateway: StartGateway) -> None:
    async with start_gateway() as gateway, peer(gateway, "127.0.0.1") as client:
        video = await gateway.finish((await gateway.create(model="sandbox/testcard", seconds="1"))["id"])
        shown = (await client.get(f"/v1/videos/{video['id']}", headers=ALL)).json()
        link = shown["output"]["url"]
        assert link.startswith(f"https://video.example.com/video/media/{video['id']}/0.mp4?")
        inner = link.replace("https://video.example.com/video", ORIGIN)
        served = await client.get(inner, headers={"range": "bytes=4-7"})
        assert (served.status_code, served.content) == (206, b"ftyp")
        page = await client.get("/docs", headers=ALL)
        assert "url: '/video/openapi.json'" in page.text
        assert 'src="/video/docs/swagger-ui-bundle.js"' in page.text


async def test_the_public_address_wins_in_links(start_gateway: StartGateway) -> None:
    async with start_gateway(public_url="https://public.example/v") as gateway, peer(gateway, "127.0.0.1") as client:
        video = await gateway.finish((await gateway.create(model="sandbox/testcard", seconds="1"))["id"])
        shown = (await client.get(f"/v1/videos/{video['id']}", headers=ALL)).json()
    assert shown["output"]["url"].startswith("https://public.example/v/media/")


async def test_the_document_names_the_address_of_the_client_first(start_gateway: StartGateway) -> None:
    """/docs may call the address it was loaded from, and no other."""
    public = "https://video.example.com/video/"
    async with start_gateway(public_url=public) as gateway, peer(gateway, "127.0.0.1") as client:
        inner = (await client.get("/openapi.json")).json()["servers"]
        outer = (await client.get("/openapi.json", headers=ALL)).json()["servers"]
    assert inner == [{"url": ORIGIN}, {"url": "https://video.example.com/video"}]
    assert outer == [{"url": "https://video.example.com/video"}]


@pytest.mark.parametrize("path", ["/video/v1/videos", "/video/healthz"])
async def test_the_prefix_does_not_change_the_route(start_gateway: StartGateway, path: str) -> None:
    """The proxy removes it from the path: a header that chose the route could pass the rules of the proxy."""
    async with start_gateway() as gateway, peer(gateway, "127.0.0.1") as client:
        assert (await client.get(path, headers=ALL)).status_code == 404
        assert (await client.get("/v1/videos", headers=[("x-forwarded-prefix", "/v1")])).status_code == 200


async def test_a_mount_path_of_the_server_is_no_part_of_the_path(start_gateway: StartGateway) -> None:
    """As with `uvicorn --root-path`."""
    async with start_gateway(admin_key=ADMIN) as gateway, peer(gateway, "127.0.0.1", root_path="/gw") as client:
        video = await gateway.finish((await gateway.create(model="sandbox/testcard", seconds="1"))["id"])
        link = (await client.get(f"/gw/v1/videos/{video['id']}")).json()["output"]["url"]
        assert link.startswith(f"{ORIGIN}/gw/media/")
        assert (await client.get(link)).status_code == 200
        luma = await client.post("/gw/luma/generations//", json={})
        assert (luma.status_code, list(luma.json())) == (400, list((await client.post("/luma/generations")).json()))
        (attempt,) = await gateway.attempts(video["id"])
        token = gateway.gateway.links.callback_token(attempt.id)
        with capture_logs() as logs:
            assert (await client.post(f"/gw/callbacks/{attempt.id}/{token}")).status_code == 200
        assert token not in str(logs)
        assert await origin_at(client, [("x-forwarded-prefix", "/gw")]) == f"{ORIGIN}/gw"
        assert await origin_at(client, [("x-forwarded-prefix", "/outer")]) == f"{ORIGIN}/outer/gw"
        assert await origin_at(client, []) == f"{ORIGIN}/gw"


async def test_ignored_headers_are_named_in_the_log_once_a_minute(start_gateway: StartGateway) -> None:
    async with start_gateway() as gateway, peer(gateway, "192.0.2.77") as client:
        with capture_logs() as logs:
            for _ in range(20):
                await client.get("/healthz", headers=ALL)
    (notice,) = [entry for entry in logs if entry["event"] == "forwarded headers ignored"]
    assert notice["peer"] == "192.0.2.77"
    assert "GATEWAY_TRUSTED_PROXIES" in notice["hint"]


REQUESTS = {
    "HTTP/1.0 without a Host": (b"1.0", b"", 200, "https://video.example.com/video"),
    "HTTP/1.0 with a Host": (b"1.0", b"host: inner\r\n", 200, "https://video.example.com/video"),
    "HTTP/1.1 without a Host": (b"1.1", b"", 200, "https://video.example.com/video"),
    "two Hosts": (b"1.1", b"host: inner\r\nhost: other\r\n", 400, None),
}


@pytest.mark.parametrize("case", REQUESTS)
async def test_a_forwarded_host_stands_for_a_missing_one(gateway: Running, case: str) -> None:
    number, host, status, origin = REQUESTS[case]
    lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in ALL)
    head = b"GET /openapi.json HTTP/%s\r\nconnection: close\r\n%s%s\r\n" % (number, host, lines)
    answer, body = await over_tcp(gateway, head)
    assert answer == status
    assert origin is None or json.loads(body)["servers"] == [{"url": origin}]


async def test_uvicorn_does_not_read_the_headers_before_the_gateway(start_gateway: StartGateway) -> None:
    """`uvicorn --factory` does by default: its peer would be the client, which is not trusted."""
    async with start_gateway(trusted_proxies="192.0.2.10") as gateway:
        head = b"GET /openapi.json HTTP/1.1\r\nhost: inner\r\nconnection: close\r\nx-forwarded-for: 192.0.2.10\r\n"
        _, body = await over_tcp(gateway, head + b"x-forwarded-proto: https\r\n\r\n")
    assert json.loads(body)["servers"] == [{"url": "http://inner"}]


async def over_tcp(gateway: Running, request: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to these bytes, of a server that uvicorn runs with its own defaults."""
    async with serve(gateway.app, http=HttpProtocol) as url:
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(request)
            async with asyncio.timeout(PATIENCE_S):
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
    return int(head.split(b" ", 2)[1]), body
