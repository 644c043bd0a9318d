"""Parts of multipart bodies as real clients send them, and JSON text in form fields; taken alike by every dialect."""

import json
from typing import Any

import httpx
import pytest
from contract.dialect_cases import CASES
from dialects.case import DialectCase, Inputs
from dialects.openai_wire import PNG
from dialects.vendors import stored
from harness import Running

from app.dialects import DIALECTS

pytestmark = pytest.mark.anyio

BOUNDARY = "frontier"
MULTIPART = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
JSON = "application/json"
OCTETS = "application/octet-stream"


def part(name: str, value: str | bytes, kind: str | None = None, more: str = "") -> bytes:
    """One part; with the content type `kind`, and `more` behind its name."""
    content = value.encode() if isinstance(value, str) else value
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n'
    return f"{head}{f'Content-Type: {kind}' if kind else 'X-Part: 1'}\r\n\r\n".encode() + content + b"\r\n"


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> DialectCase:
    return CASES[request.param]


@pytest.fixture
def inputs(case: DialectCase) -> Inputs:
    if case.inputs is None:
        pytest.skip("see the first test")
    return case.inputs


def body_of(case: DialectCase, *parts: bytes) -> bytes:
    given = [part(name, value) for name, value in case.body.items()]
    return b"".join([*given, *parts, f"--{BOUNDARY}--\r\n".encode()])


async def send(gateway: Running, case: DialectCase, *parts: bytes, **headers: str) -> httpx.Response:
    """Create a video from the case's own fields and these parts."""
    return await gateway.client.post(case.create, content=body_of(case, *parts), headers={**MULTIPART, **headers})


async def made(gateway: Running, case: DialectCase, response: httpx.Response) -> Any:
    """The stored request of a video that was created."""
    assert response.status_code == case.created, response.text
    return await stored(gateway, case.id_of(response.json()))


def refused(case: DialectCase, response: httpx.Response) -> str:
    assert response.status_code == 400, response.text
    return case.message_of(response.json())


def test_every_dialect_has_its_inputs() -> None:
    """An older version of an API may lack objects and media; the newest one of each dialect has them."""
    without = [dialect.TITLE for dialect in DIALECTS if CASES[dialect.PREFIXES[0]].inputs is None]
    assert without == []


# Files


@pytest.mark.parametrize("kind", [OCTETS, "image/png", "IMAGE/PNG; x=y"])
async def test_a_part_without_a_filename_is_a_file_by_its_type(
    gateway: Running, case: DialectCase, inputs: Inputs, kind: str
) -> None:
    if inputs.picture is None or "[" in inputs.picture_part:
        pytest.skip("it has no picture, or only within an object")
    request = await made(gateway, case, await send(gateway, case, part(inputs.picture_part, PNG, kind)))
    assert request.first_frame.content_type == "image/png"
    assert request.first_frame.key


@pytest.mark.parametrize("name", ["reference_images[]", "reference_images[0]", "reference_images"])
async def test_an_entry_of_a_list_is_a_file_by_its_type(gateway: Running, name: str) -> None:
    case = CASES["/v1/"]
    request = await made(gateway, case, await send(gateway, case, *[part(name, PNG, OCTETS)]))
    assert [image.content_type for image in request.reference_images] == ["image/png"]


async def test_a_value_with_a_key_is_no_file_whatever_its_type(
    gateway: Running, case: DialectCase, inputs: Inputs
) -> None:
    parts = [part(name, value, OCTETS) for name, value in inputs.keyed.items()]
    assert inputs.read(await made(gateway, case, await send(gateway, case, *parts)))


async def test_the_id_of_a_source_may_be_labelled_as_bytes(gateway: Running) -> None:
    source = await gateway.finish((await gateway.create(seconds=1, size="64x64"))["id"])
    parts = part("prompt", "in snow"), part("video[id]", source["id"], OCTETS), f"--{BOUNDARY}--\r\n".encode()
    response = await gateway.client.post("/v1/videos/edits", content=b"".join(parts), headers=MULTIPART)
    assert response.status_code == 202, response.text
    assert response.json()["remixed_from_video_id"] == source["id"]


