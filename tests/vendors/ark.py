"""Volcengine's Ark runtime at the fake: a whole task, a failure, a cancel and refusals, as it reads them."""

import json
import os
from collections.abc import Callable
from typing import Any

import httpx
from volcenginesdkarkruntime import Ark
from volcenginesdkarkruntime._exceptions import ArkAPIStatusError

MODEL = "doubao-seedance-2-0-260128"


def error_of(call: Callable[[], Any]) -> list[Any]:
    try:
        call()
    except ArkAPIStatusError as error:
        return [type(error).__name__, error.code, error.param]
    return []


def said(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def main() -> None:
    url, key = os.environ["URL"], os.environ["KEY"]
    client, stranger = (Ark(api_key=one, base_url=f"{url}/api/v3") for one in (key, "wrong"))
    tasks = client.content_generation.tasks
    asked = {"model": MODEL, "content": said("a paper boat")}
    ref = tasks.create(**asked, resolution="480p", ratio="9:16", duration=7).id
    words: list[str] = []
    while not words or words[-1] in ("queued", "running"):
        task = tasks.get(task_id=ref)
        words.append(task.status)
    failed = tasks.get(task_id=tasks.create(model=MODEL, content=said("a boat that fails")).id)
    cancelled = tasks.create(**asked).id
    tasks.delete(task_id=cancelled)
    running = tasks.create(**asked).id
    while tasks.get(task_id=running).status != "running":
        pass
    saw = {
        "words": words,
        "shape": [task.resolution, task.ratio, task.duration],
        "tokens": task.usage.completion_tokens,
        "bytes": len(httpx.get(task.content.video_url).raise_for_status().content),
        "failed": [failed.status, failed.error.code, failed.error.message],
        "after a cancel": error_of(lambda: tasks.get(task_id=cancelled)),
        "cancelled while it runs": error_of(lambda: tasks.delete(task_id=running)),
        "no content": error_of(lambda: tasks.create(model=MODEL, content=[])),
        "unknown field": error_of(lambda: tasks.create(**asked, seed=7)),
        "wrong key": error_of(lambda: stranger.content_generation.tasks.create(**asked)),
    }
    print(json.dumps(saw))


main()
