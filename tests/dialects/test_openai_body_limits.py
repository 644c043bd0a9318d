"""The OpenAI dialect: bodies that are too large, and connections that are cut."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
from dialects.openai_wire import MULTIPART, PNG, error_of, form, in_chunks, part
from fakes.server import serve
from harness import ALICE, Running, StartGateway

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_large_is_a_413(start_gateway: StartGateway, declared: bool) -> None:
    body = form(part("prompt", "p"), part("input_reference", bytes(2**20), filename="a.png"))
    async with start_gateway(max_body_mb=1) as gateway:
        content = body if declared else in_chunks(body, 2**16)
        error = error_of(await gateway.client.post("/v1/videos", content=content, headers=MULTIPART), 413)
        assert error == {
            "message": "the request body is larger than 1 MiB; GATEWAY_MAX_BODY_MB sets this",
            "type": "invalid_request_error",
            "param": None,
            "code": "payload_too_large",
        }
        assert list((gateway.gateway.settings.data_dir / "media").rglob("*.*")) == []


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_of_a_hundred_megabytes_is_refused_over_a_real_socket(
    gateway: Running, connection: str, declared: bool
) -> None:
    """The sender reads the refusal, although it was still sending when that was written."""
    start = part("prompt", "p") + part("input_reference", b"", filename="a.png")[:-2]
    piece = bytes(2**20)

    async def content() -> AsyncIterator[bytes]:
        yield start
        for _ in range(100):
            yield piece

    headers = {**MULTIPART, "authorization": f"Bearer {ALICE}", "connection": connection}
    if declared:
        headers["content-length"] = str(len(start) + 100 * len(piece))
    async with serve(gateway.app) as url, httpx.AsyncClient(timeout=20) as client:
        error_of(await client.post(f"{url}/v1/videos", content=content(), headers=headers), 413)
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
async def test_a_large_upload_with_a_wrong_key_is_a_401(gateway: Running, connection: str) -> None:
    headers = {**MULTIPART, "authorization": "Bearer sk-unknown", "connection": connection}
    async with serve(gateway.app) as url, httpx.AsyncClient(timeout=20) as client:
        error_of(await client.post(f"{url}/v1/videos", content=bytes(30 * 2**20), headers=headers), 401)


async def test_a_connection_that_is_cut_half_way_makes_no_video(gateway: Running) -> None:
    body = form(part("prompt", "p"), part("input_reference", PNG, filename="a.png"))
    head = f"POST /v1/videos HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\n"
    head += f"Content-Type: {MULTIPART['content-type']}\r\nContent-Length: {len(body)}\r\n\r\n"
    async with serve(gateway.app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(head.encode() + body[:-20])
        await writer.drain()
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []
    assert list((gateway.gateway.settings.data_dir / "media").rglob("*.*")) == []