@pytest.mark.parametrize("kind", [None, "text/plain", "text/plain; charset=UTF-8"])
async def test_text_without_a_filename_stays_text(
    gateway: Running, case: DialectCase, inputs: Inputs, kind: str | None
) -> None:
    parts = [part(name, value, kind) for name, value in inputs.keyed.items()]
    assert inputs.read(await made(gateway, case, await send(gateway, case, *parts)))


async def test_a_filename_in_the_extended_form_alone_makes_a_file(gateway: Running) -> None:
    case = CASES["/v1/"]
    named = part("input_reference", PNG, more="; filename*=UTF-8''b%C3%BCrste%22.png")
    request = await made(gateway, case, await send(gateway, case, named))
    assert (request.first_frame.content_type, request.first_frame.filename) == ("image/png", "bürste.png")


# JSON


def forms_of(inputs: Inputs) -> dict[str, bytes]:
    """The value of the structured field as parts."""
    name, value = inputs.structured
    text = json.dumps(value)
    return {
        "a JSON part": part(name, text, JSON),
        "a part of another JSON type": part(name, text, "application/problem+json; charset=utf-8"),
        "text": part(name, f"\n {text}"),
        "labelled text": part(name, text, "text/plain"),
        "keys in brackets": b"".join(part(key, text) for key, text in inputs.keyed.items()),
    }


async def test_an_object_may_be_json_in_a_form(gateway: Running, case: DialectCase, inputs: Inputs) -> None:
    """All forms are one request for the idempotency key, too."""
    name, value = inputs.structured
    key = {"idempotency-key": "order 17"}
    first = await gateway.client.post(case.create, json={**case.body, name: value}, headers=key)
    assert inputs.read(await made(gateway, case, first))
    for form, parts in forms_of(inputs).items():
        again = await send(gateway, case, parts, **key)
        assert (again.status_code, again.headers.get("idempotent-replayed")) == (200, "true"), (form, again.text)
        assert inputs.read(await made(gateway, case, await send(gateway, case, parts))), form
    fields = {**case.body, name: json.dumps(value)}
    again = await gateway.client.post(case.create, data=fields, headers=key)
    assert (again.status_code, again.headers.get("idempotent-replayed")) == (200, "true"), again.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metadata", {"team": "ads", "order": "17"}),
        ("reference_images", ["https://example.com/1.png", {"image_url": "https://example.com/2.png"}]),
        ("last_frame", {"image_url": {"url": "https://example.com/1.png"}}),
    ],
)
async def test_openais_objects_and_lists_may_be_json_text(gateway: Running, field: str, value: Any) -> None:
    case = CASES["/v1/"]
    direct = await gateway.client.post(case.create, json={**case.body, field: value})
    expected = await made(gateway, case, direct)
    assert await made(gateway, case, await send(gateway, case, part(field, json.dumps(value)))) == expected
    assert await made(gateway, case, await send(gateway, case, part(field, json.dumps(value), JSON))) == expected


async def test_entries_of_a_list_may_be_json_text(gateway: Running) -> None:
    case = CASES["/v1/"]
    urls = [f"https://example.com/{n}.png" for n in range(3)]
    for name in ("reference_images", "reference_images[]"):
        parts = [part(name, json.dumps({"image_url": url})) for url in urls]
        request = await made(gateway, case, await send(gateway, case, *parts))
        assert [image.url for image in request.reference_images] == urls


