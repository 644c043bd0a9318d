"""Report of a driver: one JSON line for each step. Runs in the environment of a client, so it imports nothing else."""

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

URL, KEY = os.environ["URL"], os.environ["KEY"]
MODEL = "sora-2"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAASCAIAAAC1qksFAAAAH0lEQVR42mMwaDhAU8QwasGoBaMWjFowasGoBfSwAAAEOzwuyeFWYQAAAABJRU5ErkJggg=="
)


def report(step: str, result: str) -> None:
    print(json.dumps({"step": step, "result": result}), flush=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Report "yes", or the reason why not. Later steps run all the same."""
    try:
        yield
    except Exception as error:
        report(name, f"no: {type(error).__name__}: {error}"[:300])
    else:
        report(name, "yes")


def event() -> tuple[bytes, dict[str, str], str]:
    """Body, headers and secret of a webhook that the gateway has sent."""
    with open(os.environ["EVENT"], encoding="utf-8") as file:
        given = json.load(file)
    return given["body"].encode(), given["headers"], given["secret"]


def must(condition: object, message: str) -> None:
    if not condition:
        raise ValueError(message)


def is_a_video(content: bytes) -> None:
    must(content[4:8] == b"ftyp", "the content is no video")
