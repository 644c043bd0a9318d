"""Every dialect through the same tests: create, read, refuse, in its own shape. A new dialect is one entry here."""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import httpx
import pytest
from harness import ALICE, Running

from app.dialects import DIALECTS, dialect_of, openai

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Door:
    """How one dialect looks from outside; `{id}` in a path stands for the video."""

    create: str
    body: Mapping[str, Any]
    get: str
    id_of: Callable[[Any], str]
    """Reads the id out of the answer to a create, and of a read."""
    message_of: Callable[[Any], str]
    """Reads the message out of an error, whose whole shape it checks."""
    bad_body: Mapping[str, Any]
    """Valid JSON that it refuses."""
    created: int = 202
    key_headers: Callable[[str], dict[str, str]] = lambda key: {"authorization": f"Bearer {key}"}


def _openai_message(body: Any) -> str:
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    return str(body["error"]["message"])


def _openai(mount: str) -> Door:
    return Door(
        create=f"{mount}/videos",
        body={"prompt": "a paper boat", "model": "sandbox/testcard"},
        get=f"{mount}/videos/{{id}}",
        id_of=lambda body: str(body["id"]),
        message_of=_openai_message,
        bad_body={"prompt": ""},
    )


def _keys(*names: str) -> Callable[[Any], str]:
    """Reads `message` out of a flat error with exactly these keys."""

    def message_of(body: Any) -> str:
        assert list(body) == list(names)
        return str(body["message"])

    return message_of


def _lunos_message(body: Any) -> str:
    assert list(body) == ["error"]
    assert isinstance(body["error"], str)
    return body["error"]


def _apilaplas_message(body: Any) -> str:
    assert body["path"].startswith("/v2/")
    assert body["requestId"].startswith("req_")
    assert re.fullmatch(r"4\d\d", body["statusCode"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])
    return _keys("message", "path", "requestId", "statusCode", "timestamp")(body)


def _vendor(create: str, message_of: Callable[[Any], str], **differing: Any) -> Door:
    door = Door(
        create=create,
        body={"prompt": "a paper boat", "model": "sandbox/testcard"},
        get=f"{create}/{{id}}",
        id_of=lambda body: str(body["id"]),
        message_of=message_of,
        bad_body={"prompt": "", "model": "sandbox/testcard"},
        created=200,
    )
    return replace(door, **differing)


GENERATION = "/v2/generate/video/luma-ai/generation"
DOORS = {
    "/v1/": _openai("/v1"),
    "/openai/v1/": _openai("/openai/v1"),
    "/v1/video/": _vendor("/v1/video/generations", _lunos_message),
    "/v1/videos/generations/": _vendor("/v1/videos/generations", _openai_message),
    "/luma/": _vendor(
        "/luma/generations",
        _keys("code", "message", "data"),
        body={"user_prompt": "a paper boat"},
        bad_body={"user_prompt": " "},
    ),
    "/v2/": _vendor(
        GENERATION,
        _apilaplas_message,
        body={"prompt": "a paper boat", "aspect_ratio": "16:9"},
        get=f"{GENERATION}?generation_id={{id}}",
        created=201,
    ),
}
"""One for each prefix of each dialect."""

NOBODYS = "video_" + "0" * 26


@pytest.fixture(params=[(dialect, prefix) for dialect in DIALECTS for prefix in dialect.PREFIXES], ids=lambda p: p[1])
def place(request: pytest.FixtureRequest) -> tuple[ModuleType, str]:
    found: tuple[ModuleType, str] = request.param
    return found


@pytest.fixture
def door(place: tuple[ModuleType, str]) -> Door:
    return DOORS[place[1]]


def stranger(gateway: Running) -> httpx.AsyncClient:
    """Somebody with no key at all."""
    return httpx.AsyncClient(transport=gateway.client._transport, base_url=gateway.client.base_url)


