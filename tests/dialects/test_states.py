"""The dialects of other vendors: states and links of a video, from create to expiry."""

from typing import Any

import pytest
from dialects.vendors import APILAPLAS, LUMA, LUMEN, LUNOS, SMALL, fresh, shown
from harness import ORIGIN, Running

pytestmark = pytest.mark.anyio


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


async def test_a_videos_life_is_shown_in_four_vocabularies(gateway: Running) -> None:
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
    playable = {"url": url, "width": 320, "height": 240, "download_url": url}
    raw = {"url": url, "width": 320, "height": 240, "duration": 1.0, "media_type": "video"}
    done_at = f"{gateway.clock():%Y-%m-%dT%H:%M:%S}.000000Z"
    picture = {"url": f"{ORIGIN}/media/{video_id}/0.thumbnail.webp", "width": 320, "height": 240, "media_type": "image"}
    await check(
        lunos={"status": "completed", "video_url": url},
        lumen={"status": "succeeded", "data": [{"url": url}]},
        luma={
            "state": "completed",
            "video": playable,
            "video_raw": raw,
            "thumbnail": picture,
            "artifact": {
                "video": playable,
                "video_raw": raw,
                "thumbnail": picture,
                "last_frame": None,
                "created_at": done_at,
            },
        },
        apilaplas={"state": "completed", "assets": {"video": url}, "video": {"url": url}},
    )
    link = (await gateway.client.get(f"{LUNOS}/{video_id}")).json()["video_url"]
    assert (await gateway.bob.get(link)).content[4:8] == b"ftyp"


async def test_failures_and_cancellations_are_shown_in_four_vocabularies(gateway: Running) -> None:
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
    assert found["luma"]["thumbnail"] is None
    assert found["apilaplas"]["assets"] == {"video": url}
    link = (await gateway.client.get(f"{LUNOS}/{video_id}")).json()["video_url"]
    assert (await gateway.client.get(link)).status_code == 404


async def test_several_outputs_of_one_video_are_shown(gateway: Running) -> None:
    video_id = (await gateway.create(n=2, **SMALL))["id"]
    await gateway.finish(video_id)
    urls = [f"{ORIGIN}/media/{video_id}/{index}.mp4" for index in range(2)]
    found = await shown(gateway, video_id)
    assert found["lumen"]["data"] == [{"url": url} for url in urls]
    assert found["lunos"]["video_url"] == urls[0]


async def test_each_dialect_answers_a_create_in_its_own_shape(gateway: Running) -> None:
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
