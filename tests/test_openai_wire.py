"""The OpenAI dialect byte by byte: what the SDKs of all ages were recorded to send, and what nobody should."""

import asyncio
import base64
import json
import math
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from conftest import ALICE, ORIGIN, Running, StartGateway
from fakes.openai import FakeOpenAI
from fakes.server import KEY, File, sample_mp4, serve

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
BOUNDARY = "----formdata-undici-012345678901"
MULTIPART = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
JSON = {"content-type": "application/json"}


def part(name: str, value: str | bytes, **headers: str) -> bytes:
    """One part as undici writes it; a `filename` makes it a file of no declared kind."""
    filename = headers.get("filename")
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        disposition += f'; filename="{filename}"\r\nContent-Type: {headers.get("kind", "application/octet-stream")}'
    content = value.encode() if isinstance(value, str) else value
    return f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode() + content + b"\r\n"


def form(*parts: bytes, end: bool = True) -> bytes:
    return b"".join(parts) + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


async def in_chunks(content: bytes, size: int = 7) -> AsyncIterator[bytes]:
    """Without a length, so httpx sends it chunked."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer, which has to have OpenAI's shape."""
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert isinstance(body["error"]["message"], str)
    return dict(body["error"])


class Upstream:
    """A gateway in front of a fake OpenAI-shaped server, called `up`."""

    def __init__(self, gateway: Running, fake: FakeOpenAI) -> None:
        self.gateway = gateway
        self.fake = fake
        self.client = gateway.client

    async def sent(self, response: httpx.Response) -> Any:
        """Let the job run, and return what the upstream was asked."""
        assert response.status_code == 202, response.text
        await self.gateway.worker.run_once()
        call = self.fake.submits[-1]
        return call.json if call.form is None else dict(call.form)

    async def completed(self, **fields: Any) -> dict[str, Any]:
        video = await self.gateway.create(**{"model": "up/sora-2", **fields})
        done = await self.gateway.finish(video["id"])
        assert done["status"] == "completed", done
        return done


@pytest.fixture
async def up(start_gateway: StartGateway) -> AsyncIterator[Upstream]:
    fake = FakeOpenAI(polls_until_working=0, polls_until_done=0)
    async with serve(fake) as url:
        provider = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}
        async with start_gateway(providers={"up": provider}, default_model="up/sora-2") as gateway:
            yield Upstream(gateway, fake)


# Bodies that work


async def test_the_whole_video_object(gateway: Running) -> None:
    body = {"prompt": "a paper boat", "seconds": 8, "size": "1280x720"}
    response = await gateway.client.post("/v1/videos", json=body)
    assert response.status_code == 202
    video = response.json()
    assert video == {
        "id": video["id"],
        "object": "video",
        "model": "sandbox/testcard",
        "status": "queued",
        "progress": 0,
        "created_at": int(gateway.clock().timestamp()),
        "completed_at": None,
        "expires_at": None,
        "prompt": "a paper boat",
        "size": "1280x720",
        "seconds": "8",
        "remixed_from_video_id": None,
        "error": None,
        "output": None,
        "metadata": {},
    }
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["openai-poll-after-ms"] == "1000"
    assert response.headers["x-request-id"].startswith("req_")


