"""The Luma dialect: fields, thumbnails, many tasks in one request, and creates that wait."""

import asyncio
import base64
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pytest
from dialects.case import PICTURE_URL, DialectCase, Inputs, flat_message, has_picture, vendor_case
from dialects.vendors import LUMA, SMALL, UNKNOWN_ID, asked, until
from fakes.server import serve
from harness import ALICE, Running, StartGateway
from psycopg.conninfo import conninfo_to_dict

pytestmark = pytest.mark.anyio

INPUTS = Inputs(
    prompt="user_prompt",
    structured=("image_url", {"url": PICTURE_URL}),
    keyed={"image_url[url]": PICTURE_URL},
    read=has_picture,
    picture=lambda value: {"image_url": value},
    picture_param="image_url",
    picture_part="image_url",
)
CASES: dict[str, DialectCase] = {
    "/luma/": vendor_case(
        LUMA,
        flat_message("code", "message", "data"),
        body={"user_prompt": "a paper boat"},
        bad_body={"user_prompt": " "},
        inputs=INPUTS,
    ),
}


# Fields


async def test_luma_fields_are_read(gateway: Running) -> None:
    body = {
        "user_prompt": "a boat",
        "expand_prompt": True,
        "loop": True,
        "aspect_ratio": "9:16",
        "duration": "9s",
        "resolution": "720p",
        "model_name": "ray-v2",
        "camera": "pan",
    }
    request = await asked(gateway, LUMA, body)
    assert (request.model, request.seconds, request.size) == ("sandbox/testcard", 9, "720x1280")
    assert (request.expand_prompt, request.loop, request.extra) == (True, True, {"camera": "pan"})
    request = await asked(gateway, LUMA, {"user_prompt": "a boat", "loop": False, "image_url": "", "notify_hook": ""})
    assert (request.loop, request.first_frame, request.webhook) == (None, None, None)


@pytest.mark.parametrize("ratio", ["1:1", "4:3", "3:4", "16:9", "9:16"])
async def test_every_documented_ratio_is_read(gateway: Running, ratio: str) -> None:
    response = await gateway.client.post(LUMA, json={"user_prompt": "a boat", "aspect_ratio": ratio})
    assert response.status_code == 200
    assert response.json()["request"] == {"prompt": "a boat", "aspect_ratio": ratio}


async def test_both_pictures_may_be_addresses_or_base64(gateway: Running) -> None:
    encoded = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(64)).decode()
    given = {"image_url": encoded, "image_end_url": "https://example.com/1.png"}
    request = await asked(gateway, LUMA, {"user_prompt": "a boat", **given})
    assert request.first_frame is not None
    assert request.last_frame is not None
    assert (request.first_frame.content_type, request.last_frame.url) == ("image/png", given["image_end_url"])


# Many at once, and waiting


async def test_many_tasks_of_luma_are_read_in_one_request(gateway: Running) -> None:
    ids = [(await gateway.create(**SMALL))["id"] for _ in range(3)]
    theirs = (await gateway.bob.post(LUMA, json={"user_prompt": "p"})).json()["id"]
    response = await gateway.client.post("/luma/tasks", json={"ids": [ids[2], UNKNOWN_ID, theirs, ids[0], "x", ids[0]]})
    assert [task["id"] for task in response.json()] == [ids[2], ids[0]]
    assert response.json()[1] == (await gateway.client.get(f"{LUMA}/{ids[0]}")).json()
    form = {"ids[]": (None, ids[1])}
    assert len((await gateway.client.post("/luma/tasks", files=form)).json()) == 1
    refused: list[dict[str, Any]] = [{}, {"ids": []}, {"ids": "x"}, {"ids": ["x"] * 101}, {"ids": [1]}]
    for wrong in refused:
        assert (await gateway.client.post("/luma/tasks", json=wrong)).status_code == 400
    assert (await gateway.bob.post("/luma/tasks", json={"ids": ids})).json() == []


# Thumbnails

NO_KEY = {"authorization": ""}


def webp_size(content: bytes) -> tuple[int, int]:
    """Width and height of a WebP picture without an extended header."""
    assert (content[:4], content[8:16]) == (b"RIFF", b"WEBPVP8 ")
    return int.from_bytes(content[26:28], "little") & 0x3FFF, int.from_bytes(content[28:30], "little") & 0x3FFF


@pytest.mark.parametrize("size", ["320x240", "1280x720", "700x1000"])
async def test_a_thumbnail_is_shown_without_a_key_in_the_size_that_it_has(gateway: Running, size: str) -> None:
    video_id = (await gateway.create(seconds="1", size=size))["id"]
    await gateway.finish(video_id)
    shown = (await gateway.client.get(f"{LUMA}/{video_id}")).json()
    stored = await gateway.gateway.store.written_before(f"videos/{video_id}/", datetime.max.replace(tzinfo=UTC))
    assert stored
    assert not [key for key in stored if "thumbnail" in key]  # a read makes no picture
    thumbnail = shown["thumbnail"]
    assert shown["artifact"]["thumbnail"] == thumbnail
    assert (shown["last_frame"], shown["artifact"]["last_frame"]) == (None, None)
    picture = await gateway.client.get(thumbnail["url"], headers=NO_KEY)
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/webp")
    assert webp_size(picture.content) == (thumbnail["width"], thumbnail["height"])
    head = await gateway.client.head(thumbnail["url"], headers=NO_KEY)
    assert head.headers["content-length"] == str(len(picture.content))


