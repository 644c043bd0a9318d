"""Driver of the `openai` package for Python."""

import io
import os
import warnings
from importlib.metadata import version
from typing import Any

from openai import OpenAI

from clients.steps import KEY, MODEL, PNG, URL, event, is_a_video, must, report, step

warnings.simplefilter("ignore")
ASKED: dict[str, Any] = {"model": MODEL, "prompt": "a paper boat on a pond", "seconds": "4", "size": "1280x720"}


def main() -> None:
    report("version", version("openai"))
    client = OpenAI(base_url=f"{URL}/v1", api_key=KEY)
    with step("create"):
        video = client.videos.create(**ASKED, extra_headers={"Idempotency-Key": os.urandom(8).hex()})
        must(video.status == "queued", video.status)
    with step("poll"):
        video = client.videos.poll(video.id, poll_interval_ms=500)
        must(video.status == "completed", f"{video.status} {video.error}")
    with step("download"):
        is_a_video(client.videos.download_content(video.id).read())
    with step("list"):
        must(video.id in [found.id for found in client.videos.list(limit=5)], "the list lacks the video")
    with step("picture"):
        picture = ("boat.png", io.BytesIO(PNG), "image/png")
        second = client.videos.create_and_poll(**ASKED, input_reference=picture, poll_interval_ms=500)
        must(second.status == "completed", f"{second.status} {second.error}")
    with step("delete"):
        must(client.videos.delete(video.id).deleted, "not deleted")
    if "EVENT" not in os.environ:
        report("webhook", "not tried")
        return
    with step("webhook"):
        body, headers, secret = event()
        must(str(client.webhooks.unwrap(body, headers, secret=secret).type) == "video.completed", "another type")


main()
