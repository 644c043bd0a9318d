"""The OpenAI dialect: bodies and parameters that are refused, and dry runs."""

from typing import Any

import pytest
from dialects.openai_wire import MULTIPART, PNG, URL_ENCODED, error_of, form, part
from fakes.server import KEY
from harness import Running, StartGateway

pytestmark = pytest.mark.anyio


JSON = {"content-type": "application/json"}
BAD, BAD_JSON = "invalid_request", "invalid_json"


def exploded(count: int) -> list[bytes]:
    """The parts that Node makes of a bare Buffer."""
    return [part(f"input_reference[{index}]", "82") for index in range(count)]


PROMPT = part("prompt", "p")


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
        (b"prompt", {"content-type": "text/html"}, 415, "unsupported_media_type", "'text/html'"),
        (b"prompt", {"content-type": "text/plain"}, 400, "invalid_json", "not valid JSON"),
        (b"\x1f\x8b", {**JSON, "content-encoding": "gzip"}, 415, "unsupported_media_type", "'gzip'"),
        (b"p", {"content-type": "\xff/\xfe"}, 415, "unsupported_media_type", "is not understood"),
    ],
)  # fmt: skip
async def test_unreadable_bodies_are_refused(
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
async def test_invalid_parameters_are_refused_by_name(
    gateway: Running, fields: dict[str, Any], status: int, param: str | None, code: str, said: str
) -> None:
    body = {name: value for name, value in {"prompt": "p", **fields}.items() if value is not None}
    error = error_of(await gateway.client.post("/v1/videos", json=body), status)
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")
    assert said in error["message"]
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []


async def test_a_request_without_a_model_is_refused_if_there_is_no_default(start_gateway: StartGateway) -> None:
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
                "quantity": 16,
                "billable_quantity": 16,
                "unit_price": 0.0,
                "total_cost": 0,
            }
        ],
        "cost_estimate": 0.0,
        "cost_at_most": 0.0,
        "routes": [
            {
                "route": "sandbox/testcard",
                "cost_estimate": 0.0,
                "median_seconds": None,
                "kept": True,
                "reason": "number 1 as written",
            }
        ],
    }
    error_of(await gateway.client.post("/v1/videos?dryRun=true", json={"prompt": "p", "seconds": 0}), 400)
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []


CREATES: dict[str, dict[str, Any]] = {
    "/v1/videos": {},
    "/openai/v1/videos": {},
    "/v1/videos/edits": {"video": {"id": "{id}"}},
    "/v1/videos/extensions": {"video": {"id": "{id}"}, "seconds": 4},
    "/v1/videos/{id}/remix": {},
}


@pytest.mark.parametrize("path", CREATES)
async def test_a_near_miss_of_a_dry_run_is_not_paid_for(gateway: Running, path: str) -> None:
    source = (await gateway.create(seconds=1, size="64x64"))["id"]
    await gateway.finish(source)
    body = {"prompt": "p", **CREATES[path]}
    if "video" in body:
        body["video"] = {"id": source}
    path = path.format(id=source)
    for query in ("dryrun=true", "dry_run=true", "dry-run=1", "DRYRUN=false", "dryRun=true&dryRun=false"):
        error = error_of(await gateway.client.post(f"{path}?{query}", json=body), 400)
        assert error["param"] == query.partition("=")[0]
    for name in ("dryRun", "dry_run", "dryrun"):
        error = error_of(await gateway.client.post(path, json={**body, name: True}), 400)
        assert error["param"] == name
        assert "?dryRun=true" in error["message"]
    assert [video["id"] for video in (await gateway.client.get("/v1/videos")).json()["data"]] == [source]
    assert (await gateway.client.post(f"{path}?dryRun=true&dryRun=1", json=body)).json().get("estimated") is True


@pytest.mark.parametrize("word", ["yes", "", "2", "null"])
async def test_an_invalid_dry_run_is_refused(gateway: Running, word: str) -> None:
    error = error_of(await gateway.client.post(f"/v1/videos?dryRun={word}", json={"prompt": "p"}), 400)
    assert error["param"] == "dryRun"
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []
    assert (await gateway.client.post("/v1/videos?dryRun=False", json={"prompt": "p"})).status_code == 202
