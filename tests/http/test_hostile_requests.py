"""Requests made to break the gateway: misleading fields, charsets and sizes are refused with one sentence."""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from contract.dialect_cases import CASES
from dialects.case import DialectCase
from fakes.openai import FakeOpenAI
from fakes.server import serve
from harness import Running
from refusals import refused, refused_create

from app.http.server import HttpProtocol

pytestmark = pytest.mark.anyio


BOUNDARY = "multipart/form-data; boundary=x"
FORM = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na boat\r\n--x--\r\n'
UNKNOWN_ID = "video_" + "0" * 26


# Fields that are not what they seem


@pytest.mark.parametrize("seconds", ["long", {"a": 1}, [4], -1, 0, True, 1e9, "Infinity"])
async def test_an_edit_of_no_length_is_refused(gateway: Running, seconds: Any) -> None:
    body = {"prompt": "a boat", "video": {"id": UNKNOWN_ID}, "seconds": seconds}
    content = json.dumps(body)
    said = await gateway.client.post("/v1/videos/edits", content=content, headers={"content-type": "application/json"})
    refused(said, "seconds")


async def test_an_edit_has_the_length_of_its_source(up: Running, fake: FakeOpenAI) -> None:
    source = await up.create(model="up/sora-2", seconds="8")
    assert (await up.finish(source["id"]))["status"] == "completed"
    edit = await up.client.post("/v1/videos/edits", json={"prompt": "at night", "video": {"id": source["id"]}})
    assert (edit.status_code, edit.json()["seconds"]) == (202, "8")


PRICED = {"size": "1920x1080", "n": 4, "duration": 60, "resolution": "1080p", "aspect_ratio": "16:9"}


@pytest.mark.parametrize("name", [*PRICED, "characters", "first_frame", "input_reference"])
@pytest.mark.parametrize("operation", ["edits", "extensions", f"{UNKNOWN_ID}/remix"])
async def test_fields_that_change_the_price_are_refused_where_the_source_decides(
    gateway: Running, operation: str, name: str
) -> None:
    body = {"prompt": "a boat", name: PRICED.get(name, "x")}
    if "remix" not in operation:
        body |= {"video": {"id": UNKNOWN_ID}}
    if operation == "extensions":
        body |= {"seconds": 4}
    assert name in refused(await gateway.client.post(f"/v1/videos/{operation}", json=body), name)


@pytest.mark.parametrize("name", ["model", "seconds"])
async def test_a_remix_is_of_the_length_and_model_of_its_source(gateway: Running, name: str) -> None:
    body = {"prompt": "a boat", name: "4"}
    refused(await gateway.client.post(f"/v1/videos/{UNKNOWN_ID}/remix", json=body), name)


OF_THE_CORE = ["operation", "source", "app", "retention_s", "webhook", "extra"]
CREATES = {
    "/v1/videos": [*OF_THE_CORE, "first_frame"],
    "/v1/video/generations": [*OF_THE_CORE, "seconds", "n", "media_retention"],
    "/v1/videos/generations": [*OF_THE_CORE, "seconds", "size", "media_retention"],
    "/luma/generations": [*OF_THE_CORE, "seconds", "prompt", "webhook_url"],
    "/v2/generate/video/luma-ai/generation": [*OF_THE_CORE, "seconds", "size", "webhook_secret"],
}


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in CREATES.items() for name in names])
async def test_names_of_the_core_are_not_passed_on_as_fields_of_a_vendor(up: Running, path: str, name: str) -> None:
    body = {"prompt": "a boat", "user_prompt": "a boat", "model": "up/sora-2", name: "x"}
    if "luma/" not in path:
        del body["user_prompt"]
    elif name != "prompt":
        del body["prompt"]
    response = await up.client.post(path, json=body)
    assert (response.status_code, f"{name} is not a field of this call" in response.text) == (400, True), response.text
    assert (await up.client.get("/v1/videos")).json()["data"] == []


# Charsets


@pytest.mark.parametrize("charset", ["punycode", "unicode_escape", "utf-16", "idna", "rot13", '"utf-7"', "no-such"])
@pytest.mark.parametrize("kind", [BOUNDARY, "application/x-www-form-urlencoded"])
async def test_an_unknown_charset_is_refused(gateway: Running, kind: str, charset: str) -> None:
    headers = {"content-type": f"{kind}; charset={charset}"}
    refused(await gateway.client.post("/v1/videos", content=FORM, headers=headers), None, 415)


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf8"', "us-ascii"])
async def test_a_known_charset_is_read(gateway: Running, charset: str) -> None:
    headers = {"content-type": f"{BOUNDARY}; charset={charset}"}
    assert (await gateway.client.post("/v1/videos", content=FORM, headers=headers)).status_code == 202
    headers = {"content-type": f"application/x-www-form-urlencoded; charset={charset}"}
    assert (await gateway.client.post("/v1/videos", content=b"prompt=boat", headers=headers)).status_code == 202


# Too much of something


@pytest.mark.parametrize(
    "metadata", [{str(n): "x" for n in range(65)}, {"k" * 65: "x"}, {"k": "x" * 2_001}], ids=["keys", "key", "value"]
)
async def test_too_much_metadata_is_refused(gateway: Running, metadata: dict[str, str]) -> None:
    answer = await gateway.client.post("/v1/videos", json={"prompt": "a boat", "metadata": metadata})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("metadata")


async def test_a_user_that_is_too_long_and_too_many_extra_fields_are_refused(gateway: Running) -> None:
    await refused_create(gateway, "user", user="u" * 1_001)
    await refused_create(gateway, "style", style="x" * 65_536, mood="dark")


