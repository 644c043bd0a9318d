"""Runway's client for Python at the fake: a whole task, a failure, a cancel and refusals, as it reads them."""

import json
import os
from collections.abc import Callable
from typing import Any

import httpx
from runwayml import APIStatusError, RunwayML

ASKED = {"model": "gen4.5", "ratio": "1280:720", "duration": 5}


def error_of(call: Callable[[], Any]) -> list[Any]:
    try:
        call()
    except APIStatusError as error:
        return [type(error).__name__, error.status_code, error.body]
    return []


def main() -> None:
    url = os.environ["URL"]
    client, stranger = (RunwayML(api_key=key, base_url=url, max_retries=0) for key in (os.environ["KEY"], "wrong"))
    made = client.text_to_video.create(**ASKED, prompt_text="a paper boat")
    words: list[str] = []
    while not words or words[-1] in ("PENDING", "RUNNING"):
        task = client.tasks.retrieve(made.id)
        words.append(task.status)
    failed = client.tasks.retrieve(client.text_to_video.create(**ASKED, prompt_text="a boat that fails").id)
    cancelled = client.text_to_video.create(**ASKED, prompt_text="a paper boat").id
    client.tasks.delete(cancelled)
    picture = client.uploads.create_ephemeral(file=("a.png", b"\x89PNG", "image/png")).uri
    first = client.image_to_video.create(
        **ASKED, prompt_text="it sails", prompt_image=[{"uri": picture, "position": "first"}]
    )
    without_version = RunwayML(api_key=os.environ["KEY"], base_url=url, max_retries=0, runway_version="2020-01-01")
    saw = {
        "estimated": made.estimated_cost.credits,
        "words": words,
        "cost": task.cost.credits,
        "bytes": len(httpx.get(task.output[0]).raise_for_status().content),
        "failed": [failed.status, failed.failure_code, failed.failure],
        "after a cancel": error_of(lambda: client.tasks.retrieve(cancelled)),
        "cancelled twice": error_of(lambda: client.tasks.delete(cancelled)),
        "upload": picture,
        "first frame": client.tasks.retrieve(first.id).status,
        "unknown field": error_of(
            lambda: client.text_to_video.create(**ASKED, prompt_text="a boat", extra_body={"foo": 1})
        )[:2],
        "another version": error_of(lambda: without_version.tasks.retrieve(made.id))[:2],
        "wrong key": error_of(lambda: stranger.text_to_video.create(**ASKED, prompt_text="a boat")),
    }
    print(json.dumps(saw))


main()
