"""The apilaplas dialect: fields, many generations in one request, and reads that wait for a state."""

import asyncio
import re
from typing import Any

import pytest
from dialects.case import PICTURE_URL, DialectCase, Inputs, flat_message, has_picture, vendor_case
from dialects.vendors import APILAPLAS, APILAPLAS_V1, LUMA, SMALL, UNKNOWN_ID, asked, stored, until
from harness import Running, StartGateway

from app import settings
from app.dialects import configure

pytestmark = pytest.mark.anyio


def error_message(body: Any) -> str:
    assert body["path"].startswith(("/v2/", "/luma-ai"))
    assert body["requestId"].startswith("req_")
    assert re.fullmatch(r"4\d\d", body["statusCode"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])
    return flat_message("message", "path", "requestId", "statusCode", "timestamp")(body)


INPUTS = Inputs(
    prompt="prompt",
    structured=("keyframes", {"frame0": {"type": "image", "url": PICTURE_URL}}),
    keyed={"keyframes[frame0][type]": "image", "keyframes[frame0][url]": PICTURE_URL},
    read=has_picture,
    picture=lambda value: {"keyframes": {"frame0": {"type": "image", "url": value}}},
    picture_param="keyframes.frame0.url",
    picture_part="keyframes[frame0][url]",
)
CASES: dict[str, DialectCase] = {
    "/v2/": vendor_case(
        APILAPLAS,
        error_message,
        body={"prompt": "a paper boat", "aspect_ratio": "16:9"},
        get=f"{APILAPLAS}?generation_id={{id}}",
        created=201,
        inputs=INPUTS,
    ),
    "/luma-ai/": vendor_case(
        APILAPLAS_V1,
        error_message,
        body={"user_prompt": "a paper boat", "aspect_ratio": "16:9"},
        bad_body={"user_prompt": ""},
        get=f"{APILAPLAS}?generation_id={{id}}",
        created=201,
    ),
}


# Fields


async def test_apilaplas_fields_are_read(gateway: Running) -> None:
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


async def test_key_frames_are_read_under_the_name_of_the_prose(gateway: Running) -> None:
    frames = {"frame0": {"type": "image", "url": "https://example.com/0.png"}}
    request = await asked(gateway, APILAPLAS, {"prompt": "a boat", "keywords": frames, "keyframes": None})
    assert request.first_frame is not None
    assert request.first_frame.url == "https://example.com/0.png"
    assert request.extra == {}


@pytest.mark.parametrize("ratio", ["1:1", "16:9", "9:16", "4:3", "3:4", "21:9", "9:21", "19:9"])
async def test_every_documented_ratio_is_read(gateway: Running, ratio: str) -> None:
    response = await gateway.client.post(APILAPLAS, json={"prompt": "a boat", "aspect_ratio": ratio, "loop": True})
    assert response.status_code == 201
    shown = response.json()["request"]
    assert (shown["aspect_ratio"], shown["loop"]) == (ratio, True)


# Version 1


async def test_version_1_creates_reads_and_extends(gateway: Running) -> None:
    body = {"user_prompt": "a boat", "expand_prompt": True, "aspect_ratio": "16:9", "camera": "pan"}
    response = await gateway.client.post(APILAPLAS_V1, json=body)
    assert response.status_code == 201
    made = response.json()["id"]
    request = await stored(gateway, made)
    assert (request.prompt, request.expand_prompt, request.aspect_ratio) == ("a boat", True, "16:9")
    assert request.extra == {"camera": "pan"}
    path = f"{APILAPLAS_V1}/{made}/extend"
    early = await gateway.client.post(path, json={"user_prompt": "further"})
    assert (early.status_code, early.json()["path"]) == (400, path)
    await gateway.finish(made)
    longer = await gateway.client.post(path, json={"user_prompt": "further"})
    assert longer.status_code == 201
    request = await stored(gateway, longer.json()["id"])
    assert request.source is not None
    assert (request.operation, request.source.video_id) == ("extend", made)

    ids = [longer.json()["id"], made]
    for query in (f"ids[0]={ids[0]}&ids[1]={ids[1]}&ids[2]={UNKNOWN_ID}", f"ids%5B%5D={ids[0]}&ids={ids[1]}"):
        found = (await gateway.client.get(f"/luma-ai/generation?{query}")).json()
        assert [(one["id"], one["state"]) for one in found] == [(ids[0], "queued"), (made, "completed")]
    assert found[1] == (await gateway.client.get(f"{APILAPLAS}?generation_id={made}")).json()
    assert (await gateway.bob.get(f"/luma-ai/generation?ids[0]={made}")).json() == []
    assert (await gateway.bob.post(path, json={"user_prompt": "further"})).status_code == 404
    for wrong in ("", "?ids=", "?ids=" + ",".join(f"x{n}" for n in range(101))):
        refused = await gateway.client.get(f"/luma-ai/generation{wrong}")
        assert refused.status_code == 400
        assert refused.json()["message"].startswith("ids: expected 1 to 100 ids")


