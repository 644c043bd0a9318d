"""Inputs that real clients send, taken alike by every dialect."""

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import httpx
import pytest
from contract.dialect_cases import CASES
from dialects.case import DialectCase
from fakes.openai import FakeOpenAI
from harness import ALICE, BOB, Running

from app.http.uploads import decode_data_url
from app.media.sniff import sniff_upload

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(250)) * 4


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> DialectCase:
    return CASES[request.param]


@pytest.mark.parametrize("header", ["api-key", "X-API-Key", "x-goog-api-key"])
async def test_a_key_may_come_in_the_header_of_another_vendor(gateway: Running, case: DialectCase, header: str) -> None:
    transport = gateway.client._transport
    async with httpx.AsyncClient(transport=transport, base_url=gateway.client.base_url) as client:
        made = await client.post(case.create, json=case.body, headers={header: ALICE})
        assert made.status_code == case.created, made.text
        path = case.get.format(id=case.id_of(made.json()))
        assert (await client.get(path, headers={header: ALICE})).status_code == 200
        assert (await client.get(path, headers={header: BOB})).status_code == 404
        assert (await client.get(path, headers={header: "wrong"})).status_code == 401
        both = {header: ALICE, "authorization": "Bearer wrong"}
        assert (await client.get(path, headers=both)).status_code == 401  # the bearer token counts


async def test_a_field_that_is_null_is_absent(gateway: Running, case: DialectCase) -> None:
    document = gateway.app.openapi()
    operation = document["paths"][case.create.removeprefix("/openai")]["post"]  # an alias of /v1
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    body = with_nulls(case.body, schema, document["components"]["schemas"])
    assert None in body.values()
    response = await gateway.client.post(case.create, json=body)
    assert response.status_code == case.created, response.text


def with_nulls(body: Mapping[str, Any], schema: Mapping[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    """The body with null for each optional field that it lacks."""
    model = models[schema["$ref"].rpartition("/")[2]]
    optional = model["properties"].keys() - set(model.get("required", ()))
    given = {
        name: with_nulls(value, model["properties"][name], models)
        if isinstance(value, Mapping) and "$ref" in model["properties"].get(name, {})
        else value
        for name, value in body.items()
    }
    return {**dict.fromkeys(optional), **given}


async def test_json_may_be_labelled_as_text(gateway: Running, case: DialectCase) -> None:
    content = httpx.Request("POST", "http://x", json=case.body).content
    headers = {"content-type": "text/plain;charset=UTF-8"}  # as fetch labels a string
    response = await gateway.client.post(case.create, content=content, headers=headers)
    assert response.status_code == case.created, response.text


ENCODED = b64encode(PNG).decode()
DATA_URLS = {
    "as it should be": f"data:image/png;base64,{ENCODED}",
    "lines of 76": "data:image/png;base64," + "\n".join(ENCODED[n : n + 76] for n in range(0, len(ENCODED), 76)),
    "lines of 76 with CRLF": "data:image/png;base64,"
    + "\r\n".join(ENCODED[n : n + 76] for n in range(0, len(ENCODED), 76)),
    "a line break at the end": f"data:image/png;base64,{ENCODED}\n",
    "a blank in front": f" data:image/png;base64,{ENCODED}",
    "no padding": f"data:image/png;base64,{ENCODED.rstrip('=')}",
    "percent escapes": "data:image/png;base64," + ENCODED.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
    "capitals": f"DATA:image/png;BASE64,{ENCODED}",
    "a parameter": f"data:image/png;charset=utf-8; base64,{ENCODED}",
}


@pytest.mark.parametrize("form", DATA_URLS)
async def test_data_urls_are_read_as_browsers_do(up: Running, fake: FakeOpenAI, form: str) -> None:
    await up.create(model="up/sora-2", input_reference=DATA_URLS[form])
    await up.worker.run_once()
    [submit] = fake.submits
    assert submit.fields["input_reference"].sha256 == sha256(PNG).hexdigest()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("data:image/png;base64,_-_-_w", "- and _ where standard base 64 has + and /"),
        ("data:image/png;base64,A", "not valid base 64"),
        ("data:image/png;base64,AA=A", "not valid base 64"),
        ("data:image/png,abc", "expected data:<type>;base64,<data>"),
        (ENCODED, "this looks like base 64 alone; put data:image/png;base64,"),
    ],
)
async def test_other_forms_of_base_64_are_refused_with_advice(gateway: Running, value: str, said: str) -> None:
    response = await gateway.client.post("/v1/videos", json={"prompt": "a boat", "input_reference": value})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "input_reference"
    assert said in response.json()["error"]["message"]


async def test_a_megabyte_of_blanks_is_refused_without_a_search(gateway: Running) -> None:
    """A search that starts again at each blank would take hours."""
    value = "A" + " " * 2**20 + "!"
    response = await gateway.client.post("/v1/videos", json={"prompt": "a boat", "input_reference": value})
    assert response.status_code == 400
    assert "expected a file, an https:// URL or a data: URL" in response.json()["error"]["message"]


def test_padding_and_white_space_make_no_difference() -> None:
    for length in range(8):
        data = bytes(range(length))
        encoded = b64encode(data).decode()
        for text in (encoded, encoded.rstrip("="), f"\t{encoded}\f", "%0a".join(encoded)):
            assert decode_data_url(f"data:x;base64,{text}", "file") == data


@pytest.mark.parametrize(
    ("head", "content_type"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "image/heic"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "image/heif"),
        (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf", "image/avif"),
        (b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", "image/bmp"),
        (b"BM\x1e\0\0\0\0\0\0\0\x1a\0\0\0\x0c\0\0\0", "image/bmp"),
        ("BMW für alle, die es eilig haben".encode("latin-1"), None),
        (b"II*\0\x08\0\0\0", "image/tiff"),
        (b"MM\0*\0\0\0\x08", "image/tiff"),
        (b"\0\0\1\0\1\0\x10\x10", "image/x-icon"),
        (PNG, "image/png"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "video/mp4"),
        (b"nothing we know", None),
    ],
)
def test_a_picture_has_the_type_of_its_bytes(head: bytes, content_type: str | None) -> None:
    assert sniff_upload(head) == content_type


async def test_a_picture_goes_up_with_the_type_of_its_bytes(up: Running, fake: FakeOpenAI) -> None:
    avif = b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf" + bytes(100)
    files = {"input_reference": ("boat.png", avif, "image/png")}
    response = await up.client.post("/v1/videos", data={"prompt": "a boat", "model": "up/sora-2"}, files=files)
    assert response.status_code == 202, response.text
    await up.worker.run_once()
    assert fake.submits[0].fields["input_reference"].content_type == "image/avif"


@pytest.mark.parametrize("path", ["/videos", "/videos/video_1", "/models", "/webhook_endpoints"])
async def test_a_base_url_without_its_version_is_named(gateway: Running, path: str) -> None:
    response = await gateway.client.get(path)
    assert response.status_code == 404
    message = response.json()["error"]["message"]
    assert f"/v1{path}" in message
    assert "the base URL has to end with /v1" in message
