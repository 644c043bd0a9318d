"""fal's client for Python at the fake: a whole task, a failure, a cancel and refusals, as it reads them."""

import json
import os
from collections.abc import Callable
from typing import Any

import fal_client
import httpx

MODEL = "bytedance/seedance-2.0/text-to-video"
ASKED = {"prompt": "a paper boat", "duration": "5", "resolution": "720p"}


def error_of(call: Callable[[], Any]) -> list[Any]:
    try:
        call()
    except fal_client.FalClientHTTPError as error:
        return [error.status_code, error.error_type, error.message]
    return []


def main() -> None:
    client = fal_client.SyncClient(key=os.environ["KEY"])
    task = client.submit(MODEL, ASKED)
    events = [type(event).__name__ for event in task.iter_events(interval=0.01)]
    found = task.get(interval=0.01)["video"]
    failed = client.submit(MODEL, {"prompt": "a boat that fails"})
    cancelled = client.submit(MODEL, ASKED)
    cancelled.cancel()
    ended = cancelled.status()
    stranger = fal_client.SyncClient(key="wrong")
    saw = {
        "events": events,
        "type": found["content_type"],
        "bytes": len(httpx.get(found["url"]).raise_for_status().content),
        "declared": found["file_size"],
        "failed": error_of(lambda: failed.get(interval=0.01)),
        "cancelled": [type(ended).__name__, ended.error_type, ended.error],
        "cancelled twice": error_of(cancelled.cancel),
        "unknown task": error_of(lambda: client.status(MODEL, "unknown")),
        "no prompt": error_of(lambda: client.submit(MODEL, {})),
        "wrong key": error_of(lambda: stranger.submit(MODEL, ASKED)),
    }
    print(json.dumps(saw))


main()
