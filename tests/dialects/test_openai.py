"""The OpenAI dialect: accepted bodies, as the SDKs of all versions were recorded to send them."""

import base64
import json
from typing import Any

import pytest
from dialects.case import PICTURE_URL, DialectCase, Inputs, has_picture, openai_message
from dialects.openai_wire import MULTIPART, PNG, URL_ENCODED, Upstream, form, in_chunks, part
from fakes.server import File
from harness import Running

pytestmark = pytest.mark.anyio

INPUTS = Inputs(
    prompt="prompt",
    structured=("input_reference", {"image_url": PICTURE_URL}),
    keyed={"input_reference[image_url]": PICTURE_URL},
    read=has_picture,
    picture=lambda value: {"input_reference": value},
    picture_param="input_reference",
    picture_part="input_reference",
)
CASES: dict[str, DialectCase] = {
    f"{mount}/": DialectCase(
        create=f"{mount}/videos",
        body={"prompt": "a paper boat", "model": "sandbox/testcard"},
        get=f"{mount}/videos/{{id}}",
        id_of=lambda body: str(body["id"]),
        message_of=openai_message,
        bad_body={"prompt": ""},
        inputs=INPUTS,
    )
    for mount in ("/v1", "/openai/v1")
}


async def test_a_video_object_has_all_its_fields(gateway: Running) -> None:
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
        "url": None,
        "output": None,
        "metadata": {},
        "provider": "sandbox",
        "upstream_model": "testcard",
        "cost_estimate": 0.0,
        "cost": None,
        "cost_currency": "USD",
    }
    assert response.headers["x-gateway-provider"] == "sandbox"
    assert response.headers["x-gateway-model"] == "sandbox/testcard"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["openai-poll-after-ms"] == "1000"
    assert response.headers["x-request-id"].startswith("req_")


async def test_multipart_is_read_as_node_sends_it(up: Upstream) -> None:
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
async def test_pictures_are_passed_on_by_address(up: Upstream, names: list[str], expected: Any) -> None:
    parts = [part(name, f"https://example.com/{index}.png") for index, name in enumerate(names)]
    body = form(part("prompt", "p"), *parts)
    sent = await up.sent(await up.client.post("/v1/videos", content=body, headers=MULTIPART))
    assert sent == {"prompt": "p", "model": "sora-2", "input_reference": expected}


async def test_several_files_in_one_field_are_all_sent(up: Upstream) -> None:
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
async def test_json_of_older_sdks_is_read(up: Upstream, content_type: str) -> None:
    body = json.dumps({"prompt": "p", "model": "up/sora-2", "seconds": "8", "size": "720x1280", "user": None})
    headers = {"content-type": content_type} if content_type else {}
    sent = await up.sent(await up.client.post("/v1/videos", content=body, headers=headers))
    assert sent == {"prompt": "p", "model": "sora-2", "seconds": "8", "size": "720x1280"}


async def test_json_is_read_under_the_content_type_of_curl(up: Upstream) -> None:
    sent = await up.sent(await up.client.post("/v1/videos", content=b' {"prompt": "p&q=r"}', headers=URL_ENCODED))
    assert sent == {"prompt": "p&q=r", "model": "sora-2"}


async def test_a_url_encoded_form_is_read(up: Upstream) -> None:
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
async def test_sizes_and_lengths_are_read(up: Upstream, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    sent = await up.sent(await up.client.post("/v1/videos", json={"prompt": "p", **fields}))
    assert sent == {"prompt": "p", "model": "sora-2", **expected}
