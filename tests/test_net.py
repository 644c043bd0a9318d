"""Outbound HTTP: bounded reading of answers, compressed or not; resolution of names; redaction of URLs."""

import asyncio
import gzip
import socket
import threading
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, Elsewhere, serve
from harness import Running, StartGateway

from app import net

pytestmark = pytest.mark.anyio

ACCEPTED = b'{"id": "video_1", "object": "video", "status": "queued", "model": "sora-2"}'
PEAK_BYTES = 32 * 2**20


@lru_cache
def bomb() -> bytes:
    """100 MiB in 100 KiB."""
    return gzip.compress(bytes(100 * 2**20))


@pytest.fixture
async def fake() -> FakeOpenAI:
    return FakeOpenAI(polls_until_working=0, polls_until_done=0)


@pytest.fixture
async def up(fake: FakeOpenAI, start_gateway: StartGateway) -> AsyncIterator[Running]:
    """A gateway in front of an upstream that the test scripts."""
    async with serve(fake) as url:
        upstream = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]}
        async with start_gateway(providers={"up": upstream}, max_file_mb=1) as running:
            yield running


def packed(content: bytes, coding: str, pack: Callable[[bytes], bytes] = gzip.compress) -> Answer:
    return Answer(200, pack(content), {"content-type": "application/json", "content-encoding": coding})


CODINGS = {
    "gzip": packed(ACCEPTED, "gzip"),
    "x-gzip": packed(ACCEPTED, "X-GZip"),
    "deflate": packed(ACCEPTED, "deflate", zlib.compress),
    "identity": packed(ACCEPTED, "identity", bytes),
    "a charset": packed(ACCEPTED, "UTF-8", bytes),
    "long": packed(ACCEPTED[:-1] + b', "pad": "' + bytes([120]) * (3 * 2**20) + b'"}', "gzip"),
}


@pytest.mark.parametrize("name", CODINGS)
async def test_a_compressed_answer_to_a_submit_is_read(up: Running, fake: FakeOpenAI, name: str) -> None:
    fake.script("submit", CODINGS[name])
    video = await up.create(model="up/sora-2")
    await up.worker.run_once()
    (attempt,) = await up.attempts(video["id"])
    assert (attempt.upstream_ref, attempt.error_body) == ("video_1", None)
    assert fake.submits[0].headers["accept-encoding"] == "identity"


UNREADABLE = {
    "twice": (packed(gzip.compress(ACCEPTED), "gzip, gzip"), "DecodingError"),
    "unknown": (packed(ACCEPTED, "br"), "DecodingError"),
    "broken": (packed(ACCEPTED, "gzip", bytes), "DecodingError"),
    "cut off": (packed(gzip.compress(ACCEPTED)[:-9], "gzip", bytes), "DecodingError"),
    "bomb": (Answer(headers={"content-encoding": "gzip"}), "longer than 8388608 bytes"),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_an_answer_that_cannot_be_decompressed_is_an_unknown_outcome(
    up: Running, fake: FakeOpenAI, name: str
) -> None:
    answer, why = UNREADABLE[name]
    fake.script("submit", replace(answer, body=answer.body or bomb()))
    video = await up.create(model="up/sora-2")
    tracemalloc.start()
    try:
        await up.worker.run_once()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (attempt,) = await up.attempts(video["id"])
    assert why in f"{attempt.error_message}"
    assert len(fake.submits) == 1
    assert peak < PEAK_BYTES


async def test_a_compressed_file_is_decompressed(up: Running, fake: FakeOpenAI) -> None:
    fake.script("content", packed(fake.file, "gzip"))
    video = await up.create(model="up/sora-2")
    assert (await up.finish(video["id"]))["status"] == "completed"
    assert (await up.client.get(f"/v1/videos/{video['id']}/content")).content == fake.file


async def test_a_file_that_decompresses_to_too_much_is_refused(up: Running, fake: FakeOpenAI) -> None:
    answer = packed(bomb(), "gzip", bytes)
    fake.script("content", replace(answer, headers={**answer.headers, "content-type": "video/mp4"}))
    video = await up.create(model="up/sora-2")
    tracemalloc.start()
    try:
        ended = await up.finish(video["id"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ended["error"]["code"] == "output_too_large"
    assert peak < PEAK_BYTES


# Names


async def test_names_that_do_not_resolve_delay_no_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def dead(*_: Any, **__: Any) -> Any:
        over.wait(30)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", dead)
    async with net.guarded() as http:
        calls = [asyncio.create_task(http.get(f"http://{number}.example.com/")) for number in range(40)]
        try:
            await asyncio.sleep(0.1)
            assert await asyncio.wait_for(asyncio.to_thread(int, "7"), 5) == 7
        finally:
            over.set()
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert "does not resolve" in str(answer)


async def test_a_name_is_resolved_as_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets and TLS know an older standard, by which this is the name of another host."""
    asked, elsewhere, really = [], Elsewhere(), socket.getaddrinfo

    def resolve(host: Any, *given: Any, **options: Any) -> Any:
        asked.append(host)
        return really("127.0.0.1", *given, **options)

    async with serve(elsewhere) as url, net.guarded(allow=[ip_network("127.0.0.0/8")]) as http:
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        answer = await http.get(url.replace("127.0.0.1", "faß.de"))
    assert asked == ["xn--fa-hia.de"]
    assert answer.request.extensions["sni_hostname"] == "xn--fa-hia.de"
    assert elsewhere.calls[0].headers["host"] == f"xn--fa-hia.de:{httpx.URL(url).port}"


# Addresses in texts of others

REDACTED = {
    "https://gw.example/media/uploads/v/0?exp=1&sig=T0KEN": "https://gw.example/media/uploads/v/0",
    "at HTTPS://me:T0KEN@x.example:8443/a#T0KEN, no": "at HTTPS://x.example:8443/a no",
    '{"url":"https:\\/\\/me:T0KEN@x.example\\/a?b=T0KEN"}': '{"url":"https:\\/\\/x.example\\/a"}',
    "<https://gw.example/callbacks/att_1/T0KEN>": "<https://gw.example/callbacks/...>",
    '"https:\\/\\/gw.example\\/callbacks\\/att_1\\/T0KEN"': '"https:\\/\\/gw.example\\/callbacks\\/..."',
    "GET /media/v/0?exp=1&sig=T0KEN answers 403": "GET /media/v/0?exp=1&sig=... answers 403",
    "u=https%3A%2F%2Fgw%2Fcallbacks%2Fatt_1%2FT0KEN": "u=https%3A%2F%2Fgw%2Fcallbacks%2F...",
    "https://x.example/@me/clip.mp4 is no video": "https://x.example/@me/clip.mp4 is no video",
    "what? a@b.example, #1": "what? a@b.example, #1",
}


@pytest.mark.parametrize("said", REDACTED)
def test_urls_in_texts_are_shown_without_credentials(said: str) -> None:
    assert net.redact_urls(said) == REDACTED[said]
