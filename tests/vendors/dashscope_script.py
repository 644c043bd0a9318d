"""Alibaba's dashscope client at the fake, with its older class and its newer one: a whole task, a failure, a cancel, a
list and refusals, as they read them."""

import json
import os
from collections.abc import Callable
from typing import Any

import dashscope
import httpx
from dashscope import Client, VideoSynthesis
from dashscope.v2.errors import DashScopeError

MODEL = "wan2.7-t2v"
PICTURE = "https://cdn.example/first.png"


def error_of(call: Callable[[], Any]) -> list[Any]:
    try:
        call()
    except DashScopeError as error:
        return [type(error).__name__, error.code, error.status_code]
    return []


def older(key: str) -> dict[str, Any]:
    """Readings of the class VideoSynthesis, which raises no errors."""
    config = {"api_key": key}
    ref = VideoSynthesis.async_call(model=MODEL, prompt="a paper boat", resolution="720P", **config).output.task_id
    words: list[str] = []
    while not words or words[-1] in ("PENDING", "RUNNING"):
        words.append(VideoSynthesis.fetch(ref, **config).output.task_status)
    failed = VideoSynthesis.async_call(model=MODEL, prompt="a boat that fails", **config).output.task_id
    output = VideoSynthesis.fetch(failed, **config).output
    keyframes = {"first_frame_url": PICTURE, "last_frame_url": PICTURE}
    taken = VideoSynthesis.async_call(model="wan2.2-kf2v-flash", prompt="p", **keyframes, **config)
    mistaken = VideoSynthesis.async_call(model="wan2.7-i2v", prompt="p", img_url=PICTURE, **config)
    return {
        "older: words": words,
        "older: failed": [output.task_status, output.code, output.message],
        "older: frames of an older model": taken.output.task_status,
        "older: wrong generation": [mistaken.status_code, mistaken.code],
    }


def newer(url: str, key: str) -> dict[str, Any]:
    clients = [Client(api_key=one, base_url=f"{url}/api/v1", max_retries=0) for one in (key, "wrong")]
    jobs, stranger = (client.videos.jobs for client in clients)
    asked = {"model": MODEL, "prompt": "a paper boat"}
    ref = jobs.create(**asked, resolution="720P", ratio="16:9", duration=7).task_id
    words: list[str] = []
    while not words or words[-1] in ("PENDING", "RUNNING"):
        job = jobs.fetch(ref)
        words.append(job.status)
    failed = jobs.create(model=MODEL, prompt="a boat that fails").task_id
    cancelled = jobs.create(**asked).task_id
    jobs.cancel(cancelled)
    running = jobs.create(**asked).task_id
    while jobs.fetch(running).status != "RUNNING":
        pass
    return {
        "words": words,
        "bytes": len(httpx.get(job.video_url).raise_for_status().content),
        "failed": error_of(lambda: jobs.fetch(failed)),
        "after a cancel": jobs.fetch(cancelled).status,
        "cancelled while it runs": error_of(lambda: jobs.cancel(running)),
        "first frame": jobs.create(model="wan2.7-i2v", prompt="p", image_url=PICTURE).status,
        "wrong generation": error_of(lambda: jobs.create(**asked, size="1280*720")),
        "unknown model": error_of(lambda: jobs.create(model="sora-2", prompt="p")),
        "unknown task": jobs.fetch("none").status,
        "wrong key": error_of(lambda: stranger.create(**asked)),
    }


def main() -> None:
    url, key = os.environ["URL"], os.environ["KEY"]
    dashscope.base_http_api_url = f"{url}/api/v1"
    print(json.dumps(older(key) | newer(url, key)))


main()
