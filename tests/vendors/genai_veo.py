"""Google's `google-genai` 2 with Veo at the fake: a whole task, a failure and refusals, as it reads them."""

import json
import os
from collections.abc import Callable
from typing import Any

from google import genai
from google.genai import errors, types

MODEL = "veo-3.1-generate-preview"


def error_of(call: Callable[[], Any]) -> list[Any]:
    try:
        call()
    except errors.APIError as error:
        return [type(error).__name__, error.code, error.status]
    return []


def client_of(key: str) -> genai.Client:
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=os.environ["URL"]))


def main() -> None:
    client = client_of(os.environ["KEY"])
    config = types.GenerateVideosConfig(aspect_ratio="16:9", resolution="720p", duration_seconds=8)
    task = client.models.generate_videos(model=MODEL, prompt="a paper boat", config=config)
    done = [task.done]
    while not task.done:
        task = client.operations.get(task)
        done.append(task.done)
    failed = client.operations.get(client.models.generate_videos(model=MODEL, prompt="a boat that fails"))
    unknown = types.GenerateVideosOperation(name=f"models/{MODEL}/operations/unknown")
    stranger = client_of("wrong")
    saw = {
        "polls": len(done),
        "done": [done[0], done[-1]],
        "bytes": len(client.files.download(file=task.response.generated_videos[0].video)),
        "failed": [failed.done, failed.error],
        "unknown task": error_of(lambda: client.operations.get(unknown)),
        "wrong key": error_of(lambda: stranger.models.generate_videos(model=MODEL, prompt="a paper boat")),
    }
    print(json.dumps(saw))


main()