async def test_a_link_to_a_thumbnail_opens_nothing_else_and_expires(gateway: Running) -> None:
    video_id = (await gateway.create(**SMALL))["id"]
    await gateway.finish(video_id)
    shown = (await gateway.client.get(f"{LUMA}/{video_id}")).json()
    picture, video = httpx.URL(shown["thumbnail"]["url"]), httpx.URL(shown["video"]["url"])
    forged = [
        picture.copy_with(path=video.path),
        video.copy_with(path=picture.path),
        picture.copy_with(path=picture.path.replace("/0.", "/1.")),
        picture.copy_with(path=picture.path.replace("thumbnail", "spritesheet")),
        picture.copy_with(query=None),
    ]
    for url in forged:
        for method in ("GET", "HEAD"):
            assert (await gateway.client.request(method, url, headers=NO_KEY)).status_code == 404, url
    assert (await gateway.client.get(picture, headers=NO_KEY)).status_code == 200
    gateway.clock.advance(gateway.gateway.settings.media_url_ttl_s)
    assert (await gateway.client.get(picture, headers=NO_KEY)).status_code == 404


# Creates that wait

SYNC = f"{LUMA}_sync"
BOAT = {"user_prompt": "a paper boat", "resolution": "240p", "aspect_ratio": "4:3", "duration": "1s"}


async def held(gateway: Running, **options: Any) -> tuple["asyncio.Task[httpx.Response]", str]:
    """A create that is waiting, and the id of its video."""
    task = asyncio.create_task(gateway.client.post(SYNC, json=BOAT, **options))
    await until(lambda: gateway.gateway.listener.waiters == 1)
    [video] = (await gateway.client.get("/v1/videos")).json()["data"]
    return task, video["id"]


@pytest.mark.parametrize(("model", "state"), [("sandbox/testcard", "completed"), ("sandbox/fail", "failed")])
async def test_a_create_that_waits_answers_when_the_video_has_ended(gateway: Running, model: str, state: str) -> None:
    task = asyncio.create_task(gateway.client.post(SYNC, json={**BOAT, "model": model}))
    await until(lambda: gateway.gateway.listener.waiters == 1)
    [video] = (await gateway.client.get("/v1/videos")).json()["data"]
    await gateway.worker.run_once()
    assert not task.done()
    await gateway.finish(video["id"])
    response = await task
    assert (response.status_code, response.json()["state"]) == (200, state)
    assert response.json() == (await gateway.client.get(f"{LUMA}/{video['id']}")).json()


async def test_a_create_that_waits_answers_when_its_time_is_up(start_gateway: StartGateway) -> None:
    async with start_gateway(dialects={"luma": {"hold_s": 0.02}}) as gateway:
        response = await gateway.client.post(SYNC, json=BOAT)
        assert (response.status_code, response.json()["state"]) == (200, "pending")
        assert (await gateway.finish(response.json()["id"]))["status"] == "completed"


async def test_a_create_that_waits_needs_a_free_place(start_gateway: StartGateway) -> None:
    async with start_gateway(max_waiting=1) as gateway:
        task, video_id = await held(gateway)
        refused = await gateway.client.post(SYNC, json=BOAT)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_waiting")
        assert len((await gateway.client.get("/v1/videos")).json()["data"]) == 1
        await gateway.finish(video_id)
        assert (await task).status_code == 200
        assert (await gateway.client.post(SYNC, json={})).status_code == 400  # the place is free again


async def test_a_job_goes_on_when_the_client_that_waits_leaves(gateway: Running) -> None:
    async with serve(gateway.app) as url, httpx.AsyncClient(headers={"authorization": f"Bearer {ALICE}"}) as client:
        task = asyncio.create_task(client.post(f"{url}{SYNC}", json=BOAT))
        await until(lambda: gateway.gateway.listener.waiters == 1)
        task.cancel()
        await until(lambda: gateway.gateway.listener.waiters == 0)
    [video] = (await gateway.client.get("/v1/videos")).json()["data"]
    assert (await gateway.finish(video["id"]))["status"] == "completed"


async def test_a_create_that_waits_shares_its_idempotency_key_with_one_that_does_not(gateway: Running) -> None:
    key = {"idempotency-key": "order 17"}
    created = await gateway.client.post(LUMA, json=BOAT, headers=key)
    task, video_id = await held(gateway, headers=key)
    await gateway.finish(video_id)
    response = await task
    assert (response.json()["id"], response.headers["idempotent-replayed"]) == (created.json()["id"], "true")


async def test_a_create_that_waits_answers_its_video_when_the_database_goes_away(
    gateway: Running, postgres: str, migrated: str
) -> None:
    """An error would make the client create another one."""
    task, video_id = await held(gateway)
    name = str(conninfo_to_dict(migrated)["dbname"])
    stop = f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
    async with await psycopg.AsyncConnection.connect(postgres, autocommit=True) as server:
        await server.execute(f"alter database {name} allow_connections false".encode())
        try:
            await server.execute(stop.encode())
            response = await task
        finally:
            await server.execute(f"alter database {name} allow_connections true".encode())
    assert (response.status_code, response.json()["id"], response.json()["state"]) == (200, video_id, "pending")
