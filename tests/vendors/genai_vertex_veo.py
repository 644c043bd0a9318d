"""Google's `google-genai` with Veo at Vertex AI's fake, by a service account and by an API key: a whole task, a failure
and refusals, as it reads them."""

import json
import os
from collections.abc import Callable
from typing import Any

from google import genai
from google.genai import errors, types

MODEL = "veo-3.1-lite-generate-001"
CONFIG = types.GenerateVideosConfig(
    aspect_ratio="16:9",
    resolution="720p",
    duration_seconds=8,
    generate_audio=True,
    compression_quality="optimized",
    resize_mode="pad",
    labels={"team": "a"},
)
PICTURE = types.Image(image_bytes=b"\x89PNG", mime_type="image/png")


def error_of(call: Callable[[], Any]) -> list[Any]:
    try:
        call()
    except errors.APIError as error:
        return [type(error).__name__, error.code, error.status]
    return []


def client_of(**credentials: str) -> genai.Client:
    return genai.Client(vertexai=True, http_options=types.HttpOptions(base_url=os.environ["URL"]), **credentials)


def submit(client: genai.Client, prompt: str, image: Any = None, config: Any = None) -> Any:
    source = types.GenerateVideosSource(prompt=prompt, image=image)
    return client.models.generate_videos(model=MODEL, source=source, config=config)


def finished(client: genai.Client) -> tuple[Any, list[Any]]:
    """A finished task, and what each answer said of its end."""
    task = submit(client, "a paper boat", config=CONFIG)
    done = [task.done]
    while not task.done:
        task = client.operations.get(task)
        done.append(task.done)
    return task, done


def main() -> None:
    client = client_of(project="my-proj", location="us-central1")
    express, stranger = (client_of(api_key=key) for key in (os.environ["KEY"], "wrong"))
    task, done = finished(client)
    [made] = task.response.generated_videos
    failed = client.operations.get(submit(client, "a boat that fails"))
    last = types.GenerateVideosConfig(last_frame=PICTURE)
    first = client.operations.get(submit(client, "it sails", PICTURE, last))
    unknown = types.GenerateVideosOperation(name=task.name + "0")
    long = types.GenerateVideosConfig(resolution="1080p", duration_seconds=4)
    saw = {
        "name": task.name,
        "polls": len(done),
        "done": [done[0], done[-1]],
        "type": made.video.mime_type,
        "bytes": len(made.video.video_bytes),
        "failed": [failed.done, failed.error],
        "first and last frame": [first.done, first.error],
        "too short": error_of(lambda: submit(client, "a paper boat", config=long)),
        "unknown task": error_of(lambda: client.operations.get(unknown)),
        "express mode": len(finished(express)[0].response.generated_videos[0].video.video_bytes),
        "wrong key": error_of(lambda: submit(stranger, "a paper boat")),
    }
    print(json.dumps(saw))


main()