async def test_multipart_as_node_sends_it(up: Upstream) -> None:
    body = form(
        part("prompt", "ein Boot aus Papier, 纸船"),
        part("model", "up/sora-2"),
        part("seconds", "8"),
        part("metadata[order]", "17"),
        part("generate_audio", "true"),
        part("loop", "false"),
        part("seed", "7"),
        part("xs[]", "a"),
        part("xs[]", "b"),
        part("input_reference", PNG, filename="a.png"),
    )
    response = await up.client.post("/v1/videos", content=in_chunks(body), headers=MULTIPART)
    assert response.json()["metadata"] == {"order": "17"}
    sent = await up.sent(response)
    assert sent == {
        "prompt": "ein Boot aus Papier, 纸船",
        "model": "sora-2",
        "seconds": "8",
        "generate_audio": "true",
        "loop": "false",
        "seed": "7",
        "xs[]": "b",
        "input_reference": File.of("a.png", "image/png", PNG),
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["input_reference[image_url]"], {"image_url": "https://example.com/0.png"}),
        (["input_reference"], {"image_url": "https://example.com/0.png"}),
        (["input_reference[][image_url]"], {"image_url": "https://example.com/0.png"}),
        (
            ["input_reference[][image_url]", "input_reference[][image_url]"],
            [{"image_url": "https://example.com/0.png"}, {"image_url": "https://example.com/1.png"}],
        ),
        (
            ["input_reference[0][image_url]", "input_reference[1][image_url]"],
            [{"image_url": "https://example.com/0.png"}, {"image_url": "https://example.com/1.png"}],
        ),
        (
            ["input_reference[]", "input_reference[]"],
            [{"image_url": "https://example.com/0.png"}, {"image_url": "https://example.com/1.png"}],
        ),
    ],
)
async def test_pictures_by_address(up: Upstream, names: list[str], expected: Any) -> None:
    parts = [part(name, f"https://example.com/{index}.png") for index, name in enumerate(names)]
    body = form(part("prompt", "p"), *parts)
    sent = await up.sent(await up.client.post("/v1/videos", content=body, headers=MULTIPART))
    assert sent == {"prompt": "p", "model": "sora-2", "input_reference": expected}


async def test_several_files_in_one_field(up: Upstream) -> None:
    files = [part("input_reference[]", PNG + bytes([i]), filename=f"{i}.png") for i in range(2)]
    response = await up.client.post("/v1/videos", content=form(part("prompt", "p"), *files), headers=MULTIPART)
    await up.sent(response)
    sent = [value for _, value in up.fake.submits[-1].form or [] if isinstance(value, File)]
    assert sent == [File.of(f"{i}.png", "image/png", PNG + bytes([i])) for i in range(2)]


async def test_a_data_url_is_a_file(up: Upstream) -> None:
    url = "data:image/jpeg;base64," + base64.b64encode(PNG).decode()  # the bytes count, not what they are called
    sent = await up.sent(
        await up.client.post("/v1/videos", json={"prompt": "p", "input_reference": {"image_url": url}})
    )
    assert sent["input_reference"] == File.of("upload.png", "image/png", PNG)


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "", "application/vnd.x+json"]
)
async def test_json_of_older_sdks(up: Upstream, content_type: str) -> None:
    body = json.dumps({"prompt": "p", "model": "up/sora-2", "seconds": "8", "size": "720x1280", "user": None})
    headers = {"content-type": content_type} if content_type else {}
    sent = await up.sent(await up.client.post("/v1/videos", content=body, headers=headers))
    assert sent == {"prompt": "p", "model": "sora-2", "seconds": "8", "size": "720x1280"}


async def test_json_under_the_label_curl_gives_it(up: Upstream) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    sent = await up.sent(await up.client.post("/v1/videos", content=b' {"prompt": "p&q=r"}', headers=headers))
    assert sent == {"prompt": "p&q=r", "model": "sora-2"}


async def test_a_form(up: Upstream) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    body = "prompt=ein+Boot, größer%21&seconds=8&metadata[k]=v&style=noir".encode()
    sent = await up.sent(await up.client.post("/v1/videos", content=body, headers=headers))
    assert sent == {"prompt": "ein Boot, größer!", "model": "sora-2", "seconds": "8", "style": "noir"}


async def test_unknown_fields_reach_the_upstream_untouched(up: Upstream) -> None:
    extra = {"style": "noir", "camera": {"pan": [1, 2.5, {"deep": None}]}, "draft": False, "ids": [9007199254740993]}
    sent = await up.sent(await up.client.post("/v1/videos", json={"prompt": "p", **extra}))
    assert sent == {"prompt": "p", "model": "sora-2", **extra}