async def test_a_source_may_be_a_json_part(gateway: Running) -> None:
    """As openai-ruby sends a hash."""
    source = await gateway.finish((await gateway.create(seconds=1, size="64x64"))["id"])
    for kind in (JSON, None):
        video = part("video", json.dumps({"id": source["id"]}), kind)
        content = part("prompt", "in snow") + video + f"--{BOUNDARY}--\r\n".encode()
        response = await gateway.client.post("/v1/videos/edits", content=content, headers=MULTIPART)
        assert response.status_code == 202, response.text


@pytest.mark.parametrize("prompt", ['{"scene": "a boat"}', "[boat] on a pond", "{", '["a"]'])
async def test_a_prompt_that_looks_like_json_stays_text(
    gateway: Running, case: DialectCase, inputs: Inputs, prompt: str
) -> None:
    content = body_of(case).replace(b"a paper boat", prompt.encode())
    request = await made(gateway, case, await gateway.client.post(case.create, content=content, headers=MULTIPART))
    assert request.prompt == prompt
    again = await gateway.client.post(case.create, json={**case.body, inputs.prompt: prompt})
    assert (await made(gateway, case, again)).prompt == prompt


async def test_vendor_fields_are_objects_only_with_the_type_json(gateway: Running) -> None:
    case = CASES["/v1/"]
    request = await made(gateway, case, await send(gateway, case, part("camera", '{"pan": 1}', JSON)))
    assert request.extra == {"camera": {"pan": 1}}
    request = await made(gateway, case, await send(gateway, case, part("camera", '{"pan": 1}')))
    assert request.extra == {"camera": '{"pan": 1}'}


BROKEN = {
    "not JSON": (b'{"a": ', "is not valid JSON at line 1 column 7"),
    "empty": (b"", "is not valid JSON: it is empty"),
    "too many values": (b"[" + b"0," * 200_001 + b"0]", "has too many values in it"),
    "too deep": (b"[" * 40 + b"]" * 40, "is nested too deeply"),
    "much too deep": (b"[" * 100_000, "is not valid JSON"),
    "NUL": (b'{"a": "\\u0000"}', "contains a character that is not text"),
    "half a character": (b'{"a": "\\ud800"}', "contains a character that is not text"),
    "infinite": (b'{"a": 1e999}', "is not a finite number"),
    "not a number": (b'{"a": NaN}', "is not valid JSON"),
}


@pytest.mark.parametrize("fault", BROKEN)
async def test_broken_json_in_a_part_is_refused_by_its_name(
    gateway: Running, case: DialectCase, inputs: Inputs, fault: str
) -> None:
    content, said = BROKEN[fault]
    name = inputs.structured[0]
    message = refused(case, await send(gateway, case, part(name, content, JSON)))
    assert f"{name} {said}" in message
    if content.startswith((b"{", b"[")):
        assert f"{name} {said}" in refused(case, await send(gateway, case, part(name, content)))
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []


async def test_the_limit_of_values_is_one_for_all_parts(gateway: Running, case: DialectCase, inputs: Inputs) -> None:
    half = b"[" + b"0," * 150_000 + b"0]"
    message = refused(case, await send(gateway, case, part("one", half, JSON), part("two", half, JSON)))
    assert "two has too many values in it" in message


async def test_a_json_file_stays_a_file(gateway: Running, case: DialectCase, inputs: Inputs) -> None:
    if inputs.picture is None:
        pytest.skip("it has no pictures")
    parts = [part(name, value) for name, value in inputs.keyed.items() if "type" in name]
    file = part(inputs.picture_part, '{"a": 1}', JSON, '; filename="a.json"')
    assert f"{inputs.picture_param}: expected a picture or a video, and this is JSON" in refused(
        case, await send(gateway, case, *parts, file)
    )


BLOB = '; filename="blob"'


