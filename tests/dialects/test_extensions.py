"""The dialects of other vendors: extensions of a video."""

from typing import Any

import pytest
from dialects.vendors import APILAPLAS, LUMA, SMALL, UNKNOWN_ID, stored
from fakes.apilaplas import FakeApilaplas
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import Running, StartGateway

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("dialect", ["luma", "apilaplas"])
async def test_a_video_is_extended_by_luma_and_apilaplas(gateway: Running, dialect: str) -> None:
    source = (await gateway.create(**SMALL))["id"]
    picture = "https://example.com/1.png"

    async def extend(video_id: str, **fields: Any) -> Any:
        if dialect == "luma":
            return await gateway.client.post(f"{LUMA}/{video_id}/extend", json={"user_prompt": "further", **fields})
        frames = {"frame0": {"type": "generation", "id": video_id}, "frame1": {"type": "image", "url": picture}}
        body = {"prompt": "further", "aspect_ratio": "1:1", "keyframes": frames, **fields}
        return await gateway.client.post(APILAPLAS, json=body)

    early = await extend(source)
    assert early.status_code == 400
    assert "queued" in early.json()["message"]
    assert (await extend(UNKNOWN_ID)).status_code == 404
    await gateway.finish(source)
    assert (await extend(source, model="sandbox/testcrad")).status_code == 404

    response = await extend(source, model="ray-2")
    assert response.status_code == (200 if dialect == "luma" else 201), response.text
    made = response.json()["id"]
    request = await stored(gateway, made)
    assert request.source is not None
    assert (request.operation, request.source.video_id, request.size) == ("extend", source, "320x240")
    assert request.model == "sandbox/testcard"
    if dialect == "apilaplas":
        assert response.json()["request"]["keyframes"] == {
            "frame0": {"type": "generation", "id": source},
            "frame1": {"type": "image", "url": picture},
        }
    done = await gateway.finish(made)
    assert (done["status"], done["remixed_from_video_id"]) == ("completed", source)


PICTURE = {"type": "image", "url": "https://example.com/0.png"}


def source(video_id: str) -> dict[str, str]:
    return {"type": "generation", "id": video_id}


async def test_a_generation_as_the_last_frame_is_extended_at_its_beginning(start_gateway: StartGateway) -> None:
    fake = FakeApilaplas(polls_until_working=0, polls_until_done=0)
    async with serve(fake) as url:
        up = {"kind": "apilaplas", "base_url": url, "api_key": KEY}
        async with start_gateway(providers={"up": up}, default_model="up/ray-2") as gateway:
            first = await gateway.create(model="up/ray-2", aspect_ratio="16:9")
            await gateway.finish(first["id"])
            for frames in ({"frame1": source(first["id"])}, {"frame0": PICTURE, "frame1": source(first["id"])}):
                response = await gateway.client.post(APILAPLAS, json={"prompt": "before", "keyframes": frames})
                assert response.status_code == 201, response.text
                assert response.json()["request"]["keyframes"] == frames
                done = await gateway.finish(response.json()["id"])
                assert (done["status"], done["remixed_from_video_id"]) == ("completed", first["id"])
                [attempt] = await gateway.attempts(first["id"])
                assert fake.submits[-1].json["keyframes"] == {**frames, "frame1": source(attempt.upstream_ref or "")}


@pytest.mark.parametrize("name", ["keyframes", "keywords"])
async def test_a_model_that_cannot_put_a_part_in_front_refuses_to(start_gateway: StartGateway, name: str) -> None:
    fake = FakeOpenAI(polls_until_working=0, polls_until_done=0)
    async with serve(fake) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}
        models = {"clip": {"routes": ["up/sora-2"], "unsupported": "drop"}}
        async with start_gateway(providers={"up": up}, models=models) as gateway:
            made = (await gateway.create(model="up/sora-2"))["id"]
            await gateway.finish(made)
            for model in (None, "clip"):
                body = {"prompt": "before", "model": model, name: {"frame1": source(made)}}
                response = await gateway.client.post(APILAPLAS, json=body)
                assert response.status_code == 400
                said = (
                    f"up/sora-2 cannot express {name}.frame1: it cannot prepend; it can edit, extend, generate, remix"
                )
                assert response.json()["message"] == said
            assert len((await gateway.client.get("/v1/videos")).json()["data"]) == 1
    assert len(fake.submits) == 1