async def test_metadata_is_text_whatever_was_sent(gateway: Running) -> None:
    video = await gateway.create(metadata={"int": 12345678, "float": 0.1, "bool": True, "text": "x"})
    assert video["metadata"] == {"int": "12345678", "float": "0.1", "bool": "true", "text": "x"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"size": "1280x720"}, {"size": "1280x720"}),
        ({"size": "16:9"}, {"aspect_ratio": "16:9"}),
        ({"size": "16:9", "resolution": "720p"}, {"size": "1280x720"}),
        ({"aspect_ratio": "9:16", "resolution": "1080P"}, {"size": "1080x1920"}),
        ({"aspect_ratio": "32:18"}, {"aspect_ratio": "16:9"}),
        ({"resolution": "4k"}, {"resolution": "2160p"}),
        ({"size": "1280x720", "aspect_ratio": "16:9", "resolution": "720p"}, {"size": "1280x720"}),
        ({"duration": 6}, {"seconds": "6"}),
        ({"duration": "6", "seconds": 6}, {"seconds": "6"}),
        ({"seconds": 2.5}, {"seconds": "2.5"}),
    ],
)
async def test_sizes_and_lengths(up: Upstream, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    sent = await up.sent(await up.client.post("/v1/videos", json={"prompt": "p", **fields}))
    assert sent == {"prompt": "p", "model": "sora-2", **expected}


# Bodies that do not


@pytest.mark.parametrize(
    ("content", "headers", "status", "code", "said"),
    [
        (b"", JSON, 400, "invalid_json", "it is empty"),
        (b"", {}, 400, "invalid_json", "it is empty"),
        (b'{"prompt": "p"', JSON, 400, "invalid_json", "line 1 column 15"),
        (b'{"prompt": "p", "seed": NaN}', JSON, 400, "invalid_json", "not valid JSON"),
        (b'{"prompt": "p", "seed": Infinity}', JSON, 400, "invalid_json", "not valid JSON"),
        (b'{"prompt": "p", "x": 1e999}', JSON, 400, "invalid_request", "x is not a finite number"),
        (b'{"prompt": "p", "x": %s}' % (b"9" * 30), JSON, 400, "invalid_request", "x is too large a number"),
        (b'{"prompt": "p", "x": %s}' % (b"9" * 5_000), JSON, 400, "invalid_json", "not valid JSON"),
        (b'{"prompt": "p\\u0000"}', JSON, 400, "invalid_request", "prompt contains a character that is not text"),
        (b'{"prompt": "p", "a\\u0000": 1}', JSON, 400, "invalid_request", "a field name contains"),
        (b'{"prompt": "p", "x": {"\\ud800": 1}}', JSON, 400, "invalid_request", "x contains a character"),
        (b'{"prompt": "\\udfff"}', JSON, 400, "invalid_request", "prompt contains a character"),
        (b'{"prompt": "\xff"}', JSON, 400, "invalid_json", "not valid JSON"),
        (b'{"prompt": "p", "x": ' + b"[" * 40 + b"]" * 40 + b"}", JSON, 400, "invalid_request", "nested too deeply"),
        (b"[" * 200_000, JSON, 400, "invalid_json", "not valid JSON"),
        (b'["prompt"]', JSON, 400, "invalid_json", "must be a JSON object"),
        (b'"prompt"', JSON, 400, "invalid_json", "must be a JSON object"),
        (b"null", JSON, 400, "invalid_json", "must be a JSON object"),
        (form(part("prompt", "p")), JSON, 400, "invalid_json", "it looks like multipart"),
        (b'{"prompt": "p"}', MULTIPART, 400, "invalid_request", "cannot be read"),
        (b"", MULTIPART, 400, "invalid_request", "stops before its closing boundary"),
        (form(part("prompt", "p"), end=False), MULTIPART, 400, "invalid_request", "stops before"),
        (form(part("prompt", "p"))[:-9], MULTIPART, 400, "invalid_request", "stops before"),
        (form(part("prompt", "p")), {"content-type": "multipart/form-data"}, 400, "invalid_request", "boundary"),
        (form(part("prompt", "p")), {"content-type": "multipart/form-data; boundary=other"}, 400, "invalid_request", "read"),
        (form(part("prompt", "p"), part("input_reference[0]", "82"), part("input_reference[1]", "65")), MULTIPART, 400, "invalid_request", "wrap the buffer with toFile()"),
        (form(part("prompt", "p"), *[part(f"input_reference[{i}]", "82") for i in range(1_001)]), MULTIPART, 400, "invalid_request", "toFile()"),
        (form(part("prompt", "p"), part("a[", "b")), MULTIPART, 400, "invalid_request", "field name 'a['"),
        (form(part("prompt", "p"), part("a" + "[b]" * 40, "c")), MULTIPART, 400, "invalid_request", "nested too deeply"),
        (form(part("prompt", "p"), part("a", "b"), part("a[b]", "c")), MULTIPART, 400, "invalid_request", "in two shapes"),
        (form(part("prompt", "p"), part("style[x]", PNG, filename="a.png")), MULTIPART, 400, "invalid_request", "no file is expected"),
        (form(part("prompt", "p"), part("input_reference", b"", filename="a.png")), MULTIPART, 400, "invalid_request", "the file is empty"),
        (b"prompt=\xff", {"content-type": "application/x-www-form-urlencoded"}, 400, "invalid_request", "UTF-8"),
        (b"a=b&" * 1_001, {"content-type": "application/x-www-form-urlencoded"}, 400, "invalid_request", "1000 fields"),
        (b"prompt", {"content-type": "text/plain"}, 415, "unsupported_media_type", "'text/plain'"),
        (b"\x1f\x8b", {**JSON, "content-encoding": "gzip"}, 415, "unsupported_media_type", "'gzip'"),
        (b"p", {"content-type": "\xff/\xfe"}, 415, "unsupported_media_type", "is not understood"),
    ],
)  # fmt: skip
async def test_bodies_that_cannot_be_read(
    gateway: Running, content: bytes, headers: dict[str, str], status: int, code: str, said: str
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    error = error_of(await gateway.client.post("/v1/videos", content=content, headers=raw), status)
    assert (error["code"], error["type"]) == (code, "invalid_request_error")
    assert said in error["message"]
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []


@pytest.mark.parametrize(
    ("fields", "status", "param", "code", "said"),
    [
        ({"prompt": None}, 400, "prompt", "missing_parameter", "prompt is required"),
        ({"prompt": ""}, 400, "prompt", "invalid_value", "must not be blank"),
        ({"prompt": " \n\t"}, 400, "prompt", "invalid_value", "must not be blank"),
        ({"prompt": "x" * 40_000}, 400, "prompt", "invalid_value", "32000 characters"),
        ({"prompt": 5}, 400, "prompt", "invalid_value", "string"),
        ({"prompt": ["a", "b"]}, 400, "prompt", "invalid_value", "string"),
        ({"seconds": "abc"}, 400, "seconds", "invalid_value", "number"),
        ({"seconds": "-1"}, 400, "seconds", "invalid_value", "greater than 0"),
        ({"seconds": 0}, 400, "seconds", "invalid_value", "greater than 0"),
        ({"seconds": 1e9}, 400, "seconds", "invalid_value", "3600"),
        ({"seconds": "NaN"}, 400, "seconds", "invalid_value", "finite"),
        ({"seconds": True}, 400, "seconds", "invalid_value", "expected a number"),
        ({"seconds": 4, "duration": 5}, 400, None, "invalid_value", "contradict each other"),
        ({"size": "0x0"}, 400, "size", "invalid_value", "WIDTHxHEIGHT"),
        ({"size": "banana"}, 400, "size", "invalid_value", "'banana'"),
        ({"size": "9x9"}, 400, "size", "invalid_value", "between 16 and 8192"),
        ({"size": "99999x99999"}, 400, "size", "invalid_value", "between 16 and 8192"),
        ({"size": 720}, 400, "size", "invalid_value", "string"),
        ({"size": "1280x720", "aspect_ratio": "1:1"}, 400, "size", "invalid_value", "contradicts the aspect_ratio 1:1"),
        ({"size": "1280x720", "resolution": "1080p"}, 400, "size", "invalid_value", "contradicts the resolution"),
        ({"size": "16:9", "aspect_ratio": "9:16"}, 400, "size", "invalid_value", "contradicts the aspect_ratio"),
        ({"aspect_ratio": "0:9"}, 400, "aspect_ratio", "invalid_value", "'0:9'"),
        ({"resolution": "huge"}, 400, "resolution", "invalid_value", "'huge'"),
        ({"n": 0}, 400, "n", "invalid_value", "greater than or equal to 1"),
        ({"n": 5}, 400, "n", "invalid_value", "less than or equal to 4"),
        ({"seed": "x"}, 400, "seed", "invalid_value", "integer"),
        ({"generate_audio": "perhaps"}, 400, "generate_audio", "invalid_value", "boolean"),
        ({"metadata": "x"}, 400, "metadata", "invalid_value", "dictionary"),
        ({"metadata": {"a": {"b": 1}}}, 400, "metadata.a", "invalid_value", "string"),
        ({"media_retention": 1}, 400, "media_retention", "invalid_value", "60"),
        ({"input_reference": "a.png"}, 400, "input_reference", "invalid_request", "expected a file"),
        ({"input_reference": {"file_id": "file_1"}}, 400, "input_reference", "invalid_request", "no files of its own"),
        ({"input_reference": {}}, 400, "input_reference", "invalid_request", "exactly one of"),
        ({"input_reference": "data:image/png,x"}, 400, "input_reference", "invalid_request", "base64"),
        ({"input_reference": "data:;base64,$"}, 400, "input_reference", "invalid_request", "not valid base 64"),
        ({"input_reference": "data:;base64,"}, 400, "input_reference", "invalid_request", "the file is empty"),
        ({"characters": [{"id": "x"}]}, 400, "characters", "invalid_request", "char_"),
        ({"webhook_url": "https://a.example"}, 400, "webhook_url", "unsupported_parameter", "not supported"),
        ({"model": ""}, 400, "model", "invalid_value", "at least 1 character"),
        ({"model": "sandbox/tescard"}, 404, "model", "model_not_found", "sandbox/testcard"),
        ({"model": "../../etc"}, 404, "model", "model_not_found", "does not exist"),
        ({"idempotency_key": "x" * 257}, 400, "idempotency_key", "invalid_request", "256"),
        ({"idempotency_key": 5}, 400, "idempotency_key", "invalid_request", "256"),
    ],
)  # fmt: skip
async def test_parameters_that_make_no_sense(
    gateway: Running, fields: dict[str, Any], status: int, param: str | None, code: str, said: str
) -> None:
    body = {name: value for name, value in {"prompt": "p", **fields}.items() if value is not None}
    error = error_of(await gateway.client.post("/v1/videos", json=body), status)
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")
    assert said in error["message"]
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []


async def test_a_request_that_names_no_model_and_there_is_no_default(start_gateway: StartGateway) -> None:
    up = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": KEY}
    async with start_gateway(providers={"up": up}) as gateway:
        error = error_of(await gateway.client.post("/v1/videos", json={"prompt": "p"}), 400)
        assert error["param"] == "model"


async def test_a_dry_run_creates_nothing(gateway: Running) -> None:
    error = error_of(await gateway.client.post("/v1/videos?dryRun=true", json={"prompt": "p"}), 400)
    assert (error["param"], error["code"]) == ("dryRun", "unsupported_parameter")
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []


# Too much, too little, and cut off


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_large(start_gateway: StartGateway, declared: bool) -> None:
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
async def test_a_hundred_megabytes_over_a_real_socket(gateway: Running, connection: str, declared: bool) -> None:
    """The sender reads the refusal, although it was still sending when that was written."""
    size, piece = 100 * 2**20, bytes(2**20)

    async def content() -> AsyncIterator[bytes]:
        for _ in range(size // len(piece)):
            yield piece

    headers = {**MULTIPART, "authorization": f"Bearer {ALICE}", "connection": connection}
    if declared:
        headers["content-length"] = str(size)
    async with serve(gateway.app) as url, httpx.AsyncClient(timeout=20) as client:
        first = form(part("prompt", "p"), part("input_reference", b"x", filename="a.png"), end=False)
        assert len(first) < len(piece)
        error_of(await client.post(f"{url}/v1/videos", content=content(), headers=headers), 413 if declared else 400)
        assert (await client.get(f"{url}/v1/videos", headers={"authorization": f"Bearer {ALICE}"})).json()["data"] == []


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
async def test_a_large_upload_with_a_wrong_key_is_told_so(gateway: Running, connection: str) -> None:
    headers = {**MULTIPART, "authorization": "Bearer sk-nobody", "connection": connection}
    async with serve(gateway.app) as url, httpx.AsyncClient(timeout=20) as client:
        error_of(await client.post(f"{url}/v1/videos", content=bytes(30 * 2**20), headers=headers), 401)


async def test_a_connection_that_is_cut_half_way(gateway: Running) -> None:
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
