"""Dialect contract: every dialect creates, reads and refuses in its own shape."""

import asyncio
from types import ModuleType
from typing import Any

import httpx
import pytest
from contract.dialect_cases import CASES
from dialects.case import DialectCase
from harness import ALICE, Running

from app.dialects import DIALECTS, dialect_of, openai

pytestmark = pytest.mark.anyio


UNKNOWN_ID = "video_" + "0" * 26


@pytest.fixture(params=[(dialect, prefix) for dialect in DIALECTS for prefix in dialect.PREFIXES], ids=lambda p: p[1])
def place(request: pytest.FixtureRequest) -> tuple[ModuleType, str]:
    found: tuple[ModuleType, str] = request.param
    return found


@pytest.fixture
def case(place: tuple[ModuleType, str]) -> DialectCase:
    return CASES[place[1]]


def without_key(gateway: Running) -> httpx.AsyncClient:
    """A client without a key."""
    return httpx.AsyncClient(transport=gateway.client._transport, base_url=gateway.client.base_url)


def refused(case: DialectCase, response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    message = case.message_of(response.json())
    assert message
    return message


async def created(gateway: Running, case: DialectCase) -> str:
    response = await gateway.client.post(case.create, json=case.body)
    assert response.status_code == case.created, response.text
    return case.id_of(response.json())


def test_each_prefix_belongs_to_one_dialect(place: tuple[ModuleType, str]) -> None:
    dialect, prefix = place
    assert prefix.startswith("/")
    assert prefix.endswith("/")
    assert dialect_of(prefix) is dialect
    assert dialect_of(f"{prefix}nothing/here") is dialect
    assert dialect_of(prefix.rstrip("/")) is dialect


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/videos/generations2", "/v1/videox", "/v2x", "/", "/lumax"])
def test_a_path_beside_a_prefix_does_not_belong_to_it(path: str) -> None:
    assert dialect_of(path) is openai


async def test_a_created_video_can_be_read(gateway: Running, case: DialectCase) -> None:
    video_id = await created(gateway, case)
    response = await gateway.client.get(case.get.format(id=video_id))
    assert response.status_code == 200, response.text
    assert response.headers["x-request-id"].startswith("req_")
    assert case.id_of(response.json()) == video_id


async def test_a_video_of_one_dialect_is_shown_by_all(gateway: Running, case: DialectCase) -> None:
    video_id = await created(gateway, case)
    assert (await gateway.get(video_id))["status"] == "queued"
    for other in CASES.values():
        response = await gateway.client.get(other.get.format(id=video_id))
        assert other.id_of(response.json()) == video_id


async def test_multipart_is_read_like_json(gateway: Running, case: DialectCase) -> None:
    parts = {name: (None, value) for name, value in case.body.items()}
    response = await gateway.client.post(case.create, files=parts)
    assert response.status_code == case.created, response.text
    shown = await gateway.get(case.id_of(response.json()))
    assert (shown["prompt"], shown["model"]) == ("a paper boat", "sandbox/testcard")


@pytest.mark.parametrize("where", ["header", "body"])
async def test_a_create_repeated_with_its_idempotency_key_makes_one_video(
    gateway: Running, case: DialectCase, where: str
) -> None:
    headers = {"idempotency-key": "order 17"} if where == "header" else {}
    key = {"idempotency_key": "order 17"} if where == "body" else {}

    async def create(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
        return await client.post(case.create, json={**case.body, **key, **fields}, headers=headers)

    first, second = await asyncio.gather(create(gateway.client), create(gateway.client))
    assert sorted([first.status_code, second.status_code]) == sorted([case.created, 200])
    assert case.id_of(first.json()) == case.id_of(second.json())
    again = await create(gateway.client)
    assert again.status_code == 200
    assert again.headers["idempotent-replayed"] == "true"
    other = await create(gateway.client, **{name: "another" for name in case.body if name.endswith("prompt")})
    refused(case, other, 409)
    assert other.headers["x-should-retry"] == "false"
    theirs = await create(gateway.bob)
    assert case.id_of(theirs.json()) != case.id_of(first.json())
    assert len((await gateway.client.get("/v1/videos")).json()["data"]) == 1
    too_long = await gateway.client.post(case.create, json={**case.body, "idempotency_key": "x" * 257})
    refused(case, too_long, 400)


async def test_an_unknown_model_is_refused_with_a_suggestion(gateway: Running, case: DialectCase) -> None:
    response = await gateway.client.post(case.create, json={**case.body, "model": "sandbox/testcrad"})
    assert "sandbox/testcard" in refused(case, response, 404)


@pytest.mark.parametrize("key", ["sk-unknown", "", " ", "x" * 10_000, f"{ALICE}x", "é"])
async def test_a_wrong_key_is_refused_and_not_echoed(gateway: Running, case: DialectCase, key: str) -> None:
    headers = {name.encode(): value.encode() for name, value in case.key_headers(key).items()}
    async with without_key(gateway) as client:
        for method, path in (("POST", case.create), ("GET", case.get.format(id=UNKNOWN_ID))):
            body = dict(case.body) if method == "POST" else None
            message = refused(case, await client.request(method, path, json=body, headers=headers), 401)
            assert key.strip() == "" or key not in message


async def test_a_missing_key_is_refused(gateway: Running, case: DialectCase) -> None:
    async with without_key(gateway) as client:
        refused(case, await client.post(case.create, json=case.body), 401)
        refused(case, await client.get(case.get.format(id=UNKNOWN_ID)), 401)
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []


async def test_a_bad_body_is_refused(gateway: Running, case: DialectCase) -> None:
    json_type = {"content-type": "application/json"}
    refused(case, await gateway.client.post(case.create, json=case.bad_body), 400)
    for content in (b"", b"{", b"[]", b"\xff", b'{"prompt": "\\u0000"}', b"[" * 100_000):
        refused(case, await gateway.client.post(case.create, content=content, headers=json_type), 400)
    multipart = {"content-type": "multipart/form-data; boundary=x"}
    refused(case, await gateway.client.post(case.create, content=b"--x\r\n", headers=multipart), 400)
    refused(case, await gateway.client.post(case.create, content=b"x", headers={"content-type": "image/png"}), 415)
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []


async def test_a_body_that_is_too_large_is_refused(gateway: Running, case: DialectCase) -> None:
    limit = gateway.gateway.settings.max_body_mb * 2**20
    headers = {"content-type": "application/json", "content-length": str(limit + 1)}
    refused(case, await gateway.client.post(case.create, content=b"{}", headers=headers), 413)


async def test_an_unknown_id_is_a_404(gateway: Running, case: DialectCase) -> None:
    for video_id in (UNKNOWN_ID, "x", "%00", "a" * 1_000):
        refused(case, await gateway.client.get(case.get.format(id=video_id)), 404)


async def test_a_video_of_another_project_is_unknown(gateway: Running, case: DialectCase) -> None:
    video_id = await created(gateway, case)
    theirs = refused(case, await gateway.bob.get(case.get.format(id=video_id)), 404)
    unknown = refused(case, await gateway.bob.get(case.get.format(id=UNKNOWN_ID)), 404)
    assert theirs.replace(video_id, "") == unknown.replace(UNKNOWN_ID, "")


async def test_unknown_paths_and_methods_are_refused(
    gateway: Running, place: tuple[ModuleType, str], case: DialectCase
) -> None:
    refused(case, await gateway.client.get(f"{place[1]}nothing/here/at/all"), 404)
    refused(case, await gateway.client.put(f"{place[1]}nothing/here/at/all"), 404)
    response = await gateway.client.request("PROPFIND", case.create)
    refused(case, response, 405)
    assert response.headers["allow"]
