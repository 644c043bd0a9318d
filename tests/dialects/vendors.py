"""Paths and requests of the dialects of other vendors."""

import asyncio
from collections.abc import Callable
from typing import Any

from harness import Running

from app.db.models import Video
from app.video import VideoRequest

LUNOS, LUMEN, LUMA = "/v1/video/generations", "/v1/videos/generations", "/luma/generations"
APILAPLAS, APILAPLAS_V1 = "/v2/generate/video/luma-ai/generation", "/luma-ai/generations"
SMALL = {"seconds": "1", "size": "320x240"}
UNKNOWN_ID = "video_" + "0" * 26


def fresh(**changed: Any) -> dict[str, Any]:
    return {"prompt": "a paper boat", "model": "sandbox/testcard", **changed}


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # many things ring; none of them is ours to watch
            await asyncio.sleep(0)


async def stored(gateway: Running, video_id: str) -> VideoRequest:
    """The stored request of a video."""
    async with gateway.gateway.db.transaction() as session:
        video = await session.get(Video, video_id)
        assert video is not None
        return VideoRequest.model_validate(video.request)


async def asked(gateway: Running, path: str, body: dict[str, Any], **options: Any) -> VideoRequest:
    """The request as the gateway reads it from this body."""
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