# Many at once, and waiting


async def test_many_generations_of_apilaplas_are_read_in_one_request(gateway: Running) -> None:
    ids = [(await gateway.create(**SMALL))["id"] for _ in range(3)]
    theirs = (await gateway.bob.post(LUMA, json={"user_prompt": "p"})).json()["id"]
    many = f"{APILAPLAS}s"
    for query in (
        f"generation_ids[]={ids[0]}&generation_ids[]={ids[1]}&generation_ids[]={UNKNOWN_ID}&generation_ids[]={theirs}",
        f"generation_ids%5B%5D={ids[0]}&generation_ids%5B%5D={ids[1]}",
        f"generation_ids[0]={ids[0]}&generation_ids[1]={ids[1]}",
        f"generation_ids={ids[0]},%20{ids[1]},x,{ids[0]}",
        f"generation_ids={ids[0]}&generation_ids={ids[1]}",
    ):
        response = await gateway.client.get(f"{many}?{query}")
        assert [one["id"] for one in response.json()] == ids[:2], query
    assert response.json()[0] == (await gateway.client.get(f"{APILAPLAS}?generation_id={ids[0]}")).json()
    assert (await gateway.client.get(f"{many}?generation_ids={UNKNOWN_ID}")).json() == []
    for wrong in ("", "?generation_ids=", "?generation_ids=" + ",".join(f"x{n}" for n in range(101))):
        assert (await gateway.client.get(f"{many}{wrong}")).status_code == 400, wrong
    assert (await gateway.client.get(APILAPLAS)).status_code == 400


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


async def test_a_failure_ends_every_wait(gateway: Running) -> None:
    video_id = (await gateway.create(model="sandbox/reject"))["id"]
    held = asyncio.create_task(gateway.client.get(APILAPLAS, params={"generation_id": video_id, "state": "completed"}))
    await until(lambda: gateway.gateway.listener.waiters == 1)
    await gateway.worker.run_once()
    assert (await held).json()["state"] == "failed"


async def test_a_get_of_many_is_held_until_all_have_the_state(gateway: Running) -> None:
    quick, slow, gone = [
        (await gateway.create(model=model, **SMALL))["id"]
        for model in ("sandbox/testcard", "sandbox/slow", "sandbox/testcard")
    ]
    params = {"generation_ids": f"{slow},{gone},{quick},{UNKNOWN_ID}", "state": "completed"}
    held = asyncio.create_task(gateway.client.get(f"{APILAPLAS}s", params=params))
    await until(lambda: gateway.gateway.listener.waiters == 1)
    await gateway.finish(quick)
    await gateway.finish(gone)
    await gateway.client.delete(f"/v1/videos/{gone}")
    assert not held.done()
    await gateway.finish(slow)
    assert [(one["id"], one["state"]) for one in (await held).json()] == [(slow, "completed"), (quick, "completed")]


async def test_a_held_get_answers_when_its_time_is_up(start_gateway: StartGateway) -> None:
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
async def test_states_that_cannot_be_waited_for_are_refused(gateway: Running, key: str, word: str) -> None:
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
