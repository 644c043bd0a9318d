"""Settings of the upstream of the tests of jobs, and the stored files of a video."""

from typing import Any

from fakes.server import KEY
from harness import Running

from app.jobs import videos


def provider(base_url: str, **config: Any) -> dict[str, Any]:
    return {"kind": "openai", "base_url": base_url, "api_key": KEY, **config}


async def stored_keys(gateway: Running, video_id: str) -> list[str]:
    video = await videos.get_video(gateway.gateway.db, video_id, project_id=None)
    return [output["key"] for output in video.outputs]
