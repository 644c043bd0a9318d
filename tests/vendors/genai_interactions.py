"""Google's `google-genai` 3 with Interactions at the fake: a whole task, a failure, a cancel and refusals, as it reads
them."""

import base64
import json
import os
from collections.abc import Callable
from typing import Any

from google import genai
from google.genai import types

ASKED: dict[str, Any] = {
    "model": "gemini-omni-1.1-flash",
    "response_format": {"type": "video", "aspect_ratio": "16:9", "resolution": "720p", "duration": "8s"},
    "background": True,
    "store": True,
}


def error_of(call: Callable[[], Any]) -> list[Any]:
    try:
        call()
    except Exception as error:  # the classes of its errors are private
        return [type(error).__name__, getattr(error, "status_code", None)]
    return []


def client_of(key: str) -> genai.Client:
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=os.environ["URL"]))


def main() -> None:
    client = client_of(os.environ["KEY"])
    stranger = client_of("wrong")
    calls = client.interactions
    task = calls.create(input="a paper boat", **ASKED)
    words = [task.status]
    while task.status in ("queued", "in_progress"):
        task = calls.get(task.id)
        words.append(task.status)
    video = task.output_video
    content = base64.b64decode(video.data) if video.data else client.files.download(file=types.Video(uri=video.uri))
    failed = calls.get(calls.create(input="a boat that fails", **ASKED).id)
    cancelled = calls.create(input="a paper boat", **ASKED)
    saw = {
        "words": [words[0], words[-1]],
        "type": video.mime_type,
        "bytes": len(content),
        "failed": failed.status,
        "cancelled": calls.cancel(cancelled.id).status,
        "unknown task": error_of(lambda: calls.get("v1_unknown")),
        "wrong key": error_of(lambda: stranger.interactions.create(input="a paper boat", **ASKED)),
    }
    print(json.dumps(saw))


main()
