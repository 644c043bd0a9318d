"""The dialects of other vendors: extensions of a video."""

from typing import Any

import pytest
from dialects.vendors import APILAPLAS, LUMA, SMALL, UNKNOWN_ID, stored
from harness import Running

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
