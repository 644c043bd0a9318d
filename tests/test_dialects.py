"""What is special about the doors of other vendors: their words, their fields, their ways of waiting."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import KEY, File, serve
from harness import ALICE, ORIGIN, Running, StartGateway
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app import settings
from app.db.models import Video
from app.dialects import configure
from app.video import VideoRequest

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
LUNOS, LUMEN, LUMA = "/v1/video/generations", "/v1/videos/generations", "/luma/generations"
APILAPLAS = "/v2/generate/video/luma-ai/generation"
SMALL = {"seconds": "1", "size": "320x240"}
NOBODYS = "video_" + "0" * 26


def fresh(**changed: Any) -> dict[str, Any]:
    return {"prompt": "a paper boat", "model": "sandbox/testcard", **changed}


async def stored(gateway: Running, video_id: str) -> VideoRequest:
    """The request as it was understood."""
    async with gateway.gateway.db.transaction() as session:
        video = await session.get(Video, video_id)
        assert video is not None
        return VideoRequest.model_validate(video.request)


async def asked(gateway: Running, path: str, body: dict[str, Any], **options: Any) -> VideoRequest:
    """What the gateway understands by this body."""
    response = await gateway.client.post(path, json=body, **options)
    assert response.status_code in (200, 201), response.text
    return await stored(gateway, response.json()["id"])


async def shown(gateway: Running, video_id: str) -> dict[str, Any]:
    """A video as each of the four shows it, its links without their signatures."""
    urls = {
        "lunos": f"{LUNOS}/{video_id}",
        "lumen": f"{LUMEN}/{video_id}",
        "luma": f"{LUMA}/{video_id}",
        "apilaplas": f"{APILAPLAS}?generation_id={video_id}",
    }
    found = {}
    for name, url in urls.items():
        response = await gateway.client.get(url)
        assert response.status_code == 200, response.text
        assert response.headers["cache-control"] == "no-store"
        found[name] = response.json()
    return {name: _plain(body) for name, body in found.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.partition("?")[0] if isinstance(value, str) and value.startswith("http") else value


def in_all_words(
    video_id: str, gateway: Running, *, lunos: Any, lumen: Any, luma: Any, apilaplas: Any
) -> dict[str, Any]:
    """The four objects of `SMALL` videos of the sandbox, given what differs from state to state."""
    at = f"{gateway.clock():%Y-%m-%dT%H:%M:%S}"
    nothing = dict.fromkeys(("failure_reason", "video", "video_raw", "thumbnail", "last_frame", "artifact"))
    return {
        "lunos": {"id": video_id, **lunos},
        "lumen": {"id": video_id, **lumen},
        "luma": {
            "id": video_id,
            "created_at": f"{at}.000000Z",
            "request": {"prompt": "a paper boat", "aspect_ratio": "4:3"},
            **nothing,
            **luma,
        },
        "apilaplas": {
            "id": video_id,
            "generation_type": "video",
            "failure_reason": None,
            "created_at": f"{at}.000Z",
            "assets": None,
            "video": None,
            "model": "sandbox/testcard",
            "request": {"prompt": "a paper boat", "aspect_ratio": "4:3", "loop": False, "keyframes": None},
            **apilaplas,
        },
    }


# States


async def test_the_whole_life_in_four_vocabularies(gateway: Running) -> None:
    video_id = (await gateway.create(**SMALL))["id"]
    born = gateway.clock.now

    async def check(**words: Any) -> None:
        found = await shown(gateway, video_id)
        now, gateway.clock.now = gateway.clock.now, born
        assert found == in_all_words(video_id, gateway, **words)
        gateway.clock.now = now

    await check(
        lunos={"status": "pending"},
        lumen={"status": "queued"},
        luma={"state": "pending"},
        apilaplas={"state": "queued"},
    )
    await gateway.worker.run_once()
    gateway.clock.advance(1)
    await gateway.worker.run_once()
    assert (await gateway.get(video_id))["status"] == "in_progress"
    await check(
        lunos={"status": "pending"},
        lumen={"status": "processing"},
        luma={"state": "processing"},
        apilaplas={"state": "dreaming"},
    )
    await gateway.finish(video_id)
    url = f"{ORIGIN}/media/{video_id}/0.mp4"
    film = {"url": url, "width": 320, "height": 240, "download_url": url}
    raw = {"url": url, "width": 320, "height": 240, "duration": 1.0, "media_type": "video"}
    done_at = f"{gateway.clock():%Y-%m-%dT%H:%M:%S}.000000Z"
    no_pictures = {"thumbnail": None, "last_frame": None}
    await check(
        lunos={"status": "completed", "video_url": url},
        lumen={"status": "succeeded", "data": [{"url": url}]},
        luma={
            "state": "completed",
            "video": film,
            "video_raw": raw,
            "artifact": {"video": film, "video_raw": raw, **no_pictures, "created_at": done_at},
        },
        apilaplas={"state": "completed", "assets": {"video": url}, "video": {"url": url}},
    )
    link = (await gateway.client.get(f"{LUNOS}/{video_id}")).json()["video_url"]
    assert (await gateway.bob.get(link)).content[4:8] == b"ftyp"


async def test_failed_and_cancelled_in_four_vocabularies(gateway: Running) -> None:
    failed = (await gateway.create(model="sandbox/fail", **SMALL))["id"]
    why = (await gateway.finish(failed))["error"]["message"]
    found = await shown(gateway, failed)
    assert found["lunos"] == {"id": failed, "status": "failed", "error": why}
    assert found["lumen"] == {"id": failed, "status": "failed", "error": {"message": why}}
    for name in ("luma", "apilaplas"):
        assert (found[name]["state"], found[name]["failure_reason"], found[name]["video"]) == ("failed", why, None)

    cancelled = (await gateway.create(**SMALL))["id"]
    await gateway.client.delete(f"/v1/videos/{cancelled}")
    found = await shown(gateway, cancelled)
    assert found["lunos"]["status"] == "failed"
    assert found["lumen"]["status"] == "cancelled"
    assert found["luma"]["state"] == found["apilaplas"]["state"] == "failed"


async def test_an_expired_video_stays_completed_with_a_dead_link(gateway: Running) -> None:
    video_id = (await gateway.create(media_retention=60, **SMALL))["id"]
    await gateway.finish(video_id)
    gateway.clock.advance(10_000)
    await gateway.worker.run_once()
    found = await shown(gateway, video_id)
    url = f"{ORIGIN}/media/{video_id}/0.mp4"
    assert found["lunos"] == {"id": video_id, "status": "completed", "video_url": url}
    assert found["lumen"] == {"id": video_id, "status": "succeeded", "data": [{"url": url}]}
    assert found["luma"]["video"] == {"url": url, "width": None, "height": None, "download_url": url}
    assert found["apilaplas"]["assets"] == {"video": url}
    link = (await gateway.client.get(f"{LUNOS}/{video_id}")).json()["video_url"]
    assert (await gateway.client.get(link)).status_code == 404


async def test_several_films_of_one_video(gateway: Running) -> None:
    video_id = (await gateway.create(n=2, **SMALL))["id"]
    await gateway.finish(video_id)
    urls = [f"{ORIGIN}/media/{video_id}/{index}.mp4" for index in range(2)]
    found = await shown(gateway, video_id)
    assert found["lumen"]["data"] == [{"url": url} for url in urls]
    assert found["lunos"]["video_url"] == urls[0]


async def test_what_each_door_answers_to_a_create(gateway: Running) -> None:
    at = gateway.clock()
    lunos = (await gateway.client.post(LUNOS, json=fresh())).json()
    operation = f"operations/sandbox/testcard/{lunos['id']}"
    assert lunos == {"id": lunos["id"], "operation_name": operation, "status": "pending"}
    lumen = (await gateway.client.post(LUMEN, json=fresh())).json()
    assert lumen == {"id": lumen["id"], "status": "processing", "created": int(at.timestamp())}
    luma = (await gateway.client.post(LUMA, json={"user_prompt": "a boat", "aspect_ratio": "9:16"})).json()
    assert luma == {
        "id": luma["id"],
        "state": "pending",
        "created_at": f"{at:%Y-%m-%dT%H:%M:%S}.000000Z",
        "request": {"prompt": "a boat", "aspect_ratio": "9:16"},
    }
    response = await gateway.client.post(APILAPLAS, json={"prompt": "a boat", "aspect_ratio": "21:9", "loop": True})
    assert response.status_code == 201
    assert response.json() == {
        "id": response.json()["id"],
        "generation_type": "video",
        "state": "queued",
        "failure_reason": None,
        "created_at": f"{at:%Y-%m-%dT%H:%M:%S}.000Z",
        "assets": None,
        "video": None,
        "model": "sandbox/testcard",
        "request": {"prompt": "a boat", "aspect_ratio": "21:9", "loop": True, "keyframes": None},
    }


# Fields


async def test_lunos_fields(gateway: Running) -> None:
    parameters = {"aspectRatio": "16:9", "negativePrompt": "rain"}
    body = fresh(parameters=parameters, response_format="mp4", user="u1", appId="shop")
    request = await asked(gateway, LUNOS, body, headers={"x-app-id": "Unknown"})
    assert (request.aspect_ratio, request.negative_prompt, request.user, request.app) == ("16:9", "rain", "u1", "shop")
    assert request.extra == {}
    request = await asked(gateway, LUNOS, fresh(parameters={}), headers={"x-app-id": "till"})
    assert request.app == "till"
    request = await asked(gateway, LUNOS, fresh(parameters=None))
    assert request.app is None


@pytest.mark.parametrize("prefix", ["video-op:user123:", "video-op%3Auser123%3A", "a/b:", ":"])
async def test_lunos_ids_may_have_colons(gateway: Running, prefix: str) -> None:
    video_id = (await gateway.create())["id"]
    assert (await gateway.client.get(f"{LUNOS}/{prefix}{video_id}")).json()["id"] == video_id
    for unknown in (f"{prefix}1703123456789", f"{prefix}{NOBODYS}"):
        response = await gateway.client.get(f"{LUNOS}/{unknown}")
        assert response.status_code == 404
        assert isinstance(response.json()["error"], str)


@pytest.mark.parametrize(
    ("path", "changed", "named"),
    [
        (LUNOS, {"model": None}, "model"),
        (LUNOS, {"response_format": "webm"}, "response_format"),
        (LUNOS, {"parameters": {"aspectRatio": "wide"}}, "aspect_ratio"),
        (LUNOS, {"parameters": "16:9"}, "parameters"),
        (LUNOS, {"n": 4}, "n is not a field of this call"),
        (LUMEN, {"model": None}, "model"),
        (LUMEN, {"duration": 3}, "duration"),
        (LUMEN, {"duration": 4.5}, "duration"),
        (LUMEN, {"duration": True}, "duration"),
        (LUMEN, {"duration": "5s"}, "duration"),
        (LUMEN, {"seconds": 5}, "seconds is not a field of this call"),
        (LUMEN, {"resolution": "big"}, "resolution"),
        (LUMEN, {"image_url": "ftp://example.com/a.png"}, "image_url"),
        (LUMEN, {"reference_images": ["a.png"]}, "reference_images"),
        (LUMEN, {"webhook_url": "https://example.com/hook"}, "webhook_secret"),
        (LUMEN, {"webhook_url": "example.com", "webhook_secret": "s"}, "webhook_url"),
        (LUMA, {"user_prompt": None}, "user_prompt"),
        (LUMA, {"image_url": "not a picture"}, "image_url"),
        (LUMA, {"image_url": {"file_id": "f"}}, "image_url"),
        (LUMA, {"notify_hook": "ftp://example.com"}, "notify_hook"),
        (LUMA, {"aspect_ratio": "19x9"}, "aspect_ratio"),
        (LUMA, {"duration": "long"}, "duration"),
        (APILAPLAS, {"callback_url": "//example.com"}, "callback_url"),
        (APILAPLAS, {"generation_type": "image"}, "generation_type"),
        (APILAPLAS, {"keyframes": {"frame0": {"type": "image"}}}, "keyframes.frame0.url"),
        (APILAPLAS, {"keyframes": {"frame0": {"type": "generation"}}}, "keyframes.frame0.id"),
        (APILAPLAS, {"keyframes": {"frame0": {"type": "film", "url": "https://example.com"}}}, "keyframes.frame0"),
        (APILAPLAS, {"keyframes": {"frame2": {"type": "image", "url": "https://example.com"}}}, "keyframes.frame2"),
        (APILAPLAS, {"keyframes": {"frame1": {"type": "generation", "id": NOBODYS}}}, "keyframes.frame1"),
    ],
)
async def test_fields_that_are_refused(gateway: Running, path: str, changed: dict[str, Any], named: str) -> None:
    start = {"user_prompt": "a boat"} if path == LUMA else fresh()
    body = {name: value for name, value in {**start, **changed}.items() if value is not None}
    response = await gateway.client.post(path, json=body)
    assert response.status_code == 400, response.text
    assert named in response.text
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []


async def test_lumen_has_two_names_for_each_input(gateway: Running) -> None:
    first = {
        "image_url": "https://example.com/1.png",
        "last_image_url": "https://example.com/2.png",
        "reference_image_urls": ["https://example.com/3.png", "https://example.com/4.png"],
        "reference_video_url": "https://example.com/5.mp4",
    }
    other = {
        "first_frame_url": "https://example.com/6.png",
        "last_frame_url": "https://example.com/7.png",
        "reference_images": ["https://example.com/8.png"],
        "video_url": "https://example.com/9.mp4",
    }

    def urls(request: VideoRequest) -> list[str | None]:
        assert request.first_frame
        assert request.last_frame
        assert request.reference_video
        pictures = [request.first_frame, request.last_frame, *request.reference_images, request.reference_video]
        return [picture.url for picture in pictures]

    by_number = "https://example.com/{}".format
    assert urls(await asked(gateway, LUMEN, fresh(**first))) == [
        by_number(name) for name in ("1.png", "2.png", "3.png", "4.png", "5.mp4")
    ]
    second = [by_number(name) for name in ("6.png", "7.png", "8.png", "9.mp4")]
    assert urls(await asked(gateway, LUMEN, fresh(**other))) == second
    assert urls(await asked(gateway, LUMEN, fresh(**dict.fromkeys(first, ""), **other))) == second
    both = await asked(gateway, LUMEN, fresh(**other, **first))
    assert urls(both) == urls(await asked(gateway, LUMEN, fresh(**first)))


async def test_lumen_sizes_lengths_and_sound(gateway: Running) -> None:
    body = fresh(resolution="1080p", aspect_ratio="9:16", duration="5", generate_audio=False)
    request = await asked(gateway, LUMEN, body)
    assert (request.size, request.seconds, request.generate_audio) == ("1080x1920", 5, False)


async def test_lumen_defaults_are_those_of_the_model_that_is_asked(gateway: Running) -> None:
    request = await asked(gateway, LUMEN, fresh())
    assert (request.seconds, request.generate_audio) == (4, None)  # the sandbox's length, not Lumen's


async def test_luma_fields(gateway: Running) -> None:
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


@pytest.mark.parametrize("path", [LUMA, APILAPLAS])
@pytest.mark.parametrize("form", ["url", "data", "bare", "lines"])
async def test_pictures_in_every_form(start_gateway: StartGateway, path: str, form: str) -> None:
    encoded = base64.b64encode(PNG).decode()
    picture = {
        "url": "https://example.com/a.png",
        "data": f"data:image/png;base64,{encoded}",
        "bare": encoded,
        "lines": "\r\n".join(encoded[start : start + 40] for start in range(0, len(encoded), 40)) + "\n",
    }[form]
    body: dict[str, Any] = {"user_prompt": "a boat", "image_end_url": picture}
    if path == APILAPLAS:
        body = {"prompt": "a boat", "keyframes": {"frame0": None, "frame1": {"type": "image", "url": picture}}}
    fake = FakeOpenAI()
    async with serve(fake) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}
        async with start_gateway(providers={"up": up}, default_model="up/sora-2") as gateway:
            response = await gateway.client.post(path, json=body)
            await gateway.worker.run_once()
            assert response.status_code in (200, 201)
    sent = fake.submits[-1].fields["last_frame"]
    assert sent == ({"image_url": picture} if form == "url" else File.of("upload.png", "image/png", PNG))


async def test_apilaplas_fields(gateway: Running) -> None:
    frames = {
        "frame0": {"type": "image", "url": "https://example.com/0.png"},
        "frame1": {"type": "image", "url": "https://example.com/1.png"},
    }
    nulls = dict.fromkeys(("generation_type", "callback_url", "resolution"))
    body = {"prompt": "a boat", "aspect_ratio": "21:9", "duration": "5s", "keyframes": frames, "loop": False, **nulls}
    response = await gateway.client.post(APILAPLAS, json={**body, "concepts": [{"key": "dolly"}], "model": "ray-2"})
    assert response.json()["request"]["keyframes"] == frames
    request = await stored(gateway, response.json()["id"])
    assert (request.aspect_ratio, request.seconds, request.loop) == ("7:3", 5, None)
    assert request.extra == {"concepts": [{"key": "dolly"}]}


async def test_webhooks_are_kept_in_each_vendors_style(gateway: Running) -> None:
    address = "https://hooks.example.com/done"
    kept = [
        await asked(gateway, LUMEN, fresh(webhook_url=address, webhook_secret="hush")),
        await asked(gateway, LUMA, {"user_prompt": "a boat", "notify_hook": address}),
        await asked(gateway, APILAPLAS, fresh(callback_url=address)),
    ]
    found = [request.webhook for request in kept if request.webhook is not None]
    assert [(hook.style, hook.url, hook.secret) for hook in found] == [
        ("lumen", address, "hush"),
        ("luma", address, None),
        ("apilaplas", address, None),
    ]
    assert {hook.origin for hook in found} == {ORIGIN}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (LUMEN, {"webhook_url": "{}", "webhook_secret": "your-secret", "duration": 4}),
        (LUMA, {"notify_hook": "{}", "duration": "1s"}),
        (APILAPLAS, {"callback_url": "{}", "duration": "1s"}),
    ],
)
@pytest.mark.parametrize("model", ["sandbox/testcard", "sandbox/fail"])
async def test_a_receiver_is_sent_the_answer_to_a_get(
    gateway: Running, path: str, fields: dict[str, Any], model: str
) -> None:
    received: list[tuple[dict[str, str], bytes]] = []

    async def receiver(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        received.append((dict(request.headers), await request.body()))
        await Response()(scope, receive, send)

    async with serve(receiver) as url:
        given = {name: value.format(url) if isinstance(value, str) else value for name, value in fields.items()}
        body = {"user_prompt" if path == LUMA else "prompt": "a boat", "model": model, "resolution": "240p"}
        created = await gateway.client.post(path, json={**body, "aspect_ratio": "4:3", **given})
        video_id = created.json()["id"]
        await gateway.finish(video_id)
        await gateway.worker.run_once()
        where = f"{APILAPLAS}?generation_id={video_id}" if path == APILAPLAS else f"{path}/{video_id}"
        shown = await gateway.client.get(where)
    [(headers, sent)] = received
    assert json.loads(sent) == shown.json()
    if path == LUMEN:
        digest = hmac.new(b"your-secret", sent, hashlib.sha256).hexdigest()
        assert headers["x-lumen-signature"] == f"sha256={digest}"
        assert int(headers["x-lumen-timestamp"]) == int(gateway.clock().timestamp())


# Models


async def test_the_model_behind_a_door(start_gateway: StartGateway) -> None:
    doors = {"luma": {"model": "cards"}, "apilaplas": {"model": "sandbox/slow"}}
    aliases = {"cards": {"routes": ["sandbox/testcard"]}, "ray-2": {"routes": ["sandbox/fail"]}}
    up = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": KEY}
    values: dict[str, Any] = {"providers": {"up": up}, "models": aliases}
    async with start_gateway(dialects=doors, **values) as gateway:
        assert (await asked(gateway, LUMA, {"user_prompt": "p"})).model == "cards"
        assert (await asked(gateway, LUMA, {"user_prompt": "p", "model_name": "ray-v2"})).model == "cards"
        assert (await asked(gateway, LUMA, {"user_prompt": "p", "model_name": "ray-2"})).model == "ray-2"
        assert (await asked(gateway, LUMA, {"user_prompt": "p", "model": "up/any"})).model == "up/any"
        assert (await asked(gateway, APILAPLAS, {"prompt": "p"})).model == "sandbox/slow"
        assert (await asked(gateway, APILAPLAS, {"prompt": "p", "model": "ray-1-6"})).model == "sandbox/slow"
        response = await gateway.client.post(APILAPLAS, json={"prompt": "p", "model": "sora-9"})
        assert response.status_code == 404
    async with start_gateway(default_model="sandbox/slow", **values) as gateway:
        assert (await asked(gateway, LUMA, {"user_prompt": "p"})).model == "sandbox/slow"
    async with start_gateway(**values) as gateway:
        response = await gateway.client.post(LUMA, json={"user_prompt": "p"})
        assert response.status_code == 400
        assert "GATEWAY_DIALECTS__LUMA__MODEL" in response.json()["message"]
        response = await gateway.client.post(APILAPLAS, json={"prompt": "p"})
        assert response.json()["statusCode"] == "400"
        assert "GATEWAY_DIALECTS__APILAPLAS__MODEL" in response.json()["message"]


def test_doors_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_DIALECTS__LUMA__MODEL", "gptge/luma")
    assert configure(settings.load())["luma"].model_dump() == {"model": "gptge/luma"}
    monkeypatch.setenv("GATEWAY_DIALECTS__LUNOS__MODEL", "x")
    with pytest.raises(settings.ConfigurationError, match="GATEWAY_DIALECTS__LUNOS"):
        configure(settings.load())


# Going on from a video


@pytest.mark.parametrize("door", ["luma", "apilaplas"])
async def test_an_extension(gateway: Running, door: str) -> None:
    source = (await gateway.create(**SMALL))["id"]
    picture = "https://example.com/1.png"

    async def extend(video_id: str, **fields: Any) -> Any:
        if door == "luma":
            return await gateway.client.post(f"{LUMA}/{video_id}/extend", json={"user_prompt": "further", **fields})
        frames = {"frame0": {"type": "generation", "id": video_id}, "frame1": {"type": "image", "url": picture}}
        body = {"prompt": "further", "aspect_ratio": "1:1", "keyframes": frames, **fields}
        return await gateway.client.post(APILAPLAS, json=body)

    early = await extend(source)
    assert early.status_code == 400
    assert "queued" in early.json()["message"]
    assert (await extend(NOBODYS)).status_code == 404
    await gateway.finish(source)
    assert (await extend(source, model="sandbox/testcrad")).status_code == 404

    response = await extend(source, model="ray-2")
    assert response.status_code == (200 if door == "luma" else 201), response.text
    made = response.json()["id"]
    request = await stored(gateway, made)
    assert request.source is not None
    assert (request.operation, request.source.video_id, request.size) == ("extend", source, "320x240")
    assert request.model == "sandbox/testcard"
    if door == "apilaplas":
        assert response.json()["request"]["keyframes"] == {
            "frame0": {"type": "generation", "id": source},
            "frame1": {"type": "image", "url": picture},
        }
    done = await gateway.finish(made)
    assert (done["status"], done["remixed_from_video_id"]) == ("completed", source)


# Many at once, and waiting


async def test_many_tasks_of_luma(gateway: Running) -> None:
    ids = [(await gateway.create(**SMALL))["id"] for _ in range(3)]
    theirs = (await gateway.bob.post(LUMA, json={"user_prompt": "p"})).json()["id"]
    response = await gateway.client.post("/luma/tasks", json={"ids": [ids[2], NOBODYS, theirs, ids[0], "x", ids[0]]})
    assert [task["id"] for task in response.json()] == [ids[2], ids[0]]
    assert response.json()[1] == (await gateway.client.get(f"{LUMA}/{ids[0]}")).json()
    form = {"ids[]": (None, ids[1])}
    assert len((await gateway.client.post("/luma/tasks", files=form)).json()) == 1
    refused: list[dict[str, Any]] = [{}, {"ids": []}, {"ids": "x"}, {"ids": ["x"] * 101}, {"ids": [1]}]
    for wrong in refused:
        assert (await gateway.client.post("/luma/tasks", json=wrong)).status_code == 400
    assert (await gateway.bob.post("/luma/tasks", json={"ids": ids})).json() == []


async def test_many_generations_of_apilaplas(gateway: Running) -> None:
    ids = [(await gateway.create(**SMALL))["id"] for _ in range(3)]
    theirs = (await gateway.bob.post(LUMA, json={"user_prompt": "p"})).json()["id"]
    many = f"{APILAPLAS}s"
    for query in (
        f"generation_ids[]={ids[0]}&generation_ids[]={ids[1]}&generation_ids[]={NOBODYS}&generation_ids[]={theirs}",
        f"generation_ids%5B%5D={ids[0]}&generation_ids%5B%5D={ids[1]}",
        f"generation_ids[0]={ids[0]}&generation_ids[1]={ids[1]}",
        f"generation_ids={ids[0]},%20{ids[1]},x,{ids[0]}",
        f"generation_ids={ids[0]}&generation_ids={ids[1]}",
    ):
        response = await gateway.client.get(f"{many}?{query}")
        assert [one["id"] for one in response.json()] == ids[:2], query
    assert response.json()[0] == (await gateway.client.get(f"{APILAPLAS}?generation_id={ids[0]}")).json()
    assert (await gateway.client.get(f"{many}?generation_ids={NOBODYS}")).json() == []
    for wrong in ("", "?generation_ids=", "?generation_ids=" + ",".join(f"x{n}" for n in range(101))):
        assert (await gateway.client.get(f"{many}{wrong}")).status_code == 400, wrong
    assert (await gateway.client.get(APILAPLAS)).status_code == 400


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  many things ring; none of them is ours to watch
            await asyncio.sleep(0)


@pytest.mark.parametrize("key", ["state", "status"])
async def test_a_get_that_names_a_state_is_held(gateway: Running, key: str) -> None:
    video_id = (await gateway.create(**SMALL))["id"]
    listener = gateway.gateway.listener

    def read(state: str) -> "asyncio.Task[Any]":
        return asyncio.create_task(
            gateway.client.get(APILAPLAS, params={"generation_id": video_id, **({key: state} if state else {})})
        )

    for state in ("", "queued"):
        assert (await read(state)).json()["state"] == "queued"
    held = [read("dreaming"), read("completed")]
    await until(lambda: listener.waiters == 2)
    await gateway.worker.run_once()
    gateway.clock.advance(1)
    await gateway.worker.run_once()
    assert (await held[0]).json()["state"] == "dreaming"
    assert not held[1].done()
    assert (await read("dreaming")).json()["state"] == "dreaming"
    await gateway.finish(video_id)
    assert (await held[1]).json()["state"] == "completed"
    for state in ("queued", "dreaming", "completed"):
        assert (await read(state)).json()["state"] == "completed"
    assert listener.waiters == 0


async def test_a_failure_is_above_all_states(gateway: Running) -> None:
    video_id = (await gateway.create(model="sandbox/reject"))["id"]
    held = asyncio.create_task(gateway.client.get(APILAPLAS, params={"generation_id": video_id, "state": "completed"}))
    await until(lambda: gateway.gateway.listener.waiters == 1)
    await gateway.worker.run_once()
    assert (await held).json()["state"] == "failed"


async def test_many_are_held_until_all_are_there(gateway: Running) -> None:
    quick, slow, gone = [
        (await gateway.create(model=model, **SMALL))["id"]
        for model in ("sandbox/testcard", "sandbox/slow", "sandbox/slow")
    ]
    params = {"generation_ids": f"{slow},{gone},{quick},{NOBODYS}", "state": "completed"}
    held = asyncio.create_task(gateway.client.get(f"{APILAPLAS}s", params=params))
    await until(lambda: gateway.gateway.listener.waiters == 1)
    await gateway.finish(quick)
    await gateway.client.delete(f"/v1/videos/{gone}")
    await gateway.client.delete(f"/v1/videos/{gone}")
    assert not held.done()
    await gateway.finish(slow)
    assert [(one["id"], one["state"]) for one in (await held).json()] == [(slow, "completed"), (quick, "completed")]


async def test_the_time_is_up(start_gateway: StartGateway) -> None:
    async with start_gateway(dialects={"apilaplas": {"hold_s": 0.02}}) as gateway:
        ids = [(await gateway.create())["id"] for _ in range(2)]
        one = await gateway.client.get(APILAPLAS, params={"generation_id": ids[0], "state": "completed"})
        assert (one.status_code, one.json()["state"]) == (200, "queued")
        many = await gateway.client.get(f"{APILAPLAS}s", params={"generation_ids": ",".join(ids), "state": "dreaming"})
        assert [one["state"] for one in many.json()] == ["queued", "queued"]
    assert configure(settings.load())["apilaplas"].model_dump() == {"model": None, "hold_s": 30}
    with pytest.raises(settings.ConfigurationError, match="GATEWAY_DIALECTS__APILAPLAS__HOLD_S"):
        configure(settings.load(dialects={"apilaplas": {"hold_s": 31}}))


@pytest.mark.parametrize("key", ["state", "status"])
@pytest.mark.parametrize("word", ["failed", "streaming", "COMPLETED", "completed,failed", " "])
async def test_words_that_cannot_be_waited_for(gateway: Running, key: str, word: str) -> None:
    video_id = (await gateway.create())["id"]
    for path, name in ((APILAPLAS, "generation_id"), (f"{APILAPLAS}s", "generation_ids")):
        response = await gateway.client.get(path, params={name: video_id, key: word})
        assert response.status_code == 400
        assert response.json()["message"].startswith("state: ")


async def test_an_error_of_apilaplas_names_its_path_and_request(gateway: Running) -> None:
    response = await gateway.client.get(APILAPLAS, params={"generation_id": "x", "state": "completed"})
    body = response.json()
    assert response.status_code == 404
    assert (body["path"], body["requestId"]) == (APILAPLAS, response.headers["x-request-id"])
    assert body["statusCode"] == "404"
    assert body["timestamp"].endswith("Z")


# Both sides of the wire


@pytest.fixture
async def looped(start_gateway: StartGateway) -> AsyncIterator[Running]:
    """A gateway whose own adapters for the four vendors call its own doors, behind which is the sandbox."""
    apps: list[Any] = []

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        await apps[0](scope, receive, send)

    async with serve(door) as url:
        vendors = {kind: {"base_url": url, "api_key": ALICE} for kind in ("lunos", "lumen", "gptge", "apilaplas")}
        cards = {"routes": ["sandbox/testcard"]}
        names = ("google/veo-3.0-generate-preview", "seedance-2", "ray-1-6")
        async with start_gateway(
            providers={**vendors, "sandbox": {"testcard_s": 0}},
            models=dict.fromkeys(names, cards),
            default_model="sandbox/testcard",
        ) as gateway:
            apps.append(gateway.app)
            yield gateway


@pytest.mark.parametrize(
    "model", ["lunos/google/veo-3.0-generate-preview", "lumen/seedance-2", "gptge/luma", "apilaplas/ray-1-6"]
)
async def test_our_adapters_understand_our_doors(looped: Running, model: str) -> None:
    video = await looped.create(model=model)
    done = await looped.finish(video["id"])
    assert done["status"] == "completed", done
    assert done["output"]["duration_seconds"] in (4, 5)
    if not model.startswith("lu"):
        again = {"video": {"id": video["id"]}, "prompt": "further", "seconds": "4"}
        longer = (await looped.client.post("/v1/videos/extensions", json=again)).json()
        assert (await looped.finish(longer["id"]))["status"] == "completed"


async def test_our_adapters_read_why_something_failed(looped: Running) -> None:
    looped.gateway.router.aliases["seedance-2"].routes[:] = ["sandbox/fail"]
    done = await looped.finish((await looped.create(model="lumen/seedance-2"))["id"])
    assert done["status"] == "failed"
    assert "always fails" in done["error"]["message"]
