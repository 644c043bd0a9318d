"""The OpenAI dialect: bodies that are too large, and connections that are cut."""

import asyncio
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from dialects.openai_wire import MULTIPART, PNG, Upstream, error_of, form, in_chunks, part
from fakes.server import serve
from harness import ALICE, Running, StartGateway
from money import Operator

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


# Bodies beyond 1 MiB, which are received into a temporary file

PICTURE = PNG + bytes(3 * 2**20)
PICTURE_URL = "data:image/png;base64," + b64encode(PICTURE).decode()


@pytest.mark.parametrize(
    "sent",
    [
        {"json": {"prompt": "p", "input_reference": PICTURE_URL}},
        {"data": {"prompt": "p", "input_reference": PICTURE_URL}},
        {"files": {"prompt": (None, "p"), "input_reference": (None, PICTURE_URL)}},
        {"files": {"prompt": (None, "p"), "input_reference": ("a.png", PICTURE)}},
    ],
    ids=["json", "form", "text part", "file part"],
)
async def test_a_large_body_of_every_kind_is_read(up: Upstream, sent: dict[str, Any]) -> None:
    body = up.client.build_request("POST", "/v1/videos", **sent)
    headers = {"content-type": body.headers["content-type"]}
    answer = await up.client.post("/v1/videos", content=in_chunks(await body.aread(), 2**16), headers=headers)
    assert answer.status_code == 202, answer.text
    (stored,) = [path for path in (up.gateway.gateway.settings.data_dir / "media").rglob("*") if path.is_file()]
    assert stored.read_bytes() == PICTURE


@pytest.mark.parametrize("parts", [1, 5])
async def test_text_parts_have_a_limit_together(gateway: Running, parts: int) -> None:
    text = b"a" * (25 * 2**20 // parts)
    body = form(part("prompt", "p"), *(part(f"style[{number}]", text) for number in range(parts)))
    error = error_of(await gateway.client.post("/v1/videos", content=body, headers=MULTIPART), 400)
    assert error["message"].endswith("its text parts have more than 24 MiB together; send files as file parts.")


async def test_a_full_temporary_directory_is_a_503(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/directory")
    for size, status in ((2**20, 400), (2**20 + 1, 503)):
        answer = await gateway.client.post("/v1/videos", content=b"[" + b"1" * (size - 1))
        assert answer.status_code == status, answer.text
    assert answer.headers["retry-after"]
    assert "no room for large request bodies" in answer.json()["error"]["message"]


LARGE = b'{"prompt": "' + b"a" * (2**20 - 100)


async def unfinished(reached: asyncio.Event, over: asyncio.Event) -> AsyncIterator[bytes]:
    """A large body whose end does not come before `over`."""
    yield LARGE
    reached.set()
    await over.wait()


async def test_the_first_bytes_of_a_body_are_not_counted(start_gateway: StartGateway) -> None:
    """Small requests are served while large bodies use up the limit; a single large body always fits."""
    reached, over = asyncio.Event(), asyncio.Event()
    async with start_gateway(max_bodies_mb=1, max_body_mb=1) as gateway:
        holding = asyncio.create_task(gateway.client.post("/v1/videos", content=unfinished(reached, over)))
        await reached.wait()
        answers = [await client.post("/v1/videos", content=LARGE) for client in (gateway.client, gateway.bob)]
        await gateway.create(metadata={"a": "b" * 2_000})
        over.set()
        assert (await holding).status_code == 400
        after = await gateway.client.post("/v1/videos", content=LARGE)
    assert [error_of(answer, 503)["code"] for answer in answers] == ["service_unavailable"] * 2
    assert error_of(after, 400)["code"] == "invalid_json", "what a body held is free after it"


async def test_two_keys_of_a_project_have_one_limit(operator: Operator, start_gateway: StartGateway) -> None:
    first = await operator.key()
    second = await operator.key(project=first["project"])
    reached, over = asyncio.Event(), asyncio.Event()
    async with start_gateway(max_bodies_mb=3, max_body_mb=1) as gateway:
        headers = [{"authorization": f"Bearer {key['key']}"} for key in (first, second)]
        sending = gateway.client.post("/v1/videos", content=unfinished(reached, over), headers=headers[0])
        holding = asyncio.create_task(sending)
        await reached.wait()
        refused = await gateway.client.post("/v1/videos", content=LARGE, headers=headers[1])
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_bodies")
        assert (await gateway.bob.post("/v1/videos", content=LARGE)).status_code == 400  # read, and not complete
        over.set()
        assert (await holding).status_code == 400
