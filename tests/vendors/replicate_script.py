"""Replicate's client for Python at the fake: a prediction, a failure, cancels, an upload and refusals, as it reads
them. It knows no aborted prediction."""

import io
import json
import os
from collections.abc import Callable
from typing import Any

import httpx
from replicate import Client
from replicate.exceptions import ReplicateError

MODEL = "kwaivgi/kling-v3-video"


def error_of(call: Callable[[], Any]) -> list[Any]:
    try:
        call()
    except ReplicateError as error:
        return [type(error).__name__, error.status, error.detail]
    except ValueError as error:  # the client's own model of an answer
        return [type(error).__name__]
    return []


def main() -> None:
    client, stranger = (
        Client(api_token=key, base_url=os.environ["URL"], timeout=httpx.Timeout(30))
        for key in (os.environ["KEY"], "wrong")
    )

    def make(prompt: str, **fields: Any) -> Any:
        return client.models.predictions.create(MODEL, {"prompt": prompt, "duration": 5, **fields})

    made = make("a paper boat")
    words: list[str] = []
    while not words or words[-1] in ("starting", "processing"):
        task = client.predictions.get(made.id)
        words.append(task.status)
    failed = client.predictions.get(make("a boat that fails").id)
    stopped = make("a paper boat")
    for _ in range(2):
        client.predictions.get(stopped.id)
    waiting = make("a paper boat")
    picture = io.BytesIO(b"\x89PNG")
    picture.name = "a.png"
    make("it sails", start_image=picture)
    saw = {
        "listed": len(client.predictions.list().results),
        "words": words,
        "bytes": len(httpx.get(str(task.output)).raise_for_status().content),
        "failed": [failed.status, failed.error],
        "canceled": client.predictions.cancel(stopped.id).status,
        "aborted": error_of(lambda: client.predictions.cancel(waiting.id)),
        "unknown": error_of(lambda: client.predictions.get("none"))[:2],
        "unknown field": error_of(lambda: make("a boat", foo=1)),
        "wrong key": error_of(lambda: stranger.models.predictions.create(MODEL, {"prompt": "a boat"}))[:2],
    }
    print(json.dumps(saw))


main()