async def test_the_maximum_of_each_field_is_accepted(up: Running) -> None:
    metadata = {f"{n:064}": "x" * 2_000 for n in range(64)}
    video = await up.create(model="up/sora-2", metadata=metadata, user="u" * 1_000, style="x" * 65_000)
    assert video["metadata"] == metadata
    await up.create(model="up/sora-2", prompt="," * 32_000)


@pytest.mark.parametrize("node", [b"0", b"[]", b"{}"])
async def test_json_of_a_million_nodes_is_refused(gateway: Running, node: bytes) -> None:
    body = b'{"prompt": "a boat", "style": [' + node + (b"," + node) * 200_000 + b"]}"
    headers = {"content-type": "application/json"}
    refused(await gateway.client.post("/v1/videos", content=body, headers=headers), None)
    refused(
        await gateway.client.post(
            "/v1/videos", content=body, headers={"content-type": "application/x-www-form-urlencoded"}
        ),
        None,
    )


async def test_a_form_of_a_million_escapes_is_refused(gateway: Running) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    body = b"prompt=" + b"%41" * 1_000_000
    for content, said in ((body, "prompt"), (body + b"%41", None)):
        message = refused(await gateway.client.post("/v1/videos", content=content, headers=headers), said)
    assert "send it as multipart/form-data or as JSON" in message


async def test_too_many_media_are_refused(up: Running) -> None:
    pictures = [f"https://example.com/{n}.png" for n in range(21)]
    await refused_create(up, "reference_images", model="up/sora-2", reference_images=pictures)
    await refused_create(
        up, "reference_images", model="up/sora-2", input_reference=pictures[:10], reference_images=pictures[:11]
    )
    body = {"model": "up/sora-2", "prompt": "a boat", "reference_image_urls": pictures}
    refused(await up.client.post("/v1/videos/generations", json=body), "reference_image_urls")
    await up.create(model="up/sora-2", reference_images=pictures[:20])


# Addresses


@pytest.mark.parametrize(("version", "hosts", "status"), [("1.1", 0, 400), ("1.1", 2, 400), ("1.0", 0, 401)])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_request_has_one_host_header(
    gateway: Running, case: DialectCase, version: str, hosts: int, status: int
) -> None:
    head = f"POST {case.create} HTTP/{version}\r\n" + "Host: gateway.test\r\n" * hosts
    async with serve(gateway.app, http=HttpProtocol) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(f"{head}content-length: 0\r\nconnection: close\r\n\r\n".encode())
        answer, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    assert int(answer.split()[1]) == status
    said = case.message_of(json.loads(body))
    assert ("exactly one Host header" in said) == (status == 400), said


# Names and requests of any length


LONG = "x" * 301


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/v1/videos", {"model": LONG}, "model"),
        ("/v1/videos", {"size": LONG}, "size"),
        ("/v1/videos", {"characters": [{"id": LONG}]}, "characters"),
        ("/v1/videos", {"characters": [{LONG: "x"}]}, "characters"),
        ("/v1/videos/edits", {"model": LONG, "video": {"id": UNKNOWN_ID}}, "model"),
        ("/v1/videos/extensions", {"model": LONG, "video": {"id": UNKNOWN_ID}, "seconds": 4}, "model"),
        ("/v1/videos/characters", {"model": LONG, "name": "Ann", "video": "https://a.example/v.mp4"}, "model"),
        ("/v1/videos/characters", {"name": LONG, "video": "https://a.example/v.mp4"}, "name"),
        ("/v1/videos/generations", {"model": LONG}, "model"),
        ("/v1/videos/generations", {"model": "m", "resolution": LONG}, "resolution"),
        ("/v1/webhook_endpoints", {"name": LONG, "url": "https://a.example", "event_types": []}, "name"),
    ],
)
async def test_a_name_has_a_length(gateway: Running, path: str, body: dict[str, Any], named: str) -> None:
    response = await gateway.client.post(path, json={"prompt": "a boat", **body})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].startswith(named)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/video/generations", {"prompt": "a boat", "model": LONG}),
        ("/luma/generations", {"user_prompt": "a boat", "model_name": LONG}),
        ("/luma/tasks", {"ids": [LONG]}),
        ("/v2/generate/video/luma-ai/generation", {"prompt": "a boat", "model": LONG}),
    ],
)
async def test_a_name_has_a_length_in_other_dialects(gateway: Running, path: str, body: dict[str, Any]) -> None:
    response = await gateway.client.post(path, json=body)
    assert (response.status_code, "at most 300 characters" in response.text) == (400, True)


async def test_a_model_in_an_address_has_a_length(up: Running) -> None:
    assert "at most 300 characters" in refused(await up.client.get(f"/v1/models/up/{LONG}"), "model", 404)


async def test_a_request_as_a_whole_has_a_length(up: Running) -> None:
    """Each field is within its limit."""
    body: dict[str, Any] = {
        "model": "up/sora-2",
        "prompt": "é" * 32_000,
        "metadata": {f"{n:064}": "x" * 2_000 for n in range(64)},
        "style": "x" * 65_000,
    }
    await up.create(**body)
    for path, more in (("/v1/videos", {}), ("/v1/videos/generations", {"metadata": None})):
        pictures = [f"https://example.com/{n}?{'x' * 8_000}" for n in range(20)]
        fields = {name: value for name, value in {**body, "reference_images": pictures, **more}.items() if value}
        response = await up.client.post(path, json=fields)
        assert "more than 256 KiB as JSON" in refused(response, None), path
        assert response.json()["error"]["code"] == "request_too_large"
    assert len((await up.client.get("/v1/videos")).json()["data"]) == 1
