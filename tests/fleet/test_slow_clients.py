"""Clients on a real socket that are slow, silent, endless, deaf or impolite: each is let go of, and costs little."""

import asyncio
import json
import re
import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from fakes.server import serve
from fastapi import FastAPI
from fleet.peers import (
    GET,
    MIB,
    PATIENCE_S,
    Brisk,
    connected,
    post,
    talking,
    videos,
)
from harness import ALICE, Running, StartGateway
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs
from uvicorn.server import ServerState

from app import settings
from app.dialects import name_at, render_error
from app.http.cors import Cors
from app.http.middleware import RequestMiddleware
from app.http.server import HttpProtocol
from app.http.spool import Bodies
from app.main import create_app
from app.video import Media

pytestmark = pytest.mark.anyio


@pytest.fixture
def idle(tmp_path: Path) -> FastAPI:
    """The application as it is before it starts: enough for what needs no database."""
    return create_app(settings.load(_env_file=None, data_dir=tmp_path))


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # none of what is looked at has an event to give
            await asyncio.sleep(0)


# Heads


TOO_LARGE = {
    "message": "the address and headers of a request have at most 65536 bytes",
    "type": "invalid_request_error",
    "param": None,
    "code": "request_head_too_large",
}


@pytest.mark.parametrize("size", [65_537, 300_000, 5 * MIB])
async def test_a_head_that_is_too_large_is_a_431(idle: FastAPI, size: int) -> None:
    heads = {
        "a header": b"GET /healthz HTTP/1.1\r\nx-a: " + b"a" * size,
        "headers": b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * (size // 6 + 1),
        "an address": b"GET /" + b"a" * size + b" HTTP/1.1\r\n",
        "a query": b"GET /healthz?" + b"a" * size + b" HTTP/1.1\r\n",
    }
    async with serve(idle, http=HttpProtocol) as url:
        for name, head in heads.items():
            async with connected(url) as peer:
                await peer.send(head + b"\r\n\r\n")
                answer = await peer.answer()
                assert (answer.status, answer.error) == (431, TOO_LARGE), name
                assert answer.headers["connection"] == "close"
                assert answer.headers["x-request-id"].startswith("req_")
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert await peer.rest() == b""


async def test_a_head_without_an_end_is_a_431(idle: FastAPI) -> None:
    async with serve(idle, http=HttpProtocol) as url:
        for piece in (b"x-header: and its value\r\n" * 100, b"a" * 2_000, b" " * 2_000):
            async with connected(url) as peer:
                answered = asyncio.create_task(peer.answer())
                await peer.send(b"GET /healthz HTTP/1.1\r\nx-endless: ")
                await peer.repeats(piece, answered)
                assert (await answered).error == TOO_LARGE


async def test_a_head_within_the_limit_is_read(idle: FastAPI) -> None:
    async with talking(idle) as peer:
        await peer.send(GET[:-2] + b"".join(b"x-%d: %s\r\n" % (n, b"a" * 990) for n in range(64)))
        assert await peer.receives_nothing(0.01)
        await peer.send(b"\r\n" + GET)
        assert [(await peer.answer()).status, (await peer.answer()).status] == [200, 200]


async def test_a_head_behind_a_body_is_measured_too(idle: FastAPI) -> None:
    async with talking(idle) as peer:
        await peer.send(post("/nowhere", 2) + b"{}" + GET[:-2] + b"x: " + b"a" * 100_000)
        assert (await peer.answer()).status == 404
        await peer.send(b"\r\n\r\n")
        assert (await peer.answer()).status == 431


async def test_a_silent_connection_is_closed(idle: FastAPI) -> None:
    async with serve(idle, http=Brisk) as url, connected(url) as silent, connected(url) as empty:
        await empty.send(b"\r\n\r\n")
        assert [await silent.rest(), await empty.rest()] == [b"", b""]


async def test_a_head_that_comes_byte_by_byte_is_a_408(idle: FastAPI) -> None:
    async with talking(idle, Brisk) as peer:
        answered = asyncio.create_task(peer.answer())
        await peer.send(b"GET /healthz HTTP/1.1\r\nx-slow: ")
        await peer.repeats(b"a", answered)
        answer = await answered
        assert await peer.rest() == b""
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert answer.headers["connection"] == "close"


async def test_a_second_head_that_stops_is_a_408(idle: FastAPI) -> None:
    async with talking(idle, Brisk) as peer:
        await peer.send(GET + GET[:20])
        assert (await peer.answer()).status == 200
        await peer.send(GET[20:-1])
        assert (await peer.answer()).status == 408
        assert await peer.rest() == b""


async def test_a_body_that_stops_after_its_answer_is_closed(idle: FastAPI) -> None:
    """The connection is kept, so the server reads the rest of the body; but not for ever."""

    async def stop(url: str, more: bytes) -> None:
        async with connected(url) as peer:
            await peer.send(post("/nowhere", 10))
            assert (await peer.answer()).status == 404
            await peer.send(more)
            assert await peer.rest() == b""

    async with serve(idle, http=Brisk) as url:
        await asyncio.gather(*(stop(url, more) for more in (b"a", b"all of it\n", b"all of it\n\r\n")))


async def test_bytes_that_are_no_http_are_a_400(idle: FastAPI) -> None:
    async with talking(idle) as peer:
        await peer.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
        answer = await peer.answer()
        assert (answer.status, answer.error["code"]) == (400, "invalid_request")
        assert await peer.rest() == b""


async def test_a_malformed_chunked_body_is_a_400(gateway: Running) -> None:
    head = post("/v1/videos", 0).replace(b"content-length: 0", b"transfer-encoding: chunked")
    async with talking(gateway.app) as peer:
        await peer.send(head + b'5\r\n{"pro\r\n')
        assert await peer.receives_nothing(0.01)
        await peer.send(b"no number\r\n")
        assert (await peer.answer()).status == 400
        assert await peer.rest() == b""
    assert await videos(gateway) == 0


# One after another on one connection


async def test_pipelined_requests_are_answered_in_order(gateway: Running) -> None:
    body = json.dumps({"prompt": "a paper boat"}).encode()
    async with talking(gateway.app, Brisk) as peer:
        await peer.send(post("/v1/videos", len(body)) + body + GET + b"GET /no HTTP/1.1\r\nhost: x\r\n\r\n" + GET * 20)
        answers = [await peer.answer() for _ in range(23)]
        assert [answer.status for answer in answers] == [202, 200, 404, *[200] * 20]
        await peer.send(GET[:-10])
        await peer.send(GET[-10:])
        assert (await peer.answer()).status == 200


async def test_an_answer_is_not_disturbed_by_nonsense_behind_its_request(gateway: Running) -> None:
    body = json.dumps({"prompt": "a paper boat"}).encode()
    async with talking(gateway.app) as peer:
        await peer.send(post("/v1/videos", len(body)) + body + b"\x00\x01\x02")
        answer = await peer.answer()
        assert (answer.status, answer.headers["connection"]) == (202, "close")
        assert await peer.rest() == b""
    assert await videos(gateway) == 1


async def test_too_many_pipelined_requests_close_the_connection(idle: FastAPI) -> None:
    async with talking(idle) as peer:
        await peer.send(GET * 5_000)
        answers = [await peer.answer() for _ in range(1 + HttpProtocol.max_pipelined)]
        assert {answer.status for answer in answers} == {200}
        assert answers[-1].headers["connection"] == "close"
        assert await peer.rest() == b""


async def test_a_client_that_leaves_is_noticed_though_it_had_asked_for_more(gateway: Running) -> None:
    video = await gateway.create()
    wait = f"GET /v1/videos/{video['id']}/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ALICE}\r\n\r\n"
    async with talking(gateway.app) as peer:
        await peer.send(wait.encode() + GET)
        await until(lambda: gateway.gateway.listener.waiters == 1)
        peer.writer.close()
        await until(lambda: gateway.gateway.listener.waiters == 0)


async def test_trailers_are_not_read_as_headers(gateway: Running) -> None:
    body = b'{"prompt": "a paper boat"}'
    head = post("/v1/videos", 0).replace(b"content-length: 0", b"transfer-encoding: chunked")
    async with talking(gateway.app) as peer:
        for _ in range(2):
            await peer.send(head + b"%x\r\n%s\r\n0\r\nidempotency-key: mine\r\n\r\n" % (len(body), body))
            assert (await peer.answer()).status == 202
        assert await videos(gateway) == 2
        answered = asyncio.create_task(peer.answer())
        await peer.send(head + b"0\r\nx: ")
        await peer.repeats(b"a" * 1_000, answered)
        assert (await answered).error == TOO_LARGE


async def test_an_upgrade_is_ignored_and_the_connection_closed(idle: FastAPI) -> None:
    async with talking(idle) as peer:
        await peer.send(GET[:-2] + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n" + GET)
        answer = await peer.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await peer.rest() == b""


# Answers


async def large_file(gateway: Running) -> str:
    """Path of a file that no socket's buffers can hold."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield bytes(MIB)

    medium = Media(key="uploads/video_1/0")
    assert medium.key is not None
    await gateway.gateway.store.put(medium.key, chunks(), max_bytes=64 * MIB)
    url = gateway.gateway.links.for_upstream(medium)
    assert url is not None
    return url.removeprefix("https://gateway.test")


class Watched:
    """An application that tells when it has done with a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.done = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            self.done.set()


@asynccontextmanager
async def deaf(url: str, request: bytes) -> AsyncIterator[socket.socket]:
    """A connection on which something is asked, and nothing read until the test does."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", urlsplit(url).port))
        await loop.sock_sendall(client, request)
        yield client


async def read_all(client: socket.socket) -> int:
    received = 0
    with suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE_S):
            while piece := await asyncio.get_running_loop().sock_recv(client, MIB):
                received += len(piece)
    return received


@pytest.mark.parametrize("behind", [b"", GET], ids=["alone", "with another request behind it"])
async def test_a_download_that_is_not_read_is_closed(start_gateway: StartGateway, behind: bytes) -> None:
    async with start_gateway(public_url="https://gateway.test") as gateway:
        request = f"GET {await large_file(gateway)} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
        app = Watched(gateway.app)
        async with serve(app, http=Brisk) as url, deaf(url, request + behind) as client:
            async with asyncio.timeout(PATIENCE_S):
                await app.done.wait()
            assert 0 < await read_all(client) < 60 * MIB


async def all_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    """An answer that is written in one piece: as far as the application is concerned it is over at once."""
    headers = [(b"content-length", str(32 * MIB).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(32 * MIB)})


class Full(asyncio.Transport):
    """A transport that has this much left to send."""

    left = 1_000_000
    aborted = False

    def get_write_buffer_size(self) -> int:
        return self.left

    def abort(self) -> None:
        self.aborted = True


class Timers:
    """An event loop as far as timers go; the test says when the latest is due."""

    def call_later(self, delay: float, callback: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
        self._callback, self._args = callback, args
        return asyncio.TimerHandle(delay, callback, args, asyncio.get_running_loop())

    def due(self) -> None:
        self._callback(*self._args)


async def test_an_answer_is_cut_only_when_its_reading_stops() -> None:
    timers, transport = Timers(), Full()
    config = uvicorn.Config(all_at_once, log_config=None)
    protocol = HttpProtocol(config, ServerState(), {}, _loop=cast("asyncio.AbstractEventLoop", timers))
    protocol.connection_made(transport)
    protocol.pause_writing()
    for left in (999_999, 500_000, 1):
        transport.left = left
        timers.due()
        assert not transport.aborted
    timers.due()
    assert transport.aborted


async def test_an_answer_whose_end_is_not_read_is_closed() -> None:
    lost = asyncio.Event()

    class Watching(Brisk):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    request = GET.replace(b"/healthz", b"/callbacks/att_1/T0KEN")
    with capture_logs() as logs:
        async with serve(all_at_once, http=Watching) as url, deaf(url, request):
            async with asyncio.timeout(PATIENCE_S):
                await lost.wait()
    assert [entry["path"] for entry in logs if entry["event"] == "unread response aborted"] == ["/callbacks/"]


# Headers of every answer

STRICT = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def security_of(answer: httpx.Response) -> dict[str, str]:
    names = [name.decode() for name, _ in answer.headers.raw]
    assert len(names) == len(set(names))
    return {name: answer.headers[name] for name in names if name in STRICT or name.startswith(("strict-", "cross-"))}


async def test_every_answer_tells_browsers_to_be_careful(gateway: Running) -> None:
    for method, path, status in (
        ("GET", "/healthz", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/v1/videos", 200),
        ("GET", "/no/such", 404),
        ("PUT", "/v1/videos", 405),
        ("POST", "/v1/videos", 400),
    ):
        answer = await gateway.client.request(method, path)
        assert (answer.status_code, security_of(answer)) == (status, STRICT), path


async def test_https_is_asked_for_where_it_is_spoken(start_gateway: StartGateway) -> None:
    async with start_gateway(public_url="https://gateway.test") as gateway:
        secure = security_of(await gateway.client.get("/healthz"))
    assert secure == {**STRICT, "strict-transport-security": "max-age=31536000"}
    async with start_gateway(public_url="http://gateway.test") as gateway:
        assert security_of(await gateway.client.get("/healthz")) == STRICT


async def test_a_video_may_be_played_on_its_own_and_on_other_sites(gateway: Running) -> None:
    video = await gateway.finish((await gateway.create(model="sandbox/testcard", seconds="1"))["id"])
    answer = await gateway.client.get(video["output"]["url"], headers={"authorization": "", "origin": "https://a.test"})
    assert answer.status_code == 200
    policy = "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    assert security_of(answer) == {**STRICT, "content-security-policy": policy}
    content = await gateway.client.get(f"/v1/videos/{video['id']}/content")
    assert (content.status_code, security_of(content)) == (200, STRICT)


@pytest.mark.parametrize("root", ["", "/gateway"])
async def test_the_documentation_loads_nothing_from_another_host(gateway: Running, root: str) -> None:
    transport = httpx.ASGITransport(gateway.app, root_path=root)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
        page = await client.get(f"{root}/docs")
        policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
        assert "//" not in page.headers["content-security-policy"]
        assert (policy["default-src"], policy["frame-ancestors"]) == ("'none'", "'none'")
        assert re.findall(r'(?:href|src)="([^"]+)"', page.text) == [
            f"{root}/docs/swagger-ui.css",
            "data:,",
            f"{root}/docs/swagger-ui-bundle.js",
        ]
        for name, kind, start in (("ui.css", "text/css", b".swagger-ui"), ("ui-bundle.js", "text/javascript", b"/*!")):
            file = await client.get(f"{root}/docs/swagger-{name}")
            assert (file.status_code, file.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
            assert file.content.startswith(start)
            assert file.headers["cache-control"] == "public, max-age=3600"
            assert (await client.head(f"{root}/docs/swagger-{name}")).content == b""
        for name in ("README.md", "health.py", "..%2Fhealth.py"):
            assert (await client.get(f"{root}/docs/{name}")).status_code == 404
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    assert policy["script-src"] == f"'self' 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"
    assert f"url: '{root}/openapi.json'" in script
    assert policy["connect-src"] == "'self'"


async def test_a_route_can_leave_headers_for_whatever_the_answer_will_be() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["gateway_headers"] = [(b"x-ratelimit-remaining", b"0")]
        raise ZeroDivisionError

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(
            RequestMiddleware(
                app,
                render_error=render_error,
                name_dialect=name_at,
                max_body_bytes=1,
                bodies=Bodies(1, 1),
                cors=Cors([], []),
            )
        )
    ) as client:
        answer = await client.get("http://gateway.test/")
    assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (500, "0")
    assert security_of(answer) == STRICT
