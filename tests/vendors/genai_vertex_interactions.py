"""Google's `google-genai` 3 with Interactions at Vertex AI's fake, by a service account and by the metadata server of a
machine: a whole task, a failure, a cancel and refusals, as it reads them."""

import base64
import json
import os
from collections.abc import Callable
from typing import Any

import google.auth
from google import genai
from google.auth import compute_engine
from google.auth.exceptions import RefreshError
from google.genai import types

SHAPE = {"type": "video", "aspect_ratio": "16:9", "resolution": "720p", "duration": "8s", "delivery": "inline"}
ASKED: dict[str, Any] = {"model": "gemini-omni-1.1-flash", "background": True, "store": True}


def error_of(call: Callable[[], Any]) -> list[Any]:
    try:
        call()
    except RefreshError as error:
        return [type(error).__name__, error.args[0]]
    except Exception as error:  # the classes of its own errors are private
        return [type(error).__name__, getattr(error, "status_code", None)]
    return []


def client_of(**credentials: Any) -> genai.Client:
    options = types.HttpOptions(base_url=os.environ["URL"])
    return genai.Client(vertexai=True, project="my-proj", location="global", http_options=options, **credentials)


def main() -> None:
    client = client_of()
    machine = client_of(credentials=compute_engine.Credentials())
    another, _ = google.auth.load_credentials_from_file(os.environ["ANOTHER_ACCOUNT"])
    calls = client.interactions
    task = calls.create(input="a paper boat", response_format=SHAPE, **ASKED)
    words = [task.status]
    while task.status in ("queued", "in_progress"):
        task = calls.get(task.id)
        words.append(task.status)
    failed = calls.get(calls.create(input="a boat that fails", response_format=SHAPE, **ASKED).id)
    cancelled = calls.create(input="a paper boat", response_format=SHAPE, **ASKED)
    without_bucket = {**SHAPE, "delivery": "uri"}
    saw = {
        "words": [words[0], words[-1]],
        "type": task.output_video.mime_type,
        "bytes": len(base64.b64decode(task.output_video.data)),
        "failed": failed.status,
        "cancelled": calls.cancel(cancelled.id).status,
        "no bucket": error_of(lambda: calls.create(input="a boat", response_format=without_bucket, **ASKED)),
        "unknown task": error_of(lambda: calls.get("v1_unknown")),
        "on a machine": machine.interactions.get(task.id).status,
        "another account": error_of(lambda: client_of(credentials=another).interactions.get(cancelled.id)),
    }
    print(json.dumps(saw))


main()