def refused(door: Door, response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    message = door.message_of(response.json())
    assert message
    return message


async def created(gateway: Running, door: Door) -> str:
    response = await gateway.client.post(door.create, json=door.body)
    assert response.status_code == door.created, response.text
    return door.id_of(response.json())


def test_each_prefix_belongs_to_one_dialect(place: tuple[ModuleType, str]) -> None:
    dialect, prefix = place
    assert prefix.startswith("/")
    assert prefix.endswith("/")
    assert dialect_of(prefix) is dialect
    assert dialect_of(f"{prefix}nothing/here") is dialect
    assert dialect_of(prefix.rstrip("/")) is dialect


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/videos/generations2", "/v1/videox", "/v2x", "/", "/lumax"])
def test_a_path_beside_a_prefix_is_not_in_it(path: str) -> None:
    assert dialect_of(path) is openai


async def test_create_and_get(gateway: Running, door: Door) -> None:
    video_id = await created(gateway, door)
    response = await gateway.client.get(door.get.format(id=video_id))
    assert response.status_code == 200, response.text
    assert response.headers["x-request-id"].startswith("req_")
    assert door.id_of(response.json()) == video_id


async def test_what_one_door_made_all_doors_show(gateway: Running, door: Door) -> None:
    video_id = await created(gateway, door)
    assert (await gateway.get(video_id))["status"] == "queued"
    for other in DOORS.values():
        response = await gateway.client.get(other.get.format(id=video_id))
        assert other.id_of(response.json()) == video_id


async def test_multipart_is_as_good_as_json(gateway: Running, door: Door) -> None:
    parts = {name: (None, value) for name, value in door.body.items()}
    response = await gateway.client.post(door.create, files=parts)
    assert response.status_code == door.created, response.text
    shown = await gateway.get(door.id_of(response.json()))
    assert (shown["prompt"], shown["model"]) == ("a paper boat", "sandbox/testcard")


@pytest.mark.parametrize("where", ["header", "body"])
async def test_a_create_that_is_repeated_with_its_key(gateway: Running, door: Door, where: str) -> None:
    headers = {"idempotency-key": "order 17"} if where == "header" else {}
    key = {"idempotency_key": "order 17"} if where == "body" else {}

    async def create(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
        return await client.post(door.create, json={**door.body, **key, **fields}, headers=headers)

    first, second = await asyncio.gather(create(gateway.client), create(gateway.client))
    assert sorted([first.status_code, second.status_code]) == sorted([door.created, 200])
    assert door.id_of(first.json()) == door.id_of(second.json())
    again = await create(gateway.client)
    assert again.status_code == 200
    assert again.headers["idempotent-replayed"] == "true"
    other = await create(gateway.client, **{name: "another" for name in door.body if name.endswith("prompt")})
    refused(door, other, 409)
    assert other.headers["x-should-retry"] == "false"
    theirs = await create(gateway.bob)
    assert door.id_of(theirs.json()) != door.id_of(first.json())
    assert len((await gateway.client.get("/v1/videos")).json()["data"]) == 1
    too_long = await gateway.client.post(door.create, json={**door.body, "idempotency_key": "x" * 257})
    refused(door, too_long, 400)


async def test_a_model_nobody_has(gateway: Running, door: Door) -> None:
    response = await gateway.client.post(door.create, json={**door.body, "model": "sandbox/testcrad"})
    assert "sandbox/testcard" in refused(door, response, 404)


@pytest.mark.parametrize("key", ["sk-nobody", "", " ", "x" * 10_000, f"{ALICE}x", "é"])
async def test_wrong_key(gateway: Running, door: Door, key: str) -> None:
    headers = {name.encode(): value.encode() for name, value in door.key_headers(key).items()}
    async with stranger(gateway) as client:
        for method, path in (("POST", door.create), ("GET", door.get.format(id=NOBODYS))):
            body = dict(door.body) if method == "POST" else None
            message = refused(door, await client.request(method, path, json=body, headers=headers), 401)
            assert key.strip() == "" or key not in message


async def test_missing_key(gateway: Running, door: Door) -> None:
    async with stranger(gateway) as client:
        refused(door, await client.post(door.create, json=door.body), 401)
        refused(door, await client.get(door.get.format(id=NOBODYS)), 401)
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []


async def test_bad_body(gateway: Running, door: Door) -> None:
    json_type = {"content-type": "application/json"}
    refused(door, await gateway.client.post(door.create, json=door.bad_body), 400)
    for content in (b"", b"{", b"[]", b"\xff", b'{"prompt": "\\u0000"}', b"[" * 100_000):
        refused(door, await gateway.client.post(door.create, content=content, headers=json_type), 400)
    multipart = {"content-type": "multipart/form-data; boundary=x"}
    refused(door, await gateway.client.post(door.create, content=b"--x\r\n", headers=multipart), 400)
    refused(door, await gateway.client.post(door.create, content=b"x", headers={"content-type": "image/png"}), 415)
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []


async def test_a_body_that_is_too_large(gateway: Running, door: Door) -> None:
    limit = gateway.gateway.settings.max_body_mb * 2**20
    headers = {"content-type": "application/json", "content-length": str(limit + 1)}
    refused(door, await gateway.client.post(door.create, content=b"{}", headers=headers), 413)


async def test_unknown_id(gateway: Running, door: Door) -> None:
    for video_id in (NOBODYS, "x", "%00", "a" * 1_000):
        refused(door, await gateway.client.get(door.get.format(id=video_id)), 404)


async def test_another_owners_id(gateway: Running, door: Door) -> None:
    video_id = await created(gateway, door)
    theirs = refused(door, await gateway.bob.get(door.get.format(id=video_id)), 404)
    nobodys = refused(door, await gateway.bob.get(door.get.format(id=NOBODYS)), 404)
    assert theirs.replace(video_id, "") == nobodys.replace(NOBODYS, "")


async def test_unknown_path_and_method(gateway: Running, place: tuple[ModuleType, str], door: Door) -> None:
    refused(door, await gateway.client.get(f"{place[1]}nothing/here/at/all"), 404)
    refused(door, await gateway.client.put(f"{place[1]}nothing/here/at/all"), 404)
    response = await gateway.client.request("PROPFIND", door.create)
    refused(door, response, 405)
    assert response.headers["allow"]