async def test_a_json_blob_of_a_browser_is_json(gateway: Running, case: DialectCase, inputs: Inputs) -> None:
    """As `formData.append(name, new Blob([json], {type: "application/json"}))` sends it."""
    name, value = inputs.structured
    key = {"idempotency-key": "order 17"}
    first = await gateway.client.post(case.create, json={**case.body, name: value}, headers=key)
    assert first.status_code == case.created, first.text
    blob = part(name, f" \n{json.dumps(value)}", JSON, BLOB)
    again = await send(gateway, case, blob, **key)
    assert (again.status_code, again.headers.get("idempotent-replayed")) == (200, "true"), again.text
    assert inputs.read(await made(gateway, case, await send(gateway, case, blob)))
    broken = part(name, '{"a": ', JSON, BLOB)
    assert f"{name} is not valid JSON at line 1 column 7" in refused(case, await send(gateway, case, broken))
    half = b"[" + b"0," * 150_000 + b"0]"
    message = refused(case, await send(gateway, case, part("one", half, JSON, BLOB), part("two", half, JSON, BLOB)))
    assert "two has too many values in it" in message


async def test_a_picture_that_is_called_a_json_blob_stays_a_file(
    gateway: Running, case: DialectCase, inputs: Inputs
) -> None:
    if inputs.picture is None or "[" in inputs.picture_part:
        pytest.skip("it has no picture, or only within an object")
    request = await made(gateway, case, await send(gateway, case, part(inputs.picture_part, PNG, JSON, BLOB)))
    assert request.first_frame.content_type == "image/png"
    assert await gateway.gateway.store.read(request.first_frame.key, 0, len(PNG) + 1) == PNG


async def test_a_long_json_blob_counts_as_text(gateway: Running) -> None:
    case, parts = CASES["/v1/"], [part(name, b'["' + b"x" * 13 * 2**20 + b'"]', JSON, BLOB) for name in ("one", "two")]
    assert "its text parts have more than 24 MiB together" in refused(case, await send(gateway, case, *parts))


async def test_text_that_is_labelled_json_stays_text(gateway: Running, case: DialectCase, inputs: Inputs) -> None:
    """As curl sends `-F 'prompt=a paper boat;type=application/json'`."""
    texts = {name: value for name, value in case.body.items() if isinstance(value, str) and "[" not in name}
    parts = [part(name, value, JSON if name in texts else None) for name, value in case.body.items()]
    content = b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])
    request = await made(gateway, case, await gateway.client.post(case.create, content=content, headers=MULTIPART))
    assert inputs.prompt in texts
    assert request.prompt == "a paper boat"


# Bodies
# Bodies


@pytest.mark.parametrize(
    "preamble",
    [
        b"This is a multi-part message in MIME format.\r\n",
        b"\r\n",
        b"\n",
        b"-\r\n--fron\r\n",
        b"x" * 3 * 2**20 + b"\r\n",
    ],
    ids=["a sentence", "CRLF", "LF", "half a boundary", "3 MiB"],
)
async def test_text_before_the_first_boundary_is_skipped(gateway: Running, case: DialectCase, preamble: bytes) -> None:
    content = preamble + body_of(case)
    response = await gateway.client.post(case.create, content=content, headers=MULTIPART)
    assert (await made(gateway, case, response)).prompt == "a paper boat"


@pytest.mark.parametrize("content", [b"no boundary", b"x--frontier\r\n", b"--frontie", b"\r\n" * 100_000])
async def test_a_body_without_its_boundary_is_refused(gateway: Running, case: DialectCase, content: bytes) -> None:
    response = await gateway.client.post(case.create, content=content, headers=MULTIPART)
    assert "does not have the boundary that its content-type names" in refused(case, response)


async def test_json_in_latin_1_is_refused_with_the_place(gateway: Running, case: DialectCase, inputs: Inputs) -> None:
    content = json.dumps({**case.body, inputs.prompt: "für Ü"}, ensure_ascii=False).encode("latin-1")
    response = await gateway.client.post(case.create, content=content, headers={"content-type": JSON})
    place = content.index(b"\xfc")
    assert f"it is not UTF-8: byte {place} is 0xFC; encode the text as UTF-8" in refused(case, response)
