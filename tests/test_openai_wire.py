"""The OpenAI dialect byte by byte: what the SDKs of all ages were recorded to send, and what nobody should."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fakes.openai import FakeOpenAI
from fakes.server import KEY, File, serve
from harness import ALICE, ORIGIN, Running, StartGateway

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
BOUNDARY = "----formdata-undici-012345678901"
MULTIPART = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
JSON = {"content-type": "application/json"}
URL_ENCODED = {"content-type": "application/x-www-form-urlencoded"}
BAD, BAD_JSON = "invalid_request", "invalid_json"


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


def exploded(count: int) -> list[bytes]:
    """The parts that Node makes of a bare Buffer."""
    return [part(f"input_reference[{index}]", "82") for index in range(count)]


PROMPT = part("prompt", "p")


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
        "provider": "sandbox",
        "cost_estimate": 0.0,
        "cost": None,
        "cost_currency": "USD",
    }
    assert response.headers["x-gateway-provider"] == "sandbox"
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
    sent = await up.sent(await up.client.post("/v1/videos", content=b' {"prompt": "p&q=r"}', headers=URL_ENCODED))
    assert sent == {"prompt": "p&q=r", "model": "sora-2"}


async def test_a_form(up: Upstream) -> None:
    body = "prompt=ein+Boot, größer%21&seconds=8&metadata[k]=v&style=noir".encode()
    sent = await up.sent(await up.client.post("/v1/videos", content=body, headers=URL_ENCODED))
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
        (b"", JSON, 400, BAD_JSON, "it is empty"),
        (b"", {}, 400, BAD_JSON, "it is empty"),
        (b'{"prompt": "p"', JSON, 400, BAD_JSON, "line 1 column 15"),
        (b'{"prompt": "p", "seed": NaN}', JSON, 400, BAD_JSON, "not valid JSON"),
        (b'{"prompt": "p", "seed": Infinity}', JSON, 400, BAD_JSON, "not valid JSON"),
        (b'{"prompt": "p", "x": 1e999}', JSON, 400, BAD, "x is not a finite number"),
        (b'{"prompt": "p", "x": %s}' % (b"9" * 30), JSON, 400, BAD, "x is too large a number"),
        (b'{"prompt": "p", "x": %s}' % (b"9" * 5_000), JSON, 400, BAD_JSON, "not valid JSON"),
        (b'{"prompt": "p\\u0000"}', JSON, 400, BAD, "prompt contains a character that is not text"),
        (b'{"prompt": "p", "a\\u0000": 1}', JSON, 400, BAD, "a field name contains"),
        (b'{"prompt": "p", "x": {"\\ud800": 1}}', JSON, 400, BAD, "x contains a character"),
        (b'{"prompt": "\\udfff"}', JSON, 400, BAD, "prompt contains a character"),
        (b'{"prompt": "\xff"}', JSON, 400, BAD_JSON, "not valid JSON"),
        (b'{"prompt": "p", "x": ' + b"[" * 40 + b"]" * 40 + b"}", JSON, 400, BAD, "nested too deeply"),
        (b"[" * 200_000, JSON, 400, BAD_JSON, "not valid JSON"),
        (b'["prompt"]', JSON, 400, BAD_JSON, "must be a JSON object"),
        (b'"prompt"', JSON, 400, BAD_JSON, "must be a JSON object"),
        (b"null", JSON, 400, BAD_JSON, "must be a JSON object"),
        (form(PROMPT), JSON, 400, BAD_JSON, "it looks like multipart"),
        (b'{"prompt": "p"}', MULTIPART, 400, BAD, "cannot be read"),
        (b"", MULTIPART, 400, BAD, "stops before its closing boundary"),
        (form(PROMPT, end=False), MULTIPART, 400, BAD, "stops before"),
        (form(PROMPT)[:-9], MULTIPART, 400, BAD, "stops before"),
        (form(PROMPT), {"content-type": "multipart/form-data"}, 400, BAD, "boundary"),
        (form(PROMPT), {"content-type": "multipart/form-data; boundary=other"}, 400, BAD, "read"),
        (form(PROMPT, *exploded(2)), MULTIPART, 400, BAD, "wrap the buffer with toFile()"),
        (form(PROMPT, *exploded(1_001)), MULTIPART, 400, BAD, "toFile()"),
        (form(PROMPT, part("a[", "b")), MULTIPART, 400, BAD, "field name 'a['"),
        (form(PROMPT, part("a" + "[b]" * 40, "c")), MULTIPART, 400, BAD, "nested too deeply"),
        (form(PROMPT, part("a", "b"), part("a[b]", "c")), MULTIPART, 400, BAD, "in two shapes"),
        (form(PROMPT, part("style[x]", PNG, filename="a.png")), MULTIPART, 400, BAD, "no file is expected"),
        (form(PROMPT, part("input_reference", b"", filename="a.png")), MULTIPART, 400, BAD, "the file is empty"),
        (b"prompt=\xff", URL_ENCODED, 400, BAD, "UTF-8"),
        (b"a=b&" * 1_001, URL_ENCODED, 400, BAD, "1000 fields"),
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
        ({"seconds": "NaN"}, 400, "seconds", "invalid_value", "a finite number"),
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
        ({"webhook_url": "ftp://a.example"}, 400, "webhook_url", "invalid_value", "expected an http:// or https://"),
        ({"webhook_secret": "x"}, 400, "webhook_url", "invalid_request", "only of use with webhook_url"),
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
    answer = await gateway.client.post("/v1/videos?dryRun=true", json={"prompt": "p", "seconds": 8, "n": 2})
    assert answer.status_code == 200
    assert answer.json() == {
        "estimated": True,
        "model": "sandbox/testcard",
        "provider": "sandbox",
        "total_cost_micros": 0,
        "currency": "USD",
        "components": [
            {
                "type": "output",
                "metric": "second",
                "quantity": 16.0,
                "billable_quantity": 16.0,
                "unit_price": 0.0,
                "total_cost": 0,
            }
        ],
    }
    error_of(await gateway.client.post("/v1/videos?dryRun=true", json={"prompt": "p", "seconds": 0}), 400)
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []


@pytest.mark.parametrize("word", ["yes", "", "2", "null"])
async def test_a_dry_run_that_is_neither(gateway: Running, word: str) -> None:
    error = error_of(await gateway.client.post(f"/v1/videos?dryRun={word}", json={"prompt": "p"}), 400)
    assert error["param"] == "dryRun"
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []
    assert (await gateway.client.post("/v1/videos?dryRun=False", json={"prompt": "p"})).status_code == 202


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


# The same request twice


async def test_an_idempotency_key_in_header_or_body(gateway: Running) -> None:
    body = {"prompt": "p", "seconds": 8, "loop": True, "metadata": {"k": "v"}}
    header = {"idempotency-key": "order-17"}
    first = await gateway.client.post("/v1/videos", json=body, headers=header)
    assert first.status_code == 202
    assert "idempotent-replayed" not in first.headers
    parts = form(part("prompt", "p"), part("seconds", "8"), part("loop", "true"), part("metadata[k]", "v"))
    for again in (
        await gateway.client.post("/v1/videos", json=body, headers=header),
        await gateway.client.post("/v1/videos", json={**body, "idempotency_key": "order-17"}),
        await gateway.client.post("/v1/videos", content=parts, headers={**MULTIPART, **header}),
    ):
        assert again.status_code == 200
        assert again.headers["idempotent-replayed"] == "true"
        assert again.json() == first.json()
    other = await gateway.client.post("/v1/videos", json={**body, "prompt": "q"}, headers=header)
    error = error_of(other, 409)
    assert (error["code"], error["param"]) == ("idempotency_key_reused", "idempotency_key")
    assert other.headers["x-should-retry"] == "false"
    assert (await gateway.bob.post("/v1/videos", json=body, headers=header)).status_code == 202
    assert len((await gateway.client.get("/v1/videos")).json()["data"]) == 1


async def test_an_idempotency_key_counts_files_by_their_bytes(gateway: Running) -> None:
    async def send(content: bytes) -> httpx.Response:
        body = form(part("prompt", "p"), part("input_reference", content, filename="a.png"))
        return await gateway.client.post("/v1/videos", content=body, headers={**MULTIPART, "idempotency-key": "k"})

    large = PNG + bytes(3 * 2**20)
    first, again, other = await send(large), await send(large), await send(large + b"x")
    assert (first.status_code, again.status_code, other.status_code) == (202, 200, 409)
    uploads = gateway.gateway.settings.data_dir / "media" / "uploads"
    assert [path.name for path in uploads.iterdir() if any(path.iterdir())] == [first.json()["id"]]


async def test_two_creates_at_once_with_one_key_make_one_job(gateway: Running) -> None:
    def send() -> Any:
        return gateway.client.post("/v1/videos", json={"prompt": "p"}, headers={"idempotency-key": "k"})

    answers = await asyncio.gather(*[send() for _ in range(8)])
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_a_remix_and_an_edit_take_an_idempotency_key(up: Upstream) -> None:
    source = await up.completed()
    header = {"idempotency-key": "k"}
    remix = f"/v1/videos/{source['id']}/remix"
    first = await up.client.post(remix, json={"prompt": "p"}, headers=header)
    again = await up.client.post(remix, json={"prompt": "p"}, headers=header)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"
    edit = {"prompt": "p", "video": {"id": source["id"]}}
    error_of(await up.client.post("/v1/videos/edits", json=edit, headers=header), 409)
    header = {"idempotency-key": "k2"}
    made = [await up.client.post("/v1/videos/edits", json=edit, headers=header) for _ in range(2)]
    assert [answer.status_code for answer in made] == [202, 200]
    assert made[1].headers["idempotent-replayed"] == "true"


async def test_what_is_made_from_a_video_goes_by_its_models_name(start_gateway: StartGateway) -> None:
    models = {"boats": {"routes": ["sandbox/testcard"]}}
    async with start_gateway(models=models, providers={"sandbox": {"testcard_s": 0}}) as gateway:
        source = await gateway.finish((await gateway.create(model="boats", seconds=1, size="64x64"))["id"])
        body = {"prompt": "p", "video": {"id": source["id"]}}
        edit = (await gateway.client.post("/v1/videos/edits", json=body)).json()
        named = (await gateway.client.post("/v1/videos/edits", json={**body, "model": "sandbox/testcard"})).json()
        remix = (await gateway.client.post(f"/v1/videos/{source['id']}/remix", json=body)).json()
        assert [video["model"] for video in (edit, named, remix)] == ["boats", "sandbox/testcard", "boats"]
        assert {video["remixed_from_video_id"] for video in (edit, named, remix)} == {source["id"]}


@pytest.mark.parametrize("path", ["edits", "extensions"])
async def test_edits_and_extensions_want_a_video(gateway: Running, path: str) -> None:
    body = {"prompt": "p", **({"seconds": "4"} if path == "extensions" else {})}
    error = error_of(await gateway.client.post(f"/v1/videos/{path}", json=body), 400)
    assert (error["param"], error["code"]) == ("video", "missing_parameter")
    wrong: list[Any] = ["x", {}, [], 5]
    for video in wrong:
        error = error_of(await gateway.client.post(f"/v1/videos/{path}", json={**body, "video": video}), 400)
        assert error["param"] == "video"
    error_of(await gateway.client.post(f"/v1/videos/{path}", json={**body, "video": {"id": "video_x"}}), 404)


# Errors that no route of ours raises


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_url"),
        ("GET", "/v1", 404, "unknown_url"),
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("POST", "/openai/v1/chat/completions", 404, "unknown_url"),
        ("GET", "/v1/videos/a/b/c", 404, "unknown_url"),
        ("PUT", "/v1/videos", 405, "method_not_allowed"),
        ("PATCH", "/v1/videos/video_x", 405, "method_not_allowed"),
        ("POST", "/v1/videos/video_x/content", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ],
)
async def test_addresses_and_methods_that_are_not_there(
    gateway: Running, method: str, path: str, status: int, code: str
) -> None:
    response = await gateway.client.request(method, path)
    error = error_of(response, status)
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/videos", "GET, POST"),
        ("/openai/v1/videos/video_x", "GET, DELETE"),
        ("/v1/videos/video_x/content", "GET, HEAD"),
        ("/v1/webhook_endpoints/whe_x", "GET, POST, DELETE"),
        ("/admin/v1/projects/proj_x", "GET, PATCH"),
        ("/healthz", "GET"),
    ],
)
async def test_all_methods_of_an_address_are_named(gateway: Running, path: str, allowed: str) -> None:
    response = await gateway.client.put(path)
    assert response.headers["allow"] == allowed
    assert error_of(response, 405)["message"].endswith(f"allowed: {allowed}")


async def test_head(gateway: Running) -> None:
    for path, status in (("/v1/nothing", 404), ("/v1/videos", 405), ("/v1/videos/video_x/content", 404)):
        response = await gateway.client.head(path)
        assert (response.status_code, response.content) == (status, b"")
        assert response.headers["x-request-id"].startswith("req_")


async def test_the_host_header_is_the_callers_own_affair(gateway: Running) -> None:
    for host in ("a b", "[::1", "x:y", ""):
        response = await gateway.client.get("/v1/videos", headers={"host": host})
        assert response.status_code == 200


async def test_the_description_of_the_api_can_be_read(gateway: Running) -> None:
    document = (await gateway.client.get("/openapi.json")).json()
    assert "multipart/form-data" in document["paths"]["/v1/videos"]["post"]["requestBody"]["content"]


@pytest.mark.parametrize(
    "path",
    [
        "%00",
        "video_%00",
        "..%2F..%2Fetc",
        "a%2Fb",
        "x" * 10_000,
        "video_" + "0" * 26,
        "%FF",
        "%F0%9F%98%80",
        "*",
        "'--",
    ],
)
async def test_ids_nobody_has(gateway: Running, path: str) -> None:
    for method, tail in (("GET", ""), ("DELETE", ""), ("GET", "/content"), ("POST", "/remix")):
        body = {"prompt": "p"} if method == "POST" else None
        error = error_of(await gateway.client.request(method, f"/v1/videos/{path}{tail}", json=body), 404)
        assert len(error["message"]) < 200
    error_of(await gateway.client.get(f"/v1/videos/characters/{path}"), 404)
    error_of(await gateway.client.get(f"/v1/models/{path}"), 404)
    error_of(await gateway.client.get(f"/media/{path}/0.mp4"), 404)


# The list


async def test_pages(gateway: Running) -> None:
    made = [(await gateway.create(model="sandbox/slow"))["id"] for _ in range(5)]
    await gateway.client.delete(f"/v1/videos/{made[0]}")  # cancelled, so still there
    theirs = (await gateway.bob.post("/v1/videos", json={"prompt": "b"})).json()["id"]

    async def page(query: str = "") -> tuple[list[str], Any, Any, bool]:
        response = await gateway.client.get(f"/v1/videos{query}")
        assert response.status_code == 200, response.text
        body = response.json()
        assert list(body) == ["object", "data", "first_id", "last_id", "has_more"]
        assert body["object"] == "list"
        assert response.headers["cache-control"] == "no-store"
        return [video["id"] for video in body["data"]], body["first_id"], body["last_id"], body["has_more"]

    newest = made[::-1]
    assert await page() == (newest, newest[0], newest[-1], False)
    assert await page("?limit=2") == (newest[:2], newest[0], newest[1], True)
    assert await page(f"?limit=2&after={newest[1]}") == (newest[2:4], newest[2], newest[3], True)
    assert await page(f"?limit=2&after={newest[3]}") == (newest[4:], newest[4], newest[4], False)
    assert await page("?limit=5") == (newest, newest[0], newest[-1], False)
    assert await page(f"?order=asc&limit=4&after={made[0]}") == (made[1:], made[1], made[4], False)
    assert await page(f"?after={newest[-1]}") == ([], None, None, False)
    assert await page("?limit=0") == ([], None, None, True)
    assert await page("?after=nothing%00here&limit=100") == (newest, newest[0], newest[-1], False)
    assert await page(f"?after={theirs}") == (newest, newest[0], newest[-1], False)
    got = (await gateway.bob.get("/openai/v1/videos")).json()["data"]
    assert [video["id"] for video in got] == [theirs]


@pytest.mark.parametrize("query", ["limit=-1", "limit=101", "limit=x", "limit=", "limit=1e999", "order=up", "order="])
async def test_bad_pages(gateway: Running, query: str) -> None:
    error = error_of(await gateway.client.get(f"/v1/videos?{query}"), 400)
    assert (error["param"], error["code"]) == (query.partition("=")[0], "invalid_value")


async def test_another_owners_video_is_not_there(up: Upstream) -> None:
    mine = await up.completed()
    bob = up.gateway.bob
    path = f"/v1/videos/{mine['id']}"
    by_id = {"prompt": "p", "video": {"id": mine["id"]}}
    missing = f"no video has the id {mine['id']!r}"
    for response in (
        await bob.get(path),
        await bob.delete(path),
        await bob.get(f"{path}/content"),
        await bob.get(f"{path}/content?variant=thumbnail"),
        await bob.post(f"{path}/remix", json={"prompt": "p"}),
        await bob.post("/v1/videos/edits", json=by_id),
        await bob.post("/v1/videos/extensions", json={**by_id, "seconds": "4"}),
    ):
        assert error_of(response, 404)["message"] == missing
    assert (await bob.head(f"{path}/content")).status_code == 404
    assert (await up.client.get(path)).status_code == 200


# Polling and the file


async def test_polling_is_told_when(gateway: Running) -> None:
    video = await gateway.create(model="sandbox/slow")
    running = await gateway.client.get(f"/v1/videos/{video['id']}")
    assert running.headers["openai-poll-after-ms"].isdigit()
    assert running.headers["cache-control"] == "no-store"
    await gateway.client.delete(f"/v1/videos/{video['id']}")
    ended = await gateway.client.get(f"/v1/videos/{video['id']}")
    assert "openai-poll-after-ms" not in ended.headers
    assert ended.headers["cache-control"] == "no-store"
    assert ended.json()["error"] == {"code": "cancelled", "message": "The video was cancelled on request."}


async def test_content_before_the_end_and_after_a_bad_one(gateway: Running) -> None:
    slow = await gateway.create(model="sandbox/slow")
    early = await gateway.client.get(f"/v1/videos/{slow['id']}/content")
    assert error_of(early, 409)["code"] == "video_not_ready"
    assert early.headers["x-should-retry"] == "false"
    failed = await gateway.finish((await gateway.create(model="sandbox/fail"))["id"])
    assert failed["status"] == "failed"
    error = error_of(await gateway.client.get(f"/v1/videos/{failed['id']}/content"), 404)
    assert error["code"] == "video_failed"
    source = {"prompt": "p", "video": {"id": failed["id"]}}
    assert error_of(await gateway.client.post("/v1/videos/edits", json=source), 400)["param"] == "video"


async def test_a_completed_video_and_its_file(up: Upstream) -> None:
    done = await up.completed(seconds="4")
    film = up.fake.file
    url = f"/v1/videos/{done['id']}/content"
    whole = await up.client.get(url)
    assert (whole.status_code, whole.content) == (200, film)
    headers = {
        "accept-ranges": "bytes",
        "content-type": "video/mp4",
        "content-length": str(len(film)),
        "cache-control": "private, max-age=3600",
        "content-disposition": f'inline; filename="{done["id"]}.mp4"',
        "x-content-type-options": "nosniff",
    }
    assert {name: whole.headers.get(name) for name in headers} == headers
    head = await up.client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert {name: head.headers.get(name) for name in headers} == headers
    assert head.headers["etag"] == whole.headers["etag"]
    assert done["output"] == {
        "url": done["output"]["url"],
        "content_type": "video/mp4",
        "size_bytes": len(film),
        "duration_seconds": 0.25,
        "width": 64,
        "height": 48,
    }
    assert error_of(await up.client.get(f"{url}?index=1"), 404)["param"] == "index"
    assert error_of(await up.client.get(f"{url}?index=x"), 400)["param"] == "index"
    assert error_of(await up.client.get(f"{url}?variant=poster"), 400)["param"] == "variant"


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, None),
        ("bytes=-100", -100, None),
        ("bytes=10-9999999", 10, None),
        ("bytes=-9999999", 0, None),
    ],
)
async def test_ranges(up: Upstream, wanted: str, start: int, stop: int | None) -> None:
    url = f"/v1/videos/{(await up.completed())['id']}/content"
    film = up.fake.file
    response = await up.client.get(url, headers={"range": wanted})
    expected = film[start:stop]
    first = start % len(film)
    assert (response.status_code, response.content) == (206, expected)
    assert response.headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/{len(film)}"
    assert response.headers["content-length"] == str(len(expected))


async def test_ranges_that_are_none(up: Upstream) -> None:
    url = f"/v1/videos/{(await up.completed())['id']}/content"
    size = len(up.fake.file)
    for wanted in ("bytes=0-1,5-6", "bytes=x", "lines=0-1", "bytes=5-2", "", "bytes=-"):
        response = await up.client.get(url, headers={"range": wanted})
        assert (response.status_code, len(response.content)) == (200, size), wanted
    for wanted in (f"bytes={size}-", "bytes=99999999-99999999", "bytes=-0"):
        response = await up.client.get(url, headers={"range": wanted})
        assert error_of(response, 416)["code"] == "range_not_satisfiable"
        assert response.headers["content-range"] == f"bytes */{size}"


async def test_conditional_requests(up: Upstream) -> None:
    url = f"/v1/videos/{(await up.completed())['id']}/content"
    tag = (await up.client.get(url)).headers["etag"]
    for known in (tag, f'"x", {tag}', f"W/{tag}", "*"):
        response = await up.client.get(url, headers={"if-none-match": known})
        assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", tag)
    assert (await up.client.get(url, headers={"if-none-match": '"x"'})).status_code == 200
    part_of = {"range": "bytes=0-9"}
    assert (await up.client.get(url, headers={**part_of, "if-range": tag})).status_code == 206
    assert (await up.client.get(url, headers={**part_of, "if-range": '"x"'})).status_code == 200


async def test_pictures_of_the_film(up: Upstream) -> None:
    url = f"/v1/videos/{(await up.completed())['id']}/content"
    tags = {(await up.client.get(url)).headers["etag"]}
    for variant, kind, suffix in (("thumbnail", "image/webp", "webp"), ("spritesheet", "image/jpeg", "jpg")):
        response = await up.client.get(f"{url}?variant={variant}")
        assert (response.status_code, response.headers["content-type"]) == (200, kind)
        assert response.headers["content-disposition"].endswith(f'.{suffix}"')
        assert (await up.client.head(f"{url}?variant={variant}")).headers["content-length"] == str(
            len(response.content)
        )
        tags.add(response.headers["etag"])
    assert len(tags) == 3


async def test_several_files_of_one_video(up: Upstream) -> None:
    done = await up.completed(n=2)
    assert [file["url"].partition("?")[0] for file in done["output"]["files"]] == [
        f"{ORIGIN}/media/{done['id']}/{index}.mp4" for index in range(2)
    ]
    for index in range(2):
        response = await up.client.get(f"/v1/videos/{done['id']}/content?index={index}")
        assert response.content == up.fake.file
        assert response.headers["content-disposition"] == f'inline; filename="{done["id"]}-{index}.mp4"'


async def test_a_file_that_is_lost_is_an_error_and_no_broken_answer(up: Upstream) -> None:
    done = await up.completed()
    for path in (up.gateway.gateway.settings.data_dir / "media" / "videos" / done["id"]).rglob("*"):
        if path.is_file():
            path.unlink()
    error = error_of(await up.client.get(f"/v1/videos/{done['id']}/content"), 404)
    assert error["code"] == "file_not_found"


async def test_an_expired_video(up: Upstream) -> None:
    done = await up.completed(media_retention=3_600)
    assert done["expires_at"] == done["completed_at"] + 3_600
    up.gateway.clock.advance(3_599)
    assert (await up.client.get(f"/v1/videos/{done['id']}/content")).status_code == 200
    up.gateway.clock.advance(1)
    for purged in (False, True):
        if purged:
            await up.gateway.worker.purge()
        error = error_of(await up.client.get(f"/v1/videos/{done['id']}/content"), 404)
        assert error["code"] == "video_expired"
        video = await up.gateway.get(done["id"])
        assert (video["status"], video["output"]) == ("completed", None)


async def test_a_deleted_video_is_gone(up: Upstream) -> None:
    done = await up.completed()
    link = done["output"]["url"]
    path = f"/v1/videos/{done['id']}"
    deleted = await up.client.delete(path)
    assert (deleted.status_code, deleted.json()) == (
        200,
        {"id": done["id"], "object": "video.deleted", "deleted": True},
    )
    for response in (await up.client.get(path), await up.client.get(f"{path}/content"), await up.client.delete(path)):
        error_of(response, 404)
    assert (await up.client.get(link)).status_code == 404
    assert (await up.client.get("/v1/videos")).json()["data"] == []


# Signed links


async def test_a_link_plays_without_a_key_until_it_expires(up: Upstream) -> None:
    done = await up.completed()
    link = done["output"]["url"]
    assert link.startswith(f"{ORIGIN}/media/{done['id']}/0.mp4?exp=")
    nobody = {"authorization": ""}
    played = await up.client.get(link, headers=nobody)
    assert (played.status_code, played.content) == (200, up.fake.file)
    assert (await up.client.head(link, headers=nobody)).status_code == 200
    ranged = await up.client.get(link, headers={**nobody, "range": "bytes=0-9"})
    assert (ranged.status_code, ranged.content) == (206, up.fake.file[:10])
    assert (await up.client.get(f"{link}&utm=1", headers=nobody)).status_code == 200
    up.gateway.clock.advance(up.gateway.gateway.settings.media_url_ttl_s)
    assert "expired" in error_of(await up.client.get(link, headers=nobody), 404)["message"]
    fresh = (await up.gateway.get(done["id"]))["output"]["url"]
    assert (await up.client.get(fresh, headers=nobody)).status_code == 200


async def test_links_that_are_not_ours(up: Upstream) -> None:
    done, other = await up.completed(n=2), await up.completed()
    link = done["output"]["files"][0]["url"]
    exp = int(link.partition("exp=")[2].partition("&")[0])
    for forged in (
        link.replace(f"exp={exp}", f"exp={exp + 1}"),
        link.replace(f"exp={exp}", f"exp=0{exp}"),
        link.replace(f"exp={exp}", "exp=" + "9" * 20),
        link[:-1] + ("A" if link[-1] != "A" else "B"),
        link + "A",
        link.partition("&sig")[0],
        link.partition("?")[0],
        link.replace("/0.mp4", "/1.mp4"),
        link.replace("/0.mp4", "/00.mp4"),
        link.replace("/0.mp4", "/7.mp4"),
        link.replace(done["id"], other["id"]),
        link.replace("sig=", "sig=%C3%A9"),
        link.replace("sig=", "sig=%00"),
    ):
        error_of(await up.client.get(forged), 404)


async def test_links_carry_the_public_address(start_gateway: StartGateway) -> None:
    settings = {"public_url": "https://video.example.com/", "providers": {"sandbox": {"testcard_s": 0}}}
    async with start_gateway(**settings) as gateway:
        done = await gateway.finish((await gateway.create(seconds=1, size="64x64"))["id"])
        assert done["output"]["url"].startswith(f"https://video.example.com/media/{done['id']}/0.mp4?exp=")
